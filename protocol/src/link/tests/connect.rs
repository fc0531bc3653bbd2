//! A paired host connects.

use super::*;
use crate::messages::{Body, Cancel, CardState, MESSAGE_LIMIT, Pending, Ping, Reset, Unsupported};
use crate::test_support::NoEntropy;
use std::sync::Arc;

#[test]
fn the_phone_does_nothing_before_the_first_record() {
    let parties = Parties::new(1);
    let mut pair = parties.connecting();
    pair.settle();
    assert!(connected(&pair.host_events) && pair.host.is_open());
    assert!(pair.phone_events.is_empty() && !pair.phone.is_open());
    assert_eq!(pair.phone.send(&response(1, 2).into(), pair.now), Err(LinkError::NotOpen));

    pair.send(Side::Host, transmit(1)).expect("connected");
    pair.settle();
    let [Event::Connected { peer }, Event::Message(message)] = &pair.phone_events[..] else {
        panic!("{:?}", pair.phone_events);
    };
    assert_eq!(*peer, parties.host.identity.public());
    assert_eq!(*message, transmit(1).into());
    assert!(pair.phone.is_open());
}

#[test]
fn a_connection_takes_one_round_trip_after_info() {
    let mut pair = Parties::new(1).connecting();
    pair.latency = Duration::from_millis(15);
    pair.settle();
    // Info, handshake, handshake.
    assert_eq!(pair.now, Timestamp::from_origin(Duration::from_millis(45)));
    let lengths: Vec<_> = pair.log.iter().map(|flight| flight.message.len()).collect();
    // Every one fits one fragment of the smallest phone.
    assert_eq!(lengths, [25, 116, 49]);
}

#[test]
fn messages_of_any_length_arrive_whole() {
    let mut pair = open_pair(&Parties::new(1));
    for length in [0, 1, 13, 14, 45, 46, 4096, 65_400, 65_502, 65_536, 66_000] {
        let sent = Envelope::from(response(2, length));
        pair.send(Side::Phone, sent.clone()).expect("open");
        pair.settle();
        assert_eq!(pair.take_messages(Side::Host), [sent], "{length}");
    }
    assert!(pair.log.iter().all(|flight| flight.message.len() <= LINK_MESSAGE_LIMIT));
    let records = pair.log.iter().filter(|flight| flight.message[1..].len() % 32 == 16).count();
    assert_eq!(records, pair.log.len(), "every record is padded");
}

#[test]
fn a_message_above_the_limit_is_not_sent() {
    let mut pair = open_pair(&Parties::new(1));
    assert_eq!(pair.send(Side::Phone, response(1, MESSAGE_LIMIT)), Err(LinkError::TooLong));
    pair.send(Side::Phone, response(1, 10)).expect("the link still works");
    pair.settle();
    assert_eq!(pair.take_messages(Side::Host).len(), 1);
}

#[test]
fn each_side_sends_only_what_is_its_own() {
    let mut pair = open_pair(&Parties::new(1));
    let host: Vec<Envelope> = vec![
        transmit(2).into(),
        Reset { session: 1, epoch: 2 }.into(),
        Cancel { session: 1, request_id: 2 }.into(),
        messages::Open { resume_token: Vec::new(), epoch: 1, software: String::new() }.into(),
    ];
    let phone: Vec<Envelope> = vec![
        response(2, 2).into(),
        Pending { session: 1, request_id: 2, reason: 1 }.into(),
        CardState::default().into(),
        messages::SecurityState::default().into(),
    ];
    let nobody: Vec<Envelope> =
        vec![Ping { id: 1 }.into(), messages::PairConfirm {}.into(), messages::Close { reason: 1 }.into()];
    for message in host.iter().chain(&nobody) {
        assert_eq!(pair.send(Side::Phone, message.clone()), Err(LinkError::OutOfPlace), "{message:?}");
    }
    for message in phone.iter().chain(&nobody) {
        assert_eq!(pair.send(Side::Host, message.clone()), Err(LinkError::OutOfPlace), "{message:?}");
    }
    assert_eq!(pair.host.send(&Envelope { body: None }, pair.now), Err(LinkError::OutOfPlace));
    for (side, messages) in [(Side::Host, host), (Side::Phone, phone)] {
        for message in messages {
            pair.send(side, message.clone()).expect("its own");
            pair.settle();
            assert_eq!(pair.take_messages(side.other()), [message]);
        }
    }
    pair.send(Side::Phone, Unsupported::default()).expect("either side says so");
    pair.settle();
    assert!(matches!(pair.take_messages(Side::Host)[..], [Envelope { body: Some(Body::Unsupported(_)) }]));
}

#[test]
fn close_tells_the_other_side_why() {
    for (reason, told) in [
        (CloseReason::Done, messages::CloseReason::Done),
        (CloseReason::Revoked, messages::CloseReason::Revoked),
        (CloseReason::Replaced, messages::CloseReason::Replaced),
        (messages::CloseReason::Failed.into(), messages::CloseReason::Failed),
    ] {
        let mut pair = open_pair(&Parties::new(1));
        pair.phone.close(reason, pair.now);
        pair.settle();
        assert_eq!(pair.closed(Side::Phone), Some(reason));
        assert_eq!(pair.closed(Side::Host), Some(CloseReason::Peer(told)));
        assert!(pair.host.is_closed() && pair.phone.is_closed());
        assert_eq!(pair.host.poll_timeout(), None);
        assert_eq!(pair.send(Side::Host, transmit(2)), Err(LinkError::NotOpen));
    }
}

#[test]
fn a_link_ends_once() {
    let mut pair = open_pair(&Parties::new(1));
    pair.disconnect();
    pair.host.close(CloseReason::Done, pair.now);
    pair.host.handle_message(&[2, 0], pair.now);
    pair.host.handle_message(&[3, 2, 1, 1], pair.now);
    pair.host.handle_message(&[], pair.now);
    pair.host.handle_timeout(pair.now + Duration::from_secs(1000));
    pair.host.confirm_pairing(true, pair.now);
    let events = pair.take_events(Side::Host);
    assert!(matches!(events[..], [Event::Closed(CloseReason::Lost)]), "{events:?}");
    assert!(pair.log.is_empty());
}

#[test]
fn a_busy_phone_says_so() {
    let parties = Parties::new(1);
    let mut pair = parties.connecting();
    pair.phone.close(CloseReason::Busy, pair.now);
    pair.settle();
    assert_eq!(pair.closed(Side::Host), Some(CloseReason::Busy));
}

#[test]
fn without_entropy_nothing_begins() {
    let mut parties = Parties::new(1);
    parties.phone.entropy = Arc::new(NoEntropy);
    let pair = &mut parties.connecting();
    pair.settle();
    assert_eq!(pair.closed(Side::Phone), Some(CloseReason::Entropy));
    assert!(pair.log.is_empty());

    let mut parties = Parties::new(1);
    parties.host.entropy = Arc::new(NoEntropy);
    let pair = &mut parties.connecting();
    pair.settle();
    assert_eq!(pair.closed(Side::Host), Some(CloseReason::Entropy));
}

#[test]
fn keys_change_after_their_records() {
    let mut pair = open_pair(&Parties::new(1));
    let count = crate::channel::REKEY_RECORDS + 10;
    for id in 0..u64::from(count) {
        pair.send(Side::Host, transmit(id)).expect("open");
        pair.settle();
        pair.log.clear();
    }
    assert_eq!(pair.take_messages(Side::Phone).len(), count as usize);
}

#[test]
fn keys_change_after_their_time() {
    let mut pair = open_pair(&Parties::new(1));
    for round in 0..40 {
        pair.advance(Duration::from_secs(61));
        pair.send(Side::Host, transmit(round)).expect("open");
        pair.settle();
        pair.send(Side::Phone, response(round, 2)).expect("open");
        pair.settle();
    }
    assert_eq!(pair.take_messages(Side::Phone).len(), 40);
    assert_eq!(pair.take_messages(Side::Host).len(), 40);
}
