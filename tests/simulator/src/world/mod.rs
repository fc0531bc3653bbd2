//! Hosts, phones and what is between them, on one clock.

mod attack;
mod programs;
mod time;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pocketcard_front::Presence;
use pocketcard_protocol::Timestamp;
use pocketcard_protocol::channel::StaticSecret;
use pocketcard_protocol::link::{CloseReason, HostConfig, Side, VersionRange};
use pocketcard_protocol::pairing::{Attempts, Offer, PairKeys};
use pocketcard_protocol::test_support::TestEntropy;

pub use attack::{Cut, Forger, Interceptor, Passing};
pub(crate) use time::ConnectionId;

use crate::host::{PairingView, Slot};
use crate::phone::{PhoneSetup, SimulatedPhone};
use crate::radio::Parameters;
use crate::random::Random;
use crate::traffic::Traffic;
use attack::PlannedCut;
use time::{Flight, Line};

/// A host of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostNumber(usize);

/// A phone of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PhoneNumber(usize);

/// A host and a phone: one slot of the host's reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotNumber(usize);

struct Host {
    config: HostConfig,
    attempts: Attempts,
}

struct Place {
    host: HostNumber,
    phone: PhoneNumber,
    slot: Slot,
    in_range: bool,
    offer: Option<Offer>,
}

/// Everything that is simulated.
pub struct World {
    /// What new connections are like.
    pub parameters: Parameters,
    /// From the decision to connect to the first connection event: scanning and CONNECT_IND.
    pub connect_time: Duration,
    now: Timestamp,
    seed: u64,
    random: Random,
    hosts: Vec<Host>,
    phones: Vec<SimulatedPhone>,
    places: Vec<Place>,
    lines: BTreeMap<ConnectionId, Line>,
    in_flight: BTreeMap<(Timestamp, u64), Flight>,
    returns_to_range: Vec<(Timestamp, SlotNumber)>,
    cut: Option<PlannedCut>,
    interceptor: Option<Interceptor>,
    forger: Option<Forger>,
    count: u64,
}

impl World {
    /// An empty world.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            parameters: Parameters::default(),
            connect_time: Duration::from_millis(100),
            now: Timestamp::ZERO,
            seed,
            random: Random::new(seed),
            hosts: Vec::new(),
            phones: Vec::new(),
            places: Vec::new(),
            lines: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            returns_to_range: Vec::new(),
            cut: None,
            interceptor: None,
            forger: None,
            count: 0,
        }
    }

    /// A host, a phone of this kind, and their pair, made as their owner makes it.
    ///
    /// # Panics
    /// If they cannot be paired.
    #[must_use]
    pub fn with_pair(seed: u64, setup: PhoneSetup, parameters: Parameters) -> (Self, SlotNumber) {
        let mut world = Self::new(seed);
        world.parameters = parameters;
        let (host, phone) = (world.add_host("desk"), world.add_phone(setup));
        let slot = world.add_slot(host, phone);
        world.pair(slot);
        (world, slot)
    }

    /// A host with an identity of its own.
    pub fn add_host(&mut self, name: &str) -> HostNumber {
        let seed = self.number();
        let entropy = Arc::new(TestEntropy::new(seed));
        let mut secret = [0; 32];
        pocketcard_protocol::Entropy::fill(&*entropy, &mut secret).expect("it never fails");
        let config = HostConfig {
            identity: Arc::new(StaticSecret::from_bytes(&secret)),
            name: name.to_owned(),
            software: "simulator 1".to_owned(),
            entropy,
            versions: VersionRange::SUPPORTED,
        };
        self.hosts.push(Host { config, attempts: Attempts::new() });
        HostNumber(self.hosts.len() - 1)
    }

    /// A phone with an identity of its own.
    ///
    /// # Panics
    /// If the phone does not start.
    pub fn add_phone(&mut self, setup: PhoneSetup) -> PhoneNumber {
        let seed = self.number();
        self.phones.push(SimulatedPhone::new(setup, seed, self.now).expect("a new phone starts"));
        PhoneNumber(self.phones.len() - 1)
    }

    /// The place for this phone in the host's reader.
    pub fn add_slot(&mut self, host: HostNumber, phone: PhoneNumber) -> SlotNumber {
        let config = self.hosts.get(host.0).expect("a host of this world").config.clone();
        let slot = Slot::new(config);
        self.places.push(Place { host, phone, slot, in_range: true, offer: None });
        SlotNumber(self.places.len() - 1)
    }

    /// The time since the world began.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// A phone.
    #[must_use]
    pub fn phone(&mut self, phone: PhoneNumber) -> &mut SimulatedPhone {
        self.phones.get_mut(phone.0).expect("a phone of this world")
    }

    /// The phone of a slot.
    #[must_use]
    pub fn phone_of(&mut self, slot: SlotNumber) -> &mut SimulatedPhone {
        self.phone(self.place(slot).phone)
    }

    /// Which phone the host of a slot finds.
    #[must_use]
    pub fn phone_number(&self, slot: SlotNumber) -> PhoneNumber {
        self.place(slot).phone
    }

    /// How many hosts a phone has stored.
    ///
    /// # Panics
    /// If the phone does not answer.
    #[must_use]
    pub fn hosts_of(&mut self, phone: PhoneNumber) -> usize {
        let hosts = self.phone(phone).ask(|phone| Box::pin(async move { phone.hosts().await }));
        hosts.expect("an answer at once").expect("a phone that runs").len()
    }

    /// What is in a slot.
    #[must_use]
    pub fn presence(&self, slot: SlotNumber) -> Presence {
        self.place(slot).slot.front.presence()
    }

    /// Whether a slot holds a card.
    #[must_use]
    pub fn has_card(&self, slot: SlotNumber) -> bool {
        self.presence(slot).atr.is_some()
    }

    /// What the reader was told of a slot since somebody looked.
    #[must_use]
    pub fn take_presences(&mut self, slot: SlotNumber) -> Vec<Presence> {
        std::mem::take(&mut self.place_mut(slot).slot.presences)
    }

    /// Why the host's links of a slot have ended, since somebody looked.
    #[must_use]
    pub fn take_closed(&mut self, slot: SlotNumber) -> Vec<CloseReason> {
        std::mem::take(&mut self.place_mut(slot).slot.closed)
    }

    /// What the slot has cost so far.
    #[must_use]
    pub fn traffic(&self, slot: SlotNumber) -> Traffic {
        self.place(slot).slot.traffic
    }

    /// What a person at the host sees of a pairing.
    #[must_use]
    pub fn pairing_view(&self, slot: SlotNumber) -> &PairingView {
        &self.place(slot).slot.pairing
    }

    /// Whether the host has an encrypted channel to the phone of a slot.
    #[must_use]
    pub fn is_open(&self, slot: SlotNumber) -> bool {
        self.place(slot).slot.up.as_ref().is_some_and(|up| up.link.is_open())
    }

    pub(crate) fn is_connected(&self, slot: SlotNumber) -> bool {
        self.place(slot).slot.up.is_some()
    }

    /// What the host has stored of the pair.
    #[must_use]
    pub fn host_pair(&self, slot: SlotNumber) -> Option<PairKeys> {
        self.place(slot).slot.pair.as_ref().map(PairKeys::duplicate)
    }

    /// Puts a pair into the host's store, right or wrong; `None` takes it out.
    pub fn set_host_pair(&mut self, slot: SlotNumber, pair: Option<PairKeys>) {
        self.place_mut(slot).slot.pair = pair;
    }

    /// Lets the host of a slot look for its phone again, so long after each end of a link.
    pub fn returns_after(&mut self, slot: SlotNumber, pause: Option<Duration>) {
        self.place_mut(slot).slot.returns_after = pause;
    }

    /// The daemon of a slot's host ends, and its links with it, and starts again. With its disk it has kept what the phone
    /// says to everybody.
    pub fn restart_host(&mut self, slot: SlotNumber, with_disk: bool) {
        self.place_mut(slot).slot.restart(with_disk);
        for line in self.lines.values_mut().filter(|line| line.slot == slot) {
            line.connection.abort(Side::Host);
        }
        self.settle();
    }

    /// Puts another phone where the host of this slot looks for its own.
    pub fn redirect(&mut self, slot: SlotNumber, phone: PhoneNumber) {
        self.place_mut(slot).phone = phone;
    }

    /// Makes an offer of the host of this slot, for whose link the next connection is; gives the QR text.
    pub(crate) fn offer(&mut self, slot: SlotNumber, camera: bool) -> Option<String> {
        let now = self.now;
        let host = self.hosts.get(self.place(slot).host.0)?;
        let HostConfig { identity, name, entropy, .. } = &host.config;
        let offer = if camera {
            Offer::new(&identity.public(), name, &**entropy, &host.attempts, now).ok()?
        } else {
            Offer::compare(&host.attempts, now).ok()?
        };
        let text = offer.qr_text().map(|text| text.to_string()).unwrap_or_default();
        let place = self.place_mut(slot);
        place.slot.pairing = PairingView::default();
        place.offer = Some(offer);
        Some(text)
    }

    pub(crate) fn confirm_on_host(&mut self, slot: SlotNumber, agree: bool) {
        let now = self.now;
        if let Some(up) = &mut self.place_mut(slot).slot.up {
            up.link.confirm_pairing(agree, now);
        }
        self.settle();
    }

    /// A number that nothing else in this world has, and that follows from its seed.
    fn number(&mut self) -> u64 {
        self.count += 1;
        self.seed.wrapping_mul(1 << 32).wrapping_add(self.count)
    }

    fn place(&self, slot: SlotNumber) -> &Place {
        self.places.get(slot.0).expect("a slot of this world")
    }

    fn place_mut(&mut self, slot: SlotNumber) -> &mut Place {
        self.places.get_mut(slot.0).expect("a slot of this world")
    }
}
