//! Private keys in software, sealed at rest with the device key.
//!
//! What this store cannot do: resist somebody who holds both the disk and the device key, or who can read this process's
//! memory while a key is in use. A phone's own key store can.

mod elliptic;
mod rsa_key;
mod sealing;
mod software;
mod worker;

pub use sealing::AesSealingKey;
pub use software::SoftwareKeyStore;

use std::sync::Arc;

use rsa::rand_core::{TryCryptoRng, TryRng};

use crate::traits::{Entropy, EntropyError};

/// The injected entropy as the algorithms want to see it.
struct EntropyRng(Arc<dyn Entropy>);

impl TryRng for EntropyRng {
    type Error = EntropyError;

    fn try_next_u32(&mut self) -> Result<u32, EntropyError> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, EntropyError> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        self.0.fill(buffer)
    }
}

impl TryCryptoRng for EntropyRng {}
