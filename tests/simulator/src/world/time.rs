//! How time passes: whatever is due next is done, and everybody does what follows from it.

use std::time::Duration;

use pocketcard_protocol::Timestamp;
use pocketcard_protocol::link::{Link, Side};

use super::attack::Passing;
use super::{PhoneNumber, SlotNumber, World};
use crate::phone::{SimulatedPhone, Wish};
use crate::radio::{Att, Connection, Outcome, Request};

/// How long a host that finds no phone waits before it looks again.
const LOOKS_EVERY: Duration = Duration::from_millis(100);
/// Things that may happen at one moment; more are a loop without end.
const STEPS_AT_ONCE: u32 = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnectionId(u64);

/// A connection, and whose it is.
pub(super) struct Line {
    pub(super) connection: Connection,
    pub(super) slot: SlotNumber,
    pub(super) phone: PhoneNumber,
    pub(super) passed: usize,
}

/// What is on its way to a side.
pub(super) struct Flight {
    pub(super) connection: ConnectionId,
    pub(super) to: Side,
    pub(super) cargo: Cargo,
}

pub(super) enum Cargo {
    Att(Att),
    /// A value that the owner of the air has had in hand already.
    Delayed(Vec<u8>),
    /// The end of the connection, as a side's system tells it.
    Down,
}

impl World {
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

    pub(super) fn disconnected(&mut self, id: ConnectionId, slot: SlotNumber, phone: PhoneNumber, side: Side) {
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

    fn fly(&mut self, at: Timestamp, flight: Flight) {
        let number = self.number();
        self.in_flight.insert((at, number), flight);
    }
}
