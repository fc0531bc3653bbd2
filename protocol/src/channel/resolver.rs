//! The primitives under `snow`: X25519, AES-256-GCM and SHA-256, wiped on drop.
//!
//! Two things differ from snow's own resolver: a Diffie-Hellman result of all zeros is refused, and the AES key
//! schedule is made once per key, not once per record.
//!
//! Spec: SPEC.md section 6.1; Noise revision 34, sections 4 and 12

use std::sync::Arc;

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use sha2::{Digest, Sha256};
use snow::Error;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use zeroize::Zeroizing;

use super::x25519::{self, KEY_LENGTH};
use crate::entropy::Entropy;

const TAG_LENGTH: usize = 16;

/// Gives `snow` the primitives of suite 1, and nothing else.
pub(super) struct Resolver(pub(super) Arc<dyn Entropy>);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Rng(Arc::clone(&self.0))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::<X25519>::default() as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::SHA256).then(|| Box::<Sha>::default() as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::AESGCM).then(|| Box::<Gcm>::default() as Box<dyn Cipher>)
    }
}

struct Rng(Arc<dyn Entropy>);

impl Random for Rng {
    fn try_fill_bytes(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        self.0.fill(buffer).map_err(|_| Error::Rng)
    }
}

#[derive(Default)]
struct X25519 {
    secret: Zeroizing<[u8; KEY_LENGTH]>,
    public: [u8; KEY_LENGTH],
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_LENGTH
    }

    fn priv_len(&self) -> usize {
        KEY_LENGTH
    }

    fn set(&mut self, secret: &[u8]) {
        // `snow` hands over what `Handshake` gave it: always 32 bytes.
        self.secret.iter_mut().zip(secret).for_each(|(to, from)| *to = *from);
        self.public = x25519::public(&self.secret);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut secret = Zeroizing::new([0; KEY_LENGTH]);
        rng.try_fill_bytes(secret.as_mut_slice())?;
        self.set(secret.as_slice());
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_slice()
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let public = public.first_chunk::<KEY_LENGTH>().ok_or(Error::Dh)?;
        let shared = x25519::shared(&self.secret, public).ok_or(Error::Dh)?;
        *out.first_chunk_mut::<KEY_LENGTH>().ok_or(Error::Dh)? = *shared;
        Ok(())
    }
}

#[derive(Default)]
struct Sha(Sha256);

impl Hash for Sha {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = Sha256::new();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        out.iter_mut().zip(self.0.finalize_reset()).for_each(|(to, from)| *to = from);
    }
}

/// AES-256-GCM with its key schedule; wiped by aes-gcm's own drop.
#[derive(Default)]
struct Gcm(Option<Aes256Gcm>);

/// Noise's nonce for AESGCM: four zero bytes, then the counter, big endian.
fn nonce(counter: u64) -> Nonce<<Aes256Gcm as aes_gcm::aead::AeadCore>::NonceSize> {
    let mut nonce = Nonce::default();
    nonce.iter_mut().skip(4).zip(counter.to_be_bytes()).for_each(|(to, from)| *to = from);
    nonce
}

impl Gcm {
    /// Encrypts `plaintext` into `out`, which is exactly one tag longer.
    fn seal(&self, counter: u64, associated: &[u8], plaintext: &[u8], out: &mut [u8]) -> Option<()> {
        let cipher = self.0.as_ref()?;
        let (body, tag) = out.split_at_mut_checked(plaintext.len())?;
        let body = InOutBuf::new(plaintext, body).ok()?;
        let sealed = cipher.encrypt_inout_detached(&nonce(counter), associated, body).ok()?;
        tag.first_chunk_mut::<TAG_LENGTH>().map(|tag| *tag = sealed.into())
    }
}

impl Cipher for Gcm {
    fn name(&self) -> &'static str {
        "AESGCM"
    }

    fn set(&mut self, key: &[u8; KEY_LENGTH]) {
        self.0 = Some(Aes256Gcm::new(key.into()));
    }

    fn encrypt(&self, counter: u64, associated: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        // Fails only without a key or beyond 64 GiB, and `snow` refuses both before; plaintext must not leave anyway.
        if self.seal(counter, associated, plaintext, out).is_none() {
            out.fill(0);
        }
        plaintext.len() + TAG_LENGTH
    }

    fn decrypt(&self, counter: u64, associated: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let cipher = self.0.as_ref().ok_or(Error::Decrypt)?;
        let (body, tag) = sealed.split_last_chunk::<TAG_LENGTH>().ok_or(Error::Decrypt)?;
        let out = out.get_mut(..body.len()).ok_or(Error::Decrypt)?;
        let buffer = InOutBuf::new(body, out).map_err(|_| Error::Decrypt)?;
        cipher
            .decrypt_inout_detached(&nonce(counter), associated, buffer, &Tag::from(*tag))
            .map_err(|_| Error::Decrypt)?;
        Ok(body.len())
    }

    /// Noise section 4.2, as snow's default, but the new key is wiped from the stack.
    fn rekey(&mut self) {
        let mut sealed = Zeroizing::new([0; KEY_LENGTH + TAG_LENGTH]);
        let done = self.seal(u64::MAX, &[], &[0; KEY_LENGTH], sealed.as_mut_slice());
        match (done, sealed.first_chunk::<KEY_LENGTH>()) {
            (Some(()), Some(key)) => self.set(key),
            // Without a key there is none to follow it, and nothing is sealed any more.
            _ => self.0 = None,
        }
    }
}
