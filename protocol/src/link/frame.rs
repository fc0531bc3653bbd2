//! Link messages: the first byte says what one is.
//!
//! Spec: SPEC.md section 3.2

use super::info::{INFO_NONCE_LENGTH, Info, SUITE, VersionRange};
use super::reason::{CloseReason, Side, Violation};
use crate::channel::{HANDSHAKE_MESSAGE_LIMIT, Pattern, RECORD_LIMIT};

/// Longest link message: a record and its kind.
pub const LINK_MESSAGE_LIMIT: usize = 1 + RECORD_LIMIT;

/// Longest link message before the handshake is done.
pub const EARLY_MESSAGE_LIMIT: usize = 1 + FirstHandshake::HEADER_LENGTH + HANDSHAKE_MESSAGE_LIMIT;

const INFO: u8 = 0;
const HANDSHAKE: u8 = 1;
pub(super) const RECORD: u8 = 2;
const REFUSAL: u8 = 3;

/// One link message, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    Info(&'a [u8]),
    Handshake(&'a [u8]),
    Record(&'a [u8]),
    Refusal(&'a [u8]),
}

impl<'a> Frame<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, CloseReason> {
        let (&kind, body) = message.split_first().ok_or(CloseReason::Protocol(Violation::Frame))?;
        match kind {
            RECORD if message.len() <= LINK_MESSAGE_LIMIT => Ok(Self::Record(body)),
            _ if message.len() > EARLY_MESSAGE_LIMIT => Err(CloseReason::Protocol(Violation::Frame)),
            INFO => Ok(Self::Info(body)),
            HANDSHAKE => Ok(Self::Handshake(body)),
            REFUSAL => Ok(Self::Refusal(body)),
            _ => Err(CloseReason::Protocol(Violation::Frame)),
        }
    }
}

pub(super) fn info(info: &Info) -> Vec<u8> {
    [&[INFO], info.as_bytes()].concat()
}

/// Begins a handshake message; `Handshake::write` appends the rest.
pub(super) fn handshake() -> Vec<u8> {
    let mut message = Vec::with_capacity(EARLY_MESSAGE_LIMIT);
    message.push(HANDSHAKE);
    message
}

/// How the three handshakes are numbered.
const fn method(pattern: Pattern) -> u8 {
    match pattern {
        Pattern::Connect => 1,
        Pattern::PairScanned => 2,
        Pattern::PairCompared => 3,
    }
}

/// What precedes the first handshake message: the host's choices, all of them bound by the prologue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FirstHandshake {
    pub(super) version: u8,
    pub(super) pattern: Pattern,
    /// Nonce of the `Info` that the host read.
    pub(super) info_nonce: [u8; INFO_NONCE_LENGTH],
}

impl FirstHandshake {
    pub(super) const HEADER_LENGTH: usize = 3 + INFO_NONCE_LENGTH;

    pub(super) fn write(&self, message: &mut Vec<u8>) {
        message.extend_from_slice(&[self.version, SUITE, method(self.pattern)]);
        message.extend_from_slice(&self.info_nonce);
    }

    /// Reads the version: the byte that means the same in every version.
    pub(super) fn version_of(body: &[u8]) -> Result<u8, CloseReason> {
        body.first().copied().ok_or(CloseReason::Protocol(Violation::Frame))
    }

    /// Takes the header off the first handshake message.
    pub(super) fn parse(body: &[u8]) -> Result<(Self, &[u8]), CloseReason> {
        let ([version, suite, method_byte], rest) =
            body.split_first_chunk::<3>().ok_or(CloseReason::Protocol(Violation::Frame))?;
        let (info_nonce, rest) = rest.split_first_chunk().ok_or(CloseReason::Protocol(Violation::Frame))?;
        if *suite != SUITE {
            return Err(CloseReason::Protocol(Violation::Suite));
        }
        let pattern = [Pattern::Connect, Pattern::PairScanned, Pattern::PairCompared]
            .into_iter()
            .find(|&pattern| method(pattern) == *method_byte)
            .ok_or(CloseReason::Protocol(Violation::Frame))?;
        Ok((Self { version: *version, pattern, info_nonce: *info_nonce }, rest))
    }

    /// What both sides put under the handshake: if an attacker changed any of it, nothing decrypts.
    ///
    /// Spec: SPEC.md section 6.2
    pub(super) fn prologue(&self, info: &Info, qr_hash: Option<&[u8; 32]>) -> Vec<u8> {
        let mut prologue = b"pocketcard".to_vec();
        prologue.extend_from_slice(&[self.version, SUITE, method(self.pattern)]);
        // `Info` is at most 128 bytes long.
        prologue.push(u8::try_from(info.as_bytes().len()).unwrap_or(u8::MAX));
        prologue.extend_from_slice(info.as_bytes());
        if let Some(hash) = qr_hash {
            prologue.extend_from_slice(hash);
        }
        prologue
    }
}

/// Why a side does not go on, in plaintext: a hint to the other side's user, and never more than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Version,
    Busy,
    NotPairing,
    Rejected,
}

impl Refusal {
    /// The refusal that goes with a reason, if the peer is told.
    pub(super) const fn of(reason: CloseReason) -> Option<Self> {
        match reason {
            CloseReason::VersionMismatch { .. } => Some(Self::Version),
            CloseReason::Busy => Some(Self::Busy),
            CloseReason::NotPairing => Some(Self::NotPairing),
            // A host must not learn which of these it was: it would find out whether this is the phone that it seeks.
            CloseReason::Decrypt
            | CloseReason::Unpaired
            | CloseReason::Rejected
            | CloseReason::Protocol(Violation::StaleInfo | Violation::Record) => Some(Self::Rejected),
            _ => None,
        }
    }

    pub(super) fn to_message(self, ours: VersionRange) -> Vec<u8> {
        let code = match self {
            Self::Version => 1,
            Self::Busy => 2,
            Self::NotPairing => 3,
            Self::Rejected => 4,
        };
        vec![REFUSAL, code, ours.min(), ours.max()]
    }

    /// What a refusal of the peer means for this side.
    pub(super) fn read(body: &[u8], ours: VersionRange, us: Side) -> CloseReason {
        let [code, min, max, ..] = *body else { return CloseReason::Protocol(Violation::Frame) };
        let Some(theirs) = VersionRange::new(min, max) else { return CloseReason::Protocol(Violation::Frame) };
        match code {
            // A refusal that claims a mismatch where there is none is a lie or an error.
            1 => ours.negotiate(theirs, us).map_or_else(|reason| reason, |_| CloseReason::Protocol(Violation::Frame)),
            2 => CloseReason::Busy,
            3 => CloseReason::NotPairing,
            _ => CloseReason::Rejected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_refusal_arrives_as_it_was_meant() {
        let ours = VersionRange::SUPPORTED;
        for (refusal, reason) in [
            (Refusal::Busy, CloseReason::Busy),
            (Refusal::NotPairing, CloseReason::NotPairing),
            (Refusal::Rejected, CloseReason::Rejected),
            (Refusal::Version, CloseReason::Protocol(Violation::Frame)),
        ] {
            assert_eq!(Refusal::read(&refusal.to_message(ours)[1..], ours, Side::Host), reason);
        }
        for body in [&[][..], &[1], &[2, 1], &[2, 0, 1], &[2, 2, 1]] {
            assert_eq!(Refusal::read(body, ours, Side::Host), CloseReason::Protocol(Violation::Frame));
        }
    }

    #[test]
    fn the_prologue_binds_every_choice() {
        let info = Info::new(VersionRange::SUPPORTED, super::super::info::Readiness::default(), [1; 16], None);
        let other = Info::new(
            VersionRange::SUPPORTED,
            super::super::info::Readiness::default(),
            [1; 16],
            crate::l2cap::Psm::new(0x80),
        );
        let header = FirstHandshake { version: 1, pattern: Pattern::Connect, info_nonce: [1; 16] };
        let all = [
            header.prologue(&info, None),
            header.prologue(&other, None),
            header.prologue(&info, Some(&[0; 32])),
            header.prologue(&info, Some(&[1; 32])),
            FirstHandshake { version: 2, ..header }.prologue(&info, None),
            FirstHandshake { pattern: Pattern::PairCompared, ..header }.prologue(&info, None),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            match Frame::parse(&bytes) {
                Ok(Frame::Handshake(body)) => {
                    if let Ok((header, rest)) = FirstHandshake::parse(body) {
                        let mut again = handshake();
                        header.write(&mut again);
                        again.extend_from_slice(rest);
                        prop_assert_eq!(again, bytes);
                    }
                }
                Ok(Frame::Refusal(body)) => {
                    let _ = Refusal::read(body, VersionRange::SUPPORTED, Side::Phone);
                }
                _ => {}
            }
        }
    }
}
