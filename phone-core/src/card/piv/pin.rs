//! PIN and PUK: their form, their tries, and the rule that a try is spent durably before anything is compared.
//!
//! Spec: SP 800-73-4 part 2, sections 2.4.3, 3.2.1 to 3.2.3

use std::fmt;

use pocketcard_protocol::tlv::{Reader, Writer};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::reference::PinReference;

/// Octets of a PIN or PUK on the wire.
pub(crate) const PIN_LENGTH: usize = 8;
/// Tries of a new card.
pub(crate) const DEFAULT_TRIES: u8 = 3;

/// A PIN or PUK as a command brought it.
pub(crate) type Candidate<'a> = &'a [u8; PIN_LENGTH];

/// Whether `candidate` has the form of this reference: a PIN is 6 to 8 digits padded with FF, a PUK any 8 octets.
pub(crate) fn is_well_formed(reference: PinReference, candidate: Candidate<'_>) -> bool {
    match reference {
        PinReference::Puk => true,
        PinReference::Pin => {
            let (digits, padding) =
                candidate.split_at(candidate.iter().take_while(|byte| byte.is_ascii_digit()).count());
            digits.len() >= 6 && padding.iter().all(|byte| *byte == 0xFF)
        }
    }
}

/// What is stored about a PIN or a PUK: a salted hash, never the value.
///
/// The hash is no protection against somebody who holds the state (a PIN has few digits); it keeps the value out of copies.
pub(crate) struct ReferenceData {
    secret: Option<Secret>,
    /// Tries after a success.
    pub(crate) tries: u8,
    /// Tries left; 0 is blocked.
    pub(crate) tries_left: u8,
    /// Whether it is the well-known value of a test card.
    pub(crate) is_default: bool,
}

struct Secret {
    salt: [u8; 16],
    hash: Zeroizing<[u8; 32]>,
}

impl ReferenceData {
    /// A reference that nothing matches: the card has not been enrolled.
    pub(crate) const fn unset(tries: u8) -> Self {
        Self { secret: None, tries, tries_left: 0, is_default: false }
    }

    /// A reference with this value and all its tries.
    pub(crate) fn new(value: Candidate<'_>, salt: [u8; 16], tries: u8, is_default: bool) -> Self {
        let hash = hash(&salt, value);
        Self { secret: Some(Secret { salt, hash }), tries, tries_left: tries, is_default }
    }

    /// The same reference with another number of tries left.
    pub(crate) fn with_tries_left(&self, tries_left: u8) -> Self {
        let secret = self.secret.as_ref().map(|secret| Secret { salt: secret.salt, hash: secret.hash.clone() });
        Self { secret, tries: self.tries, tries_left, is_default: self.is_default }
    }

    /// The same reference with another number of tries, all of them left.
    pub(crate) fn with_tries(&self, tries: u8) -> Self {
        let mut data = self.with_tries_left(if self.is_set() { tries } else { 0 });
        data.tries = tries;
        data
    }

    /// Compares in time that does not depend on where the values differ. Counting the try is the caller's duty, before.
    pub(crate) fn matches(&self, candidate: Candidate<'_>) -> bool {
        self.secret
            .as_ref()
            .is_some_and(|secret| hash(&secret.salt, candidate).as_slice().ct_eq(secret.hash.as_slice()).into())
    }

    /// Whether there is a value that could match.
    pub(crate) const fn is_set(&self) -> bool {
        self.secret.is_some()
    }

    /// The stored form.
    pub(crate) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut writer = Writer::new();
        writer.put(0x80, &[self.tries, self.tries_left, u8::from(self.is_default)]);
        if let Some(secret) = &self.secret {
            writer.put(0x81, &secret.salt);
            writer.put(0x82, secret.hash.as_slice());
        }
        writer.into_bytes()
    }

    /// Reads the stored form.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (mut counters, mut salt, mut hash) = (None, None, None);
        for object in Reader::new(bytes) {
            let object = object.ok()?;
            match object.tag {
                0x80 => counters = Some(<[u8; 3]>::try_from(object.value).ok()?),
                0x81 => salt = Some(<[u8; 16]>::try_from(object.value).ok()?),
                0x82 => hash = Some(Zeroizing::new(<[u8; 32]>::try_from(object.value).ok()?)),
                _ => return None,
            }
        }
        let [tries, tries_left, is_default] = counters?;
        let secret = match (salt, hash) {
            (Some(salt), Some(hash)) => Some(Secret { salt, hash }),
            (None, None) => None,
            _ => return None,
        };
        Some(Self { secret, tries, tries_left, is_default: is_default != 0 })
    }
}

impl fmt::Debug for ReferenceData {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ReferenceData({} of {} tries left)", self.tries_left, self.tries)
    }
}

fn hash(salt: &[u8; 16], value: Candidate<'_>) -> Zeroizing<[u8; 32]> {
    let mut hasher = Sha256::new();
    hasher.update(b"pocketcard piv reference data v1");
    hasher.update(salt);
    hasher.update(value);
    Zeroizing::new(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_six_to_eight_digits_and_padding() {
        for (candidate, expected) in [
            (b"123456\xFF\xFF", true),
            (b"1234567\xFF", true),
            (b"12345678", true),
            (b"12345\xFF\xFF\xFF", false),
            (b"123456\x00\x00", false),
            (b"123456\xFF7", false),
            (b"12345a\xFF\xFF", false),
            (b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", false),
        ] {
            assert_eq!(is_well_formed(PinReference::Pin, candidate), expected, "{candidate:02X?}");
            assert!(is_well_formed(PinReference::Puk, candidate), "a PUK is any 8 octets");
        }
    }

    #[test]
    fn only_the_right_value_matches_and_none_where_none_is_set() {
        let reference = ReferenceData::new(b"123456\xFF\xFF", [7; 16], 3, false);
        assert!(reference.matches(b"123456\xFF\xFF"));
        assert!(!reference.matches(b"123457\xFF\xFF"));
        assert!(!ReferenceData::unset(3).matches(b"123456\xFF\xFF"));
    }

    #[test]
    fn the_stored_form_reads_back_and_does_not_hold_the_pin() {
        let reference = ReferenceData::new(b"123456\xFF\xFF", [7; 16], 5, true).with_tries_left(2);
        let bytes = reference.to_bytes();
        assert!(!bytes.windows(6).any(|part| part == b"123456"));
        let read = ReferenceData::from_bytes(&bytes).unwrap();
        assert_eq!((read.tries, read.tries_left, read.is_default), (5, 2, true));
        assert!(read.matches(b"123456\xFF\xFF"));
        assert!(ReferenceData::from_bytes(&bytes[..bytes.len() - 1]).is_none());
        assert!(ReferenceData::from_bytes(&[]).is_none());
        let unset = ReferenceData::from_bytes(&ReferenceData::unset(3).to_bytes()).unwrap();
        assert!(!unset.is_set());
    }
}
