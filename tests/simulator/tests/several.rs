//! Several phones and several hosts, out of range and back, and the silence of an idle link.
#![allow(clippy::expect_used)] // helpers of tests

use std::time::Duration;

use pocketcard_front::{Failure, PowerAction};
use pocketcard_protocol::link::Side;
use pocketcard_simulator::radio::Parameters;
use pocketcard_simulator::recording::local;
use pocketcard_simulator::{Cut, PhoneSetup, Random, SlotNumber, World, for_seeds};

const VERIFY: [u8; 13] = [0, 0x20, 0, 0x80, 8, b'1', b'2', b'3', b'4', b'5', b'6', 0xFF, 0xFF];
const STATUS: [u8; 4] = [0, 0x20, 0, 0x80];
/// GET METADATA of the PIN: nothing that a host may know by itself.
const METADATA: [u8; 5] = [0, 0xF7, 0, 0x80, 0];
const VERIFIED: [u8; 2] = [0x90, 0x00];
const NOT_VERIFIED: [u8; 2] = [0x63, 0xC3];

/// Two hosts and two phones, all four pairs, all cards inserted.
fn crowd() -> (World, [SlotNumber; 4]) {
    let mut world = World::new(1);
    let hosts = ["desk", "laptop"].map(|name| world.add_host(name));
    let phones =
        ["one", "two"].map(|name| world.add_phone(PhoneSetup { name: name.to_owned(), ..PhoneSetup::default() }));
    let [desk, laptop] = hosts;
    let [one, two] = phones;
    let slots = [(desk, one), (desk, two), (laptop, one), (laptop, two)].map(|(host, phone)| {
        let slot = world.add_slot(host, phone);
        world.pair(slot);
        slot
    });
    for slot in slots {
        world.insert(slot);
        world.returns_after(slot, Some(Duration::from_millis(200)));
    }
    (world, slots)
}

#[test]
fn hosts_and_phones_do_not_see_each_others_state() {
    let (mut world, [desk_one, desk_two, laptop_one, laptop_two]) = crowd();
    assert_eq!(world.transmit(desk_one, &VERIFY), Ok(VERIFIED.to_vec()));
    for other in [desk_two, laptop_one, laptop_two] {
        assert_eq!(world.transmit(other, &STATUS), Ok(NOT_VERIFIED.to_vec()));
    }
    // The tries are the card's.
    let wrong = [&VERIFY[..5], b"999999", &[0xFF; 2]].concat();
    assert_eq!(world.transmit(laptop_one, &wrong), Ok(vec![0x63, 0xC2]));
    world.power(laptop_one, PowerAction::Reset).expect("the card is there");
    assert_eq!(world.transmit(laptop_one, &STATUS), Ok(vec![0x63, 0xC2]));
    assert_eq!(world.transmit(laptop_two, &STATUS), Ok(NOT_VERIFIED.to_vec()));
}

#[test]
fn commands_of_all_run_at_once() {
    let (mut world, slots) = crowd();
    for _ in 0..5 {
        slots.iter().for_each(|slot| world.begin(*slot, &METADATA));
        let began = world.now();
        for slot in slots {
            let answer = world.finish(slot).expect("a card that stays");
            assert!(answer.ends_with(&VERIFIED), "{answer:02X?}");
        }
        assert!(world.now().saturating_since(began) < Duration::from_millis(60), "they waited for one another");
    }
}

#[test]
fn a_phone_that_leaves_is_a_card_that_leaves_and_comes_back_as_another() {
    let (mut world, [lost, other, ..]) = crowd();
    assert_eq!(world.transmit(lost, &VERIFY), Ok(VERIFIED.to_vec()));
    let before = world.presence(lost).generation;
    let _ = world.take_presences(lost);
    world.set_in_range(lost, false);
    world.begin(lost, &METADATA);
    assert!(world.run_until(Duration::from_secs(10), |world| !world.has_card(lost)), "within the limits of the link");
    assert_eq!(world.finish(lost), Err(Failure::NotPresent));
    assert!(world.transmit(other, &METADATA).is_ok(), "another phone is not delayed");
    world.run(Duration::from_secs(60));
    assert!(!world.has_card(lost));
    world.set_in_range(lost, true);
    assert!(world.run_until(Duration::from_secs(5), |world| world.has_card(lost)));
    assert!(world.presence(lost).generation > before);
    assert_eq!(world.transmit(lost, &METADATA), Err(Failure::NotPresent), "nobody has powered the new card");
    world.power(lost, PowerAction::Up).expect("the card is there");
    assert_eq!(world.transmit(lost, &STATUS), Ok(NOT_VERIFIED.to_vec()));
}

#[test]
fn who_is_back_before_the_supervision_time_out_was_never_away() {
    let (mut world, [slot, ..]) = crowd();
    assert_eq!(world.transmit(slot, &VERIFY), Ok(VERIFIED.to_vec()));
    world.set_in_range(slot, false);
    world.begin(slot, &STATUS);
    world.run(Duration::from_millis(1500));
    world.set_in_range(slot, true);
    assert_eq!(world.finish(slot), Ok(VERIFIED.to_vec()));
    assert_eq!(world.take_closed(slot), []);
}

#[test]
fn an_idle_link_is_silent_for_a_minute_and_then_pinged() {
    let (mut world, [slot, ..]) = crowd();
    assert_eq!(world.transmit(slot, &VERIFY), Ok(VERIFIED.to_vec()));
    world.power(slot, PowerAction::Down).expect("it never fails");
    world.run(Duration::from_millis(500));
    let idle = world.traffic(slot).values();
    world.run(Duration::from_secs(59));
    assert_eq!(world.traffic(slot).values(), idle, "nothing in the first idle minute");
    world.run(Duration::from_secs(2));
    let pinged = world.traffic(slot).values();
    assert!(pinged > idle && pinged <= idle + 4, "{}", pinged - idle);
    world.run(Duration::from_secs(600));
    assert!(world.has_card(slot));
}

/// Three hosts and two phones work at once while their links are lost here and there, each for less than the grace.
#[test]
fn a_storm_costs_nobody_a_signature() {
    for_seeds(6, 300, |seed| {
        let mut random = Random::new(seed);
        let mut world = World::new(seed);
        if random.happens(500) {
            world.parameters = Parameters { mtu: 185, ..Parameters::default() }.reordering();
        }
        let hosts = ["desk", "laptop", "server"].map(|name| world.add_host(name));
        let phones = ["one", "two"].map(|name| {
            let key_time = Duration::from_millis(300);
            let phone = world.add_phone(PhoneSetup { name: name.to_owned(), key_time, ..PhoneSetup::default() });
            assert!(local(world.phone(phone), &[0, 0x47, 0, 0x9A, 5, 0xAC, 3, 0x80, 1, 0x11, 0]).ends_with(&VERIFIED));
            phone
        });
        let mut slots = Vec::new();
        for (host, phone) in hosts.iter().flat_map(|host| phones.map(|phone| (*host, phone))) {
            let slot = world.add_slot(host, phone);
            world.pair(slot);
            slots.push((slot, world.now()));
        }
        for (slot, _) in &slots {
            world.insert(*slot);
            world.returns_after(*slot, Some(Duration::from_millis(100)));
            assert_eq!(world.transmit(*slot, &VERIFY), Ok(VERIFIED.to_vec()));
        }
        let mut signed = 0;
        let mut busy = Vec::new();
        for _ in 0..150 {
            let chosen = random.below(slots.len());
            let Some((slot, last_cut)) = slots.get_mut(chosen) else { continue };
            if random.happens(300) && world.now().saturating_since(*last_cut) > Duration::from_secs(7) {
                let cuts = [Cut::Silent(Duration::from_millis(2_300)), Cut::By(Side::Host), Cut::By(Side::Phone)];
                *last_cut = world.now();
                world.cut_after(*slot, 0, *random.choose(&cuts).expect("some"));
            } else if !busy.contains(slot) {
                let digest = [random.number().to_le_bytes(); 4].concat();
                let sign = [&[0, 0x87, 0x11, 0x9A, 0x26, 0x7C, 0x24, 0x82, 0x00, 0x81, 0x20], digest.as_slice(), &[0]];
                world.begin(*slot, &sign.concat());
                busy.push(*slot);
            }
            world.run(random.duration(Duration::from_millis(400)));
            busy.retain(|slot| match world.reply(*slot) {
                Some(answer) => {
                    assert!(answer.expect("within the grace").ends_with(&VERIFIED));
                    signed += 1;
                    false
                }
                None => true,
            });
        }
        for slot in busy {
            assert!(world.finish(slot).expect("within the grace").ends_with(&VERIFIED));
            signed += 1;
        }
        let uses: u64 = phones.iter().map(|phone| world.phone(*phone).keys().uses()).sum();
        assert_eq!(uses, signed);
    });
}
