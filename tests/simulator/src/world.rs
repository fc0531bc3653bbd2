//! Hosts, phones and what is between them, on one clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pocketcard_front::{Failure, PowerAction, Presence, Reply};
use pocketcard_protocol::Timestamp;
use pocketcard_protocol::channel::StaticSecret;
use pocketcard_protocol::link::{CloseReason, HostConfig, Link, Side, VersionRange};
use pocketcard_protocol::pairing::{Attempts, Offer, PairKeys};
use pocketcard_protocol::test_support::TestEntropy;

use crate::host::{PairingView, Slot};
use crate::phone::{PhoneSetup, SimulatedPhone, Wish};
use crate::radio::{Att, Connection, Outcome, Parameters, Request};
use crate::random::Random;
use crate::traffic::Traffic;

/// How long a host that finds no phone waits before it looks again.
const LOOKS_EVERY: Duration = Duration::from_millis(100);
/// Things that may happen at one moment; more are a loop without end.
const STEPS_AT_ONCE: u32 = 100_000;
/// How long anything may take that a program or a person waits for: beyond every limit of the protocol.
const PATIENCE: Duration = Duration::from_secs(180);

/// A host of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostNumber(usize);

/// A phone of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PhoneNumber(usize);

/// A host and a phone: one slot of the host's reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotNumber(usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnectionId(u64);

/// A GATT value on its way.
#[derive(Debug)]
pub struct Passing<'a> {
    /// Between which two.
    pub slot: SlotNumber,
    /// Who sent it.
    pub from: Side,
    /// How many values of both sides passed before it on this connection.
    pub number: usize,
    /// The fragment or credit.
    pub value: &'a [u8],
}

/// Whoever owns the air: gives for each value what arrives in its place, and how much later.
pub type Interceptor = Box<dyn FnMut(&Passing<'_>, &mut Random) -> Vec<(Duration, Vec<u8>)>>;

/// Whoever owns the air, where the host reads `Info`.
pub type Forger = Box<dyn FnMut(&mut Vec<u8>)>;

/// How a link is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The two are out of range, for so long.
    Silent(Duration),
    /// The system of one side ends the connection at once; the other side hears it in the next event.
    By(Side),
}

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

struct Line {
    connection: Connection,
    slot: SlotNumber,
    phone: PhoneNumber,
    passed: usize,
}

struct Flight {
    connection: ConnectionId,
    to: Side,
    cargo: Cargo,
}

enum Cargo {
    Att(Att),
    /// A value that the owner of the air has had in hand already.
    Delayed(Vec<u8>),
    /// The end of the connection, as a side's system tells it.
    Down,
}

struct PlannedCut {
    slot: SlotNumber,
    values_left: usize,
    cut: Cut,
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

    /// Whoever owns the air from now on.
    pub fn intercept(&mut self, interceptor: Option<Interceptor>) {
        self.interceptor = interceptor;
    }

    /// Changes what the host reads as `Info` from now on.
    pub fn forge_info(&mut self, forger: Option<Forger>) {
        self.forger = forger;
    }

    /// Plays a value to one side of a slot, as if the other had sent it.
    pub fn inject(&mut self, slot: SlotNumber, to: Side, value: &[u8]) {
        let line =
            self.lines.iter().filter(|(_, line)| line.slot == slot).map(|(connection, _)| *connection).next_back();
        if let Some(connection) = line {
            self.hand_over(connection, to, value);
            self.settle();
        }
    }

    /// Cuts the link of a slot once so many more values have arrived.
    pub fn cut_after(&mut self, slot: SlotNumber, values: usize, cut: Cut) {
        self.cut = Some(PlannedCut { slot, values_left: values, cut });
        if values == 0 {
            self.cut_if_due();
            self.settle();
        }
    }

    /// Gives up a planned cut.
    pub fn do_not_cut(&mut self) {
        self.cut = None;
    }

    /// Whether a planned cut has not been made.
    #[must_use]
    pub fn cut_is_planned(&self) -> bool {
        self.cut.is_some()
    }

    /// The host of a slot goes for its phone.
    pub fn connect(&mut self, slot: SlotNumber) {
        let at = self.now + self.connect_time;
        self.place_mut(slot).slot.returns_at = Some(at);
    }

    /// The card of a slot is in its reader and has power.
    ///
    /// # Panics
    /// If that does not come about.
    pub fn insert(&mut self, slot: SlotNumber) {
        if self.place(slot).slot.up.is_none() {
            self.connect(slot);
        }
        assert!(self.run_until(PATIENCE, |world| world.has_card(slot)), "no card: {:?}", self.take_closed(slot));
        self.power(slot, PowerAction::Up).expect("the card that is there");
    }

    /// Powers the card of a slot, as the reader last heard of it.
    ///
    /// # Errors
    /// As [`pocketcard_front::Front::handle_power`].
    pub fn power(&mut self, slot: SlotNumber, action: PowerAction) -> Result<Vec<u8>, Failure> {
        let now = self.now;
        let front = &mut self.place_mut(slot).slot.front;
        let generation = front.presence().generation;
        let atr = front.handle_power(action, generation, now).map(<[u8]>::to_vec);
        self.settle();
        atr
    }

    /// A program gives the card of a slot a command; [`World::reply`] has its answer later.
    pub fn begin(&mut self, slot: SlotNumber, command: &[u8]) {
        let now = self.now;
        self.place_mut(slot).slot.front.handle_transmit(command, now);
        self.settle();
    }

    /// The answer to [`World::begin`], if it is there.
    pub fn reply(&mut self, slot: SlotNumber) -> Option<Result<Vec<u8>, Failure>> {
        self.place_mut(slot).slot.replies.pop_front().map(|reply| match reply {
            Reply::Response(response) => Ok(response.to_vec()),
            Reply::Failed(failure) => Err(failure),
        })
    }

    /// A program gives the card of a slot a command and waits for its answer.
    ///
    /// # Errors
    /// What the program gets instead of an answer.
    ///
    /// # Panics
    /// If there is neither.
    pub fn transmit(&mut self, slot: SlotNumber, command: &[u8]) -> Result<Vec<u8>, Failure> {
        self.begin(slot, command);
        self.finish(slot)
    }

    /// Waits for the answer to [`World::begin`].
    ///
    /// # Errors
    /// What the program gets instead of an answer.
    ///
    /// # Panics
    /// If there is neither.
    pub fn finish(&mut self, slot: SlotNumber) -> Result<Vec<u8>, Failure> {
        self.run_until(PATIENCE, |world| !world.place(slot).slot.replies.is_empty());
        self.reply(slot).expect("every command has an answer, at once or later")
    }

    /// Lets time pass.
    pub fn run(&mut self, duration: Duration) {
        self.run_until(duration, |_| false);
    }

    /// Lets time pass until something is the case, for `limit` at most. Gives whether it is.
    ///
    /// # Panics
    /// If no time passes any more although there is always something to do.
    pub fn run_until(&mut self, limit: Duration, mut is_so: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        let (mut moment, mut steps) = (self.now, 0);
        self.settle();
        loop {
            if is_so(self) {
                return true;
            }
            let Some(next) = self.next_moment().filter(|next| *next <= end) else {
                self.now = end;
                // Nothing is due, but every clock must show it.
                self.settle();
                return false;
            };
            self.now = self.now.max(next);
            steps = if self.now > moment { 0 } else { steps + 1 };
            moment = self.now;
            assert!(steps < STEPS_AT_ONCE, "due for ever at {:?}: {}", self.now, self.due());
            self.step();
        }
    }

    fn next_moment(&self) -> Option<Timestamp> {
        let radio = self.lines.values().filter_map(|line| line.connection.next_event());
        let hosts = self.places.iter().filter_map(|place| place.slot.next_deadline());
        let phones = self.phones.iter().filter_map(SimulatedPhone::next_deadline);
        let air = self.in_flight.keys().map(|(at, _)| *at);
        let range = self.returns_to_range.iter().map(|(at, _)| *at);
        radio.chain(hosts).chain(phones).chain(air.take(1)).chain(range).min()
    }

    /// Who is due when, for a world that does not go on.
    fn due(&self) -> String {
        let radio: Vec<_> = self.lines.values().map(|line| line.connection.next_event()).collect();
        let hosts: Vec<_> = self.places.iter().map(|place| place.slot.next_deadline()).collect();
        let phones: Vec<_> = self.phones.iter().map(SimulatedPhone::next_deadline).collect();
        format!("radio {radio:?}, hosts {hosts:?}, phones {phones:?}, {} values on the air", self.in_flight.len())
    }

    /// Does everything that is due now.
    fn step(&mut self) {
        let now = self.now;
        while let Some(index) = self.returns_to_range.iter().position(|(at, _)| *at <= now) {
            let (_, slot) = self.returns_to_range.swap_remove(index);
            self.set_in_range(slot, true);
        }
        while let Some(entry) = self.in_flight.first_entry().filter(|entry| entry.key().0 <= now) {
            let flight = entry.remove();
            self.arrive(flight);
        }
        self.radio();
        let in_flight = &self.in_flight;
        let carries = |id: &ConnectionId| in_flight.values().any(|flight| flight.connection == *id);
        self.lines.retain(|id, line| !line.connection.is_over() || carries(id));
        for number in 0..self.places.len() {
            let slot = SlotNumber(number);
            let place = self.place_mut(slot);
            place.slot.handle_timeouts(now);
            if place.slot.returns_at.is_some_and(|at| at <= now) {
                place.slot.returns_at = None;
                self.establish(slot);
            }
        }
        self.settle();
    }

    fn radio(&mut self) {
        let now = self.now;
        let due: Vec<ConnectionId> = self
            .lines
            .iter()
            .filter(|(_, line)| line.connection.next_event().is_some_and(|at| at <= now))
            .map(|(connection, _)| *connection)
            .collect();
        for id in due {
            let Some(line) = self.lines.get_mut(&id) else { continue };
            let outcomes = line.connection.handle_event(now, &mut self.random);
            for outcome in outcomes {
                let (at, to, cargo) = match outcome {
                    Outcome::Received { at, to, att } => (at, to, Cargo::Att(att)),
                    Outcome::Down { at, side } => (at, side, Cargo::Down),
                };
                self.fly(at, Flight { connection: id, to, cargo });
            }
        }
    }

    fn disconnected(&mut self, id: ConnectionId, slot: SlotNumber, phone: PhoneNumber, side: Side) {
        self.in_flight.retain(|_, flight| flight.connection != id || flight.to != side);
        let now = self.now;
        match side {
            Side::Host => {
                let slot = &mut self.place_mut(slot).slot;
                if slot.up.as_ref().is_some_and(|up| up.connection == id) {
                    slot.disconnected(now);
                }
            }
            Side::Phone => self.phone(phone).disconnected(id, now),
        }
    }

    /// A PDU comes out of a side's system.
    fn arrive(&mut self, flight: Flight) {
        let Flight { connection, to, cargo } = flight;
        let now = self.now;
        let Some(line) = self.lines.get_mut(&connection) else { return };
        let (slot, phone) = (line.slot, line.phone);
        match cargo {
            Cargo::Down => self.disconnected(connection, slot, phone, to),
            Cargo::Delayed(value) => self.hand_over(connection, to, &value),
            Cargo::Att(Att::Value(value)) => {
                line.passed += 1;
                let number = line.passed - 1;
                let from = to.other();
                self.place_mut(slot).slot.traffic.value(from, &value);
                let arriving = match &mut self.interceptor {
                    Some(interceptor) => interceptor(&Passing { slot, from, number, value: &value }, &mut self.random),
                    None => vec![(Duration::ZERO, value)],
                };
                for (delay, value) in arriving {
                    if delay.is_zero() {
                        self.hand_over(connection, to, &value);
                    } else {
                        self.fly(now + delay, Flight { connection, to, cargo: Cargo::Delayed(value) });
                    }
                }
                self.count_for_cut(slot);
            }
            Cargo::Att(Att::Request(request)) => {
                let mut info = self.phone(phone).info(connection);
                if let Some(forger) = &mut self.forger {
                    forger(&mut info);
                }
                let value = match request {
                    Request::ReadInfo { offset } => {
                        let room = self.parameters.mtu.saturating_sub(Att::READ_HEADER);
                        info.into_iter().skip(offset).take(room).collect()
                    }
                    _ => Vec::new(),
                };
                if let Some(line) = self.lines.get_mut(&connection) {
                    line.connection.queue(Side::Phone, Att::Response(request, value), now);
                }
            }
            Cargo::Att(Att::Response(request, value)) => {
                let next = self.place_mut(slot).slot.answered(request, &value, now);
                if let (Some(att), Some(line)) = (next, self.lines.get_mut(&connection)) {
                    line.connection.queue(Side::Host, att, now);
                }
            }
        }
        // So that one fragment is answered before the next one of the same event arrives.
        self.settle();
    }

    fn hand_over(&mut self, connection: ConnectionId, to: Side, value: &[u8]) {
        let now = self.now;
        let Some(line) = self.lines.get(&connection) else { return };
        let (slot, phone) = (line.slot, line.phone);
        match to {
            Side::Host => {
                let slot = &mut self.place_mut(slot).slot;
                if slot.up.as_ref().is_some_and(|up| up.connection == connection) {
                    slot.notified(value, now);
                }
            }
            Side::Phone => self.phone(phone).written(connection, value, now),
        }
    }

    fn count_for_cut(&mut self, slot: SlotNumber) {
        if let Some(planned) = self.cut.as_mut().filter(|planned| planned.slot == slot) {
            planned.values_left = planned.values_left.saturating_sub(1);
            self.cut_if_due();
        }
    }

    fn cut_if_due(&mut self) {
        let Some(planned) = self.cut.take_if(|planned| planned.values_left == 0) else { return };
        let slot = planned.slot;
        // What the two programs have to say to what has just arrived is on its way when the radio goes.
        self.settle();
        match planned.cut {
            Cut::Silent(duration) => {
                self.set_in_range(slot, false);
                self.returns_to_range.push((self.now + duration, slot));
                if duration >= self.parameters.supervision {
                    let lines = &self.lines;
                    let of_slot = |id: &ConnectionId| lines.get(id).is_some_and(|line| line.slot == slot);
                    self.in_flight.retain(|_, flight| !of_slot(&flight.connection));
                }
            }
            Cut::By(side) => {
                let lines = self.lines.iter_mut().filter(|(_, line)| line.slot == slot);
                let ids: Vec<(ConnectionId, PhoneNumber)> = lines
                    .map(|(id, line)| {
                        line.connection.abort(side);
                        (*id, line.phone)
                    })
                    .collect();
                for (id, phone) in ids {
                    self.in_flight.retain(|_, flight| flight.connection != id);
                    self.disconnected(id, slot, phone, side);
                }
            }
        }
    }

    /// The two of a slot come into each other's range, or leave it.
    pub fn set_in_range(&mut self, slot: SlotNumber, in_range: bool) {
        let now = self.now;
        self.place_mut(slot).in_range = in_range;
        for line in self.lines.values_mut().filter(|line| line.slot == slot) {
            line.connection.set_in_range(in_range, now);
        }
    }

    fn establish(&mut self, slot: SlotNumber) {
        let (now, parameters) = (self.now, self.parameters.clone());
        let place = self.place_mut(slot);
        if place.slot.up.is_some() || !place.in_range {
            place.slot.returns_at = Some(now + LOOKS_EVERY);
            return;
        }
        let phone = place.phone;
        let config = place.slot.config.clone();
        let link = match (place.offer.take(), &place.slot.pair) {
            (Some(offer), _) => Link::host_pair(config, offer, now),
            (None, Some(pair)) => Link::host_connect(config, pair, now),
            (None, None) => return,
        };
        let id = ConnectionId(self.number());
        let mut connection = Connection::new(parameters.clone(), now + self.random.duration(parameters.interval));
        self.phone(phone).connected(id, parameters.mtu);
        if let Some(first) = self.place_mut(slot).slot.connected(id, link, &parameters) {
            connection.queue(Side::Host, first, now);
        }
        self.lines.insert(id, Line { connection, slot, phone, passed: 0 });
    }

    /// Lets everybody do what can be done now.
    pub(crate) fn settle(&mut self) {
        let now = self.now;
        for place in &mut self.places {
            let (connection, fragments, ended) = place.slot.pump(now);
            let Some(line) = connection.and_then(|id| self.lines.get_mut(&id)) else { continue };
            fragments.into_iter().for_each(|value| line.connection.queue(Side::Host, Att::Value(value), now));
            if ended {
                line.connection.close(Side::Host, now);
            }
        }
        for phone in &mut self.phones {
            for (id, wish) in phone.advance(now) {
                let Some(line) = self.lines.get_mut(&id) else { continue };
                match wish {
                    Wish::Notify(value) => line.connection.queue(Side::Phone, Att::Value(value), now),
                    Wish::Close => line.connection.close(Side::Phone, now),
                }
            }
        }
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

    /// Whether the host has an encrypted channel to the phone of a slot.
    #[must_use]
    pub fn is_open(&self, slot: SlotNumber) -> bool {
        self.place(slot).slot.up.as_ref().is_some_and(|up| up.link.is_open())
    }

    pub(crate) fn is_connected(&self, slot: SlotNumber) -> bool {
        self.place(slot).slot.up.is_some()
    }

    fn fly(&mut self, at: Timestamp, flight: Flight) {
        let number = self.number();
        self.in_flight.insert((at, number), flight);
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
