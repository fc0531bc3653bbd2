//! Keys of the channel, and the one place that derives keys.

use std::fmt;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{ChannelError, x25519};
use crate::entropy::{Entropy, EntropyError};

/// A peer's static X25519 public key: its identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The 32 bytes of the u-coordinate, little endian.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for PublicKey {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl TryFrom<&[u8]> for PublicKey {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self)
    }
}

impl fmt::Debug for PublicKey {
    /// The first four bytes: enough to tell keys apart in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "PublicKey({a:02x}{b:02x}{c:02x}{d:02x}..)")
    }
}

/// This side's static X25519 secret key. Wiped on drop; there is no `Clone`, [`StaticSecret::duplicate`] says so.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct StaticSecret([u8; 32]);

impl StaticSecret {
    /// Makes a new identity.
    ///
    /// # Errors
    /// [`EntropyError`] if the random source failed.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let mut secret = Self([0; 32]);
        entropy.fill(&mut secret.0)?;
        Ok(secret)
    }

    /// Takes a key that [`StaticSecret::to_bytes`] gave.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(*bytes)
    }

    /// The key, for a store.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0)
    }

    /// The public key that belongs to it.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519::public(&self.0))
    }

    /// A second copy of the key in memory.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(self.0)
    }
}

impl fmt::Debug for StaticSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StaticSecret(<32 bytes>)")
    }
}

/// A pre-shared key of Noise: 32 secret bytes. Wiped on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Psk([u8; 32]);

impl Psk {
    /// Takes a key that was derived or read from a store.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(*bytes)
    }

    /// The key, for a store or a handshake.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A second copy of the key in memory.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(self.0)
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk(<32 bytes>)")
    }
}

/// HKDF-SHA-256: one 32-byte key for each label, all from the same salt and key material.
///
/// Every key of this crate that is not Noise's own comes from here.
///
/// # Errors
/// [`ChannelError::State`] beyond 255 blocks of output, which one key never is.
///
/// Spec: SPEC.md section 8.6, RFC 5869
pub(crate) fn expand<const N: usize>(
    salt: &[u8],
    material: &[&[u8]],
    labels: [&[u8]; N],
) -> Result<[Zeroizing<[u8; 32]>; N], ChannelError> {
    let mut input = Zeroizing::new(Vec::with_capacity(material.iter().map(|part| part.len()).sum()));
    for part in material {
        input.extend_from_slice(part);
    }
    let extracted = Hkdf::<Sha256>::new(Some(salt), &input);
    let mut keys = std::array::from_fn(|_| Zeroizing::new([0; 32]));
    for (key, label) in keys.iter_mut().zip(labels) {
        extracted.expand(label, key.as_mut_slice()).map_err(|_| ChannelError::State)?;
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    #[test]
    fn the_derivation_is_rfc_5869() {
        // RFC 5869, A.1: salt, key material and info as there; the first 32 of its 42 bytes.
        let material = [0x0b; 22];
        let salt = hex!("000102030405060708090a0b0c");
        let [key] =
            expand(&salt, &[&material[..10], &material[10..]], [&hex!("f0f1f2f3f4f5f6f7f8f9")]).expect("one block");
        assert_eq!(*key, hex!("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"));
    }

    #[test]
    fn the_public_key_is_rfc_7748() {
        // RFC 7748, 6.1: Alice.
        let secret = hex!("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let public = hex!("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        assert_eq!(StaticSecret::from_bytes(&secret).public(), PublicKey::from(public));
    }

    #[test]
    fn secrets_do_not_print() {
        let secret = StaticSecret::from_bytes(&[0xC9; 32]);
        assert_eq!(
            format!("{secret:?} {:?}", Psk::from_bytes(&[0xC9; 32])),
            "StaticSecret(<32 bytes>) Psk(<32 bytes>)"
        );
        assert_eq!(format!("{:?}", PublicKey::from([0xAB; 32])), "PublicKey(abababab..)");
    }
}
