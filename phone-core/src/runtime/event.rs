use pocketcard_protocol::{link::CloseReason, pairing::Digits};

use crate::{card::CardEvent, traits::HostId};

/// Why a host is no longer connected.
pub use pocketcard_protocol::link::CloseReason as DisconnectReason;

/// What happened, for a user interface and a log. Holds no PIN, no key and no body of a command.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PhoneEvent {
    /// A paired host opened its channel.
    Connected {
        /// The host.
        host: HostId,
        /// Its name.
        name: String,
    },
    /// The channel of a paired host closed.
    Disconnected {
        /// The host.
        host: HostId,
        /// Its name.
        name: String,
        /// Why.
        reason: CloseReason,
    },
    /// A link closed before anybody was authenticated on it: an attempt from a host that is not paired, of another version, or
    /// with wrong keys.
    LinkRefused {
        /// Why.
        reason: CloseReason,
    },
    /// Ask the owner whether the computer shows the same digits; the answer goes to [`super::Phone::confirm_pairing`].
    PairingDigits {
        /// Six digits.
        digits: Digits,
        /// The host's name for itself.
        host_name: String,
        /// The host.
        host: HostId,
    },
    /// The person at the computer confirmed the digits.
    PairingPeerConfirmed,
    /// The pair is stored on both sides.
    Paired {
        /// The host.
        host: HostId,
        /// Its name.
        name: String,
    },
    /// The pairing did not come about.
    PairingFailed {
        /// Why.
        reason: PairingFailure,
    },
    /// A host was forgotten.
    Forgotten {
        /// The host.
        host: HostId,
        /// Its name.
        name: String,
    },
    /// The card did something.
    Card(CardEvent),
}

/// Why a pairing did not come about.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PairingFailure {
    /// Two minutes passed.
    Expired,
    /// The owner gave it up.
    Cancelled,
    /// The link closed.
    Closed(CloseReason),
    /// The pair could not be stored.
    Store,
}
