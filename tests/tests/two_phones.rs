//! Two phones in two slots, four clients at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends where it fails, and prints what it measured"
)]

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use pocketcard_dev::{Card, Environment, TEST_MANAGEMENT_KEY};
use pocketcard_tests::apdu::{RIGHT_PIN, SELECT_PIV, sign_p256, signature, status_word, verify};
use pocketcard_tests::client::reader;
use pocketcard_tests::piv::PublicKey;
use pocketcard_tests::run::{repetitions, run, ykman};
use pocketcard_tests::{Client, ClientFailure, skip, start};

#[test]
fn four_clients_get_signatures_by_the_right_phone() {
    let environment = start(Environment::builder().card(Card::Ec).slots(2));
    let keys: Vec<PublicKey> = (0..2)
        .map(|slot| PublicKey::of_9a(&environment, &mut Client::connected(&environment, slot), &format!("slot-{slot}")))
        .collect();
    let rounds = repetitions(8, 100);
    let started = Instant::now();
    thread::scope(|scope| {
        for number in 0..4_u8 {
            let slot = usize::from(number % 2);
            let (key, other) = (&keys[slot], &keys[1 - slot]);
            let mut client = Client::connected(&environment, slot);
            let scratch: PathBuf = environment.folder().join(format!("client-{number}"));
            fs::create_dir(&scratch).unwrap();
            scope.spawn(move || {
                for round in 0..rounds {
                    client.call(&["begin"]).unwrap();
                    assert_eq!(status_word(&client.transmit(SELECT_PIV).unwrap()), 0x9000);
                    assert_eq!(status_word(&client.transmit(&verify(RIGHT_PIN)).unwrap()), 0x9000);
                    let digest = [number ^ u8::try_from(round % 251).unwrap(); 32];
                    let response = client.transmit(&sign_p256(0x9A, &digest)).unwrap();
                    client.call(&["end", "leave"]).unwrap();
                    let signature = signature(&response).unwrap_or_else(|| panic!("{response:02x?}"));
                    assert!(key.verifies(&scratch, &digest, signature), "client {number}, round {round}");
                    assert!(!other.verifies(&scratch, &digest, signature), "signed by the other phone");
                }
            });
        }
    });
    println!("4 clients x {rounds} signatures on 2 phones in {:?}", started.elapsed());
}

#[test]
fn a_phone_that_waits_for_its_owner_does_not_delay_the_other() {
    let Some(ykman) = ykman() else { skip!("ykman is not installed; `cargo xtask test` installs it") };
    // Nothing is approved by itself here: the first phone's owner takes a while.
    let mut environment = start(Environment::builder().card(Card::Ec).slots(2).auto_approve(false));
    let mut generate = environment.command(ykman);
    generate.args(["--reader", &reader(&environment, 0), "piv", "keys", "generate", "--algorithm", "ECCP256"]);
    generate.args(["--touch-policy", "ALWAYS", "--management-key", TEST_MANAGEMENT_KEY, "9a", "-"]);
    let ran = run(&mut generate, Duration::from_secs(60));
    assert!(ran.success, "{}", ran.text);

    let mut waiting = Client::connected(&environment, 0);
    assert_eq!(status_word(&waiting.transmit(SELECT_PIV).unwrap()), 0x9000);
    assert_eq!(status_word(&waiting.transmit(&verify(RIGHT_PIN)).unwrap()), 0x9000);
    waiting.send(&["transmit", &hex::encode(sign_p256(0x9A, &[1; 32]))]);
    let phone = environment.phone(0).unwrap();
    let asked =
        phone.wait_event("asking its owner", Duration::from_secs(5), |event| event["event"] == "approval").unwrap();

    // The other phone works meanwhile, with commands that need no approval.
    let mut other = Client::connected(&environment, 1);
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let started = Instant::now();
        assert_eq!(status_word(&other.transmit(SELECT_PIV).unwrap()), 0x9000);
        assert_eq!(status_word(&other.transmit(&verify(RIGHT_PIN)).unwrap()), 0x9000);
        slowest = slowest.max(started.elapsed());
    }
    println!("REPORT: two_phones: slowest SELECT and VERIFY beside a phone that waits for its owner {slowest:?}");
    // Had the other phone waited for this approval, it would have waited for ever: nobody has given it yet.
    assert_eq!(waiting.response(Duration::ZERO), Err(ClientFailure::Hangs));

    let id = asked["id"].clone();
    let phone = environment.phone(0).unwrap();
    phone.send(&serde_json::json!({ "command": "approve", "id": id, "agree": true })).unwrap();
    let response = waiting.response(Duration::from_secs(5)).unwrap();
    assert!(signature(&response).is_some(), "{response:02x?}");
}
