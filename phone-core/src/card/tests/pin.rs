use pocketcard_protocol::messages::Body;

use super::*;
use crate::card::test_support::TestStore;
use crate::card::{CardConfig, CardError, Input, NoProbe, ProbePoint};

const CHANGE: &str = "00240080 10 313233343536FFFF 36353433323130FF";

#[test]
fn verify() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    table(
        &mut card,
        &mut host,
        &[
            ("00200180 08 313233343536FFFF", "6A86"),
            ("00200000 08 313233343536FFFF", "6A88"),
            ("00200098 08 313233343536FFFF", "6A88"),
            ("00200080 06 313233343536", "6A80"),
            (STATUS, "63C3"),
            ("0020008000", "63C3"),
            (VERIFY_WRONG, "63C2"),
            (STATUS, "63C2"),
            (VERIFY, "9000"),
            (STATUS, "9000"),
            ("0020008000", "9000"),
            // A failed attempt takes back what an earlier one had opened.
            (VERIFY_WRONG, "63C2"),
            (STATUS, "63C2"),
            (VERIFY, "9000"),
            ("0020FF80", "9000"),
            (STATUS, "63C3"),
            // Malformed ones count: not digits, too short, padding that is none.
            ("00200080 08 FFFFFFFFFFFFFFFF", "63C2"),
            ("00200080 08 3132333435FFFFFF", "63C1"),
            ("00200080 08 3132333435360000", "63C0"),
            (STATUS, "6983"),
            (VERIFY, "6983"),
            (VERIFY_WRONG, "6983"),
            (CHANGE, "6983"),
        ],
    );
}

#[test]
fn change_reference_data() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    table(
        &mut card,
        &mut host,
        &[
            ("00240080 10 363534333231FFFF 36353433323130FF", "63C2"),
            // The right old PIN with a malformed new one costs nothing, gives nothing back, and proves nothing.
            ("00240080 10 313233343536FFFF 3635FFFFFFFFFFFF", "6A80"),
            (STATUS, "63C2"),
            (CHANGE, "9000"),
            (STATUS, "9000"),
            ("0020FF80", "9000"),
            (VERIFY, "63C2"),
            ("00200080 08 36353433323130FF", "9000"),
            // The PUK is any 8 octets.
            ("00240081 10 0000000000000000 0102030405060708", "63C2"),
            (STATUS, "9000"),
            ("00240081 10 3132333435363738 0001FF0003000405", "9000"),
            ("00240081 10 3132333435363738 0001FF0003000405", "63C2"),
            ("00240081 10 0001FF0003000405 3132333435363738", "9000"),
        ],
    );
}

#[test]
fn reset_retry_counter() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    table(
        &mut card,
        &mut host,
        &[
            (VERIFY, "9000"),
            // Both wrong: the PUK is looked at first, and counted; the PIN is no longer verified.
            ("002C0080 10 FFFFFFFFFFFFFFFF FFFFFFFFFFFFFFFF", "63C2"),
            (STATUS, "63C3"),
            ("002C0080 10 3132333435363738 3132FFFFFFFFFFFF", "6A80"),
            ("00F70081 00", "0101FF 050101 06020302 9000"),
            (VERIFY_WRONG, "63C2"),
            (VERIFY_WRONG, "63C1"),
            (VERIFY_WRONG, "63C0"),
            ("002C0080 10 3132333435363738 36353433323130FF", "9000"),
            // Unblocked, and not verified.
            (STATUS, "63C3"),
            ("00200080 08 36353433323130FF", "9000"),
            ("002C0080 10 0000000000000000 36353433323130FF", "63C2"),
            ("002C0080 10 0000000000000000 36353433323130FF", "63C1"),
            ("002C0080 10 0000000000000000 36353433323130FF", "63C0"),
            ("002C0080 10 3132333435363738 36353433323130FF", "6983"),
            ("00240081 10 3132333435363738 36353433323130FF", "6983"),
        ],
    );
}

#[test]
fn a_try_is_durable_before_anything_is_compared() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    card.probe.take();
    send(&mut card, &mut host, VERIFY);
    let right = card.probe.take();
    assert_eq!(
        right,
        [
            ProbePoint::VerifyReceived,
            ProbePoint::VerifyBeforeCommit,
            ProbePoint::VerifyAfterCommit,
            ProbePoint::VerifyCompared,
            ProbePoint::VerifyBeforeAnswer,
        ]
    );
    // A store that fails spends nothing and compares nothing.
    card.store.set_failing(true);
    assert_eq!(send(&mut card, &mut host, VERIFY), "6581");
    assert!(!card.probe.take().contains(&ProbePoint::VerifyCompared));
    assert_eq!(send(&mut card, &mut host, VERIFY_WRONG), "6581");
    card.store.set_failing(false);
    assert_eq!(send(&mut card, &mut host, STATUS), "9000", "nothing was compared, so nothing was taken back");
    // The counter outlives the phone.
    send(&mut card, &mut host, VERIFY_WRONG);
    let store = card.store.clone();
    let mut again = TestBox::with(CardConfig { test_card: true, ..CardConfig::default() }, store);
    let mut host = again.host(1);
    assert_eq!(send(&mut again, &mut host, STATUS), "63C2");
}

/// What is durable between the commit and the comparison, seen by whoever restarts there.
#[test]
fn a_phone_that_dies_at_the_comparison_has_spent_the_try() {
    struct Peek(TestStore, std::sync::Mutex<Vec<(ProbePoint, u8)>>);
    impl crate::card::Probe for Peek {
        fn reached(&self, point: ProbePoint) {
            // The second octet of the counters, behind tag and length.
            let left = self.0.entry("piv/pin").unwrap()[3];
            self.1.lock().unwrap().push((point, left));
        }
    }
    let store = TestStore::new();
    let probe = std::sync::Arc::new(Peek(store.clone(), std::sync::Mutex::default()));
    let config = CardConfig { test_card: true, ..CardConfig::default() };
    let entropy = std::sync::Arc::new(crate::card::test_support::CountingEntropy::default());
    let mut card = crate::card::Card::new(config, std::sync::Arc::new(store), entropy, probe.clone()).unwrap();
    for (request, pin) in [VERIFY, VERIFY_WRONG].into_iter().enumerate() {
        let command = pocketcard_protocol::apdu::Command::parse(&bytes(pin)).unwrap();
        card.handle(Input::Local { request: request as u64, command }, pocketcard_protocol::Timestamp::ZERO);
    }
    let seen = std::mem::take(&mut *probe.1.lock().unwrap());
    let left: Vec<u8> = seen.iter().map(|(_, left)| *left).collect();
    assert_eq!(left, [3, 3, 2, 2, 3, 3, 3, 2, 2, 2], "{seen:?}");
}

#[test]
fn one_host_changing_the_pin_closes_the_other_hosts_session() {
    let mut card = TestBox::test_card();
    let mut first = card.host(1);
    let mut second = card.host(2);
    table(&mut card, &mut first, &[(VERIFY, "9000")]);
    table(&mut card, &mut second, &[(STATUS, "63C3"), (VERIFY, "9000")]);
    table(&mut card, &mut first, &[(CHANGE, "9000"), (STATUS, "9000")]);
    table(&mut card, &mut second, &[(STATUS, "63C3")]);
    // Tries are the card's, not the session's.
    table(&mut card, &mut second, &[(VERIFY, "63C2")]);
    table(&mut card, &mut first, &[("0020FF80", "9000"), (STATUS, "63C2")]);
}

/// The right PIN costs its try if the counter cannot be restored: nobody may find out for nothing.
#[test]
fn a_store_that_fails_after_the_comparison_opens_nothing() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    card.store.fail_after(1);
    table(&mut card, &mut host, &[(VERIFY, "6581"), (STATUS, "63C2")]);
    card.store.fail_after(1);
    table(&mut card, &mut host, &[(CHANGE, "6581"), (STATUS, "63C1")]);
    // The comparison and its two commits are done; the new value is not stored.
    card.store.fail_after(2);
    table(&mut card, &mut host, &[(CHANGE, "6581"), (STATUS, "63C3")]);
    card.store.set_failing(false);
    table(&mut card, &mut host, &[(VERIFY, "9000")]);
}

#[test]
fn an_owners_pin_is_never_said_to_be_the_well_known_one_and_tries_that_a_host_sets_are_its_own() {
    let mut card = TestBox::with(CardConfig::default(), TestStore::new());
    card.handle(Input::Enrol { request: 1, pin: (*b"123456\xFF\xFF").into(), puk: (*b"12345678").into() });
    card.out.local.clear();
    let set = "00FFFFFF 1B 0A9B18 010203040506070801020304050607080102030405060708";
    assert_eq!(text(&card.local(&bytes(set))), "9000");
    card.permit(1, Permissions::test_host());
    let mut host = card.host(1);
    prove_management(&mut card, &mut host);
    table(
        &mut card,
        &mut host,
        &[
            ("00F70080 00", "0101FF 050100 06020202 9000"),
            ("00F70081 00", "0101FF 050100 06020202 9000"),
            (VERIFY, "9000"),
            ("00FA0104", "9000"),
            ("00F70080 00", "0101FF 050100 06020101 9000"),
            ("00F70081 00", "0101FF 050100 06020404 9000"),
            (VERIFY, "9000"),
        ],
    );
}

#[test]
fn a_pin_that_one_host_blocks_is_verified_for_nobody() {
    let (mut card, mut first) = card_with_keys();
    let mut second = card.host(2);
    table(&mut card, &mut first, &[(VERIFY, "9000")]);
    table(&mut card, &mut second, &[(VERIFY_WRONG, "63C2"), (VERIFY_WRONG, "63C1")]);
    table(&mut card, &mut first, &[(STATUS, "9000")]);
    assert_eq!(sign(&mut card, &mut first, "9A"), "9000", "a wrong PIN is the affair of who gave it");
    card.out.sent.clear();
    table(&mut card, &mut second, &[(VERIFY_WRONG, "63C0")]);
    // The other host is told before it asks.
    let told = card.out.sent.iter().find_map(|(link, envelope)| match &envelope.body {
        Some(Body::SecurityState(state)) if *link == first.link => Some((state.pin_verified, state.pin_tries_left)),
        _ => None,
    });
    assert_eq!(told, Some((false, 0)));
    assert_eq!(sign(&mut card, &mut first, "9A"), "6982");
    assert_eq!(sign(&mut card, &mut first, "9E"), "9000");
    table(&mut card, &mut first, &[(STATUS, "6983"), ("00CB3FFF 05 5C035FC109 00", "6982"), (VERIFY, "6983")]);
    // Whoever has the PUK opens it again, and it is verified for nobody yet.
    table(&mut card, &mut second, &[("002C0080 10 3132333435363738 313233343536FFFF", "9000"), (STATUS, "63C3")]);
    table(&mut card, &mut first, &[(STATUS, "63C3"), (VERIFY, "9000")]);
}

#[test]
fn on_an_owned_card_a_host_that_uses_up_its_tries_ends_nothing_for_others_but_the_owner_who_does_ends_all() {
    let mut card = TestBox::with(CardConfig::default(), TestStore::new());
    card.handle(Input::Enrol { request: 1, pin: (*b"246810\xFF\xFF").into(), puk: (*b"87654321").into() });
    card.out.local.clear();
    let right = "00200080 08 323436383130FFFF";
    let mut first = card.host(1);
    let mut second = card.host(2);
    table(&mut card, &mut first, &[(right, "9000")]);
    table(&mut card, &mut second, &[(VERIFY_WRONG, "63C1"), (VERIFY_WRONG, "63C0"), (VERIFY_WRONG, "6983")]);
    table(&mut card, &mut first, &[(STATUS, "9000")]);
    assert_eq!(text(&card.local(&bytes(VERIFY_WRONG))), "63C0");
    table(&mut card, &mut first, &[(STATUS, "6983")]);
}

#[test]
fn an_owned_card_has_no_well_known_secrets_and_keeps_the_last_try_for_its_owner() {
    let store = TestStore::new();
    let mut card = TestBox::with(CardConfig::default(), store.clone());
    let mut host = card.host(1);
    table(&mut card, &mut host, &[(STATUS, "6983"), (VERIFY, "6983"), ("00F7009B 00", "01010A 02020001 050100 9000")]);
    let enrol = |card: &mut TestBox, pin: &[u8; 8]| {
        card.handle(Input::Enrol { request: 1, pin: (*pin).into(), puk: (*b"87654321").into() });
        card.out.local.remove(0).1.status()
    };
    assert_eq!(u16::from(enrol(&mut card, b"12345\xFF\xFF\xFF")), 0x6A80);
    assert_eq!(u16::from(enrol(&mut card, b"246810\xFF\xFF")), 0x9000);
    table(
        &mut card,
        &mut host,
        &[
            (STATUS, "63C2"),
            ("00F70080 00", "0101FF 050100 06020202 9000"),
            (VERIFY, "63C1"),
            (VERIFY, "63C0"),
            (STATUS, "6983"),
            ("00200080 08 323436383130FFFF", "6983"),
        ],
    );
    // The owner, on the phone, still can.
    assert_eq!(text(&card.local(&bytes(STATUS))), "63C1");
    assert_eq!(text(&card.local(&bytes("00200080 08 323436383130FFFF"))), "9000");
    table(&mut card, &mut host, &[(STATUS, "63C2"), ("00200080 08 323436383130FFFF", "9000")]);
    // A state of one kind is never opened as the other.
    let open = |test_card, store: &TestStore| {
        let config = CardConfig { test_card, ..CardConfig::default() };
        let entropy = std::sync::Arc::new(crate::card::test_support::CountingEntropy::default());
        crate::card::Card::new(config, std::sync::Arc::new(store.clone()), entropy, std::sync::Arc::new(NoProbe))
    };
    assert!(matches!(open(true, &store), Err(CardError::OwnedCard)));
    assert!(open(false, &store).is_ok());
    let test = TestBox::test_card().store;
    assert!(matches!(open(false, &test), Err(CardError::TestCard)));
}
