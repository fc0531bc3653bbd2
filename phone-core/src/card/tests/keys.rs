use std::time::Duration;

use super::*;
use crate::card::prompts::REFUSAL_LASTS;
use crate::card::{Effect, EffectResult, Input};
use crate::traits::{ApprovalDecision, ApprovalPurpose, KeyAlgorithm, KeyStoreError};

#[test]
fn refusals_of_a_private_key_operation() {
    let (mut card, mut host) = card_with_keys();
    let digest = "AB".repeat(32);
    let sign = |slot: &str, algorithm: &str| format!("0087{algorithm}{slot} 26 7C2482008120{digest} 00");
    table(
        &mut card,
        &mut host,
        &[
            (&sign("82", "11"), "6A80"), // an empty slot
            (&sign("9A", "14"), "6A80"), // a key of another algorithm
            (&sign("9A", "07"), "6A80"),
            (&sign("9A", "E0"), "6A80"), // an algorithm that nobody here knows
            (&sign("04", "11"), "6A86"),
            (&sign("9A", "11"), "6982"),
            (&sign("9C", "11"), "6982"),
            (&sign("9D", "11"), "6982"),
            (&sign("9E", "11"), "..9000"), // needs no PIN
            (VERIFY, "9000"),
            (&sign("9A", "11"), "..9000"),
            ("0087119A 0F 7C0D 8200 8109 000000000000000000", "..9000"),
            (
                "0087119A 46 7C44 8200 8140 00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000 00",
                "..9000",
            ),
            (
                "0087119A 47 7C45 8200 8141 0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000 00",
                "6A80",
            ),
        ],
    );
}

/// "PIN always": VERIFY serves the next private-key operation, whatever harmless command stands between.
#[test]
fn a_signature_key_asks_for_the_pin_every_time() {
    let (mut card, mut host) = card_with_keys();
    send(&mut card, &mut host, VERIFY);
    assert_eq!(sign(&mut card, &mut host, "9C"), "9000");
    assert_eq!(sign(&mut card, &mut host, "9C"), "6982");
    assert_eq!(sign(&mut card, &mut host, "9A"), "9000", "the PIN stays verified for the others");
    table(
        &mut card,
        &mut host,
        &[
            (VERIFY, "9000"),
            ("00CB3FFF 05 5C035FC102 00", "..9000"),
            (STATUS, "9000"),
            ("00A4040005A000000308", "..9000"),
            ("00A4040008A000000397434944", "6A82"),
            ("0087009B 04 7C028100 00", "..9000"),
            ("00CADF30 00", "6D00"),
            ("00F7009C 00", "..9000"),
            ("0087119C 08 7C0682008102ABCD 00", "..9000"),
            ("0087119C 08 7C0682008102ABCD 00", "6982"),
            // A refused operation is none: nothing was used.
            (VERIFY, "9000"),
            ("0087149C 08 7C0682008102ABCD 00", "6A80"),
            ("0087119C 05 7C03820081 00", "6A80"),
            ("0087119C 08 7C0682008102ABCD 00", "..9000"),
            // The next operation is the next one of any key.
            (VERIFY, "9000"),
            ("0087119E 08 7C0682008102ABCD 00", "..9000"),
            ("0087119C 08 7C0682008102ABCD 00", "6982"),
        ],
    );
}

#[test]
fn the_key_store_gets_what_the_algorithm_takes() {
    let mut card = TestBox::test_card();
    card.local(&bytes("0047009A 05 AC03800114 00"));
    card.local(&bytes("0047009D 05 AC03800107 00"));
    let mut host = card.host(1);
    send(&mut card, &mut host, VERIFY);
    card.hold = true;
    // A digest of 20 octets for P-384 is padded on the left.
    assert_eq!(send(&mut card, &mut host, &format!("0087149A 1A 7C1882008114{} 00", "11".repeat(20))), "");
    let Some((_, Effect::Sign { algorithm: KeyAlgorithm::EccP384, input, .. })) = card.out.held.first() else {
        panic!("no signature")
    };
    assert_eq!(**input, [vec![0; 28], vec![0x11; 20]].concat());
    assert!(card.release());
    assert_eq!(host.answer(&mut card).unwrap().len(), 2 + 2 + 102 + 2);
    // A point, in the form of the 2016 sample of Apple.
    assert_eq!(send(&mut card, &mut host, &format!("0087149A 67 7C65 8500 8161 04{} 00", "22".repeat(96))), "");
    assert!(matches!(&card.out.held[0].1, Effect::Agree { peer_point, .. } if peer_point.len() == 97));
    assert!(card.release());
    host.answer(&mut card).unwrap();
    // RSA: a cipher text is decrypted, a padded digest is signed, and nothing else has the length of the modulus.
    let block = |first: &str| {
        let first = bytes(first);
        let data = [bytes("7C820106 82 00 81820100"), first.clone(), vec![0xFF; 256 - first.len()]].concat();
        [bytes("0087079D 00 010A"), data, vec![0, 0]].concat()
    };
    host.transmit(&mut card, &block("0002"));
    assert!(matches!(&card.out.held[0].1, Effect::Decrypt { input, .. } if input.len() == 256));
    card.release();
    assert_eq!(host.answer(&mut card).unwrap().len(), 4 + 4 + 256 + 2);
    host.transmit(&mut card, &block("0001"));
    assert!(matches!(&card.out.held[0].1, Effect::Sign { input, .. } if input.len() == 256));
    card.release();
    host.answer(&mut card).unwrap();
    assert_eq!(send(&mut card, &mut host, "0087079D 08 7C0682008102ABCD 00"), "6A80");
}

#[test]
fn failures_of_the_key_store_have_their_status() {
    let (mut card, mut host) = card_with_keys();
    card.hold = true;
    for (error, expected) in [
        (KeyStoreError::InvalidInput, "6A80"),
        (KeyStoreError::UnsupportedAlgorithm, "6A80"),
        (KeyStoreError::UnknownKey, "6984"),
        (KeyStoreError::Unusable, "6984"),
        (KeyStoreError::Refused, "6985"),
        (KeyStoreError::Failed, "6F00"),
    ] {
        assert_eq!(send(&mut card, &mut host, "0087119E 08 7C0682008102ABCD 00"), "");
        let (operation, _) = card.out.held.remove(0);
        card.handle(Input::Completed { operation, result: EffectResult::Failed(error) });
        assert_eq!(text(&host.answer(&mut card).unwrap()), expected, "{error:?}");
    }
}

#[test]
fn generation_needs_the_management_key_and_replaces_the_key_after_the_new_one_is_durable() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    let generate = "0047009A 05 AC03800111 00";
    table(&mut card, &mut host, &[(generate, "6982"), ("00F7009A 00", "6A88")]);
    prove_management(&mut card, &mut host);
    table(
        &mut card,
        &mut host,
        &[
            ("0047009B 05 AC03800111 00", "6A86"),
            ("0047009A 05 AC038001E0 00", "6A80"),
            ("0047009A 05 AC03800106 00", "6A80"),
            ("0047009A 08 AC06800111AA0105 00", "6A80"),
            ("0047009A 08 AC06800111AB0104 00", "6A80"),
        ],
    );
    let first = send(&mut card, &mut host, generate);
    assert!(first.starts_with("7F4943864104") && first.ends_with("9000") && first.len() == 2 * (5 + 65 + 2), "{first}");
    let metadata = send(&mut card, &mut host, "00F7009A 00");
    assert_eq!(metadata, format!("010111 02020201 030101 0443{}9000", &first[6..6 + 2 * 67]).replace(' ', ""));
    let old = card.keys.handles();
    assert_eq!(card.card.key_handles(), old);
    // The state cannot name the new key: the old one stays.
    card.store.set_failing(true);
    assert_eq!(send(&mut card, &mut host, generate), "6581");
    assert_eq!(card.card.key_handles(), old);
    assert_eq!(card.keys.handles().len(), 2, "whether the state names the new key is seen at the next start");
    card.store.set_failing(false);
    let second = send(&mut card, &mut host, generate);
    assert_ne!(first, second);
    assert_ne!(card.card.key_handles(), old);
    assert!(!card.keys.handles().contains(&old[0]), "the replaced key is destroyed");
    // RSA and P-384 answer in their own form, in windows where the answer is long.
    assert!(send(&mut card, &mut host, "00470082 05 AC03800114 00").starts_with("7F4963866104"));
    let rsa = send(&mut card, &mut host, "0047009D 0A AC08800107 AA0101 00".replace("0A AC08", "08 AC06").as_str());
    assert!(rsa.starts_with("7F4982010981820100") && rsa.ends_with("610E"), "{rsa}");
}

#[test]
fn policies_are_shown_and_kept() {
    let (mut card, mut host) = card_with_management();
    table(
        &mut card,
        &mut host,
        &[
            ("0047009C 0B AC09800111AA0101AB0101 00", "..9000"),
            ("0047009A 0B AC09800111AA0103AB0102 00", "..9000"),
            ("0047009D 0B AC09800111AA0100AB0103 00", "..9000"),
            ("0047009E 05 AC03800111 00", "..9000"),
        ],
    );
    for (slot, expected) in [("9C", "0101"), ("9A", "0302"), ("9D", "0203"), ("9E", "0101")] {
        let metadata = send(&mut card, &mut host, &format!("00F700{slot} 00"));
        assert_eq!(&metadata[6..14], format!("0202{expected}"), "{slot}");
    }
    assert_eq!(sign(&mut card, &mut host, "9C"), "9000", "made with PIN never");
    assert_eq!(sign(&mut card, &mut host, "9A"), "6982");
    send(&mut card, &mut host, VERIFY);
    assert_eq!(sign(&mut card, &mut host, "9A"), "9000");
    assert_eq!(sign(&mut card, &mut host, "9A"), "6982", "made with PIN always");
}

#[test]
fn the_owner_is_asked_and_a_refusal_uses_no_key() {
    let (mut card, mut host) = owned_card();
    let command = "0087119A 08 7C0682008102ABCD 00";
    let refusals = [(ApprovalDecision::Denied, "6982"), (ApprovalDecision::Unanswered, "6985")];
    for (decision, expected) in refusals {
        assert_eq!(send(&mut card, &mut host, command), "");
        let Some((_, Effect::Approve(request))) = card.out.held.first() else { panic!("nobody was asked") };
        assert_eq!((request.key, request.purpose, request.host_name.as_str()), (0x9A, ApprovalPurpose::Sign, "host 1"));
        use sha2::Digest as _;
        assert_eq!(request.input_digest, <[u8; 32]>::from(sha2::Sha256::digest([0xAB, 0xCD])));
        decide(&mut card, decision);
        assert_eq!(text(&host.answer(&mut card).unwrap()), expected);
        assert!(card.out.held.is_empty());
        card.advance(REFUSAL_LASTS);
    }
    // Agreed: the key is used, and not asked for again within 15 seconds.
    send(&mut card, &mut host, command);
    decide(&mut card, ApprovalDecision::Approved);
    assert!(card.release());
    assert!(text(&host.answer(&mut card).unwrap()).ends_with("9000"));
    card.advance(Duration::from_secs(15));
    send(&mut card, &mut host, command);
    assert!(matches!(card.out.held[0].1, Effect::Sign { .. }), "{:?}", card.out.held[0].1);
    card.release();
    host.answer(&mut card).unwrap();
    card.advance(Duration::from_secs(1));
    send(&mut card, &mut host, command);
    decide(&mut card, ApprovalDecision::Denied);
    host.answer(&mut card).unwrap();
    // A confirmation is for one host and ends with a reset.
    let mut other = card.host(2);
    card.hold = false;
    send(&mut card, &mut other, VERIFY);
    card.hold = true;
    send(&mut card, &mut other, command);
    assert!(matches!(card.out.held[0].1, Effect::Approve(_)));
}

#[test]
fn a_confirmation_is_for_a_key_and_not_for_whatever_comes_into_its_slot() {
    let (mut card, mut host) = owned_card();
    let command = "0087119A 08 7C0682008102ABCD 00";
    send(&mut card, &mut host, command);
    decide(&mut card, ApprovalDecision::Approved);
    card.release();
    host.answer(&mut card).unwrap();
    card.hold = false;
    for administration in ["0047009D 05 AC03800111 00", "00F6839A", "00F69A9D"] {
        assert!(text(&card.local(&bytes(administration))).ends_with("9000"));
    }
    send(&mut card, &mut host, VERIFY);
    card.hold = true;
    send(&mut card, &mut host, command);
    assert!(matches!(card.out.held[0].1, Effect::Approve(_)), "{:?}", card.out.held[0].1);
    decide(&mut card, ApprovalDecision::Denied);
    host.answer(&mut card).unwrap();
    // The key that was confirmed has taken its confirmation along.
    send(&mut card, &mut host, "00871183 08 7C0682008102ABCD 00");
    assert!(matches!(card.out.held[0].1, Effect::Sign { .. }), "{:?}", card.out.held[0].1);
}

#[test]
fn a_signature_key_of_an_owner_asks_every_time_and_a_confirmation_ends_with_a_reset() {
    let (mut card, mut host) = owned_card();
    for _ in 0..2 {
        send(&mut card, &mut host, VERIFY);
        send(&mut card, &mut host, "0087119C 08 7C0682008102ABCD 00");
        decide(&mut card, ApprovalDecision::Approved);
        card.release();
        assert!(text(&host.answer(&mut card).unwrap()).ends_with("9000"));
    }
    let command = "0087119A 08 7C0682008102ABCD 00";
    send(&mut card, &mut host, command);
    decide(&mut card, ApprovalDecision::Approved);
    card.release();
    host.answer(&mut card).unwrap();
    host.reset(&mut card);
    send(&mut card, &mut host, VERIFY);
    send(&mut card, &mut host, command);
    assert!(matches!(card.out.held[0].1, Effect::Approve(_)));
}

#[test]
fn the_owner_is_not_asked_about_what_he_does_himself() {
    let (mut card, _) = owned_card();
    card.hold = false;
    assert_eq!(
        text(&card.local(&bytes("0087119A 08 7C0682008102ABCD 00"))),
        "6982",
        "the PIN is asked for all the same"
    );
    assert_eq!(text(&card.local(&bytes(VERIFY))), "9000");
    assert!(text(&card.local(&bytes("0087119A 08 7C0682008102ABCD 00"))).ends_with("9000"));
    assert_eq!(text(&card.local(&bytes("00DB3FFF 09 5C035FC105 5302AABB"))), "9000");
}
