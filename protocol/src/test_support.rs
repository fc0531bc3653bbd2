//! For tests, here and in other crates: entropy that repeats, and a pair of links on a virtual clock.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::channel::{HandshakeHash, PublicKey, StaticSecret};
use crate::entropy::{Entropy, EntropyError};
use crate::link::{CloseReason, Event, HostConfig, Link, PairingMode, PhoneConfig, Side, VersionRange};
use crate::messages::Envelope;
use crate::pairing::PairKeys;
use crate::time::Timestamp;

/// Entropy that gives the same bytes for the same seed, each run. Never for anything but a test.
#[derive(Debug)]
pub struct TestEntropy {
    seed: u64,
    counter: AtomicU64,
}

impl TestEntropy {
    /// The stream of bytes that belongs to `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, counter: AtomicU64::new(0) }
    }
}

impl Entropy for TestEntropy {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        for chunk in buffer.chunks_mut(32) {
            let counter = self.counter.fetch_add(1, Ordering::Relaxed);
            let block = Sha256::new().chain_update(self.seed.to_be_bytes()).chain_update(counter.to_be_bytes());
            chunk.iter_mut().zip(block.finalize()).for_each(|(to, from)| *to = from);
        }
        Ok(())
    }
}

/// Entropy that always fails.
#[derive(Debug)]
pub struct NoEntropy;

impl Entropy for NoEntropy {
    fn fill(&self, _: &mut [u8]) -> Result<(), EntropyError> {
        Err(EntropyError)
    }
}

/// A host and a phone with identities, not yet paired with anyone.
#[derive(Clone)]
pub struct Parties {
    /// For the host's links.
    pub host: HostConfig,
    /// For the phone's links; it looks its pairs up in `phone_pairs`.
    pub phone: PhoneConfig,
    phone_pairs: Arc<Mutex<Vec<PairKeys>>>,
}

impl Parties {
    /// A host and a phone whose secrets all follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let secret = |part: u8| {
            let bytes: [u8; 32] = Sha256::new().chain_update(seed.to_be_bytes()).chain_update([part]).finalize().into();
            Arc::new(StaticSecret::from_bytes(&bytes))
        };
        let phone_pairs: Arc<Mutex<Vec<PairKeys>>> = Arc::default();
        let lookup = Arc::clone(&phone_pairs);
        let host = HostConfig {
            identity: secret(0),
            name: "desk".into(),
            software: "host 1".into(),
            entropy: Arc::new(TestEntropy::new(seed.wrapping_mul(2))),
            versions: VersionRange::SUPPORTED,
        };
        let phone = PhoneConfig {
            identity: secret(1),
            name: "phone".into(),
            software: "phone 1".into(),
            entropy: Arc::new(TestEntropy::new(seed.wrapping_mul(2).wrapping_add(1))),
            pairs: Arc::new(move |host: &PublicKey| {
                let pairs = lookup.lock().unwrap_or_else(PoisonError::into_inner);
                pairs.iter().find(|pair| pair.peer == *host).map(PairKeys::duplicate)
            }),
            pairing: PairingMode::Closed,
            versions: VersionRange::SUPPORTED,
        };
        Self { host, phone, phone_pairs }
    }

    /// Pairs the two without a pairing. Gives the host's keys; the phone knows its own.
    #[must_use]
    pub fn pair(&self) -> PairKeys {
        let (host, phone) = pair_keys(&self.host.identity, &self.phone.identity);
        self.store(phone);
        host
    }

    /// Puts a pair into the phone's store.
    pub fn store(&self, pair: PairKeys) {
        self.phone_pairs.lock().unwrap_or_else(PoisonError::into_inner).push(pair);
    }

    /// Takes every pair out of the phone's store.
    pub fn forget_all(&self) {
        self.phone_pairs.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// A host and a phone that are paired and about to connect.
    #[must_use]
    pub fn connecting(&self) -> Pair {
        let keys = self.pair();
        self.connecting_with(&keys)
    }

    /// A host with these keys and the phone, about to connect.
    #[must_use]
    pub fn connecting_with(&self, keys: &PairKeys) -> Pair {
        let host = Link::host_connect(self.host.clone(), keys, Timestamp::ZERO);
        Pair::new(host, Link::phone(self.phone.clone(), Timestamp::ZERO))
    }
}

impl fmt::Debug for Parties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parties").field("host", &self.host).field("phone", &self.phone).finish_non_exhaustive()
    }
}

/// The keys of a host and a phone as if they had paired: the host's, then the phone's.
#[must_use]
pub fn pair_keys(host: &StaticSecret, phone: &StaticSecret) -> (PairKeys, PairKeys) {
    let hash = HandshakeHash::from([7; 32]);
    let keys = |peer: &StaticSecret| {
        // Bytes of a stored pair, so that this cannot fail.
        let mut bytes = vec![1];
        bytes.extend_from_slice(peer.public().as_bytes());
        bytes.extend_from_slice(&Sha256::digest(hash.as_bytes()));
        bytes.extend_from_slice(hash.as_bytes());
        PairKeys::from_bytes(&bytes)
    };
    match (keys(phone), keys(host)) {
        (Ok(of_host), Ok(of_phone)) => (of_host, of_phone),
        // `from_bytes` reads what was built above for its format.
        _ => unreachable!("the format of a stored pair has changed"),
    }
}

/// A link message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flight {
    /// Who sent it.
    pub from: Side,
    /// The how-many-th message of that side it is, counted from 0.
    pub number: usize,
    /// The link message.
    pub message: Vec<u8>,
    /// How much longer than usual it takes.
    pub delay: Duration,
}

/// What lies between the two links: gives for each message what arrives in its place.
pub type Interceptor = Box<dyn FnMut(Flight) -> Vec<Flight>>;

/// A host's link and a phone's link, joined by a wire with latency, on a virtual clock.
pub struct Pair {
    /// The host's link.
    pub host: Link,
    /// The phone's link.
    pub phone: Link,
    /// The virtual clock.
    pub now: Timestamp,
    /// How long a message takes.
    pub latency: Duration,
    /// All that the host's link has reported and nobody has taken.
    pub host_events: Vec<Event>,
    /// All that the phone's link has reported and nobody has taken.
    pub phone_events: Vec<Event>,
    /// Every message that was sent, in order, as it was sent.
    pub log: Vec<Flight>,
    interceptor: Option<Interceptor>,
    in_flight: VecDeque<(Timestamp, Flight)>,
    sent: [usize; 2],
    cut: bool,
}

impl Pair {
    /// Joins two links with a wire of no latency.
    #[must_use]
    pub fn new(host: Link, phone: Link) -> Self {
        Self {
            host,
            phone,
            now: Timestamp::ZERO,
            latency: Duration::ZERO,
            host_events: Vec::new(),
            phone_events: Vec::new(),
            log: Vec::new(),
            interceptor: None,
            in_flight: VecDeque::new(),
            sent: [0; 2],
            cut: false,
        }
    }

    /// Puts something between the links.
    pub fn intercept(&mut self, interceptor: impl FnMut(Flight) -> Vec<Flight> + 'static) {
        self.interceptor = Some(Box::new(interceptor));
    }

    /// Cuts the wire: nothing arrives any more, and neither side is told.
    pub fn cut(&mut self) {
        self.cut = true;
        self.in_flight.clear();
    }

    /// Tells both sides that the transport has ended.
    pub fn disconnect(&mut self) {
        self.cut();
        self.host.close(CloseReason::Lost, self.now);
        self.phone.close(CloseReason::Lost, self.now);
        self.collect();
    }

    /// Delivers whatever is on its way, and the answers to it, until the wire is empty. Timers do not run, but the
    /// clock moves by the latency of what is delivered.
    pub fn settle(&mut self) {
        self.collect();
        while let Some((due, flight)) = self.next_flight(Timestamp::from_origin(Duration::MAX)) {
            self.now = self.now.max(due);
            self.deliver(&flight);
        }
    }

    /// Lets time pass: messages arrive and timers run in their order.
    pub fn advance(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.collect();
        loop {
            let timer = [self.host.poll_timeout(), self.phone.poll_timeout()].into_iter().flatten().min();
            let timer = timer.filter(|&due| due <= end);
            if let Some((due, flight)) = self.next_flight(timer.unwrap_or(end)) {
                self.now = self.now.max(due);
                self.deliver(&flight);
            } else if let Some(due) = timer {
                self.now = self.now.max(due);
                self.host.handle_timeout(self.now);
                self.phone.handle_timeout(self.now);
                self.collect();
                // A link that is due again at once would keep its driver busy for ever.
                let next = [self.host.poll_timeout(), self.phone.poll_timeout()].into_iter().flatten().min();
                assert!(next.is_none_or(|next| next > self.now), "a time-out that nothing was done about");
            } else {
                break;
            }
        }
        self.now = end;
    }

    /// Lets one side's caller send a message.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub fn send(&mut self, side: Side, message: impl Into<Envelope>) -> Result<(), crate::link::LinkError> {
        let now = self.now;
        let result = self.link(side).send(&message.into(), now);
        self.collect();
        result
    }

    /// One of the links.
    pub fn link(&mut self, side: Side) -> &mut Link {
        match side {
            Side::Host => &mut self.host,
            Side::Phone => &mut self.phone,
        }
    }

    /// Takes what a side's link has reported so far.
    pub fn take_events(&mut self, side: Side) -> Vec<Event> {
        self.collect();
        std::mem::take(match side {
            Side::Host => &mut self.host_events,
            Side::Phone => &mut self.phone_events,
        })
    }

    /// Takes the messages out of what a side's link has reported; other reports are dropped.
    pub fn take_messages(&mut self, side: Side) -> Vec<Envelope> {
        let events = self.take_events(side);
        events.into_iter().filter_map(|e| if let Event::Message(m) = e { Some(m) } else { None }).collect()
    }

    /// Why a side's link has ended, if it has.
    #[must_use]
    pub fn closed(&self, side: Side) -> Option<CloseReason> {
        let events = if side == Side::Host { &self.host_events } else { &self.phone_events };
        events.iter().find_map(|event| if let Event::Closed(reason) = event { Some(*reason) } else { None })
    }

    /// Takes messages and events out of both links.
    pub fn collect(&mut self) {
        for side in [Side::Host, Side::Phone] {
            while let Some(message) = self.link(side).poll_transmit() {
                let [of_host, of_phone] = &mut self.sent;
                let number = if side == Side::Host { of_host } else { of_phone };
                let flight = Flight { from: side, number: *number, message, delay: Duration::ZERO };
                *number += 1;
                self.log.push(flight.clone());
                let arriving = match &mut self.interceptor {
                    Some(interceptor) => interceptor(flight),
                    None => vec![flight],
                };
                if !self.cut {
                    let due = self.now + self.latency;
                    self.in_flight.extend(arriving.into_iter().map(|flight| (due + flight.delay, flight)));
                }
            }
            while let Some(event) = self.link(side).poll_event() {
                match side {
                    Side::Host => self.host_events.push(event),
                    Side::Phone => self.phone_events.push(event),
                }
            }
        }
    }

    /// The message that arrives first, if it does until `end`. Those of the same moment keep their order.
    fn next_flight(&mut self, end: Timestamp) -> Option<(Timestamp, Flight)> {
        let (index, &(due, _)) = self.in_flight.iter().enumerate().min_by_key(|(_, (due, _))| *due)?;
        if due > end { None } else { self.in_flight.remove(index) }
    }

    fn deliver(&mut self, flight: &Flight) {
        let now = self.now;
        self.link(flight.from.other()).handle_message(&flight.message, now);
        self.collect();
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("host", &self.host).field("phone", &self.phone).finish_non_exhaustive()
    }
}
