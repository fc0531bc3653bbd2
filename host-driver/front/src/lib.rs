//! The host's half of a card: what stands between a reader slot and the phone in it.
//!
//! A [`Front`] answers at once what the host can know by itself (power, resets, presence, parts of a chain, the windows
//! of a long response) and sends the rest to the phone as one logical command each. No program can tell it from the
//! card behind it: that is the rule which everything here has to keep, and the differential test checks it.
//!
//! Pure: no clock, no socket, no randomness. `handle_*` takes an event and the time, [`Front::poll_output`] gives what
//! is to be done, [`Front::poll_timeout`] says when [`Front::handle_timeout`] is due.
//!
//! Spec: SPEC.md sections 7 (messages) and 9 (sessions, request ids, epochs)
#![forbid(unsafe_code)]

mod card_state;
mod front;
mod knowledge;
mod output;
mod request;
mod session;
mod slot;
mod snapshot;

pub use front::{Config, Front};
pub use knowledge::Security;
pub use output::{Failure, FrontError, Output, PowerAction, Reply};
pub use request::PinEntry;

/// What is in the slot, as programs see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Number of the insertion: every new card session is a new card. Counts from 1 and never comes again.
    pub generation: u64,
    /// The answer to reset of the card, or `None` while the slot is empty.
    pub atr: Option<Vec<u8>>,
}
