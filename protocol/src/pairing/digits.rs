//! The six digits that people compare.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::channel::HandshakeHash;

/// Length of the nonces from which the digits come.
pub const NONCE_LENGTH: usize = 32;

const COMMITMENT_LABEL: &[u8] = b"pocketcard v1 pairing commitment";
const DIGITS_LABEL: &[u8] = b"pocketcard v1 pairing digits";

/// Six decimal digits, the same on both screens if and only if nobody is in between.
///
/// Spec: SPEC.md section 8.4
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digits(u32);

impl Digits {
    /// The digits of one handshake and the two nonces exchanged in it.
    #[must_use]
    pub fn new(hash: &HandshakeHash, host: &[u8; NONCE_LENGTH], phone: &[u8; NONCE_LENGTH]) -> Self {
        let digest = Sha256::new()
            .chain_update(DIGITS_LABEL)
            .chain_update(hash.as_bytes())
            .chain_update(host)
            .chain_update(phone);
        let number = digest.finalize().first_chunk::<8>().copied().map_or(0, u64::from_be_bytes);
        Self((number % 1_000_000) as u32)
    }
}

impl fmt::Display for Digits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}", self.0)
    }
}

/// What the host sends before it sees the phone's nonce, so that it cannot choose its own by it.
pub(crate) fn commitment(hash: &HandshakeHash, host: &[u8; NONCE_LENGTH]) -> [u8; 32] {
    Sha256::new().chain_update(COMMITMENT_LABEL).chain_update(hash.as_bytes()).chain_update(host).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_what_the_specification_says() {
        // Computed apart from this program:
        // python3 -c "import hashlib as h; d=h.sha256(b'pocketcard v1 pairing digits'+bytes([1])*32+bytes([2])*32+bytes([3])*32).digest(); print(int.from_bytes(d[:8],'big')%10**6)"
        let digits = Digits::new(&HandshakeHash::from([1; 32]), &[2; 32], &[3; 32]);
        assert_eq!(digits.to_string(), DIGITS);
    }

    const DIGITS: &str = "155754";

    #[test]
    fn leading_zeros_are_shown() {
        assert_eq!(Digits(42_137).to_string(), "042137");
        assert_eq!(Digits(0).to_string(), "000000");
    }

    #[test]
    fn every_part_changes_the_digits_and_the_commitment() {
        let hash = HandshakeHash::from([1; 32]);
        let digits = Digits::new(&hash, &[2; 32], &[3; 32]);
        assert_ne!(digits, Digits::new(&HandshakeHash::from([9; 32]), &[2; 32], &[3; 32]));
        assert_ne!(digits, Digits::new(&hash, &[9; 32], &[3; 32]));
        assert_ne!(digits, Digits::new(&hash, &[2; 32], &[9; 32]));
        assert_ne!(commitment(&hash, &[2; 32]), commitment(&hash, &[9; 32]));
        assert_ne!(commitment(&hash, &[2; 32]), commitment(&HandshakeHash::from([9; 32]), &[2; 32]));
    }
}
