//! Every wait has its limit.

use super::*;
use crate::messages::{Pending, Ping, Reset};
use limits::*;

fn timeout(limit: Limit) -> Option<CloseReason> {
    Some(CloseReason::Timeout(limit))
}

/// Runs to just before `duration`, checks that nothing has ended, then past it.
fn exactly(pair: &mut Pair, duration: Duration) {
    pair.advance(duration - MOMENT);
    assert_eq!((pair.closed(Side::Host), pair.closed(Side::Phone)), (None, None), "too early");
    pair.advance(MOMENT);
}

#[test]
fn info_must_come() {
    let mut pair = Parties::new(1).connecting();
    pair.cut();
    exactly(&mut pair, INFO_LIMIT);
    assert_eq!(pair.closed(Side::Host), timeout(Limit::Info));
}

#[test]
fn a_handshake_must_begin() {
    let mut pair = Parties::new(1).connecting();
    pair.host.close(CloseReason::Lost, pair.now);
    pair.take_events(Side::Host);
    exactly(&mut pair, WAIT_LIMIT);
    assert_eq!(pair.closed(Side::Phone), timeout(Limit::Wait));
}

#[test]
fn a_handshake_must_be_answered() {
    let mut pair = Parties::new(1).connecting();
    pair.intercept(|flight| if flight.from == Side::Host { Vec::new() } else { vec![flight] });
    pair.settle();
    exactly(&mut pair, HANDSHAKE_LIMIT);
    assert_eq!(pair.closed(Side::Host), timeout(Limit::Handshake));
}

#[test]
fn the_first_record_must_come() {
    let mut pair = Parties::new(1).connecting();
    pair.settle();
    exactly(&mut pair, HANDSHAKE_LIMIT);
    assert_eq!(pair.closed(Side::Phone), timeout(Limit::Handshake));
    // And the phone has told nothing to a host that proved nothing: Info and its handshake message are all.
    assert_eq!(pair.log.iter().filter(|flight| flight.from == Side::Phone).count(), 2);
}

#[test]
fn a_first_record_that_comes_too_late_opens_nothing() {
    let mut pair = Parties::new(1).connecting();
    pair.settle();
    pair.host.send(&transmit(1).into(), pair.now).expect("connected");
    let record = pair.host.poll_transmit().expect("a record");
    // No timer has run: the machine slept, or was busy.
    pair.phone.handle_message(&record, pair.now + HANDSHAKE_LIMIT);
    pair.collect();
    assert_eq!(pair.closed(Side::Phone), timeout(Limit::Handshake));
    assert!(!connected(&pair.phone_events));
}

#[test]
fn the_limit_of_a_message_grows_with_the_channel() {
    let mut pair = Parties::new(1).connecting();
    assert_eq!((pair.host.message_limit(), pair.phone.message_limit()), (4096, 4096));
    pair.settle();
    assert_eq!((pair.host.message_limit(), pair.phone.message_limit()), (65_536, 4096));
    pair.send(Side::Host, transmit(1)).expect("connected");
    pair.settle();
    assert_eq!(pair.phone.message_limit(), 65_536);
}

fn pin_entry(request_id: u64) -> messages::PinEntry {
    let operation = messages::PinOperation::Verify.into();
    messages::PinEntry { session: 1, request_id, epoch: 1, operation, key_reference: 0x80, time_limit_s: 0 }
}

#[test]
fn a_request_must_be_answered() {
    let requests: [Envelope; 3] = [
        transmit(2).into(),
        pin_entry(2).into(),
        messages::Open { resume_token: Vec::new(), epoch: 1, software: String::new() }.into(),
    ];
    for request in requests {
        let mut pair = open_pair(&Parties::new(1));
        pair.send(Side::Host, request).expect("open");
        exactly(&mut pair, REQUEST_LIMIT);
        assert_eq!(pair.closed(Side::Host), timeout(Limit::Request));
        assert_eq!(pair.closed(Side::Phone), Some(CloseReason::Peer(messages::CloseReason::Expired)));
    }
}

#[test]
fn pending_keeps_its_own_request_alive() {
    let mut pair = open_pair(&Parties::new(1));
    for (request_id, request) in [(1, Envelope::from(pin_entry(1))), (2, transmit(2).into())] {
        pair.send(Side::Host, request).expect("open");
        for _ in 0..50 {
            pair.advance(PENDING_INTERVAL);
            pair.send(Side::Phone, Pending { session: 1, request_id, reason: 2 }).expect("open");
        }
        pair.send(Side::Phone, response(request_id, 2)).expect("open");
        pair.advance(Duration::from_secs(50));
        assert_eq!(pair.closed(Side::Host), None);
    }

    pair.send(Side::Host, transmit(3)).expect("open");
    pair.advance(REQUEST_LIMIT / 2);
    for (session, request_id) in [(1, 2), (2, 3)] {
        pair.send(Side::Phone, Pending { session, request_id, reason: 2 }).expect("open");
        let mut other = response(request_id, 2);
        other.session = session;
        pair.send(Side::Phone, other).expect("open");
    }
    pair.settle();
    exactly(&mut pair, REQUEST_LIMIT / 2);
    assert_eq!(pair.closed(Side::Host), timeout(Limit::Request));
}

#[test]
fn a_reset_ends_the_wait() {
    let mut pair = open_pair(&Parties::new(1));
    pair.send(Side::Host, transmit(2)).expect("open");
    pair.send(Side::Host, Reset { session: 1, epoch: 2 }).expect("open");
    pair.advance(IDLE_INTERVAL - MOMENT);
    assert_eq!(pair.closed(Side::Host), None);
}

#[test]
fn a_reset_does_not_end_the_wait_for_a_session() {
    let mut pair = open_pair(&Parties::new(1));
    let open = messages::Open { resume_token: Vec::new(), epoch: 1, software: String::new() };
    pair.send(Side::Host, open).expect("open");
    pair.send(Side::Host, Reset { session: 1, epoch: 2 }).expect("open");
    exactly(&mut pair, REQUEST_LIMIT);
    assert_eq!(pair.closed(Side::Host), timeout(Limit::Request));
}

#[test]
fn an_idle_link_carries_nothing_and_is_pinged_every_minute() {
    let mut pair = open_pair(&Parties::new(1));
    pair.advance(IDLE_INTERVAL - MOMENT);
    assert_eq!(pair.log.len(), 0);
    pair.advance(MOMENT);
    assert_eq!(pair.log.len(), 2, "a ping and its answer");
    pair.advance(IDLE_INTERVAL * 9);
    assert_eq!(pair.log.len(), 20);
    assert_eq!((pair.closed(Side::Host), pair.closed(Side::Phone)), (None, None));
    assert!(pair.host_events.is_empty() && pair.phone_events.is_empty(), "nobody else sees them");
}

#[test]
fn a_dead_phone_is_found_out() {
    let mut pair = open_pair(&Parties::new(1));
    pair.cut();
    exactly(&mut pair, IDLE_INTERVAL + REQUEST_LIMIT);
    assert_eq!(pair.closed(Side::Host), timeout(Limit::Ping));
}

#[test]
fn a_dead_host_is_found_out() {
    let mut pair = open_pair(&Parties::new(1));
    pair.cut();
    pair.host.close(CloseReason::Lost, pair.now);
    pair.take_events(Side::Host);
    exactly(&mut pair, SILENCE_LIMIT);
    assert_eq!(pair.closed(Side::Phone), timeout(Limit::Silence));
}

#[test]
fn a_ping_finds_a_killed_phone_within_its_limit() {
    let mut pair = open_pair(&Parties::new(1));
    pair.host.ping(pair.now);
    pair.host.ping(pair.now);
    pair.settle();
    assert_eq!(pair.log.len(), 2, "one ping at a time");
    pair.cut();
    pair.host.ping(pair.now);
    exactly(&mut pair, REQUEST_LIMIT);
    assert_eq!(pair.closed(Side::Host), timeout(Limit::Ping));
}

#[test]
fn a_phone_does_not_ping() {
    let mut pair = open_pair(&Parties::new(1));
    pair.phone.ping(pair.now);
    pair.settle();
    assert!(pair.log.is_empty());
}

#[test]
fn a_wrong_pong_is_no_answer() {
    let mut pair = open_pair(&Parties::new(1));
    pair.intercept(|flight| if flight.from == Side::Phone { Vec::new() } else { vec![flight] });
    pair.host.ping(pair.now);
    pair.settle();
    pair.intercept(|flight| vec![flight]);
    // The answer to the first ping is lost, and with it the order of records: nothing later decrypts.
    pair.send(Side::Phone, messages::CardState::default()).expect("open");
    pair.settle();
    assert_eq!(pair.closed(Side::Host), Some(CloseReason::Decrypt));
}

#[test]
fn a_peer_that_does_not_read_is_cut_off() {
    let mut pair = open_pair(&Parties::new(1));
    // A host that pings through its own channel, faster than anybody reads the answers.
    let State::Open(open) = &mut pair.host.state else { panic!("not open") };
    let mut pings = Outbox::default();
    for id in 0..=QUEUE_LIMIT as u64 {
        open.seal_for_testing_only(&Ping { id }.into(), pair.now, &mut pings).expect("sealed");
    }
    for ping in pings.transmits {
        pair.phone.handle_message(&ping, pair.now);
    }
    pair.collect();
    assert_eq!(pair.closed(Side::Phone), Some(CloseReason::Protocol(Violation::Flood)));
}

#[test]
fn an_unknown_message_is_answered_unsupported_by_its_number() {
    let mut pair = open_pair(&Parties::new(1));
    // None at all; field 2000, of one byte; field 7, a number.
    for (bytes, message) in [(&[][..], 0), (&[0x82, 0x7D, 1, 0], 2000), (&[0x38, 1], 7)] {
        let State::Open(open) = &mut pair.host.state else { panic!("not open") };
        let mut sent = Outbox::default();
        open.send_bytes_for_testing_only(bytes, pair.now, &mut sent);
        for message in sent.transmits {
            pair.phone.handle_message(&message, pair.now);
        }
        pair.settle();
        assert_eq!(pair.take_messages(Side::Host), [messages::Unsupported { message }.into()]);
    }
    assert_eq!(pair.closed(Side::Phone), None);
}
