//! PINs that are entered on the phone: what PC/SC's part 10, OpenSC, ssh and PAM make of it, through a real pcscd.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends where it fails, and prints what it measured"
)]

mod logins;
mod notices;
mod owned;

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use pocketcard_dev::{Card, Environment, Phone, TEST_PIN, TEST_PUK};
use pocketcard_ipc::control::{Event, RefusalReason, Reply};
use pocketcard_tests::client::{Client, ClientFailure, program, reader};
use pocketcard_tests::run::{Ran, run};
use pocketcard_tests::{skip, start};
use serde_json::{Value, json};

/// For a program that waits for a PIN of 25 s.
const LIMIT: Duration = Duration::from_secs(60);
/// What OpenSC and other programs wait for a PIN pad.
const PROGRAMS_WAIT: Duration = Duration::from_secs(30);
/// For a phone to hear of something.
const SOON: Duration = Duration::from_secs(10);

/// `SCARD_CTL_CODE` of each feature, as pcsc-lite numbers them.
const FEATURES: &str = "d48";
const VERIFY: &str = "6";
const MODIFY: &str = "7";

/// `PIN_VERIFY_STRUCTURE` as OpenSC fills it; and the head of `PIN_MODIFY_STRUCTURE`.
const VERIFY_PIN: &str = "1e1e02080008040200000000000000 0d000000 0020008008ffffffffffffffff";
const CHANGE_PIN: &str =
    "1e1e0208000008080403020000000001020000 00 15000000 0024008010ffffffffffffffffffffffffffffffff";

fn with_phone(card: Card) -> Environment {
    start(Environment::builder().card(card).daemon_config("pin_entry = \"phone\""))
}

fn control(client: &mut Client, code: &str, input: &str) -> Result<Value, ClientFailure> {
    client.send(&["control", code, &input.replace(' ', "")]);
    client.answer(LIMIT)
}

/// Waits until the phone asks, and gives the question.
fn question(phone: &mut Phone) -> Value {
    phone.wait_event("asking for a PIN", SOON, |event| event["event"] == "pin_asked").unwrap()
}

/// The owner enters what is asked for.
fn enter(phone: &mut Phone, pin: &str) -> Value {
    let asked = question(phone);
    phone.send(&json!({ "command": "enter_pin", "id": asked["id"], "pin": pin })).unwrap();
    asked
}

fn pocketcard(environment: &Environment, arguments: &[&str]) -> Ran {
    run(environment.command(program("pocketcard")).args(arguments), SOON)
}

fn status(environment: &Environment) -> pocketcard_ipc::control::SlotStatus {
    environment.daemon_control().unwrap().status().unwrap().slots.remove(0)
}

/// Runs a program, and does something on the phone meanwhile.
pub(crate) fn meanwhile<T>(mut command: Command, act: impl FnOnce() -> T) -> (Ran, T, Duration) {
    let begin = Instant::now();
    thread::scope(|scope| {
        let program = scope.spawn(move || run(&mut command, LIMIT));
        let acted = act();
        let ran = program.join().unwrap();
        (ran, acted, begin.elapsed())
    })
}

#[test]
fn each_end_of_an_entry_has_its_own_status_word() {
    let mut environment = with_phone(Card::Empty);
    let mut client = Client::connected(&environment, 0);
    let features = control(&mut client, FEATURES, "").unwrap();
    for feature in ["0604", "0704", "0a04", "1204"] {
        assert!(features.as_str().unwrap().contains(feature), "{features}");
    }
    let verify = |client: &mut Client| client.send(&["control", VERIFY, &VERIFY_PIN.replace(' ', "")]);

    verify(&mut client);
    let asked = enter(environment.phone(0).unwrap(), TEST_PIN);
    assert_eq!((&asked["purpose"], &asked["tries_left"]), (&json!("verify"), &json!(3)));
    assert_eq!(client.answer(LIMIT).unwrap(), "9000");
    assert_eq!(client.transmit(&[0x00, 0x20, 0x00, 0x80]).unwrap(), [0x90, 0x00], "the PIN is verified");
    assert!(status(&environment).pin_verified);

    verify(&mut client);
    enter(environment.phone(0).unwrap(), "999999");
    assert_eq!(client.answer(LIMIT).unwrap(), "63c2");
    verify(&mut client);
    enter(environment.phone(0).unwrap(), "1234");
    assert_eq!(client.answer(LIMIT).unwrap(), "6403", "too short, and no try is spent");
    assert_eq!(status(&environment).pin_tries_left, Some(2));

    // Cancelled by the owner.
    verify(&mut client);
    let phone = environment.phone(0).unwrap();
    let asked = question(phone);
    phone.send(&json!({ "command": "cancel_pin", "id": asked["id"] })).unwrap();
    assert_eq!(client.answer(LIMIT).unwrap(), "6401");
    let refusal = status(&environment).last_refusal.expect("a refusal");
    assert_eq!((refusal.reason, refusal.key.as_deref()), (RefusalReason::Cancelled, Some("80")));

    // The two new ones differ; then they do not.
    for (repeated, answer) in [("654322", "6402"), ("654321", "9000")] {
        client.send(&["control", MODIFY, &CHANGE_PIN.replace(' ', "")]);
        let phone = environment.phone(0).unwrap();
        let asked = question(phone);
        assert_eq!(asked["purpose"], "change");
        let id = &asked["id"];
        phone
            .send(&json!({ "command": "enter_pin", "id": id, "pin": TEST_PIN, "new": "654321", "repeated": repeated }))
            .unwrap();
        assert_eq!(client.answer(LIMIT).unwrap(), answer);
    }
    let unblock = CHANGE_PIN.replace("00240080", "002c0080");
    client.send(&["control", MODIFY, &unblock.replace(' ', "")]);
    let phone = environment.phone(0).unwrap();
    let asked = question(phone);
    assert_eq!(asked["purpose"], "unblock");
    let id = &asked["id"];
    phone
        .send(&json!({ "command": "enter_pin", "id": id, "pin": TEST_PUK, "new": TEST_PIN, "repeated": TEST_PIN }))
        .unwrap();
    assert_eq!(client.answer(LIMIT).unwrap(), "9000");
    assert!(status(&environment).last_refusal.is_none(), "a success ends the talk of a refusal");
}

#[test]
fn a_pin_that_was_blocked_is_newer_than_what_was_refused_before() {
    let mut environment = with_phone(Card::Empty);
    let mut client = Client::connected(&environment, 0);
    let verify = |client: &mut Client| client.send(&["control", VERIFY, &VERIFY_PIN.replace(' ', "")]);
    verify(&mut client);
    let phone = environment.phone(0).unwrap();
    let asked = question(phone);
    phone.send(&json!({ "command": "cancel_pin", "id": asked["id"] })).unwrap();
    assert_eq!(client.answer(LIMIT).unwrap(), "6401");
    for answer in ["63c2", "63c1", "63c0"] {
        let shown = pocketcard(&environment, &["status"]);
        assert!(shown.text.contains("it was cancelled"), "{}", shown.text);
        verify(&mut client);
        enter(environment.phone(0).unwrap(), "999999");
        assert_eq!(client.answer(LIMIT).unwrap(), answer);
    }
    let shown = pocketcard(&environment, &["status"]);
    assert!(shown.text.contains("PIN blocked") && !shown.text.contains("it was cancelled"), "{}", shown.text);
}

#[test]
fn a_hostile_description_asks_nobody() {
    let mut environment = with_phone(Card::Empty);
    let mut client = Client::connected(&environment, 0);
    // PUT DATA of a readable object; BCD; the PIN at another place; text behind it; a VERIFY of the PUK.
    for input in [
        "1e1e02080008040200000000000000 14000000 00db3fff0f5c035fc1025308ffffffffffffffff",
        "1e1e01080008040200000000000000 0d000000 0020008008ffffffffffffffff",
        "1e1e8a080008040200000000000000 0d000000 0020008008ffffffffffffffff",
        "1e1e02080008040200000000000000 0d000000 0020008008ffffffffffffffff456e746572",
        "1e1e02080008040200000000000000 0d000000 0020008108ffffffffffffffff",
        "",
    ] {
        assert_eq!(control(&mut client, VERIFY, input).unwrap(), "6b80", "{input}");
    }
    let asked = environment.phone(0).unwrap().wait_event("nothing", Duration::from_millis(300), |event| {
        event["event"] == "pin_asked" || event["event"] == "apdu"
    });
    assert!(asked.is_err(), "{asked:?}");
}

#[test]
fn nobody_waits_longer_than_programs_do() {
    let mut environment = with_phone(Card::Empty);
    let mut client = Client::connected(&environment, 0);
    // Three seconds, as the program wants it; then a phone that stops in the middle.
    let short = VERIFY_PIN.replacen("1e1e", "0303", 1);
    let begin = Instant::now();
    assert_eq!(control(&mut client, VERIFY, &short).unwrap(), "6400");
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(2900) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(status(&environment).last_refusal.expect("a refusal").reason, RefusalReason::Unanswered);
    question(environment.phone(0).unwrap());

    let begin = Instant::now();
    assert_eq!(control(&mut client, VERIFY, VERIFY_PIN).unwrap(), "6400");
    let took = begin.elapsed();
    println!("an entry that nobody makes ends after {took:?}");
    assert!(took >= Duration::from_secs(25) && took < PROGRAMS_WAIT, "{took:?}");
}

#[test]
fn whoever_sits_at_the_computer_can_give_up() {
    let mut environment = with_phone(Card::Empty);
    let mut client = Client::connected(&environment, 0);
    let nothing = pocketcard(&environment, &["cancel"]);
    assert!(!nothing.success && nothing.text.contains("no program waits"), "{}", nothing.text);
    for arguments in [&["cancel"][..], &["cancel", "--slot", "0"]] {
        let mut watch = environment.daemon_control().unwrap();
        watch.watch().unwrap();
        client.send(&["control", VERIFY, &VERIFY_PIN.replace(' ', "")]);
        question(environment.phone(0).unwrap());
        let mut until = |wanted: fn(&Event) -> bool| loop {
            if let Reply::Event(event) = watch.receive(Some(SOON)).unwrap()
                && wanted(&event)
            {
                return;
            }
        };
        until(|event| matches!(event, Event::Pending { slot: 0, reason, .. } if reason == "pin_entry"));
        let shown = pocketcard(&environment, &["status"]).text;
        assert!(shown.contains("PIN to be entered on the phone"), "{shown}");
        let cancelled = pocketcard(&environment, arguments);
        assert!(cancelled.success, "{}", cancelled.text);
        assert_eq!(client.answer(LIMIT).unwrap(), "6401");
        until(|event| matches!(event, Event::PendingOver { slot: 0 }));
        let gone = environment
            .phone(0)
            .unwrap()
            .wait_event("the question to go away", SOON, |event| event["event"] == "pin_gone");
        assert!(gone.is_ok(), "{gone:?}");
    }
    client.send(&["control", VERIFY, &VERIFY_PIN.replace(' ', "")]);
    enter(environment.phone(0).unwrap(), TEST_PIN);
    assert_eq!(client.answer(LIMIT).unwrap(), "9000", "the reader goes on");
}

#[test]
fn a_phone_that_is_killed_in_the_middle_is_a_card_that_left() {
    let mut environment = with_phone(Card::Empty);
    let mut client = Client::connected(&environment, 0);
    client.send(&["control", VERIFY, &VERIFY_PIN.replace(' ', "")]);
    question(environment.phone(0).unwrap());
    let begin = Instant::now();
    environment.phone(0).unwrap().kill();
    let answer = client.answer(LIMIT);
    assert!(matches!(&answer, Err(ClientFailure::Pcsc(_))), "{answer:?}");
    assert!(begin.elapsed() < PROGRAMS_WAIT, "{:?}", begin.elapsed());
}

#[test]
fn the_reader_follows_the_daemons_configuration_without_pcscd() {
    let mut environment = start(Environment::builder().card(Card::Empty));
    let mut client = Client::start(&environment);
    for (pin_entry, pad) in [("keyboard", false), ("phone", true), ("keyboard", false)] {
        let path = environment.daemon().config().to_path_buf();
        let text = std::fs::read_to_string(&path).unwrap();
        let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("pin_entry")).collect();
        std::fs::write(&path, format!("pin_entry = \"{pin_entry}\"\n{}\n", kept.join("\n"))).unwrap();
        environment.daemon().restart().unwrap();
        environment.wait_card(0, true, SOON).unwrap();
        client.connect(&reader(&environment, 0)).unwrap();
        let features = control(&mut client, FEATURES, "").unwrap();
        assert_eq!(features.as_str().unwrap().contains("0604"), pad, "{pin_entry}: {features}");
        assert_eq!(control(&mut client, VERIFY, "00").is_ok(), pad, "a code that is not announced is not known");
        client.call(&["disconnect", "leave"]).unwrap();
    }
}

/// What OpenSC says of the token, with the PIN pad or without.
fn flags(environment: &Environment) -> String {
    let ran = run(environment.command("pkcs11-tool").arg("--list-slots"), LIMIT);
    assert!(ran.success, "{}", ran.text);
    ran.text.lines().find(|line| line.contains("token flags")).unwrap_or_default().to_owned()
}

fn sign(environment: &Environment) -> Command {
    std::fs::write(environment.folder().join("document"), "signed by a phone").unwrap();
    let mut command = environment.command("pkcs11-tool");
    command.current_dir(environment.folder()).args(["--login", "--id", "01", "--sign", "--mechanism", "ECDSA-SHA256"]);
    command.args(["--input-file", "document", "--output-file", "signature"]);
    command
}

#[test]
fn pkcs11_tool_signs_with_a_pin_of_the_phone_and_says_what_went_wrong() {
    if pocketcard_dev::find_program("pkcs11-tool").is_none() {
        skip!("pkcs11-tool is not installed: apt-get install opensc");
    }
    let mut environment = with_phone(Card::Ec);
    assert!(flags(&environment).contains("PIN pad present"), "{}", flags(&environment));
    let (ran, asked, _) = meanwhile(sign(&environment), || enter(environment.phone(0).unwrap(), TEST_PIN));
    assert!(ran.success, "{}", ran.text);
    assert_eq!(asked["purpose"], "verify");
    assert!(environment.folder().join("signature").metadata().unwrap().len() > 60);

    let mut ends = Vec::new();
    let (ran, _, _) = meanwhile(sign(&environment), || enter(environment.phone(0).unwrap(), "999999"));
    ends.push(("wrong", ran));
    let (ran, (), _) = meanwhile(sign(&environment), || {
        question(environment.phone(0).unwrap());
        assert!(pocketcard(&environment, &["cancel"]).success);
    });
    ends.push(("cancelled here", ran));
    let (ran, (), _) = meanwhile(sign(&environment), || {
        let phone = environment.phone(0).unwrap();
        let asked = question(phone);
        phone.send(&json!({ "command": "cancel_pin", "id": asked["id"] })).unwrap();
    });
    ends.push(("denied", ran));
    let (ran, _, took) = meanwhile(sign(&environment), || question(environment.phone(0).unwrap()));
    assert!(took < PROGRAMS_WAIT, "{took:?}");
    ends.push(("unanswered", ran));
    for (end, ran) in &ends {
        assert!(!ran.success, "{end}: {}", ran.text);
        let error = ran.text.lines().find(|line| line.contains("CKR_")).unwrap_or_default();
        println!("pkcs11-tool, {end}: {error}");
        assert!(error.contains(if *end == "wrong" { "CKR_PIN_INCORRECT" } else { "CKR_" }), "{end}: {}", ran.text);
    }
}

#[test]
fn with_the_keyboard_programs_ask_themselves() {
    if pocketcard_dev::find_program("pkcs11-tool").is_none() {
        skip!("pkcs11-tool is not installed: apt-get install opensc");
    }
    let mut environment = start(Environment::builder().card(Card::Ec).daemon_config("pin_entry = \"keyboard\""));
    assert!(!flags(&environment).contains("PIN pad present"), "{}", flags(&environment));
    let mut signing = sign(&environment);
    signing.args(["--pin", TEST_PIN]);
    let ran = run(&mut signing, LIMIT);
    assert!(ran.success, "{}", ran.text);
    let asked = environment
        .phone(0)
        .unwrap()
        .wait_event("nothing", Duration::from_millis(300), |event| event["event"] == "pin_asked");
    assert!(asked.is_err(), "{asked:?}");
}
