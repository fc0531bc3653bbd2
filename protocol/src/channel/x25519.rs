//! X25519, the one place where this crate computes it.
//!
//! Spec: RFC 7748, section 6.1

use zeroize::Zeroizing;

pub(super) const KEY_LENGTH: usize = 32;

#[cfg(not(all(fuzzing, feature = "test-support")))]
use curve::{public_key, shared_secret};
#[cfg(all(fuzzing, feature = "test-support"))]
use stand_in::{public_key, shared_secret};

/// The public key that belongs to a secret one.
pub(super) fn public(secret: &[u8; KEY_LENGTH]) -> [u8; KEY_LENGTH] {
    public_key(secret)
}

/// What two keys have in common; `None` if the result is all zeros, as a point of small order makes it whatever the
/// secret is.
pub(super) fn shared(secret: &[u8; KEY_LENGTH], public: &[u8; KEY_LENGTH]) -> Option<Zeroizing<[u8; KEY_LENGTH]>> {
    shared_secret(secret, public)
}

#[cfg(not(all(fuzzing, feature = "test-support")))]
mod curve {
    use super::{KEY_LENGTH, Zeroizing};
    use x25519_dalek::{PublicKey, StaticSecret};

    pub(super) fn public_key(secret: &[u8; KEY_LENGTH]) -> [u8; KEY_LENGTH] {
        PublicKey::from(&StaticSecret::from(*secret)).to_bytes()
    }

    pub(super) fn shared_secret(
        secret: &[u8; KEY_LENGTH],
        public: &[u8; KEY_LENGTH],
    ) -> Option<Zeroizing<[u8; KEY_LENGTH]>> {
        let shared = StaticSecret::from(*secret).diffie_hellman(&PublicKey::from(*public));
        shared.was_contributory().then(|| Zeroizing::new(shared.to_bytes()))
    }
}

/// Diffie-Hellman modulo 2^61 - 1, which protects nothing. Under a fuzzer's instrumentation X25519 takes nine tenths of
/// the time of a link, and what is to be explored is the link. `cargo fuzz` sets `fuzzing`; no release is built so.
#[cfg(all(fuzzing, feature = "test-support"))]
mod stand_in {
    use super::{KEY_LENGTH, Zeroizing};

    const PRIME: u128 = (1 << 61) - 1;
    const GENERATOR: u128 = 37;

    fn number(bytes: &[u8; KEY_LENGTH]) -> u128 {
        bytes.first_chunk::<8>().copied().map_or(0, u64::from_le_bytes).into()
    }

    fn power(mut base: u128, mut exponent: u128) -> [u8; KEY_LENGTH] {
        let mut result = 1;
        while exponent > 0 {
            if exponent & 1 == 1 {
                result = result * base % PRIME;
            }
            base = base * base % PRIME;
            exponent >>= 1;
        }
        let mut bytes = [0; KEY_LENGTH];
        bytes.iter_mut().zip(result.to_le_bytes()).for_each(|(to, from)| *to = from);
        bytes
    }

    pub(super) fn public_key(secret: &[u8; KEY_LENGTH]) -> [u8; KEY_LENGTH] {
        power(GENERATOR, number(secret))
    }

    pub(super) fn shared_secret(
        secret: &[u8; KEY_LENGTH],
        public: &[u8; KEY_LENGTH],
    ) -> Option<Zeroizing<[u8; KEY_LENGTH]>> {
        let shared = power(number(public) % PRIME, number(secret));
        (shared != [0; KEY_LENGTH]).then(|| Zeroizing::new(shared))
    }
}
