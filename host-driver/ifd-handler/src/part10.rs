//! PC/SC part 10: what a reader with a PIN pad, or with something to say about itself, answers to `SCardControl`.
