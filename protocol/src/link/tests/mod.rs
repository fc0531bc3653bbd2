//! Both ends against each other, on a virtual clock.

mod attacks;
mod connect;
mod liveness;
mod pairing;
mod pairing_attacks;
mod radio;
mod versions;

use super::*;
use crate::messages::{self, Transmit};
use crate::test_support::{Flight, Pair, Parties, TestEntropy};
use std::time::Duration;

/// A second less than nothing: for "just before" a limit.
const MOMENT: Duration = Duration::from_millis(1);

fn transmit(id: u64) -> Transmit {
    Transmit { session: 1, request_id: id, epoch: 1, command: vec![0, 0xCA, 0, 0] }
}

fn response(id: u64, length: usize) -> messages::Response {
    messages::Response {
        session: 1,
        request_id: id,
        epoch: 1,
        response: vec![0x5A; length],
        security_version: 1,
        snapshot_digest: Vec::new(),
    }
}

/// A paired host and phone whose channel is open both ways, with all events taken.
fn open_pair(parties: &Parties) -> Pair {
    let mut pair = parties.connecting();
    pair.settle();
    pair.send(Side::Host, transmit(1)).expect("connected");
    pair.settle();
    pair.send(Side::Phone, response(1, 2)).expect("connected");
    pair.settle();
    assert!(pair.host.is_open() && pair.phone.is_open());
    pair.take_events(Side::Host);
    pair.take_events(Side::Phone);
    pair.log.clear();
    pair
}

fn connected(events: &[Event]) -> bool {
    events.iter().any(|event| matches!(event, Event::Connected { .. }))
}

fn messages_in(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Message(_))).count()
}

/// Delivers everything but changes one message.
fn change(from: Side, number: usize, change: impl Fn(&mut Vec<u8>) + 'static) -> impl FnMut(Flight) -> Vec<Flight> {
    move |mut flight| {
        if (flight.from, flight.number) == (from, number) {
            change(&mut flight.message);
        }
        vec![flight]
    }
}
