//! What a phone says to everybody is asked for once, and kept on disk.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use pocketcard_ipc::driver::{PowerAction, Role};
use pocketcard_protocol::link::VersionRange;
use support::{Answer, Driver, LIMIT, TestDaemon, TestPhone};

const SELECT: &[u8] = &[0, 0xA4, 4, 0, 5, 0xA0, 0, 0, 3, 8, 0];
const CHUID: &[u8] = &[0, 0xCB, 0x3F, 0xFF, 5, 0x5C, 3, 0x5F, 0xC1, 2, 0];
const PRINTED: &[u8] = &[0, 0xCB, 0x3F, 0xFF, 5, 0x5C, 3, 0x5F, 0xC1, 9, 0];
const PIN_STATUS: &[u8] = &[0, 0x20, 0, 0x80];

/// The files that are kept.
fn kept(daemon: &TestDaemon) -> Vec<PathBuf> {
    let entries = fs::read_dir(daemon.config.state_dir.join("snapshots")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "snapshot")).collect()
}

/// Waits for something that nothing tells of.
fn wait(what: &str, is_there: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_there() {
        assert!(Instant::now() < deadline, "no {what}");
        std::thread::yield_now();
    }
}

/// What a program sees of the card in slot 0.
fn look(daemon: &TestDaemon) -> Vec<Answer> {
    daemon.wait_card(0, true);
    let Answer::Presence(true, generation) = daemon.driver(Role::Events, 0).receive() else { panic!("no card") };
    let mut driver: Driver = daemon.driver(Role::Command, 0);
    assert!(matches!(driver.power(PowerAction::Up, generation), Answer::Powered(_)));
    [SELECT, CHUID, PRINTED, PIN_STATUS].into_iter().map(|command| driver.transmit(command)).collect()
}

#[test]
fn a_phone_says_it_once() {
    let phone = TestPhone::start("Pixel");
    let mut daemon = TestDaemon::start(1, &[phone.address()]);
    daemon.pair(&phone, None).unwrap();
    daemon.wait_card(0, true);
    wait("snapshot on disk", || kept(&daemon).len() == 1);
    let seen = look(&daemon);
    assert_eq!(seen[2..], [Answer::Response(vec![0x69, 0x82]), Answer::Response(vec![0x63, 0xC3])]);
    assert_eq!(phone.asked(), (0, 1), "commands, pages");
    let age = |daemon: &TestDaemon| daemon.control().status().unwrap().slots[0].snapshot_age_s;
    assert!(age(&daemon).is_some_and(|age| age < LIMIT.as_secs()));

    daemon.end();
    let file = kept(&daemon).remove(0);
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    fs::File::options().write(true).open(&file).unwrap().set_modified(hour_ago).unwrap();
    daemon.restart(VersionRange::SUPPORTED);
    assert_eq!(look(&daemon), seen);
    assert_eq!(phone.asked(), (0, 1), "the daemon had it on its disk");
    assert!(age(&daemon).is_some_and(|age| (3600..3600 + LIMIT.as_secs()).contains(&age)));

    // Damaged in a way that only the digest tells.
    daemon.end();
    let mut bytes = fs::read(&file).unwrap();
    let right = bytes.clone();
    let chuid = bytes.windows(2).position(|part| part == [0x30, 0x19]).unwrap();
    bytes[chuid + 10] ^= 1;
    fs::write(&file, &bytes).unwrap();
    daemon.restart(VersionRange::SUPPORTED);
    assert_eq!(look(&daemon), seen);
    assert_eq!(phone.asked().1, 2, "it was asked for again");
    wait("right snapshot on disk", || fs::read(&file).is_ok_and(|bytes| bytes == right));

    daemon.control().forget("Pixel").unwrap();
    assert!(kept(&daemon).is_empty(), "a phone that is forgotten leaves nothing");
}
