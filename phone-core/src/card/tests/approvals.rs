//! An approval is bound to host, key, operation, input, session, epoch and time.

use std::time::Duration;

use pocketcard_protocol::messages::{PendingReason, RefusalReason};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::card::OperationId;
use crate::card::prompts::REFUSAL_LASTS;
use crate::traits::{ApprovalPurpose, ApprovalRequest};

const INPUT: &str = "AB";

fn sign_command(slot: &str, input: &str) -> String {
    format!("008711{slot} 26 7C2482008120 {} 00", input.repeat(32))
}

fn agree_command(slot: &str, input: &str) -> String {
    format!("008711{slot} 47 7C4582008541 04{} 00", input.repeat(64))
}

/// A card with keys that ask each time in 9A and 9D, and two hosts that have verified the PIN.
fn asking_card() -> (TestBox, TestHost, TestHost) {
    let mut card = TestBox::test_card();
    for slot in ["9A", "9D"] {
        card.local(&bytes(&format!("004700{slot} 08 AC06800111AB0102 00")));
    }
    let mut hosts = [1, 2].map(|number| card.host(number));
    hosts.iter_mut().for_each(|host| assert_eq!(send(&mut card, host, VERIFY), "9000"));
    card.hold = true;
    let [first, second] = hosts;
    (card, first, second)
}

/// The questions that are put, each with what it is about.
fn questions(card: &TestBox) -> Vec<(OperationId, ApprovalRequest)> {
    let questions = card.out.held.iter().map(|(operation, effect)| match effect {
        Effect::Approve(request) => (*operation, request.clone()),
        other => panic!("{other:?}"),
    });
    questions.collect()
}

#[track_caller]
fn approve(card: &mut TestBox, operation: OperationId) {
    card.out.held.retain(|(held, _)| *held != operation);
    card.handle(Input::Completed { operation, result: EffectResult::Approval(ApprovalDecision::Approved) });
}

#[test]
fn a_question_says_who_which_key_what_for_and_on_what() {
    let (mut card, mut first, mut second) = asking_card();
    let rows = [
        (1, sign_command("9A", "AB"), 0x9A, ApprovalPurpose::Sign, vec![0xAB; 32]),
        (2, sign_command("9A", "AC"), 0x9A, ApprovalPurpose::Sign, vec![0xAC; 32]),
        (1, sign_command("9D", "AB"), 0x9D, ApprovalPurpose::Sign, vec![0xAB; 32]),
        (1, agree_command("9D", "AB"), 0x9D, ApprovalPurpose::Agree, [vec![4], vec![0xAB; 64]].concat()),
    ];
    for (number, command, key, purpose, input) in rows {
        let host = if number == 1 { &mut first } else { &mut second };
        assert_eq!(send(&mut card, host, &command), "");
        let [(operation, request)] = &questions(&card)[..] else { panic!("{:?}", card.out.held) };
        let input_digest = <[u8; 32]>::from(Sha256::digest(input));
        let host_name = format!("host {number}");
        let host = HostId::new([number; 32]);
        assert_eq!(*request, ApprovalRequest { host, host_name, key, purpose, input_digest });
        approve(&mut card, *operation);
        assert!(card.release(), "the key is used");
    }
}

/// What the first question was answered with never serves another one, whatever the two have in common.
#[test]
fn an_approval_serves_one_operation() {
    type Change = fn(&mut TestBox, &mut TestHost, &mut TestHost);
    let ended: [(&str, Change); 6] = [
        ("cancelled", |card, host, _| host.cancel(card)),
        ("another epoch", |card, host, _| {
            host.reset(card);
            send(card, host, VERIFY);
        }),
        ("another session", |card, host, _| {
            host.token = Vec::new();
            host.come_back(card);
            send(card, host, VERIFY);
        }),
        ("the session after the grace", |card, host, _| {
            host.disconnect(card);
            card.advance(Duration::from_secs(5));
            host.come_back(card);
            send(card, host, VERIFY);
        }),
        ("too late", |card, _, _| card.advance(Duration::from_secs(50))),
        ("the card was locked", |card, host, _| {
            card.handle(Input::LockCard);
            card.handle(Input::UnlockCard);
            host.epoch += 1;
            send(card, host, VERIFY);
        }),
    ];
    for (what, end) in ended {
        // The same again, and with another key, operation or input.
        let next = [
            sign_command("9A", INPUT),
            sign_command("9D", INPUT),
            agree_command("9A", INPUT),
            sign_command("9A", "AC"),
        ];
        for command in next {
            let (mut card, mut host, mut other) = asking_card();
            assert_eq!(send(&mut card, &mut host, &sign_command("9A", INPUT)), "");
            let (first, _) = questions(&card)[0];
            end(&mut card, &mut host, &mut other);
            assert_eq!(card.out.cancelled, [first], "{what}: the question goes away");
            assert!(card.out.held.is_empty());
            host.answer(&mut card);
            card.advance(REFUSAL_LASTS);
            assert_eq!(send(&mut card, &mut host, &command), "", "{what}");
            let (second, _) = questions(&card)[0];
            assert_ne!(first, second);
            approve(&mut card, first);
            assert_eq!(questions(&card).len(), 1, "{what}: a late approval is nobody's");
            assert!(host.answer(&mut card).is_none());
            card.complete(EffectResult::Approval(ApprovalDecision::Denied));
            assert_eq!(answer(&mut card, &host), "6982", "{what}");
            assert!(card.out.held.is_empty(), "{what}: no key was used");
        }
    }
}

#[test]
fn an_approval_serves_one_host() {
    let (mut card, mut first, mut second) = asking_card();
    // The same key, the same operation, the same input.
    for host in [&mut first, &mut second] {
        assert_eq!(send(&mut card, host, &sign_command("9A", INPUT)), "");
    }
    let asked = questions(&card);
    assert_eq!(asked.len(), 2);
    assert_ne!(asked[0].1.host, asked[1].1.host);
    approve(&mut card, asked[1].0);
    assert!(matches!(&card.out.held[1].1, Effect::Sign { .. }));
    card.out.held.swap(0, 1);
    assert!(card.release());
    assert!(first.answer(&mut card).is_none());
    assert!(answer(&mut card, &second).ends_with("9000"));
    decide(&mut card, ApprovalDecision::Denied);
    assert_eq!(answer(&mut card, &first), "6982");
    assert!(card.out.held.is_empty());
}

#[test]
fn an_approval_is_used_once_and_for_what_was_asked() {
    let (mut card, mut host, _) = asking_card();
    send(&mut card, &mut host, &sign_command("9A", INPUT));
    let (operation, _) = questions(&card)[0];
    approve(&mut card, operation);
    let Some((_, Effect::Sign { input, .. })) = card.out.held.first() else { panic!("{:?}", card.out.held) };
    assert_eq!(**input, [0xAB; 32]);
    // Given twice it is worth nothing more.
    card.handle(Input::Completed { operation, result: EffectResult::Approval(ApprovalDecision::Approved) });
    assert_eq!(card.out.held.len(), 1);
    card.release();
    assert!(answer(&mut card, &host).ends_with("9000"));
    send(&mut card, &mut host, &sign_command("9A", INPUT));
    assert_eq!(questions(&card).len(), 1, "asked again for the very same");
}

#[test]
fn a_question_is_kept_alive_and_ends_before_the_host_gives_up() {
    let (mut card, mut host, _) = asking_card();
    send(&mut card, &mut host, &sign_command("9A", INPUT));
    card.out.sent.clear();
    card.advance(Duration::from_millis(49_999));
    let is_pending = |envelope: &pocketcard_protocol::messages::Envelope| match &envelope.body {
        Some(pocketcard_protocol::messages::Body::Pending(pending)) => pending.reason() == PendingReason::Approval,
        _ => false,
    };
    assert_eq!(card.out.sent.iter().filter(|(_, envelope)| is_pending(envelope)).count(), 99);
    assert!(host.answer(&mut card).is_none());
    card.advance(Duration::from_millis(1));
    assert_eq!(host.refusals(&mut card), [(RefusalReason::Unanswered, 0x9A)]);
    assert_eq!(answer(&mut card, &host), "6985");
    // One that was given in the last moment still finds time to be used.
    card.advance(REFUSAL_LASTS);
    send(&mut card, &mut host, &sign_command("9A", INPUT));
    card.advance(Duration::from_millis(49_999));
    let (operation, _) = questions(&card)[0];
    approve(&mut card, operation);
    card.advance(Duration::from_millis(10_000));
    assert!(card.release());
    assert!(answer(&mut card, &host).ends_with("9000"));
}

#[test]
fn the_host_learns_why() {
    let (mut card, mut host, _) = asking_card();
    let rows = [
        (ApprovalDecision::Denied, "6982", RefusalReason::Denied),
        (ApprovalDecision::Unanswered, "6985", RefusalReason::Unanswered),
    ];
    for (decision, status, reason) in rows {
        send(&mut card, &mut host, &sign_command("9D", INPUT));
        card.out.sent.clear();
        decide(&mut card, decision);
        use pocketcard_protocol::messages::Body;
        let bodies: Vec<_> = card.out.sent.iter().filter_map(|(_, envelope)| envelope.body.as_ref()).collect();
        assert!(matches!(bodies[..], [.., Body::Refused(_), Body::Response(_)]), "before the response: {bodies:?}");
        assert_eq!(host.refusals(&mut card), [(reason, 0x9D)]);
        assert_eq!(answer(&mut card, &host), status);
        // A program that asks for the same again gets the same answer, and the owner is left alone.
        assert_eq!(send(&mut card, &mut host, &sign_command("9D", INPUT)), status);
        assert_eq!(host.refusals(&mut card), [(reason, 0x9D)]);
        card.advance(REFUSAL_LASTS);
    }
    // What was agreed to explains nothing, nor does a failure of the key store.
    send(&mut card, &mut host, &sign_command("9D", INPUT));
    decide(&mut card, ApprovalDecision::Approved);
    card.complete(EffectResult::Failed(crate::traits::KeyStoreError::Refused));
    assert_eq!(answer(&mut card, &host), "6985");
    assert_eq!(host.refusals(&mut card), []);
}
