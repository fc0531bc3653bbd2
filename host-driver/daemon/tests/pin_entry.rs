//! PINs that are entered on the phone, what a person may give up, and what a phone permits and refuses, at the daemon's
//! sockets.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // helpers of tests

mod support;

use pocketcard_daemon::config::SlotConfig;
use pocketcard_ipc::control::{ClientError, ErrorCode, Event, PinPlace, RefusalReason};
use pocketcard_ipc::driver::{Failure, PinEntry, PinOperation, PowerAction, Request, Role};
use pocketcard_protocol::link::VersionRange;
use support::{Answer, Driver, TestDaemon, TestPhone, wait_event};

const METADATA: [u8; 5] = [0x00, 0xF7, 0x00, 0x80, 0x00];

/// Two slots with a phone each; PINs of the second one are entered there.
fn two() -> (TestDaemon, [TestPhone; 2]) {
    let phones = [TestPhone::start("first"), TestPhone::start("second")];
    let mut daemon = TestDaemon::start(2, &phones.each_ref().map(TestPhone::address));
    daemon.config.slot = vec![SlotConfig { number: 1, pin_entry: Some(PinPlace::Phone) }];
    daemon.restart(VersionRange::SUPPORTED);
    for (slot, phone) in phones.iter().enumerate() {
        daemon.pair(phone, None).unwrap();
        daemon.wait_card(slot, true);
    }
    (daemon, phones)
}

fn powered(daemon: &TestDaemon, slot: u32) -> Driver {
    let Answer::Presence(true, generation) = daemon.driver(Role::Events, slot).receive() else { panic!("no card") };
    let mut command = daemon.driver(Role::Command, slot);
    assert!(matches!(command.power(PowerAction::Up, generation), Answer::Powered(_)));
    command
}

fn enter_pin(command: &mut Driver) -> Answer {
    command.send(&Request::PinEntry(PinEntry::new(PinOperation::Verify, 0x80, None).unwrap()));
    command.receive()
}

fn code(result: Result<(), ClientError>) -> ErrorCode {
    match result {
        Err(ClientError::Failed(failure)) => failure.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_slot_has_its_own_place_for_pins() {
    let (daemon, _phones) = two();
    let status = daemon.control().status().unwrap();
    assert_eq!(
        status.slots.iter().map(|slot| slot.pin_entry).collect::<Vec<_>>(),
        [PinPlace::Keyboard, PinPlace::Phone]
    );
    assert_eq!(enter_pin(&mut powered(&daemon, 0)), Answer::Failed(Failure::Unsupported), "nobody is asked there");
    // Nobody answers at this phone, which says so at once.
    let mut watch = daemon.control();
    watch.watch().unwrap();
    assert_eq!(enter_pin(&mut powered(&daemon, 1)), Answer::Response(vec![0x64, 0x00]));
    wait_event(
        &mut watch,
        |event| matches!(event, Event::Refused { slot: 1, reason: RefusalReason::Unanswered, key: Some(key) } if key == "80"),
    );
    let status = daemon.control().status().unwrap();
    assert_eq!(status.slots[1].last_refusal.as_ref().unwrap().reason, RefusalReason::Unanswered);
    assert_eq!(status.slots[0].last_refusal, None);
}

#[test]
fn a_phone_of_an_earlier_time_is_a_clear_failure_and_goes_on() {
    let (daemon, [_, phone]) = two();
    phone.set_old();
    let mut command = powered(&daemon, 1);
    assert_eq!(enter_pin(&mut command), Answer::Failed(Failure::Unsupported));
    assert!(matches!(command.transmit(&METADATA), Answer::Response(response) if response.ends_with(&[0x90, 0])));
}

#[test]
fn what_is_under_way_can_be_given_up_by_phone_by_slot_or_because_it_is_the_only_one() {
    let (daemon, phones) = two();
    let mut control = daemon.control();
    let mut watch = daemon.control();
    watch.watch().unwrap();
    let mut commands = [powered(&daemon, 0), powered(&daemon, 1)];
    assert_eq!(code(control.cancel(None, None)), ErrorCode::NothingUnderWay);
    assert_eq!(code(control.cancel(None, Some(1))), ErrorCode::NothingUnderWay);
    assert_eq!(code(control.cancel(Some("first".into()), None)), ErrorCode::NothingUnderWay);
    assert_eq!(code(control.cancel(Some("third".into()), None)), ErrorCode::NoSuchPhone);
    assert_eq!(code(control.cancel(None, Some(2))), ErrorCode::SlotTaken);
    let mut begin = |slots: &[usize], commands: &mut [Driver; 2]| {
        for slot in slots {
            phones[*slot].set_holds(true);
            commands[*slot].send(&Request::Transmit { apdu: &METADATA });
            wait_event(&mut watch, |event| matches!(event, Event::Pending { slot: at, .. } if *at as usize == *slot));
        }
    };
    begin(&[0, 1], &mut commands);
    assert_eq!(code(control.cancel(None, None)), ErrorCode::AmbiguousPhone);
    control.cancel(Some("first".into()), None).unwrap();
    assert_eq!(commands[0].receive(), Answer::Failed(Failure::Cancelled));
    control.cancel(None, Some(1)).unwrap();
    assert_eq!(commands[1].receive(), Answer::Failed(Failure::Cancelled));
    begin(&[1], &mut commands);
    control.cancel(None, None).unwrap();
    assert_eq!(commands[1].receive(), Answer::Failed(Failure::Cancelled));
    wait_event(&mut watch, |event| *event == Event::PendingOver { slot: 1 });
}

#[test]
fn a_session_that_locks_ends_what_waits_in_every_slot_and_leaves_the_cards() {
    let (daemon, phones) = two();
    let (mut control, mut watch) = (daemon.control(), daemon.control());
    watch.watch().unwrap();
    control.end_pin().unwrap();
    let mut commands = [powered(&daemon, 0), powered(&daemon, 1)];
    for (slot, phone) in phones.iter().enumerate() {
        phone.set_holds(true);
        commands[slot].send(&Request::Transmit { apdu: &METADATA });
        wait_event(&mut watch, |event| matches!(event, Event::Pending { slot: at, .. } if *at as usize == slot));
    }
    control.end_pin().unwrap();
    for command in &mut commands {
        assert_eq!(command.receive(), Answer::Failed(Failure::Cancelled));
    }
    assert!(control.status().unwrap().slots.iter().all(|slot| slot.card_present && slot.powered));
}

#[test]
fn a_cancel_that_comes_too_late_does_not_hit_what_came_after() {
    let (daemon, phones) = two();
    let (mut control, mut watch) = (daemon.control(), daemon.control());
    watch.watch().unwrap();
    let mut command = powered(&daemon, 1);
    phones[1].set_holds(true);
    let mut hold = |command: &mut Driver| {
        command.send(&Request::Transmit { apdu: &METADATA });
        wait_event(&mut watch, |event| matches!(event, Event::Pending { slot: 1, .. }))
    };
    let Event::Pending { operation: Some(first), .. } = hold(&mut command) else { panic!("no number") };
    assert_eq!(control.status().unwrap().slots[1].operation, Some(first), "the number that is announced is shown");
    control.cancel_operation(first).unwrap();
    assert_eq!(command.receive(), Answer::Failed(Failure::Cancelled));
    assert_eq!(control.status().unwrap().slots[1].operation, None);
    let Event::Pending { operation: Some(second), .. } = hold(&mut command) else { panic!("no number") };
    assert_ne!(first, second);
    let error = control.cancel_operation(first).unwrap_err();
    assert!(error.to_string().contains("is over"), "{error}");
    assert_eq!(code(Err(error)), ErrorCode::NothingUnderWay);
    assert_eq!(control.status().unwrap().slots[1].operation, Some(second), "the second one waits on");
    control.cancel_operation(second).unwrap();
    assert_eq!(command.receive(), Answer::Failed(Failure::Cancelled));
}

#[test]
fn what_a_phone_permits_is_shown_with_it() {
    let (daemon, _phones) = two();
    daemon.wait("permissions", |status| {
        status.slots.iter().all(|slot| slot.phone.as_ref().is_some_and(|phone| phone.permissions.is_some()))
    });
    let permissions = daemon.control().phones().unwrap().remove(0).permissions.unwrap();
    assert!(permissions.keys.contains(&"9A".to_owned()) && permissions.typed_pin, "{permissions:?}");
}
