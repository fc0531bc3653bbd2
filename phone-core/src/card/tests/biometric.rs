//! VERIFY 96: the owner's face or finger in place of the PIN. The bytes are those of `yubikit.piv`.

use std::time::Duration;

use pocketcard_protocol::messages::RefusalReason;

use super::*;
use crate::card::piv::PinPolicy;
use crate::traits::OwnerDecision;

const MATCH: &str = "00200096 02 0300";
const MATCH_FOR_PIN: &str = "00200096 02 0200";
const MATCH_STATUS: &str = "00200096";
const METADATA: &str = "00F70096 00";

/// A test card of a phone that knows its owner, with keys of the policies once (9A), match once (9D) and match always (9C).
fn biometric_card() -> (TestBox, TestHost) {
    let config = CardConfig { test_card: true, owner_verification: true, ..CardConfig::default() };
    let mut card = TestBox::with(config, TestStore::new());
    for (slot, policy) in [("9A", PinPolicy::Once), ("9D", PinPolicy::MatchOnce), ("9C", PinPolicy::MatchAlways)] {
        let command = format!("004700{slot} 08 AC06800111AA01{:02X} 00", policy.identifier());
        assert!(text(&card.local(&bytes(&command))).ends_with("9000"));
    }
    let host = card.host(1);
    (card, host)
}

#[track_caller]
fn look(card: &mut TestBox, host: &mut TestHost, command: &str, decision: OwnerDecision) -> String {
    card.hold = true;
    assert_eq!(send(card, host, command), "", "the owner was not asked");
    let Some((_, Effect::VerifyOwner(check))) = card.out.held.first() else { panic!("{:?}", card.out.held) };
    assert_eq!((check.host, check.host_name.as_str()), (HostId::new([1; 32]), "host 1"));
    card.complete(EffectResult::Owner(decision));
    card.hold = false;
    answer(card, host)
}

#[test]
fn a_phone_that_cannot_tell_its_owner_has_no_such_reference() {
    let (mut card, mut host) = card_with_management();
    for command in [MATCH, MATCH_FOR_PIN, MATCH_STATUS, METADATA, "0020FF96", "00200096 03 030000", "00200096 01 09"] {
        assert_eq!(send(&mut card, &mut host, command), "6A88", "{command}");
    }
    for policy in ["04", "05", "06"] {
        assert_eq!(send(&mut card, &mut host, &format!("0047009A 08 AC06800111AA01{policy} 00")), "6A80");
    }
    // Nor has one whose owner has no PIN yet.
    let config = CardConfig { owner_verification: true, ..CardConfig::default() };
    let mut card = TestBox::with(config, TestStore::new());
    let mut host = card.host(1);
    table(&mut card, &mut host, &[(MATCH, "6A88"), (METADATA, "6A88")]);
}

#[test]
fn forms_that_mean_nothing_are_refused_before_anybody_is_asked() {
    let (mut card, mut host) = biometric_card();
    card.hold = true;
    table(
        &mut card,
        &mut host,
        &[
            ("00200096 02 0301", "6A80"),
            ("00200096 03 030000", "6A80"),
            ("00200096 02 0100", "6A80"),
            ("00200096 11 010F 000000000000000000000000000000", "6A80"),
            ("0020FF96 02 0300", "6A80"),
            ("00200196 02 0300", "6A86"),
            ("00200097 02 0300", "6A88"),
        ],
    );
    assert!(card.out.held.is_empty());
}

#[test]
fn a_match_opens_the_keys_that_were_made_for_it_and_no_others() {
    let (mut card, mut host) = biometric_card();
    table(
        &mut card,
        &mut host,
        &[(MATCH_STATUS, "63C3"), (METADATA, "060103 070101 080100 9000"), ("00F7009D 00", "..9000"), (STATUS, "63C3")],
    );
    assert!(send(&mut card, &mut host, "00F7009D 00").starts_with("01011102020401"), "the policy is shown");
    for slot in ["9A", "9C", "9D"] {
        assert_eq!(sign(&mut card, &mut host, slot), "6982");
    }
    assert_eq!(look(&mut card, &mut host, MATCH, OwnerDecision::Matched), "9000");
    table(&mut card, &mut host, &[(MATCH_STATUS, "9000"), (STATUS, "63C3"), ("00CB3FFF 05 5C035FC109 00", "6982")]);
    assert_eq!(sign(&mut card, &mut host, "9A"), "6982", "made for the PIN alone");
    assert_eq!(sign(&mut card, &mut host, "9C"), "9000", "fresh");
    assert_eq!(sign(&mut card, &mut host, "9C"), "6982");
    assert_eq!(sign(&mut card, &mut host, "9D"), "9000");
    assert_eq!(sign(&mut card, &mut host, "9D"), "9000");
    let mut other = card.host(2);
    assert_eq!(send(&mut card, &mut other, MATCH_STATUS), "63C3", "in this session only");
    // The PIN is as good.
    table(&mut card, &mut other, &[(VERIFY, "9000")]);
    assert_eq!(sign(&mut card, &mut other, "9C"), "9000");
    assert_eq!(sign(&mut card, &mut other, "9C"), "6982");
    assert_eq!(sign(&mut card, &mut other, "9D"), "9000");
}

#[test]
fn a_temporary_pin_stands_for_a_match_until_one_is_wrong() {
    let (mut card, mut host) = biometric_card();
    let none = format!("00200096 12 0110 {}", "00".repeat(16));
    assert_eq!(send(&mut card, &mut host, &none), "63C0");
    let answered = look(&mut card, &mut host, MATCH_FOR_PIN, OwnerDecision::Matched);
    let pin = answered.strip_suffix("9000").unwrap();
    assert_eq!(pin.len(), 32);
    let verify = format!("00200096 12 0110 {pin}");
    for _ in 0..2 {
        assert_eq!(sign(&mut card, &mut host, "9C"), "9000");
        table(&mut card, &mut host, &[(METADATA, "060103 070101 080101 9000"), (&verify, "9000")]);
    }
    // It is the session's own.
    let mut other = card.host(2);
    table(&mut card, &mut other, &[(&verify, "63C0"), (METADATA, "060103 070101 080100 9000")]);
    let wrong = verify.replace(&pin[30..], if pin.ends_with('0') { "01" } else { "00" });
    table(&mut card, &mut host, &[(&wrong, "63C0"), (MATCH_STATUS, "63C3"), (&verify, "63C0")]);
    // Another one each time.
    let again = look(&mut card, &mut host, MATCH_FOR_PIN, OwnerDecision::Matched);
    assert_ne!(again, answered);
}

#[test]
fn after_three_mismatches_only_the_pin_helps() {
    let (mut card, mut host) = biometric_card();
    look(&mut card, &mut host, MATCH_FOR_PIN, OwnerDecision::Matched);
    for expected in ["63C2", "63C1", "63C0"] {
        assert_eq!(look(&mut card, &mut host, MATCH, OwnerDecision::NotMatched), expected);
        assert_eq!(sign(&mut card, &mut host, "9D"), "6982", "what was proven is gone");
    }
    let mut other = card.host(2);
    card.hold = true;
    for host in [&mut host, &mut other] {
        table(&mut card, host, &[(MATCH, "6983"), (MATCH_STATUS, "6983"), (METADATA, "060100 070101 080100 9000")]);
        assert_eq!(host.refusals(&mut card), [(RefusalReason::PinBlocked, 0x96)]);
    }
    assert!(card.out.held.is_empty(), "nobody is asked");
    table(&mut card, &mut other, &[(VERIFY_WRONG, "63C2"), (MATCH, "6983"), (VERIFY, "9000")]);
    assert_eq!(look(&mut card, &mut host, MATCH, OwnerDecision::NotMatched), "63C2");
    // So does a match, before it comes to that.
    look(&mut card, &mut host, MATCH, OwnerDecision::Matched);
    assert_eq!(look(&mut card, &mut host, MATCH, OwnerDecision::NotMatched), "63C2");
}

#[test]
fn an_owner_who_does_not_want_to_is_not_asked_for_ever() {
    let (mut card, mut host) = biometric_card();
    assert_eq!(look(&mut card, &mut host, MATCH, OwnerDecision::Unavailable), "6985");
    for _ in 0..2 {
        assert_eq!(look(&mut card, &mut host, MATCH, OwnerDecision::Cancelled), "6982");
    }
    assert_eq!(send(&mut card, &mut host, MATCH), "6985");
    let refusals =
        [RefusalReason::Unanswered, RefusalReason::Denied, RefusalReason::Denied, RefusalReason::TooManyDenials];
    assert_eq!(host.refusals(&mut card), refusals.map(|reason| (reason, 0x96)));
    table(&mut card, &mut host, &[(MATCH_STATUS, "63C3")]);
}

#[test]
fn a_match_ends_as_a_verified_pin_does() {
    type End = fn(&mut TestBox, &mut TestHost);
    let ends: [(&str, End); 7] = [
        ("logout", |card, host| assert_eq!(send(card, host, "0020FF96"), "9000")),
        ("reset", |card, host| host.reset(card)),
        ("another application", |card, host| {
            send(card, host, "00A4040008 A000000527471117");
            send(card, host, "00A4040005 A000000308");
        }),
        ("lock", |card, host| {
            card.handle(Input::LockCard);
            card.handle(Input::UnlockCard);
            host.epoch += 1;
        }),
        ("idle", |card, _| card.advance(Duration::from_secs(15 * 60))),
        ("another session", |card, host| {
            host.token = Vec::new();
            host.come_back(card);
        }),
        ("a new owner", |card, _| {
            card.handle(Input::Enrol { request: 9, pin: (*b"246810\xFF\xFF").into(), puk: (*b"12345678").into() });
        }),
    ];
    for (what, end) in ends {
        let (mut card, mut host) = biometric_card();
        let answered = look(&mut card, &mut host, MATCH_FOR_PIN, OwnerDecision::Matched);
        let temporary = format!("00200096 12 0110 {}", answered.strip_suffix("9000").unwrap());
        end(&mut card, &mut host);
        assert_eq!(send(&mut card, &mut host, MATCH_STATUS), "63C3", "{what}");
        assert_eq!(sign(&mut card, &mut host, "9D"), "6982", "{what}");
        // A logout alone leaves what stands for a match.
        let expected = if what == "logout" { "9000" } else { "63C0" };
        assert_eq!(send(&mut card, &mut host, &temporary), expected, "{what}");
    }
}

#[test]
fn a_phone_that_can_no_longer_tell_its_owner_still_has_the_pin() {
    let (card, _) = biometric_card();
    let config = CardConfig { test_card: true, ..CardConfig::default() };
    let mut again = TestBox::with(config, card.store.clone());
    again.keys = card.keys;
    let mut host = again.host(1);
    assert!(send(&mut again, &mut host, "00F7009C 00").starts_with("01011102020501"));
    assert_eq!(sign(&mut again, &mut host, "9C"), "6982");
    table(&mut again, &mut host, &[(MATCH, "6A88"), (VERIFY, "9000")]);
    assert_eq!(sign(&mut again, &mut host, "9C"), "9000");
    assert_eq!(sign(&mut again, &mut host, "9C"), "6982");
}

#[test]
fn a_late_match_is_nobodys() {
    let (mut card, mut host) = biometric_card();
    card.hold = true;
    send(&mut card, &mut host, MATCH);
    let operation = card.out.held[0].0;
    card.advance(Duration::from_secs(50));
    assert_eq!(answer(&mut card, &host), "6985");
    assert_eq!(card.out.cancelled, [operation]);
    card.handle(Input::Completed { operation, result: EffectResult::Owner(OwnerDecision::Matched) });
    assert_eq!(send(&mut card, &mut host, MATCH_STATUS), "63C3");
    // Nor is one for a card that was made new meanwhile.
    send(&mut card, &mut host, MATCH);
    card.local(&bytes("00FB0000"));
    card.complete(EffectResult::Owner(OwnerDecision::Matched));
    assert_eq!(answer(&mut card, &host), "6985");
    assert_eq!(send(&mut card, &mut host, MATCH_STATUS), "63C3");
}
