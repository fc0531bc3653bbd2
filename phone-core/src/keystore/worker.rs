//! The threads of the software key store: one for private-key operations, one for generation, so that a long generation of an
//! RSA key delays neither the signatures of others nor the runtime.

use std::{sync::Arc, thread};

use async_channel::{Receiver, Sender};
use zeroize::Zeroizing;

use super::{
    EntropyRng,
    elliptic::{p256_key, p384_key},
    rsa_key,
};
use crate::traits::{Entropy, KeyAlgorithm, KeyStoreError, PublicKeyData};

/// More jobs than this wait in the queues of their callers.
const QUEUE: usize = 8;

type Answer<T> = Sender<Result<T, KeyStoreError>>;
type Bytes = Zeroizing<Vec<u8>>;
pub(super) type Generated = (Bytes, PublicKeyData);

#[derive(Clone, Copy)]
pub(super) enum Operation {
    Sign,
    Decrypt,
    Agree,
}

struct UseJob {
    operation: Operation,
    algorithm: KeyAlgorithm,
    secret: Bytes,
    input: Bytes,
    answer: Answer<Bytes>,
}

struct GenerateJob {
    algorithm: KeyAlgorithm,
    answer: Answer<Generated>,
}

pub(super) struct Workers {
    uses: Sender<UseJob>,
    generations: Sender<GenerateJob>,
}

impl Workers {
    /// Starts both threads; they end when this is dropped.
    pub(super) fn start(entropy: &Arc<dyn Entropy>) -> Result<Self, KeyStoreError> {
        let (uses, use_jobs) = async_channel::bounded(QUEUE);
        let (generations, generate_jobs) = async_channel::bounded(QUEUE);
        spawn("card-keys", entropy, use_jobs, |job: UseJob, rng| {
            // The caller may have gone: its client cancelled. Then the key is not used.
            if !job.answer.is_closed() {
                let result = use_key(job.operation, job.algorithm, &job.secret, &job.input, rng);
                drop(job.answer.try_send(result));
            }
        })?;
        spawn("card-keygen", entropy, generate_jobs, |job: GenerateJob, rng| {
            if !job.answer.is_closed() {
                drop(job.answer.try_send(generate(job.algorithm, rng)));
            }
        })?;
        Ok(Self { uses, generations })
    }

    pub(super) async fn use_key(
        &self,
        operation: Operation,
        algorithm: KeyAlgorithm,
        secret: Bytes,
        input: &[u8],
    ) -> Result<Bytes, KeyStoreError> {
        let (answer, result) = async_channel::bounded(1);
        let input = Zeroizing::new(input.to_vec());
        let job = UseJob { operation, algorithm, secret, input, answer };
        self.uses.send(job).await.map_err(|_| KeyStoreError::Failed)?;
        result.recv().await.map_err(|_| KeyStoreError::Failed)?
    }

    pub(super) async fn generate(&self, algorithm: KeyAlgorithm) -> Result<Generated, KeyStoreError> {
        let (answer, result) = async_channel::bounded(1);
        self.generations.send(GenerateJob { algorithm, answer }).await.map_err(|_| KeyStoreError::Failed)?;
        result.recv().await.map_err(|_| KeyStoreError::Failed)?
    }
}

fn spawn<Job: Send + 'static>(
    name: &str,
    entropy: &Arc<dyn Entropy>,
    jobs: Receiver<Job>,
    mut run: impl FnMut(Job, &mut EntropyRng) + Send + 'static,
) -> Result<(), KeyStoreError> {
    let mut rng = EntropyRng(Arc::clone(entropy));
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            while let Ok(job) = jobs.recv_blocking() {
                run(job, &mut rng);
            }
        })
        .map(drop)
        .map_err(|_| KeyStoreError::Failed)
}

fn generate(algorithm: KeyAlgorithm, rng: &mut EntropyRng) -> Result<Generated, KeyStoreError> {
    match algorithm {
        KeyAlgorithm::EccP256 => p256_key::generate(rng),
        KeyAlgorithm::EccP384 => p384_key::generate(rng),
        KeyAlgorithm::Rsa2048 => rsa_key::generate(rng),
    }
}

fn use_key(
    operation: Operation,
    algorithm: KeyAlgorithm,
    secret: &[u8],
    input: &[u8],
    rng: &mut EntropyRng,
) -> Result<Bytes, KeyStoreError> {
    match (algorithm, operation) {
        (KeyAlgorithm::EccP256, Operation::Sign) => p256_key::sign(secret, input, rng),
        (KeyAlgorithm::EccP256, Operation::Agree) => p256_key::agree(secret, input),
        (KeyAlgorithm::EccP384, Operation::Sign) => p384_key::sign(secret, input, rng),
        (KeyAlgorithm::EccP384, Operation::Agree) => p384_key::agree(secret, input),
        (KeyAlgorithm::Rsa2048, Operation::Sign | Operation::Decrypt) => rsa_key::private_operation(secret, input, rng),
        (KeyAlgorithm::EccP256 | KeyAlgorithm::EccP384, Operation::Decrypt)
        | (KeyAlgorithm::Rsa2048, Operation::Agree) => Err(KeyStoreError::UnsupportedAlgorithm),
    }
}
