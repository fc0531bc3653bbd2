//! What the card asks its owner, answered by script.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::io::Write;

use pocketcard_protocol::{
    link::Event,
    messages::{Body, Envelope, PinEntry, PinOperation, Transmit},
};
use serde_json::json;
use support::{Host, Phone, folder, pair};

/// Asks the phone for a PIN, as a PIN pad does. The answer follows.
fn ask_for_pin(host: &mut Host, session: u64, request_id: u64, operation: PinOperation, key_reference: u32) {
    let operation = operation.into();
    host.send(PinEntry { session, request_id, epoch: 1, operation, key_reference, time_limit_s: 0 });
}

fn response(host: &mut Host) -> String {
    loop {
        match host.event() {
            Event::Message(Envelope { body: Some(Body::Response(response)) }) => {
                return response.response.iter().map(|byte| format!("{byte:02X}")).collect();
            }
            Event::Message(_) => {}
            event => panic!("{event:?}"),
        }
    }
}

#[test]
fn a_pin_is_entered_cancelled_changed_and_never_repeated() {
    let folder = folder();
    let mut phone = Phone::start(folder.path(), &["--test-card", "empty"]);
    let pair = pair(&mut phone);
    let mut host = Host::connect(&phone.socket, &pair);
    let session = host.open();

    ask_for_pin(&mut host, session, 1, PinOperation::Verify, 0x80);
    let asked = phone.event("pin_asked");
    assert_eq!(
        (&asked["host_name"], &asked["purpose"], &asked["tries_left"]),
        (&json!("Test host"), &json!("verify"), &json!(3))
    );
    let wrong = [
        json!({ "command": "enter_pin", "id": asked["id"], "pin": "123456", "new": "654321" }).to_string(),
        r#"{"command":"enter_pin","id":1,"pin":"1234567","nonsense":"1234567"}"#.to_owned(),
        r#"{"command":"enter_pin","id":1,"pin":1234567}"#.to_owned(),
        r#"{"command":"enter_pin","id":999,"pin":"1234567"}"#.to_owned(),
        r#"{"command":"enter_pin","id":1,"pin":"\u0031234567"}"#.to_owned(),
    ];
    for wrong in wrong {
        writeln!(phone.input.as_mut().unwrap(), "{wrong}").unwrap();
        let error = phone.event("error").to_string();
        assert!(!error.contains("23456") && !error.contains("654321"), "{error}");
    }
    phone.send(&json!({ "command": "enter_pin", "id": asked["id"], "pin": "123456" }));
    assert_eq!(response(&mut host), "9000");

    ask_for_pin(&mut host, session, 2, PinOperation::Verify, 0x80);
    let asked = phone.event("pin_asked");
    phone.send(&json!({ "command": "cancel_pin", "id": asked["id"] }));
    assert_eq!(response(&mut host), "6401");

    for (request_id, repeated, expected) in [(3, "654322", "6402"), (4, "654321", "9000")] {
        ask_for_pin(&mut host, session, request_id, PinOperation::Change, 0x80);
        let asked = phone.event("pin_asked");
        assert_eq!(asked["purpose"], "change");
        let entered = json!({ "command": "enter_pin", "id": asked["id"], "pin": "123456", "new": "654321", "repeated": repeated });
        phone.send(&entered);
        assert_eq!(response(&mut host), expected);
    }

    // What the host takes back is gone, and cannot be answered any more.
    ask_for_pin(&mut host, session, 5, PinOperation::Verify, 0x80);
    let id = phone.event("pin_asked")["id"].clone();
    drop(host);
    assert_eq!(phone.event("pin_gone")["id"], id);
    phone.send(&json!({ "command": "enter_pin", "id": id, "pin": "654321" }));
    assert!(phone.event("error")["message"].as_str().unwrap().contains("no entry of a PIN"));
}

/// GENERAL AUTHENTICATE with key 9A, P-256: a signature.
const SIGN: &[u8] = &[
    0x00, 0x87, 0x11, 0x9A, 0x26, 0x7C, 0x24, 0x82, 0x00, 0x81, 0x20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
    15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 0x00,
];

fn sign(host: &mut Host, session: u64, request_id: u64) {
    host.send(Transmit { session, request_id, epoch: 1, command: SIGN.to_vec() });
}

fn status(response: &str) -> &str {
    &response[response.len() - 4..]
}

/// An owner's phone from nothing: PIN, PUK, keys and certificates by its script alone.
fn enrol(phone: &mut Phone) {
    let names = json!({ "common_name": "Ann", "principal": "ann@example.org" });
    let keys = json!([{ "slot": "9A", "algorithm": "p256" }, { "slot": "9E", "touch_policy": "always" }]);
    phone.send(&json!({ "command": "enrol", "pin": "246813", "puk": "97531864", "names": names, "keys": keys }));
    for (slot, number) in [("9A", 1), ("9E", 2)] {
        for stage in ["started", "done"] {
            let progress = phone.event("enrolment");
            let shown = (&progress["slot"], &progress["number"], &progress["of"], &progress["stage"]);
            assert_eq!(shown, (&json!(slot), &json!(number), &json!(2), &json!(stage)));
            assert_eq!(progress["algorithm"], "p256");
        }
    }
    phone.event("enrolled");
}

#[test]
fn an_owners_phone_is_enrolled_from_nothing_and_asked_for_what_a_computer_wants() {
    let folder = folder();
    let log = folder.path().join("log").display().to_string();
    let (mut phone, ready) = Phone::start_with_ready(folder.path(), &["--log", &log]);
    assert_eq!(ready["enrolled"], false);
    enrol(&mut phone);
    let pair = pair(&mut phone);
    let mut host = Host::connect(&phone.socket, &pair);
    let session = host.open();
    let id = phone.event("connected")["id"].clone();

    // The key asks for the PIN, and for the owner.
    sign(&mut host, session, 1);
    assert_eq!(response(&mut host), "6982");
    ask_for_pin(&mut host, session, 2, PinOperation::Verify, 0x80);
    let asked = phone.event("pin_asked");
    phone.send(&json!({ "command": "enter_pin", "id": asked["id"], "pin": "246813" }));
    assert_eq!(response(&mut host), "9000");
    sign(&mut host, session, 3);
    let asked = phone.event("approval");
    assert_eq!((&asked["host"], &asked["key"], &asked["purpose"]), (&json!("Test host"), &json!("9A"), &json!("sign")));
    phone.send(&json!({ "command": "approve", "id": asked["id"], "agree": true }));
    let signature = response(&mut host);
    assert_eq!(status(&signature), "9000", "{signature}");

    // A permission that is taken back: no question, and a refusal that says why.
    phone.send(&json!({ "command": "permit", "id": id, "keys": ["9E"], "typed_pin": false }));
    let permissions = phone.event("permissions");
    let expected = json!({ "keys": ["9E"], "typed_pin": false, "administer": false, "connect_unattended": true });
    assert_eq!(permissions["permissions"], expected);
    sign(&mut host, session, 4);
    assert_eq!(response(&mut host), "6982");
    let refused = loop {
        let event = phone.event("apdu");
        if event["command"] == "GENERAL AUTHENTICATE" && event["status"] == "6982" && event["refused"] != json!(null) {
            break event;
        }
    };
    assert_eq!(refused["refused"], "key_not_permitted");
    phone.send(&json!({ "command": "hosts" }));
    assert_eq!(phone.event("hosts")["hosts"][0]["permissions"], expected);
    let all = json!(["9A", "9C", "9D", "9E"]);
    phone.send(&json!({ "command": "permit", "id": id, "keys": all }));
    phone.event("permissions");

    // Two denials in a row, and the computer may not ask until its owner comes.
    for request_id in [5, 6] {
        ask_for_pin(&mut host, session, request_id, PinOperation::Verify, 0x80);
        let asked = phone.event("pin_asked");
        phone.send(&json!({ "command": "cancel_pin", "id": asked["id"] }));
        assert_eq!(response(&mut host), "6401");
    }
    assert_eq!(phone.event("prompts_held")["held"], true);
    ask_for_pin(&mut host, session, 7, PinOperation::Verify, 0x80);
    assert_eq!(response(&mut host), "6985");
    phone.send(&json!({ "command": "owner_present" }));
    assert_eq!(phone.event("prompts_held")["held"], false);
    ask_for_pin(&mut host, session, 8, PinOperation::Verify, 0x80);
    let asked = phone.event("pin_asked");
    phone.send(&json!({ "command": "enter_pin", "id": asked["id"], "pin": "246813" }));
    assert_eq!(response(&mut host), "9000");

    // All of it is in the log, and in its export, which overwrites nothing.
    phone.send(&json!({ "command": "log" }));
    let mut entries = Vec::new();
    let count = loop {
        let event = phone.any_of(&["log_entry", "log_end"]);
        if event["event"] == "log_end" {
            break event["entries"].as_u64().unwrap();
        }
        entries.push(event);
    };
    assert_eq!(entries.len() as u64, count);
    let found = |operation: &str, result: &str| {
        let fits = |entry: &&serde_json::Value| entry["operation"] == operation && entry["result"] == result;
        entries.iter().find(fits).unwrap_or_else(|| panic!("{operation} {result} is missing in {entries:?}"))
    };
    assert_eq!(found("sign", "done")["key"], "9A");
    assert_eq!(found("sign", "key_not_permitted")["host"], "Test host");
    assert_eq!(found("choose_pin", "done")["host"], json!(null));
    assert_eq!(found("verify_pin", "cancelled_by_owner")["asked"], true);
    let path = folder.path().join("log.json");
    let export = json!({ "command": "export_log", "path": path });
    phone.send(&export);
    let exported = phone.event("log_exported")["entries"].as_u64().unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count() as u64, exported);
    assert!(exported >= count && !text.contains("246813") && text.contains("key_not_permitted"));
    phone.send(&export);
    assert!(phone.event("error")["message"].as_str().unwrap().contains("exists"));

    // It is the same after a kill. What it wrote down until then has no secret in it.
    phone.kill();
    let written = std::fs::read_to_string(&log).unwrap();
    assert!(written.contains("pin_asked") && written.contains("enrolled"), "{written}");
    assert!(!written.contains("246813") && !written.contains("97531864"), "a secret is in the log file");
    let (mut phone, ready) = Phone::start_with_ready(folder.path(), &[]);
    assert_eq!(ready["enrolled"], true);
    phone.send(&json!({ "command": "slots" }));
    let slots = phone.event("slots");
    assert_eq!(slots["slots"][0]["algorithm"], "p256");
    assert!(slots["slots"][0]["certificate_hex"].as_str().unwrap().starts_with("3082"));
    assert_eq!(slots["slots"][1]["algorithm"], json!(null));
    assert_eq!((&slots["pin_tries_left"], &slots["puk_tries_left"]), (&json!(3), &json!(3)));
}

#[test]
fn pin_and_puk_are_changed_and_chosen_again_and_a_factory_reset_leaves_nothing() {
    let folder = folder();
    let mut phone = Phone::start(folder.path(), &[]);
    enrol(&mut phone);
    let pair = pair(&mut phone);
    phone.send(&json!({ "command": "change_pin", "pin": "111111", "new": "135792" }));
    let error = phone.event("error");
    assert!(error["message"].as_str().unwrap().contains("tries left"), "{error}");
    phone.send(&json!({ "command": "change_pin", "pin": "246813", "new": "135792" }));
    phone.event("pin_changed");
    phone.send(&json!({ "command": "change_puk", "puk": "97531864", "new": "86420975" }));
    phone.event("puk_changed");
    // Forgotten: the owner, who has the phone in hand, chooses new ones.
    phone.send(&json!({ "command": "choose_pin", "pin": "864209", "puk": "13579246" }));
    phone.event("pin_chosen");
    for (pin, puk) in [("12345", "12345678"), ("123456", "1234567"), ("123456789", "12345678"), ("12345x", "12345678")]
    {
        phone.send(&json!({ "command": "choose_pin", "pin": pin, "puk": puk }));
        let error = phone.event("error").to_string();
        assert!(!error.contains(pin) && !error.contains(puk), "{error}");
    }

    // A request for an authority, and its answer, which must fit the key.
    let names = json!({ "common_name": "Ann" });
    phone.send(&json!({ "command": "make_key", "key": { "slot": "9C", "algorithm": "p384" } }));
    phone.event("key_made");
    phone.send(&json!({ "command": "request_certificate", "pin": "864209", "slot": "9C", "names": names }));
    let request = phone.event("certificate_request");
    assert!(request["pem"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE REQUEST-----"));
    phone.send(&json!({ "command": "import_certificate", "slot": "9C", "certificate": "nonsense" }));
    assert!(phone.event("error")["message"].as_str().unwrap().contains("no X.509 certificate"));

    phone.send(&json!({ "command": "factory_reset" }));
    phone.event("forgotten");
    phone.event("factory_reset");
    phone.send(&json!({ "command": "slots" }));
    let slots = phone.event("slots");
    assert!(slots["slots"].as_array().unwrap().iter().all(|slot| slot["algorithm"] == json!(null)), "{slots}");
    assert_eq!(slots["pin_tries_left"], 0);
    let mut host = Host::connect(&phone.socket, &pair);
    loop {
        match host.event() {
            Event::Closed(_) => break,
            Event::Connected { .. } => panic!("a forgotten host connected"),
            _ => {}
        }
    }
}

#[test]
fn the_stand_in_for_a_sensor_says_who_is_there() {
    let folder = folder();
    for (options, exists) in
        [(["--test-card", "empty"].as_slice(), false), (&["--test-card", "empty", "--owner-check"], true)]
    {
        let state = folder.path().join(exists.to_string());
        std::fs::create_dir(&state).unwrap();
        let mut phone = Phone::start(&state, options);
        let pair = pair(&mut phone);
        let mut host = Host::connect(&phone.socket, &pair);
        let session = host.open();
        let verify = |host: &mut Host, request_id| {
            let command = vec![0x00, 0x20, 0x00, 0x96, 0x02, 0x03, 0x00];
            host.send(Transmit { session, request_id, epoch: 1, command });
        };
        if !exists {
            verify(&mut host, 1);
            assert_eq!(response(&mut host), "6A88");
            continue;
        }
        for (request_id, result, expected) in [(1, "not_matched", "63C2"), (2, "matched", "9000")] {
            verify(&mut host, request_id);
            let asked = phone.event("owner_check_asked");
            assert_eq!(asked["host_name"], "Test host");
            phone.send(&json!({ "command": "owner_check", "id": asked["id"], "result": result }));
            assert_eq!(response(&mut host), expected);
        }
    }
}

#[test]
fn a_computer_that_may_not_connect_unattended_waits_for_its_owner() {
    let folder = folder();
    let mut phone = Phone::start(folder.path(), &["--test-card", "empty"]);
    let pair = pair(&mut phone);
    phone.send(&json!({ "command": "hosts" }));
    let id = phone.event("hosts")["hosts"][0]["id"].clone();
    phone.send(&json!({ "command": "permit", "id": id, "connect_unattended": false }));
    phone.event("permissions");
    let mut host = Host::connect(&phone.socket, &pair);
    host.ask_to_open();
    let asked = phone.event("approval");
    assert_eq!((&asked["purpose"], &asked["host"]), (&json!("connect"), &json!("Test host")));
    phone.send(&json!({ "command": "approve", "id": asked["id"], "agree": false }));
    assert_eq!(phone.event("connection")["refused"], "denied");
    // The owner thinks better of it.
    phone.send(&json!({ "command": "allow_connection", "id": id }));
    assert_eq!(phone.event("connection")["refused"], json!(null));
    host.opened();
}
