//! The PIN that the owner enters on the phone.

use std::time::Duration;

use pocketcard_protocol::messages::{Body, PendingReason, PinOperation, RefusalReason};

use super::*;
use crate::card::ProbePoint;
use crate::traits::PinPurpose;

const VERIFY_ENTRY: (PinOperation, u32) = (PinOperation::Verify, 0x80);
const CHANGE_ENTRY: (PinOperation, u32) = (PinOperation::Change, 0x80);
const CHANGE_PUK: (PinOperation, u32) = (PinOperation::Change, 0x81);
const UNBLOCK: (PinOperation, u32) = (PinOperation::Unblock, 0x80);

fn holding() -> (TestBox, TestHost) {
    let mut card = TestBox::test_card();
    let host = card.host(1);
    card.hold = true;
    (card, host)
}

/// Asks, enters and gives the answer.
#[track_caller]
fn enter(card: &mut TestBox, host: &mut TestHost, entry: (PinOperation, u32), answered: PinAnswer) -> String {
    assert_eq!(text(&host.enter_pin(card, entry.0, entry.1)), "", "nobody was asked");
    type_in(card, answered);
    answer(card, host)
}

#[test]
fn what_no_card_has_is_refused_without_a_prompt() {
    let (mut card, mut host) = holding();
    for operation in [PinOperation::Unspecified, PinOperation::Verify, PinOperation::Change, PinOperation::Unblock] {
        for reference in 0..=0xFF {
            if [VERIFY_ENTRY, CHANGE_ENTRY, CHANGE_PUK, UNBLOCK].contains(&(operation, reference)) {
                continue;
            }
            assert_eq!(text(&host.enter_pin(&mut card, operation, reference)), "6A88", "{operation:?} {reference:02X}");
        }
    }
    assert!(card.out.held.is_empty() && host.refusals(&mut card).is_empty());
    // An application without a PIN.
    send(&mut card, &mut host, "00A4040008 A000000527471117");
    for (operation, reference) in [VERIFY_ENTRY, (PinOperation::Verify, 0)] {
        assert_eq!(text(&host.enter_pin(&mut card, operation, reference)), "6D00");
    }
    assert!(card.out.held.is_empty());
    send(&mut card, &mut host, "00A4040005 A000000308");
    card.handle(Input::LockCard);
    assert_eq!(text(&host.enter_pin(&mut card, VERIFY_ENTRY.0, VERIFY_ENTRY.1)), "6985");
    assert!(card.out.held.is_empty());
}

#[test]
fn every_outcome_has_its_status() {
    let (mut card, mut host) = holding();
    let rows: Vec<((PinOperation, u32), PinAnswer, &str, &str)> = vec![
        // What never gets as far as a comparison: three tries before, three after.
        (VERIFY_ENTRY, PinAnswer::Unanswered, "6400", "63C3"),
        (VERIFY_ENTRY, PinAnswer::Cancelled, "6401", "63C3"),
        (CHANGE_ENTRY, entered_new("123456", "246810", "246811"), "6402", "63C3"),
        (CHANGE_ENTRY, entered_new("1", "246810", "24681"), "6402", "63C3"),
        (VERIFY_ENTRY, entered("12345"), "6403", "63C3"),
        (VERIFY_ENTRY, entered("123456789"), "6403", "63C3"),
        (VERIFY_ENTRY, entered("12345６"), "6403", "63C3"),
        (CHANGE_ENTRY, entered_new("12345", "246810", "246810"), "6403", "63C3"),
        (CHANGE_ENTRY, entered_new("123456", "24681", "24681"), "6403", "63C3"),
        (CHANGE_ENTRY, entered("123456"), "6403", "63C3"),
        (CHANGE_PUK, entered_new("1234567", "87654321", "87654321"), "6403", "63C3"),
        (CHANGE_PUK, entered_new("12345678", "8765432", "8765432"), "6403", "63C3"),
        (UNBLOCK, entered_new("12345678", "24681x", "24681x"), "6403", "63C3"),
        // Wrong, then right.
        (VERIFY_ENTRY, entered("654321"), "63C2", "63C2"),
        (VERIFY_ENTRY, entered("123456"), "9000", "9000"),
        (VERIFY_ENTRY, entered("654321"), "63C2", "63C2"),
        (CHANGE_ENTRY, entered_new("654321", "246810", "246810"), "63C1", "63C1"),
        (CHANGE_ENTRY, entered_new("123456", "246810", "246810"), "9000", "9000"),
        (CHANGE_PUK, entered_new("00000000", "87654321", "87654321"), "63C2", "9000"),
        (CHANGE_PUK, entered_new("12345678", "87654321", "87654321"), "9000", "9000"),
        (UNBLOCK, entered_new("12345678", "13579135", "13579135"), "63C2", "63C3"),
        (UNBLOCK, entered_new("87654321", "13579135", "13579135"), "9000", "63C3"),
        (VERIFY_ENTRY, entered("13579135"), "9000", "9000"),
    ];
    for (row, (entry, answered, expected, status)) in rows.into_iter().enumerate() {
        assert_eq!(enter(&mut card, &mut host, entry, answered), expected, "row {row}");
        assert_eq!(send(&mut card, &mut host, STATUS), status, "row {row}");
        // Denials would add up.
        card.handle(Input::OwnerPresent);
    }
    assert_eq!(
        host.refusals(&mut card),
        [(RefusalReason::Unanswered, 0x80), (RefusalReason::Cancelled, 0x80)],
        "what a status word says by itself is not explained"
    );
    // The secrets that were chosen are those that commands ask for.
    table(
        &mut card,
        &mut host,
        &[("00200080 08 3133353739313335", "9000"), ("00240081 10 3837363534333231 3837363534333231", "9000")],
    );
}

#[test]
fn the_prompt_says_what_for_and_how_many_tries_are_left() {
    let (mut card, mut host) = holding();
    send(&mut card, &mut host, VERIFY_WRONG);
    for (entry, purpose, tries_left) in [
        (VERIFY_ENTRY, PinPurpose::Verify, 2),
        (CHANGE_ENTRY, PinPurpose::Change, 2),
        (CHANGE_PUK, PinPurpose::ChangePuk, 3),
        (UNBLOCK, PinPurpose::Unblock, 3),
    ] {
        assert_eq!(host.enter_pin(&mut card, entry.0, entry.1), []);
        let Some((_, Effect::EnterPin(request))) = card.out.held.first() else { panic!("nobody was asked") };
        assert_eq!((request.purpose, request.tries_left), (purpose, tries_left));
        assert_eq!((request.host, request.host_name.as_str()), (HostId::new([1; 32]), "host 1"));
        type_in(&mut card, PinAnswer::Unanswered);
    }
}

#[test]
fn a_try_is_durable_before_what_was_entered_is_compared() {
    let (mut card, mut host) = holding();
    card.probe.take();
    for (entry, answered) in [
        (VERIFY_ENTRY, entered("123456")),
        (CHANGE_ENTRY, entered_new("654321", "246810", "246810")),
        (UNBLOCK, entered_new("00000000", "246810", "246810")),
    ] {
        enter(&mut card, &mut host, entry, answered);
        let points = card.probe.take();
        let place = |point| points.iter().position(|passed| *passed == point).unwrap();
        assert!(place(ProbePoint::VerifyAfterCommit) < place(ProbePoint::VerifyCompared));
    }
    card.store.set_failing(true);
    assert_eq!(enter(&mut card, &mut host, VERIFY_ENTRY, entered("123456")), "6581");
    assert!(!card.probe.take().contains(&ProbePoint::VerifyCompared));
}

/// On an owner's card the last try is kept from hosts; on the phone itself it is there, whichever host asks.
#[test]
fn every_try_is_the_owners_on_the_phone() {
    let (mut card, mut host) = owned_card();
    let mut other = card.host(2);
    table(&mut card, &mut other, &[(VERIFY_WRONG, "63C1"), (VERIFY_WRONG, "63C0"), (VERIFY, "6983"), (STATUS, "6983")]);
    assert_eq!(other.refusals(&mut card), [(RefusalReason::LastTryKept, 0x80)]);
    assert_eq!(host.enter_pin(&mut card, VERIFY_ENTRY.0, VERIFY_ENTRY.1), []);
    assert!(matches!(&card.out.held[0].1, Effect::EnterPin(request) if request.tries_left == 1));
    type_in(&mut card, entered("123456"));
    assert_eq!(answer(&mut card, &host), "9000");
    table(&mut card, &mut other, &[(STATUS, "63C2")]);
    // Down to the very last.
    for expected in ["63C2", "63C1", "63C0"] {
        assert_eq!(enter(&mut card, &mut other, VERIFY_ENTRY, entered("999999")), expected);
    }
    assert_eq!(send(&mut card, &mut host, STATUS), "6983", "blocked for everybody");
    assert_eq!(text(&other.enter_pin(&mut card, VERIFY_ENTRY.0, VERIFY_ENTRY.1)), "6983");
    assert_eq!(text(&host.enter_pin(&mut card, CHANGE_ENTRY.0, CHANGE_ENTRY.1)), "6983");
    assert!(card.out.held.is_empty(), "there is nothing to be entered");
    assert_eq!(other.refusals(&mut card), [(RefusalReason::PinBlocked, 0x80)]);
    assert_eq!(enter(&mut card, &mut other, UNBLOCK, entered_new("12345678", "246810", "246810")), "9000");
    assert_eq!(enter(&mut card, &mut other, VERIFY_ENTRY, entered("246810")), "9000");
}

#[test]
fn nobody_enters_a_pin_that_was_never_chosen() {
    let mut card = TestBox::with(CardConfig::default(), TestStore::new());
    let mut host = card.host(1);
    card.hold = true;
    for (operation, reference) in [VERIFY_ENTRY, CHANGE_ENTRY, CHANGE_PUK, UNBLOCK] {
        assert_eq!(text(&host.enter_pin(&mut card, operation, reference)), "6983");
    }
    assert!(card.out.held.is_empty());
}

#[test]
fn an_entry_is_kept_alive_and_ends_in_time() {
    let (mut card, mut host) = holding();
    for (limit, lasts_ms) in [(0, 25_000), (60, 25_000), (3, 3_000)] {
        host.last_request += 1;
        host.send_pin_entry(&mut card, host.last_request, PinOperation::Verify, 0x80, limit);
        card.out.sent.clear();
        card.advance(Duration::from_millis(lasts_ms - 1));
        let pending = card.out.sent.iter().filter(|(_, envelope)| {
            matches!(&envelope.body, Some(Body::Pending(pending)) if pending.reason() == PendingReason::PinEntry)
        });
        assert_eq!(pending.count() as u64, (lasts_ms - 1) / 500);
        assert!(host.answer(&mut card).is_none() && card.out.cancelled.is_empty());
        let operation = card.out.held[0].0;
        card.advance(Duration::from_millis(1));
        assert_eq!(answer(&mut card, &host), "6400");
        assert_eq!(host.refusals(&mut card), [(RefusalReason::Unanswered, 0x80)]);
        assert_eq!(std::mem::take(&mut card.out.cancelled), [operation], "the prompt goes away");
        // Too late.
        card.handle(Input::Completed { operation, result: EffectResult::Pin(entered("123456")) });
        assert_eq!(send(&mut card, &mut host, STATUS), "63C3");
    }
}

#[test]
fn a_host_that_cancels_or_resets_gets_nothing_of_what_is_entered_later() {
    let (mut card, mut host) = holding();
    host.enter_pin(&mut card, VERIFY_ENTRY.0, VERIFY_ENTRY.1);
    let first = card.out.held[0].0;
    host.cancel(&mut card);
    assert_eq!(answer(&mut card, &host), "6401");
    host.enter_pin(&mut card, VERIFY_ENTRY.0, VERIFY_ENTRY.1);
    let second = card.out.held[0].0;
    host.reset(&mut card);
    assert_eq!(answer(&mut card, &host), "6F00");
    assert_eq!(card.out.cancelled, [first, second]);
    // The second prompt is up while the answer to the first comes in.
    host.enter_pin(&mut card, VERIFY_ENTRY.0, VERIFY_ENTRY.1);
    for operation in [first, second] {
        card.handle(Input::Completed { operation, result: EffectResult::Pin(entered("654321")) });
        assert!(host.answer(&mut card).is_none());
    }
    assert_eq!(card.out.held.len(), 1, "one prompt at a time");
    type_in(&mut card, PinAnswer::Unanswered);
    assert_eq!(answer(&mut card, &host), "6400");
    assert_eq!(send(&mut card, &mut host, STATUS), "63C3", "no try was spent");
}

#[test]
fn a_card_that_is_locked_while_its_owner_types_learns_nothing_of_it() {
    let (mut card, mut host) = holding();
    host.enter_pin(&mut card, VERIFY_ENTRY.0, VERIFY_ENTRY.1);
    let operation = card.out.held[0].0;
    card.handle(Input::LockCard);
    assert_eq!(card.out.cancelled, [operation], "the prompt goes away");
    assert_eq!(answer(&mut card, &host), "6F00");
    card.handle(Input::Completed { operation, result: EffectResult::Pin(entered("654321")) });
    card.handle(Input::UnlockCard);
    host.epoch += 1;
    assert_eq!(send(&mut card, &mut host, STATUS), "63C3", "no try was spent");
    // A host that waits for the owner's word has no card yet.
    card.permit(2, Permissions { connect_unattended: false, ..Permissions::test_host() });
    let mut waiting = card.host(2);
    assert_eq!(text(&waiting.enter_pin(&mut card, VERIFY_ENTRY.0, VERIFY_ENTRY.1)), "6985");
    assert!(card.out.held.iter().all(|(_, effect)| !matches!(effect, Effect::EnterPin(_))));
}

#[test]
fn what_the_owner_enters_while_the_link_is_lost_is_kept_for_the_host_that_comes_back() {
    let (mut card, mut host) = holding();
    host.enter_pin(&mut card, VERIFY_ENTRY.0, VERIFY_ENTRY.1);
    host.disconnect(&mut card);
    card.advance(Duration::from_secs(2));
    type_in(&mut card, entered("123456"));
    let last_request = host.last_request;
    host.come_back(&mut card);
    assert!(host.resumed && host.last_request == last_request);
    host.send_pin_entry(&mut card, last_request, PinOperation::Verify, 0x80, 0);
    assert_eq!(answer(&mut card, &host), "9000");
    assert!(card.out.held.is_empty(), "nobody is asked twice");
    assert_eq!(send(&mut card, &mut host, STATUS), "9000");
    // Still typing when the host is back: the answer comes there, once, and so does its reason.
    host.enter_pin(&mut card, VERIFY_ENTRY.0, VERIFY_ENTRY.1);
    host.disconnect(&mut card);
    host.come_back(&mut card);
    host.send_pin_entry(&mut card, host.last_request, PinOperation::Verify, 0x80, 0);
    assert_eq!(card.out.held.len(), 1);
    type_in(&mut card, PinAnswer::Cancelled);
    for _ in 0..2 {
        assert_eq!(host.refusals(&mut card), [(RefusalReason::Cancelled, 0x80)]);
        assert_eq!(answer(&mut card, &host), "6401");
        host.send_pin_entry(&mut card, host.last_request, PinOperation::Verify, 0x80, 0);
    }
    // After the grace nobody is there to whom it could be worth anything.
    host.enter_pin(&mut card, VERIFY_ENTRY.0, VERIFY_ENTRY.1);
    let operation = card.out.held[0].0;
    host.disconnect(&mut card);
    card.advance(Duration::from_secs(5));
    assert_eq!(card.out.cancelled, [operation]);
    card.handle(Input::Completed { operation, result: EffectResult::Pin(entered("123456")) });
    host.come_back(&mut card);
    assert!(!host.resumed);
    assert_eq!(send(&mut card, &mut host, STATUS), "63C3");
}

#[test]
fn requests_of_both_kinds_share_ids_and_epochs() {
    let (mut card, mut host) = holding();
    host.enter_pin(&mut card, VERIFY_ENTRY.0, VERIFY_ENTRY.1);
    // The same id while it runs is the same request, whatever it says.
    host.send(&mut card, host.last_request, &bytes(STATUS));
    assert!(host.answer(&mut card).is_none() && card.out.closed.is_empty());
    type_in(&mut card, entered("123456"));
    assert_eq!(answer(&mut card, &host), "9000");
    host.send(&mut card, host.last_request, &bytes(VERIFY_WRONG));
    assert_eq!(answer(&mut card, &host), "9000", "the stored result, and nothing is executed");
    // A higher epoch in the entry itself resets first.
    host.epoch += 1;
    assert_eq!(host.enter_pin(&mut card, VERIFY_ENTRY.0, VERIFY_ENTRY.1), []);
    type_in(&mut card, PinAnswer::Unanswered);
    host.answer(&mut card);
    assert_eq!(send(&mut card, &mut host, STATUS), "63C3");
    host.send_pin_entry(&mut card, host.last_request + 2, PinOperation::Verify, 0x80, 0);
    assert_eq!(card.out.closed.len(), 1, "an id that is neither the last nor the next");
    let (mut card, mut host) = holding();
    let other = card.host(2);
    host.session = other.session;
    assert_eq!(host.enter_pin(&mut card, VERIFY_ENTRY.0, VERIFY_ENTRY.1), []);
    assert_eq!(card.out.closed.len(), 1, "the session of another host");
    assert!(card.out.held.is_empty());
}

#[test]
fn a_pin_that_was_entered_is_worth_what_a_typed_one_is() {
    let (mut card, mut host) = card_with_keys();
    card.hold = true;
    // What a tool had begun goes on after it.
    let challenge = send(&mut card, &mut host, "00870A9B 04 7C028100 00");
    assert_eq!(enter(&mut card, &mut host, VERIFY_ENTRY, entered("123456")), "9000");
    let response = text(&aes192(&bytes(&challenge[8..40])));
    assert_eq!(send(&mut card, &mut host, &format!("00870A9B 14 7C128210{response}")), "9000");
    card.hold = false;
    assert_eq!(sign(&mut card, &mut host, "9C"), "9000", "fresh");
    assert_eq!(sign(&mut card, &mut host, "9C"), "6982");
    assert_eq!(sign(&mut card, &mut host, "9A"), "9000");
    let mut other = card.host(2);
    assert_eq!(send(&mut card, &mut other, STATUS), "63C3", "in this session only");
    table(&mut card, &mut host, &[("0020FF80", "9000"), (STATUS, "63C3")]);
    card.hold = true;
    enter(&mut card, &mut host, VERIFY_ENTRY, entered("123456"));
    card.handle(Input::LockCard);
    card.handle(Input::UnlockCard);
    assert_eq!(send(&mut card, &mut host, STATUS), "63C3");
}

#[test]
fn whoever_enters_a_pin_is_not_idle_and_idles_from_then_on() {
    let limit = Duration::from_secs(10);
    let config = CardConfig { test_card: true, idle_limit: Some(limit), ..CardConfig::default() };
    let mut card = TestBox::with(config, TestStore::new());
    let mut host = card.host(1);
    card.hold = true;
    send(&mut card, &mut host, VERIFY);
    host.enter_pin(&mut card, VERIFY_ENTRY.0, VERIFY_ENTRY.1);
    card.advance(Duration::from_secs(20));
    type_in(&mut card, entered("123456"));
    assert_eq!(answer(&mut card, &host), "9000");
    card.advance(limit - Duration::from_millis(1));
    assert!(card.card.poll_timeout().is_some());
    assert!(!security_was_lost(&mut card));
    card.advance(Duration::from_millis(1));
    assert!(security_was_lost(&mut card));
    assert_eq!(send(&mut card, &mut host, STATUS), "63C3");
}

fn security_was_lost(card: &mut TestBox) -> bool {
    let lost = |event: &CardEvent| matches!(event, CardEvent::SecurityChanged { pin_verified: false, .. });
    let events = std::mem::take(&mut card.out.events);
    events.iter().any(lost)
}

/// A card that was made new while its owner typed is not the one that was meant.
#[test]
fn what_is_entered_for_a_card_that_is_gone_opens_nothing() {
    let (mut card, mut host) = holding();
    host.enter_pin(&mut card, VERIFY_ENTRY.0, VERIFY_ENTRY.1);
    assert_eq!(text(&card.local(&bytes("00FB0000"))), "9000");
    type_in(&mut card, entered("123456"));
    assert_eq!(answer(&mut card, &host), "6985");
    assert_eq!(send(&mut card, &mut host, STATUS), "63C3");
    // A PIN that was changed meanwhile is compared as it is now.
    host.enter_pin(&mut card, VERIFY_ENTRY.0, VERIFY_ENTRY.1);
    assert_eq!(text(&card.local(&bytes("00240080 10 313233343536FFFF 36353433323130FF"))), "9000");
    type_in(&mut card, entered("123456"));
    assert_eq!(answer(&mut card, &host), "63C2");
}

#[test]
fn no_event_tells_what_was_entered() {
    let (mut card, mut host) = holding();
    enter(&mut card, &mut host, CHANGE_ENTRY, entered_new("123456", "24681357", "24681357"));
    enter(&mut card, &mut host, VERIFY_ENTRY, entered("99999999"));
    let shown = format!("{:?} {:?}", card.out.events, card.out.sent);
    assert!(shown.contains("PIN ENTRY") && shown.contains("change PIN"), "{shown}");
    for secret in ["123456", "24681357", "99999999", "3132333435"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
