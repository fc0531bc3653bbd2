//! ECDSA and ECDH on one NIST curve. P-256 and P-384 differ in nothing but the crate, so one macro writes both.

macro_rules! curve {
    ($module:ident, $curve:ident, $length:literal) => {
        pub(super) mod $module {
            use $curve::{
                PublicKey, SecretKey,
                ecdsa::{DerSignature, SigningKey, signature::hazmat::RandomizedPrehashSigner},
                elliptic_curve::{Generate, sec1::ToSec1Point},
            };
            use zeroize::Zeroizing;

            use super::super::EntropyRng;
            use crate::traits::{KeyStoreError, PublicKeyData};

            fn load(secret: &[u8]) -> Result<SecretKey, KeyStoreError> {
                SecretKey::from_slice(secret).map_err(|_| KeyStoreError::Unusable)
            }

            pub(in super::super) fn generate(
                rng: &mut EntropyRng,
            ) -> Result<(Zeroizing<Vec<u8>>, PublicKeyData), KeyStoreError> {
                let secret = SecretKey::try_generate_from_rng(rng).map_err(|_| KeyStoreError::Failed)?;
                let point = secret.public_key().to_sec1_point(false).as_bytes().to_vec();
                Ok((Zeroizing::new(secret.to_bytes().to_vec()), PublicKeyData::Ecc { point }))
            }

            pub(in super::super) fn sign(
                secret: &[u8],
                digest: &[u8],
                rng: &mut EntropyRng,
            ) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
                if digest.len() != $length {
                    return Err(KeyStoreError::InvalidInput);
                }
                // Deterministic nonces of RFC 6979 with added randomness: neither a bad random source nor an induced fault
                // alone gives the key away.
                let signature: DerSignature = SigningKey::from(load(secret)?)
                    .sign_prehash_with_rng(rng, digest)
                    .map_err(|_| KeyStoreError::Failed)?;
                Ok(Zeroizing::new(signature.as_bytes().to_vec()))
            }

            pub(in super::super) fn agree(secret: &[u8], peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
                if peer.len() != 1 + 2 * $length || peer.first() != Some(&4) {
                    return Err(KeyStoreError::InvalidInput);
                }
                // Refuses a point that is not on the curve: it would give away the key piece by piece.
                let peer = PublicKey::from_sec1_bytes(peer).map_err(|_| KeyStoreError::InvalidInput)?;
                let shared = load(secret)?.diffie_hellman(&peer);
                Ok(Zeroizing::new(shared.raw_secret_bytes().to_vec()))
            }
        }
    };
}

curve!(p256_key, p256, 32);
curve!(p384_key, p384, 48);
