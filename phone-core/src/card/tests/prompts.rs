//! How often a host may have the owner asked.

use std::time::Duration;

use pocketcard_protocol::messages::{PinOperation, RefusalReason};

use super::*;
use crate::card::prompts::REFUSAL_LASTS;
use crate::card::prompts::UNANSWERED_PROMPTS;

/// A use of the key in 9C, which asks its owner each time and a PIN each time.
fn ask_for_key(card: &mut TestBox, host: &mut TestHost) -> String {
    send(card, host, VERIFY);
    send(card, host, "0087119C 08 7C0682008102ABCD 00")
}

fn ask_for_pin(card: &mut TestBox, host: &mut TestHost) -> String {
    text(&host.enter_pin(card, PinOperation::Verify, 0x80))
}

#[track_caller]
fn is_held(card: &mut TestBox, host: &mut TestHost) {
    assert_eq!(ask_for_key(card, host), "6985");
    assert_eq!(ask_for_pin(card, host), "6985");
    let reason = RefusalReason::TooManyDenials;
    assert_eq!(host.refusals(card), [(reason, 0x9C), (reason, 0x80)]);
    assert!(card.out.held.is_empty(), "nobody is asked");
}

#[track_caller]
fn may_ask(card: &mut TestBox, host: &mut TestHost) {
    assert_eq!(ask_for_key(card, host), "");
    decide(card, ApprovalDecision::Approved);
    assert!(card.release());
    assert!(answer(card, host).ends_with("9000"));
}

#[test]
fn two_denials_within_a_minute_silence_a_host_until_the_owner_comes() {
    // A denied approval, a cancelled PIN entry, one of each.
    for [first, second] in [[true, true], [false, false], [true, false], [false, true]] {
        let (mut card, mut host) = owned_card();
        let mut other = card.host(2);
        for (approval, seconds) in [(first, 59), (second, 0)] {
            if approval {
                ask_for_key(&mut card, &mut host);
                decide(&mut card, ApprovalDecision::Denied);
                assert_eq!(answer(&mut card, &host), "6982");
            } else {
                ask_for_pin(&mut card, &mut host);
                type_in(&mut card, PinAnswer::Cancelled);
                assert_eq!(answer(&mut card, &host), "6401");
            }
            card.advance(Duration::from_secs(seconds));
        }
        let event = CardEvent::PromptsHeld { host: HostId::new([1; 32]), held: true };
        assert_eq!(card.out.events.iter().filter(|told| **told == event).count(), 1);
        host.refusals(&mut card);
        is_held(&mut card, &mut host);
        may_ask(&mut card, &mut other);
        // Neither time, nor a reset, nor another session, nor the owner at another screen changes that.
        card.advance(Duration::from_secs(3600));
        is_held(&mut card, &mut host);
        host.reset(&mut card);
        is_held(&mut card, &mut host);
        host.token = Vec::new();
        host.come_back(&mut card);
        is_held(&mut card, &mut host);
        card.handle(Input::LockCard);
        card.handle(Input::UnlockCard);
        host.epoch += 1;
        is_held(&mut card, &mut host);
        // What asks nobody goes on.
        assert_eq!(send(&mut card, &mut host, VERIFY), "9000");
        card.handle(Input::OwnerPresent);
        assert!(card.out.events.contains(&CardEvent::PromptsHeld { host: HostId::new([1; 32]), held: false }));
        may_ask(&mut card, &mut host);
    }
}

#[test]
fn denials_that_are_a_minute_apart_silence_nobody() {
    let (mut card, mut host) = owned_card();
    for _ in 0..5 {
        ask_for_key(&mut card, &mut host);
        decide(&mut card, ApprovalDecision::Denied);
        host.answer(&mut card);
        card.advance(Duration::from_secs(60));
    }
    may_ask(&mut card, &mut host);
}

#[test]
fn a_host_that_floods_with_prompts_is_held_whatever_it_does_to_them() {
    type End = fn(&mut TestBox, &mut TestHost);
    let ends: [(&str, End); 4] = [
        ("cancel", |card, host| host.cancel(card)),
        ("reset", |card, host| host.reset(card)),
        ("session", |card, host| {
            host.token = Vec::new();
            host.come_back(card);
        }),
        ("link", |card, host| {
            host.disconnect(card);
            card.advance(Duration::from_secs(5));
            host.come_back(card);
        }),
    ];
    for (what, end) in ends {
        for ask in [ask_for_key, ask_for_pin] {
            let (mut card, mut host) = owned_card();
            let mut other = card.host(2);
            let started = card.now;
            let mut prompts = 0;
            for _ in 0..60 {
                let answered = ask(&mut card, &mut host);
                assert!(card.out.held.len() <= 1, "{what}: one prompt at a time");
                prompts += card.out.held.len();
                if answered.is_empty() {
                    end(&mut card, &mut host);
                    host.answer(&mut card);
                } else {
                    assert_eq!(answered, "6985", "{what}");
                }
            }
            assert!(card.now.saturating_since(started) < Duration::from_secs(60), "{what}");
            assert_eq!(prompts, UNANSWERED_PROMPTS, "{what}");
            may_ask(&mut card, &mut other);
            // It is not held for ever: the owner has denied nothing.
            card.advance(Duration::from_secs(60));
            may_ask(&mut card, &mut host);
        }
    }
}

#[test]
fn what_the_owner_answers_is_not_counted() {
    let (mut card, mut host) = owned_card();
    for _ in 0..3 * UNANSWERED_PROMPTS {
        may_ask(&mut card, &mut host);
    }
    // Wrong PINs are counted by their tries.
    for expected in ["63C2", "63C1"] {
        ask_for_pin(&mut card, &mut host);
        type_in(&mut card, entered("999999"));
        assert_eq!(answer(&mut card, &host), expected);
    }
    ask_for_pin(&mut card, &mut host);
    type_in(&mut card, entered("123456"));
    assert_eq!(answer(&mut card, &host), "9000");
    may_ask(&mut card, &mut host);
}

#[test]
fn a_host_that_was_forgotten_and_paired_again_begins_anew() {
    let (mut card, mut host) = owned_card();
    for _ in 0..2 {
        ask_for_key(&mut card, &mut host);
        decide(&mut card, ApprovalDecision::Denied);
        host.answer(&mut card);
        card.advance(REFUSAL_LASTS);
    }
    host.refusals(&mut card);
    is_held(&mut card, &mut host);
    card.handle(Input::HostForgotten(HostId::new([1; 32])));
    assert!(card.out.events.contains(&CardEvent::PromptsHeld { host: HostId::new([1; 32]), held: false }));
    host.come_back(&mut card);
    may_ask(&mut card, &mut host);
}
