//! What the owner permits, takes away and reads about: permissions, forgetting, the log.

use std::collections::BTreeSet;

use pocketcard_protocol::messages::{self, Cancel, RefusalReason, Refused};
use prost::Message as _;

use super::*;
use crate::{
    card::{Deed, piv::Slot, test_support::TestStore},
    traits::Batch,
};

const VERIFY: &[u8] = &[0x00, 0x20, 0x00, 0x80, 8, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0xFF, 0xFF];
const VERIFY_WRONG: &[u8] = &[0x00, 0x20, 0x00, 0x80, 8, 0x39, 0x39, 0x39, 0x39, 0x39, 0x39, 0xFF, 0xFF];
const GENERATE: &[u8] = &[0x00, 0x47, 0x00, 0x9A, 5, 0xAC, 3, 0x80, 1, 0x11, 0];

fn told(host: &Host) -> Vec<messages::Permissions> {
    let told = |event: &Event| match event {
        Event::Message(Envelope { body: Some(Body::Permissions(permissions)) }) => Some(permissions.clone()),
        _ => None,
    };
    host.events.iter().filter_map(told).collect()
}

/// Sends a command and gives its status word.
fn status(world: &mut World, host: &mut Host, session: u64, request_id: u64, command: &[u8]) -> u16 {
    host.send(world, Transmit { session, request_id, epoch: 1, command: command.to_vec() });
    for _ in 0..5000 {
        let answer = host.events.iter_mut().find_map(|event| match event {
            Event::Message(Envelope { body: Some(Body::Response(response)) }) if response.request_id == request_id => {
                Some(response.take_response().to_vec())
            }
            _ => None,
        });
        if let Some(answer) = answer.filter(|answer| !answer.is_empty()) {
            let [.., sw1, sw2] = answer[..] else { panic!("{answer:?}") };
            return u16::from_be_bytes([sw1, sw2]);
        }
        std::thread::sleep(Duration::from_micros(100));
        host.exchange(world);
    }
    panic!("no answer");
}

fn sign() -> Vec<u8> {
    [&[0x00, 0x87, 0x11, 0x9A, 0x26, 0x7C, 0x24, 0x82, 0x00, 0x81, 0x20][..], &[0xAB; 32], &[0]].concat()
}

fn log(world: &mut World) -> Vec<LogEntry> {
    let phone = world.phone.clone();
    world.ask(phone.log()).unwrap()
}

/// The log in short: who, what, how, and whether the owner was asked.
fn lines(world: &mut World) -> Vec<String> {
    let line = |entry: &LogEntry| {
        let who = entry.host.as_ref().map_or("owner", |host| host.name.as_str());
        let asked = if entry.asked { " asked" } else { "" };
        format!("{who}: {} {}{asked}", entry.operation.name(), entry.result.name())
    };
    log(world).iter().map(line).collect()
}

#[test]
fn permissions_are_stored_and_hold_at_once_and_after_a_restart() {
    let store = MemoryStore::new();
    let mut world = World::new(&store);
    let pair = pair(&mut world, 1);
    assert_eq!(
        hosts(&mut world)[0].permissions,
        Permissions::test_host(),
        "the hosts of a test card may do everything"
    );
    let (mut host, session) = world.session(1, &pair);
    assert_eq!(status(&mut world, &mut host, session, 1, VERIFY), 0x9000);
    let phone = world.phone.clone();
    let id = hosts(&mut world)[0].host;
    let given =
        Permissions { keys: BTreeSet::from([Slot::Signature]), connect_unattended: true, ..Permissions::none() };
    host.events.clear();
    world.ask(phone.set_permissions(id, given.clone())).unwrap();
    let event = world.event(|event| matches!(event, PhoneEvent::PermissionsChanged { .. }));
    assert!(
        matches!(event, PhoneEvent::PermissionsChanged { host, permissions, .. } if host == id && permissions == given)
    );
    host.exchange(&mut world);
    assert_eq!(told(&host), [given.to_message()]);
    assert_eq!(status(&mut world, &mut host, session, 2, VERIFY), 0x6982);
    let nobody = HostId::new([9; 32]);
    assert!(matches!(world.ask(phone.set_permissions(nobody, given.clone())), Err(PhoneError::UnknownHost)));
    assert!(matches!(world.ask(phone.allow_connection(nobody)), Err(PhoneError::UnknownHost)));
    drop(world);

    let mut world = World::new(&store);
    assert_eq!(hosts(&mut world)[0].permissions, given);
    let (mut host, session) = world.session(1, &pair);
    assert_eq!(status(&mut world, &mut host, session, 1, VERIFY), 0x6982);
    let reasons = host.events.iter().filter_map(|event| match event {
        Event::Message(Envelope { body: Some(Body::Refused(refused)) }) => Some(*refused),
        _ => None,
    });
    let reason = RefusalReason::TypedPinNotPermitted.into();
    let expected = Refused { session, request_id: 1, reason, key_reference: 0x80 };
    assert_eq!(reasons.collect::<Vec<_>>(), [expected]);
}

#[test]
fn what_the_owner_takes_back_is_gone_even_if_it_cannot_be_stored() {
    let store = TestStore::new();
    let mut world = World::with_store(Arc::new(store.clone()), None, true);
    let pair = pair(&mut world, 1);
    let id = hosts(&mut world)[0].host;
    let phone = world.phone.clone();
    let (few, other) = (BTreeSet::from([Slot::Signature]), BTreeSet::from([Slot::Authentication]));
    let before = Permissions { keys: few, administer: false, ..Permissions::test_host() };
    world.ask(phone.set_permissions(id, before.clone())).unwrap();
    let (mut host, session) = world.session(1, &pair);
    store.set_failing(true);
    let wanted = Permissions { keys: other, administer: true, typed_pin: false, connect_unattended: true };
    assert!(matches!(world.ask(phone.set_permissions(id, wanted)), Err(PhoneError::Store(_))));
    let left = Permissions { keys: BTreeSet::new(), typed_pin: false, ..before };
    assert_eq!(hosts(&mut world)[0].permissions, left, "nothing is given that would be gone after the next start");
    host.exchange(&mut world);
    assert_eq!(told(&host), [left.to_message()]);
    assert_eq!(status(&mut world, &mut host, session, 1, VERIFY), 0x6982);
}

#[test]
fn a_factory_reset_that_cannot_be_stored_to_its_end_leaves_no_host_connected() {
    let store = TestStore::new();
    let mut world = World::with_store(Arc::new(store.clone()), None, true);
    let pairs = [1, 2].map(|number| (number, pair(&mut world, number)));
    let mut connected = pairs.map(|(number, pair)| world.session(number, &pair).0);
    let phone = world.phone.clone();
    store.fail_after(1);
    assert!(matches!(world.ask(phone.factory_reset()), Err(PhoneError::Store(_))));
    for host in &mut connected {
        host.exchange(&mut world);
        assert!(host.closed().is_some());
    }
}

#[test]
fn a_host_of_an_older_version_has_the_permissions_of_its_kind_of_card() {
    #[derive(Clone, PartialEq, prost::Message)]
    struct OldAbout {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(uint64, tag = "2")]
        paired_at_unix_s: u64,
        #[prost(bool, tag = "3")]
        confirmed: bool,
    }
    let store = MemoryStore::new();
    let mut world = World::new(&store);
    pair(&mut world, 1);
    let id = hosts(&mut world)[0].host;
    let phone = world.phone.clone();
    world.ask(phone.set_permissions(id, Permissions::none())).unwrap();
    drop(world);
    let old = OldAbout { name: "Old".into(), paired_at_unix_s: 1, confirmed: true };
    let mut batch = Batch::new();
    batch.put(&format!("host/{id}/about"), &old.encode_to_vec());
    store.commit(batch).unwrap();
    assert_eq!(hosts(&mut World::new(&store))[0].permissions, Permissions::test_host());
}

#[test]
fn a_host_that_pairs_again_is_a_new_one() {
    let mut world = World::new(&MemoryStore::new());
    pair(&mut world, 1);
    let id = hosts(&mut world)[0].host;
    let phone = world.phone.clone();
    world.ask(phone.set_permissions(id, Permissions::none())).unwrap();
    let again = pair(&mut world, 1);
    assert_eq!(hosts(&mut world)[0].permissions, Permissions::test_host());
    let (mut host, session) = world.session(1, &again);
    assert_eq!(status(&mut world, &mut host, session, 1, VERIFY), 0x9000);
}

#[test]
fn the_owner_allows_a_connection_of_a_host_that_may_not_connect_by_itself() {
    let mut world = World::new(&MemoryStore::new());
    let pair = pair(&mut world, 1);
    let id = hosts(&mut world)[0].host;
    let phone = world.phone.clone();
    let attended = Permissions { connect_unattended: false, ..Permissions::test_host() };
    world.ask(phone.set_permissions(id, attended)).unwrap();
    world.approver.hold(true);
    let (mut host, opened) = world.open(1, &pair, Vec::new());
    assert!(!opened.card_state.as_ref().unwrap().present);
    let session = opened.session;
    assert_eq!(status(&mut world, &mut host, session, 1, VERIFY), 0x6985);
    world.ask(phone.allow_connection(id)).unwrap();
    assert_eq!(status(&mut world, &mut host, session, 2, VERIFY), 0x9000);
    assert!(lines(&mut world).contains(&"Host 1: confirm_connection done asked".to_owned()));
}

#[test]
fn the_log_does_not_say_that_the_owner_was_asked_who_was_spared_the_question() {
    let mut world = World::new(&MemoryStore::new());
    let pair = pair(&mut world, 1);
    let id = hosts(&mut world)[0].host;
    let phone = world.phone.clone();
    let attended = Permissions { connect_unattended: false, ..Permissions::test_host() };
    world.ask(phone.set_permissions(id, attended)).unwrap();
    world.approver.hold(true);
    let comings: Vec<_> = (0..7).map(|_| world.open(1, &pair, Vec::new())).collect();
    assert!(lines(&mut world).contains(&"Host 1: confirm_connection too_many_denials".to_owned()));
    drop(comings);
}

#[test]
fn the_log_says_who_did_what_and_how_it_ended_and_nothing_else() {
    let store = MemoryStore::new();
    let mut world = World::new(&store);
    let pair = pair(&mut world, 1);
    let phone = world.phone.clone();
    let id = hosts(&mut world)[0].host;
    let generated = world.ask(phone.local_transmit(Command::parse(GENERATE).unwrap())).unwrap();
    assert!(generated.status().is_success());
    let (mut host, session) = world.session(1, &pair);
    for (request, command, expected) in [
        (1, SELECT, 0x9000),
        (2, VERIFY_WRONG, 0x63C2),
        (3, &[0x00, 0x20, 0x00, 0x80], 0x63C2),
        (4, VERIFY, 0x9000),
        (5, &sign(), 0x9000),
        (6, &[0x00, 0xCB, 0x3F, 0xFF, 5, 0x5C, 3, 0x5F, 0xC1, 2, 0], 0x9000),
        (7, &[0x00, 0xDB, 0x3F, 0xFF, 2, 0x5C, 0], 0x6A80),
        (8, &[0x00, 0xDB, 0x3F, 0xFF, 9, 0x5C, 3, 0x5F, 0xC1, 5, 0x53, 2, 0x70, 0], 0x6982),
    ] {
        assert_eq!(status(&mut world, &mut host, session, request, command), expected, "{request}");
    }
    // A step that only leads to another one is worth a line if it is refused.
    let witness = [0x00, 0x87, 0x0A, 0x9B, 4, 0x7C, 2, 0x80, 0, 0];
    assert_eq!(status(&mut world, &mut host, session, 9, &witness), 0x9000);
    world.ask(phone.set_permissions(id, Permissions::new_host())).unwrap();
    assert_eq!(status(&mut world, &mut host, session, 10, &witness), 0x6982);
    world.ask(phone.rename(id, "Laptop")).unwrap();
    world.ask(phone.set_permissions(id, Permissions::none())).unwrap();
    world.ask(phone.forget(id)).unwrap();
    phone.lock_card();
    phone.unlock_card();
    let expected = [
        "Host 1: pair done",
        "owner: make_key done",
        "Host 1: connect done",
        "Host 1: verify_pin wrong_pin",
        "Host 1: verify_pin done",
        "Host 1: sign done",
        "Host 1: write_object failed",
        "Host 1: set_permissions done",
        "Host 1: ask_for_witness administration_not_permitted",
        "Laptop: set_permissions done",
        "Laptop: forget done",
        "owner: lock done",
        "owner: unlock done",
    ];
    let found: Vec<String> = lines(&mut world)
        .into_iter()
        .filter(|line| !line.contains("disconnect") && !line.contains("confirm"))
        .collect();
    assert_eq!(found, expected);
    let entries = log(&mut world);
    let keys: Vec<u8> = entries.iter().filter_map(|entry| entry.operation.key()).collect();
    assert_eq!(keys, [0x9A, 0x80, 0x80, 0x9A, 0x9B]);
    assert_eq!(entries[3].result, LogResult::WrongPin { tries_left: 2 });
    assert_eq!(entries[3].host, Some(LoggedHost { host: id, name: "Host 1".to_owned() }), "the name of then");
    assert_eq!(entries[1].operation, LogOperation::Card(Deed::MakeKey(Slot::Authentication)));

    // What was not stored yet is, at the end.
    world.ask(phone.stop());
    drop(world);
    assert_eq!(log(&mut World::new(&store)), entries);
    let stored = store.load().unwrap();
    let of_log = stored.iter().filter(|(name, _)| name.starts_with("log/"));
    for (name, value) in of_log {
        let secret = |pattern: &[u8]| value.windows(pattern.len()).any(|part| part == pattern);
        assert!(!secret(b"123456") && !secret(b"999999") && !secret(&[0xAB; 4]), "{name}");
    }
}

#[test]
fn a_killed_phone_keeps_all_of_its_log_but_the_last_second() {
    let store = MemoryStore::new();
    let mut world = World::new(&store);
    let pair = pair(&mut world, 1);
    let (mut host, session) = world.session(1, &pair);
    status(&mut world, &mut host, session, 1, VERIFY_WRONG);
    world.advance(LOG_DELAY);
    status(&mut world, &mut host, session, 2, VERIFY);
    let before = log(&mut world);
    // As a kill ends it: the future is gone, and nobody was told.
    drop(world);
    let after = log(&mut World::new(&store));
    assert_eq!(after, before[..before.len() - 1]);
    assert_eq!(after.last().unwrap().result, LogResult::WrongPin { tries_left: 2 });
}

#[test]
fn a_question_that_ends_without_an_answer_is_in_the_log_with_why() {
    let mut world = World::with_owned_card(&MemoryStore::new());
    let phone = world.phone.clone();
    world.ask(phone.choose_pin((*b"123456\xFF\xFF").into(), (*b"12345678").into())).unwrap();
    world.ask(phone.local_transmit(Command::parse(GENERATE).unwrap())).unwrap();
    let pair = pair(&mut world, 1);
    world.approver.hold(true);
    let (mut host, session) = world.session(1, &pair);
    status(&mut world, &mut host, session, 1, VERIFY);
    // Cancelled by its host, ended by a reset, and by a link that is lost.
    host.send(&mut world, Transmit { session, request_id: 2, epoch: 1, command: sign() });
    host.send(&mut world, Cancel { session, request_id: 2 });
    host.send(&mut world, Transmit { session, request_id: 3, epoch: 1, command: sign() });
    host.send(&mut world, Reset { session, epoch: 2 });
    host.send(&mut world, Transmit { session, request_id: 4, epoch: 2, command: VERIFY.to_vec() });
    host.send(&mut world, Transmit { session, request_id: 5, epoch: 2, command: sign() });
    host.handle = None;
    world.advance(Duration::from_secs(6));
    // And denied, which needs a host that is there.
    let (mut host, session) = world.session(1, &pair);
    world.approver.answer(ApprovalDecision::Denied);
    assert_eq!(status(&mut world, &mut host, session, 1, VERIFY), 0x9000);
    assert_eq!(status(&mut world, &mut host, session, 2, &sign()), 0x6982);
    let signatures: Vec<String> = lines(&mut world).into_iter().filter(|line| line.contains("sign")).collect();
    let expected = [
        "Host 1: sign cancelled asked",
        "Host 1: sign cancelled asked",
        "Host 1: sign link_lost asked",
        "Host 1: sign denied asked",
    ];
    assert_eq!(signatures, expected);
}

#[test]
fn a_factory_reset_forgets_every_host() {
    let store = MemoryStore::new();
    let mut world = World::new(&store);
    let first = pair(&mut world, 1);
    pair(&mut world, 2);
    let (mut host, _) = world.session(1, &first);
    let phone = world.phone.clone();
    world.ask(phone.factory_reset()).unwrap();
    host.exchange(&mut world);
    assert!(host.is_cut_off());
    assert_eq!(hosts(&mut world), []);
    assert!(store.load().unwrap().iter().all(|(name, _)| !name.starts_with("host/")));
    assert_eq!(lines(&mut world).iter().filter(|line| line.contains(": forget done")).count(), 2);
}
