//! Puts the phone together from its folder.

use std::{io, sync::Arc};

use async_channel::Receiver;
use pocketcard_phone::{
    Approver, Entropy, KeyAlgorithm, KeyStore, KeyStoreError, SealingKey, StateStore, StoreError, SystemEntropy,
    card::{CardConfig, NoProbe, Probe},
    enrolment::{Enrolment, EnrolmentError, NameError, Names, NewKey},
    keystore::{AesSealingKey, SoftwareKeyStore},
    runtime::{self, Parts, Phone, PhoneConfig, StartError},
    store::RedbStore,
};
use pocketcard_protocol::link::VersionRange;
use tokio::task::JoinHandle;

use crate::{
    approver::{AskOwner, Question},
    arguments::{Address, Arguments, TestCard},
    clock::BootClock,
    device_key::{self, DeviceKeyError},
    enrolment,
    output::Output,
    probe::TestProbe,
    socket::{ListenError, Listener, Peers},
};

/// The PIN that every test card has, as its documentation says; a card that people rely on has none until its owner sets it.
const TEST_PIN: &str = "123456";

#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("the log file cannot be written")]
    Log(#[source] io::Error),
    #[error("the file of --probe-log-for-testing-only cannot be written")]
    ProbeLog(#[source] io::Error),
    #[error("the program cannot start")]
    Runtime(#[source] io::Error),
    #[error("the terminal cannot be used")]
    Terminal(#[source] io::Error),
    #[error("there is no terminal for the user interface; run it in one, or with --script")]
    NoTerminal,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    DeviceKey(#[from] DeviceKeyError),
    #[error("the keys cannot be used")]
    Keys(#[from] KeyStoreError),
    #[error("--auto-approve is for tests and refuses keys in hardware; leave it out")]
    AutoApproveHardware,
    #[error("--auto-approve needs a unix socket, where the phone sees whose programs connect; use --listen unix:PATH")]
    AutoApproveTcp,
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the test card cannot be given its keys")]
    Enrolment(#[from] EnrolmentError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(
        "this program was built without Bluetooth; build it with `cargo build -p pocketcard-examples --features ble`"
    )]
    NoRadio,
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// A phone that runs and a socket that listens.
pub(crate) struct Started {
    pub(crate) phone: Phone,
    pub(crate) running: JoinHandle<()>,
    pub(crate) listener: Option<Listener>,
    pub(crate) questions: Receiver<Question>,
    /// Whether there is a PIN, or a PUK to have it back: test cards have them, others only once their owner has chosen them.
    pub(crate) enrolled: bool,
}

pub(crate) async fn start(arguments: &Arguments, output: &Output) -> Result<Started, SetupError> {
    if arguments.ble.is_some() && !cfg!(feature = "ble") {
        return Err(SetupError::NoRadio);
    }
    if arguments.auto_approve && matches!(arguments.listen, Some(Address::Tcp(_))) {
        return Err(SetupError::AutoApproveTcp);
    }
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let store: Arc<dyn StateStore> = Arc::new(RedbStore::open(&arguments.state)?);
    let fresh = store.load()?.is_empty();
    let device_key = device_key::load(&arguments.state, fresh, &*entropy)?;
    let sealing: Arc<dyn SealingKey> = Arc::new(AesSealingKey::new(&device_key, Arc::clone(&entropy)));
    let keystore: Arc<dyn KeyStore> =
        Arc::new(SoftwareKeyStore::open(Arc::clone(&store), Arc::clone(&sealing), Arc::clone(&entropy))?);
    if arguments.auto_approve && keystore.is_hardware() {
        return Err(SetupError::AutoApproveHardware);
    }
    let (asking, questions) = AskOwner::new(arguments.auto_approve, arguments.owner_check);
    let approver: Arc<dyn Approver> = Arc::new(asking);
    let clock = Arc::new(BootClock);
    let probe = probe(arguments, output)?;
    let software = concat!("virtual-phone ", env!("CARGO_PKG_VERSION")).to_owned();
    let card = CardConfig {
        test_card: arguments.test_card.is_some(),
        name: arguments.name.clone(),
        software: software.clone(),
        algorithms: keystore.algorithms(),
        ..CardConfig::default()
    };
    let versions = arguments.versions_for_testing_only.unwrap_or(VersionRange::SUPPORTED);
    let config = PhoneConfig { name: arguments.name.clone(), software, versions, card };
    let parts = Parts { store, keystore, sealing, approver, clock, entropy: Arc::clone(&entropy), probe };
    let (phone, running) = runtime::phone(config, parts).await?;
    let running = tokio::spawn(running);
    provision(&phone, arguments, &*entropy).await?;
    // A daemon of the system runs as root or as a user of its own. What it would be given unasked is for tests only.
    let peers = if arguments.auto_approve { Peers::User } else { Peers::UserAndRoot };
    let listener = match &arguments.listen {
        Some(address) => Some(Listener::bind(address, peers).await?),
        None => None,
    };
    let enrolled = !enrolment::tries(&phone).await.are_over();
    Ok(Started { phone, running, listener, questions, enrolled })
}

fn probe(arguments: &Arguments, output: &Output) -> Result<Arc<dyn Probe>, SetupError> {
    let stop = arguments.probe_stop_for_testing_only;
    let log = arguments.probe_log_for_testing_only.as_deref();
    if stop.is_none() && log.is_none() {
        return Ok(Arc::new(NoProbe));
    }
    Ok(Arc::new(TestProbe::new(stop, log, output.clone()).map_err(SetupError::ProbeLog)?))
}

/// Gives a test card the keys and certificates that it lacks.
async fn provision(phone: &Phone, arguments: &Arguments, entropy: &dyn Entropy) -> Result<(), SetupError> {
    let algorithm = match arguments.test_card {
        Some(TestCard::Ec) => KeyAlgorithm::EccP256,
        Some(TestCard::Rsa) => KeyAlgorithm::Rsa2048,
        Some(TestCard::Empty) | None => return Ok(()),
    };
    let enrolment = Enrolment::new(phone, entropy);
    let slots = enrolment.slots().await?.into_iter().filter(|slot| slot.certificate.is_none());
    let missing: Vec<NewKey> = slots.map(|content| NewKey::new(content.slot, algorithm)).collect();
    if missing.is_empty() {
        // A PIN that is no longer the well-known one must not keep a test card from starting.
        return Ok(());
    }
    Ok(enrolment.make_keys(TEST_PIN, &missing, &Names::new("Pocketcard test card")?).await?)
}
