use pocketcard_protocol::{link::CloseReason, pairing::Digits};

use super::LogEntry;
use crate::{
    card::{CardEvent, Permissions, piv::Slot},
    traits::{HostId, KeyAlgorithm},
};

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
    /// The owner changed what a host may do.
    PermissionsChanged {
        /// The host.
        host: HostId,
        /// Its name.
        name: String,
        /// What it may do now.
        permissions: Permissions,
    },
    /// How far an enrolment is.
    Enrolment(KeyProgress),
    /// Something was written into the log.
    Logged(LogEntry),
    /// The card did something.
    Card(CardEvent),
}

/// How far the making of a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyProgress {
    /// Where the key goes.
    pub slot: Slot,
    /// Its algorithm.
    pub algorithm: KeyAlgorithm,
    /// Which of the keys that are being made it is, counted from 1.
    pub number: u8,
    /// How many are being made.
    pub of: u8,
    /// What has happened.
    pub stage: KeyStage,
}

/// What has happened to a key that is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyStage {
    /// The key store works on it; with RSA that may take a minute on a phone.
    Started,
    /// The key is there, and its certificate where one was to be made.
    Done,
    /// It was not made; no other key follows.
    Failed,
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
