use rsa::{
    BoxedUint, PrivateKey, hazmat,
    pkcs1::{DecodeRsaPrivateKey, EncodeRsaPrivateKey},
    traits::PublicKeyParts,
};
use zeroize::Zeroizing;

use super::EntropyRng;
use crate::traits::{KeyStoreError, PublicKeyData};

const MODULUS_BITS: u32 = 2048;
const MODULUS_LENGTH: usize = 256;

pub(super) fn generate(rng: &mut EntropyRng) -> Result<(Zeroizing<Vec<u8>>, PublicKeyData), KeyStoreError> {
    let key = PrivateKey::new(rng, MODULUS_BITS as usize).map_err(|_| KeyStoreError::Failed)?;
    let public = PublicKeyData::Rsa { modulus: key.n_bytes().to_vec(), exponent: key.e_bytes().to_vec() };
    let secret = key.to_pkcs1_der().map_err(|_| KeyStoreError::Failed)?;
    Ok((Zeroizing::new(secret.as_bytes().to_vec()), public))
}

/// The raw private-key operation: base, exponents and moduli blinded, the result checked with the public key so that a fault
/// in one half of the CRT cannot give away a prime.
///
/// Spec: RFC 8017, sections 5.1.2 and 5.2.1
pub(super) fn private_operation(
    secret: &[u8],
    input: &[u8],
    rng: &mut EntropyRng,
) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
    if input.len() != MODULUS_LENGTH {
        return Err(KeyStoreError::InvalidInput);
    }
    let key = PrivateKey::from_pkcs1_der(secret).map_err(|_| KeyStoreError::Unusable)?;
    let number = BoxedUint::from_be_slice(input, MODULUS_BITS).map_err(|_| KeyStoreError::InvalidInput)?;
    if number >= *key.n().as_ref() {
        return Err(KeyStoreError::InvalidInput);
    }
    let result =
        Zeroizing::new(hazmat::rsa_decrypt_and_check(&key, Some(rng), &number).map_err(|_| KeyStoreError::Failed)?);
    let bytes = Zeroizing::new(result.to_be_bytes().into_vec());
    if bytes.len() != MODULUS_LENGTH {
        return Err(KeyStoreError::Failed);
    }
    Ok(bytes)
}
