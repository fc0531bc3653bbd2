use std::sync::Arc;

use async_trait::async_trait;
use pocketcard_phone as core;
use zeroize::Zeroizing;

/// An algorithm of a private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum KeyAlgorithm {
    /// ECDSA and ECDH on P-256.
    EccP256,
    /// ECDSA and ECDH on P-384.
    EccP384,
    /// RSA with a modulus of 2048 bits.
    Rsa2048,
}

/// The public half of a key.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum PublicKey {
    /// A point of the curve that the algorithm names, `04 || X || Y`.
    Ecc {
        /// The point.
        point: Vec<u8>,
    },
    /// Both numbers big endian, without leading zeros.
    Rsa {
        /// The modulus.
        modulus: Vec<u8>,
        /// The public exponent.
        exponent: Vec<u8>,
    },
}

/// A key that was made.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct GeneratedKey {
    /// Names the key in later calls; any bytes.
    pub handle: Vec<u8>,
    /// Its public half.
    pub public_key: PublicKey,
}

/// Why a private-key operation did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, uniffi::Error)]
pub enum KeyStoreError {
    /// The store cannot hold or use a key of this algorithm.
    #[error("the key store does not know this algorithm")]
    UnsupportedAlgorithm,
    /// There is no key with this handle.
    #[error("the key is not in the key store")]
    UnknownKey,
    /// The input has a wrong length, or is a point that is not on the curve.
    #[error("the input does not fit the key")]
    InvalidInput,
    /// The owner declined, or the platform refused for now.
    #[error("the platform refused the use of the key")]
    Refused,
    /// The key is there but can no longer be used.
    #[error("the key can no longer be used")]
    Unusable,
    /// The platform's key store failed, in a way that has no name here.
    #[error("the key store failed")]
    Failed,
}

/// Private keys and the operations with them. A key never leaves the store.
#[uniffi::export(rust, foreign)]
#[async_trait]
pub trait KeyStore: Send + Sync {
    /// The algorithms that `generate` accepts. Asked once, when the phone starts.
    fn algorithms(&self) -> Result<Vec<KeyAlgorithm>, KeyStoreError>;

    /// Generates a key; when this returns it is durable.
    async fn generate(&self, algorithm: KeyAlgorithm) -> Result<GeneratedKey, KeyStoreError>;

    /// Signs. Elliptic curves: `input` is the digest, exactly as long as the field; the result is a DER signature. RSA: the
    /// raw private-key operation on exactly one modulus length, already padded.
    async fn sign(&self, handle: Vec<u8>, algorithm: KeyAlgorithm, input: Vec<u8>) -> Result<Vec<u8>, KeyStoreError>;

    /// The raw RSA private-key operation on exactly one modulus length.
    async fn decrypt(&self, handle: Vec<u8>, algorithm: KeyAlgorithm, input: Vec<u8>)
    -> Result<Vec<u8>, KeyStoreError>;

    /// The X coordinate of the Diffie-Hellman result with `peer_point` (`04 || X || Y`).
    async fn agree(
        &self,
        handle: Vec<u8>,
        algorithm: KeyAlgorithm,
        peer_point: Vec<u8>,
    ) -> Result<Vec<u8>, KeyStoreError>;

    /// Destroys a key; one that is not there is no error.
    async fn delete(&self, handle: Vec<u8>) -> Result<(), KeyStoreError>;

    /// Every key of this store. Those that the card does not name are destroyed at the next start.
    async fn handles(&self) -> Result<Vec<Vec<u8>>, KeyStoreError>;
}

pub(crate) struct ForeignKeyStore(pub(crate) Arc<dyn KeyStore>);

#[async_trait]
impl core::KeyStore for ForeignKeyStore {
    fn algorithms(&self) -> Vec<core::KeyAlgorithm> {
        self.0.algorithms().unwrap_or_default().into_iter().map(Into::into).collect()
    }

    async fn generate(
        &self,
        algorithm: core::KeyAlgorithm,
    ) -> Result<(core::KeyHandle, core::PublicKeyData), core::KeyStoreError> {
        let GeneratedKey { handle, public_key } = self.0.generate(algorithm.try_into()?).await?;
        Ok((core::KeyHandle::new(handle), public_key.into()))
    }

    async fn sign(
        &self,
        key: &core::KeyHandle,
        algorithm: core::KeyAlgorithm,
        input: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, core::KeyStoreError> {
        let signature = self.0.sign(key.as_bytes().to_vec(), algorithm.try_into()?, input.to_vec()).await?;
        Ok(Zeroizing::new(signature))
    }

    async fn decrypt(
        &self,
        key: &core::KeyHandle,
        algorithm: core::KeyAlgorithm,
        input: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, core::KeyStoreError> {
        let plain = self.0.decrypt(key.as_bytes().to_vec(), algorithm.try_into()?, input.to_vec()).await?;
        Ok(Zeroizing::new(plain))
    }

    async fn agree(
        &self,
        key: &core::KeyHandle,
        algorithm: core::KeyAlgorithm,
        peer_point: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, core::KeyStoreError> {
        let shared = self.0.agree(key.as_bytes().to_vec(), algorithm.try_into()?, peer_point.to_vec()).await?;
        Ok(Zeroizing::new(shared))
    }

    async fn delete(&self, key: &core::KeyHandle) -> Result<(), core::KeyStoreError> {
        Ok(self.0.delete(key.as_bytes().to_vec()).await?)
    }

    async fn handles(&self) -> Result<Vec<core::KeyHandle>, core::KeyStoreError> {
        Ok(self.0.handles().await?.into_iter().map(core::KeyHandle::new).collect())
    }
}

impl From<KeyAlgorithm> for core::KeyAlgorithm {
    fn from(algorithm: KeyAlgorithm) -> Self {
        match algorithm {
            KeyAlgorithm::EccP256 => Self::EccP256,
            KeyAlgorithm::EccP384 => Self::EccP384,
            KeyAlgorithm::Rsa2048 => Self::Rsa2048,
        }
    }
}

impl TryFrom<core::KeyAlgorithm> for KeyAlgorithm {
    type Error = core::KeyStoreError;

    fn try_from(algorithm: core::KeyAlgorithm) -> Result<Self, core::KeyStoreError> {
        match algorithm {
            core::KeyAlgorithm::EccP256 => Ok(Self::EccP256),
            core::KeyAlgorithm::EccP384 => Ok(Self::EccP384),
            core::KeyAlgorithm::Rsa2048 => Ok(Self::Rsa2048),
            _ => Err(core::KeyStoreError::UnsupportedAlgorithm),
        }
    }
}

impl From<PublicKey> for core::PublicKeyData {
    fn from(key: PublicKey) -> Self {
        match key {
            PublicKey::Ecc { point } => Self::Ecc { point },
            PublicKey::Rsa { modulus, exponent } => Self::Rsa { modulus, exponent },
        }
    }
}

impl From<uniffi::UnexpectedUniFFICallbackError> for KeyStoreError {
    fn from(_: uniffi::UnexpectedUniFFICallbackError) -> Self {
        Self::Failed
    }
}

impl From<KeyStoreError> for core::KeyStoreError {
    fn from(error: KeyStoreError) -> Self {
        match error {
            KeyStoreError::UnsupportedAlgorithm => Self::UnsupportedAlgorithm,
            KeyStoreError::UnknownKey => Self::UnknownKey,
            KeyStoreError::InvalidInput => Self::InvalidInput,
            KeyStoreError::Refused => Self::Refused,
            KeyStoreError::Unusable => Self::Unusable,
            KeyStoreError::Failed => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_survive_both_ways() {
        for algorithm in [KeyAlgorithm::EccP256, KeyAlgorithm::EccP384, KeyAlgorithm::Rsa2048] {
            assert_eq!(KeyAlgorithm::try_from(core::KeyAlgorithm::from(algorithm)), Ok(algorithm));
        }
    }

    #[test]
    fn every_error_keeps_its_kind() {
        let table = [
            (KeyStoreError::UnsupportedAlgorithm, core::KeyStoreError::UnsupportedAlgorithm),
            (KeyStoreError::UnknownKey, core::KeyStoreError::UnknownKey),
            (KeyStoreError::InvalidInput, core::KeyStoreError::InvalidInput),
            (KeyStoreError::Refused, core::KeyStoreError::Refused),
            (KeyStoreError::Unusable, core::KeyStoreError::Unusable),
            (KeyStoreError::Failed, core::KeyStoreError::Failed),
        ];
        for (ours, theirs) in table {
            assert_eq!(core::KeyStoreError::from(ours), theirs);
        }
    }
}
