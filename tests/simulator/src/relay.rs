//! The same flow over the same radio without this project: a relay that sends each APDU of a program by itself, in
//! windows of 256 bytes, and knows nothing of cards. No channel, no credits.

use std::time::Duration;

use pocketcard_protocol::Timestamp;
use pocketcard_protocol::link::Side;

use crate::radio::{Att, Connection, Outcome, Parameters};
use crate::random::Random;

/// What a relay sends in one GATT value, as those that are published do (the payload that iOS takes).
const VALUE: usize = 180;

/// What a flow costs through a relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayCost {
    /// APDUs.
    pub round_trips: usize,
    /// GATT values of both sides.
    pub values: usize,
    /// Bytes in them.
    pub bytes: usize,
    /// From the first command to the last answer.
    pub time: Duration,
}

/// Plays a flow, each command with its answer, through a relay.
///
/// - `latency`: of the phone's app and the systems, for each APDU.
#[must_use]
pub fn play<'a>(
    parameters: &Parameters,
    latency: Duration,
    flow: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> RelayCost {
    let mut cost = RelayCost::default();
    let mut connection = Connection::new(parameters.clone(), Timestamp::ZERO);
    let mut random = Random::new(0);
    // Not at an anchor: a program begins whenever it does.
    let began = Timestamp::ZERO + parameters.interval / 2;
    let mut now = began;
    for (command, answer) in flow {
        cost.round_trips += 1;
        cost.bytes += command.len() + answer.len();
        cost.values += command.len().div_ceil(VALUE) + answer.len().div_ceil(VALUE);
        now = send(&mut connection, &mut random, Side::Host, command, now) + latency;
        now = send(&mut connection, &mut random, Side::Phone, answer, now);
    }
    RelayCost { time: now.saturating_since(began), ..cost }
}

/// Sends an APDU, and gives when its last value has arrived.
fn send(connection: &mut Connection, random: &mut Random, from: Side, apdu: &[u8], now: Timestamp) -> Timestamp {
    for value in apdu.chunks(VALUE) {
        connection.queue(from, Att::Value(value.to_vec()), now);
    }
    let mut last = now;
    while let Some(at) = connection.next_event() {
        for outcome in connection.handle_event(at, random) {
            if let Outcome::Received { at, .. } = outcome {
                last = last.max(at);
            }
        }
    }
    last
}
