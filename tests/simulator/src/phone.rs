//! A simulated phone: the runtime of the phone core, polled by hand, and its GATT server.

use std::collections::{BTreeMap, VecDeque};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_channel::Receiver;
use futures_lite::future::block_on;
use pocketcard_phone::Entropy;
use pocketcard_phone::card::test_support::RecordingProbe;
use pocketcard_phone::card::{CardConfig, ProbePoint};
use pocketcard_phone::runtime::{
    LinkHandle, Parts, Phone, PhoneConfig, PhoneEvent, SendOutcome, StartError, Transport, phone,
};
use pocketcard_phone::store::MemoryStore;
use pocketcard_protocol::Timestamp;
use pocketcard_protocol::fragment::{FragmentLayer, FragmentSize};
use pocketcard_protocol::gatt;
use pocketcard_protocol::link::{EARLY_MESSAGE_LIMIT, LINK_MESSAGE_LIMIT, VersionRange};
use pocketcard_protocol::test_support::TestEntropy;

use crate::clock::{Flag, VirtualClock};
use crate::keys::{CountedKeys, CountedOwner, Unsealed};
use crate::world::ConnectionId;

/// What a phone is like.
#[derive(Clone, Debug)]
pub struct PhoneSetup {
    /// What it calls itself.
    pub name: String,
    /// The card.
    pub card: CardConfig,
    /// From a message that the radio has brought to the card's answer: the app and the system below it.
    pub latency: Duration,
    /// How long the use of a private key takes.
    pub key_time: Duration,
}

impl Default for PhoneSetup {
    fn default() -> Self {
        Self {
            name: "Phone".to_owned(),
            card: CardConfig { test_card: true, ..CardConfig::default() },
            latency: Duration::ZERO,
            key_time: Duration::ZERO,
        }
    }
}

/// A phone.
pub struct SimulatedPhone {
    phone: Phone,
    running: Pin<Box<dyn Future<Output = ()> + Send>>,
    wants_poll: Arc<Flag>,
    ended: bool,
    clock: Arc<VirtualClock>,
    keys: Arc<CountedKeys>,
    owner: Arc<CountedOwner>,
    probe: Arc<RecordingProbe>,
    store: MemoryStore,
    events: Receiver<PhoneEvent>,
    latency: Duration,
    ports: BTreeMap<ConnectionId, Port>,
}

/// A connection as the phone's app sees it.
struct Port {
    handle: LinkHandle,
    outbox: Arc<Mutex<Outbox>>,
    fragments: FragmentLayer,
    info: Option<Vec<u8>>,
    /// Messages of the host on their way through the system and the app.
    waiting: VecDeque<(Timestamp, Vec<u8>)>,
    /// When the app learns that the connection is gone: after what the host said before.
    gone_at: Option<Timestamp>,
    failed: bool,
}

#[derive(Default)]
struct Outbox {
    messages: VecDeque<Vec<u8>>,
    closed: bool,
}

struct Notifications(Arc<Mutex<Outbox>>);

impl Transport for Notifications {
    fn send(&mut self, message: &[u8]) -> SendOutcome {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).messages.push_back(message.to_vec());
        SendOutcome::Sent
    }

    fn close(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    }
}

/// What a phone wants its controller to do.
pub(crate) enum Wish {
    /// Notify this.
    Notify(Vec<u8>),
    /// End the connection.
    Close,
}

impl SimulatedPhone {
    pub(crate) fn new(setup: PhoneSetup, seed: u64, now: Timestamp) -> Result<Self, StartError> {
        let clock = Arc::new(VirtualClock::default());
        clock.set(now);
        let keys = Arc::new(CountedKeys::new(Arc::clone(&clock), setup.key_time));
        let owner = Arc::new(CountedOwner::new(Arc::clone(&clock), setup.key_time));
        let probe = Arc::new(RecordingProbe::default());
        let store = MemoryStore::new();
        let entropy: Arc<dyn Entropy> = Arc::new(TestEntropy::new(seed));
        let parts = Parts {
            store: Arc::new(store.clone()),
            keystore: keys.clone(),
            sealing: Arc::new(Unsealed),
            approver: owner.clone(),
            clock: clock.clone(),
            entropy,
            probe: probe.clone(),
        };
        let config = PhoneConfig {
            name: setup.name,
            software: "simulator 1".to_owned(),
            versions: VersionRange::SUPPORTED,
            card: setup.card,
        };
        // Nothing in here waits: keys and seals are instant.
        let (phone, running) = block_on(phone(config, parts))?;
        let events = phone.events();
        Ok(Self {
            phone,
            running: Box::pin(running),
            wants_poll: Flag::new(),
            ended: false,
            clock,
            keys,
            owner,
            probe,
            store,
            events,
            latency: setup.latency,
            ports: BTreeMap::new(),
        })
    }

    /// The app's handle.
    #[must_use]
    pub fn handle(&self) -> &Phone {
        &self.phone
    }

    /// Its keys.
    #[must_use]
    pub fn keys(&self) -> &CountedKeys {
        &self.keys
    }

    /// Its owner.
    #[must_use]
    pub fn owner(&self) -> &CountedOwner {
        &self.owner
    }

    /// Its state; a copy shares the entries.
    #[must_use]
    pub fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// The points that the card has passed since the last call.
    #[must_use]
    pub fn points(&self) -> Vec<ProbePoint> {
        self.probe.take()
    }

    /// What the app was told since the last call.
    #[must_use]
    pub fn events(&self) -> Vec<PhoneEvent> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    /// Asks the phone something that it answers without waiting for a radio or a clock; `None` if it does not.
    pub fn ask<T>(&mut self, question: impl FnOnce(Phone) -> Pin<Box<dyn Future<Output = T>>>) -> Option<T> {
        let mut answer = pin!(question(self.phone.clone()));
        // Once to ask, once to take the answer; more for what needs several rounds of the runtime.
        for _ in 0..8 {
            if let Poll::Ready(answer) = answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return Some(answer);
            }
            self.run();
        }
        None
    }

    // The radio's side.

    pub(crate) fn connected(&mut self, connection: ConnectionId, mtu: usize) {
        let outbox = Arc::new(Mutex::new(Outbox::default()));
        let handle = self.phone.link_up(Box::new(Notifications(Arc::clone(&outbox))));
        let fragments = FragmentLayer::new(FragmentSize::from_mtu(mtu), EARLY_MESSAGE_LIMIT);
        let port =
            Port { handle, outbox, fragments, info: None, waiting: VecDeque::new(), gone_at: None, failed: false };
        self.ports.insert(connection, port);
    }

    pub(crate) fn disconnected(&mut self, connection: ConnectionId, now: Timestamp) {
        if let Some(port) = self.ports.get_mut(&connection) {
            port.gone_at = Some(port.waiting.back().map_or(now, |(due, _)| *due));
        }
    }

    /// The value of the characteristic `Info`; empty once it is not to be read any more.
    pub(crate) fn info(&self, connection: ConnectionId) -> Vec<u8> {
        self.ports.get(&connection).and_then(|port| port.info.clone()).unwrap_or_default()
    }

    /// A write of the host. Gives whether a whole message came with it.
    pub(crate) fn written(&mut self, connection: ConnectionId, value: &[u8], now: Timestamp) {
        let Some(port) = self.ports.get_mut(&connection).filter(|port| port.gone_at.is_none()) else { return };
        if port.fragments.handle_fragment(value, now).is_err() {
            port.failed = true;
        }
        while let Some(message) = port.fragments.poll_message() {
            port.waiting.push_back((now + self.latency, message));
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        let waiting = self.ports.values().filter_map(|port| port.waiting.front()).map(|(due, _)| *due);
        let fragments = self.ports.values().filter_map(|port| port.fragments.poll_timeout());
        let gone = self.ports.values().filter_map(|port| port.gone_at);
        waiting.chain(fragments).chain(gone).chain(self.clock.next_deadline()).min()
    }

    /// Does all that can be done now, and gives what the controller is to do.
    pub(crate) fn advance(&mut self, now: Timestamp) -> Vec<(ConnectionId, Wish)> {
        self.clock.set(now);
        for port in self.ports.values_mut() {
            if port.fragments.handle_timeout(now).is_err() {
                port.failed = true;
            }
            while port.waiting.front().is_some_and(|(due, _)| *due <= now) {
                let Some((_, message)) = port.waiting.pop_front() else { break };
                // A runtime that takes no more has closed the link.
                let _ = port.handle.try_push_message(message);
            }
        }
        let mut wishes = Vec::new();
        loop {
            self.run();
            let known = wishes.len();
            let mut over = Vec::new();
            for (&connection, port) in &mut self.ports {
                port.collect(connection, now, &mut wishes);
                if port.gone_at.is_some_and(|at| at <= now) {
                    over.push(connection);
                } else if port.failed || port.is_closed() {
                    wishes.push((connection, Wish::Close));
                    over.push(connection);
                }
            }
            // Dropping a handle tells the runtime that the link is gone, which may have something to say to others.
            let changed = !over.is_empty() || wishes.len() > known;
            self.ports.retain(|connection, _| !over.contains(connection));
            if !changed {
                return wishes;
            }
        }
    }

    fn run(&mut self) {
        let waker = Waker::from(Arc::clone(&self.wants_poll));
        while !self.ended && self.wants_poll.take() {
            self.ended = self.running.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        }
    }
}

impl Port {
    fn collect(&mut self, connection: ConnectionId, now: Timestamp, wishes: &mut Vec<(ConnectionId, Wish)>) {
        let messages = std::mem::take(&mut self.outbox.lock().unwrap_or_else(PoisonError::into_inner).messages);
        for message in messages {
            match gatt::info_value(&message) {
                // The first one is what the host reads; a later one is sent.
                Some(info) if self.info.is_none() => self.info = Some(info.to_vec()),
                _ => self.failed |= self.fragments.push(message).is_err(),
            }
        }
        self.fragments.set_limit(if self.handle.is_authenticated() { LINK_MESSAGE_LIMIT } else { EARLY_MESSAGE_LIMIT });
        let fragments = std::iter::from_fn(|| self.fragments.poll_transmit(now));
        wishes.extend(fragments.map(|fragment| (connection, Wish::Notify(fragment))));
    }

    /// The runtime is done, and everything it said is with the controller.
    fn is_closed(&self) -> bool {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner).closed && self.fragments.is_idle()
    }
}
