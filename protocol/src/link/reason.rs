//! Why a link ended.

use super::info::VersionRange;
use super::limits;
use crate::channel::ChannelError;
use crate::entropy::EntropyError;
use crate::messages;
use crate::pairing::TooManyTries;
use crate::time::Timestamp;
use std::time::Duration;

/// One of the two ends of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The computer; it connects and speaks first.
    Host,
    /// The phone; it listens.
    Phone,
}

impl Side {
    /// The other end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Host => Self::Phone,
            Self::Phone => Self::Host,
        }
    }
}

/// Which wait was too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// The phone's `Info` did not come.
    Info,
    /// No handshake began.
    Wait,
    /// The handshake, or the exchange up to the digits, was not done in time.
    Handshake,
    /// Somebody did not confirm the digits.
    Decision,
    /// A side did not store the pair.
    Store,
    /// A request stayed without response or `Pending`.
    Request,
    /// A ping stayed without answer.
    Ping,
    /// The host said nothing.
    Silence,
}

impl Limit {
    /// How long that wait may be.
    #[must_use]
    pub const fn duration(self) -> Duration {
        match self {
            Self::Info => limits::INFO_LIMIT,
            Self::Wait => limits::WAIT_LIMIT,
            Self::Handshake => limits::HANDSHAKE_LIMIT,
            Self::Decision => limits::DECISION_LIMIT,
            Self::Store => limits::STORE_LIMIT,
            Self::Request | Self::Ping => limits::REQUEST_LIMIT,
            Self::Silence => limits::SILENCE_LIMIT,
        }
    }
}

/// Which rule the peer broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A link message of no known kind, or of impossible length.
    Frame,
    /// A link message or a message of the channel that has no place in this state or from this side.
    OutOfPlace,
    /// An `Info` that is none.
    Info,
    /// A suite that this side does not speak.
    Suite,
    /// A handshake for an `Info` that this side did not send on this link.
    StaleInfo,
    /// A record that breaks the rules of records.
    Record,
    /// A message that cannot be decoded.
    Message,
    /// A nonce that does not fit its commitment.
    Commitment,
    /// Too many answers wait because the peer does not read them.
    Flood,
}

/// Why a link ended. Exactly one is reported for each link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// All was done that the link was for.
    #[error("done")]
    Done,
    /// The transport below ended.
    #[error("the connection was lost")]
    Lost,
    /// The phone has too many links.
    #[error("the phone is busy with other connections")]
    Busy,
    /// The pair was forgotten on this side.
    #[error("the pair was forgotten")]
    Revoked,
    /// A newer link of the same pair took its place.
    #[error("a newer connection took the place of this one")]
    Replaced,
    /// Someone saw other digits, or said no.
    #[error("the pairing was declined")]
    Declined,
    /// The offer to pair is older than two minutes.
    #[error("the offer to pair has expired")]
    Expired,
    /// Too many pairings have failed on this host.
    #[error("too many pairings failed; wait and try again")]
    TooManyTries {
        /// When the next may be made.
        until: Timestamp,
    },
    /// This side could not go on for a reason of its own (a store, a key).
    #[error("this side failed")]
    Failed,
    /// The phone does not expect a pairing of this kind.
    #[error("the phone is not ready to pair in this way")]
    NotPairing,
    /// A host connected that this phone does not know.
    #[error("the host is not paired with this phone")]
    Unpaired,
    /// The phone refused the handshake: it does not know this host any more, or it is another phone.
    #[error("the phone does not accept this pair; forget it and pair again")]
    Rejected,
    /// The host in the handshake is not the one whose code was scanned.
    #[error("the host is not the one whose code was scanned")]
    WrongHost,
    /// The two sides have no version in common.
    #[error("no version in common")]
    VersionMismatch {
        /// What this side speaks.
        ours: VersionRange,
        /// What the other side speaks.
        theirs: VersionRange,
        /// Whose software is older and must be updated.
        update: Side,
    },
    /// Something did not decrypt.
    #[error("decryption failed")]
    Decrypt,
    /// A wait was too long.
    #[error("no answer in time ({0:?})")]
    Timeout(Limit),
    /// The peer broke a rule.
    #[error("the peer broke the protocol ({0:?})")]
    Protocol(Violation),
    /// The random source failed.
    #[error("the random source failed")]
    Entropy,
    /// The peer ended the link and said why.
    #[error("the other side closed the connection ({0:?})")]
    Peer(messages::CloseReason),
}

impl CloseReason {
    /// What the peer is told, if it is told anything.
    pub(super) const fn to_peer(self) -> Option<messages::CloseReason> {
        use messages::CloseReason as Told;
        match self {
            Self::Done => Some(Told::Done),
            Self::Revoked | Self::Unpaired | Self::Rejected => Some(Told::Revoked),
            Self::Replaced => Some(Told::Replaced),
            Self::Declined => Some(Told::Rejected),
            Self::Expired | Self::TooManyTries { .. } | Self::Timeout(_) => Some(Told::Expired),
            Self::Failed | Self::Entropy | Self::Busy => Some(Told::Failed),
            Self::Protocol(_) | Self::WrongHost | Self::NotPairing | Self::VersionMismatch { .. } => {
                Some(Told::Protocol)
            }
            Self::Lost | Self::Decrypt | Self::Peer(_) => None,
        }
    }
}

impl From<messages::CloseReason> for CloseReason {
    /// This side's own reason for what a core of it wants the peer to be told.
    fn from(reason: messages::CloseReason) -> Self {
        use messages::CloseReason as Told;
        match reason {
            Told::Done => Self::Done,
            Told::Protocol => Self::Protocol(Violation::OutOfPlace),
            Told::Revoked => Self::Revoked,
            Told::Rejected => Self::Declined,
            Told::Expired => Self::Expired,
            Told::Replaced => Self::Replaced,
            Told::Failed | Told::Unspecified => Self::Failed,
        }
    }
}

impl From<ChannelError> for CloseReason {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::Decrypt => Self::Decrypt,
            ChannelError::Length | ChannelError::Record | ChannelError::RekeyOverdue | ChannelError::TooLong => {
                Self::Protocol(Violation::Record)
            }
            ChannelError::Entropy => Self::Entropy,
            ChannelError::State => Self::Failed,
        }
    }
}

impl From<EntropyError> for CloseReason {
    fn from(_: EntropyError) -> Self {
        Self::Entropy
    }
}

impl From<TooManyTries> for CloseReason {
    fn from(tries: TooManyTries) -> Self {
        Self::TooManyTries { until: tries.until }
    }
}
