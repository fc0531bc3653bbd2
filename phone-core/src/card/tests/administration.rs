use super::*;
use crate::card::test_support::TestStore;
use crate::card::{CardConfig, Effect, EffectResult, Input};
use crate::traits::{ApprovalDecision, ApprovalPurpose};

const PUT: &str = "00DB3FFF 09 5C035FFF00 5302AABB";
const MANAGEMENT: &str = "00870A9B";

fn challenge_of(answer: &str, tag: &str) -> Vec<u8> {
    let prefix = format!("7C12{tag}10");
    bytes(answer.strip_prefix(prefix.as_str()).and_then(|rest| rest.strip_suffix("9000")).unwrap())
}

/// Decrypts one block with the well-known management key.
fn decrypt(block: &[u8]) -> Vec<u8> {
    use aes::cipher::{Array, BlockCipherDecrypt as _, KeyInit as _};
    let key = bytes("010203040506070801020304050607080102030405060708");
    let mut block = Array::try_from(block).unwrap();
    aes::Aes192::new_from_slice(&key).unwrap().decrypt_block(&mut block);
    block.to_vec()
}

#[test]
fn mutual_authentication() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    let own = bytes("00112233445566778899AABBCCDDEEFF");
    let mutual = |witness: &[u8]| format!("{MANAGEMENT} 26 7C24 8010{} 8110{} 00", text(witness), text(&own));
    // Nothing pending, a wrong witness, and the same answer a second time.
    assert_eq!(send(&mut card, &mut host, &mutual(&[0; 16])), "6982");
    let witness = decrypt(&challenge_of(&send(&mut card, &mut host, "00870A9B 04 7C028000 00"), "80"));
    assert_eq!(send(&mut card, &mut host, &mutual(&[0; 16])), "6982");
    assert_eq!(send(&mut card, &mut host, &mutual(&witness)), "6982", "a witness is used once");
    assert_eq!(send(&mut card, &mut host, PUT), "6982");
    let witness = decrypt(&challenge_of(&send(&mut card, &mut host, "00870A9B 04 7C028000 00"), "80"));
    let answer = send(&mut card, &mut host, &mutual(&witness));
    assert_eq!(challenge_of(&answer, "82"), aes192(&own), "the card knows the key, too");
    assert_eq!(send(&mut card, &mut host, PUT), "9000");
    // A failed attempt takes it back.
    assert_eq!(send(&mut card, &mut host, &mutual(&witness)), "6982");
    assert_eq!(send(&mut card, &mut host, PUT), "6982");
}

#[test]
fn what_the_card_sent_never_answers_its_own_question() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    // The challenge of the single authentication sent back as its response, or as a witness.
    let challenge = challenge_of(&send(&mut card, &mut host, "00870A9B 04 7C028100 00"), "81");
    assert_eq!(send(&mut card, &mut host, &format!("{MANAGEMENT} 14 7C128210{}", text(&challenge))), "6982");
    let challenge = challenge_of(&send(&mut card, &mut host, "00870A9B 04 7C028100 00"), "81");
    let mutual = format!("{MANAGEMENT} 26 7C24 8010{} 8110{} 00", text(&challenge), "00".repeat(16));
    assert_eq!(send(&mut card, &mut host, &mutual), "6982");
    // The encrypted witness sent back as the response to a challenge.
    let witness = challenge_of(&send(&mut card, &mut host, "00870A9B 04 7C028000 00"), "80");
    assert_eq!(send(&mut card, &mut host, &format!("{MANAGEMENT} 14 7C128210{}", text(&witness))), "6982");
    // The card does not encrypt for whoever has not proven the key.
    let asked = format!("{MANAGEMENT} 16 7C14 8110{} 8200 00", text(&challenge));
    assert_eq!(send(&mut card, &mut host, &asked), "6A80");
    assert_eq!(send(&mut card, &mut host, PUT), "6982");
}

#[test]
fn algorithm_00_is_that_of_the_key_and_every_challenge_is_new() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    let random = "0087009B 04 7C028100 00";
    let challenges: std::collections::BTreeSet<_> = (0..20).map(|_| send(&mut card, &mut host, random)).collect();
    assert_eq!(challenges.len(), 20);
    let challenge = challenge_of(&send(&mut card, &mut host, random), "81");
    let response = text(&aes192(&challenge));
    assert_eq!(send(&mut card, &mut host, &format!("0087009B 14 7C128210{response}")), "9000");
    table(
        &mut card,
        &mut host,
        &[(PUT, "9000"), ("0087089B 04 7C028100 00", "6A80"), ("0087039B 04 7C028100 00", "6A80")],
    );
}

#[test]
fn the_management_key_is_changed_and_the_other_host_must_prove_the_new_one() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    let mut other = card.host(2);
    prove_management(&mut card, &mut other);
    let set = format!("00FFFFFF 23 0C9B20{}", "77".repeat(32));
    table(&mut card, &mut host, &[("00F7009B 00", "01010A 02020001 050101 9000"), (&set, "6982")]);
    prove_management(&mut card, &mut host);
    table(
        &mut card,
        &mut host,
        &[
            ("00FFFFFF 1B 039B18 010203040506070801020304050607080102030405060708", "6A80"),
            (&set, "9000"),
            ("00F7009B 00", "01010C 02020001 050100 9000"),
            (PUT, "9000"),
            ("00870A9B 04 7C028000 00", "6A80"),
            ("00870C9B 04 7C028000 00", "..9000"),
        ],
    );
    table(&mut card, &mut other, &[(PUT, "6982")]);
    host.reset(&mut card);
    table(&mut card, &mut host, &[(PUT, "6982")]);
}

#[test]
fn keys_are_moved_to_empty_slots_and_deleted() {
    let (mut card, mut host) = card_with_keys();
    table(&mut card, &mut host, &[("00F6829D", "6982"), ("00F6FF9D", "6982")]);
    prove_management(&mut card, &mut host);
    let public = send(&mut card, &mut host, "00F7009D 00");
    table(
        &mut card,
        &mut host,
        &[
            ("00F69A9D", "6A80"),
            ("00F69D83", "6A88"),
            ("00F6829D", "9000"),
            ("00F7009D 00", "6A88"),
            ("00F70082 00", &public),
            ("00F6FF9D", "6A88"),
            ("00F6FF82", "9000"),
            ("00F70082 00", "6A88"),
        ],
    );
    assert_eq!(card.card.key_handles(), card.keys.handles());
    assert_eq!(card.keys.handles().len(), 3);
}

#[test]
fn retries_are_set_with_both_proofs() {
    let (mut card, mut host) = card_with_management();
    table(&mut card, &mut host, &[("00FA0504", "6982"), ("00FA0004", "6A86")]);
    table(
        &mut card,
        &mut host,
        &[
            ("00240080 10 313233343536FFFF 36353433323130FF", "9000"),
            ("00FA0504", "9000"),
            ("00F70080 00", "0101FF 050101 06020505 9000"),
            ("00F70081 00", "0101FF 050101 06020404 9000"),
            (STATUS, "63C5"),
            (VERIFY, "9000"),
            ("00FAFFFF", "9000"),
            (STATUS, "63CF"),
            (VERIFY_WRONG, "63CF"),
            ("00F70080 00", "0101FF 050101 0602FFFE 9000"),
        ],
    );
}

#[test]
fn only_a_blocked_card_is_reset_and_then_it_is_new() {
    let (mut card, mut host) = card_with_keys();
    let mut other = card.host(2);
    table(&mut card, &mut host, &[("00FB0000", "6985")]);
    table(&mut card, &mut host, &[(VERIFY_WRONG, "63C2"), (VERIFY_WRONG, "63C1"), (VERIFY_WRONG, "63C0")]);
    table(&mut card, &mut host, &[("00FB0000", "6985")]);
    prove_management(&mut card, &mut other);
    let serial = send(&mut card, &mut host, "00F80000 00");
    let wrong_puk = "002C0080 10 FFFFFFFFFFFFFFFF FFFFFFFFFFFFFFFF";
    table(
        &mut card,
        &mut host,
        &[
            (wrong_puk, "63C2"),
            (wrong_puk, "63C1"),
            (wrong_puk, "63C0"),
            ("00FB0000", "9000"),
            ("00F7009A 00", "6A88"),
            (VERIFY, "9000"),
            ("00F80000 00", &serial),
        ],
    );
    assert!(card.keys.handles().is_empty() && card.card.key_handles().is_empty());
    table(&mut card, &mut other, &[(PUT, "6982")]);
}

#[test]
fn an_owned_card_is_reset_only_with_its_owners_consent() {
    let mut card = TestBox::with(CardConfig::default(), TestStore::new());
    card.permit(1, Permissions::test_host());
    card.local(&bytes("0047009A 05 AC03800111 00"));
    let mut host = card.host(1);
    card.hold = true;
    for (decision, expected) in [(ApprovalDecision::Denied, "6982"), (ApprovalDecision::Approved, "9000")] {
        assert_eq!(send(&mut card, &mut host, "00FB0000"), "");
        let (operation, effect) = card.out.held.remove(0);
        assert!(matches!(effect, Effect::Approve(request) if request.purpose == ApprovalPurpose::Administer));
        assert_eq!(card.card.key_handles().len(), 1);
        card.handle(Input::Completed { operation, result: EffectResult::Approval(decision) });
        assert_eq!(text(&host.answer(&mut card).unwrap()), expected);
    }
    assert!(card.card.key_handles().is_empty());
}

#[test]
fn a_management_key_may_ask_the_owner() {
    let (mut card, mut host) = card_with_management();
    let set = "00FFFFFE 1B 0A9B18 010203040506070801020304050607080102030405060708";
    table(&mut card, &mut host, &[(set, "9000"), ("00F7009B 00", "01010A 02020002 050101 9000")]);
    host.reset(&mut card);
    let answer = send(&mut card, &mut host, "00870A9B 04 7C028100 00");
    let response = text(&aes192(&challenge_of(&answer, "81")));
    card.hold = true;
    assert_eq!(send(&mut card, &mut host, &format!("{MANAGEMENT} 14 7C128210{response}")), "");
    let (operation, _) = card.out.held.remove(0);
    card.handle(Input::Completed { operation, result: EffectResult::Approval(ApprovalDecision::Denied) });
    assert_eq!(text(&host.answer(&mut card).unwrap()), "6982");
    assert_eq!(send(&mut card, &mut host, PUT), "6982");
}

/// Two hosts wait for the owner; what the first one does takes away what the second one asked about.
#[test]
fn a_consent_that_comes_after_the_card_has_changed_opens_nothing() {
    let touch = "00FFFFFE 1B 0A9B18 010203040506070801020304050607080102030405060708";
    let (mut card, mut admin) = card_with_management();
    assert_eq!(send(&mut card, &mut admin, touch), "9000");
    let mut late = card.host(2);
    let ask = |card: &mut TestBox, late: &mut TestHost| {
        let answer = send(card, late, "00870A9B 04 7C028100 00");
        let response = text(&aes192(&challenge_of(&answer, "81")));
        card.hold = true;
        assert_eq!(send(card, late, &format!("{MANAGEMENT} 14 7C128210{response}")), "");
    };
    ask(&mut card, &mut late);
    assert_eq!(send(&mut card, &mut admin, &format!("00FFFFFF 23 0C9B20{}", "77".repeat(32))), "9000");
    card.release();
    assert_eq!(text(&late.answer(&mut card).unwrap()), "6982", "the key that was proven is no longer the card's");
    assert_eq!(send(&mut card, &mut late, PUT), "6982");

    // The card is made new while the owner is asked about the old one's management key.
    let (mut card, mut admin) = card_with_management();
    assert_eq!(send(&mut card, &mut admin, touch), "9000");
    let mut late = card.host(2);
    ask(&mut card, &mut late);
    card.handle(Input::Local {
        request: 9,
        command: pocketcard_protocol::apdu::Command::parse(&bytes("00FB0000")).unwrap(),
    });
    card.release();
    assert_eq!(text(&late.answer(&mut card).unwrap()), "6982");
    assert_eq!(send(&mut card, &mut late, PUT), "6982");
}

#[test]
fn a_reset_that_the_owner_confirms_too_late_does_not_happen() {
    let mut card = TestBox::with(CardConfig::default(), TestStore::new());
    card.permit(1, Permissions::test_host());
    let mut host = card.host(1);
    card.hold = true;
    assert_eq!(send(&mut card, &mut host, "00FB0000"), "");
    card.handle(Input::Enrol { request: 1, pin: (*b"246810\xFF\xFF").into(), puk: (*b"87654321").into() });
    card.release();
    assert_eq!(text(&host.answer(&mut card).unwrap()), "6985", "the card is in use by now");
    assert_eq!(send(&mut card, &mut host, "00200080 08 323436383130FFFF"), "9000");
}

/// An owner's card with a key in 9A and the well-known management key, and a host that may administer. Effects are held.
fn administered_card() -> (TestBox, TestHost) {
    let mut card = TestBox::with(CardConfig::default(), TestStore::new());
    let set = "00FFFFFF 1B 0A9B18 010203040506070801020304050607080102030405060708";
    for command in [set, "0047009A 05 AC03800111 00"] {
        assert!(text(&card.local(&bytes(command))).ends_with("9000"), "{command}");
    }
    card.permit(1, Permissions::test_host());
    let host = card.host(1);
    card.hold = true;
    (card, host)
}

/// Answers the challenge of the management key, up to the question to the owner.
fn answer_challenge(card: &mut TestBox, host: &mut TestHost) -> String {
    let answer = send(card, host, "00870A9B 04 7C028100 00");
    let challenge = bytes(answer.strip_prefix("7C128110").and_then(|rest| rest.strip_suffix("9000")).unwrap());
    let response = text(&aes192(&challenge));
    send(card, host, &format!("00870A9B 14 7C128210{response}"))
}

#[test]
fn on_an_owned_card_the_owner_confirms_administration_and_each_deletion() {
    const DELETE: &str = "00F6FF9A";
    let (mut card, mut host) = administered_card();
    assert_eq!(answer_challenge(&mut card, &mut host), "");
    decide(&mut card, ApprovalDecision::Denied);
    assert_eq!(answer(&mut card, &host), "6982");
    assert_eq!(send(&mut card, &mut host, PUT), "6982");
    assert_eq!(answer_challenge(&mut card, &mut host), "");
    decide(&mut card, ApprovalDecision::Approved);
    assert_eq!(answer(&mut card, &host), "9000");
    assert_eq!(send(&mut card, &mut host, PUT), "9000");
    assert_eq!(send(&mut card, &mut host, "00F6FF9C"), "6A88", "nobody is asked about a key that is not there");
    for (decision, status, left) in [(ApprovalDecision::Unanswered, "6985", 1), (ApprovalDecision::Approved, "9000", 0)]
    {
        assert_eq!(send(&mut card, &mut host, DELETE), "");
        assert!(matches!(&card.out.held[0].1, Effect::Approve(request) if request.key == 0x9A), "{:?}", card.out.held);
        decide(&mut card, decision);
        assert_eq!(answer(&mut card, &host), status);
        assert_eq!(card.card.key_handles().len(), left);
    }
}

#[test]
fn a_confirmed_deletion_does_not_meet_another_key() {
    let (mut card, mut host) = administered_card();
    answer_challenge(&mut card, &mut host);
    decide(&mut card, ApprovalDecision::Approved);
    answer(&mut card, &host);
    assert_eq!(send(&mut card, &mut host, "00F6FF9A"), "");
    card.handle(Input::Local {
        request: 9,
        command: pocketcard_protocol::apdu::Command::parse(&bytes("0047009A05AC0380011100")).unwrap(),
    });
    // The owner's new key is there before the owner's answer.
    let (operation, effect) = card.out.held.pop().unwrap();
    let result = card.keys.perform(effect);
    card.handle(Input::Completed { operation, result });
    decide(&mut card, ApprovalDecision::Approved);
    assert_eq!(answer(&mut card, &host), "6985");
    assert_eq!(card.card.key_handles().len(), 1);
}

#[test]
fn version_and_serial() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    table(&mut card, &mut host, &[("00FD0000 00", "050704 9000"), ("00FD0001 00", "6A86"), ("00F80000 00", "..9000")]);
    assert_eq!(send(&mut card, &mut host, "00F80000 00").len(), 12);
}
