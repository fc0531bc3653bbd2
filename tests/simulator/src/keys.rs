//! What the platform of a simulated phone provides: keys without arithmetic that are counted, an owner who is counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pocketcard_phone::card::test_support::InstantKeys;
use pocketcard_phone::card::{Effect, EffectResult};
use pocketcard_phone::{
    ApprovalDecision, ApprovalRequest, Approver, Clock as _, EnteredPin, KeyAlgorithm, KeyHandle, KeyStore,
    KeyStoreError, PinAnswer, PinRequest, PublicKeyData, SealingError, SealingKey,
};
use zeroize::Zeroizing;

use crate::clock::VirtualClock;

/// Keys whose results have the right form and depend on key and input. Every use is counted: what was done twice shows.
pub struct CountedKeys {
    keys: Mutex<InstantKeys>,
    made: Mutex<Vec<KeyAlgorithm>>,
    uses: AtomicU64,
    clock: Arc<VirtualClock>,
    /// How long the use of a key takes.
    time: Duration,
}

impl CountedKeys {
    pub(crate) fn new(clock: Arc<VirtualClock>, time: Duration) -> Self {
        Self { keys: Mutex::default(), made: Mutex::default(), uses: AtomicU64::new(0), clock, time }
    }

    /// Signatures, decryptions and agreements that were done, whether or not anybody got their result.
    pub fn uses(&self) -> u64 {
        self.uses.load(Ordering::Relaxed)
    }

    /// The keys that were made, in their order: two stores with the same ones have the same handles.
    pub fn made(&self) -> Vec<KeyAlgorithm> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn use_key(&self, effect: Effect) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
        let until = self.clock.now() + self.time;
        self.clock.sleep_until(until).await;
        self.uses.fetch_add(1, Ordering::Relaxed);
        match self.perform(effect) {
            EffectResult::Bytes(bytes) => Ok(bytes),
            EffectResult::Failed(error) => Err(error),
            _ => Err(KeyStoreError::Failed),
        }
    }

    fn perform(&self, effect: Effect) -> EffectResult {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).perform(effect)
    }
}

#[async_trait]
impl KeyStore for CountedKeys {
    fn algorithms(&self) -> Vec<KeyAlgorithm> {
        vec![KeyAlgorithm::Rsa2048, KeyAlgorithm::EccP256, KeyAlgorithm::EccP384]
    }

    fn is_hardware(&self) -> bool {
        false
    }

    async fn generate(&self, algorithm: KeyAlgorithm) -> Result<(KeyHandle, PublicKeyData), KeyStoreError> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(algorithm);
        match self.perform(Effect::Generate { algorithm }) {
            EffectResult::Generated { handle, public } => Ok((handle, public)),
            _ => Err(KeyStoreError::Failed),
        }
    }

    async fn sign(
        &self,
        key: &KeyHandle,
        algorithm: KeyAlgorithm,
        input: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
        let input = Zeroizing::new(input.to_vec());
        self.use_key(Effect::Sign { key: key.clone(), algorithm, input }).await
    }

    async fn decrypt(
        &self,
        key: &KeyHandle,
        algorithm: KeyAlgorithm,
        input: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
        let input = Zeroizing::new(input.to_vec());
        self.use_key(Effect::Decrypt { key: key.clone(), algorithm, input }).await
    }

    async fn agree(
        &self,
        key: &KeyHandle,
        algorithm: KeyAlgorithm,
        peer_point: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
        self.use_key(Effect::Agree { key: key.clone(), algorithm, peer_point: peer_point.to_vec() }).await
    }

    async fn delete(&self, key: &KeyHandle) -> Result<(), KeyStoreError> {
        self.perform(Effect::DeleteKey(key.clone()));
        Ok(())
    }

    async fn handles(&self) -> Result<Vec<KeyHandle>, KeyStoreError> {
        Ok(self.keys.lock().unwrap_or_else(PoisonError::into_inner).handles())
    }
}

/// An owner who says yes at once, and enters the PIN that somebody chose. Whoever makes this phone ask is counted.
#[derive(Debug)]
pub struct CountedOwner {
    asked: AtomicU64,
    pin: Mutex<Option<String>>,
    clock: Arc<VirtualClock>,
    /// How long it takes to enter a PIN.
    time: Duration,
}

impl CountedOwner {
    pub(crate) fn new(clock: Arc<VirtualClock>, time: Duration) -> Self {
        Self { asked: AtomicU64::new(0), pin: Mutex::default(), clock, time }
    }

    /// How often the owner was asked, for whatever.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// From now on the owner enters this; `None`: nobody answers.
    pub fn enters(&self, pin: Option<&str>) {
        *self.pin.lock().unwrap_or_else(PoisonError::into_inner) = pin.map(str::to_owned);
    }
}

#[async_trait]
impl Approver for CountedOwner {
    async fn approve(&self, _request: ApprovalRequest) -> ApprovalDecision {
        self.asked.fetch_add(1, Ordering::Relaxed);
        ApprovalDecision::Approved
    }

    async fn enter_pin(&self, _request: PinRequest) -> PinAnswer {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let until = self.clock.now() + self.time;
        self.clock.sleep_until(until).await;
        match self.pin.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            Some(pin) => PinAnswer::Entered(EnteredPin { current: pin.into(), new: None }),
            None => PinAnswer::Unanswered,
        }
    }
}

/// Seals nothing: no disk is simulated.
#[derive(Debug)]
pub(crate) struct Unsealed;

#[async_trait]
impl SealingKey for Unsealed {
    async fn seal(&self, _context: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealingError> {
        Ok(plain.to_vec())
    }

    async fn unseal(&self, _context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealingError> {
        Ok(Zeroizing::new(sealed.to_vec()))
    }
}
