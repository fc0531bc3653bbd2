//! Links that drop in the middle of VERIFY, of the entry of a PIN on the phone and of signatures, at every boundary between two fragments. Within the grace
//! nothing is lost and nothing done twice; after it the card is gone for every program, and comes back as a new one.
#![allow(clippy::expect_used, clippy::panic)] // helpers of tests

use std::time::Duration;

use pocketcard_front::{Failure, PinEntry, PowerAction};
use pocketcard_phone::card::CardConfig;
use pocketcard_protocol::link::Side;
use pocketcard_protocol::link::limits::GRACE_LIMIT;
use pocketcard_protocol::messages::PinOperation;
use pocketcard_simulator::radio::Parameters;
use pocketcard_simulator::recording::local;
use pocketcard_simulator::{Cut, PhoneSetup, Random, SlotNumber, World, for_seeds};

const VERIFY: [u8; 13] = [0, 0x20, 0, 0x80, 8, b'1', b'2', b'3', b'4', b'5', b'6', 0xFF, 0xFF];
const WRONG: [u8; 13] = [0, 0x20, 0, 0x80, 8, b'9', b'9', b'9', b'9', b'9', b'9', 0xFF, 0xFF];
const STATUS: [u8; 4] = [0, 0x20, 0, 0x80];
const DONE: [u8; 2] = [0x90, 0x00];
/// Longer than the radio's supervision time-out, and with the time to connect shorter than the grace.
const AWAY: Duration = Duration::from_millis(2500);
/// Long enough for every link to be noticed as lost, and to be back.
const HEALED: Duration = Duration::from_secs(6);
/// Longer than the grace after that time-out.
const FAR_AWAY: Duration = Duration::from_secs(8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Verify,
    VerifyWrong,
    Enter,
    EnterWrong,
    SignEc,
    SignRsa,
}

const OPERATIONS: [Operation; 6] = [
    Operation::Verify,
    Operation::VerifyWrong,
    Operation::Enter,
    Operation::EnterWrong,
    Operation::SignEc,
    Operation::SignRsa,
];

impl Operation {
    /// Its commands, of which one crosses the air.
    fn commands(self) -> Vec<Vec<u8>> {
        match self {
            Self::Verify => vec![VERIFY.to_vec()],
            Self::VerifyWrong => vec![WRONG.to_vec()],
            // Not a command; see `Bench::perform`.
            Self::Enter | Self::EnterWrong => Vec::new(),
            // 9A has a P-256 key, 9D an RSA key.
            Self::SignEc => {
                let head = [0, 0x87, 0x11, 0x9A, 0x26, 0x7C, 0x24, 0x82, 0x00, 0x81, 0x20];
                vec![[head.as_slice(), &[0x5A; 32], &[0]].concat()]
            }
            Self::SignRsa => {
                let template = [[0x7C, 0x82, 1, 6, 0x82, 0, 0x81, 0x82, 1, 0].as_slice(), &[0x01; 256]].concat();
                let (first, second) = template.split_at(255);
                let length = u8::try_from(second.len()).expect("a short command");
                let head = |class, length| vec![class, 0x87, 0x07, 0x9D, length];
                vec![
                    [head(0x10, 255).as_slice(), first].concat(),
                    [head(0x00, length).as_slice(), second, &[0]].concat(),
                    // The rest of 264 bytes.
                    vec![0, 0xC0, 0, 0, 8],
                ]
            }
        }
    }

    /// What the owner enters.
    const fn entered(self) -> Option<&'static str> {
        match self {
            Self::Enter => Some("123456"),
            Self::EnterWrong => Some("999999"),
            _ => None,
        }
    }

    const fn signs(self) -> bool {
        matches!(self, Self::SignEc | Self::SignRsa)
    }
}

struct Bench {
    world: World,
    slot: SlotNumber,
}

impl Bench {
    fn new(seed: u64, parameters: Parameters, grace: Duration) -> Self {
        Self::with_keys(seed, parameters, grace, Duration::ZERO)
    }

    /// - `key_time`: how long a signature takes.
    fn with_keys(seed: u64, parameters: Parameters, grace: Duration, key_time: Duration) -> Self {
        let card = CardConfig { test_card: true, grace, ..CardConfig::default() };
        let setup = PhoneSetup { card, key_time, ..PhoneSetup::default() };
        let (mut world, slot) = World::with_pair(seed, setup, parameters);
        for (reference, algorithm) in [(0x9A, 0x11), (0x9D, 0x07)] {
            let answer = local(world.phone_of(slot), &[0, 0x47, 0, reference, 5, 0xAC, 3, 0x80, 1, algorithm, 0]);
            assert!(answer.ends_with(&DONE));
        }
        world.insert(slot);
        world.returns_after(slot, Some(Duration::from_millis(200)));
        Self { world, slot }
    }

    fn must(&mut self, command: &[u8]) -> Vec<u8> {
        self.world.transmit(self.slot, command).expect("a card that stays")
    }

    /// A new program: the card reset, the PIN verified if the operation needs it. Gives the tries that are left.
    fn prepare(&mut self, operation: Operation) {
        self.world.power(self.slot, PowerAction::Reset).expect("the card is there");
        assert_eq!(self.must(&VERIFY), DONE, "also gives the tries back");
        if !operation.signs() {
            self.world.power(self.slot, PowerAction::Reset).expect("the card is there");
            assert_eq!(self.must(&STATUS), [0x63, 0xC3]);
        }
        // Credits on their way belong to what was.
        self.world.run(Duration::from_millis(200));
    }

    fn uses(&mut self) -> u64 {
        self.world.phone_of(self.slot).keys().uses()
    }

    fn asked(&mut self) -> u64 {
        self.world.phone_of(self.slot).owner().asked()
    }

    fn perform(&mut self, operation: Operation) -> Result<Vec<u8>, Failure> {
        if let Some(pin) = operation.entered() {
            self.world.phone_of(self.slot).owner().enters(Some(pin));
            let entry =
                PinEntry { operation: PinOperation::Verify, key_reference: 0x80, time_limit: Duration::from_secs(25) };
            return self.world.enter_pin(self.slot, entry);
        }
        let mut answer = Ok(Vec::new());
        for command in operation.commands() {
            answer = Ok(self.world.transmit(self.slot, &command)?);
        }
        answer
    }

    /// Values on the air that the operation takes if nothing happens.
    fn values(&mut self, operation: Operation) -> usize {
        self.prepare(operation);
        let before = self.world.traffic(self.slot).values();
        self.perform(operation).expect("a card that stays");
        self.world.run(Duration::from_millis(200));
        self.world.traffic(self.slot).values() - before
    }

    /// Performs the operation while the link is cut after so many values.
    fn cut_during(&mut self, operation: Operation, values: usize, cut: Cut) -> Result<Vec<u8>, Failure> {
        self.world.cut_after(self.slot, values, cut);
        let answer = self.perform(operation);
        if !self.world.run_until(Duration::from_millis(500), |world| !world.cut_is_planned()) {
            // A radio that keeps no order needs fewer credits now and then.
            self.world.cut_after(self.slot, 0, cut);
        }
        answer
    }

    /// A drop that is shorter than the grace: no program notices it.
    fn short_drop(&mut self, operation: Operation, values: usize, cut: Cut) {
        let told = format!("{operation:?} cut after {values} values by {cut:?}");
        self.prepare(operation);
        let (uses, generation) = (self.uses(), self.world.presence(self.slot).generation);
        let asked = self.asked();
        let answer = self.cut_during(operation, values, cut);
        self.world.run(HEALED);
        assert!(self.world.is_open(self.slot), "{told}: the phone does not come back");
        assert_eq!(self.world.presence(self.slot).generation, generation, "{told}: the card was removed");
        let status = self.must(&STATUS);
        let expected: (&[u8], &[u8], u64) = match operation {
            Operation::Verify | Operation::Enter => (&DONE, &DONE, 0),
            Operation::VerifyWrong | Operation::EnterWrong => (&[0x63, 0xC2], &[0x63, 0xC2], 0),
            Operation::SignEc | Operation::SignRsa => (&DONE, &DONE, 1),
        };
        let answer = answer.unwrap_or_else(|failure| panic!("{told}: {failure:?}"));
        assert!(answer.ends_with(expected.0), "{told}: {answer:02X?}");
        assert_eq!((status.as_slice(), self.uses() - uses), (expected.1, expected.2), "{told}");
        let prompts = u64::from(operation.entered().is_some());
        assert_eq!(self.asked() - asked, prompts, "{told}: the owner was asked again");
    }

    /// A drop that is longer than the grace, or of a phone without one.
    fn long_drop(&mut self, operation: Operation, values: usize, cut: Cut) {
        let told = format!("{operation:?} cut after {values} values by {cut:?}");
        self.prepare(operation);
        let (uses, generation) = (self.uses(), self.world.presence(self.slot).generation);
        let answer = self.cut_during(operation, values, cut);
        let slot = self.slot;
        let is_back = |world: &mut World| world.presence(slot).generation > generation && world.has_card(slot);
        assert!(self.world.run_until(Duration::from_secs(15), is_back), "{told}: the card does not come back");
        let _ = self.world.take_presences(slot);
        assert_eq!(self.world.transmit(slot, &STATUS), Err(Failure::NotPresent), "{told}: nobody gave it power");
        self.world.power(slot, PowerAction::Up).expect("the card is there");
        let status = self.must(&STATUS);
        let used = self.uses() - uses;
        match (operation, &answer) {
            (Operation::Verify | Operation::Enter, _) => {
                assert_eq!(status, [0x63, 0xC3], "{told}: a verified PIN was left")
            }
            (Operation::VerifyWrong | Operation::EnterWrong, Ok(_)) => {
                assert_eq!(status, [0x63, 0xC2], "{told}: answered and not counted")
            }
            (Operation::VerifyWrong | Operation::EnterWrong, Err(_)) => {
                assert!(status == [0x63, 0xC2] || status == [0x63, 0xC3], "{told}: counted twice: {status:02X?}");
            }
            (_, Ok(answer)) => assert_eq!(used, 1, "{told}: answered {answer:02X?}"),
            (_, Err(_)) => assert!(used <= 1, "{told}: signed {used} times"),
        }
        assert!(matches!(answer, Ok(_) | Err(Failure::NotPresent)), "{told}: {answer:?}");
    }
}

const SHORT: [Cut; 3] = [Cut::Silent(AWAY), Cut::By(Side::Host), Cut::By(Side::Phone)];
const LONG: [Cut; 1] = [Cut::Silent(FAR_AWAY)];

/// Every operation, cut at every boundary in every way.
fn everywhere(bench: &mut Bench, cuts: &[Cut], drop: fn(&mut Bench, Operation, usize, Cut)) {
    for operation in OPERATIONS {
        let values = bench.values(operation);
        assert!(values >= 2, "a fragment each way at least");
        for after in 0..=values {
            cuts.iter().for_each(|cut| drop(bench, operation, after, *cut));
        }
    }
}

#[test]
fn a_short_drop_at_any_boundary_loses_nothing_and_does_nothing_twice() {
    let mut bench = Bench::new(1, Parameters { mtu: 185, ..Parameters::default() }, GRACE_LIMIT);
    everywhere(&mut bench, &SHORT, Bench::short_drop);
}

/// The phone says `Pending` meanwhile, and is done while it has no link; the owner types while it has none.
#[test]
fn what_takes_its_time_survives_short_drops() {
    let key_time = Duration::from_millis(1_700);
    let mut bench = Bench::with_keys(4, Parameters { mtu: 185, ..Parameters::default() }, GRACE_LIMIT, key_time);
    everywhere(&mut bench, &SHORT, Bench::short_drop);
}

/// The systems keep the connection for six seconds, our links do not wait that long: the host comes back on another one
/// while the phone still has the first.
#[test]
fn a_drop_that_only_our_links_notice_loses_nothing() {
    let parameters = Parameters { mtu: 185, supervision: Duration::from_secs(6), ..Parameters::default() };
    let mut bench = Bench::new(5, parameters, GRACE_LIMIT);
    everywhere(
        &mut bench,
        &[Cut::Silent(Duration::from_millis(500)), Cut::Silent(Duration::from_secs(3))],
        Bench::short_drop,
    );
}

#[test]
fn a_long_drop_at_any_boundary_is_a_removed_card() {
    let mut bench = Bench::new(2, Parameters { mtu: 185, ..Parameters::default() }, GRACE_LIMIT);
    everywhere(&mut bench, &LONG, Bench::long_drop);
}

#[test]
fn a_phone_without_grace_is_a_removed_card_after_any_drop() {
    let mut bench = Bench::new(3, Parameters { mtu: 185, ..Parameters::default() }, Duration::ZERO);
    everywhere(&mut bench, &SHORT, Bench::long_drop);
}

/// A thousand short ones, and ten thousand with POCKETCARD_SOAK=1.
#[test]
fn drops_of_any_radio_lose_nothing() {
    let (mut short, mut long) = (0, 0);
    for_seeds(20, 200, |seed| {
        let mut random = Random::new(seed);
        let mtu = *random.choose(&[23, 185, 517]).expect("some");
        let parameters = Parameters { mtu, ..Parameters::default() };
        let parameters = if random.happens(500) { parameters.reordering() } else { parameters };
        let mut bench = Bench::new(seed, parameters, GRACE_LIMIT);
        let values = OPERATIONS.map(|operation| bench.values(operation));
        for drop in 0..50 {
            let chosen = random.below(OPERATIONS.len());
            let (Some(operation), Some(values)) = (OPERATIONS.get(chosen), values.get(chosen)) else { continue };
            bench.short_drop(*operation, random.below(*values), *random.choose(&SHORT).expect("some"));
            short += 1;
            if drop % 10 == 0 {
                long += 1;
                bench.long_drop(*operation, random.below(*values), *random.choose(&LONG).expect("some"));
            }
        }
    });
    println!(
        "REPORT: simulator: {short} links dropped within the grace, {long} for longer: nothing lost, nothing done twice"
    );
}
