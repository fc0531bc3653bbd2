//! What a phone says about itself before anything is encrypted.

use super::reason::{CloseReason, Side, Violation};
use crate::l2cap::Psm;

/// Length of the nonce in `Info`.
pub const INFO_NONCE_LENGTH: usize = 16;
/// Longest `Info`; what this version does not know at its end is ignored, but bound by the handshake.
pub const INFO_LIMIT_BYTES: usize = 128;

const FIXED_LENGTH: usize = 1 + 1 + 1 + 1 + 4 + INFO_NONCE_LENGTH;
const PSM_LENGTH: usize = 2;

/// The capability of a channel of L2CAP. Its PSM follows the nonce.
const L2CAP: u32 = 0x0000_0001;

/// The only suite there is: X25519, AES-256-GCM, SHA-256.
pub(super) const SUITE: u8 = 1;

/// The versions of this protocol that one side speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VersionRange {
    min: u8,
    max: u8,
}

impl VersionRange {
    /// What this program speaks.
    pub const SUPPORTED: Self = Self { min: 1, max: 1 };

    /// The versions from `min` to `max`; `None` if there are none.
    #[must_use]
    pub const fn new(min: u8, max: u8) -> Option<Self> {
        if min == 0 || min > max { None } else { Some(Self { min, max }) }
    }

    /// The oldest.
    #[must_use]
    pub const fn min(self) -> u8 {
        self.min
    }

    /// The newest.
    #[must_use]
    pub const fn max(self) -> u8 {
        self.max
    }

    pub(super) const fn contains(self, version: u8) -> bool {
        self.min <= version && version <= self.max
    }

    /// The newest version that both speak.
    ///
    /// # Errors
    /// [`CloseReason::VersionMismatch`], which says who has to update; `us` is the side of `self`.
    pub(super) const fn negotiate(self, theirs: Self, us: Side) -> Result<u8, CloseReason> {
        let newest = if self.max < theirs.max { self.max } else { theirs.max };
        if self.contains(newest) && theirs.contains(newest) {
            return Ok(newest);
        }
        let update = if self.max < theirs.max { us } else { us.other() };
        Err(CloseReason::VersionMismatch { ours: self, theirs, update })
    }
}

/// For which kinds of pairing a phone is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// The owner has scanned a host's code.
    pub scanned: bool,
    /// The owner has chosen to pair by comparing digits.
    pub compare: bool,
}

impl Readiness {
    const SCANNED: u8 = 0x01;
    const COMPARE: u8 = 0x02;

    const fn to_byte(self) -> u8 {
        (if self.scanned { Self::SCANNED } else { 0 }) | (if self.compare { Self::COMPARE } else { 0 })
    }

    const fn from_byte(byte: u8) -> Self {
        Self { scanned: byte & Self::SCANNED != 0, compare: byte & Self::COMPARE != 0 }
    }
}

/// What anyone may read of a phone: versions, capabilities, a fresh nonce, and whether it is ready to pair.
///
/// Nothing in it tells one phone from another. The handshake binds the bytes as they were read.
///
/// Spec: SPEC.md section 3.1
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    versions: VersionRange,
    readiness: Readiness,
    suites: u8,
    capabilities: u32,
    nonce: [u8; INFO_NONCE_LENGTH],
    psm: Option<Psm>,
    bytes: Vec<u8>,
}

impl Info {
    pub(super) fn new(
        versions: VersionRange,
        readiness: Readiness,
        nonce: [u8; INFO_NONCE_LENGTH],
        psm: Option<Psm>,
    ) -> Self {
        let capabilities = if psm.is_some() { L2CAP } else { 0 };
        let mut bytes = Vec::with_capacity(FIXED_LENGTH + PSM_LENGTH);
        bytes.extend_from_slice(&[versions.min, versions.max, readiness.to_byte(), SUITE]);
        bytes.extend_from_slice(&capabilities.to_be_bytes());
        bytes.extend_from_slice(&nonce);
        bytes.extend(psm.into_iter().flat_map(|psm| psm.number().to_be_bytes()));
        Self { versions, readiness, suites: SUITE, capabilities, nonce, psm, bytes }
    }

    /// Reads the versions: the two bytes that mean the same in every version.
    pub(super) fn versions_of(bytes: &[u8]) -> Result<VersionRange, CloseReason> {
        match bytes {
            [min, max, ..] if bytes.len() <= INFO_LIMIT_BYTES => VersionRange::new(*min, *max),
            _ => None,
        }
        .ok_or(CloseReason::Protocol(Violation::Info))
    }

    /// Reads the rest, once a version is agreed on.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, CloseReason> {
        let versions = Self::versions_of(bytes)?;
        let parts = || {
            let ([_, _, readiness, suites], rest) = bytes.split_first_chunk::<4>()?;
            let (capabilities, rest) = rest.split_first_chunk::<4>()?;
            let (nonce, later) = rest.split_first_chunk::<INFO_NONCE_LENGTH>()?;
            Some((*readiness, *suites, u32::from_be_bytes(*capabilities), *nonce, later))
        };
        let (readiness, suites, capabilities, nonce, later) = parts().ok_or(CloseReason::Protocol(Violation::Info))?;
        if suites & SUITE == 0 {
            return Err(CloseReason::Protocol(Violation::Suite));
        }
        let readiness = Readiness::from_byte(readiness);
        // A channel that cannot be asked for is none: the link does without.
        let psm = later.first_chunk().filter(|_| capabilities & L2CAP != 0);
        let psm = psm.and_then(|number: &[u8; PSM_LENGTH]| Psm::new(u16::from_be_bytes(*number)));
        Ok(Self { versions, readiness, suites, capabilities, nonce, psm, bytes: bytes.to_vec() })
    }

    /// Whether bytes begin as an `Info` of any version does, and are not longer than one.
    pub(crate) fn has_versions(bytes: &[u8]) -> bool {
        Self::versions_of(bytes).is_ok()
    }

    /// The channel that an `Info` offers, if this version can read it.
    pub(crate) fn offered_channel(bytes: &[u8]) -> Option<Psm> {
        VersionRange::SUPPORTED.negotiate(Self::versions_of(bytes).ok()?, Side::Host).ok()?;
        Self::parse(bytes).ok()?.psm
    }

    /// The versions that the phone speaks.
    #[must_use]
    pub const fn versions(&self) -> VersionRange {
        self.versions
    }

    /// For which pairing the phone is ready.
    #[must_use]
    pub const fn readiness(&self) -> Readiness {
        self.readiness
    }

    /// Bits of optional abilities.
    #[must_use]
    pub const fn capabilities(&self) -> u32 {
        self.capabilities
    }

    /// Where the phone takes channels of L2CAP, if it does.
    #[must_use]
    pub const fn psm(&self) -> Option<Psm> {
        self.psm
    }

    pub(super) const fn nonce(&self) -> &[u8; INFO_NONCE_LENGTH] {
        &self.nonce
    }

    /// As sent or as read.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(min: u8, max: u8) -> VersionRange {
        VersionRange::new(min, max).expect("a range")
    }

    #[test]
    fn the_newest_common_version_is_chosen_or_the_older_side_named() {
        let mismatch = |ours, theirs, update| Err(CloseReason::VersionMismatch { ours, theirs, update });
        let table = [
            (range(1, 1), range(1, 1), Ok(1)),
            (range(1, 3), range(2, 5), Ok(3)),
            (range(2, 5), range(1, 3), Ok(3)),
            (range(4, 4), range(1, 9), Ok(4)),
            (range(1, 1), range(2, 3), mismatch(range(1, 1), range(2, 3), Side::Host)),
            (range(2, 3), range(1, 1), mismatch(range(2, 3), range(1, 1), Side::Phone)),
        ];
        for (ours, theirs, expected) in table {
            assert_eq!(ours.negotiate(theirs, Side::Host), expected, "{ours:?} {theirs:?}");
        }
        assert_eq!((VersionRange::new(0, 1), VersionRange::new(2, 1)), (None, None));
    }

    #[test]
    fn info_survives_and_ignores_what_is_later() {
        let readiness = Readiness { scanned: true, compare: false };
        let info = Info::new(range(1, 2), readiness, [9; 16], None);
        assert_eq!(Info::parse(info.as_bytes()), Ok(info.clone()));
        let longer = [info.as_bytes(), b"later"].concat();
        let read = Info::parse(&longer).expect("later fields are ignored");
        assert_eq!((read.readiness(), read.capabilities(), read.nonce()), (readiness, 0, &[9; 16]));
        assert_eq!((read.psm(), read.as_bytes()), (None, longer.as_slice()));
    }

    #[test]
    fn a_channel_is_offered_by_its_capability_and_its_number() {
        let info = Info::new(range(1, 1), Readiness::default(), [9; 16], Psm::new(0x81));
        assert_eq!(info.as_bytes()[4..8], [0, 0, 0, 1]);
        assert_eq!(info.as_bytes()[24..], [0, 0x81]);
        let read = Info::parse(info.as_bytes()).expect("Info");
        assert_eq!((read.psm(), &read), (Psm::new(0x81), &info));
        let without = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = info.as_bytes().to_vec();
            change(&mut bytes);
            Info::parse(&bytes).expect("Info").psm()
        };
        assert_eq!(without(&|bytes| bytes[7] = 0), None, "no capability");
        assert_eq!(without(&|bytes| bytes.truncate(25)), None, "no number");
        assert_eq!(without(&|bytes| bytes[25] = 0x7F), None, "not a number that a system gives out");
        assert_eq!(without(&|bytes| bytes[4] = 0x80), Psm::new(0x81), "what is unknown besides is ignored");
    }

    #[test]
    fn impossible_info_is_refused() {
        let info = Info::new(range(1, 1), Readiness::default(), [0; 16], None);
        for length in 0..info.as_bytes().len() {
            assert_eq!(Info::parse(&info.as_bytes()[..length]), Err(CloseReason::Protocol(Violation::Info)));
        }
        let mut long = info.as_bytes().to_vec();
        long.resize(INFO_LIMIT_BYTES + 1, 0);
        assert_eq!(Info::parse(&long), Err(CloseReason::Protocol(Violation::Info)));
        let mut suite = info.as_bytes().to_vec();
        suite[3] = 0xFE;
        assert_eq!(Info::parse(&suite), Err(CloseReason::Protocol(Violation::Suite)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
            if let Ok(info) = Info::parse(&bytes) {
                prop_assert_eq!(info.as_bytes(), bytes.as_slice());
            }
        }
    }
}
