//! Drives the card: one future owns the links and the card and acts on everything that reaches its mailbox.
//!
//! [`phone`] gives a [`Phone`], the handle that an app keeps, and the future that must be polled for the phone to live. There is
//! no executor in here and no thread: on a single-threaded executor a command from a host is answered without leaving the thread.
//! No lock is held across an await; an operation that ends after it was cancelled is dropped by its id and its result wiped.

mod advertising;
mod card_owner;
mod effects;
mod event;
mod hosts;
mod links;
mod log;
mod logging;
mod mailbox;
mod owner;
mod pairing;
mod run;
#[cfg(test)]
mod tests;

use std::sync::Arc;

#[cfg(feature = "enrolment")]
pub(crate) use card_owner::OwnerSession;
pub use event::{DisconnectReason, KeyProgress, KeyStage, PairingFailure, PhoneEvent};
pub use hosts::HostInfo;
pub use log::{LOG_DELAY, LOG_LIMIT, LogEntry, LogOperation, LogResult, LoggedHost};
pub use mailbox::{LinkHandle, Phone, PhoneError, PushError, ScanError};
use pocketcard_protocol::{channel::StaticSecret, l2cap::Psm, link::VersionRange};
use zeroize::Zeroizing;

use crate::{
    card::{Card, CardConfig, CardError, Input, Permissions, Probe},
    traits::{Approver, Batch, Clock, Entropy, KeyHandle, KeyStore, SealingError, SealingKey, StateStore, StoreError},
};

const IDENTITY_KEY: &str = "identity/static";
const IDENTITY_CONTEXT: &[u8] = b"pocketcard phone identity 1";

/// What a phone is told when it starts.
pub struct PhoneConfig {
    /// The phone's name as hosts see it when they pair.
    pub name: String,
    /// Name and version of the app, for the other side's log.
    pub software: String,
    /// Versions of the protocol to speak; [`VersionRange::SUPPORTED`] but in a test.
    pub versions: VersionRange,
    /// The card.
    pub card: CardConfig,
}

/// What the platform provides.
pub struct Parts {
    /// Durable state.
    pub store: Arc<dyn StateStore>,
    /// Private keys.
    pub keystore: Arc<dyn KeyStore>,
    /// Seals the phone's identity and the keys of its pairs.
    pub sealing: Arc<dyn SealingKey>,
    /// Asks the owner.
    pub approver: Arc<dyn Approver>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Where tests may stop the phone; `Arc::new(NoProbe)` otherwise.
    pub probe: Arc<dyn Probe>,
}

/// Why a phone did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The state could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The phone's secrets could not be opened with the device key.
    #[error("the phone's identity cannot be opened: {0}")]
    Sealing(#[from] SealingError),
    /// An entry of the state makes no sense.
    #[error("the phone's state is damaged or was written by a newer version")]
    DamagedState,
    /// The random source failed.
    #[error("the random source failed")]
    Entropy,
    /// The card did not start.
    #[error(transparent)]
    Card(#[from] CardError),
}

/// What became of a message given to a [`Transport`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// The transport has taken the message.
    Sent,
    /// Nothing of it was taken; the runtime tries again after [`LinkHandle::ready_to_send`].
    WouldBlock,
    /// The link is gone.
    Gone,
}

/// Carries whole link messages to the host: a socket, a notification characteristic.
pub trait Transport: Send {
    /// Takes `message` at once or not at all; must not block.
    fn send(&mut self, message: &[u8]) -> SendOutcome;

    /// The runtime is done with the link. Messages taken before should still reach the host.
    fn close(&mut self);

    /// Where the host may open a channel of L2CAP to carry its link instead; `Info` tells it.
    fn psm(&self) -> Option<Psm> {
        None
    }
}

/// Starts a phone: the handle, and the future that is the phone. The phone ends when the future is dropped, after
/// [`Phone::stop`], or when every handle is gone.
///
/// A phone without an identity makes one. Keys that no state names any more are destroyed while the future runs.
///
/// # Errors
/// [`StartError`]
pub async fn phone(
    config: PhoneConfig,
    parts: Parts,
) -> Result<(Phone, impl Future<Output = ()> + Send + 'static), StartError> {
    let entries = parts.store.load()?;
    let identity = identity(&parts, &entries).await?;
    let now = parts.clock.now();
    let default_permissions = Permissions::default_of(config.card.test_card);
    let hosts = hosts::Hosts::open(&entries, default_permissions, &parts, now).await?;
    let log = log::Log::open(&entries, Arc::clone(&parts.store));
    let owner_verification = parts.approver.has_owner_verification();
    let card = CardConfig { owner_verification, ..config.card };
    let mut card = Card::new(card, Arc::clone(&parts.store), Arc::clone(&parts.entropy), Arc::clone(&parts.probe))?;
    for (host, permissions) in hosts.all_permissions() {
        card.handle(Input::PermissionsChanged { host, permissions }, now);
    }
    sweep(&*parts.keystore, &card.key_handles()).await;
    let (phone, mailbox) = mailbox::mailbox();
    let setup = links::Setup::new(identity, config.name, config.software, config.versions, &hosts, &parts);
    let runtime = run::Runtime::new(mailbox, Arc::clone(&phone.factory_resets), setup, hosts, card, log, parts);
    Ok((phone, runtime.run()))
}

/// Destroys the keys that no state names: they were generated just before a crash. Must end before the card can generate.
async fn sweep(keystore: &dyn KeyStore, named: &[KeyHandle]) {
    for handle in keystore.handles().await.unwrap_or_default() {
        if !named.contains(&handle) {
            // A key that cannot be deleted now is found again at the next start.
            keystore.delete(&handle).await.ok();
        }
    }
}

async fn identity(parts: &Parts, entries: &[(String, Zeroizing<Vec<u8>>)]) -> Result<StaticSecret, StartError> {
    if let Some((_, sealed)) = entries.iter().find(|(key, _)| key == IDENTITY_KEY) {
        let bytes = parts.sealing.unseal(IDENTITY_CONTEXT, sealed).await?;
        let bytes: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| StartError::DamagedState)?;
        return Ok(StaticSecret::from_bytes(bytes));
    }
    let mut bytes = Zeroizing::new([0; 32]);
    parts.entropy.fill(&mut *bytes).map_err(|_| StartError::Entropy)?;
    let sealed = parts.sealing.seal(IDENTITY_CONTEXT, &*bytes).await?;
    let mut batch = Batch::new();
    batch.put(IDENTITY_KEY, &sealed);
    parts.store.commit(batch)?;
    Ok(StaticSecret::from_bytes(&bytes))
}
