//! The runtime against hosts built from the protocol's own links, with a clock that stands still and no executor: the phone's future
//! is polled by hand.
#![cfg(feature = "software-keys")]

mod effects;
mod links;
mod owner;
mod pairing;

use std::{
    collections::VecDeque,
    pin::{Pin, pin},
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
    messages::{Body, CloseReason as Told, Envelope, Open, Opened, Ping, Reset, Transmit, Unsupported},
    pairing::{Attempts, Offer, PairKeys, UNCONFIRMED_PAIR_LIFETIME},
    time::Timestamp,
};

use super::*;
use crate::{
    SystemEntropy,
    card::NoProbe,
    keystore::{AesSealingKey, SoftwareKeyStore},
    store::MemoryStore,
    test_support::ManualClock,
    traits::{
        ApprovalDecision, ApprovalRequest, HostId, KeyAlgorithm, KeyStoreError, PinAnswer, PinRequest, PublicKeyData,
    },
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
    approver: Arc<TestApprover>,
    events: Receiver<PhoneEvent>,
}

/// Answers every question the same way, or not yet.
struct TestApprover(Mutex<Option<ApprovalDecision>>);

impl TestApprover {
    fn hold(&self, hold: bool) {
        *self.0.lock().unwrap() = (!hold).then_some(ApprovalDecision::Approved);
    }

    fn answer(&self, decision: ApprovalDecision) {
        *self.0.lock().unwrap() = Some(decision);
    }
}

#[async_trait::async_trait]
impl Approver for TestApprover {
    async fn approve(&self, _request: ApprovalRequest) -> ApprovalDecision {
        let decision = *self.0.lock().unwrap();
        match decision {
            Some(decision) => decision,
            None => std::future::pending().await,
        }
    }

    async fn enter_pin(&self, _request: PinRequest) -> PinAnswer {
        PinAnswer::Unanswered
    }
}

impl World {
    fn new(store: &MemoryStore) -> Self {
        Self::with_keys(store, None)
    }

    fn with_keys(store: &MemoryStore, keys: Option<Arc<dyn KeyStore>>) -> Self {
        Self::with_card(store, keys, true)
    }

    fn with_owned_card(store: &MemoryStore) -> Self {
        Self::with_card(store, None, false)
    }

    fn with_card(store: &MemoryStore, keys: Option<Arc<dyn KeyStore>>, test_card: bool) -> Self {
        Self::with_store(Arc::new(store.clone()), keys, test_card)
    }

    fn with_store(state: Arc<dyn StateStore>, keys: Option<Arc<dyn KeyStore>>, test_card: bool) -> Self {
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let sealing: Arc<dyn SealingKey> = Arc::new(AesSealingKey::new(&[1; 32], Arc::clone(&entropy)));
        let clock = Arc::new(ManualClock::new());
        let keystore = SoftwareKeyStore::open(Arc::clone(&state), Arc::clone(&sealing), Arc::clone(&entropy)).unwrap();
        let approver = Arc::new(TestApprover(Mutex::new(Some(ApprovalDecision::Approved))));
        let parts = Parts {
            store: state,
            keystore: keys.unwrap_or_else(|| Arc::new(keystore)),
            sealing,
            approver: Arc::clone(&approver) as Arc<dyn Approver>,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            entropy,
            probe: Arc::new(NoProbe),
        };
        let config = PhoneConfig {
            name: "Phone".into(),
            software: "test 1".into(),
            versions: VersionRange::SUPPORTED,
            card: CardConfig { test_card, ..CardConfig::default() },
        };
        let (phone, running) = futures_lite::future::block_on(super::phone(config, parts)).unwrap();
        let events = phone.events();
        Self { phone, running: Box::pin(running), ended: false, clock, approver, events }
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
        let (host, opened) = self.open(identity, pair, Vec::new());
        (host, opened.session)
    }

    /// Connects and opens a card session, or goes on with the one of this token.
    fn open(&mut self, identity: u8, pair: &PairKeys, resume_token: Vec<u8>) -> (Host, Opened) {
        let mut host = self.connect(Link::host_connect(host_config(identity), pair, self.now()));
        host.exchange(self);
        assert!(host.link.is_open(), "{:?}", host.events);
        host.send(self, Open { resume_token, epoch: 1, software: "test 1".into() });
        let opened = host.events.drain(..).find_map(|event| match event {
            Event::Message(Envelope { body: Some(Body::Opened(opened)) }) => Some(opened),
            _ => None,
        });
        (host, opened.expect("a session"))
    }
}

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

/// Pairs up to the point where both show the digits.
fn shown_digits(world: &mut World, identity: u8) -> (Host, String) {
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
    (host, digits.to_string())
}

/// Pairs up to the point where the phone has stored the pair and the host has not said that it did.
fn pair_halfway(world: &mut World, identity: u8) -> (Host, PairKeys) {
    let (mut host, _) = shown_digits(world, identity);
    let phone = world.phone.clone();
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
