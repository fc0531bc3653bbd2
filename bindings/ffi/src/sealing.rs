use std::sync::Arc;

use async_trait::async_trait;
use pocketcard_phone as core;
use zeroize::Zeroizing;

/// The device key could not seal or open something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, uniffi::Error)]
pub enum SealingError {
    /// The bytes were not sealed by this device for this context.
    #[error("the sealed data does not belong to this device or is damaged")]
    Rejected,
    /// The platform refused for now, for example because the phone is locked, or failed.
    #[error("the device key is not available now")]
    Unavailable,
}

impl From<uniffi::UnexpectedUniFFICallbackError> for SealingError {
    fn from(_: uniffi::UnexpectedUniFFICallbackError) -> Self {
        Self::Unavailable
    }
}

impl From<SealingError> for core::SealingError {
    fn from(error: SealingError) -> Self {
        match error {
            SealingError::Rejected => Self::Rejected,
            SealingError::Unavailable => Self::Unavailable,
        }
    }
}

/// Seals bytes with a key that does not leave the device (Keychain, Keystore).
#[uniffi::export(rust, foreign)]
#[async_trait]
pub trait SealingKey: Send + Sync {
    /// Seals `plain`, authenticated; only `unseal` with the same `context` on this device opens it.
    async fn seal(&self, context: Vec<u8>, plain: Vec<u8>) -> Result<Vec<u8>, SealingError>;

    /// Opens what `seal` made.
    async fn unseal(&self, context: Vec<u8>, sealed: Vec<u8>) -> Result<Vec<u8>, SealingError>;
}

pub(crate) struct ForeignSealingKey(pub(crate) Arc<dyn SealingKey>);

#[async_trait]
impl core::SealingKey for ForeignSealingKey {
    async fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, core::SealingError> {
        Ok(self.0.seal(context.to_vec(), plain.to_vec()).await?)
    }

    async fn unseal(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, core::SealingError> {
        Ok(self.0.unseal(context.to_vec(), sealed.to_vec()).await.map(Zeroizing::new)?)
    }
}
