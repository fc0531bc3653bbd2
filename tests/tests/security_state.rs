//! A verified PIN ends with reset, power-off, deselection, the card's removal and the death of a client in a
//! transaction, and lives on after LEAVE until pcscd powers the card off.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends where it fails, and prints what it measured"
)]

use std::time::{Duration, Instant};

use pocketcard_dev::{CARD_LIMIT, Card, Environment};
use pocketcard_tests::apdu::{DISCOVERY, PIN_STATUS, RIGHT_PIN, SELECT_PIV, sign_p256, signature, status_word, verify};
use pocketcard_tests::client::{eventually, reader};
use pocketcard_tests::{Client, ClientFailure, start};
use serde_json::json;

/// pcscd powers an unused card off after at most five seconds.
const POWER_OFF: Duration = Duration::from_secs(5);

/// How long it is watched that a program waits for another's transaction.
const KEPT_WAITING: Duration = Duration::from_secs(1);

fn environment() -> Environment {
    start(Environment::builder().card(Card::Ec))
}

fn open_pin(client: &mut Client) {
    assert_eq!(status_word(&client.transmit(SELECT_PIV).unwrap()), 0x9000);
    assert_eq!(status_word(&client.transmit(&verify(RIGHT_PIN)).unwrap()), 0x9000);
    assert!(is_verified(client));
}

fn is_verified(client: &mut Client) -> bool {
    verified(&client.transmit(PIN_STATUS).unwrap())
}

/// What the card answers to [`PIN_STATUS`].
fn verified(response: &[u8]) -> bool {
    match status_word(response) {
        0x9000 => true,
        0x63C3 => false,
        other => panic!("PIN status {other:04X}"),
    }
}

/// What another client sees after something happened: it may be told of a reset first, and then connects anew.
fn is_verified_for_other(client: &mut Client) -> bool {
    let mut seen = Err(String::new());
    eventually(CARD_LIMIT, || {
        seen = look(client);
        seen.is_ok()
    });
    seen.unwrap_or_else(|error| panic!("the card of another client never came back: {error}"))
}

/// One step on the way of a client to the PIN's status; an error of PC/SC's if another is needed.
fn look(client: &mut Client) -> Result<bool, String> {
    match client.transmit(PIN_STATUS) {
        Ok(response) => Ok(verified(&response)),
        Err(ClientFailure::Pcsc(error)) => {
            match error.as_str() {
                // May fail while pcscd is in the middle of it. It forgets the protocol when it resets a card, now and then only
                // after it has let others in again: no error but that one tells them so, and only a reconnection helps.
                "ResetCard" | "UnpoweredCard" | "RemovedCard" | "ProtoMismatch" => {
                    let _ = client.call(&["reconnect", "shared", "leave"]);
                }
                // After somebody's UNPOWER pcscd leaves the card off while a handle is open, as with any reader: only a
                // reconnection with a reset powers it up again.
                "NotTransacted" => {
                    let _ = client.call(&["reconnect", "shared", "reset"]);
                }
                other => panic!("{other}"),
            }
            Err(error)
        }
        Err(other) => panic!("{other:?}"),
    }
}

/// Waits until the phone says whether the PIN is verified: what it says does not rest on what a witness does.
fn phone_says(environment: &mut Environment, verified: bool) {
    let state = |event: &serde_json::Value| event["event"] == "security";
    let phone = environment.phone(0).unwrap();
    phone
        .wait_event("a change of the PIN's state", POWER_OFF, |event| state(event) && event["pin_verified"] == verified)
        .unwrap();
    // What it said before that was about an earlier round.
    while phone.wait_event("no more", Duration::ZERO, state).is_ok() {}
}

/// The key must be as closed as the status says.
fn can_sign(client: &mut Client) -> bool {
    let response = client.transmit(&sign_p256(0x9A, &[7; 32])).unwrap();
    match status_word(&response) {
        0x9000 => {
            assert!(signature(&response).is_some(), "{response:02x?}");
            true
        }
        0x6982 => false,
        other => panic!("GENERAL AUTHENTICATE {other:04X}"),
    }
}

#[test]
fn every_disposition_as_a_second_client_sees_it() {
    let mut environment = environment();
    let name = reader(&environment, 0);
    for how in ["end", "reconnect", "disconnect"] {
        for disposition in ["leave", "reset", "unpower", "eject"] {
            let mut actor = Client::connected(&environment, 0);
            let mut witness = Client::connected(&environment, 0);
            open_pin(&mut actor);
            phone_says(&mut environment, true);
            assert!(is_verified_for_other(&mut witness), "programs that share a reader share its PIN state");
            let done = match how {
                "end" => {
                    actor.call(&["begin"]).unwrap();
                    actor.call(&["end", disposition])
                }
                "reconnect" => actor.call(&["reconnect", "shared", disposition]),
                _ => actor.call(&["disconnect", disposition]),
            };
            // Before the witness looks: it may have to reset the card to see it at all.
            if ["reset", "unpower"].contains(&disposition) {
                phone_says(&mut environment, false);
            }
            let lives = is_verified_for_other(&mut witness);
            if disposition == "eject" {
                // No driver of this kind can eject. pcscd says so, or closes the handle; the card must then be in one
                // of the two states, not between them.
                println!("{how} with eject: {done:?}, the PIN is verified: {lives}");
            } else {
                done.unwrap();
                assert_eq!(lives, disposition == "leave", "{how} with {disposition}");
            }
            assert_eq!(can_sign(&mut witness), lives, "{how} with {disposition}");
            if how == "disconnect" {
                actor.connect(&name).unwrap();
            }
            // Whoever acted gets the same view.
            let again = is_verified_for_other(&mut actor);
            assert_eq!(again, lives, "{how} with {disposition}, for the client that did it");
            // The next round begins with a closed card.
            let _ = witness.call(&["disconnect", "reset"]);
        }
    }
}

#[test]
fn a_foreign_select_keeps_the_state_and_another_applet_ends_it() {
    let environment = environment();
    let mut client = Client::connected(&environment, 0);
    open_pin(&mut client);
    // OpenPGP and GIDS are what tools probe for. Neither is installed: nothing changes.
    let foreign: [&[u8]; 2] = [
        &[0x00, 0xA4, 0x04, 0x00, 0x06, 0xD2, 0x76, 0x00, 0x01, 0x24, 0x01, 0x00],
        &[0x00, 0xA4, 0x04, 0x00, 0x09, 0xA0, 0x00, 0x00, 0x03, 0x97, 0x42, 0x54, 0x46, 0x59, 0x00],
    ];
    for select in foreign {
        assert_eq!(status_word(&client.transmit(select).unwrap()), 0x6A82);
        assert!(is_verified(&mut client));
    }
    // PIV itself again is no deselection.
    assert_eq!(status_word(&client.transmit(SELECT_PIV).unwrap()), 0x9000);
    assert!(is_verified(&mut client));
    // The card's other applet, in which there is no PIN.
    let mut witness = Client::connected(&environment, 0);
    let configuration = [0x00, 0xA4, 0x04, 0x00, 0x08, 0xA0, 0x00, 0x00, 0x05, 0x27, 0x47, 0x11, 0x17, 0x00];
    assert_eq!(status_word(&client.transmit(&configuration).unwrap()), 0x9000);
    assert_eq!(status_word(&client.transmit(PIN_STATUS).unwrap()), 0x6D00);
    assert_eq!(status_word(&client.transmit(SELECT_PIV).unwrap()), 0x9000);
    assert!(!is_verified(&mut client), "the PIN outlived a deselection");
    assert!(!is_verified(&mut witness), "for another client, too");
    assert!(!can_sign(&mut client));
}

#[test]
fn a_client_that_dies_in_a_transaction_takes_the_state_with_it() {
    let environment = environment();
    let mut witness = Client::connected(&environment, 0);
    let mut victim = Client::connected(&environment, 0);
    victim.call(&["begin"]).unwrap();
    open_pin(&mut victim);
    victim.kill();
    // pcscd notices the closed socket, resets the card and ends the transaction, in this order: whoever comes waits until then.
    assert!(!is_verified_for_other(&mut witness), "the PIN outlived the client that had a transaction");
    assert!(!can_sign(&mut witness));
}

#[test]
fn nobody_uses_the_pin_of_a_transaction_that_another_holds_nor_after_it_ended_with_reset() {
    let environment = environment();
    let mut other = Client::connected(&environment, 0);
    let mut holder = Client::connected(&environment, 0);
    holder.call(&["begin"]).unwrap();
    open_pin(&mut holder);
    assert!(can_sign(&mut holder), "whoever verified it uses it");
    // pcscd lets whoever comes meanwhile wait, and answers when the card is free.
    other.send(&["transmit", &hex::encode(sign_p256(0x9A, &[7; 32]))]);
    let meanwhile = other.response(KEPT_WAITING);
    assert_eq!(meanwhile, Err(ClientFailure::Hangs), "another program reached the card in a transaction");
    assert!(can_sign(&mut holder), "which the others did not disturb");
    holder.call(&["end", "reset"]).unwrap();
    match other.response(CARD_LIMIT) {
        Ok(response) => {
            assert_eq!(status_word(&response), 0x6982, "the PIN outlived a transaction that ended with RESET")
        }
        Err(ClientFailure::Pcsc(error)) => assert_eq!(error, "ResetCard"),
        Err(other) => panic!("{other:?}"),
    }
    assert!(!is_verified_for_other(&mut other));
    assert!(!can_sign(&mut other));
}

#[test]
fn after_leave_the_state_lives_while_a_handle_is_open() {
    let environment = environment();
    let mut keeper = Client::connected(&environment, 0);
    let mut leaver = Client::connected(&environment, 0);
    open_pin(&mut leaver);
    leaver.call(&["disconnect", "leave"]).unwrap();
    // Longer than pcscd waits before it powers an unused card off.
    std::thread::sleep(POWER_OFF + Duration::from_secs(2));
    assert!(is_verified(&mut keeper), "a handle was open all the time");
    assert!(can_sign(&mut keeper));
    // A client that dies without a transaction leaves the state, too.
    let mut victim = Client::connected(&environment, 0);
    assert!(is_verified(&mut victim));
    victim.kill();
    std::thread::sleep(Duration::from_millis(500));
    assert!(is_verified(&mut keeper));
}

#[test]
fn after_the_last_leave_the_state_lives_until_pcscd_powers_off() {
    let environment = environment();
    let name = reader(&environment, 0);
    let mut client = Client::connected(&environment, 0);
    open_pin(&mut client);
    client.call(&["disconnect", "leave"]).unwrap();
    // At once: pcscd has not powered off yet. This is what lets one PIN serve two programs that follow each other.
    let left = Instant::now();
    client.connect(&name).unwrap();
    let verified = is_verified(&mut client);
    println!("connected again {:?} after LEAVE: verified {verified}", left.elapsed());
    assert!(verified, "LEAVE must leave the state until power-off");
    client.call(&["disconnect", "leave"]).unwrap();
    std::thread::sleep(POWER_OFF + Duration::from_secs(2));
    client.connect(&name).unwrap();
    assert!(!is_verified(&mut client), "the PIN outlived the power-off of an unused card");
    assert!(!can_sign(&mut client));
}

#[test]
fn after_leave_another_program_uses_no_key_without_the_owner_and_nothing_once_the_card_is_off() {
    const OWN_PIN: &str = "246813";
    let mut environment = start(Environment::builder().owned());
    let phone = environment.phone(0).unwrap();
    let key = json!({ "slot": "9A", "algorithm": "p256", "touch_policy": "always" });
    let names = json!({ "common_name": "Ann" });
    phone
        .send(&json!({ "command": "enrol", "pin": OWN_PIN, "puk": "97531864", "names": names, "keys": [key] }))
        .unwrap();
    phone.wait_event("the enrolment", CARD_LIMIT, |event| event["event"] == "enrolled").unwrap();
    let mut first = Client::connected(&environment, 0);
    let mut second = Client::connected(&environment, 0);
    let name = reader(&environment, 0);
    // A signature, about which the owner is asked.
    let sign = hex::encode(sign_p256(0x9A, &[7; 32]));
    let mut asked = |client: &mut Client, agree: bool| {
        client.send(&["transmit", &sign]);
        let phone = environment.phone(0).unwrap();
        let question = phone.wait_event("asking its owner", CARD_LIMIT, |event| event["event"] == "approval").unwrap();
        phone.send(&json!({ "command": "approve", "id": question["id"], "agree": agree })).unwrap();
        status_word(&client.response(CARD_LIMIT).unwrap())
    };

    second.call(&["disconnect", "leave"]).unwrap();
    first.call(&["begin"]).unwrap();
    assert_eq!(status_word(&first.transmit(SELECT_PIV).unwrap()), 0x9000);
    assert_eq!(status_word(&first.transmit(&verify(OWN_PIN)).unwrap()), 0x9000);
    assert_eq!(asked(&mut first, true), 0x9000);
    first.call(&["end", "leave"]).unwrap();
    first.call(&["disconnect", "leave"]).unwrap();
    second.connect(&name).unwrap();
    assert!(is_verified(&mut second), "LEAVE leaves what was verified");
    assert_eq!(asked(&mut second, false), 0x6982, "a signature that the owner denied");
    second.call(&["disconnect", "leave"]).unwrap();

    std::thread::sleep(POWER_OFF + Duration::from_secs(2));
    second.connect(&name).unwrap();
    // Of the three tries a computer is told of those that it may use.
    let status = status_word(&second.transmit(PIN_STATUS).unwrap());
    assert_eq!(status, 0x63C2, "the PIN outlived the power-off of an unused card");
    assert!(!can_sign(&mut second), "and nobody is asked");
}

#[test]
fn a_phone_that_went_and_came_back_between_two_polls_is_a_new_card() {
    let mut environment = environment();
    let name = reader(&environment, 0);
    let mut client = Client::connected(&environment, 0);
    open_pin(&mut client);
    let before = client.call(&["counter", &name]).unwrap().as_u64().unwrap();
    // In its grace the old card still answers what may be read by everybody, so it has to have left.
    environment.phone(0).unwrap().kill();
    environment.daemon().wait_card(0, false, CARD_LIMIT).unwrap();
    environment.phone(0).unwrap().restart().unwrap();
    environment.daemon().wait_card(0, true, CARD_LIMIT).unwrap();
    // The old handle never reaches the new card.
    let error = client.transmit(DISCOVERY).unwrap_err();
    assert!(matches!(&error, ClientFailure::Pcsc(name) if name == "RemovedCard" || name == "NoSmartcard"), "{error:?}");
    environment.wait_card(0, true, CARD_LIMIT).unwrap();
    let after = client.call(&["counter", &name]).unwrap().as_u64().unwrap();
    assert!(after >= before + 2, "PC/SC counted {before} and then {after} insertions and removals");
    client.connect(&name).unwrap();
    assert!(!is_verified(&mut client), "the PIN outlived the card");
    assert!(!can_sign(&mut client));
}

#[test]
fn a_locked_card_is_a_removed_card() {
    let mut environment = environment();
    let name = reader(&environment, 0);
    let mut client = Client::connected(&environment, 0);
    open_pin(&mut client);
    let phone = environment.phone(0).unwrap();
    phone.send(&serde_json::json!({ "command": "lock" })).unwrap();
    environment.wait_card(0, false, CARD_LIMIT).unwrap();
    assert!(client.transmit(DISCOVERY).is_err());
    environment.phone(0).unwrap().send(&serde_json::json!({ "command": "unlock" })).unwrap();
    environment.wait_card(0, true, CARD_LIMIT).unwrap();
    client.connect(&name).unwrap();
    assert!(!is_verified(&mut client), "the PIN outlived the lock");
}
