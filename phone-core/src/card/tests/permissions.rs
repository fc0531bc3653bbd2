//! What a host may not do is refused before anybody is asked and before a secret is compared, whenever the owner takes it back.

use std::collections::BTreeSet;
use std::time::Duration;

use pocketcard_protocol::messages::{self, Body, PinOperation, RefusalReason};
use proptest::prelude::*;

use super::*;
use crate::card::{Deed, piv::Slot};
use crate::traits::{ApprovalPurpose, StateStore as _};

const CHANGE_PIN: &str = "00240080 10 313233343536FFFF 363534333231FFFF";
const CHANGE_PUK: &str = "00240081 10 3132333435363738 3837363534333231";
const UNBLOCK: &str = "002C0080 10 3132333435363738 363534333231FFFF";

/// Everything that changes the card, by every command there is for it.
const ADMINISTRATION: [&str; 10] = [
    "00870A9B 04 7C028000 00",
    "00870A9B 14 7C128210 00000000000000000000000000000000",
    "00DB3FFF 0C 5C035FC105 53057003010203",
    "00DB3FFF 04 7E020102",
    "0047009A 05 AC03800111 00",
    "00F6949A",
    "00F6FF9A",
    "00FA0505",
    "00FB0000",
    "00FFFFFF 1B 0A9B18 010203040506070801020304050607080102030405060708",
];

fn without_key(slot: Slot) -> Permissions {
    let mut permissions = Permissions::new_host();
    permissions.keys.remove(&slot);
    permissions
}

#[track_caller]
fn refused(card: &mut TestBox, host: &TestHost, reason: RefusalReason, key: u32) {
    assert_eq!(host.refusals(card), [(reason, key)]);
}

fn stored(card: &TestBox) -> Vec<(String, Vec<u8>)> {
    card.store.load().unwrap().into_iter().map(|(name, value)| (name, value.to_vec())).collect()
}

/// What GET METADATA says to the owner about the tries of a secret.
fn tries(card: &mut TestBox, reference: &str) -> String {
    text(&card.local(&bytes(&format!("00F700{reference} 00"))))
}

#[test]
fn a_key_that_is_not_permitted_is_refused_before_anybody_is_asked() {
    let (mut card, mut host) = owned_card();
    card.permit(1, without_key(Slot::Authentication));
    assert_eq!(sign(&mut card, &mut host, "9A"), "6982");
    refused(&mut card, &host, RefusalReason::KeyNotPermitted, 0x9A);
    assert!(card.out.held.is_empty(), "nobody is asked");
    // The PIN is as fresh as it was: 9C asks for it each time.
    assert_eq!(ask(&mut card, &mut host, "9C"), "");
    decide(&mut card, ApprovalDecision::Approved);
    assert!(card.release());
    assert!(answer(&mut card, &host).ends_with("9000"));
    // Another host is not affected.
    let mut other = card.host(2);
    send(&mut card, &mut other, VERIFY);
    assert_eq!(ask(&mut card, &mut other, "9A"), "");
}

fn ask(card: &mut TestBox, host: &mut TestHost, slot: &str) -> String {
    send(card, host, &format!("008711{slot} 26 7C2482008120 {} 00", "AB".repeat(32)))
}

#[test]
fn a_typed_pin_that_is_not_permitted_is_not_compared_and_costs_no_try() {
    let (mut card, _) = owned_card();
    card.permit(3, Permissions { typed_pin: false, administer: true, ..Permissions::new_host() });
    let mut host = card.host(3);
    let before = (tries(&mut card, "80"), tries(&mut card, "81"));
    for (command, key) in [
        (VERIFY, 0x80),
        (VERIFY_WRONG, 0x80),
        ("00200080 08 0000000000000000", 0x80),
        (CHANGE_PIN, 0x80),
        (CHANGE_PUK, 0x81),
        (UNBLOCK, 0x81),
    ] {
        assert_eq!(send(&mut card, &mut host, command), "6982", "{command}");
        refused(&mut card, &host, RefusalReason::TypedPinNotPermitted, key);
    }
    assert_eq!((tries(&mut card, "80"), tries(&mut card, "81")), before);
    // To ask for the PIN's state and to give it up needs no PIN.
    table(&mut card, &mut host, &[(STATUS, "63C2"), ("0020FF80", "9000")]);
    // What the owner enters on the phone is not typed.
    host.enter_pin(&mut card, PinOperation::Verify, 0x80);
    type_in(&mut card, entered("123456"));
    assert_eq!(answer(&mut card, &host), "9000");
    table(&mut card, &mut host, &[(STATUS, "9000")]);
}

#[test]
fn a_host_that_may_not_administer_changes_nothing_by_any_command() {
    let (mut card, mut host) = owned_card();
    let before = stored(&card);
    for command in ADMINISTRATION {
        assert_eq!(send(&mut card, &mut host, command), "6982", "{command}");
        let refusals = host.refusals(&mut card);
        assert_eq!(refusals.len(), 1, "{command}");
        assert_eq!(refusals[0].0, RefusalReason::AdministrationNotPermitted, "{command}");
    }
    assert_eq!(send(&mut card, &mut host, UNBLOCK), "6982");
    refused(&mut card, &host, RefusalReason::AdministrationNotPermitted, 0x81);
    assert!(card.out.held.is_empty(), "nobody is asked");
    assert_eq!(stored(&card), before);
    // A challenge of the management key is a random number, and programs take it as one.
    assert!(send(&mut card, &mut host, "00870A9B 04 7C028100 00").ends_with("9000"));
    // With the permission it comes to the management key, which nobody knows.
    card.permit(1, Permissions { administer: true, ..Permissions::new_host() });
    assert_eq!(send(&mut card, &mut host, ADMINISTRATION[2]), "6982");
    assert_eq!(host.refusals(&mut card), []);
}

#[test]
fn what_the_owner_unblocks_on_the_phone_needs_no_permission_to_administer() {
    let (mut card, mut host) = owned_card();
    host.enter_pin(&mut card, PinOperation::Unblock, 0x80);
    type_in(&mut card, entered_new("12345678", "246810", "246810"));
    assert_eq!(answer(&mut card, &host), "9000");
}

#[test]
fn what_the_owner_is_entering_goes_on_whatever_is_taken_back() {
    for (operation, answered) in [
        (PinOperation::Verify, entered("123456")),
        (PinOperation::Change, entered_new("123456", "246810", "246810")),
        (PinOperation::Unblock, entered_new("12345678", "246810", "246810")),
    ] {
        let (mut card, mut host) = owned_card();
        host.enter_pin(&mut card, operation, 0x80);
        card.permit(1, Permissions { connect_unattended: true, ..Permissions::none() });
        type_in(&mut card, answered);
        assert_eq!(answer(&mut card, &host), "9000", "{operation:?}");
    }
}

#[test]
fn a_key_that_is_taken_back_ends_the_question_about_it_and_no_other() {
    for (taken, ends) in [(Slot::Authentication, true), (Slot::Signature, false)] {
        let (mut card, mut host) = owned_card();
        assert_eq!(ask(&mut card, &mut host, "9A"), "");
        let (operation, _) = card.out.held[0];
        card.permit(1, without_key(taken));
        if ends {
            assert_eq!(card.out.cancelled, [operation]);
            refused(&mut card, &host, RefusalReason::KeyNotPermitted, 0x9A);
            assert_eq!(answer(&mut card, &host), "6982");
            // The owner's yes comes too late.
            card.handle(Input::Completed { operation, result: EffectResult::Approval(ApprovalDecision::Approved) });
            assert!(card.out.held.is_empty());
        } else {
            decide(&mut card, ApprovalDecision::Approved);
            assert!(card.release());
            assert!(answer(&mut card, &host).ends_with("9000"));
        }
    }
}

#[test]
fn a_signature_that_is_being_made_does_not_leave_the_card_once_its_key_is_taken_back() {
    let (mut card, mut host) = owned_card();
    ask(&mut card, &mut host, "9A");
    decide(&mut card, ApprovalDecision::Approved);
    assert!(matches!(card.out.held[0].1, Effect::Sign { .. }));
    card.permit(1, without_key(Slot::Authentication));
    assert_eq!(answer(&mut card, &host), "6982");
    assert!(!card.release());
    // Given again, the key is confirmed again: the confirmation of before went with the permission.
    card.permit(1, Permissions::new_host());
    ask(&mut card, &mut host, "9A");
    assert!(matches!(card.out.held[0].1, Effect::Approve(_)));
    decide(&mut card, ApprovalDecision::Approved);
    assert!(card.release());
    assert!(answer(&mut card, &host).ends_with("9000"));
    // That of another key goes nowhere.
    card.permit(1, without_key(Slot::CardAuthentication));
    card.permit(1, Permissions::new_host());
    ask(&mut card, &mut host, "9A");
    assert!(matches!(card.out.held[0].1, Effect::Sign { .. }));
}

#[test]
fn a_pin_ends_with_the_permission_by_which_it_was_verified() {
    let untyped = || Permissions { typed_pin: false, ..Permissions::new_host() };
    let (mut card, mut host) = owned_card();
    table(&mut card, &mut host, &[(STATUS, "9000")]);
    card.permit(1, untyped());
    table(&mut card, &mut host, &[(STATUS, "63C2")]);
    // Entered on the phone it stays.
    host.enter_pin(&mut card, PinOperation::Verify, 0x80);
    type_in(&mut card, entered("123456"));
    answer(&mut card, &host);
    card.permit(1, Permissions::new_host());
    card.permit(1, untyped());
    table(&mut card, &mut host, &[(STATUS, "9000")]);
    // Typed once more, it is a typed one.
    card.permit(1, Permissions::new_host());
    table(&mut card, &mut host, &[(VERIFY, "9000")]);
    card.permit(1, untyped());
    table(&mut card, &mut host, &[(STATUS, "63C2")]);
}

#[test]
fn a_proven_management_key_ends_with_the_permission_to_administer() {
    let (mut card, mut host) = card_with_management();
    const PUT: &str = ADMINISTRATION[2];
    table(&mut card, &mut host, &[(PUT, "9000")]);
    card.permit(1, Permissions::new_host());
    table(&mut card, &mut host, &[(PUT, "6982")]);
    card.permit(1, Permissions::test_host());
    table(&mut card, &mut host, &[(PUT, "6982")]);
    prove_management(&mut card, &mut host);
    table(&mut card, &mut host, &[(PUT, "9000")]);
}

#[test]
fn a_key_that_is_being_made_is_destroyed_when_its_host_may_no_longer_administer() {
    let (mut card, mut host) = card_with_management();
    card.hold = true;
    assert_eq!(send(&mut card, &mut host, "0047009A 05 AC03800111 00"), "");
    card.permit(1, Permissions::new_host());
    assert_eq!(answer(&mut card, &host), "6982");
    refused(&mut card, &host, RefusalReason::AdministrationNotPermitted, 0x9A);
    assert_eq!(card.card.key_handles(), []);
}

#[test]
fn the_host_is_told_what_it_may_do_when_it_opens_and_at_every_change() {
    let (mut card, host) = owned_card();
    assert_eq!(host.permissions, Some(Permissions::new_host().to_message()));
    let given = Permissions { keys: BTreeSet::from([Slot::Signature, Slot::Authentication]), ..Permissions::none() };
    card.permit(1, given.clone());
    card.permit(1, given.clone());
    card.permit(2, Permissions::none());
    let told = |(_, envelope): &(_, messages::Envelope)| match &envelope.body {
        Some(Body::Permissions(permissions)) => Some(permissions.clone()),
        _ => None,
    };
    let messages: Vec<_> = card.out.sent.iter().filter_map(told).collect();
    let keys = vec![0x9A, 0x9C];
    let expected = messages::Permissions { typed_pin: false, administer: false, connect_unattended: false, keys };
    assert_eq!(messages, [expected]);
    // A host that is forgotten and paired again is a new one.
    card.handle(Input::HostForgotten(HostId::new([1; 32])));
    assert_eq!(card.host(1).permissions, Some(Permissions::new_host().to_message()));
    let mut test_card = TestBox::test_card();
    assert_eq!(test_card.host(1).permissions, Some(Permissions::test_host().to_message()));
}

fn attended() -> Permissions {
    Permissions { connect_unattended: false, ..Permissions::new_host() }
}

/// What a host is told of the card's presence.
fn presence(card: &mut TestBox, host: &TestHost) -> Vec<bool> {
    let mut told = Vec::new();
    card.out.sent.retain(|(link, envelope)| match &envelope.body {
        Some(Body::CardState(state)) if *link == host.link => {
            told.push(state.present);
            false
        }
        _ => true,
    });
    told
}

#[track_caller]
fn asks_to_connect(card: &TestBox) {
    let asked =
        matches!(&card.out.held[..], [(_, Effect::Approve(request))] if request.purpose == ApprovalPurpose::Connect);
    assert!(asked, "{:?}", card.out.held);
}

#[test]
fn a_host_that_may_not_connect_unattended_has_no_card_until_the_owner_confirms() {
    let (mut card, _) = owned_card();
    card.permit(2, attended());
    let mut host = card.host(2);
    assert!(!host.is_present);
    asks_to_connect(&card);
    // No try and no question, whatever it sends; nor anything to read.
    for command in [VERIFY_WRONG, STATUS, "00CB3FFF 05 5C035FC102 00", ADMINISTRATION[4]] {
        assert_eq!(send(&mut card, &mut host, command), "6985", "{command}");
    }
    assert_eq!(text(&host.enter_pin(&mut card, PinOperation::Verify, 0x80)), "6985");
    assert_eq!(card.out.held.len(), 1);
    decide(&mut card, ApprovalDecision::Approved);
    assert_eq!(presence(&mut card, &host), [true]);
    table(&mut card, &mut host, &[(STATUS, "63C2"), (VERIFY, "9000")]);
    // For this connection, and however often the link is lost in it.
    host.disconnect(&mut card);
    host.come_back(&mut card);
    assert!(host.resumed && host.is_present);
    card.handle(Input::LinkClosed { link: host.link });
    assert!(!card.host(2).is_present);
}

#[test]
fn a_host_that_is_refused_stays_without_a_card_until_it_comes_again_or_the_owner_allows() {
    for decision in [ApprovalDecision::Denied, ApprovalDecision::Unanswered] {
        let (mut card, _) = owned_card();
        card.permit(2, attended());
        let mut host = card.host(2);
        decide(&mut card, decision);
        refused(&mut card, &host, RefusalReason::ConnectionNotConfirmed, 0);
        assert_eq!(send(&mut card, &mut host, STATUS), "6985");
        host.disconnect(&mut card);
        host.come_back(&mut card);
        assert!(host.resumed && !host.is_present && card.out.held.is_empty(), "to come back is not to come again");
        card.handle(Input::ConnectionAllowed(HostId::new([2; 32])));
        assert_eq!(presence(&mut card, &host), [true]);
        table(&mut card, &mut host, &[(STATUS, "63C2")]);
        card.handle(Input::LinkClosed { link: host.link });
        assert!(!card.host(2).is_present);
        asks_to_connect(&card);
    }
}

#[test]
fn a_question_about_a_connection_ends_with_its_time_and_with_the_session() {
    let (mut card, _) = owned_card();
    card.permit(2, attended());
    let host = card.host(2);
    card.advance(Duration::from_secs(59));
    asks_to_connect(&card);
    card.advance(Duration::from_secs(1));
    assert!(card.out.held.is_empty());
    refused(&mut card, &host, RefusalReason::ConnectionNotConfirmed, 0);
    let again = card.host(2);
    asks_to_connect(&card);
    let (operation, _) = card.out.held[0];
    again.disconnect(&mut card);
    asks_to_connect(&card);
    card.advance(Duration::from_secs(6));
    assert!(card.out.held.is_empty() && card.out.cancelled.contains(&operation));
    card.handle(Input::Completed { operation, result: EffectResult::Approval(ApprovalDecision::Approved) });
    assert!(!card.host(2).is_present, "an answer that comes too late serves no other session");
}

#[test]
fn a_host_cannot_flood_its_owner_by_connecting() {
    let (mut card, _) = owned_card();
    card.permit(2, attended());
    for _ in 0..2 {
        let host = card.host(2);
        decide(&mut card, ApprovalDecision::Denied);
        card.handle(Input::LinkClosed { link: host.link });
    }
    let host = card.host(2);
    assert!(!host.is_present && card.out.held.is_empty());
    refused(&mut card, &host, RefusalReason::ConnectionNotConfirmed, 0);
    card.handle(Input::OwnerPresent);
    card.handle(Input::LinkClosed { link: host.link });
    card.host(2);
    asks_to_connect(&card);
}

#[test]
fn taking_back_and_giving_the_right_to_connect_unattended_holds_at_once() {
    let (mut card, mut host) = owned_card();
    card.permit(1, attended());
    assert_eq!(presence(&mut card, &host), [false]);
    asks_to_connect(&card);
    assert_eq!(send(&mut card, &mut host, STATUS), "6985");
    card.permit(1, Permissions::new_host());
    assert_eq!(presence(&mut card, &host), [true]);
    assert!(card.out.held.is_empty(), "the question is answered");
    table(&mut card, &mut host, &[(STATUS, "63C2")]);
    // A host that is away cannot be told: its session ends.
    host.disconnect(&mut card);
    card.permit(1, attended());
    host.come_back(&mut card);
    assert!(!host.resumed && !host.is_present);
}

#[test]
fn a_locked_card_stays_away_from_a_host_that_is_confirmed() {
    let (mut card, _) = owned_card();
    card.permit(2, attended());
    let host = card.host(2);
    card.handle(Input::LockCard);
    decide(&mut card, ApprovalDecision::Approved);
    assert_eq!(presence(&mut card, &host), [false, false]);
    card.handle(Input::UnlockCard);
    assert_eq!(presence(&mut card, &host), [true]);
}

/// What a host sends that tries everything.
fn commands() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<Vec<u8>> = [VERIFY, VERIFY_WRONG, STATUS, CHANGE_PIN, CHANGE_PUK, UNBLOCK]
        .into_iter()
        .chain(ADMINISTRATION)
        .chain(["0020FF80", "00A4040005A000000308", "00870A9B 04 7C028100 00", "00CB3FFF 05 5C035FC102 00"])
        .map(bytes)
        .collect();
    let header = (any::<u8>(), any::<u8>(), any::<u8>(), proptest::collection::vec(any::<u8>(), 0..24));
    let any_command = header.prop_map(|(ins, p1, p2, data)| {
        let length = u8::try_from(data.len()).unwrap();
        let body = if data.is_empty() { vec![] } else { [vec![length], data].concat() };
        [vec![0x00, ins, p1, p2], body].concat()
    });
    prop_oneof![6 => proptest::sample::select(known), 1 => any_command]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// By no sequence of commands does a new host administer, block PIN or PUK, or make the card new.
    #[test]
    fn a_new_host_leaves_the_card_to_its_owner(sequence in proptest::collection::vec(commands(), 1..40)) {
        let (mut card, mut host) = owned_card();
        // Everything that the owner could be asked is confirmed: nothing rests on that.
        card.hold = false;
        let keys = card.card.key_handles();
        let before = stored(&card);
        for command in &sequence {
            host.transmit(&mut card, command);
        }
        prop_assert_eq!(card.card.key_handles(), keys);
        for (name, value) in stored(&card) {
            let unchanged = before.iter().any(|(known, old)| *known == name && *old == value);
            prop_assert!(unchanged || name.starts_with("piv/pin") || name.starts_with("piv/puk"), "{}", name);
        }
        // The owner still has a try of each: unless the host knew the PUK or the PIN, they are what they were.
        for reference in ["80", "81"] {
            let metadata = tries(&mut card, reference);
            let left = bytes(&metadata);
            prop_assert!(left.len() > 4 && left[left.len() - 3] >= 1, "{}", metadata);
        }
        let deeds: Vec<Deed> = card.out.events.iter().filter_map(|event| match event {
            CardEvent::Command { caller, command, status, .. } if caller.host().is_some() && status.is_success() => {
                command.deed
            }
            _ => None,
        }).collect();
        prop_assert!(deeds.iter().all(|deed| !deed.administers()), "{:?}", deeds);
    }
}
