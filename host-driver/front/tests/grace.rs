//! A link that is lost and comes back, or does not: what programs see of it, and what the phone is sent.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use pocketcard_front::{Config, Failure, Front, FrontError, Output, PowerAction, Presence, Security};
use pocketcard_protocol::Timestamp;
use pocketcard_protocol::messages::{Body, CardState, Open, Opened, Reset, SecurityState};

use support::{ATR, Bench, LOOK, PIN, card_state, opened, seconds};

impl Bench {
    /// The link is lost; nobody notices.
    fn lose(&mut self) {
        let presence = self.front.presence();
        self.front.handle_link_down(self.now);
        assert!(self.front.poll_output().is_none(), "nothing is said while the card waits");
        assert_eq!(self.front.presence(), presence);
    }

    /// A link is up again; gives what the phone is asked.
    fn come_back(&mut self) -> Open {
        self.front.handle_link_up(self.now);
        let mut sent = self.sent();
        let Some(Body::Open(open)) = sent.pop() else { panic!("{sent:?}") };
        assert!(sent.is_empty());
        open
    }

    /// The phone goes on with the session, and gives what it is sent.
    fn go_on(&mut self, last_request_id: u64) -> Vec<Body> {
        let opened = but(opened(7, true), |opened| {
            opened.last_request_id = last_request_id;
            opened.token = vec![2; 32];
        });
        self.front.handle_envelope(opened.into(), self.now);
        self.sent()
    }

    fn nothing_more(&mut self) {
        let output = self.front.poll_output();
        assert!(output.is_none(), "{output:?}");
    }

    fn card_left(&mut self) {
        let output = self.front.poll_output();
        assert!(matches!(output, Some(Output::Presence(Presence { atr: None, .. }))), "{output:?}");
    }
}

/// An answer of the phone, changed.
fn but(resumed: Opened, change: impl FnOnce(&mut Opened)) -> Opened {
    let mut opened = resumed;
    change(&mut opened);
    opened
}

fn id_of(sent: &[Body]) -> u64 {
    let [Body::Transmit(transmit)] = sent else { panic!("{sent:?}") };
    transmit.request_id
}

#[test]
fn a_command_under_way_is_repeated_with_its_id_and_answered() {
    // The phone has it, or never got it.
    for last_request_id in [1, 0] {
        let mut bench = Bench::powered();
        let request = bench.relay(&PIN);
        bench.lose();
        bench.now = seconds(4);
        let open = bench.come_back();
        assert_eq!((&open.resume_token[..], open.epoch), (&[1; 32][..], request.1), "nothing was reset");
        let sent = bench.go_on(last_request_id);
        let [Body::Transmit(transmit)] = &sent[..] else { panic!("{sent:?}") };
        let repeated = (transmit.request_id, transmit.epoch);
        assert_eq!((transmit.session, repeated, &transmit.command[..]), (7, request, &PIN[..]));
        bench.respond(7, request, &[0x90, 0]);
        assert_eq!(bench.reply(), Ok(vec![0x90, 0]));
        // It may have answered before it was asked again: then it does so twice.
        bench.respond(7, request, &[0x90, 0]);
        bench.nothing_more();
        assert!(bench.front.is_powered());
        assert_eq!(bench.relay(&LOOK).0, 2);
    }
}

#[test]
fn each_new_token_replaces_the_one_before() {
    let mut bench = Bench::powered();
    bench.lose();
    assert_eq!(bench.come_back().resume_token, [1; 32]);
    // It did not come through, so the old one is still the one to use.
    bench.lose();
    assert_eq!(bench.come_back().resume_token, [1; 32]);
    assert!(bench.go_on(0).is_empty());
    bench.lose();
    assert_eq!(bench.come_back().resume_token, [2; 32]);
}

#[test]
fn a_command_that_comes_meanwhile_waits_for_the_link() {
    for before in [false, true] {
        let mut bench = Bench::powered();
        if before {
            let look = bench.relay(&LOOK);
            bench.respond(7, look, &[0x90, 0]);
            bench.reply().unwrap();
        }
        bench.lose();
        bench.front.handle_transmit(&PIN, bench.now);
        bench.nothing_more();
        bench.front.handle_transmit(&LOOK, bench.now);
        assert_eq!(bench.reply(), Err(Failure::NotPresent), "one command at a time");
        bench.come_back();
        bench.nothing_more();
        let sent = bench.go_on(u64::from(before));
        assert_eq!(id_of(&sent), 1 + u64::from(before));
        bench.lose();
        bench.come_back();
        assert_eq!(id_of(&bench.go_on(u64::from(before))), 1 + u64::from(before), "it was lost again");
        let Body::Transmit(transmit) = &sent[0] else { panic!() };
        bench.respond(7, (transmit.request_id, transmit.epoch), &[0x90, 0]);
        assert_eq!(bench.reply(), Ok(vec![0x90, 0]));
    }
}

#[test]
fn what_needs_no_phone_is_answered_without_one() {
    let mut bench = Bench::powered();
    let look = bench.relay(&LOOK);
    bench.respond(7, look, &[&[0x5A; 300][..], &[0x90, 0]].concat());
    assert_eq!(bench.reply().unwrap().len(), 258);
    bench.lose();
    bench.front.handle_transmit(&[0x00, 0xC0, 0x00, 0x00, 44], bench.now);
    assert_eq!(bench.reply().unwrap().len(), 46, "the rest of an answer");
    bench.front.handle_transmit(&[0x10, 0x87, 0x11, 0x9A, 0x01, 0xAA], bench.now);
    assert_eq!(bench.reply(), Ok(vec![0x90, 0]), "a part of a chain");
    assert_eq!(bench.power(PowerAction::Reset), Ok(ATR.to_vec()));
    assert_eq!(bench.power(PowerAction::Down), Ok(vec![]));
    assert_eq!(bench.power(PowerAction::Up), Ok(ATR.to_vec()));
    bench.nothing_more();
}

#[test]
fn a_reset_meanwhile_ends_what_runs_and_goes_with_the_opening() {
    let resets: [fn(&mut Bench); 3] = [
        |bench| drop(bench.power(PowerAction::Reset).unwrap()),
        |bench| drop(bench.power(PowerAction::Down).unwrap()),
        |bench| bench.front.handle_driver_gone(bench.now),
    ];
    for reset in resets {
        let mut bench = Bench::powered();
        let request = bench.relay(&PIN);
        bench.lose();
        reset(&mut bench);
        assert_eq!(bench.reply(), Err(Failure::NotPresent), "at once, link or not");
        bench.nothing_more();
        bench.power(PowerAction::Up).unwrap();
        let open = bench.come_back();
        assert!(open.epoch > request.1);
        assert!(bench.go_on(1).is_empty(), "nothing is repeated, and the opening said it all");
        bench.respond(7, request, &[0x90, 0]);
        bench.nothing_more();
        let next = bench.relay(&LOOK);
        assert_eq!(next, (2, open.epoch));
        bench.respond(7, next, &[0x90, 0]);
        bench.reply().unwrap();
        bench.power(PowerAction::Reset).unwrap();
        bench.nothing_more();
    }
}

#[test]
fn a_reset_while_the_phone_is_asked_follows_its_answer() {
    for meanwhile in [false, true] {
        let mut bench = Bench::powered();
        let request = bench.relay(&PIN);
        bench.lose();
        let open = bench.come_back();
        bench.power(PowerAction::Reset).unwrap();
        assert_eq!(bench.reply(), Err(Failure::NotPresent));
        if meanwhile {
            bench.front.handle_transmit(&LOOK, bench.now);
        }
        bench.nothing_more();
        // It does not know of the reset: what it says of the PIN is of before.
        let security_state =
            Some(SecurityState { version: 5, pin_verified: true, epoch: open.epoch, ..SecurityState::default() });
        let opened = but(opened(7, true), |opened| {
            opened.last_request_id = 1;
            opened.security_state = security_state;
        });
        bench.front.handle_envelope(opened.into(), bench.now);
        assert!(!bench.front.security().pin_verified);
        let sent = bench.sent();
        let (Some(Body::Reset(Reset { session: 7, epoch })), after) = (sent.first(), &sent[1..]) else {
            panic!("{sent:?}")
        };
        assert!(*epoch > open.epoch && open.epoch == request.1);
        match after {
            [] => assert!(!meanwhile),
            after => assert_eq!(id_of(after), 2),
        }
    }
}

#[test]
fn after_the_grace_the_card_is_gone_and_comes_back_as_another() {
    let mut bench = Bench::powered();
    let first = bench.front.presence().generation;
    let request = bench.relay(&PIN);
    bench.lose();
    assert_eq!(bench.front.poll_timeout(), Some(seconds(5)));
    bench.front.handle_timeout(seconds(5).minus_a_bit());
    bench.nothing_more();
    bench.now = seconds(5);
    bench.front.handle_timeout(bench.now);
    assert_eq!(bench.reply(), Err(Failure::NotPresent));
    bench.card_left();
    bench.nothing_more();
    assert_eq!(bench.front.poll_timeout(), None);
    assert_eq!(bench.front.security(), Security::default());
    let open = bench.come_back();
    assert!(open.resume_token.is_empty() && open.epoch > request.1);
    bench.front.handle_envelope(opened(8, false).into(), bench.now);
    let output = bench.front.poll_output();
    assert!(matches!(output, Some(Output::Presence(Presence { generation, atr: Some(_) })) if generation > first));
    bench.nothing_more();
    assert!(!bench.front.is_powered());
}

/// Each way back that fails makes the wait no longer.
#[test]
fn the_grace_begins_when_the_session_was_last_on_a_link() {
    let mut bench = Bench::powered();
    bench.relay(&PIN);
    bench.lose();
    for second in 1..5 {
        bench.now = seconds(second);
        bench.come_back();
        bench.lose();
        assert_eq!(bench.front.poll_timeout(), Some(seconds(5)), "{second}");
    }
    bench.come_back();
    bench.go_on(1);
    bench.lose();
    assert_eq!(bench.front.poll_timeout(), Some(seconds(9)));
}

/// The grace ends between the question and the answer: the phone has the session, programs have lost it.
#[test]
fn a_phone_that_comes_back_too_late_brings_another_card_without_state() {
    // What leaves nothing on the card still has to be stopped.
    for command in [&PIN[..], &LOOK[..]] {
        let mut bench = Bench::powered();
        let first = bench.front.presence().generation;
        bench.relay(command);
        bench.lose();
        bench.now = seconds(4);
        let open = bench.come_back();
        bench.now = seconds(5);
        bench.front.handle_timeout(bench.now);
        assert_eq!(bench.reply(), Err(Failure::NotPresent));
        bench.card_left();
        bench.nothing_more();
        let late = but(opened(7, true), |opened| opened.last_request_id = 1);
        bench.front.handle_envelope(late.into(), bench.now);
        let output = bench.front.poll_output();
        assert!(matches!(output, Some(Output::Presence(Presence { generation, atr: Some(_) })) if generation > first));
        let sent = bench.sent();
        assert!(matches!(&sent[..], [Body::Reset(reset)] if reset.epoch > open.epoch), "{sent:?}");
        assert!(!bench.front.is_powered());
        bench.power(PowerAction::Up).unwrap();
        assert_eq!(bench.relay(&LOOK).0, 2);
    }
}

/// Restarted, or its own grace was shorter.
#[test]
fn a_phone_that_has_forgotten_the_session_is_a_removal_and_an_insertion() {
    let mut bench = Bench::powered();
    let first = bench.front.presence().generation;
    bench.relay(&PIN);
    bench.lose();
    bench.come_back();
    bench.front.handle_envelope(opened(1, false).into(), bench.now);
    assert_eq!(bench.reply(), Err(Failure::NotPresent));
    bench.card_left();
    let output = bench.front.poll_output();
    assert!(matches!(output, Some(Output::Presence(Presence { generation, atr: Some(_) })) if generation == first + 1));
    bench.nothing_more();
    bench.front.handle_transmit(&LOOK, bench.now);
    assert_eq!(bench.reply(), Err(Failure::NotPresent), "it has no power yet");
    bench.power(PowerAction::Up).unwrap();
    assert_eq!(bench.relay(&LOOK).0, 1);
    assert_eq!(bench.front.poll_timeout(), Some(seconds(55)));
}

#[test]
fn nobody_waits_for_a_phone_that_is_certain_to_be_gone() {
    let gaps: [fn(&mut Bench); 3] = [
        |_| {},
        Bench::lose,
        |bench| {
            bench.lose();
            bench.come_back();
        },
    ];
    for gap in gaps {
        let mut bench = Bench::powered();
        bench.relay(&PIN);
        gap(&mut bench);
        bench.front.handle_link_closed(bench.now);
        assert_eq!(bench.reply(), Err(Failure::NotPresent));
        bench.card_left();
        bench.nothing_more();
        assert!(bench.come_back().resume_token.is_empty());
    }
}

#[test]
fn a_card_that_its_owner_locked_does_not_wait() {
    let mut bench = Bench::powered();
    bench.front.handle_envelope(card_state(false).into(), bench.now);
    while bench.front.poll_output().is_some() {}
    bench.lose();
    assert_eq!(bench.front.poll_timeout(), None);
    assert!(bench.come_back().resume_token.is_empty());
}

#[test]
fn without_a_grace_or_a_token_the_card_goes_with_its_link() {
    let config = Config { grace: Duration::ZERO, ..Config::default() };
    for (config, token) in [(config, vec![1; 32]), (Config::default(), Vec::new())] {
        let mut bench = Bench { front: Front::new(config), now: Timestamp::ZERO };
        bench.come_back();
        let opened = but(opened(7, false), |opened| opened.token = token);
        bench.front.handle_envelope(opened.into(), bench.now);
        assert!(matches!(bench.front.poll_output(), Some(Output::Presence(_))));
        bench.front.handle_link_down(bench.now);
        bench.front.handle_timeout(bench.now);
        bench.card_left();
        assert!(bench.come_back().resume_token.is_empty());
    }
}

#[test]
fn a_command_that_takes_too_long_ends_also_while_the_link_is_away() {
    let mut bench = Bench::powered();
    let request = bench.relay(&PIN);
    bench.now = seconds(53);
    bench.lose();
    bench.now = seconds(55);
    bench.front.handle_timeout(bench.now);
    assert_eq!(bench.reply(), Err(Failure::TimedOut));
    bench.nothing_more();
    let open = bench.come_back();
    assert!(open.epoch > request.1, "which cancels it on the card");
    assert!(bench.go_on(1).is_empty());
}

#[test]
fn what_is_known_of_the_pin_is_what_the_phone_says_when_it_comes_back() {
    let mut bench = Bench::powered();
    let verified = |version, pin_verified| SecurityState {
        version,
        pin_verified,
        pin_tries_left: 3,
        epoch: 0,
        ..SecurityState::default()
    };
    bench.front.handle_envelope(verified(5, true).into(), bench.now);
    bench.lose();
    assert!(bench.front.security().pin_verified);
    bench.come_back();
    let opened = but(opened(7, true), |opened| opened.security_state = Some(verified(6, false)));
    bench.front.handle_envelope(opened.into(), bench.now);
    assert!(!bench.front.security().pin_verified);
}

#[test]
fn a_phone_that_goes_on_with_something_else_loses_its_link_and_its_card() {
    let bare = CardState { atr: Vec::new(), ..card_state(true) };
    let breaches: [(Opened, FrontError); 3] = [
        (opened(6, true), FrontError::Resumed),
        // It has got more than was sent.
        (but(opened(7, true), |opened| opened.last_request_id = 2), FrontError::UnknownRequest),
        (but(opened(7, true), |opened| opened.card_state = Some(bare)), FrontError::Malformed),
    ];
    for (opened, error) in breaches {
        let mut bench = Bench::powered();
        bench.relay(&PIN);
        bench.lose();
        bench.come_back();
        bench.front.handle_envelope(opened.into(), bench.now);
        assert_eq!(bench.reply(), Err(Failure::NotPresent));
        assert_eq!(bench.closed(), error);
        assert_eq!(bench.front.presence().atr, None);
        assert!(bench.come_back().resume_token.is_empty());
    }
}

trait MinusABit {
    fn minus_a_bit(self) -> Self;
}

impl MinusABit for Timestamp {
    fn minus_a_bit(self) -> Self {
        Self::from_origin(self.saturating_since(Self::ZERO) - Duration::from_millis(1))
    }
}
