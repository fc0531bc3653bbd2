//! Connections to phones that break and come back, or do not.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // helpers of tests

mod support;

use std::time::{Duration, Instant};

use pocketcard_ipc::control::{Client, Event};
use pocketcard_ipc::driver::{Failure, PowerAction, Request, Role};
use support::{Answer, Driver, TestDaemon, TestPhone, wait_event};

const VERSION: [u8; 5] = [0x00, 0xFD, 0x00, 0x00, 0x00];
const WRONG_PIN: [u8; 13] = *b"\x00\x20\x00\x80\x08654321\xFF\xFF";
const VERIFY: [u8; 13] = *b"\x00\x20\x00\x80\x08123456\xFF\xFF";

/// Far below the grace of five seconds.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A paired phone, and a driver that has powered its card up and verified the PIN.
struct World {
    daemon: TestDaemon,
    phone: TestPhone,
    command: Driver,
    events: Driver,
    generation: u64,
    watch: Client,
}

impl World {
    fn new() -> Self {
        let phone = TestPhone::start("Ann's phone");
        let daemon = TestDaemon::start(1, &[phone.address()]);
        daemon.pair(&phone, None).unwrap();
        daemon.wait_card(0, true);
        let mut events = daemon.driver(Role::Events, 0);
        let Answer::Presence(true, generation) = events.receive() else { panic!("no card") };
        let mut command = daemon.driver(Role::Command, 0);
        assert!(matches!(command.power(PowerAction::Up, generation), Answer::Powered(_)));
        assert_eq!(command.transmit(&VERIFY), Answer::Response(vec![0x90, 0]));
        let mut watch = daemon.control();
        watch.watch().unwrap();
        Self { daemon, phone, command, events, generation, watch }
    }

    /// Sends a wrong PIN, and cuts the connection when the phone has it and says that it takes its time.
    fn cut_under_way(&mut self) {
        self.phone.set_holds(true);
        self.command.send(&Request::Transmit { apdu: &WRONG_PIN });
        wait_event(&mut self.watch, |event| matches!(event, Event::Pending { slot: 0, .. }));
        self.phone.set_holds(false);
        self.phone.cut();
    }

    fn card_left(&mut self) {
        assert_eq!(self.events.receive(), Answer::Presence(false, self.generation));
    }
}

#[test]
fn a_connection_that_breaks_is_not_noticed() {
    let mut world = World::new();
    let begin = Instant::now();
    for _ in 0..3 {
        world.cut_under_way();
        assert_eq!(world.command.receive(), Answer::Response(vec![0x63, 0xC2]));
        assert_eq!(world.command.transmit(&VERIFY), Answer::Response(vec![0x90, 0]));
        world.phone.cut();
    }
    assert!(begin.elapsed() < AT_ONCE * 3, "{:?}", begin.elapsed());
    assert!(matches!(world.command.transmit(&VERSION), Answer::Response(_)));
    world.phone.kill();
    // The first that the reader hears since.
    world.card_left();
}

#[test]
fn a_phone_that_accepts_and_knows_nothing_is_a_removal_and_an_insertion() {
    let mut world = World::new();
    world.phone.lose_memory();
    world.cut_under_way();
    let begin = Instant::now();
    assert_eq!(world.command.receive(), Answer::Failed(Failure::NotPresent));
    world.card_left();
    assert_eq!(world.events.receive(), Answer::Presence(true, world.generation + 1));
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
}

#[test]
fn a_phone_that_is_slow_to_come_back_is_waited_for() {
    let mut world = World::new();
    world.phone.hang();
    world.phone.cut();
    world.command.send(&Request::Transmit { apdu: &WRONG_PIN });
    world.daemon.wait("broken connection", |status| {
        let phone = status.slots[0].phone.as_ref().unwrap();
        status.slots[0].card_present && !matches!(phone.link, pocketcard_ipc::control::LinkState::Connected {})
    });
    world.phone.wake();
    assert_eq!(world.command.receive(), Answer::Response(vec![0x63, 0xC2]), "it waited for the link");
}

#[test]
fn a_phone_that_is_forgotten_meanwhile_is_not_waited_for() {
    let mut world = World::new();
    world.phone.hang();
    world.phone.cut();
    world.command.send(&Request::Transmit { apdu: &WRONG_PIN });
    let begin = Instant::now();
    world.daemon.control().forget("Ann's phone").unwrap();
    assert_eq!(world.command.receive(), Answer::Failed(Failure::NotPresent));
    world.card_left();
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    world.phone.wake();
}

#[test]
fn a_phone_that_is_gone_from_its_address_is_not_waited_for() {
    let mut world = World::new();
    world.cut_under_way();
    assert_eq!(world.command.receive(), Answer::Response(vec![0x63, 0xC2]));
    let begin = Instant::now();
    world.phone.kill();
    world.card_left();
    assert_eq!(world.command.transmit(&VERSION), Answer::Failed(Failure::NotPresent));
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
}
