//! Programs and phones of different releases meet: the message says which of the two to update.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends where it fails, and prints what it measured"
)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::thread;
use std::time::Duration;

use pocketcard_dev::{CARD_LIMIT, Card, Environment};
use pocketcard_ipc::control::LinkState;
use pocketcard_tests::client::{eventually, program};
use pocketcard_tests::run::run;
use pocketcard_tests::start;

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn a_newer_phone_makes_the_computer_say_that_it_is_old() {
    let mut environment = start(Environment::builder().card(Card::Empty));
    let newer = ["--versions-for-testing-only", "200-201"];
    environment.phone(0).unwrap().restart_with(&newer).unwrap();
    // The daemon dials again, meets the made-up version and gives the card up.
    let mut seen = None;
    let noticed = eventually(CARD_LIMIT, || {
        let status = environment.daemon().control().unwrap().status().unwrap();
        seen = status.slots.into_iter().next().and_then(|slot| slot.phone).map(|phone| phone.link);
        matches!(seen, Some(LinkState::VersionMismatch { theirs: 201, .. }))
    });
    assert!(noticed, "{seen:?}");
    environment.wait_card(0, false, CARD_LIMIT).unwrap();
    let ran = run(environment.command(program("pocketcard")).arg("phones"), LIMIT);
    assert!(ran.text.contains("update Pocketcard on this computer"), "{}", ran.text);
    println!("{}", ran.text.trim());

    // The phone of the right release is a card again.
    environment.phone(0).unwrap().restart().unwrap();
    environment.wait_card(0, true, CARD_LIMIT).unwrap();
}

#[test]
fn pairing_with_a_newer_phone_says_so_too() {
    let mut environment = start(Environment::builder().card(Card::Empty));
    let ran = run(environment.command(program("pocketcard")).args(["forget", "Test phone 1"]), LIMIT);
    assert!(ran.success, "{}", ran.text);
    let phone = environment.phone(0).unwrap();
    phone.restart_with(&["--versions-for-testing-only", "200-201"]).unwrap();
    let address = phone.address();
    let mut pair = environment.command(program("pocketcard"));
    let ran = run(pair.args(["pair", "--connect", &address, "--yes-if-digits", "000000"]), LIMIT);
    assert!(!ran.success);
    assert!(ran.text.contains("update"), "{}", ran.text);
    println!(
        "{}",
        ran.text
            .lines()
            .filter(|line| line.contains("pocketcard:") || line.contains("what to do"))
            .collect::<Vec<_>>()
            .join("\n")
    );
}

/// A daemon that only says hello, in a made-up version.
fn daemon_of(version: u16) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        let hello = format!("{{\"reply\":\"hello\",\"version\":{version},\"software\":\"pocketcardd made-up\"}}\n");
        (&stream).write_all(hello.as_bytes()).unwrap();
        // Until the client leaves.
        let _ = BufReader::new(&stream).read_line(&mut line);
    });
    let mut command = Command::new(program("pocketcard"));
    let ran = run(command.arg("--control").arg(&path).arg("status"), LIMIT);
    server.join().unwrap();
    assert!(!ran.success);
    ran.text
}

#[test]
fn the_command_line_and_a_daemon_of_another_release() {
    let newer = daemon_of(pocketcard_ipc::VERSION + 1);
    assert!(newer.contains("update this program"), "{newer}");
    let older = daemon_of(pocketcard_ipc::VERSION - 1);
    assert!(older.contains("update the daemon"), "{older}");
}
