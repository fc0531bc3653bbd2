//! Links that are lost again and again within the grace, at any moment: between commands, in the middle of one, during a
//! reset, while the last loss is not yet over. No program sees any of it, and a reset ends the PIN all the same.
#![allow(clippy::expect_used, clippy::panic)] // helpers of tests

use std::time::Duration;

use pocketcard_front::PowerAction;
use pocketcard_phone::card::CardEvent;
use pocketcard_phone::runtime::PhoneEvent;
use pocketcard_protocol::link::Side;
use pocketcard_simulator::radio::Parameters;
use pocketcard_simulator::recording::{DirectCard, Recording, Start};
use pocketcard_simulator::{Cut, PhoneSetup, Random, SlotNumber, World, for_seeds};

/// What a program does beside its recorded commands.
const MORE: [&str; 8] = [
    "0020008008313233343536FFFF",
    "0020008008393939393939FFFF",
    "00200080",
    "0020FF80",
    "00F7008000",
    "00A4040009A00000030800001000",
    "00A4040008A000000527471117",
    "0087119A267C24820081200102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F2000",
];

struct Bench {
    world: World,
    slot: SlotNumber,
    direct: DirectCard,
    pin_verified: bool,
}

impl Bench {
    fn new(seed: u64, parameters: Parameters, start: Start) -> Self {
        let recording = Recording::named("pkcs11-sign-ec");
        let (mut world, slot) = recording.world(seed, PhoneSetup::default(), parameters, start);
        let direct = DirectCard::copy_of(world.phone_of(slot));
        world.returns_after(slot, Some(Duration::from_millis(50)));
        Self { world, slot, direct, pin_verified: false }
    }

    /// What the card itself says of the PIN.
    fn listen(&mut self) -> bool {
        for event in self.world.phone_of(self.slot).events() {
            if let PhoneEvent::Card(CardEvent::SecurityChanged { pin_verified, .. }) = event {
                self.pin_verified = pin_verified;
            }
        }
        self.pin_verified
    }

    fn command(&mut self, command: &[u8], told: &str) {
        let answer = self.world.transmit(self.slot, command);
        let closed = self.world.take_closed(self.slot);
        let answer = answer.unwrap_or_else(|failure| panic!("{failure:?}, {closed:?}, {command:02X?}, {told}"));
        let expected = self.direct.transmit(command);
        // A random challenge is compared by its form.
        let same =
            if let [_, 0x87, _, 0x9B, ..] = command { answer.len() == expected.len() } else { answer == expected };
        assert!(same, "{command:02X?}: {answer:02X?} instead of {expected:02X?}, {closed:?}, {told}");
    }

    fn reset(&mut self, action: PowerAction, told: &str) {
        self.world.power(self.slot, action).unwrap_or_else(|failure| panic!("{failure:?}, {told}"));
        self.direct.reset();
    }

    /// Time for the link to be back and for all that was said to arrive.
    fn heal(&mut self) {
        self.world.do_not_cut();
        self.world.run(Duration::from_secs(7));
    }
}

#[test]
fn no_program_sees_a_short_loss_and_a_reset_ends_the_pin() {
    let vocabulary: Vec<Vec<u8>> = Recording::named("pkcs11-sign-ec")
        .commands()
        .map(<[u8]>::to_vec)
        .chain(MORE.iter().chain(&MORE).chain(&MORE).map(|text| hex::decode(text).expect("digits")))
        .collect();
    for_seeds(60, 1_000, |seed| {
        let mut random = Random::new(seed);
        let mtu = *random.choose(&[23, 185, 517]).expect("some");
        let parameters = Parameters { mtu, ..Parameters::default() };
        let parameters = if random.happens(500) { parameters.reordering() } else { parameters };
        let start = if random.happens(500) { Start::Cold } else { Start::Warm };
        let told = format!("MTU {mtu}, {} bearers, {start:?}", parameters.bearers);
        let mut bench = Bench::new(seed, parameters, start);
        for _ in 0..60 {
            if random.happens(150) && !bench.world.cut_is_planned() {
                bench.world.run(Duration::from_secs(6));
                let cuts = [Cut::Silent(Duration::from_millis(2_300)), Cut::By(Side::Host), Cut::By(Side::Phone)];
                let (values, cut) = (random.below(8), *random.choose(&cuts).expect("some"));
                bench.world.cut_after(bench.slot, values, cut);
            }
            match random.below(12) {
                0 => bench.reset(PowerAction::Reset, &told),
                1 => {
                    bench.reset(PowerAction::Down, &told);
                    bench.world.run(random.duration(Duration::from_millis(800)));
                    bench.reset(PowerAction::Up, &told);
                }
                2 => bench.world.run(random.duration(Duration::from_millis(400))),
                3 if random.happens(400) => {
                    bench.reset(PowerAction::Down, &told);
                    bench.heal();
                    assert!(!bench.listen(), "the PIN outlives its reset: {told}");
                    bench.reset(PowerAction::Up, &told);
                }
                _ => {
                    let command = random.choose(&vocabulary).expect("some").clone();
                    bench.command(&command, &told);
                }
            }
        }
        bench.heal();
        bench.command(&[0, 0x20, 0, 0x80], &told);
    });
}
