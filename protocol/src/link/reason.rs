//! Why a link ended.

use super::info::VersionRange;
use super::limits;
use crate::channel::ChannelError;
use crate::entropy::EntropyError;
use crate::messages::{self, MessageError};
use crate::pairing::TooManyTries;
use crate::time::Timestamp;
use std::fmt;
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

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Phone => "phone",
        })
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

impl fmt::Display for Limit {
    /// Ends a sentence that begins with "timed out:".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "the phone did not say what it speaks",
            Self::Wait => "no handshake began",
            Self::Handshake => "the handshake was not finished",
            Self::Decision => "the digits were not confirmed on both sides",
            Self::Store => "the pair was not stored on both sides",
            Self::Request => "a request was not answered",
            Self::Ping => "a ping was not answered",
            Self::Silence => "the host said nothing",
        })
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

impl fmt::Display for Violation {
    /// Ends a sentence that begins with "the other side sent".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Frame => "a link message that is none",
            Self::OutOfPlace => "a message that has no place here",
            Self::Info => "an Info that is none",
            Self::Suite => "a suite that is not spoken here",
            Self::StaleInfo => "a handshake that belongs to another link",
            Self::Record => "a record that breaks the rules",
            Self::Message => "a message that cannot be read",
            Self::Commitment => "a nonce that does not fit its commitment",
            Self::Flood => "questions without reading the answers",
        })
    }
}

/// What the peer gave as its reason, as the end of a sentence.
const fn told(reason: messages::CloseReason) -> &'static str {
    use messages::CloseReason as Told;
    match reason {
        Told::Unspecified => "for a reason that is not known here",
        Told::Done => "because all was done",
        Told::Protocol => "because this side broke the protocol",
        Told::Revoked => "because it has forgotten the pair",
        Told::Rejected => "because it was declined there",
        Told::Expired => "because a time limit had passed",
        Told::Replaced => "because a newer connection took its place",
        Told::Failed => "because it failed",
    }
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
    #[error("no version in common; update the software of the {update}")]
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
    #[error("timed out: {0}")]
    Timeout(Limit),
    /// The peer broke a rule.
    #[error("the other side sent {0}")]
    Protocol(Violation),
    /// The random source failed.
    #[error("the random source failed")]
    Entropy,
    /// The peer ended the link and said why.
    #[error("the other side closed the connection {}", told(*.0))]
    Peer(messages::CloseReason),
}

impl CloseReason {
    /// Whether the link was lost rather than closed: nobody wanted it to end, so the card session that was on it waits
    /// for another link. A record that does not decrypt counts as lost, because whoever owns the radio can make one. So
    /// does a wait that was too long, whichever side noticed.
    ///
    /// Spec: SPEC.md section 9.1
    #[must_use]
    pub const fn is_loss(self) -> bool {
        matches!(self, Self::Lost | Self::Decrypt | Self::Timeout(_) | Self::Peer(messages::CloseReason::Expired))
    }

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

impl From<MessageError> for CloseReason {
    fn from(_: MessageError) -> Self {
        Self::Protocol(Violation::Message)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<CloseReason> {
        let range = VersionRange::SUPPORTED;
        let limits = [
            Limit::Info,
            Limit::Wait,
            Limit::Handshake,
            Limit::Decision,
            Limit::Store,
            Limit::Request,
            Limit::Ping,
            Limit::Silence,
        ];
        let violations = [
            Violation::Frame,
            Violation::OutOfPlace,
            Violation::Info,
            Violation::Suite,
            Violation::StaleInfo,
            Violation::Record,
            Violation::Message,
            Violation::Commitment,
            Violation::Flood,
        ];
        let told = (0..8).map(|number| messages::CloseReason::try_from(number).expect("of the .proto file"));
        let plain = [
            CloseReason::Done,
            CloseReason::Lost,
            CloseReason::Busy,
            CloseReason::Revoked,
            CloseReason::Replaced,
            CloseReason::Declined,
            CloseReason::Expired,
            CloseReason::TooManyTries { until: Timestamp::ZERO },
            CloseReason::Failed,
            CloseReason::NotPairing,
            CloseReason::Unpaired,
            CloseReason::Rejected,
            CloseReason::WrongHost,
            CloseReason::VersionMismatch { ours: range, theirs: range, update: Side::Host },
            CloseReason::VersionMismatch { ours: range, theirs: range, update: Side::Phone },
            CloseReason::Decrypt,
            CloseReason::Entropy,
        ];
        let limits = limits.into_iter().map(CloseReason::Timeout);
        let violations = violations.into_iter().map(CloseReason::Protocol);
        plain.into_iter().chain(limits).chain(violations).chain(told.map(CloseReason::Peer)).collect()
    }

    #[test]
    fn every_reason_has_words_of_its_own() {
        let texts: Vec<String> = all().iter().map(ToString::to_string).collect();
        for (index, text) in texts.iter().enumerate() {
            assert!(!texts[..index].contains(text), "{text}");
            assert!(!text.contains("::") && !text.contains("_"), "{text}");
        }
        assert_eq!(messages::CloseReason::try_from(8).ok(), None, "a new reason needs words");
    }

    #[test]
    fn a_peer_is_told_nothing_after_the_channel_broke() {
        for reason in all() {
            let silent = matches!(reason, CloseReason::Lost | CloseReason::Decrypt | CloseReason::Peer(_));
            assert_eq!(reason.to_peer().is_none(), silent, "{reason}");
        }
    }

    #[test]
    fn a_link_that_somebody_closed_is_not_lost() {
        let lost: Vec<String> =
            all().into_iter().filter(|reason| reason.is_loss()).map(|reason| reason.to_string()).collect();
        let timeouts = lost.iter().filter(|reason| reason.starts_with("timed out")).count();
        assert_eq!((lost.len(), timeouts), (11, 8), "{lost:?}");
        // Both sides agree about a wait that was too long.
        let told = CloseReason::Timeout(Limit::Request).to_peer().map(CloseReason::Peer);
        assert!(told.is_some_and(CloseReason::is_loss));
    }

    #[test]
    fn a_wire_reason_means_the_same_on_its_way_out() {
        use messages::CloseReason as Told;
        for told in
            [Told::Done, Told::Protocol, Told::Revoked, Told::Rejected, Told::Expired, Told::Replaced, Told::Failed]
        {
            assert_eq!(CloseReason::from(told).to_peer(), Some(told));
        }
    }
}
