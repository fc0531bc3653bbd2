//! Tables of APDUs against a whole card.
