//! The virtual phone as a program: started, paired over its socket, asked for its card, killed and started again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::{
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use pocketcard_phone::SystemEntropy;
use pocketcard_protocol::{
    Timestamp,
    link::{CloseReason, Event, Link, Side, VersionRange},
    messages::Transmit,
    pairing::{Attempts, Offer, PairKeys},
    tlv,
};
use serde_json::json;
use support::{Host, Phone, folder, host_config, pair};

const SELECT: &[u8] = &[0x00, 0xA4, 0x04, 0x00, 0x09, 0xA0, 0x00, 0x00, 0x03, 0x08, 0x00, 0x00, 0x10, 0x00, 0x00];

fn assert_selects(phone: &mut Phone, pair: &PairKeys) {
    let mut host = Host::connect(&phone.socket, pair);
    let session = host.open();
    let response = host.transmit(session, 1, SELECT);
    assert_eq!(response[0], 0x61, "an application property template");
    assert_eq!(response[response.len() - 2..], [0x90, 0x00]);
    let event = phone.event("apdu");
    assert_eq!((event["command"].as_str(), event["status"].as_str()), (Some("SELECT"), Some("9000")));
}

#[test]
fn pairs_answers_and_is_the_same_phone_after_a_kill() {
    let folder = folder();
    let mut phone = Phone::start(folder.path(), &["--test-card", "ec", "--auto-approve"]);
    let pair = pair(&mut phone);
    assert_selects(&mut phone, &pair);
    phone.send(&json!({ "command": "hosts" }));
    let hosts = phone.event("hosts");
    assert_eq!(hosts["hosts"][0]["name"], "Test host");
    phone.kill();

    let mut phone = Phone::start(folder.path(), &["--test-card", "ec", "--auto-approve"]);
    assert_selects(&mut phone, &pair);

    // The certificate made at the first start is still there, and it is a certificate.
    let mut host = Host::connect(&phone.socket, &pair);
    let session = host.open();
    let object = host.transmit(session, 1, &[0x00, 0xCB, 0x3F, 0xFF, 0, 0, 5, 0x5C, 0x03, 0x5F, 0xC1, 0x05, 0, 0]);
    assert_eq!(object[object.len() - 2..], [0x90, 0x00]);
    assert_eq!(object[0], 0x53);
    assert!(object.windows(2).any(|window| window == [0x30, 0x82]));

    // The end of the input is the end of the phone, which tidies up.
    drop(phone.input.take());
    let status = phone.child.wait().unwrap();
    assert!(status.success());
    assert!(!phone.socket.exists());
    loop {
        match host.event() {
            Event::Closed(reason) => {
                assert!(matches!(reason, CloseReason::Peer(_) | CloseReason::Done | CloseReason::Lost), "{reason:?}");
                break;
            }
            Event::Message(_) => {}
            event => panic!("{event:?}"),
        }
    }
}

#[test]
fn a_crash_leaves_no_memory_behind() {
    let folder = folder();
    let phone = Phone::start(folder.path(), &["--test-card", "empty"]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", phone.child.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(core.split_whitespace().filter(|word| *word == "0").count() == 2, "{core}");
}

#[test]
fn a_forgotten_host_is_out_at_once_and_stays_out() {
    let folder = folder();
    let mut phone = Phone::start(folder.path(), &["--test-card", "empty", "--auto-approve"]);
    let pair = pair(&mut phone);
    let mut host = Host::connect(&phone.socket, &pair);
    host.open();
    let id = phone.event("connected")["id"].clone();
    phone.send(&json!({ "command": "forget", "id": id }));
    phone.event("forgotten");
    while !matches!(host.event(), Event::Closed(_)) {}
    let mut host = Host::connect(&phone.socket, &pair);
    loop {
        match host.event() {
            Event::Closed(reason) => break assert!(!matches!(reason, CloseReason::Done), "{reason:?}"),
            Event::Connected { .. } => panic!("a forgotten host connected"),
            _ => {}
        }
    }
}

#[test]
fn a_declined_pairing_stores_nothing() {
    let folder = folder();
    let mut phone = Phone::start(folder.path(), &["--test-card", "empty"]);
    let config = host_config(VersionRange::SUPPORTED);
    let offer =
        Offer::new(&config.identity.public(), &config.name, &SystemEntropy, &Attempts::new(), Timestamp::ZERO).unwrap();
    let qr = offer.qr_text().unwrap();
    phone.send(&json!({ "command": "scan", "qr": *qr }));
    phone.event("scanned");
    let mut host = Host::new(&phone.socket, Link::host_pair(config, offer, Timestamp::ZERO), Instant::now());
    while !matches!(host.event(), Event::PairingDigits { .. }) {}
    phone.event("digits");
    phone.send(&json!({ "command": "confirm", "agree": false }));
    while !matches!(host.event(), Event::Closed(_)) {}
    phone.event("pairing_failed");
    phone.send(&json!({ "command": "hosts" }));
    assert_eq!(phone.event("hosts")["hosts"], json!([]));
}

#[test]
fn of_two_versions_the_older_side_is_told_to_update() {
    let folder = folder();
    let mut phone = Phone::start(folder.path(), &["--test-card", "empty", "--versions-for-testing-only", "7-9"]);
    let config = host_config(VersionRange::SUPPORTED);
    let offer =
        Offer::new(&config.identity.public(), &config.name, &SystemEntropy, &Attempts::new(), Timestamp::ZERO).unwrap();
    let mut host = Host::new(&phone.socket, Link::host_pair(config, offer, Timestamp::ZERO), Instant::now());
    match host.event() {
        Event::Closed(CloseReason::VersionMismatch { update, theirs, .. }) => {
            assert_eq!((update, theirs.min(), theirs.max()), (Side::Host, 7, 9));
        }
        event => panic!("{event:?}"),
    }
    drop(host);
    phone.event("refused");
}

#[test]
fn wrong_commands_are_refused_without_being_repeated() {
    let folder = folder();
    let mut phone = Phone::start(folder.path(), &["--test-card", "empty"]);
    for wrong in [r#"{"command":"scan","qr":"pocketcard:nonsense"}"#, r#"{"command":"open"}"#, "nonsense", "[]"] {
        writeln!(phone.input.as_mut().unwrap(), "{wrong}").unwrap();
        let error = phone.event("error");
        assert!(!error["message"].as_str().unwrap().is_empty());
        assert!(!error.to_string().contains("nonsense"), "{error}");
    }
}

/// Exit code and standard error of a phone that must not start.
fn refused(arguments: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_virtual-phone")).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn errors_say_what_to_do() {
    let folder = folder();
    let state = folder.path().join("state").display().to_string();
    let listen = format!("unix:{}", folder.path().join("other.sock").display());
    let _phone = Phone::start(folder.path(), &["--test-card", "empty"]);
    let text = refused(&["--script", "--state", &state, "--listen", &listen]);
    assert!(text.contains("in use by another process"), "{text}");

    let other = folder.path().join("other").display().to_string();
    let taken = format!("unix:{}", folder.path().join("phone.sock").display());
    let text = refused(&["--script", "--state", &other, "--listen", &taken]);
    assert!(text.contains("listens on") && text.contains("choose another address"), "{text}");

    let text = refused(&["--script", "--state", &other, "--listen", "tcp:0.0.0.0:7390"]);
    assert!(text.contains("loopback only"), "{text}");

    let text = refused(&["--state", &other, "--listen", &listen]);
    assert!(text.contains("--script"), "{text}");

    let text = refused(&["--script", "--auto-approve", "--state", &other, "--listen", &listen]);
    assert!(text.contains("--test-card"), "{text}");

    let unasked = ["--script", "--auto-approve", "--test-card", "empty", "--state", &other];
    let text = refused(&[unasked.as_slice(), &["--listen", "tcp:127.0.0.1:0"]].concat());
    assert!(text.contains("--auto-approve needs a unix socket"), "{text}");
}

/// Prints what one encrypted round trip to the card costs, without pcscd. Run with `--ignored --nocapture`.
#[test]
#[ignore = "measures; nothing to fail"]
fn round_trip_cost() {
    let folder = folder();
    let mut phone = Phone::start(folder.path(), &["--test-card", "rsa", "--auto-approve", "--no-apdu-events"]);
    let pair = pair(&mut phone);
    let mut host = Host::connect(&phone.socket, &pair);
    let session = host.open();
    let version: &[u8] = &[0x00, 0xFD, 0x00, 0x00, 0x00];
    let certificate: &[u8] = &[0x00, 0xCB, 0x3F, 0xFF, 0, 0, 5, 0x5C, 0x03, 0x5F, 0xC1, 0x05, 0, 0];
    let mut request_id = 0;
    for (name, command) in [("GET VERSION", version), ("GET DATA of a certificate", certificate)] {
        let mut times: Vec<Duration> = (0..20_000)
            .map(|_| {
                request_id += 1;
                let start = Instant::now();
                host.transmit(session, request_id, command);
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        println!("{name}: p50 {:?}, p99 {:?}", times[times.len() / 2], times[times.len() * 99 / 100]);
    }
}

/// Reads a certificate as a computer does, and lets OpenSSL judge it.
fn check_certificate(host: &mut Host, session: u64, request_id: u64, object: u8, expected: &[&str]) {
    let command = [0x00, 0xCB, 0x3F, 0xFF, 0, 0, 5, 0x5C, 0x03, 0x5F, 0xC1, object, 0, 0];
    let response = host.transmit(session, request_id, &command);
    let content = tlv::only(&response[..response.len() - 2], 0x53).unwrap();
    let certificate = tlv::find(content, 0x70).unwrap().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certificate).unwrap();
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).arg(file.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = openssl(&["x509", "-inform", "DER", "-noout", "-text", "-in"]);
    for part in expected {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let pem = openssl(&["x509", "-inform", "DER", "-in"]);
    std::fs::write(file.path(), pem).unwrap();
    // Self-signed: it verifies with itself as the anchor.
    let path = file.path().display().to_string();
    openssl(&["verify", "-x509_strict", "-check_ss_sig", "-partial_chain", "-CAfile", &path]);
}

#[test]
fn certificates_of_test_cards_are_what_openssl_expects() {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("skipped: there is no openssl program");
        return;
    }
    let signature = "Digital Signature";
    for (card, key, management) in [("ec", "P-256", "Key Agreement"), ("rsa", "2048 bit", "Key Encipherment")] {
        let folder = folder();
        let mut phone = Phone::start(folder.path(), &["--test-card", card, "--auto-approve"]);
        let pair = pair(&mut phone);
        let mut host = Host::connect(&phone.socket, &pair);
        let session = host.open();
        let authentication = [key, signature, "TLS Web Client Authentication", "CN = Pocketcard test card"];
        check_certificate(&mut host, session, 1, 0x05, &authentication);
        check_certificate(&mut host, session, 2, 0x0A, &[key, signature, "Non Repudiation"]);
        check_certificate(&mut host, session, 3, 0x0B, &[key, management]);
        check_certificate(&mut host, session, 4, 0x01, &[key, signature, "CA:FALSE"]);
    }
}

#[test]
fn a_probe_stops_the_phone_exactly_where_it_says() {
    let folder = folder();
    let log = folder.path().join("probes");
    let log_text = log.display().to_string();
    let card = ["--test-card", "empty", "--auto-approve", "--probe-log-for-testing-only", &log_text];
    let stop = [card.as_slice(), &["--probe-stop-for-testing-only", "verify-after-commit:2"]].concat();
    let wrong_pin = [0x00, 0x20, 0x00, 0x80, 8, b'9', b'9', b'9', b'9', b'9', b'9', 0xFF, 0xFF];
    let status = [0x00, 0x20, 0x00, 0x80];

    let mut phone = Phone::start(folder.path(), &stop);
    let pair = pair(&mut phone);
    let mut host = Host::connect(&phone.socket, &pair);
    let session = host.open();
    assert_eq!(host.transmit(session, 1, &wrong_pin), [0x63, 0xC2]);
    host.send(Transmit { session, request_id: 2, epoch: 1, command: wrong_pin.to_vec() });
    assert_eq!(phone.event("probe")["point"], "verify-after-commit");
    phone.kill();
    let passed = std::fs::read_to_string(&log).unwrap();
    assert!(passed.ends_with("verify-received 2\nverify-before-commit 2\nverify-after-commit 2\n"), "{passed}");

    // The try was spent before the phone died, although nothing was compared.
    let mut phone = Phone::start(folder.path(), &card);
    let mut host = Host::connect(&phone.socket, &pair);
    let session = host.open();
    assert_eq!(host.transmit(session, 1, &status), [0x63, 0xC1]);
    phone.send(&json!({ "command": "quit" }));
    assert!(phone.child.wait().unwrap().success());
}
