//! A session whose link was lost: who may go on with it, until when, and what it has become meanwhile.

use std::time::Duration;

use pocketcard_protocol::messages::{Cancel, CloseReason};

use super::sessions::{SIGN, closed, told};
use super::*;
use crate::card::test_support::TestStore;
use crate::card::{CardConfig, CardEvent, HostId, Input, LinkId};

pub(super) fn graceful() -> (TestBox, TestHost) {
    with_grace(CardConfig::default().grace)
}

fn with_grace(grace: Duration) -> (TestBox, TestHost) {
    let config = CardConfig { test_card: true, grace, ..CardConfig::default() };
    let mut card = TestBox::with(config, TestStore::new());
    card.local(&bytes("0047009E 05 AC03800111 00"));
    let host = card.host(1);
    (card, host)
}

pub(super) fn reconnect(card: &mut TestBox, host: &mut TestHost, number: u64, token: Vec<u8>) {
    host.link = LinkId::new(number);
    card.handle(Input::LinkUp { link: host.link, host: HostId::new([1; 32]), host_name: "host 1".into() });
    host.open(card, token);
}

#[test]
fn without_grace_the_session_ends_with_its_link() {
    let (mut card, mut host) = with_grace(Duration::ZERO);
    host.transmit(&mut card, &bytes(VERIFY));
    card.hold = true;
    host.transmit(&mut card, &bytes(SIGN));
    let (token, session) = (host.token.clone(), host.session);
    card.out.sent.clear();
    host.disconnect(&mut card);
    assert_eq!(card.out.cancelled.len(), 1);
    assert!(card.out.sent.is_empty(), "nothing is sent into a dead link");
    let mut again = card.host(1);
    again.disconnect(&mut card);
    again = card.host(1);
    assert_ne!(again.session, session);
    assert_ne!(again.token, token);
    assert!(!again.resumed);
    assert_eq!(again.transmit(&mut card, &bytes(STATUS)), [0x63, 0xC3]);
    let link = LinkId::new(77);
    card.handle(Input::LinkUp { link, host: HostId::new([1; 32]), host_name: "host 1".into() });
    again.link = link;
    again.open(&mut card, token);
    assert!(!again.resumed, "no token of an ended session resumes");
}

#[test]
fn within_the_grace_the_host_with_the_token_goes_on_and_gets_the_answer_that_was_lost() {
    let (mut card, mut host) = graceful();
    host.transmit(&mut card, &bytes(VERIFY));
    card.hold = true;
    host.transmit(&mut card, &bytes(SIGN));
    let token = host.token.clone();
    host.disconnect(&mut card);
    assert!(card.out.cancelled.is_empty(), "the operation goes on");
    card.advance(Duration::from_secs(4));
    card.release();
    let session = host.session;
    reconnect(&mut card, &mut host, 50, token.clone());
    assert!(host.resumed);
    assert_eq!((host.session, host.last_request), (session, 2));
    assert_ne!(host.token, token, "the token is rotated");
    host.send(&mut card, 2, &bytes(SIGN));
    assert!(text(&host.answer(&mut card).unwrap()).ends_with("9000"));
    assert_eq!(host.transmit(&mut card, &bytes(STATUS)), [0x90, 0x00]);
    // The old token is worth nothing, even in the hands of the same host.
    host.disconnect(&mut card);
    reconnect(&mut card, &mut host, 51, token);
    assert!(!host.resumed);
    assert_eq!(host.transmit(&mut card, &bytes(STATUS)), [0x63, 0xC3]);
}

/// `Opened` may be lost with its link, and with it the new token.
#[test]
fn a_host_that_never_got_the_new_token_comes_back_with_the_one_before() {
    let (mut card, mut host) = graceful();
    host.transmit(&mut card, &bytes(VERIFY));
    let token = host.token.clone();
    let mut lost = Vec::new();
    for number in 50..54 {
        host.disconnect(&mut card);
        reconnect(&mut card, &mut host, number, token.clone());
        assert!(host.resumed);
        lost.push(host.token.clone());
    }
    // This time it arrives, and the host says so by using the session.
    assert_eq!(host.transmit(&mut card, &bytes(STATUS)), [0x90, 0x00]);
    lost.pop();
    for stale in lost.into_iter().chain([token]) {
        host.disconnect(&mut card);
        let current = host.token.clone();
        reconnect(&mut card, &mut host, 60, stale);
        assert!(!host.resumed, "and it ends the session, for whoever uses it is not the host of now");
        host.disconnect(&mut card);
        reconnect(&mut card, &mut host, 61, current);
        assert!(!host.resumed);
        host.transmit(&mut card, &bytes(STATUS));
    }
}

#[test]
fn a_reset_and_a_cancellation_show_the_new_token_as_well() {
    type Speak = fn(&mut TestBox, &mut TestHost);
    let speaks: [Speak; 2] = [
        |card, host| host.reset(card),
        |card, host| {
            let cancel = Cancel { session: host.session, request_id: 1 };
            card.handle(Input::Message { link: host.link, envelope: cancel.into() });
        },
    ];
    for speak in speaks {
        let (mut card, mut host) = graceful();
        let token = host.token.clone();
        host.disconnect(&mut card);
        reconnect(&mut card, &mut host, 50, token.clone());
        speak(&mut card, &mut host);
        host.disconnect(&mut card);
        reconnect(&mut card, &mut host, 51, token);
        assert!(!host.resumed);
    }
}

#[test]
fn after_the_grace_everything_is_forgotten() {
    // A phone may choose a shorter one, and no longer one.
    for (chosen, holds) in [(5, 5), (2, 2), (60, 5)] {
        let (mut card, mut host) = with_grace(Duration::from_secs(chosen));
        host.transmit(&mut card, &bytes(VERIFY));
        card.hold = true;
        host.transmit(&mut card, &bytes(SIGN));
        let operation = card.out.held[0].0;
        card.out.sent.clear();
        host.disconnect(&mut card);
        card.advance(Duration::from_secs(holds) - Duration::from_millis(1));
        assert!(card.out.cancelled.is_empty());
        card.advance(Duration::from_millis(1));
        assert_eq!(card.out.cancelled, [operation]);
        // What the key store finishes all the same is nobody's.
        let late = crate::card::EffectResult::Bytes(vec![1, 2, 3].into());
        card.handle(Input::Completed { operation, result: late });
        let token = host.token.clone();
        reconnect(&mut card, &mut host, 50, token);
        assert!(!host.resumed && host.last_request == 0);
        assert_eq!(host.answer(&mut card), None);
        assert_eq!(host.transmit(&mut card, &bytes(STATUS)), [0x63, 0xC3]);
        assert_eq!(card.out.sent.len(), 0, "{:?}", card.out.sent);
    }
}

#[test]
fn a_link_that_is_closed_on_purpose_takes_its_session_with_it() {
    let (mut card, mut host) = graceful();
    host.transmit(&mut card, &bytes(VERIFY));
    card.hold = true;
    host.transmit(&mut card, &bytes(SIGN));
    card.handle(Input::LinkClosed { link: host.link });
    assert_eq!(card.out.cancelled.len(), 1);
    let token = host.token.clone();
    reconnect(&mut card, &mut host, 50, token);
    assert!(!host.resumed);
    // So does a host that breaks the protocol.
    let token = host.token.clone();
    host.send(&mut card, host.last_request + 2, &bytes(STATUS));
    assert_eq!(closed(&card), [CloseReason::Protocol]);
    reconnect(&mut card, &mut host, 51, token);
    assert!(!host.resumed);
}

#[test]
fn a_card_that_is_locked_waits_for_nobody() {
    type Gap = fn(&mut TestBox, &TestHost);
    let gaps: [Gap; 2] = [
        |card, host| {
            host.disconnect(card);
            card.handle(Input::LockCard);
        },
        |card, host| {
            card.handle(Input::LockCard);
            host.disconnect(card);
        },
    ];
    for gap in gaps {
        let (mut card, mut host) = graceful();
        host.transmit(&mut card, &bytes(VERIFY));
        gap(&mut card, &host);
        assert!(card.out.events.contains(&CardEvent::SessionClosed { host: HostId::new([1; 32]) }));
        card.handle(Input::UnlockCard);
        let token = host.token.clone();
        reconnect(&mut card, &mut host, 50, token);
        assert!(!host.resumed, "its programs have to see a removal");
    }
}

/// The PIN is forgotten a quarter of an hour after the last command, also of a host whose link keeps getting lost.
#[test]
fn coming_back_is_no_use_of_a_session() {
    let (mut card, mut host) = graceful();
    host.transmit(&mut card, &bytes(VERIFY));
    for number in 50..65 {
        card.advance(Duration::from_secs(59));
        host.disconnect(&mut card);
        card.advance(Duration::from_secs(1));
        let token = host.token.clone();
        reconnect(&mut card, &mut host, number, token);
        assert!(host.resumed);
    }
    assert_eq!(host.transmit(&mut card, &bytes(STATUS)), [0x63, 0xC3]);
    // And if it ends while nobody is there, the host finds it so.
    host.transmit(&mut card, &bytes(VERIFY));
    card.advance(Duration::from_secs(15 * 60 - 2));
    host.disconnect(&mut card);
    card.advance(Duration::from_secs(4));
    let token = host.token.clone();
    reconnect(&mut card, &mut host, 70, token);
    assert!(host.resumed);
    assert_eq!(host.transmit(&mut card, &bytes(STATUS)), [0x63, 0xC3]);
    assert!(told(&mut card, host.link).is_empty(), "`Opened` has said it");
}

#[test]
fn a_session_goes_on_while_its_host_is_away_and_answers_once() {
    let (mut card, mut host) = graceful();
    host.transmit(&mut card, &bytes(VERIFY_WRONG));
    // The answer was lost: it comes again, and no try is spent again, however often the link is lost.
    for number in 50..53 {
        host.disconnect(&mut card);
        let token = host.token.clone();
        reconnect(&mut card, &mut host, number, token);
        host.send(&mut card, 1, &bytes(VERIFY_WRONG));
        assert_eq!(host.answer(&mut card), Some(vec![0x63, 0xC2]));
    }
    assert_eq!(host.transmit(&mut card, &bytes(STATUS)), [0x63, 0xC2]);
    // One that still runs is answered once, on the link of then.
    card.hold = true;
    host.transmit(&mut card, &bytes(VERIFY));
    host.transmit(&mut card, &bytes(SIGN));
    host.disconnect(&mut card);
    let token = host.token.clone();
    reconnect(&mut card, &mut host, 60, token);
    host.send(&mut card, host.last_request, &bytes(SIGN));
    assert_eq!((host.answer(&mut card), card.out.held.len()), (None, 1));
    card.release();
    assert!(host.answer(&mut card).is_some() && host.answer(&mut card).is_none());
}

#[test]
fn a_session_that_goes_on_with_a_higher_epoch_hears_of_nothing_before_it_is_open() {
    let (mut card, mut host) = graceful();
    card.hold = true;
    host.transmit(&mut card, &bytes(SIGN));
    host.disconnect(&mut card);
    card.out.sent.clear();
    host.epoch += 1;
    let token = host.token.clone();
    reconnect(&mut card, &mut host, 50, token);
    assert!(host.resumed);
    assert_eq!(card.out.cancelled.len(), 1, "the reset ended what ran");
    assert!(card.out.sent.is_empty(), "{:?}", card.out.sent);
}

#[test]
fn the_owner_hears_of_a_pin_that_a_resumption_has_ended() {
    let (mut card, mut host) = graceful();
    host.transmit(&mut card, &bytes(VERIFY));
    host.disconnect(&mut card);
    card.out.events.clear();
    host.epoch += 1;
    let token = host.token.clone();
    reconnect(&mut card, &mut host, 50, token);
    assert!(host.resumed);
    let ended = |event: &CardEvent| matches!(event, CardEvent::SecurityChanged { pin_verified: false, .. });
    assert_eq!(card.out.events.iter().filter(|event| ended(event)).count(), 1);
}
