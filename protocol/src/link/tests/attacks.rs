//! Somebody is on the wire of a connection.

use super::*;
use crate::channel::StaticSecret;
use crate::test_support::pair_keys;
use std::sync::Arc;

/// A connection with one request and one answer; gives what the phone and the host took in.
fn exchange(pair: &mut Pair) -> (usize, usize) {
    pair.settle();
    if pair.send(Side::Host, transmit(1)).is_ok() {
        pair.settle();
        if pair.send(Side::Phone, response(1, 2)).is_ok() {
            pair.settle();
        }
    }
    let result = (messages_in(&pair.phone_events), messages_in(&pair.host_events));
    pair.advance(limits::WAIT_LIMIT);
    result
}

/// The messages of [`exchange`] in order.
const MESSAGES: [(Side, usize); 5] =
    [(Side::Phone, 0), (Side::Host, 0), (Side::Phone, 1), (Side::Host, 1), (Side::Phone, 2)];

/// What arrives when message `index` of [`MESSAGES`] is not what was sent: nothing of it, nor of what follows.
fn expect_nothing(pair: &mut Pair, index: usize, what: &str) {
    let (phone, host) = exchange(pair);
    assert_eq!(host, 0, "{what}");
    assert_eq!(phone, usize::from(index == 4), "{what}");
    assert_eq!(connected(&pair.phone_events), index == 4, "{what}");
    assert!(pair.host.is_closed(), "{what}");
    if index < 4 {
        assert!(pair.phone.is_closed(), "{what}");
    }
}

#[test]
fn no_bit_of_any_message_can_be_changed() {
    let parties = Parties::new(1);
    let mut pair = parties.connecting();
    assert_eq!(exchange(&mut pair), (1, 1));
    let lengths: Vec<usize> = MESSAGES
        .iter()
        .map(|&(from, number)| {
            let sent = pair.log.iter().find(|flight| (flight.from, flight.number) == (from, number));
            sent.expect("sent").message.len()
        })
        .collect();
    for (index, (&(from, number), length)) in MESSAGES.iter().zip(lengths).enumerate() {
        for position in 0..length {
            let bit = 1 << (position % 8);
            let mut pair = parties.connecting();
            pair.intercept(change(from, number, move |message| message[position] ^= bit));
            expect_nothing(&mut pair, index, &format!("message {index}, byte {position}"));
        }
    }
}

#[test]
fn no_message_can_be_cut_or_lengthened() {
    let parties = Parties::new(1);
    for (index, (from, number)) in MESSAGES.into_iter().enumerate() {
        for length in [0, 1, 2, 20, 24, 40, 48] {
            let mut pair = parties.connecting();
            pair.intercept(change(from, number, move |message| message.truncate(length.min(message.len() - 1))));
            expect_nothing(&mut pair, index, &format!("message {index} cut to {length}"));
        }
        for extra in [1, 16, 32, 100, 300] {
            let mut pair = parties.connecting();
            pair.intercept(change(from, number, move |message| message.resize(message.len() + extra, 0)));
            expect_nothing(&mut pair, index, &format!("message {index} and {extra} more"));
        }
    }
}

#[test]
fn no_message_can_be_repeated_lost_or_overtaken() {
    type Attack = fn(Flight) -> Vec<Flight>;
    let attacks: [(&str, Attack); 3] = [
        ("repeated", |flight| vec![flight.clone(), flight]),
        ("lost", |_| Vec::new()),
        ("late", |flight| vec![Flight { delay: Duration::from_millis(100), ..flight }]),
    ];
    for (name, attack) in attacks {
        let mut pair = open_pair(&Parties::new(1));
        // Numbers go on from those of `open_pair`: two of the host so far.
        pair.intercept(move |flight| if flight.number == 2 { attack(flight) } else { vec![flight] });
        for id in 2..5 {
            pair.send(Side::Host, transmit(id)).expect("open");
        }
        pair.settle();
        assert_eq!(pair.closed(Side::Phone), Some(CloseReason::Decrypt), "{name}");
        let taken = messages_in(&pair.phone_events);
        assert_eq!(taken, usize::from(name == "repeated"), "{name}");
    }
}

#[test]
fn a_recorded_connection_cannot_be_replayed() {
    let parties = Parties::new(1);
    let mut pair = parties.connecting();
    exchange(&mut pair);
    let recorded: Vec<_> = pair.log.into_iter().filter(|flight| flight.from == Side::Host).collect();

    let mut phone = Link::phone(parties.phone.clone(), Timestamp::ZERO);
    let info = phone.poll_transmit().expect("Info");
    phone.handle_message(&recorded[0].message, Timestamp::ZERO);
    assert!(matches!(phone.poll_event(), Some(Event::Closed(CloseReason::Protocol(Violation::StaleInfo)))));
    assert_eq!(phone.poll_transmit(), Some(vec![3, 4, 1, 1]));

    // With the new nonce written over the old one it belongs to this link, but does not decrypt.
    let mut phone = Link::phone(parties.phone.clone(), Timestamp::ZERO);
    let fresh = phone.poll_transmit().expect("Info");
    assert_ne!(info, fresh);
    let mut replayed = recorded[0].message.clone();
    replayed[4..20].copy_from_slice(&fresh[9..25]);
    phone.handle_message(&replayed, Timestamp::ZERO);
    assert!(matches!(phone.poll_event(), Some(Event::Closed(CloseReason::Decrypt))));
    assert_eq!(phone.poll_transmit(), Some(vec![3, 4, 1, 1]));
    assert_eq!(phone.poll_transmit(), None);
}

#[test]
fn a_recorded_phone_cannot_be_replayed() {
    let parties = Parties::new(1);
    let keys = parties.pair();
    let mut pair = parties.connecting_with(&keys);
    exchange(&mut pair);
    let mut host = Link::host_connect(parties.host.clone(), &keys, Timestamp::ZERO);
    for flight in pair.log.iter().filter(|flight| flight.from == Side::Phone) {
        host.handle_message(&flight.message, Timestamp::ZERO);
    }
    assert!(matches!(host.poll_event(), Some(Event::Closed(CloseReason::Decrypt))));
}

#[test]
fn versions_and_capabilities_cannot_be_talked_down() {
    let mut parties = Parties::new(1);
    let range = VersionRange::new(1, 2).expect("a range");
    parties.host.versions = range;
    parties.phone.versions = range;
    // Byte 0 is the kind, then: newest version, readiness, suites (one that is not ours besides), capabilities.
    for (position, value) in [(2, 1), (3, 0x80), (4, 0x81), (8, 1), (5, 0x80)] {
        let mut pair = parties.connecting();
        pair.intercept(change(Side::Phone, 0, move |message| message[position] = value));
        expect_nothing(&mut pair, 0, &format!("byte {position}"));
        assert_eq!(pair.closed(Side::Phone), Some(CloseReason::Decrypt));
    }
}

#[test]
fn a_channel_that_is_offered_can_be_neither_hidden_nor_moved_nor_made_up() {
    let parties = Parties::new(1);
    let keys = parties.pair();
    let opens = |offered: Option<u16>, tamper: &dyn Fn(&mut Vec<u8>)| {
        let psm = offered.and_then(crate::l2cap::Psm::new);
        let mut phone = Link::phone_with_channel(parties.phone.clone(), psm, Timestamp::ZERO);
        let mut host = Link::host_connect(parties.host.clone(), &keys, Timestamp::ZERO);
        let mut info = phone.poll_transmit().expect("Info");
        tamper(&mut info);
        host.handle_message(&info, Timestamp::ZERO);
        while let Some(message) = host.poll_transmit() {
            phone.handle_message(&message, Timestamp::ZERO);
        }
        !matches!(phone.poll_event(), Some(Event::Closed(CloseReason::Decrypt)))
    };
    assert!(opens(Some(0x80), &|_| {}));
    assert!(!opens(Some(0x80), &|info| info[8] = 0), "hidden");
    assert!(!opens(Some(0x80), &|info| info.truncate(25)), "cut off");
    assert!(!opens(Some(0x80), &|info| info[26] = 0x81), "moved");
    assert!(
        !opens(None, &|info| {
            info[8] = 1;
            info.extend([0, 0x80])
        }),
        "made up"
    );
}

#[test]
fn the_version_that_the_host_chose_cannot_be_changed() {
    let mut parties = Parties::new(1);
    let range = VersionRange::new(1, 2).expect("a range");
    parties.host.versions = range;
    parties.phone.versions = range;
    let mut pair = parties.connecting();
    pair.intercept(change(Side::Host, 0, |message| message[1] = 1));
    expect_nothing(&mut pair, 1, "version");
}

#[test]
fn an_unpaired_host_learns_nothing_but_info() {
    let parties = Parties::new(1);
    let keys = parties.pair();
    let stranger = Arc::new(StaticSecret::from_bytes(&[0x77; 32]));

    let answers = |parties: &Parties, keys: &PairKeys| {
        let mut pair = parties.connecting_with(keys);
        exchange(&mut pair);
        assert!(!connected(&pair.phone_events));
        assert_eq!(pair.closed(Side::Host), Some(CloseReason::Rejected));
        let sent = pair.log.iter().filter(|flight| flight.from == Side::Phone).skip(1);
        sent.map(|flight| flight.message.clone()).collect::<Vec<_>>()
    };

    // A stranger who knows this phone's key; a host that the owner revoked; a host that seeks another phone.
    let mut unknown = parties.clone();
    unknown.host.identity = Arc::clone(&stranger);
    let of_stranger = answers(&unknown, &keys);
    let (wrong_phone, _) = pair_keys(&parties.host.identity, &stranger);
    let of_wrong_phone = answers(&parties, &wrong_phone);
    parties.forget_all();
    let of_revoked = answers(&parties, &keys);
    assert_eq!(of_stranger, [vec![3, 4, 1, 1]]);
    assert_eq!(of_wrong_phone, of_stranger);
    assert_eq!(of_revoked, of_stranger);
}

#[test]
fn a_host_without_the_session_key_gets_nowhere() {
    let parties = Parties::new(1);
    let keys = parties.pair();
    // Both static keys are right: this is a host whose identity was copied, or one from before pairing anew.
    let mut bytes = keys.to_bytes().to_vec();
    bytes[40] ^= 1;
    let stale = PairKeys::from_bytes(&bytes).expect("a pair");
    let mut pair = parties.connecting_with(&stale);
    expect_nothing(&mut pair, 0, "stale key");
    assert_eq!(pair.closed(Side::Host), Some(CloseReason::Decrypt));
    assert_eq!(pair.closed(Side::Phone), Some(CloseReason::Timeout(Limit::Handshake)));
}

#[test]
fn a_forged_refusal_ends_only_what_is_not_open() {
    for code in 0..6 {
        let mut pair = open_pair(&Parties::new(1));
        pair.host.handle_message(&[3, code, 1, 1], pair.now);
        pair.collect();
        assert_eq!(pair.closed(Side::Host), Some(CloseReason::Protocol(Violation::OutOfPlace)));
    }
}

#[test]
fn every_link_message_has_its_place() {
    let place = Some(CloseReason::Protocol(Violation::OutOfPlace));
    let parties = Parties::new(1);
    for message in [vec![0; 25], vec![2; 49]] {
        let mut pair = parties.connecting();
        pair.phone.handle_message(&message, pair.now);
        pair.collect();
        assert_eq!(pair.closed(Side::Phone), place);
    }
    for message in [vec![1; 49], vec![2; 49]] {
        let mut pair = parties.connecting();
        pair.host.handle_message(&message, pair.now);
        pair.collect();
        assert_eq!(pair.closed(Side::Host), place);
    }
    let mut pair = open_pair(&parties);
    pair.host.handle_message(&[1; 49], pair.now);
    pair.collect();
    assert_eq!(pair.closed(Side::Host), place);
    for message in [vec![], vec![4], vec![0xFF; 40], vec![1; EARLY_MESSAGE_LIMIT + 1], vec![2; LINK_MESSAGE_LIMIT + 1]]
    {
        let mut pair = parties.connecting();
        pair.phone.handle_message(&message, pair.now);
        pair.collect();
        assert_eq!(pair.closed(Side::Phone), Some(CloseReason::Protocol(Violation::Frame)));
    }
}

#[test]
fn a_paired_peer_that_breaks_the_rules_is_closed_and_told() {
    let bodies: [Envelope; 4] = [
        response(1, 2).into(),
        messages::PairConfirm {}.into(),
        messages::PairSecret { secret: vec![0; 32] }.into(),
        messages::CardState { atr: vec![0; 40], ..messages::CardState::default() }.into(),
    ];
    for body in bodies {
        let mut pair = open_pair(&Parties::new(1));
        let State::Open(open) = &mut pair.host.state else { panic!("not open") };
        let mut sent = Outbox::default();
        open.seal_for_testing_only(&body, pair.now, &mut sent).expect("sealed");
        for message in sent.transmits {
            pair.phone.handle_message(&message, pair.now);
        }
        pair.settle();
        assert!(matches!(pair.closed(Side::Phone), Some(CloseReason::Protocol(_))), "{body:?}");
        assert_eq!(pair.closed(Side::Host), Some(CloseReason::Peer(messages::CloseReason::Protocol)));
        assert_eq!(messages_in(&pair.phone_events), 0);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever arrives in whatever state, each side ends at most once and takes in nothing that was not sent.
    #[test]
    fn any_bytes_at_any_time(
        before in 0_usize..5,
        from_host in proptest::prelude::any::<bool>(),
        kind in 0_u8..5,
        body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
    ) {
        let mut pair = Parties::new(1).connecting();
        let from = if from_host { Side::Host } else { Side::Phone };
        let injected = [&[kind], body.as_slice()].concat();
        let mut count = 0;
        pair.intercept(move |flight| {
            count += 1;
            let forged = Flight { from, message: injected.clone(), ..flight.clone() };
            if count == before { vec![forged, flight] } else { vec![flight] }
        });
        let (phone, host) = exchange(&mut pair);
        proptest::prop_assert!(phone <= 1 && host <= 1);
        for events in [&pair.phone_events, &pair.host_events] {
            let ends = events.iter().filter(|event| matches!(event, Event::Closed(_))).count();
            proptest::prop_assert!(ends <= 1);
        }
    }
}
