//! The card management key (9B) and the challenges that prove it.
//!
//! Spec: SP 800-73-4 part 2, section 3.2.4 and appendix A.1; SP 800-78-4, table 6-2

use std::fmt;

use aes::cipher::{Array, BlockCipherEncrypt as _, KeyInit as _};
use pocketcard_protocol::tlv::{Reader, Writer};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::policy::TouchPolicy;
use super::reference::ManagementAlgorithm;

/// Octets of one AES block, which is what witness, challenge and response are.
pub(crate) const BLOCK: usize = 16;

/// The well-known management key of test cards.
pub(crate) const WELL_KNOWN: [u8; 24] = [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8];

/// The key 9B. `Debug` prints its algorithm.
pub(crate) struct ManagementKey {
    pub(crate) algorithm: ManagementAlgorithm,
    pub(crate) touch: TouchPolicy,
    key: Zeroizing<Vec<u8>>,
}

impl ManagementKey {
    /// A key; `None` if its length does not fit the algorithm.
    pub(crate) fn new(algorithm: ManagementAlgorithm, touch: TouchPolicy, key: &[u8]) -> Option<Self> {
        (key.len() == algorithm.key_length()).then(|| Self { algorithm, touch, key: Zeroizing::new(key.to_vec()) })
    }

    /// Whether it is the well-known key.
    pub(crate) fn is_default(&self) -> bool {
        self.algorithm == ManagementAlgorithm::Aes192 && bool::from(self.key.as_slice().ct_eq(&WELL_KNOWN))
    }

    /// Encrypts one block.
    pub(crate) fn encrypt(&self, block: &[u8; BLOCK]) -> [u8; BLOCK] {
        let mut out = Array::from(*block);
        // The length of the key fits its algorithm since `new`, so none of these fails.
        match self.algorithm {
            ManagementAlgorithm::Aes128 => {
                if let Ok(cipher) = aes::Aes128::new_from_slice(&self.key) {
                    cipher.encrypt_block(&mut out);
                }
            }
            ManagementAlgorithm::Aes192 => {
                if let Ok(cipher) = aes::Aes192::new_from_slice(&self.key) {
                    cipher.encrypt_block(&mut out);
                }
            }
            ManagementAlgorithm::Aes256 => {
                if let Ok(cipher) = aes::Aes256::new_from_slice(&self.key) {
                    cipher.encrypt_block(&mut out);
                }
            }
        }
        out.into()
    }

    /// The stored form.
    pub(crate) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut writer = Writer::new();
        writer.put(0x80, &[self.algorithm.identifier(), self.touch.identifier()]);
        writer.put(0x81, &self.key);
        writer.into_bytes()
    }

    /// Reads the stored form.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (mut rules, mut key) = (None, None);
        for object in Reader::new(bytes) {
            let object = object.ok()?;
            match object.tag {
                0x80 => rules = Some(<[u8; 2]>::try_from(object.value).ok()?),
                0x81 => key = Some(object.value),
                _ => return None,
            }
        }
        let [algorithm, touch] = rules?;
        Self::new(ManagementAlgorithm::from_identifier(algorithm)?, TouchPolicy::from_identifier(touch).ok()??, key?)
    }
}

impl fmt::Debug for ManagementKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ManagementKey({:?})", self.algorithm)
    }
}

/// What the card waits for, to be used once. A witness and a challenge are different things: a card that took one for the
/// other would let a host pass by sending back what it was given.
pub(crate) enum Challenge {
    /// The card sent the encryption of this and wants to see this.
    Witness([u8; BLOCK]),
    /// The card sent this and wants to see its encryption.
    Single([u8; BLOCK]),
}

impl Challenge {
    /// Whether `witness`, decrypted by the host, is the one that was sent. Any other pending challenge is no witness.
    pub(crate) fn is_witness(&self, witness: &[u8; BLOCK]) -> bool {
        matches!(self, Self::Witness(expected) if bool::from(expected.ct_eq(witness)))
    }

    /// Whether `response` is the encryption of the challenge that was sent.
    pub(crate) fn is_answered_by(&self, response: &[u8; BLOCK], key: &ManagementKey) -> bool {
        matches!(self, Self::Single(challenge) if bool::from(key.encrypt(challenge).ct_eq(response)))
    }
}

impl Drop for Challenge {
    fn drop(&mut self) {
        match self {
            Self::Witness(bytes) | Self::Single(bytes) => bytes.zeroize(),
        }
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    fn key(algorithm: ManagementAlgorithm, key: &[u8]) -> ManagementKey {
        ManagementKey::new(algorithm, TouchPolicy::Never, key).unwrap()
    }

    /// FIPS 197, appendix C.
    #[test]
    fn blocks_are_those_of_the_standard() {
        let plain = hex!("00112233445566778899aabbccddeeff");
        let bytes = hex!("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
        for (algorithm, expected) in [
            (ManagementAlgorithm::Aes128, hex!("69c4e0d86a7b0430d8cdb78070b4c55a")),
            (ManagementAlgorithm::Aes192, hex!("dda97ca4864cdfe06eaf70a0ec0d7191")),
            (ManagementAlgorithm::Aes256, hex!("8ea2b7ca516745bfeafc49904b496089")),
        ] {
            assert_eq!(key(algorithm, &bytes[..algorithm.key_length()]).encrypt(&plain), expected);
        }
    }

    #[test]
    fn a_witness_is_no_challenge_and_a_challenge_no_witness() {
        let key = key(ManagementAlgorithm::Aes192, &WELL_KNOWN);
        let block = [9; BLOCK];
        assert!(Challenge::Witness(block).is_witness(&block));
        assert!(!Challenge::Single(block).is_witness(&block));
        assert!(Challenge::Single(block).is_answered_by(&key.encrypt(&block), &key));
        assert!(!Challenge::Single(block).is_answered_by(&block, &key));
        assert!(!Challenge::Witness(block).is_answered_by(&key.encrypt(&block), &key));
    }

    #[test]
    fn only_the_well_known_key_is_the_default() {
        assert!(key(ManagementAlgorithm::Aes192, &WELL_KNOWN).is_default());
        assert!(!key(ManagementAlgorithm::Aes192, &[1; 24]).is_default());
        assert!(!key(ManagementAlgorithm::Aes128, &WELL_KNOWN[..16]).is_default());
        assert!(ManagementKey::new(ManagementAlgorithm::Aes256, TouchPolicy::Never, &WELL_KNOWN).is_none());
    }

    #[test]
    fn the_stored_form_reads_back() {
        let written = ManagementKey::new(ManagementAlgorithm::Aes256, TouchPolicy::Always, &[7; 32]).unwrap();
        let read = ManagementKey::from_bytes(&written.to_bytes()).unwrap();
        assert_eq!((read.algorithm, read.touch), (ManagementAlgorithm::Aes256, TouchPolicy::Always));
        assert_eq!(read.encrypt(&[0; 16]), written.encrypt(&[0; 16]));
        assert!(ManagementKey::from_bytes(&[]).is_none());
    }
}
