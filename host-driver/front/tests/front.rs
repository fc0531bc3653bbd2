//! One slot from outside: each event and what comes out of it, in order.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use pocketcard_front::{Config, Failure, Front, FrontError, Output, PowerAction, Presence, Reply, Security};
use pocketcard_protocol::Timestamp;
use pocketcard_protocol::messages::{self, Body, CardState, Envelope, SecurityState};

use support::{Bench, LOOK, PIN, card_state, opened, seconds};

#[test]
fn a_command_goes_to_the_phone_and_its_answer_comes_back() {
    let mut bench = Bench::powered();
    let request = bench.relay(&LOOK);
    assert_eq!(request.0, 1);
    bench.respond(7, request, &[5, 7, 0, 0x90, 0]);
    assert_eq!(bench.reply(), Ok(vec![5, 7, 0, 0x90, 0]));
    assert_eq!(bench.relay(&LOOK).0, 2);
}

#[test]
fn chains_and_windows_stay_on_the_host() {
    let mut bench = Bench::powered();
    bench.front.handle_transmit(&[0x10, 0x87, 0x11, 0x9A, 0x01, 0xAA], bench.now);
    assert_eq!(bench.reply(), Ok(vec![0x90, 0]));
    bench.front.handle_transmit(&[0x00, 0x87, 0x11, 0x9A, 0x01, 0xBB, 0x00], bench.now);
    let sent = bench.sent();
    let [Body::Transmit(transmit)] = &sent[..] else { panic!() };
    assert_eq!(transmit.command, [0x00, 0x87, 0x11, 0x9A, 0x02, 0xAA, 0xBB, 0x00]);
    let mut whole = vec![0x5A; 300];
    whole.extend([0x90, 0]);
    let request = (transmit.request_id, transmit.epoch);
    bench.respond(7, request, &whole);
    let window = bench.reply().unwrap();
    assert_eq!((window.len(), &window[256..]), (258, &[0x61, 44][..]));
    bench.front.handle_transmit(&[0x00, 0xC0, 0x00, 0x00, 44], bench.now);
    assert_eq!(bench.reply().unwrap().len(), 46);
}

#[test]
fn a_reset_is_sent_only_if_there_is_something_to_end() {
    let mut bench = Bench::powered();
    let look = bench.relay(&LOOK);
    bench.respond(7, look, &[0x90, 0]);
    bench.reply().unwrap();
    bench.power(PowerAction::Reset).unwrap();
    assert!(bench.sent().is_empty(), "a look leaves nothing behind");
    let verify = bench.relay(&PIN);
    assert!(verify.1 > look.1, "the epoch rides on the next request");
    bench.respond(7, verify, &[0x90, 0]);
    bench.reply().unwrap();
    bench.power(PowerAction::Down).unwrap();
    let sent = bench.sent();
    assert!(matches!(&sent[..], [Body::Reset(reset)] if reset.session == 7 && reset.epoch > verify.1), "{sent:?}");
    bench.power(PowerAction::Up).unwrap();
    assert!(bench.sent().is_empty());
}

#[test]
fn a_driver_that_goes_away_is_a_power_down_and_cancels() {
    let mut bench = Bench::powered();
    let request = bench.relay(&LOOK);
    bench.front.handle_driver_gone(bench.now);
    assert!(matches!(bench.front.poll_output(), Some(Output::Send(Envelope { body: Some(Body::Reset(_)) }))));
    assert_eq!(bench.reply(), Err(Failure::NotPresent));
    bench.respond(7, request, &[0x90, 0]);
    assert!(bench.front.poll_output().is_none(), "an answer that comes late is dropped");
    bench.front.handle_transmit(&LOOK, bench.now);
    assert_eq!(bench.reply(), Err(Failure::NotPresent), "the next driver has to power up first");
}

#[test]
fn a_card_that_takes_too_long_is_cancelled_and_reset() {
    let mut bench = Bench::powered();
    let request = bench.relay(&PIN);
    assert_eq!(bench.front.poll_timeout(), Some(seconds(55)));
    bench.front.handle_timeout(seconds(54));
    assert!(bench.front.poll_output().is_none());
    bench.front.handle_timeout(seconds(55));
    for _ in 0..2 {
        match bench.front.poll_output() {
            Some(Output::Send(Envelope { body: Some(Body::Cancel(cancel)) })) => {
                assert_eq!(cancel.request_id, request.0);
            }
            Some(Output::Send(Envelope { body: Some(Body::Reset(reset)) })) => assert!(reset.epoch > request.1),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bench.reply(), Err(Failure::TimedOut));
    assert_eq!(bench.front.poll_timeout(), None);
    bench.respond(7, request, &[0x90, 0]);
    assert!(bench.front.poll_output().is_none());
    assert_eq!(bench.relay(&LOOK).0, 2, "the id of the cancelled one stays used");
}

#[test]
fn a_new_session_is_a_new_card_that_needs_power() {
    let mut bench = Bench::powered();
    let first = bench.front.presence().generation;
    let request = bench.relay(&LOOK);
    bench.front.handle_link_closed(bench.now);
    assert_eq!(bench.reply(), Err(Failure::NotPresent), "a command under way fails at once");
    assert!(matches!(bench.front.poll_output(), Some(Output::Presence(Presence { atr: None, .. }))));
    assert!(bench.front.poll_output().is_none(), "nothing is sent into a dead link");
    bench.connect(8);
    assert!(bench.front.presence().generation > first);
    bench.front.handle_transmit(&LOOK, bench.now);
    assert_eq!(bench.reply(), Err(Failure::NotPresent));
    assert_eq!(
        bench.front.handle_power(PowerAction::Up, first, bench.now).map(<[u8]>::to_vec),
        Err(Failure::NotPresent),
        "the reader still believes in the old card"
    );
    bench.power(PowerAction::Up).unwrap();
    let next = bench.relay(&LOOK);
    assert_eq!(next.0, 1);
    assert!(next.1 > request.1, "the epoch never comes down");
}

#[test]
fn a_card_that_its_owner_locks_leaves_and_comes_back() {
    let mut bench = Bench::powered();
    let first = bench.front.presence().generation;
    bench.front.handle_envelope(card_state(true).into(), bench.now);
    assert!(bench.front.poll_output().is_none(), "nothing changed");
    bench.relay(&PIN);
    bench.front.handle_envelope(card_state(false).into(), bench.now);
    assert!(matches!(bench.front.poll_output(), Some(Output::Send(Envelope { body: Some(Body::Reset(_)) }))));
    assert_eq!(bench.reply(), Err(Failure::NotPresent));
    assert!(matches!(bench.front.poll_output(), Some(Output::Presence(Presence { atr: None, .. }))));
    bench.front.handle_envelope(card_state(true).into(), bench.now);
    let back = bench.front.poll_output();
    assert!(matches!(back, Some(Output::Presence(Presence { generation, atr: Some(_) })) if generation > first));
}

#[test]
fn a_phone_that_breaks_the_protocol_loses_its_link_and_its_card() {
    type Breach = fn(&mut Bench);
    let breaches: [(Breach, FrontError); 7] = [
        (|bench| bench.respond(7, (9, 1), &[0x90, 0]), FrontError::UnknownRequest),
        (|bench| bench.respond(6, (1, 1), &[0x90, 0]), FrontError::OutOfOrder),
        (
            |bench| {
                let request = bench.relay(&LOOK);
                bench.respond(7, request, &[0x90]);
            },
            FrontError::Malformed,
        ),
        (|bench| bench.front.handle_envelope(opened(7, false).into(), bench.now), FrontError::OutOfOrder),
        (|bench| bench.front.handle_envelope(messages::Open::default().into(), bench.now), FrontError::OutOfOrder),
        (
            |bench| {
                let pending = messages::Pending { session: 7, request_id: 3, reason: 1 };
                bench.front.handle_envelope(pending.into(), bench.now);
            },
            FrontError::UnknownRequest,
        ),
        (
            |bench| {
                let bare = CardState { atr: Vec::new(), ..card_state(true) };
                bench.front.handle_envelope(bare.into(), bench.now);
            },
            FrontError::Malformed,
        ),
    ];
    for (breach, error) in breaches {
        let mut bench = Bench::powered();
        breach(&mut bench);
        assert_eq!(bench.closed(), error);
        assert_eq!(bench.front.presence().atr, None);
    }
}

#[test]
fn a_session_that_claims_to_be_resumed_is_refused() {
    let mut bench = Bench { front: Front::new(Config::default()), now: Timestamp::ZERO };
    bench.front.handle_link_up(bench.now);
    bench.sent();
    bench.front.handle_envelope(opened(7, true).into(), bench.now);
    assert_eq!(bench.closed(), FrontError::Resumed);
}

#[test]
fn an_empty_slot_answers() {
    let mut front = Front::new(Config::default());
    front.handle_transmit(&LOOK, Timestamp::ZERO);
    assert!(matches!(front.poll_output(), Some(Output::Reply(Reply::Failed(Failure::NotPresent)))));
    assert_eq!(front.handle_power(PowerAction::Up, 0, Timestamp::ZERO), Err(Failure::NotPresent));
    assert_eq!(front.handle_power(PowerAction::Down, 0, Timestamp::ZERO), Ok(&[][..]));
    front.handle_driver_gone(Timestamp::ZERO);
    front.handle_timeout(seconds(100));
    assert!(front.poll_output().is_none());
}

#[test]
fn a_reset_ends_a_chain_and_what_a_response_has_left() {
    for action in [PowerAction::Up, PowerAction::Reset, PowerAction::Down] {
        let mut bench = Bench::powered();
        let look = bench.relay(&LOOK);
        bench.respond(7, look, &[&[0x5A; 300][..], &[0x90, 0]].concat());
        assert_eq!(bench.reply().unwrap().len(), 258);
        bench.power(action).unwrap();
        bench.power(PowerAction::Up).unwrap();
        bench.front.handle_transmit(&[0x00, 0xC0, 0x00, 0x00, 44], bench.now);
        assert_eq!(bench.reply(), Ok(vec![0x69, 0x85]), "{action:?}: nothing is left for the next program");
        bench.front.handle_transmit(&[0x10, 0x87, 0x11, 0x9A, 0x01, 0xAA], bench.now);
        assert_eq!(bench.reply(), Ok(vec![0x90, 0]));
        bench.power(action).unwrap();
        bench.power(PowerAction::Up).unwrap();
        bench.front.handle_transmit(&[0x00, 0x87, 0x11, 0x9A, 0x01, 0xBB, 0x00], bench.now);
        let sent = bench.sent();
        let [.., Body::Transmit(transmit)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!(transmit.command, [0x00, 0x87, 0x11, 0x9A, 0x01, 0xBB, 0x00], "{action:?}");
    }
}

#[test]
fn each_request_carries_the_epoch_that_was_announced_last() {
    let mut bench = Bench { front: Front::new(Config::default()), now: Timestamp::ZERO };
    let mut last = 0;
    for session in 1..4 {
        let open = bench.connect(session);
        assert!(open > last, "a new session is a new epoch, also of a card that nobody powered up");
        last = open;
    }
    bench.power(PowerAction::Up).unwrap();
    let (id, epoch) = bench.relay(&PIN);
    assert_eq!(epoch, last);
    bench.respond(3, (id, epoch), &[0x90, 0]);
    bench.reply().unwrap();
    bench.power(PowerAction::Reset).unwrap();
    let sent = bench.sent();
    let [Body::Reset(reset)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(bench.relay(&LOOK).1, reset.epoch);
}

#[test]
fn a_second_command_beside_the_first_gets_a_reply_and_nothing_else() {
    let mut bench = Bench::powered();
    let request = bench.relay(&LOOK);
    bench.front.handle_transmit(&PIN, bench.now);
    assert_eq!(bench.reply(), Err(Failure::NotPresent));
    assert!(bench.front.poll_output().is_none(), "the card has one command at a time");
    bench.respond(7, request, &[0x90, 0]);
    assert_eq!(bench.reply(), Ok(vec![0x90, 0]), "the first one is not disturbed");
}

#[test]
fn a_closed_link_leaves_nothing_to_end_in_the_next_session() {
    let mut bench = Bench::powered();
    let verify = bench.relay(&PIN);
    bench.respond(7, verify, &[0x90, 0]);
    bench.reply().unwrap();
    bench.front.handle_link_closed(bench.now);
    while bench.front.poll_output().is_some() {}
    bench.connect(8);
    bench.power(PowerAction::Up).unwrap();
    bench.power(PowerAction::Down).unwrap();
    assert!(bench.sent().is_empty(), "the PIN was verified in a session that is gone");
}

/// A reset and a command come while the phone is away: it hears of the first as the session goes on, then of the second.
#[test]
fn a_command_that_waited_for_its_phone_leaves_what_the_next_reset_ends() {
    let mut bench = Bench::powered();
    let verify = bench.relay(&PIN);
    bench.respond(7, verify, &[0x90, 0]);
    bench.reply().unwrap();
    bench.front.handle_link_down(bench.now);
    bench.power(PowerAction::Reset).unwrap();
    bench.front.handle_transmit(&PIN, bench.now);
    bench.front.handle_link_up(bench.now);
    assert!(matches!(&bench.sent()[..], [Body::Open(_)]));
    let mut resumed = opened(7, true);
    resumed.last_request_id = verify.0;
    bench.front.handle_envelope(resumed.into(), bench.now);
    let sent = bench.sent();
    let [Body::Transmit(waited)] = &sent[..] else { panic!("{sent:?}") };
    let waited = (waited.request_id, waited.epoch);
    bench.respond(7, waited, &[0x90, 0]);
    bench.reply().unwrap();
    bench.power(PowerAction::Down).unwrap();
    assert!(matches!(&bench.sent()[..], [Body::Reset(reset)] if reset.epoch > waited.1));
}

#[test]
fn what_is_shown_of_the_pin_ends_with_a_reset_and_with_the_session() {
    let mut bench = Bench::powered();
    let state = SecurityState { version: 5, pin_verified: true, pin_tries_left: 3, ..SecurityState::default() };
    bench.front.handle_envelope(state.into(), bench.now);
    assert_eq!(bench.front.security(), Security { pin_verified: true, pin_tries_left: Some(3) });
    bench.power(PowerAction::Reset).unwrap();
    assert_eq!(bench.front.security(), Security { pin_verified: false, pin_tries_left: Some(3) });
    let request = bench.relay(&LOOK);
    let response = messages::Response {
        session: 7,
        request_id: request.0,
        epoch: request.1,
        response: vec![0x63, 0xC2],
        security_version: 6,
        snapshot_digest: Vec::new(),
    };
    bench.front.handle_envelope(response.into(), bench.now);
    bench.reply().unwrap();
    assert_eq!(bench.front.security().pin_tries_left, None, "the response is ahead of what was announced");
    bench.front.handle_link_closed(bench.now);
    assert_eq!(bench.front.security(), Security::default());
}

#[test]
fn before_the_session_is_open_a_phone_may_only_open_it() {
    let early: [(Envelope, FrontError); 4] = [
        (card_state(true).into(), FrontError::OutOfOrder),
        (SecurityState::default().into(), FrontError::OutOfOrder),
        (messages::Pending { session: 0, request_id: 1, reason: 1 }.into(), FrontError::OutOfOrder),
        (messages::Unsupported::default().into(), FrontError::Unsupported),
    ];
    for (envelope, error) in early {
        let mut bench = Bench { front: Front::new(Config::default()), now: Timestamp::ZERO };
        bench.front.handle_link_up(bench.now);
        bench.sent();
        bench.front.handle_envelope(envelope, bench.now);
        assert_eq!(bench.closed(), error);
    }
    let mut bench = Bench::powered();
    bench.front.handle_envelope(messages::Unsupported::default().into(), bench.now);
    assert!(bench.front.poll_output().is_none(), "a reset or a cancel that an old phone does not know");
}

#[test]
fn ids_go_on_where_the_phone_says_that_the_session_stands() {
    let mut bench = Bench { front: Front::new(Config::default()), now: Timestamp::ZERO };
    bench.front.handle_link_up(bench.now);
    bench.sent();
    let mut opened = opened(7, false);
    opened.last_request_id = 41;
    bench.front.handle_envelope(opened.into(), bench.now);
    while bench.front.poll_output().is_some() {}
    bench.power(PowerAction::Up).unwrap();
    assert_eq!(bench.relay(&LOOK).0, 42);
}
