use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::worker::{Operation, Workers};
use crate::traits::{
    Batch, Entropy, KeyAlgorithm, KeyHandle, KeyStore, KeyStoreError, PublicKeyData, SealingError, SealingKey,
    StateStore,
};

const NAMESPACE: &str = "key/";
const FORMAT: u8 = 1;
const HANDLE_LENGTH: usize = 16;
const ALGORITHMS: [KeyAlgorithm; 3] = [KeyAlgorithm::EccP256, KeyAlgorithm::EccP384, KeyAlgorithm::Rsa2048];

#[derive(Clone)]
struct SealedKey {
    algorithm: KeyAlgorithm,
    sealed: Vec<u8>,
}

/// A [`KeyStore`] in software for every algorithm of the card.
///
/// Keys lie in the [`StateStore`] under `key/`, sealed with the device key; they are opened for each operation and wiped after
/// it. Operations run on a thread of their own, generations on another.
pub struct SoftwareKeyStore {
    keys: Mutex<HashMap<KeyHandle, SealedKey>>,
    store: Arc<dyn StateStore>,
    sealing: Arc<dyn SealingKey>,
    entropy: Arc<dyn Entropy>,
    workers: Workers,
}

impl SoftwareKeyStore {
    /// Opens the key store over the phone's state.
    ///
    /// # Errors
    /// [`KeyStoreError::Failed`] if the state cannot be read or no thread can be started, [`KeyStoreError::Unusable`] if an entry
    /// was written by a newer version.
    pub fn open(
        store: Arc<dyn StateStore>,
        sealing: Arc<dyn SealingKey>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, KeyStoreError> {
        let mut keys = HashMap::new();
        for (name, value) in store.load().map_err(|_| KeyStoreError::Failed)? {
            if let Some(name) = name.strip_prefix(NAMESPACE) {
                let handle = handle_of(name).ok_or(KeyStoreError::Unusable)?;
                keys.insert(handle, decode(&value).ok_or(KeyStoreError::Unusable)?);
            }
        }
        let workers = Workers::start(&entropy)?;
        Ok(Self { keys: Mutex::new(keys), store, sealing, entropy, workers })
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<KeyHandle, SealedKey>> {
        // Every change is one insert or one remove.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn use_key(
        &self,
        operation: Operation,
        key: &KeyHandle,
        algorithm: KeyAlgorithm,
        input: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
        let sealed = self.keys().get(key).cloned().ok_or(KeyStoreError::UnknownKey)?;
        if sealed.algorithm != algorithm {
            return Err(KeyStoreError::UnsupportedAlgorithm);
        }
        let secret = self.sealing.unseal(&context(key, algorithm), &sealed.sealed).await.map_err(from_sealing)?;
        self.workers.use_key(operation, algorithm, secret, input).await
    }
}

#[async_trait]
impl KeyStore for SoftwareKeyStore {
    fn algorithms(&self) -> Vec<KeyAlgorithm> {
        ALGORITHMS.to_vec()
    }

    fn is_hardware(&self) -> bool {
        false
    }

    async fn generate(&self, algorithm: KeyAlgorithm) -> Result<(KeyHandle, PublicKeyData), KeyStoreError> {
        let (secret, public) = self.workers.generate(algorithm).await?;
        let mut name = vec![0; HANDLE_LENGTH];
        self.entropy.fill(&mut name).map_err(|_| KeyStoreError::Failed)?;
        let handle = KeyHandle::new(name);
        let sealed = self.sealing.seal(&context(&handle, algorithm), &secret).await.map_err(from_sealing)?;
        // From here to the return there is no await: a caller that gives up gets either no key or one that is swept.
        let key = SealedKey { algorithm, sealed };
        let mut batch = Batch::new();
        batch.put(&entry_name(&handle), &encode(&key));
        self.store.commit(batch).map_err(|_| KeyStoreError::Failed)?;
        self.keys().insert(handle.clone(), key);
        Ok((handle, public))
    }

    async fn sign(
        &self,
        key: &KeyHandle,
        algorithm: KeyAlgorithm,
        input: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
        self.use_key(Operation::Sign, key, algorithm, input).await
    }

    async fn decrypt(
        &self,
        key: &KeyHandle,
        algorithm: KeyAlgorithm,
        input: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
        self.use_key(Operation::Decrypt, key, algorithm, input).await
    }

    async fn agree(
        &self,
        key: &KeyHandle,
        algorithm: KeyAlgorithm,
        peer_point: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
        self.use_key(Operation::Agree, key, algorithm, peer_point).await
    }

    async fn delete(&self, key: &KeyHandle) -> Result<(), KeyStoreError> {
        let mut batch = Batch::new();
        batch.delete(&entry_name(key));
        self.store.commit(batch).map_err(|_| KeyStoreError::Failed)?;
        self.keys().remove(key);
        Ok(())
    }

    async fn handles(&self) -> Result<Vec<KeyHandle>, KeyStoreError> {
        Ok(self.keys().keys().cloned().collect())
    }
}

fn from_sealing(error: SealingError) -> KeyStoreError {
    match error {
        SealingError::Rejected => KeyStoreError::Unusable,
        SealingError::Unavailable => KeyStoreError::Refused,
    }
}

/// Binds a sealed key to its name and algorithm, so that entries cannot be exchanged on the disk.
fn context(handle: &KeyHandle, algorithm: KeyAlgorithm) -> Vec<u8> {
    let mut context = b"pocketcard software key 1".to_vec();
    context.push(algorithm_code(algorithm));
    context.extend_from_slice(handle.as_bytes());
    context
}

const fn algorithm_code(algorithm: KeyAlgorithm) -> u8 {
    // The codes of SP 800-78, table 6-2.
    match algorithm {
        KeyAlgorithm::Rsa2048 => 0x07,
        KeyAlgorithm::EccP256 => 0x11,
        KeyAlgorithm::EccP384 => 0x14,
    }
}

fn encode(key: &SealedKey) -> Vec<u8> {
    let mut value = vec![FORMAT, algorithm_code(key.algorithm)];
    value.extend_from_slice(&key.sealed);
    value
}

fn decode(value: &[u8]) -> Option<SealedKey> {
    let [FORMAT, code, sealed @ ..] = value else { return None };
    let algorithm = ALGORITHMS.into_iter().find(|algorithm| algorithm_code(*algorithm) == *code)?;
    Some(SealedKey { algorithm, sealed: sealed.to_vec() })
}

fn entry_name(handle: &KeyHandle) -> String {
    let mut name = NAMESPACE.to_owned();
    for byte in handle.as_bytes() {
        // Writing to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

fn handle_of(name: &str) -> Option<KeyHandle> {
    if name.len() != 2 * HANDLE_LENGTH || !name.is_ascii() {
        return None;
    }
    let digits = name.as_bytes().chunks(2);
    let bytes = digits.map(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
    bytes.collect::<Option<Vec<_>>>().map(KeyHandle::new)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use futures_lite::{FutureExt, future, future::block_on};
    use p256::ecdsa::signature::hazmat::PrehashVerifier;
    use rsa::{BoxedUint, PublicKey, hazmat};

    use super::{super::AesSealingKey, *};
    use crate::{SystemEntropy, store::MemoryStore};

    fn open(store: &MemoryStore, device_key: u8) -> SoftwareKeyStore {
        let entropy = Arc::new(SystemEntropy);
        let sealing = Arc::new(AesSealingKey::new(&[device_key; 32], entropy.clone()));
        SoftwareKeyStore::open(Arc::new(store.clone()), sealing, entropy).unwrap()
    }

    fn point(public: PublicKeyData) -> Vec<u8> {
        let PublicKeyData::Ecc { point } = public else { panic!("not an elliptic curve key") };
        point
    }

    #[test]
    fn signatures_verify_also_after_reopening() {
        let store = MemoryStore::new();
        let keys = open(&store, 1);
        let (p256_key, p256_public) = block_on(keys.generate(KeyAlgorithm::EccP256)).unwrap();
        let (p384_key, p384_public) = block_on(keys.generate(KeyAlgorithm::EccP384)).unwrap();
        drop(keys);
        let keys = open(&store, 1);

        let signature = block_on(keys.sign(&p256_key, KeyAlgorithm::EccP256, &[0x5A; 32])).unwrap();
        let verifier = p256::ecdsa::VerifyingKey::from_sec1_bytes(&point(p256_public)).unwrap();
        let signature = p256::ecdsa::DerSignature::from_bytes(&signature).unwrap();
        verifier.verify_prehash(&[0x5A; 32], &signature).unwrap();
        verifier.verify_prehash(&[0x5B; 32], &signature).unwrap_err();

        let signature = block_on(keys.sign(&p384_key, KeyAlgorithm::EccP384, &[0x5A; 48])).unwrap();
        let verifier = p384::ecdsa::VerifyingKey::from_sec1_bytes(&point(p384_public)).unwrap();
        verifier.verify_prehash(&[0x5A; 48], &p384::ecdsa::DerSignature::from_bytes(&signature).unwrap()).unwrap();
    }

    #[test]
    fn rsa_operations_are_undone_by_the_public_key() {
        let keys = open(&MemoryStore::new(), 1);
        let (key, public) = block_on(keys.generate(KeyAlgorithm::Rsa2048)).unwrap();
        let PublicKeyData::Rsa { modulus, exponent } = public else { panic!("not an RSA key") };
        assert_eq!(modulus.len(), 256);
        assert_eq!(exponent, [1, 0, 1]);
        let public = PublicKey::new(
            BoxedUint::from_be_slice(&modulus, 2048).unwrap(),
            BoxedUint::from_be_slice_vartime(&exponent),
        )
        .unwrap();
        let mut input = vec![0x42; 256];
        input[0] = 0;
        for operation in [Operation::Sign, Operation::Decrypt] {
            let result = block_on(keys.use_key(operation, &key, KeyAlgorithm::Rsa2048, &input)).unwrap();
            let number = BoxedUint::from_be_slice(&result, 2048).unwrap();
            assert_eq!(hazmat::rsa_encrypt(&public, &number).unwrap().to_be_bytes().as_ref(), input);
        }
        for refused in [&input[1..], [input.as_slice(), &[0]].concat().as_slice(), &[0xFF; 256], modulus.as_slice()] {
            let result = block_on(keys.sign(&key, KeyAlgorithm::Rsa2048, refused));
            assert_eq!(result, Err(KeyStoreError::InvalidInput));
        }
        let agreed = block_on(keys.agree(&key, KeyAlgorithm::Rsa2048, &input));
        assert_eq!(agreed, Err(KeyStoreError::UnsupportedAlgorithm));
    }

    #[test]
    fn both_sides_agree_and_points_off_the_curve_are_refused() {
        let keys = open(&MemoryStore::new(), 1);
        for (algorithm, length) in [(KeyAlgorithm::EccP256, 32), (KeyAlgorithm::EccP384, 48)] {
            let (first, first_public) = block_on(keys.generate(algorithm)).unwrap();
            let (second, second_public) = block_on(keys.generate(algorithm)).unwrap();
            let second_point = point(second_public);
            let one = block_on(keys.agree(&first, algorithm, &second_point)).unwrap();
            let two = block_on(keys.agree(&second, algorithm, &point(first_public))).unwrap();
            assert_eq!(one, two);
            assert_eq!(one.len(), length);

            let mut off_curve = second_point.clone();
            off_curve[2 * length] ^= 1;
            let compressed = [&[2], &second_point[1..=length]].concat();
            let mut zero = vec![0; 1 + 2 * length];
            zero[0] = 4;
            for refused in [off_curve.as_slice(), &second_point[1..], &compressed, &zero, &[0], &[]] {
                let result = block_on(keys.agree(&first, algorithm, refused));
                assert_eq!(result, Err(KeyStoreError::InvalidInput));
            }
        }
    }

    #[test]
    fn keys_are_sealed_and_bound_to_device_and_name() {
        let store = MemoryStore::new();
        let (key, _) = block_on(open(&store, 1).generate(KeyAlgorithm::EccP256)).unwrap();
        let other_device = open(&store, 2);
        let refused = block_on(other_device.sign(&key, KeyAlgorithm::EccP256, &[1; 32]));
        assert_eq!(refused, Err(KeyStoreError::Unusable));

        let keys = open(&store, 1);
        let (other, _) = block_on(keys.generate(KeyAlgorithm::EccP256)).unwrap();
        let value = store.load().unwrap().into_iter().find(|(name, _)| *name == entry_name(&key)).unwrap().1;
        let mut batch = Batch::new();
        batch.put(&entry_name(&other), &value);
        store.commit(batch).unwrap();
        let exchanged = block_on(open(&store, 1).sign(&other, KeyAlgorithm::EccP256, &[1; 32]));
        assert_eq!(exchanged, Err(KeyStoreError::Unusable));
    }

    #[test]
    fn a_deleted_key_is_gone_for_good() {
        let store = MemoryStore::new();
        let keys = open(&store, 1);
        let (key, _) = block_on(keys.generate(KeyAlgorithm::EccP256)).unwrap();
        assert_eq!(block_on(keys.handles()).unwrap(), std::slice::from_ref(&key));
        let wrong = block_on(keys.sign(&key, KeyAlgorithm::EccP384, &[1; 48]));
        assert_eq!(wrong, Err(KeyStoreError::UnsupportedAlgorithm));
        block_on(keys.delete(&key)).unwrap();
        block_on(keys.delete(&key)).unwrap();
        assert_eq!(block_on(keys.sign(&key, KeyAlgorithm::EccP256, &[1; 32])), Err(KeyStoreError::UnknownKey));
        assert!(store.load().unwrap().is_empty());
        assert!(block_on(open(&store, 1).handles()).unwrap().is_empty());
    }

    #[test]
    fn a_generation_that_nobody_waits_for_leaves_no_key() {
        let store = MemoryStore::new();
        let keys = open(&store, 1);
        block_on(async {
            let started = keys.generate(KeyAlgorithm::Rsa2048);
            // One poll hands the job to the thread; then the future is dropped.
            assert!(future::poll_once(started).await.is_none());
            // The queue is served in order, so this one ends after the abandoned one.
            keys.generate(KeyAlgorithm::EccP256).await.unwrap();
        });
        assert_eq!(store.load().unwrap().len(), 1);
    }

    #[test]
    fn a_long_generation_does_not_delay_signatures() {
        let keys = open(&MemoryStore::new(), 1);
        block_on(async {
            let (key, _) = keys.generate(KeyAlgorithm::EccP256).await.unwrap();
            let generation = async {
                keys.generate(KeyAlgorithm::Rsa2048).await.unwrap();
                panic!("the generation of an RSA key overtook a signature");
            };
            let signature = async {
                let start = Instant::now();
                keys.sign(&key, KeyAlgorithm::EccP256, &[1; 32]).await.unwrap();
                assert!(start.elapsed() < Duration::from_secs(2));
            };
            generation.or(signature).await;
        });
    }
}
