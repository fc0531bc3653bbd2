use std::{fmt, sync::Arc};

use aes_gcm::{
    Aes256Gcm, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::traits::{Entropy, SealingError, SealingKey};

const NONCE_LENGTH: usize = 12;

/// A sealing key in memory: AES-256-GCM with a random nonce and the context as associated data. The desktop keeps its 32 bytes
/// in a file; a phone uses its platform's key instead.
pub struct AesSealingKey {
    cipher: Aes256Gcm,
    entropy: Arc<dyn Entropy>,
}

impl AesSealingKey {
    /// The sealing key with these 32 bytes.
    pub fn new(key: &[u8; 32], entropy: Arc<dyn Entropy>) -> Self {
        Self { cipher: Aes256Gcm::new(key.into()), entropy }
    }
}

impl fmt::Debug for AesSealingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AesSealingKey(..)")
    }
}

#[async_trait]
impl SealingKey for AesSealingKey {
    async fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealingError> {
        let mut nonce = [0; NONCE_LENGTH];
        self.entropy.fill(&mut nonce).map_err(|_| SealingError::Unavailable)?;
        let mut sealed = nonce.to_vec();
        let body = self
            .cipher
            .encrypt(&Nonce::from(nonce), Payload { msg: plain, aad: context })
            .map_err(|_| SealingError::Unavailable)?;
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    async fn unseal(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealingError> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LENGTH>().ok_or(SealingError::Rejected)?;
        self.cipher
            .decrypt(&Nonce::from(*nonce), Payload { msg: body, aad: context })
            .map(Zeroizing::new)
            .map_err(|_| SealingError::Rejected)
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;

    use super::*;
    use crate::SystemEntropy;

    #[test]
    fn opens_only_what_it_sealed_for_the_same_context() {
        let key = AesSealingKey::new(&[7; 32], Arc::new(SystemEntropy));
        let sealed = block_on(key.seal(b"a", b"secret")).unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_eq!(block_on(key.unseal(b"a", &sealed)).unwrap().as_slice(), b"secret");
        assert_eq!(block_on(key.unseal(b"b", &sealed)), Err(SealingError::Rejected));
        assert_eq!(block_on(key.unseal(b"a", &sealed[..11])), Err(SealingError::Rejected));
        for index in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[index] ^= 1;
            assert_eq!(block_on(key.unseal(b"a", &altered)), Err(SealingError::Rejected));
        }
        let other = AesSealingKey::new(&[8; 32], Arc::new(SystemEntropy));
        assert_eq!(block_on(other.unseal(b"a", &sealed)), Err(SealingError::Rejected));
        assert_ne!(sealed, block_on(key.seal(b"a", b"secret")).unwrap());
    }
}
