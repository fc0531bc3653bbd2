//! Whatever the radio does short of ending the link, a program sees what the card alone would answer.
#![allow(clippy::expect_used, clippy::indexing_slicing)] // helpers of tests

use std::time::Duration;

use pocketcard_front::PowerAction;
use pocketcard_simulator::radio::{DataLength, Parameters, Phy};
use pocketcard_simulator::recording::{DirectCard, Recording, Start, Step, local, put_data};
use pocketcard_simulator::{PhoneSetup, Random, SlotNumber, World, for_seeds};

const INTERVALS_US: [u64; 4] = [7_500, 15_000, 30_000, 48_750];

/// Any radio there may be, with a supervision time-out that its losses do not reach.
fn any_radio(random: &mut Random) -> Parameters {
    let interval = Duration::from_micros(*random.choose(&INTERVALS_US).expect("some"));
    let parameters = Parameters {
        interval,
        supervision: Duration::from_secs(6),
        phy: if random.happens(500) { Phy::OneMegabit } else { Phy::TwoMegabit },
        packets_per_event: 1 + random.below(8),
        data_length: if random.happens(500) { DataLength::Short } else { DataLength::Extended },
        mtu: *random.choose(&[23, 185, 517]).expect("some"),
        loss_per_mille: if random.happens(500) { 0 } else { 50 },
        ..Parameters::default()
    };
    if random.happens(700) { parameters.reordering() } else { parameters }
}

/// A challenge of the card is random: its form is compared alone.
fn comparable(command: &[u8], answer: &[u8]) -> Vec<u8> {
    if command.get(1) == Some(&0x87) && command.get(3) == Some(&0x9B) && answer.len() > 2 {
        return [&answer.len().to_be_bytes(), &answer[answer.len() - 2..]].concat();
    }
    answer.to_vec()
}

fn provisioned(
    seed: u64,
    parameters: Parameters,
    recording: &Recording,
    start: Start,
) -> (World, SlotNumber, DirectCard) {
    let (mut world, slot) = recording.world(seed, PhoneSetup::default(), parameters, start);
    let direct = DirectCard::copy_of(world.phone_of(slot));
    (world, slot, direct)
}

#[test]
fn every_recorded_flow_is_answered_as_by_the_card_alone() {
    for (recording, start) in Recording::all()
        .into_iter()
        .flat_map(|recording| [Start::Cold, Start::Warm].map(|start| (recording.clone(), start)))
    {
        let (mut world, slot, mut direct) = provisioned(1, Parameters::default(), &recording, start);
        let cost = recording.play(&mut world, slot).expect("a card that stays");
        let expected = direct.play(&recording);
        for ((command, answer), expected) in recording.commands().zip(&cost.answers).zip(&expected) {
            let name = recording.name;
            assert_eq!(comparable(command, answer), comparable(command, expected), "{name}: {command:02X?}");
        }
        let succeeded = cost.answers.last().expect("an answer").ends_with(&[0x90, 0x00]);
        assert!(succeeded || !(recording.name.contains("login") || recording.name.contains("sign")));
    }
}

#[test]
fn any_mtu_loss_and_order_give_the_same_transcript() {
    let recordings = Recording::all();
    let extended = vec![0, 0xCB, 0x3F, 0xFF, 0, 0, 5, 0x5C, 3, 0x5F, 0xC1, 0x05, 0, 0];
    for_seeds(40, 2_000, |seed| {
        let mut random = Random::new(seed);
        let parameters = any_radio(&mut random);
        let recording = random.choose(&recordings).expect("some").clone();
        let start = if random.happens(500) { Start::Cold } else { Start::Warm };
        let (mut world, slot, mut direct) = provisioned(seed, parameters.clone(), &recording, start);
        let mut steps = recording.steps.clone();
        let vocabulary: Vec<Vec<u8>> = recording.commands().map(<[u8]>::to_vec).chain([extended.clone()]).collect();
        for _ in 0..30 {
            let mut command = random.choose(&vocabulary).expect("some").clone();
            if random.happens(100) {
                let at = random.below(command.len());
                command[at] = random.number().to_le_bytes()[0];
            }
            steps.push(if random.happens(100) { Step::Reset } else { Step::Command(command) });
        }
        for (number, step) in steps.iter().enumerate() {
            match step {
                Step::Command(command) => {
                    let answer = world.transmit(slot, command);
                    let closed = world.take_closed(slot);
                    let answer = answer.unwrap_or_else(|failure| panic!("{failure:?} {closed:?} with {parameters:?}"));
                    let expected = direct.transmit(command);
                    let (seen, expected) = (comparable(command, &answer), comparable(command, &expected));
                    assert_eq!(seen, expected, "step {number}, {command:02X?}, {parameters:?}");
                }
                Step::Reset => {
                    let action = if random.happens(500) { PowerAction::Reset } else { PowerAction::Down };
                    world.power(slot, action).expect("the card is there");
                    world.power(slot, PowerAction::Up).expect("the card is there");
                    direct.reset();
                }
            }
        }
    });
}

/// The largest object that PIV knows fills its container of 12,710 bytes. Spec: SP 800-73-4 part 1, table 7
#[test]
fn the_largest_object_passes_both_ways_at_any_mtu() {
    const LARGEST: usize = 12_710;
    for mtu in [23, 185, 517] {
        for interval_us in INTERVALS_US {
            let interval = Duration::from_micros(interval_us);
            let parameters = Parameters { mtu, ..Parameters::default() }.with_interval(interval);
            // EATT has an MTU of 64 at least. Spec: Core 5.4, volume 3 part F, section 3.2.8
            let parameters = if mtu < 64 { parameters } else { parameters.reordering() };
            let (mut world, slot) = World::with_pair(interval_us, PhoneSetup::default(), parameters);
            let put = put_data([0x5F, 0xC1, 0x05], LARGEST - 4);
            assert!(local(world.phone_of(slot), &put).ends_with(&[0x90, 0x00]));
            world.insert(slot);
            let get = [0, 0xCB, 0x3F, 0xFF, 0, 0, 5, 0x5C, 3, 0x5F, 0xC1, 0x05, 0, 0];
            let answer = world.transmit(slot, &get).expect("a card that stays");
            assert_eq!(answer.len(), LARGEST + 2, "MTU {mtu}, {interval:?}");
            // Without the management key; the command has crossed all the same.
            assert_eq!(world.transmit(slot, &put), Ok(vec![0x69, 0x82]), "MTU {mtu}, {interval:?}");
        }
    }
}

#[test]
fn a_seed_gives_the_same_run() {
    let recording = Recording::named("pkcs11-sign-ec");
    let run = |seed| {
        let parameters = Parameters { loss_per_mille: 50, mtu: 23, ..Parameters::default() }.reordering();
        let (mut world, slot, _) = provisioned(seed, parameters, &recording, Start::Cold);
        let cost = recording.play(&mut world, slot).expect("a card that stays");
        (cost.time, cost.traffic, world.now())
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5).0, run(6).0);
}
