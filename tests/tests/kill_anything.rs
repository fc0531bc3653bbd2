//! Phone, daemon and pcscd killed at random moments during signatures: every call ends, nothing wedges.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends where it fails, and prints what it measured"
)]

use std::fs;
use std::time::{Duration, Instant};

use pocketcard_dev::{CARD_LIMIT, Card, Environment};
use pocketcard_tests::apdu::{RIGHT_PIN, SELECT_PIV, sign_p256, signature, status_word, verify};
use pocketcard_tests::client::reader;
use pocketcard_tests::piv::PublicKey;
use pocketcard_tests::run::repetitions;
use pocketcard_tests::{Client, ClientFailure, start};

/// Every call of a client ends within this after the kill.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// Signatures that a client asks for one after the other while somebody is killed.
const BURST: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Phone,
    Daemon,
    Pcscd,
}

const VICTIMS: [Victim; 3] = [Victim::Phone, Victim::Daemon, Victim::Pcscd];

fn random(below: u64) -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes) % below
}

fn digest() -> [u8; 32] {
    let mut digest = [0; 32];
    getrandom::fill(&mut digest).unwrap();
    digest
}

fn open(client: &mut Client, name: &str) {
    client.connect(name).unwrap();
    assert_eq!(status_word(&client.transmit(SELECT_PIV).unwrap()), 0x9000);
    assert_eq!(status_word(&client.transmit(&verify(RIGHT_PIN)).unwrap()), 0x9000);
}

fn kill(environment: &mut Environment, victim: Victim) {
    match victim {
        Victim::Phone => environment.phone(0).unwrap().kill(),
        Victim::Daemon => environment.daemon().kill(),
        Victim::Pcscd => environment.pcscd().unwrap().kill(),
    }
}

fn restart(environment: &mut Environment, victim: Victim) {
    match victim {
        Victim::Phone => environment.phone(0).unwrap().restart().unwrap(),
        Victim::Daemon => environment.daemon().restart().unwrap(),
        Victim::Pcscd => environment.pcscd().unwrap().restart().unwrap(),
    }
}

#[test]
fn every_call_ends_whoever_is_killed() {
    let mut environment = start(Environment::builder().card(Card::Ec));
    let name = reader(&environment, 0);
    let mut client = Client::start(&environment);
    open(&mut client, &name);
    let public_key = PublicKey::of_9a(&environment, &mut client, "9a");
    let scratch = environment.folder().join("scratch");
    fs::create_dir(&scratch).unwrap();

    // How long a burst of signatures takes here, so that the kills fall all over it.
    let started = Instant::now();
    for _ in 0..BURST {
        assert_eq!(status_word(&client.transmit(&sign_p256(0x9A, &digest())).unwrap()), 0x9000);
    }
    // Not to the very end: a kill comes later than it is asked for.
    let mut span = u64::try_from(started.elapsed().as_micros()).unwrap() * 3 / 4;

    let rounds = repetitions(48, 200);
    let (mut slowest, mut errors, mut results, mut in_flight) = (Duration::ZERO, 0, 0, 0);
    for round in 0..rounds {
        let victim = VICTIMS[round % VICTIMS.len()];
        let inputs: Vec<[u8; 32]> = (0..BURST).map(|_| digest()).collect();
        // The client works through them one after the other; the last one is called when everything is long over.
        for input in &inputs {
            client.send(&["transmit", &hex::encode(sign_p256(0x9A, input))]);
        }
        std::thread::sleep(Duration::from_micros(random(span)));
        kill(&mut environment, victim);
        let killed = Instant::now();
        // Checking a signature takes longer than anything here, so that all answers are taken in first.
        let mut answers = Vec::new();
        for _ in &inputs {
            let left = (killed + ENDS_WITHIN).saturating_duration_since(Instant::now());
            answers.push(client.response(left));
            slowest = slowest.max(killed.elapsed());
        }
        let mut failed = 0;
        for (input, answer) in inputs.iter().zip(answers) {
            match answer {
                Ok(response) => {
                    assert_eq!(failed, 0, "round {round}: {victim:?} is dead, yet a later call was answered");
                    let signature = signature(&response)
                        .unwrap_or_else(|| panic!("round {round}, {victim:?}: not a signature: {response:02x?}"));
                    assert!(public_key.verifies(&scratch, input, signature), "round {round}: a wrong signature");
                    results += 1;
                }
                Err(ClientFailure::Pcsc(_)) => failed += 1,
                Err(other) => panic!("round {round}, {victim:?}: {other:?}"),
            }
        }
        errors += failed;
        in_flight += usize::from(failed > 0);
        // The machine may be busier or idler than it was: a kill that came too late makes the next ones earlier.
        span = if failed == 0 { (span * 3 / 4).max(1) } else { span + span / 16 + 1 };

        // A call that begins while the victim is away ends as well.
        let called = Instant::now();
        client.send(&["transmit", &hex::encode(SELECT_PIV)]);
        match client.response(ENDS_WITHIN) {
            Ok(response) => panic!("round {round}: {victim:?} is dead, yet SELECT was answered {response:02x?}"),
            Err(ClientFailure::Pcsc(_)) => slowest = slowest.max(called.elapsed()),
            Err(other) => panic!("round {round}, {victim:?}, the call after the kill: {other:?}"),
        }

        restart(&mut environment, victim);
        environment.wait_card(0, true, CARD_LIMIT).unwrap_or_else(|error| panic!("round {round}, {victim:?}: {error}"));
        open(&mut client, &name);
        let input = digest();
        let response = client.transmit(&sign_p256(0x9A, &input)).unwrap();
        let signature = signature(&response).unwrap_or_else(|| panic!("after {victim:?}: {response:02x?}"));
        assert!(public_key.verifies(&scratch, &input, signature));
    }
    // `cargo xtask` repeats these lines in its summary.
    println!("REPORT: kill_anything: {rounds} kills, {in_flight} of them before the last of {BURST} signatures");
    println!("REPORT: kill_anything: calls: {results} right results, {errors} errors, no other end");
    println!("REPORT: kill_anything: slowest end of a call after a kill {slowest:?} (limit {ENDS_WITHIN:?})");
    assert!(in_flight * 3 > rounds, "most kills came too late to test anything");
}

/// A phone that does not run but whose socket is open: nobody is told, so only limits help.
#[test]
fn a_phone_that_hangs_is_given_up_and_comes_back() {
    let mut environment = start(Environment::builder().card(Card::Ec));
    let name = reader(&environment, 0);
    let mut client = Client::start(&environment);
    open(&mut client, &name);
    environment.phone(0).unwrap().process().unwrap().suspend().unwrap();
    let called = Instant::now();
    client.send(&["transmit", &hex::encode(sign_p256(0x9A, &digest()))]);
    let answer = client.response(Duration::from_secs(10));
    let took = called.elapsed();
    println!("REPORT: kill_anything: a command to a phone that hangs ended after {took:?}: {answer:?}");
    assert!(matches!(answer, Err(ClientFailure::Pcsc(_))), "{answer:?}");
    // The phone has two seconds for an answer or for saying that it needs longer.
    assert!(took < Duration::from_secs(4), "{took:?}");
    environment.wait_card(0, false, CARD_LIMIT).unwrap();
    environment.phone(0).unwrap().process().unwrap().resume().unwrap();
    environment.wait_card(0, true, CARD_LIMIT).unwrap();
    open(&mut client, &name);
    assert_eq!(status_word(&client.transmit(&sign_p256(0x9A, &digest())).unwrap()), 0x9000);
}
