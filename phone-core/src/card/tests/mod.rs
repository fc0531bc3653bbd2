//! Tables of APDUs against a whole card: refusals before success.

mod administration;
mod approvals;
mod biometric;
mod data;
mod grace;
mod key_use;
mod keys;
mod limits;
mod matrix;
mod permissions;
mod pin;
mod pin_entry;
mod prompts;
mod properties;
mod select;
mod sessions;
mod snapshot;
mod transcripts;

use super::test_support::{TestBox, TestHost, TestStore};
use super::{CardConfig, CardEvent, Effect, EffectResult, HostId, Input, Permissions};
use crate::traits::{ApprovalDecision, EnteredPin, NewPin, PinAnswer};

const VERIFY: &str = "00200080 08 313233343536FFFF";
const VERIFY_WRONG: &str = "00200080 08 363534333231FFFF";
const STATUS: &str = "00200080";

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text.replace(char::is_whitespace, "")).unwrap()
}

fn text(bytes: &[u8]) -> String {
    hex::encode_upper(bytes)
}

/// Sends a command as a program would, and gives the answer as text.
fn send(card: &mut TestBox, host: &mut TestHost, command: &str) -> String {
    text(&host.raw(card, &bytes(command)))
}

/// Sends commands in order. An expected answer is compared whole; one that begins with `..` is the end of the answer.
#[track_caller]
fn table(card: &mut TestBox, host: &mut TestHost, rows: &[(&str, &str)]) {
    for (command, expected) in rows {
        let answer = send(card, host, command);
        let expected = expected.replace(' ', "");
        match expected.strip_prefix("..") {
            Some(end) => assert!(answer.ends_with(end), "{command} was answered {answer}, not ..{end}"),
            None => assert_eq!(answer, expected, "{command}"),
        }
    }
}

/// A test card with a P-256 key in each of the four slots, and a host.
fn card_with_keys() -> (TestBox, TestHost) {
    let mut card = TestBox::test_card();
    for slot in ["9A", "9C", "9D", "9E"] {
        let answer = card.local(&bytes(&format!("004700{slot} 05 AC03800111 00")));
        assert!(text(&answer).ends_with("9000"), "{}", text(&answer));
    }
    let host = card.host(1);
    (card, host)
}

/// A card and a host that has proven the well-known management key, by the single challenge.
fn card_with_management() -> (TestBox, TestHost) {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    prove_management(&mut card, &mut host);
    (card, host)
}

#[track_caller]
fn prove_management(card: &mut TestBox, host: &mut TestHost) {
    let answer = send(card, host, "00870A9B 04 7C028100 00");
    let challenge = bytes(answer.strip_prefix("7C128110").and_then(|rest| rest.strip_suffix("9000")).unwrap());
    let response = text(&aes192(&challenge));
    assert_eq!(send(card, host, &format!("00870A9B 14 7C128210{response}")), "9000");
}

/// Encrypts one block with the well-known management key.
fn aes192(block: &[u8]) -> Vec<u8> {
    use aes::cipher::{Array, BlockCipherEncrypt as _, KeyInit as _};
    let key = bytes("010203040506070801020304050607080102030405060708");
    let mut block = Array::try_from(block).unwrap();
    aes::Aes192::new_from_slice(&key).unwrap().encrypt_block(&mut block);
    block.to_vec()
}

/// Signs 32 octets with a slot, and gives the status.
fn sign(card: &mut TestBox, host: &mut TestHost, slot: &str) -> String {
    let answer = send(card, host, &format!("008711{slot} 26 7C2482008120 {} 00", "AB".repeat(32)));
    answer[answer.len() - 4..].to_owned()
}

/// A card of an owner, with a key in 9A whose confirmations last and one in 9C that always asks; and a host that has verified
/// the PIN. From here on effects are held.
fn owned_card() -> (TestBox, TestHost) {
    let mut card = TestBox::with(CardConfig::default(), TestStore::new());
    card.handle(Input::Enrol { request: 1, pin: (*b"123456\xFF\xFF").into(), puk: (*b"12345678").into() });
    card.out.local.clear();
    for slot in ["9A", "9C"] {
        card.local(&bytes(&format!("004700{slot} 05 AC03800111 00")));
    }
    let mut host = card.host(1);
    send(&mut card, &mut host, VERIFY);
    card.hold = true;
    (card, host)
}

#[track_caller]
fn decide(card: &mut TestBox, decision: ApprovalDecision) {
    assert!(matches!(card.out.held.first(), Some((_, Effect::Approve(_)))), "{:?}", card.out.held);
    card.complete(EffectResult::Approval(decision));
}

fn entered(current: &str) -> PinAnswer {
    PinAnswer::Entered(EnteredPin { current: current.to_owned().into(), new: None })
}

fn entered_new(current: &str, value: &str, repeated: &str) -> PinAnswer {
    let new = Some(NewPin { value: value.to_owned().into(), repeated: repeated.to_owned().into() });
    PinAnswer::Entered(EnteredPin { current: current.to_owned().into(), new })
}

#[track_caller]
fn type_in(card: &mut TestBox, answer: PinAnswer) {
    assert!(matches!(card.out.held.first(), Some((_, Effect::EnterPin(_)))), "{:?}", card.out.held);
    card.complete(EffectResult::Pin(answer));
}

/// The answer to the last request, as text.
#[track_caller]
fn answer(card: &mut TestBox, host: &TestHost) -> String {
    text(&host.answer(card).expect("an answer"))
}
