//! What the card asks its owner, answered by script.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::io::Write;

use pocketcard_protocol::{
    link::Event,
    messages::{Body, Envelope, PinEntry, PinOperation},
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
