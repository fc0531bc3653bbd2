//! The card as a pure state machine.
