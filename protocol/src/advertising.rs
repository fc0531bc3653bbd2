//! By what a phone on the radio is known to the hosts it is paired with, and to nobody else.
//!
//! A phone advertises 128-bit service UUIDs, because that is the one field which apps may set on every system. Those of
//! its pairs are pseudo-random and change every [`EPOCH`], together in all the world, so that a stranger who listens
//! cannot follow the phone from one epoch to the next.
//!
//! Nothing here is authenticated: whoever repeats an identifier is connected to, and then fails the handshake.
//!
//! Spec: SPEC.md section 11.1

use std::fmt;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::pairing::{PairKeys, QrText};

/// How long an identifier of a pair is used.
pub const EPOCH: Duration = Duration::from_secs(15 * 60);

const PAIR_LABEL: &[u8] = b"pocketcard v1 pair identifier";
const OFFER_LABEL: &[u8] = b"pocketcard v1 offer identifier";

/// A number of [`EPOCH`]s since 1970, by the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch of a moment, given as the time since 1970-01-01 00:00 UTC.
    #[must_use]
    pub const fn at(since_1970: Duration) -> Self {
        Self(since_1970.as_secs() / EPOCH.as_secs())
    }

    /// How long the epoch of that moment still lasts; never zero.
    #[must_use]
    pub fn remaining(since_1970: Duration) -> Duration {
        let next = Duration::from_secs((Self::at(since_1970).0 + 1).saturating_mul(EPOCH.as_secs()));
        next.saturating_sub(since_1970)
    }

    /// The epoch so many later; earlier, if negative.
    #[must_use]
    pub const fn shifted(self, by: i64) -> Self {
        Self(self.0.saturating_add_signed(by))
    }

    /// This epoch, the one before and the one after: clocks differ, and what was advertised is heard late.
    #[must_use]
    pub const fn neighbours(self) -> [Self; 3] {
        [self, Self(self.0.saturating_sub(1)), Self(self.0.saturating_add(1))]
    }
}

/// What a phone advertises, as the 16 bytes of a UUID in the order of its text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identifier([u8; 16]);

impl Identifier {
    /// Advertised by a phone whose owner wants to pair by comparing digits; the same for every phone, and only as long
    /// as the owner wants to.
    pub const COMPARE: Self = Self(0xb7d3_0020_6c1e_4f55_9a0d_1c5e_8f2a_7b40_u128.to_be_bytes());

    /// Advertised by the phone of this pair, during this epoch.
    #[must_use]
    pub fn of_pair(pair: &PairKeys, epoch: Epoch) -> Self {
        Self::derive(pair.advertising_key(), &[PAIR_LABEL, &epoch.0.to_be_bytes()])
    }

    /// Advertised by a phone that has scanned the code with this seed.
    #[must_use]
    pub fn of_offer(seed: &[u8; 16]) -> Self {
        Self::derive(seed, &[OFFER_LABEL])
    }

    /// Advertised by a phone that has scanned this code.
    #[must_use]
    pub fn of_scan(qr: &QrText) -> Self {
        Self::of_offer(qr.advertising_seed())
    }

    /// The bytes of the UUID, in the order of its text. The bits that RFC 9562 gives a meaning are as they come.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    fn derive(key: &[u8], parts: &[&[u8]]) -> Self {
        // A key of any length is one of HMAC.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Self([0; 16]) };
        for part in parts {
            mac.update(part);
        }
        let mut identifier = [0; 16];
        identifier.iter_mut().zip(mac.finalize().into_bytes()).for_each(|(to, from)| *to = from);
        Self(identifier)
    }
}

impl From<[u8; 16]> for Identifier {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

/// As the text of a UUID.
impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let hyphen = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{hyphen}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identifier({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: [u8; 32]) -> PairKeys {
        let mut bytes = vec![1];
        bytes.extend([9; 64]);
        bytes.extend(key);
        PairKeys::from_bytes(&bytes).unwrap()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn identifiers_are_what_the_specification_says() {
        // Computed apart from this program, by HMAC of Python's standard library.
        let counting: [u8; 32] = std::array::from_fn(|index| u8::try_from(index).unwrap());
        for (key, seconds, identifier) in [
            (counting, 0, "e725d6fd-bcd9-5834-cee7-352b126808c8"),
            (counting, 899, "e725d6fd-bcd9-5834-cee7-352b126808c8"),
            (counting, 900, "401a74e4-0929-3d3b-c520-c81d3802c5d0"),
            (counting, 1_800_000_000, "530c18a7-99a3-b4cf-3fc5-ece3b27ac6d3"),
            ([0xAA; 32], 1_800_000_000, "58868462-8fa5-17e2-f7c7-da3afe3458a5"),
        ] {
            let computed = Identifier::of_pair(&pair(key), Epoch::at(at(seconds)));
            assert_eq!(computed.to_string(), identifier, "{seconds}");
        }
        let counting: [u8; 16] = std::array::from_fn(|index| u8::try_from(index).unwrap());
        for (seed, identifier) in
            [(counting, "6c3e51ba-f7fb-76a5-b5f9-6642c3cd3a4e"), ([0xFF; 16], "7478a333-fbae-f3bd-5281-2b13c52c4761")]
        {
            assert_eq!(Identifier::of_offer(&seed).to_string(), identifier);
        }
        assert_eq!(Identifier::COMPARE.to_string(), "b7d30020-6c1e-4f55-9a0d-1c5e8f2a7b40");
    }

    #[test]
    fn epochs_last_a_quarter_of_an_hour_and_have_neighbours() {
        assert_eq!(Epoch::at(at(899)), Epoch(0));
        assert_eq!(Epoch::at(at(900)), Epoch(1));
        assert_eq!(Epoch::remaining(at(899)), at(1));
        assert_eq!(Epoch::remaining(at(900)), at(900));
        assert_eq!(Epoch::remaining(Duration::from_millis(1_799_500)), Duration::from_millis(500));
        assert_eq!(Epoch(7).neighbours(), [Epoch(7), Epoch(6), Epoch(8)]);
        assert_eq!(Epoch(0).neighbours(), [Epoch(0), Epoch(0), Epoch(1)]);
        assert!(Epoch::at(Duration::MAX).neighbours().contains(&Epoch::at(Duration::MAX)));
    }

    #[test]
    fn a_host_knows_the_phone_again_with_a_clock_that_is_off_by_one_epoch_but_no_more() {
        let pair = pair([5; 32]);
        let advertised = Identifier::of_pair(&pair, Epoch(100));
        let knows =
            |now: u64| Epoch(now).neighbours().iter().any(|epoch| Identifier::of_pair(&pair, *epoch) == advertised);
        assert_eq!([98, 99, 100, 101, 102].map(knows), [false, true, true, true, false]);
    }
}
