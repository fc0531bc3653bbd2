//! What a phone and a host of Pocketcard say to each other.
//!
//! Nothing here reads a clock, a socket, a file or a random source: time is an argument ([`Timestamp`]), randomness a
//! trait ([`Entropy`]), and bytes go in and out of state machines that the caller drives. `SPEC.md` beside this crate
//! has numbered sections; the modules cite them.
//!
//! | Module | Holds | SPEC.md |
//! |---|---|---|
//! | [`fragment`], [`stream`] | cutting messages to what a radio or a socket carries | 4, 5 |
//! | [`channel`] | Noise handshakes, encrypted records, keys | 6 |
//! | [`messages`] | what travels in an open channel | 7 |
//! | [`apdu`], [`tlv`] | commands, responses, their chaining, data objects | 7 |
//! | [`snapshot`] | what a card says to everybody, in one piece | 7 |
//! | [`pairing`] | QR text, digits, the keys of a pair | 8 |
//! | [`link`] | the state machine that puts all of it in order; both ends drive it | 3, 6, 8 |
//! | [`advertising`], [`gatt`], [`l2cap`] | what a phone shows on the radio, and the channel it may offer there | 11 |
#![forbid(unsafe_code)]

pub mod advertising;
pub mod apdu;
pub mod channel;
pub mod entropy;
pub mod fragment;
pub mod gatt;
pub mod l2cap;
pub mod link;
pub mod messages;
pub mod pairing;
pub mod snapshot;
pub mod stream;
pub mod time;
pub mod tlv;

#[cfg(any(test, feature = "test-support"))]
pub mod test_support;

mod wipe;

pub use entropy::{Entropy, EntropyError};
pub use time::Timestamp;
