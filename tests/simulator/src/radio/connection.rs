use std::collections::VecDeque;
use std::time::Duration;

use pocketcard_protocol::Timestamp;
use pocketcard_protocol::link::Side;

use super::{Att, Parameters};
use crate::Random;

/// Between two packets. Spec: Core 5.4, volume 6 part B, section 4.1
const INTER_FRAME_SPACE: Duration = Duration::from_micros(150);
/// Length and channel of an L2CAP frame.
const L2CAP_HEADER: usize = 4;
/// Length of the SDU, on the credit based channels that EATT uses.
const SDU_HEADER: usize = 2;
/// LL_TERMINATE_IND.
const TERMINATE: usize = 2;

/// What came of a connection's time.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A side's system hands a PDU to its program.
    Received {
        /// When.
        at: Timestamp,
        /// To whom.
        to: Side,
        /// What.
        att: Att,
    },
    /// A side's system learns that the connection has ended.
    Down {
        /// When: after what it was handed before.
        at: Timestamp,
        /// Which side.
        side: Side,
    },
}

/// One connection between two controllers.
///
/// What a side queues during a connection event goes out in the next: controllers fill their buffers before.
#[derive(Debug)]
pub struct Connection {
    parameters: Parameters,
    /// First connection event.
    origin: Timestamp,
    /// No event before this one: the others have been.
    not_before: Timestamp,
    host: End,
    phone: End,
    in_range: bool,
}

/// One side's controller.
#[derive(Debug, Default)]
struct End {
    queue: VecDeque<Queued>,
    /// Since when it hears nothing, if the last event went wrong.
    silent_since: Option<Timestamp>,
    down: bool,
    /// Per bearer, when the last PDU was handed over.
    handed_over: Vec<Timestamp>,
}

#[derive(Debug)]
struct Queued {
    /// `None` ends the connection.
    att: Option<Att>,
    ready: Timestamp,
    /// Bytes that are not acknowledged yet, L2CAP's included.
    left: usize,
    /// The packet at the front has arrived; only its acknowledgement was lost.
    arrived: bool,
}

impl Connection {
    /// A connection whose first event is at `origin`.
    #[must_use]
    pub fn new(parameters: Parameters, origin: Timestamp) -> Self {
        Self { parameters, origin, not_before: origin, host: End::default(), phone: End::default(), in_range: true }
    }

    /// Gives a PDU to a side's controller.
    pub fn queue(&mut self, from: Side, att: Att, now: Timestamp) {
        let sdu = if self.parameters.bearers > 1 { SDU_HEADER } else { 0 };
        let left = att.length() + L2CAP_HEADER + sdu;
        self.end(from).queue.push_back(Queued { att: Some(att), ready: now, left, arrived: false });
    }

    /// A side ends the connection, after what it has queued.
    pub fn close(&mut self, side: Side, now: Timestamp) {
        self.end(side).queue.push_back(Queued { att: None, ready: now, left: TERMINATE, arrived: false });
    }

    /// A side's system is gone at once, with what it has queued: its other side hears nothing more of it.
    pub fn abort(&mut self, side: Side) {
        self.end(side).go_down();
    }

    /// Both sides come into each other's range, or leave it.
    pub fn set_in_range(&mut self, in_range: bool, now: Timestamp) {
        self.in_range = in_range;
        // The events until now have been, whatever came of them.
        self.not_before = self.not_before.max(now);
        for side in [Side::Host, Side::Phone] {
            let end = self.end(side);
            if in_range {
                // Empty packets are exchanged in every event; they are not simulated one by one.
                end.silent_since = None;
            } else {
                end.silent_since.get_or_insert(now);
            }
        }
    }

    /// Whether neither side takes part any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.host.down && self.phone.down
    }

    /// When [`Connection::handle_event`] is due.
    #[must_use]
    pub fn next_event(&self) -> Option<Timestamp> {
        let ends = [&self.host, &self.phone];
        let up = || ends.into_iter().filter(|end| !end.down);
        let ready = up().filter_map(|end| end.queue.front()).map(|queued| queued.ready).min();
        let silence = up().filter_map(|end| end.silent_since).map(|since| since + self.parameters.supervision).min();
        let abandoned = (self.host.down != self.phone.down && self.in_range).then_some(self.not_before);
        let anchor = [ready, abandoned].into_iter().flatten().min().map(|moment| self.anchor(moment));
        // Nobody is there to answer: no event can go right.
        let anchor = anchor.filter(|_| self.in_range || silence.is_none());
        [anchor, silence].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn handle_event(&mut self, now: Timestamp, random: &mut Random) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for side in [Side::Host, Side::Phone] {
            let supervision = self.parameters.supervision;
            let end = self.end(side);
            if !end.down && end.silent_since.is_some_and(|since| since + supervision <= now) {
                end.go_down();
                outcomes.push(Outcome::Down { at: now, side });
            }
        }
        if self.in_range && self.host.down != self.phone.down {
            let side = if self.host.down { Side::Phone } else { Side::Host };
            self.end(side).go_down();
            outcomes.push(Outcome::Down { at: now, side });
        }
        if self.in_range && !self.host.down && !self.phone.down && self.anchor(now) == now {
            self.event(now, random, &mut outcomes);
            self.not_before = now + self.parameters.interval;
        }
        outcomes
    }

    /// A connection event: packets by turns, until nobody has more, time is over, or one is damaged.
    fn event(&mut self, anchor: Timestamp, random: &mut Random, outcomes: &mut Vec<Outcome>) {
        let Parameters { interval, phy, loss_per_mille, .. } = self.parameters;
        let end = anchor + interval;
        let mut now = anchor;
        for packet in 0..self.parameters.packets_per_event.max(1) {
            let (down, up) = (self.packet(Side::Host, anchor), self.packet(Side::Phone, anchor));
            let air_time = phy.air_time(down.unwrap_or(0)) + phy.air_time(up.unwrap_or(0)) + 2 * INTER_FRAME_SPACE;
            if packet > 0 && ((down, up) == (None, None) || now + air_time > end) {
                return;
            }
            now += phy.air_time(down.unwrap_or(0));
            if random.happens(loss_per_mille) {
                // The phone has heard nothing that it could answer.
                self.host.silent_since.get_or_insert(anchor);
                self.phone.silent_since.get_or_insert(anchor);
                return;
            }
            self.phone.silent_since = None;
            self.arrive(Side::Host, down, now, random, outcomes);
            now += INTER_FRAME_SPACE + phy.air_time(up.unwrap_or(0));
            if random.happens(loss_per_mille) {
                self.host.silent_since.get_or_insert(anchor);
                return;
            }
            self.host.silent_since = None;
            self.acknowledge(Side::Host, down);
            self.arrive(Side::Phone, up, now, random, outcomes);
            self.acknowledge(Side::Phone, up);
            now += INTER_FRAME_SPACE;
        }
    }

    /// Payload of the next packet of a side that was ready at `anchor`.
    fn packet(&self, from: Side, anchor: Timestamp) -> Option<usize> {
        let end = if from == Side::Host { &self.host } else { &self.phone };
        let first = end.queue.front().filter(|queued| queued.ready <= anchor && !end.down)?;
        Some(first.left.min(self.parameters.data_length.bytes()))
    }

    /// A packet has arrived; with the last one of a PDU its system has the PDU.
    fn arrive(
        &mut self,
        from: Side,
        payload: Option<usize>,
        at: Timestamp,
        random: &mut Random,
        outcomes: &mut Vec<Outcome>,
    ) {
        let Some(payload) = payload else { return };
        let Some(first) = self.end(from).queue.front_mut() else { return };
        let complete = !std::mem::replace(&mut first.arrived, true) && first.left <= payload;
        if !complete {
            return;
        }
        let to = from.other();
        match first.att.clone() {
            Some(att) => {
                let at = self.hand_over(to, at, random);
                outcomes.push(Outcome::Received { at, to, att });
            }
            None => {
                let end = self.end(to);
                end.go_down();
                let at = end.handed_over.iter().copied().fold(at, Timestamp::max);
                outcomes.push(Outcome::Down { at, side: to });
            }
        }
    }

    fn acknowledge(&mut self, from: Side, payload: Option<usize>) {
        let end = self.end(from);
        let (Some(payload), Some(first)) = (payload, end.queue.front_mut()) else { return };
        first.left = first.left.saturating_sub(payload);
        first.arrived = false;
        if first.left == 0 {
            let ended = end.queue.pop_front().is_some_and(|queued| queued.att.is_none());
            if ended {
                end.go_down();
            }
        }
    }

    /// When the system above hands over what arrived: each bearer in its order, one against the other in any.
    fn hand_over(&mut self, to: Side, at: Timestamp, random: &mut Random) -> Timestamp {
        let bearer = random.below(self.parameters.bearers);
        let at = at + random.duration(self.parameters.jitter);
        let bearers = self.parameters.bearers.max(1);
        let end = self.end(to);
        end.handed_over.resize(bearers, Timestamp::ZERO);
        let Some(last) = end.handed_over.get_mut(bearer) else { return at };
        *last = at.max(*last);
        *last
    }

    /// The first connection event from `moment` on.
    fn anchor(&self, moment: Timestamp) -> Timestamp {
        let moment = moment.max(self.not_before);
        let interval = self.parameters.interval.as_nanos().max(1);
        let events = moment.saturating_since(self.origin).as_nanos().div_ceil(interval);
        self.origin + Duration::from_nanos(u64::try_from(events * interval).unwrap_or(u64::MAX))
    }

    fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Host => &mut self.host,
            Side::Phone => &mut self.phone,
        }
    }
}

impl End {
    fn go_down(&mut self) {
        self.down = true;
        self.queue.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DataLength, Request};
    use super::*;

    fn run(connection: &mut Connection, seed: u64) -> Vec<(Duration, Outcome)> {
        let mut random = Random::new(seed);
        let mut all = Vec::new();
        while let Some(at) = connection.next_event() {
            all.extend(connection.handle_event(at, &mut random).into_iter().map(|outcome| (at.as_duration(), outcome)));
        }
        all
    }

    fn value(byte: u8, length: usize) -> Att {
        Att::Value(vec![byte; length])
    }

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// What arrived at a side: the first byte of each value, and in which event.
    fn arrivals(outcomes: &[(Duration, Outcome)], side: Side) -> Vec<(u8, Duration)> {
        let arrival = |(at, outcome): &(Duration, Outcome)| match outcome {
            Outcome::Received { to, att: Att::Value(value), .. } if *to == side => Some((value[0], *at)),
            _ => None,
        };
        outcomes.iter().filter_map(arrival).collect()
    }

    #[test]
    fn a_value_waits_for_the_next_event_and_its_answer_for_the_one_after() {
        let mut connection = Connection::new(Parameters::default(), Timestamp::ZERO);
        let now = Timestamp::from_origin(ms(20));
        connection.queue(Side::Host, value(1, 244), now);
        let outcomes = run(&mut connection, 0);
        // 251 bytes of payload on LE 1M.
        let at = Timestamp::from_origin(ms(30) + Duration::from_micros(8 * 261));
        assert_eq!(outcomes, [(ms(30), Outcome::Received { at, to: Side::Phone, att: value(1, 244) })]);
        connection.queue(Side::Phone, value(2, 20), at);
        assert_eq!(arrivals(&run(&mut connection, 0), Side::Host), [(2, ms(45))]);
        assert_eq!(connection.next_event(), None, "an idle connection costs nothing");
    }

    #[test]
    fn an_event_carries_as_many_packets_as_it_may_and_as_fit() {
        for (parameters, per_event) in [
            (Parameters { packets_per_event: 3, ..Parameters::default() }, 3),
            (Parameters { packets_per_event: 1, ..Parameters::default() }, 1),
            // 251 bytes one way and nothing the other take 2.468 ms.
            (Parameters { packets_per_event: 99, ..Parameters::default() }, 6),
            (
                Parameters { packets_per_event: 99, ..Parameters::default() }
                    .with_interval(Duration::from_micros(7500)),
                3,
            ),
            // Ten packets of 27 bytes each, 0.676 ms with their answers.
            (Parameters { packets_per_event: 99, data_length: DataLength::Short, ..Parameters::default() }, 2),
        ] {
            let mut connection = Connection::new(parameters, Timestamp::ZERO);
            (0..20).for_each(|number| connection.queue(Side::Host, value(number, 244), Timestamp::ZERO));
            let outcomes = run(&mut connection, 0);
            let first = outcomes.iter().filter(|(at, _)| *at == Duration::ZERO).count();
            assert_eq!(first, per_event);
            assert!(arrivals(&outcomes, Side::Phone).iter().map(|(byte, _)| *byte).eq(0..20));
        }
    }

    #[test]
    fn damaged_packets_cost_time_and_nothing_else() {
        for seed in 0..50 {
            let parameters =
                Parameters { loss_per_mille: 300, data_length: DataLength::Short, ..Parameters::default() };
            let mut connection = Connection::new(parameters, Timestamp::ZERO);
            (0..20).for_each(|number| connection.queue(Side::Host, value(number, 100), Timestamp::ZERO));
            (0..20).for_each(|number| connection.queue(Side::Phone, value(number, 50), Timestamp::ZERO));
            let outcomes = run(&mut connection, seed);
            for side in [Side::Host, Side::Phone] {
                let arrived = arrivals(&outcomes, side);
                assert!(arrived.iter().map(|(byte, _)| *byte).eq(0..20), "seed {seed}: {arrived:?}");
            }
        }
    }

    #[test]
    fn a_connection_without_range_ends_at_its_supervision_time_out() {
        let mut connection = Connection::new(Parameters::default(), Timestamp::ZERO);
        connection.set_in_range(false, Timestamp::from_origin(ms(100)));
        connection.queue(Side::Host, value(1, 20), Timestamp::from_origin(ms(200)));
        let outcomes = run(&mut connection, 0);
        let down = |side| (ms(2100), Outcome::Down { at: Timestamp::from_origin(ms(2100)), side });
        assert_eq!(outcomes, [down(Side::Host), down(Side::Phone)]);
        assert!(connection.is_over());
    }

    #[test]
    fn who_comes_back_in_time_has_lost_nothing() {
        let mut connection = Connection::new(Parameters::default(), Timestamp::ZERO);
        connection.set_in_range(false, Timestamp::from_origin(ms(100)));
        connection.queue(Side::Host, value(1, 20), Timestamp::from_origin(ms(200)));
        connection.set_in_range(true, Timestamp::from_origin(ms(2099)));
        let mut outcomes = Vec::new();
        let mut random = Random::new(0);
        while let Some(at) = connection.next_event() {
            outcomes.extend(connection.handle_event(at, &mut random));
        }
        assert!(matches!(outcomes[..], [Outcome::Received { to: Side::Phone, .. }]), "{outcomes:?}");
    }

    #[test]
    fn a_side_that_ends_the_connection_is_heard_after_what_it_has_said() {
        for side in [Side::Host, Side::Phone] {
            let mut connection = Connection::new(Parameters::default(), Timestamp::ZERO);
            connection.queue(side, value(1, 20), Timestamp::ZERO);
            connection.close(side, Timestamp::ZERO);
            let outcomes: Vec<Outcome> = run(&mut connection, 0).into_iter().map(|(_, outcome)| outcome).collect();
            let [Outcome::Received { at: received, .. }, Outcome::Down { at, side: told }] = outcomes[..] else {
                panic!("{outcomes:?}")
            };
            assert!(told == side.other() && received <= at);
            assert!(connection.is_over());
        }
    }

    #[test]
    fn several_bearers_overtake_each_other_and_one_does_not() {
        let order = |parameters: Parameters, seed| {
            let mut connection = Connection::new(parameters, Timestamp::ZERO);
            (0..12).for_each(|number| connection.queue(Side::Phone, value(number, 20), Timestamp::ZERO));
            let mut handed: Vec<(Timestamp, u8)> = run(&mut connection, seed)
                .into_iter()
                .filter_map(|(_, outcome)| match outcome {
                    Outcome::Received { at, att: Att::Value(value), .. } => Some((at, value[0])),
                    _ => None,
                })
                .collect();
            handed.sort_by_key(|(at, _)| *at);
            handed.into_iter().map(|(_, byte)| byte).collect::<Vec<u8>>()
        };
        let in_order: Vec<u8> = (0..12).collect();
        let jitter = Parameters { jitter: ms(30), ..Parameters::default() };
        assert!((0..20).all(|seed| order(jitter.clone(), seed) == in_order));
        assert!((0..20).filter(|seed| order(Parameters::default().reordering(), *seed) != in_order).count() > 15);
    }

    #[test]
    fn requests_are_short() {
        let lengths = [Request::ExchangeMtu, Request::Discover, Request::Subscribe, Request::ReadInfo { offset: 22 }]
            .map(|request| Att::Request(request).length());
        assert_eq!(lengths, [3, 7, 5, 5]);
    }
}
