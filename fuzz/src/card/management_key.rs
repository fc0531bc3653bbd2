//! The management key, and the proofs of it.

use aes::cipher::{Array, BlockCipherDecrypt as _, BlockCipherEncrypt as _, KeyInit as _};

/// The management key, as the model knows it.
pub(super) struct ManagementKey {
    pub(super) algorithm: u8,
    pub(super) key: Vec<u8>,
}

impl ManagementKey {
    pub(super) fn well_known() -> Self {
        Self { algorithm: 0x0A, key: [1, 2, 3, 4, 5, 6, 7, 8].repeat(3) }
    }

    pub(super) fn encrypt(&self, block: [u8; 16]) -> [u8; 16] {
        let mut block = Array::from(block);
        match self.algorithm {
            0x08 => aes::Aes128::new_from_slice(&self.key).expect("16 octets").encrypt_block(&mut block),
            0x0A => aes::Aes192::new_from_slice(&self.key).expect("24 octets").encrypt_block(&mut block),
            _ => aes::Aes256::new_from_slice(&self.key).expect("32 octets").encrypt_block(&mut block),
        }
        block.into()
    }

    pub(super) fn decrypt(&self, block: [u8; 16]) -> [u8; 16] {
        let mut block = Array::from(block);
        match self.algorithm {
            0x08 => aes::Aes128::new_from_slice(&self.key).expect("16 octets").decrypt_block(&mut block),
            0x0A => aes::Aes192::new_from_slice(&self.key).expect("24 octets").decrypt_block(&mut block),
            _ => aes::Aes256::new_from_slice(&self.key).expect("32 octets").decrypt_block(&mut block),
        }
        block.into()
    }
}
