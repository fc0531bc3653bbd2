//! The runtime against hosts built from the protocol's own links, with a clock that stands still and no executor: the phone's future
//! is polled by hand.
#![cfg(feature = "software-keys")]

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_channel::Receiver;
use pocketcard_protocol::{
    apdu::Command,
    link::{CloseReason, Event, HostConfig, Limit, Link},
    messages::{Body, CloseReason as Told, Envelope, Open, Ping, Reset, Transmit, Unsupported},
    pairing::{Attempts, Offer, PairKeys, UNCONFIRMED_PAIR_LIFETIME},
};

use super::*;
use crate::{
    SystemEntropy,
    card::NoProbe,
    keystore::{AesSealingKey, SoftwareKeyStore},
    store::MemoryStore,
    test_support::{FixedApprover, ManualClock},
    traits::{ApprovalDecision, HostId, KeyAlgorithm, KeyStoreError, PublicKeyData},
};

/// What both ends of a transport in memory see.
#[derive(Default)]
struct Wire {
    to_host: Mutex<VecDeque<Vec<u8>>>,
    blocked: AtomicBool,
    closed: AtomicBool,
}

struct MemoryTransport(Arc<Wire>);

impl Transport for MemoryTransport {
    fn send(&mut self, message: &[u8]) -> SendOutcome {
        if self.0.blocked.load(Ordering::Relaxed) {
            return SendOutcome::WouldBlock;
        }
        self.0.to_host.lock().unwrap().push_back(message.to_vec());
        SendOutcome::Sent
    }

    fn close(&mut self) {
        self.0.closed.store(true, Ordering::Relaxed);
    }
}

struct World {
    phone: Phone,
    running: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
    clock: Arc<ManualClock>,
    events: Receiver<PhoneEvent>,
}

use std::pin::Pin;

/// A key store whose generations end when the test says so.
struct SlowKeys {
    gate: Receiver<()>,
    deleted: async_channel::Sender<KeyHandle>,
}

#[async_trait::async_trait]
impl KeyStore for SlowKeys {
    fn algorithms(&self) -> Vec<KeyAlgorithm> {
        vec![KeyAlgorithm::EccP256]
    }

    async fn generate(&self, _algorithm: KeyAlgorithm) -> Result<(KeyHandle, PublicKeyData), KeyStoreError> {
        self.gate.recv().await.map_err(|_| KeyStoreError::Failed)?;
        Ok((KeyHandle::new(vec![9]), PublicKeyData::Ecc { point: vec![4; 65] }))
    }

    async fn sign(&self, _: &KeyHandle, _: KeyAlgorithm, _: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
        Err(KeyStoreError::UnknownKey)
    }

    async fn decrypt(&self, _: &KeyHandle, _: KeyAlgorithm, _: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
        Err(KeyStoreError::UnknownKey)
    }

    async fn agree(&self, _: &KeyHandle, _: KeyAlgorithm, _: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
        Err(KeyStoreError::UnknownKey)
    }

    async fn delete(&self, key: &KeyHandle) -> Result<(), KeyStoreError> {
        self.deleted.try_send(key.clone()).map_err(|_| KeyStoreError::Failed)
    }

    async fn handles(&self) -> Result<Vec<KeyHandle>, KeyStoreError> {
        Ok(vec![KeyHandle::new(vec![7])])
    }
}

impl World {
    fn new(store: &MemoryStore) -> Self {
        Self::with_keys(store, None)
    }

    fn with_keys(store: &MemoryStore, keys: Option<Arc<dyn KeyStore>>) -> Self {
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let sealing: Arc<dyn SealingKey> = Arc::new(AesSealingKey::new(&[1; 32], Arc::clone(&entropy)));
        let state: Arc<dyn StateStore> = Arc::new(store.clone());
        let clock = Arc::new(ManualClock::new());
        let keystore = SoftwareKeyStore::open(Arc::clone(&state), Arc::clone(&sealing), Arc::clone(&entropy)).unwrap();
        let parts = Parts {
            store: state,
            keystore: keys.unwrap_or_else(|| Arc::new(keystore)),
            sealing,
            approver: Arc::new(FixedApprover(ApprovalDecision::Approved)),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            entropy,
            probe: Arc::new(NoProbe),
        };
        let config = PhoneConfig {
            name: "Phone".into(),
            software: "test 1".into(),
            versions: VersionRange::SUPPORTED,
            card: CardConfig { test_card: true, ..CardConfig::default() },
        };
        let (phone, running) = futures_lite::future::block_on(super::phone(config, parts)).unwrap();
        let events = phone.events();
        Self { phone, running: Box::pin(running), ended: false, clock, events }
    }

    /// Lets the phone do all it can do now.
    fn run(&mut self) {
        for _ in 0..4 {
            if !self.ended {
                self.ended = self.running.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
            }
        }
    }

    fn ask<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        for _ in 0..20_000 {
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return value;
            }
            self.run();
            // Private-key operations are on a thread of their own.
            std::thread::sleep(Duration::from_micros(100));
        }
        panic!("no answer");
    }

    fn advance(&mut self, duration: Duration) {
        self.clock.advance(duration);
        self.run();
    }

    fn event(&mut self, fits: impl Fn(&PhoneEvent) -> bool) -> PhoneEvent {
        self.run();
        while let Ok(event) = self.events.try_recv() {
            if fits(&event) {
                return event;
            }
        }
        panic!("no such event");
    }

    fn connect(&mut self, link: Link) -> Host {
        let wire = Arc::new(Wire::default());
        let handle = self.phone.link_up(Box::new(MemoryTransport(Arc::clone(&wire))));
        Host { wire, handle: Some(handle), link, events: Vec::new() }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Connects and opens a card session.
    fn session(&mut self, identity: u8, pair: &PairKeys) -> (Host, u64) {
        let mut host = self.connect(Link::host_connect(host_config(identity), pair, self.now()));
        host.exchange(self);
        assert!(host.link.is_open(), "{:?}", host.events);
        host.send(self, Open { resume_token: Vec::new(), epoch: 1, software: "test 1".into() });
        let session = host.events.drain(..).find_map(|event| match event {
            Event::Message(Envelope { body: Some(Body::Opened(opened)) }) => Some(opened.session),
            _ => None,
        });
        (host, session.expect("a session"))
    }
}

use pocketcard_protocol::time::Timestamp;

struct Host {
    wire: Arc<Wire>,
    handle: Option<LinkHandle>,
    link: Link,
    events: Vec<Event>,
}

fn host_config(identity: u8) -> HostConfig {
    HostConfig {
        identity: Arc::new(StaticSecret::from_bytes(&[identity; 32])),
        name: format!("Host {identity}"),
        software: "test 1".into(),
        entropy: Arc::new(SystemEntropy),
        versions: VersionRange::SUPPORTED,
    }
}

impl Host {
    /// Carries messages both ways until nobody has any.
    fn exchange(&mut self, world: &mut World) {
        for _ in 0..50 {
            while let Some(message) = self.link.poll_transmit() {
                if let Some(handle) = &self.handle {
                    handle.try_push_message(message).ok();
                }
            }
            world.run();
            let Some(message) = self.wire.to_host.lock().unwrap().pop_front() else { break };
            self.link.handle_message(&message, world.now());
            while let Some(event) = self.link.poll_event() {
                self.events.push(event);
            }
        }
    }

    fn send(&mut self, world: &mut World, envelope: impl Into<Envelope>) {
        self.link.send(&envelope.into(), world.now()).unwrap();
        self.exchange(world);
    }

    fn closed(&self) -> Option<CloseReason> {
        self.events.iter().find_map(|event| match event {
            Event::Closed(reason) => Some(*reason),
            _ => None,
        })
    }

    fn is_cut_off(&self) -> bool {
        self.wire.closed.load(Ordering::Relaxed) && self.handle.as_ref().is_none_or(LinkHandle::is_closed)
    }
}

/// Pairs up to the point where the phone has stored the pair and the host has not said that it did.
fn pair_halfway(world: &mut World, identity: u8) -> (Host, PairKeys) {
    let config = host_config(identity);
    let offer =
        Offer::new(&config.identity.public(), &config.name, &SystemEntropy, &Attempts::new(), world.now()).unwrap();
    let qr = offer.qr_text().unwrap();
    let phone = world.phone.clone();
    assert_eq!(world.ask(phone.scan(&qr)).unwrap(), config.name);
    let mut host = world.connect(Link::host_pair(config, offer, world.now()));
    host.exchange(world);
    let shown = host.events.drain(..).find_map(|event| match event {
        Event::PairingDigits { digits, .. } => Some(digits.to_string()),
        _ => None,
    });
    let PhoneEvent::PairingDigits { digits, .. } =
        world.event(|event| matches!(event, PhoneEvent::PairingDigits { .. }))
    else {
        unreachable!()
    };
    assert_eq!(shown, Some(digits.to_string()));
    host.link.confirm_pairing(true, world.now());
    world.ask(phone.confirm_pairing(true)).unwrap();
    host.exchange(world);
    let pair = host.events.drain(..).find_map(|event| match event {
        Event::Paired { pair, .. } => Some(pair),
        _ => None,
    });
    (host, pair.expect("a pair"))
}

fn pair(world: &mut World, identity: u8) -> PairKeys {
    let (mut host, pair) = pair_halfway(world, identity);
    host.link.pair_stored(world.now());
    host.exchange(world);
    world.event(|event| matches!(event, PhoneEvent::Paired { .. }));
    pair
}

fn hosts(world: &mut World) -> Vec<HostInfo> {
    let phone = world.phone.clone();
    world.ask(phone.hosts()).unwrap()
}

const SELECT: &[u8] = &[0x00, 0xA4, 0x04, 0x00, 0x05, 0xA0, 0x00, 0x00, 0x03, 0x08];

#[test]
fn a_paired_host_uses_the_card_also_after_a_restart() {
    let store = MemoryStore::new();
    let mut world = World::new(&store);
    let pair = pair(&mut world, 1);
    let (mut host, session) = world.session(1, &pair);
    host.send(&mut world, Transmit { session, request_id: 1, epoch: 1, command: SELECT.to_vec() });
    let answered = |event: &Event| matches!(event, Event::Message(Envelope { body: Some(Body::Response(_)) }));
    assert!(host.events.iter().any(answered), "{:?}", host.events);
    assert!(hosts(&mut world)[0].connected);
    drop(world);

    let mut world = World::new(&store);
    assert_eq!(hosts(&mut world).len(), 1);
    assert!(!hosts(&mut world)[0].connected);
    world.session(1, &pair);
}

#[test]
fn secrets_of_a_pair_are_sealed_in_the_store() {
    let store = MemoryStore::new();
    let mut world = World::new(&store);
    let pair = pair(&mut world, 1);
    let secret = pair.to_bytes();
    for (name, value) in store.load().unwrap() {
        for part in secret.windows(16).step_by(16) {
            assert!(!value.windows(16).any(|window| window == part && part != pair.peer.as_bytes()), "{name}");
        }
    }
}

#[test]
fn a_pair_that_the_host_did_not_store_is_dropped_in_time() {
    let store = MemoryStore::new();
    let mut world = World::new(&store);
    let (host, _pair) = pair_halfway(&mut world, 1);
    assert_eq!(hosts(&mut world).len(), 1);
    drop(host);
    world.advance(UNCONFIRMED_PAIR_LIFETIME - Duration::from_secs(1));
    assert_eq!(hosts(&mut world).len(), 1);
    world.advance(Duration::from_secs(1));
    assert_eq!(hosts(&mut world).len(), 0);
    let left = store.load().unwrap();
    assert!(!left.iter().any(|(name, _)| name.starts_with("host/")));
}

#[test]
fn a_connection_confirms_a_pair_for_good() {
    let store = MemoryStore::new();
    let mut world = World::new(&store);
    let (host, pair) = pair_halfway(&mut world, 1);
    drop(host);
    world.session(1, &pair);
    world.advance(UNCONFIRMED_PAIR_LIFETIME * 2);
    assert_eq!(hosts(&mut world).len(), 1);
}

#[test]
fn forgetting_a_host_closes_its_link_at_once() {
    let mut world = World::new(&MemoryStore::new());
    let pair = pair(&mut world, 1);
    let (mut host, _) = world.session(1, &pair);
    let phone = world.phone.clone();
    let id = hosts(&mut world)[0].host;
    world.ask(phone.forget(id)).unwrap();
    assert!(matches!(world.ask(phone.forget(id)), Err(PhoneError::UnknownHost)));
    host.exchange(&mut world);
    assert!(host.closed().is_some());
    assert!(host.is_cut_off());
    let mut again = world.connect(Link::host_connect(host_config(1), &pair, world.now()));
    again.exchange(&mut world);
    assert!(!again.link.is_open());
}

#[test]
fn pairing_again_replaces_the_pair_and_ends_the_old_link() {
    let mut world = World::new(&MemoryStore::new());
    let old = pair(&mut world, 1);
    let (mut host, _) = world.session(1, &old);
    let new = pair(&mut world, 1);
    host.exchange(&mut world);
    assert!(host.closed().is_some());
    assert_eq!(hosts(&mut world).len(), 1);
    world.session(1, &new);
    let mut stale = world.connect(Link::host_connect(host_config(1), &old, world.now()));
    stale.exchange(&mut world);
    assert!(!stale.link.is_open());
}

#[test]
fn one_pairing_at_a_time_and_two_minutes_for_it() {
    let mut world = World::new(&MemoryStore::new());
    let phone = world.phone.clone();
    assert!(matches!(world.ask(phone.confirm_pairing(true)), Err(PhoneError::NoPairing)));
    let (_host, _) = pair_halfway(&mut world, 1);
    assert!(matches!(world.ask(phone.compare()), Err(ScanError::Busy)));
    phone.cancel_pairing();
    world.advance(Duration::from_secs(60));
    world.ask(phone.compare()).unwrap();
    world.advance(Duration::from_secs(120));
    world.event(|event| matches!(event, PhoneEvent::PairingFailed { reason: PairingFailure::Expired }));
    assert!(world.ask(phone.scan("pocketcard:nonsense")).is_err());
}

/// What a phone's `Info` says about pairing by a scanned code.
fn ready_for_scanned(info: &[u8]) -> bool {
    info[3] & 1 != 0
}

#[test]
fn a_scanned_code_holds_two_minutes_from_the_scan_whatever_links_come_up() {
    let mut world = World::new(&MemoryStore::new());
    let phone = world.phone.clone();
    let config = host_config(1);
    // The host's own clock is late, so that nothing but the phone ends the pairing.
    let made = world.now() + Duration::from_secs(100);
    let offer = Offer::new(&config.identity.public(), "Host", &SystemEntropy, &Attempts::new(), made).unwrap();
    world.ask(phone.scan(&offer.qr_text().unwrap())).unwrap();
    let infos = |world: &mut World, host: &Host| {
        world.run();
        host.wire.to_host.lock().unwrap().drain(..).map(|info| ready_for_scanned(&info)).collect::<Vec<_>>()
    };
    world.advance(Duration::from_secs(119));
    let early = world.connect(Link::host_pair(host_config(1), offer, world.now()));
    assert_eq!(infos(&mut world, &early), [true]);
    world.advance(Duration::from_millis(999));
    assert!(infos(&mut world, &early).is_empty());
    world.advance(Duration::from_millis(1));
    assert_eq!(infos(&mut world, &early), [false], "the link has been there for a second only");
    world.event(|event| matches!(event, PhoneEvent::PairingFailed { reason: PairingFailure::Expired }));
    let late = world.connect(Link::host_connect(host_config(2), &unpaired(), world.now()));
    assert_eq!(infos(&mut world, &late), [false]);
}

/// The device slept; the link comes up before any timer has run.
#[test]
fn a_pairing_does_not_outlive_a_sleep_of_the_device() {
    for scanned in [true, false] {
        let mut world = World::new(&MemoryStore::new());
        let phone = world.phone.clone();
        let config = host_config(1);
        let offer = Offer::new(&config.identity.public(), "Host", &SystemEntropy, &Attempts::new(), world.now());
        let text = offer.unwrap().qr_text().unwrap();
        if scanned {
            world.ask(phone.scan(&text)).unwrap();
        } else {
            world.ask(phone.compare()).unwrap();
        }
        world.clock.advance(Duration::from_secs(120));
        let host = world.connect(Link::host_connect(host_config(1), &unpaired(), world.now()));
        world.run();
        let infos = std::mem::take(&mut *host.wire.to_host.lock().unwrap());
        assert_eq!(infos.iter().map(|info| info[3]).collect::<Vec<_>>(), [0], "ready for nothing from the start");
        world.event(|event| matches!(event, PhoneEvent::PairingFailed { reason: PairingFailure::Expired }));
    }
}

/// The keys of a pair that no phone here has.
fn unpaired() -> PairKeys {
    pair(&mut World::new(&MemoryStore::new()), 1)
}

#[test]
fn a_transport_that_only_asks_again_makes_no_progress() {
    let mut world = World::new(&MemoryStore::new());
    let pair = pair(&mut world, 1);
    let (mut host, session) = world.session(1, &pair);
    host.wire.blocked.store(true, Ordering::Relaxed);
    host.send(&mut world, Transmit { session, request_id: 1, epoch: 1, command: SELECT.to_vec() });
    for _ in 0..9 {
        world.advance(Duration::from_secs(1));
        host.handle.as_ref().unwrap().ready_to_send();
        world.run();
    }
    assert!(!host.is_cut_off());
    world.advance(Duration::from_secs(1));
    assert!(host.is_cut_off());
}

#[test]
fn one_host_takes_no_more_than_two_places() {
    let mut world = World::new(&MemoryStore::new());
    let first_pair = pair(&mut world, 1);
    let second_pair = pair(&mut world, 2);
    let mut links: Vec<Host> = (0..20)
        .map(|_| {
            let mut host = world.connect(Link::host_connect(host_config(1), &first_pair, world.now()));
            host.exchange(&mut world);
            // Anything but an opening, which would end the card session of the link before.
            host.send(&mut world, Unsupported {});
            host
        })
        .collect();
    links.iter_mut().for_each(|host| host.exchange(&mut world));
    let closed: Vec<_> = links.iter().map(Host::closed).collect();
    assert!(closed[..18].iter().all(|reason| *reason == Some(CloseReason::Peer(Told::Replaced))), "{closed:?}");
    assert_eq!(closed[18..], [None, None]);
    world.session(2, &second_pair);
}

#[test]
fn a_host_that_does_not_read_is_served_no_further_and_then_cut_off() {
    let mut world = World::new(&MemoryStore::new());
    let pair = pair(&mut world, 1);
    let (mut host, session) = world.session(1, &pair);
    host.wire.blocked.store(true, Ordering::Relaxed);
    for request_id in 1..=3 {
        let transmit = Transmit { session, request_id, epoch: 1, command: SELECT.to_vec() };
        host.send(&mut world, transmit);
    }
    assert!(host.events.is_empty(), "{:?}", host.events);
    host.wire.blocked.store(false, Ordering::Relaxed);
    host.handle.as_ref().unwrap().ready_to_send();
    host.exchange(&mut world);
    let responses = |host: &Host| {
        let ids = host.events.iter().filter_map(|event| match event {
            Event::Message(Envelope { body: Some(Body::Response(response)) }) => Some(response.request_id),
            _ => None,
        });
        ids.collect::<Vec<_>>()
    };
    assert_eq!(responses(&host), [1, 2, 3]);

    host.wire.blocked.store(true, Ordering::Relaxed);
    host.send(&mut world, Transmit { session, request_id: 4, epoch: 1, command: SELECT.to_vec() });
    world.advance(Duration::from_secs(9));
    assert!(!host.is_cut_off());
    world.advance(Duration::from_secs(1));
    assert!(host.is_cut_off());
    world.event(|event| matches!(event, PhoneEvent::Disconnected { .. }));
}

#[test]
fn a_flood_fills_only_its_own_room() {
    let mut world = World::new(&MemoryStore::new());
    let pair = pair(&mut world, 1);
    let (mut host, _) = world.session(1, &pair);
    let handle = host.handle.take().unwrap();
    // Nothing is polled here, so everything waits.
    let mut taken = 0;
    while handle.try_push_message(vec![0]).is_ok() {
        taken += 1;
    }
    assert_eq!(taken, 64);
    assert!(matches!(handle.try_push_message(vec![0]), Err((PushError::Full, message)) if message == [0]));
    world.run();
    assert!(handle.is_closed());
    assert!(matches!(handle.try_push_message(vec![0]), Err((PushError::Closed, _))));
}

#[test]
fn strangers_cannot_take_all_places() {
    let mut world = World::new(&MemoryStore::new());
    let pair = pair(&mut world, 1);
    let strangers: Vec<Host> =
        (0..8).map(|_| world.connect(Link::host_connect(host_config(9), &pair, Timestamp::ZERO))).collect();
    world.run();
    let mut ninth = world.connect(Link::host_connect(host_config(1), &pair, world.now()));
    ninth.exchange(&mut world);
    assert_eq!(ninth.closed(), Some(CloseReason::Busy));
    assert!(ninth.is_cut_off());
    drop(strangers);
    world.run();
    world.session(1, &pair);
}

#[test]
fn a_lost_transport_is_reported_and_its_host_can_come_back() {
    let mut world = World::new(&MemoryStore::new());
    let pair = pair(&mut world, 1);
    let (mut host, _) = world.session(1, &pair);
    drop(host.handle.take());
    let lost = |event: &PhoneEvent| matches!(event, PhoneEvent::Disconnected { reason: CloseReason::Lost, .. });
    world.event(lost);
    assert!(host.is_cut_off());
    world.session(1, &pair);
}

#[test]
fn a_silent_host_is_let_go() {
    let mut world = World::new(&MemoryStore::new());
    let pair = pair(&mut world, 1);
    let (_host, _) = world.session(1, &pair);
    world.advance(Limit::Silence.duration() - Duration::from_secs(1));
    assert!(hosts(&mut world)[0].connected);
    world.advance(Duration::from_secs(2));
    assert!(!hosts(&mut world)[0].connected);
}

#[test]
fn the_owners_commands_are_answered_and_hosts_can_be_renamed() {
    let mut world = World::new(&MemoryStore::new());
    let phone = world.phone.clone();
    let response = world.ask(phone.local_transmit(Command::parse(SELECT).unwrap())).unwrap();
    assert!(response.status().is_success());
    pair(&mut world, 1);
    let id = hosts(&mut world)[0].host;
    world.ask(phone.rename(id, "\u{202E}Laptop\n")).unwrap();
    assert_eq!(hosts(&mut world)[0].name, "Laptop");
    assert!(matches!(world.ask(phone.rename(id, "\u{202E}")), Err(PhoneError::EmptyName)));
    let stranger = HostId::new([3; 32]);
    assert!(matches!(world.ask(phone.rename(stranger, "x")), Err(PhoneError::UnknownHost)));
}

#[test]
fn stopping_says_goodbye_to_every_host() {
    let mut world = World::new(&MemoryStore::new());
    let pair = pair(&mut world, 1);
    let (mut host, _) = world.session(1, &pair);
    let phone = world.phone.clone();
    world.ask(phone.stop());
    assert!(world.ended);
    host.exchange(&mut world);
    assert!(host.closed().is_some());
    assert!(host.is_cut_off());
    assert!(matches!(world.ask(phone.hosts()), Err(PhoneError::Stopped)));
    world.ask(phone.stop());
}

#[test]
fn messages_without_a_session_close_only_their_link() {
    let mut world = World::new(&MemoryStore::new());
    let first_pair = pair(&mut world, 1);
    let second_pair = pair(&mut world, 2);
    let (mut good, session) = world.session(1, &first_pair);
    let mut bad = world.connect(Link::host_connect(host_config(2), &second_pair, world.now()));
    bad.exchange(&mut world);
    bad.send(&mut world, Reset { session: 77, epoch: 5 });
    assert!(bad.closed().is_some());
    good.send(&mut world, Transmit { session, request_id: 1, epoch: 1, command: SELECT.to_vec() });
    assert!(good.closed().is_none());
    assert!(bad.link.send(&Ping { id: 1 }.into(), world.now()).is_err());
}

#[test]
fn a_key_that_is_ready_too_late_is_destroyed_and_orphans_are_swept() {
    let (open_gate, gate) = async_channel::bounded(1);
    let (deleted, destroyed) = async_channel::unbounded();
    let store = MemoryStore::new();
    let mut world = World::with_keys(&store, Some(Arc::new(SlowKeys { gate, deleted })));
    assert_eq!(destroyed.try_recv().unwrap(), KeyHandle::new(vec![7]), "no state names this key");

    let phone = world.phone.clone();
    let generate = Command::parse(&[0x00, 0x47, 0x00, 0x9A, 5, 0xAC, 3, 0x80, 1, 0x11]).unwrap();
    let mut answer = Box::pin(phone.local_transmit(generate));
    assert!(answer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    world.run();
    phone.local_reset();
    world.run();
    open_gate.try_send(()).unwrap();
    world.run();
    assert_eq!(destroyed.try_recv().unwrap(), KeyHandle::new(vec![9]));
    assert!(!world.ask(answer).unwrap().status().is_success());
}

#[test]
fn generations_that_nobody_waits_for_do_not_pile_up() {
    let (_gate, closed) = async_channel::bounded(1);
    let (deleted, _destroyed) = async_channel::unbounded();
    let mut world = World::with_keys(&MemoryStore::new(), Some(Arc::new(SlowKeys { gate: closed, deleted })));
    let phone = world.phone.clone();
    let generate = || Command::parse(&[0x00, 0x47, 0x00, 0x9A, 5, 0xAC, 3, 0x80, 1, 0x11]).unwrap();
    let begin = |world: &mut World| {
        let mut answer = Box::pin(phone.local_transmit(generate()));
        assert!(answer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        world.run();
        answer.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    };
    for _ in 0..8 {
        assert!(begin(&mut world).is_pending());
        phone.local_reset();
        world.run();
    }
    let Poll::Ready(Ok(answer)) = begin(&mut world) else { panic!("a ninth generation was begun") };
    assert_eq!(u16::from(answer.status()), 0x6F00);
}

/// A key store that panics, as foreign code may.
struct PanickingKeys;

#[async_trait::async_trait]
impl KeyStore for PanickingKeys {
    fn algorithms(&self) -> Vec<KeyAlgorithm> {
        vec![KeyAlgorithm::EccP256]
    }

    async fn generate(&self, _: KeyAlgorithm) -> Result<(KeyHandle, PublicKeyData), KeyStoreError> {
        panic!("a bug of the platform")
    }

    async fn sign(&self, _: &KeyHandle, _: KeyAlgorithm, _: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
        Err(KeyStoreError::UnknownKey)
    }

    async fn decrypt(&self, _: &KeyHandle, _: KeyAlgorithm, _: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
        Err(KeyStoreError::UnknownKey)
    }

    async fn agree(&self, _: &KeyHandle, _: KeyAlgorithm, _: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
        Err(KeyStoreError::UnknownKey)
    }

    async fn delete(&self, _: &KeyHandle) -> Result<(), KeyStoreError> {
        Ok(())
    }

    async fn handles(&self) -> Result<Vec<KeyHandle>, KeyStoreError> {
        Ok(Vec::new())
    }
}

#[test]
fn a_key_store_that_panics_costs_one_operation_and_not_the_phone() {
    let mut world = World::with_keys(&MemoryStore::new(), Some(Arc::new(PanickingKeys)));
    let phone = world.phone.clone();
    let generate = Command::parse(&[0x00, 0x47, 0x00, 0x9A, 5, 0xAC, 3, 0x80, 1, 0x11]).unwrap();
    let answer = world.ask(phone.local_transmit(generate)).unwrap();
    assert_eq!(u16::from(answer.status()), 0x6F00);
    assert!(world.ask(phone.local_transmit(Command::parse(SELECT).unwrap())).unwrap().status().is_success());
}
