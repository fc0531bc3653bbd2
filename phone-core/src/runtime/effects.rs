//! Operations of the card that take their time. Each is a future; all are polled whenever the runtime is.

use std::{
    future::{Future, ready},
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_lite::FutureExt;
use zeroize::Zeroizing;

use super::hosts;
use crate::{
    card::{Effect, EffectResult, LinkId, OperationId},
    traits::{Approver, HostId, KeyStore, KeyStoreError, SealingError, SealingKey},
};

/// Key generations at once. One that was cancelled counts until it has ended: it cannot be stopped, and hosts can begin more.
const GENERATIONS: usize = 8;

/// The keys of a pair on their way to the store.
pub(super) struct SealedPair {
    pub(super) link: LinkId,
    pub(super) host: HostId,
    pub(super) name: String,
    pub(super) pair: Zeroizing<Vec<u8>>,
    pub(super) sealed: Result<Vec<u8>, SealingError>,
}

pub(super) enum Done {
    Operation(OperationId, EffectResult),
    Pair(SealedPair),
    /// Something that nobody waits for.
    Housekeeping,
}

struct Running {
    operation: Option<OperationId>,
    generates: bool,
    /// A cancelled key generation runs on, so that its key can be destroyed.
    cancelled: bool,
    future: Pin<Box<dyn Future<Output = Done> + Send>>,
}

pub(super) struct Effects {
    running: Vec<Running>,
    keystore: Arc<dyn KeyStore>,
    approver: Arc<dyn Approver>,
    sealing: Arc<dyn SealingKey>,
}

impl Effects {
    pub(super) fn new(keystore: Arc<dyn KeyStore>, approver: Arc<dyn Approver>, sealing: Arc<dyn SealingKey>) -> Self {
        Self { running: Vec::new(), keystore, approver, sealing }
    }

    pub(super) fn start(&mut self, operation: OperationId, effect: Effect) {
        let keystore = Arc::clone(&self.keystore);
        let approver = Arc::clone(&self.approver);
        let generates = matches!(effect, Effect::Generate { .. });
        if generates && self.running.iter().filter(|running| running.generates).count() >= GENERATIONS {
            return self.push(Some(operation), false, ready(failed(operation)));
        }
        self.push(Some(operation), generates, async move {
            Done::Operation(operation, perform(&*keystore, &*approver, effect).await)
        });
    }

    /// Ends an operation whose result nobody wants any more. A question to the owner goes away; a new key is destroyed.
    pub(super) fn cancel(&mut self, operation: OperationId) {
        self.running.retain_mut(|running| {
            if running.operation != Some(operation) {
                return true;
            }
            running.cancelled = true;
            running.generates
        });
    }

    pub(super) fn seal_pair(&mut self, link: LinkId, host: HostId, name: String, pair: Zeroizing<Vec<u8>>) {
        let sealing = Arc::clone(&self.sealing);
        self.push(None, false, async move {
            let sealed = sealing.seal(&hosts::context(&host), &pair).await;
            Done::Pair(SealedPair { link, host, name, pair, sealed })
        });
    }

    /// The next thing that is done.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Option<Done> {
        let mut index = 0;
        while let Some(running) = self.running.get_mut(index) {
            let Poll::Ready(done) = running.future.as_mut().poll(context) else {
                index += 1;
                continue;
            };
            let cancelled = running.cancelled;
            self.running.swap_remove(index);
            match done {
                Done::Operation(_, result) if cancelled => self.discard(result),
                Done::Housekeeping => {}
                done => return Some(done),
            }
        }
        None
    }

    fn discard(&mut self, result: EffectResult) {
        if let EffectResult::Generated { handle, .. } = result {
            let keystore = Arc::clone(&self.keystore);
            self.push(None, false, async move {
                keystore.delete(&handle).await.ok();
                Done::Housekeeping
            });
        }
    }

    fn push(
        &mut self,
        operation: Option<OperationId>,
        generates: bool,
        future: impl Future<Output = Done> + Send + 'static,
    ) {
        let failed = operation.map_or(Done::Housekeeping, failed);
        // A panic in what the platform provides ends the operation, not the phone.
        let future = async move { AssertUnwindSafe(future).catch_unwind().await.unwrap_or(failed) };
        self.running.push(Running { operation, generates, cancelled: false, future: Box::pin(future) });
    }
}

const fn failed(operation: OperationId) -> Done {
    Done::Operation(operation, EffectResult::Failed(KeyStoreError::Failed))
}

async fn perform(keystore: &dyn KeyStore, approver: &dyn Approver, effect: Effect) -> EffectResult {
    match effect {
        Effect::Generate { algorithm } => match keystore.generate(algorithm).await {
            Ok((handle, public)) => EffectResult::Generated { handle, public },
            Err(error) => EffectResult::Failed(error),
        },
        Effect::Sign { key, algorithm, input } => bytes(keystore.sign(&key, algorithm, &input).await),
        Effect::Decrypt { key, algorithm, input } => bytes(keystore.decrypt(&key, algorithm, &input).await),
        Effect::Agree { key, algorithm, peer_point } => bytes(keystore.agree(&key, algorithm, &peer_point).await),
        Effect::DeleteKey(key) => match keystore.delete(&key).await {
            Ok(()) => EffectResult::Deleted,
            Err(error) => EffectResult::Failed(error),
        },
        Effect::Approve(request) => EffectResult::Approval(approver.approve(request).await),
        Effect::EnterPin(request) => EffectResult::Pin(approver.enter_pin(request).await),
        Effect::VerifyOwner(check) => EffectResult::Owner(approver.verify_owner(check).await),
    }
}

fn bytes(result: Result<Zeroizing<Vec<u8>>, KeyStoreError>) -> EffectResult {
    match result {
        Ok(bytes) => EffectResult::Bytes(bytes),
        Err(error) => EffectResult::Failed(error),
    }
}
