//! How a phone and a host come to know each other: the QR text, the digits that people compare, the keys of a pair.
//!
//! Spec: SPEC.md section 8

mod attempts;
mod base32;
mod digits;
mod keys;
mod offer;
mod qr;

use std::time::Duration;

pub use attempts::{Attempts, TooManyTries};
pub use digits::{Digits, NONCE_LENGTH};
pub use keys::{PairKeys, PairKeysError};
pub use offer::{Offer, OfferError};
pub use qr::{QR_SCHEME, QrError, QrText};

pub(crate) use attempts::Attempt;
pub(crate) use digits::commitment;

/// A host's offer to pair may be used for this long.
pub const OFFER_LIFETIME: Duration = Duration::from_secs(120);

/// Failed pairings that a host allows within [`TRIES_WINDOW`].
pub const TRIES_LIMIT: usize = 3;

/// How long a failed pairing counts.
pub const TRIES_WINDOW: Duration = Duration::from_secs(10 * 60);

/// A pair that one side stored, and of which the other side never said that it did, is dropped after this. The stores
/// of both sides keep to it; see [`crate::link::Event::PairingDone`].
pub const UNCONFIRMED_PAIR_LIFETIME: Duration = Duration::from_secs(10 * 60);
