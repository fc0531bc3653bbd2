//! The daemon from outside: phones, drivers and tools at its sockets.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // helpers of tests

mod support;

use std::time::{Duration, Instant};

use pocketcard_ipc::Side;
use pocketcard_ipc::control::{ClientError, DriverState, ErrorCode, Event, LinkState, PairMethod, Reply, Request};
use pocketcard_ipc::driver::{Failure, PowerAction, Role};
use pocketcard_protocol::link::VersionRange;
use support::{Answer, Driver, TestDaemon, TestPhone, wait_event};

/// GET METADATA of the PIN: it has to be asked of the card.
const METADATA: [u8; 5] = [0x00, 0xF7, 0x00, 0x80, 0x00];
const VERIFY: [u8; 13] = *b"\x00\x20\x00\x80\x08123456\xFF\xFF";
const STATUS: [u8; 4] = [0x00, 0x20, 0x00, 0x80];

fn paired() -> (TestDaemon, TestPhone) {
    let phone = TestPhone::start("Ann's phone");
    let daemon = TestDaemon::start(2, &[phone.address()]);
    daemon.pair(&phone, None).unwrap();
    daemon.wait_card(0, true);
    (daemon, phone)
}

fn powered(daemon: &TestDaemon, slot: u32) -> (Driver, Driver, u64) {
    let mut events = daemon.driver(Role::Events, slot);
    let Answer::Presence(true, generation) = events.receive() else { panic!("no card") };
    let mut command = daemon.driver(Role::Command, slot);
    assert!(matches!(command.power(PowerAction::Up, generation), Answer::Powered(atr) if atr.len() > 2));
    (command, events, generation)
}

fn code(error: ClientError) -> ErrorCode {
    match error {
        ClientError::Failed(failure) => failure.code,
        other => panic!("{other}"),
    }
}

#[test]
fn a_phone_is_paired_and_answers_a_driver() {
    let (daemon, _phone) = paired();
    let (mut command, _events, generation) = powered(&daemon, 0);
    assert!(matches!(command.transmit(&METADATA), Answer::Response(response) if response.ends_with(&[0x90, 0])));
    assert_eq!(command.transmit(&VERIFY), Answer::Response(vec![0x90, 0]));
    assert_eq!(command.transmit(&STATUS), Answer::Response(vec![0x90, 0]));
    assert!(matches!(command.power(PowerAction::Reset, generation), Answer::Powered(_)));
    assert_eq!(command.transmit(&STATUS), Answer::Response(vec![0x63, 0xC3]));
    let status = daemon.control().status().unwrap();
    assert_eq!(status.slots[0].driver, DriverState::Connected);
    assert!(status.slots[0].powered && status.slots[0].card_present);
    assert!(status.slots[0].phone.as_ref().unwrap().software.is_some());
    assert_eq!(status.slots[1].driver, DriverState::Absent);
}

#[test]
fn a_driver_that_dies_takes_the_verified_pin_with_it() {
    let (daemon, _phone) = paired();
    let (mut command, _events, generation) = powered(&daemon, 0);
    assert_eq!(command.transmit(&VERIFY), Answer::Response(vec![0x90, 0]));
    drop(command);
    let mut next = daemon.driver(Role::Command, 0);
    assert_eq!(next.transmit(&STATUS), Answer::Failed(Failure::NotPresent), "it must be powered up first");
    assert!(matches!(next.power(PowerAction::Up, generation), Answer::Powered(_)));
    assert_eq!(next.transmit(&STATUS), Answer::Response(vec![0x63, 0xC3]));
    // A second driver for the same slot replaces the first.
    assert_eq!(next.transmit(&VERIFY), Answer::Response(vec![0x90, 0]));
    let mut third = daemon.driver(Role::Command, 0);
    assert_eq!(next.receive(), Answer::Closed);
    assert!(matches!(third.power(PowerAction::Up, generation), Answer::Powered(_)));
    assert_eq!(third.transmit(&STATUS), Answer::Response(vec![0x63, 0xC3]));
}

#[test]
fn a_killed_phone_ends_a_command_at_once_and_comes_back_as_a_new_card() {
    let (daemon, mut phone) = paired();
    let (mut command, mut events, generation) = powered(&daemon, 0);
    phone.set_holds(true);
    let mut watch = daemon.control();
    watch.watch().unwrap();
    command.send(&pocketcard_ipc::driver::Request::Transmit { apdu: &METADATA });
    wait_event(&mut watch, |event| matches!(event, Event::Pending { slot: 0, .. }));
    let begin = Instant::now();
    phone.kill();
    assert_eq!(command.receive(), Answer::Failed(Failure::NotPresent));
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert!(matches!(events.receive(), Answer::Presence(false, _)));
    phone.set_holds(false);
    phone.listen();
    let Answer::Presence(true, next) = events.receive() else { panic!("no card") };
    assert!(next > generation);
    assert_eq!(command.transmit(&METADATA), Answer::Failed(Failure::NotPresent));
    assert_eq!(command.power(PowerAction::Up, generation), Answer::Failed(Failure::NotPresent));
    assert!(matches!(command.power(PowerAction::Up, next), Answer::Powered(_)));
    assert!(matches!(command.transmit(&METADATA), Answer::Response(_)));
}

#[test]
fn a_phone_that_hangs_loses_its_link_after_two_seconds() {
    let (daemon, phone) = paired();
    let (mut command, mut events, _) = powered(&daemon, 0);
    phone.hang();
    let begin = Instant::now();
    assert_eq!(command.transmit(&METADATA), Answer::Failed(Failure::NotPresent));
    assert!((1900..4000).contains(&begin.elapsed().as_millis()), "{:?}", begin.elapsed());
    assert!(matches!(events.receive(), Answer::Presence(false, _)));
    phone.wake();
    assert!(matches!(events.receive(), Answer::Presence(true, _)), "and it comes back");
}

#[test]
fn a_restarted_daemon_finds_its_phones_and_nothing_verified() {
    let (mut daemon, _phone) = paired();
    let (mut command, mut events, _) = powered(&daemon, 0);
    assert_eq!(command.transmit(&VERIFY), Answer::Response(vec![0x90, 0]));
    daemon.restart(VersionRange::SUPPORTED);
    assert_eq!(command.receive(), Answer::Closed);
    assert!(matches!(events.receive(), Answer::Presence(false, _)), "the card goes before the daemon does");
    assert_eq!(events.receive(), Answer::Closed);
    daemon.wait_card(0, true);
    let (mut command, _events, _) = powered(&daemon, 0);
    assert_eq!(command.transmit(&STATUS), Answer::Response(vec![0x63, 0xC3]));
}

#[test]
fn forgetting_a_phone_takes_effect_at_once() {
    let (daemon, _phone) = paired();
    let (mut command, mut events, _) = powered(&daemon, 0);
    let mut control = daemon.control();
    assert_eq!(code(control.forget("nobody").unwrap_err()), ErrorCode::NoSuchPhone);
    control.rename("Ann's phone", "Pixel").unwrap();
    assert_eq!(code(control.rename("Pixel", "bad\nname").unwrap_err()), ErrorCode::BadName);
    assert_eq!(control.phones().unwrap()[0].name, "Pixel");
    control.forget("Pixel").unwrap();
    assert_eq!(control.phones().unwrap(), []);
    assert!(matches!(events.receive(), Answer::Presence(false, _)));
    assert_eq!(command.transmit(&METADATA), Answer::Failed(Failure::NotPresent));
    assert_eq!(std::fs::read_dir(daemon.config.state_dir.join("phones")).unwrap().count(), 0);
}

#[test]
fn slots_are_kept_and_a_full_table_is_an_error() {
    let (daemon, _first) = paired();
    let second = TestPhone::start("second");
    let third = TestPhone::start("third");
    assert_eq!(code(daemon.pair(&second, Some(0)).unwrap_err()), ErrorCode::SlotTaken);
    assert_eq!(code(daemon.pair(&second, Some(2)).unwrap_err()), ErrorCode::SlotTaken);
    assert_eq!(daemon.pair(&second, None).unwrap().slot, 1);
    let full = daemon.pair(&third, None).unwrap_err();
    assert!(full.to_string().contains("every one of the 2 slots"), "{full}");
    assert_eq!(code(full), ErrorCode::TableFull);
    daemon.wait_card(1, true);
    let (mut command, _events, _) = powered(&daemon, 1);
    assert!(matches!(command.transmit(&METADATA), Answer::Response(_)));
}

#[test]
fn a_phone_that_waits_does_not_delay_another() {
    let (daemon, first) = paired();
    let second = TestPhone::start("second");
    daemon.pair(&second, None).unwrap();
    daemon.wait_card(1, true);
    let mut watch = daemon.control();
    watch.watch().unwrap();
    let (mut waiting, _events, _) = powered(&daemon, 0);
    let (mut command, _other_events, _) = powered(&daemon, 1);
    first.set_holds(true);
    waiting.send(&pocketcard_ipc::driver::Request::Transmit { apdu: &METADATA });
    wait_event(&mut watch, |event| matches!(event, Event::Pending { slot: 0, reason, .. } if reason == "approval"));
    let begin = Instant::now();
    for _ in 0..100 {
        assert!(matches!(command.transmit(&METADATA), Answer::Response(_)));
    }
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[test]
fn pairing_fails_in_words() {
    let phone = TestPhone::start("phone");
    let daemon = TestDaemon::start(1, &[]);
    let mut client = daemon.control();
    let nowhere = Some("unix:/nonexistent/phone".parse().unwrap());
    assert_eq!(code(client.pair_start(nowhere, PairMethod::Qr, None).unwrap_err()), ErrorCode::Unreachable);
    assert_eq!(code(client.pair_start(None, PairMethod::Qr, None).unwrap_err()), ErrorCode::AddressRefused);
    // One pairing at a time; its connection's end is its end.
    client.pair_start(Some(phone.address()), PairMethod::Qr, None).unwrap();
    let mut other = daemon.control();
    let busy = other.pair_start(Some(phone.address()), PairMethod::Qr, None).unwrap_err();
    assert_eq!(code(busy), ErrorCode::PairingBusy);
    client.send(&Request::PairCancel {}).unwrap();
    assert!(matches!(
        client.receive(Some(support::LIMIT)).unwrap(),
        Reply::Error(failure) if failure.code == ErrorCode::PairingCancelled
    ));
    // The owner of the phone says no, three times; then it is enough.
    phone.set_agrees(false);
    for _ in 0..3 {
        let error = daemon.pair(&phone, None).unwrap_err();
        assert_eq!(code(error), ErrorCode::PairingFailed);
    }
    assert_eq!(code(daemon.pair(&phone, None).unwrap_err()), ErrorCode::TooManyTries);
    assert_eq!(daemon.control().phones().unwrap(), []);
}

#[test]
fn a_pair_that_cannot_be_stored_is_none() {
    let phone = TestPhone::start("phone");
    let daemon = TestDaemon::start(1, &[phone.address()]);
    let folder = daemon.config.state_dir.join("phones");
    std::fs::remove_dir(&folder).unwrap();
    let error = daemon.pair(&phone, None).unwrap_err();
    assert!(error.to_string().contains("could not be written"), "{error}");
    assert_eq!(code(error), ErrorCode::Storage);
    assert_eq!(daemon.control().phones().unwrap(), []);
    // The slot is still free, and the next attempt is as good as the first.
    std::fs::create_dir(&folder).unwrap();
    assert_eq!(daemon.pair(&phone, None).unwrap().slot, 0);
    daemon.wait_card(0, true);
}

#[test]
fn versions_that_do_not_meet_say_which_side_to_update() {
    let newer = VersionRange::new(2, 3).unwrap();
    for (ours, theirs, update) in
        [(VersionRange::SUPPORTED, newer, "on this computer"), (newer, VersionRange::SUPPORTED, "on the phone")]
    {
        let phone = TestPhone::with_versions("phone", theirs);
        let mut daemon = TestDaemon::start(1, &[phone.address()]);
        daemon.restart(ours);
        let error = daemon.pair(&phone, None).unwrap_err();
        assert!(error.to_string().ends_with(update), "{error}");
        assert_eq!(code(error), ErrorCode::PhoneVersion);
    }
    // A pair from before an update of this computer.
    let (mut daemon, _phone) = paired();
    daemon.restart(newer);
    daemon.wait("mismatch", |status| {
        let phone = status.slots[0].phone.as_ref().unwrap();
        phone.link == LinkState::VersionMismatch { ours: 3, theirs: 1, update: Side::Theirs }
    });
}

#[test]
fn hostile_bytes_harm_nobody() {
    let (daemon, _phone) = paired();
    let (mut command, _events, _) = powered(&daemon, 0);
    let driver = &daemon.config.driver_socket;
    for bytes in [
        &[0xFF; 64][..],
        &[0, 0, 0, 0],
        &[0, 0, 0, 1, 0x55],
        &[0, 0, 0, 8, 1, 0, 1, 0, 0, 0, 0, 9],
        b"{\"request\":\"status\"}\n",
    ] {
        let mut hostile = Driver::raw(driver, bytes);
        let answer = hostile.receive();
        assert!(matches!(answer, Answer::Closed | Answer::Hello(_)), "{answer:?}");
    }
    let hello_of_the_future = Driver::raw(driver, &[0, 0, 0, 8, 1, 0, 99, 0, 0, 0, 0, 0]).receive();
    assert_eq!(hello_of_the_future, Answer::Hello(pocketcard_ipc::driver::Verdict::Version));
    let mut garbage = daemon.driver(Role::Command, 1);
    garbage.send(&pocketcard_ipc::driver::Request::hello(Role::Command, 1));
    assert_eq!(garbage.receive(), Answer::Closed);
    for bytes in [&b"\n"[..], b"hello\n", b"{\"request\":\"forget\",\"phone\":\"Ann's phone\"}\n", &[b'x'; 100_000]] {
        let mut hostile = std::os::unix::net::UnixStream::connect(&daemon.config.control_socket).unwrap();
        let _ = std::io::Write::write_all(&mut hostile, bytes);
    }
    let mut client = daemon.control();
    client.send(&Request::Hello { version: 1, software: String::new() }).unwrap();
    assert!(matches!(client.receive(Some(support::LIMIT)).unwrap(), Reply::Error(_)));
    assert_eq!(client.phones().unwrap().len(), 1, "nothing was forgotten without a hello");
    assert!(matches!(command.transmit(&METADATA), Answer::Response(_)));
}

#[test]
fn clients_that_say_nothing_keep_others_out_for_a_moment_only() {
    let (daemon, _phone) = paired();
    let (mut command, _events, _) = powered(&daemon, 0);
    let connect = |path: &std::path::Path| std::os::unix::net::UnixStream::connect(path).unwrap();
    let _at_control: Vec<_> = (0..40).map(|_| connect(&daemon.config.control_socket)).collect();
    let _at_driver: Vec<_> = (0..80).map(|_| connect(&daemon.config.driver_socket)).collect();
    let begin = Instant::now();
    assert!(matches!(command.transmit(&METADATA), Answer::Response(_)));
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(daemon.control().phones().unwrap().len(), 1);
    assert!(begin.elapsed() > Duration::from_secs(4), "there was room for all: {:?}", begin.elapsed());
    let mut next = daemon.driver(Role::Events, 0);
    assert!(matches!(next.receive(), Answer::Presence(true, _)));
    assert!(matches!(command.transmit(&METADATA), Answer::Response(_)));
}

#[test]
fn the_doctor_finds_a_store_that_is_open_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let daemon = TestDaemon::start(1, &[]);
    let find = |check: &str| {
        let findings = daemon.control().doctor().unwrap();
        findings.into_iter().find(|finding| finding.check == check).unwrap().level
    };
    assert_eq!(find("state-folder"), pocketcard_ipc::control::Level::Good);
    assert_eq!(find("identity"), pocketcard_ipc::control::Level::Good);
    assert_eq!(find("phones"), pocketcard_ipc::control::Level::Note);
    let identity = daemon.config.state_dir.join("identity");
    std::fs::set_permissions(&identity, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(find("identity"), pocketcard_ipc::control::Level::Error);
}
