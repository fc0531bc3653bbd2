//! A host answers from what it knows while others change the card: over any radio no program sees anything that the card
//! did not say at some moment, nor anything older than what it has seen, and what the card itself has answered is the
//! oldest that a host may say after it.
#![allow(clippy::expect_used, clippy::panic)] // helpers of tests

use std::time::Duration;

use pocketcard_simulator::radio::Parameters;
use pocketcard_simulator::recording::{local, put_data};
use pocketcard_simulator::{Cut, PhoneSetup, Random, SlotNumber, World, for_seeds};

const READ: [u8; 10] = [0, 0xCB, 0x3F, 0xFF, 5, 0x5C, 3, 0x5F, 0xC1, 0x05];
const DONE: [u8; 2] = [0x90, 0x00];
const STATUS: [u8; 4] = [0, 0x20, 0, 0x80];
/// GET METADATA of the PIN: only the card answers it.
const ASK: [u8; 5] = [0, 0xF7, 0, 0x80, 0];
const RIGHT: [u8; 13] = [0, 0x20, 0, 0x80, 8, b'1', b'2', b'3', b'4', b'5', b'6', 0xFF, 0xFF];
const WRONG: [u8; 13] = [0, 0x20, 0, 0x80, 8, b'9', b'9', b'9', b'9', b'9', b'9', 0xFF, 0xFF];

/// A value that others change, and what a program may see of it.
#[derive(Debug)]
struct Observed {
    /// Its values in their order.
    values: Vec<Vec<u8>>,
    /// How many of them the card is certain to have had.
    done: usize,
    /// The oldest that may be seen.
    oldest: usize,
}

impl Observed {
    fn new(first: Vec<u8>) -> Self {
        Self { values: vec![first], done: 1, oldest: 0 }
    }

    fn change(&mut self, value: Vec<u8>) {
        self.values.push(value);
    }

    /// A program has seen this.
    fn see(&mut self, seen: &[u8], told: &str) {
        let found = self.values.iter().enumerate().skip(self.oldest).find(|(_, value)| *value == seen);
        match found {
            Some((index, _)) => self.oldest = index,
            None => panic!("{told}: {seen:02X?} at {} of {:02X?}", self.oldest, self.values),
        }
    }
}

struct Bench {
    world: World,
    ours: SlotNumber,
    theirs: SlotNumber,
    object: Observed,
    status: Observed,
    version: u16,
    /// What the other host's command under way makes of the tries.
    pending: bool,
}

fn radio(random: &mut Random) -> Parameters {
    let interval = Duration::from_micros(*random.choose(&[7_500, 15_000, 48_750]).expect("some"));
    let mtu = *random.choose(&[23, 185, 517]).expect("some");
    let parameters = Parameters { mtu, ..Parameters::default() }.with_interval(interval);
    if random.happens(600) { parameters.reordering() } else { parameters }
}

impl Bench {
    fn new(seed: u64, parameters: Parameters) -> Self {
        let mut world = World::new(seed);
        world.parameters = parameters;
        let (us, them) = (world.add_host("desk"), world.add_host("laptop"));
        let phone = world.add_phone(PhoneSetup::default());
        let (ours, theirs) = (world.add_slot(us, phone), world.add_slot(them, phone));
        for slot in [ours, theirs] {
            world.pair(slot);
            world.insert(slot);
            world.returns_after(slot, Some(Duration::from_millis(100)));
        }
        let (object, status) = (Observed::new(vec![0x6A, 0x82]), Observed::new(vec![0x63, 0xC3]));
        Self { world, ours, theirs, object, status, version: 0, pending: false }
    }

    /// The owner writes the object, on the phone itself: done at once.
    fn write(&mut self) {
        self.version += 1;
        // Each version has a length of its own.
        let length = 130 + usize::from(self.version);
        let answer = local(self.world.phone_of(self.ours), &put_data([0x5F, 0xC1, 0x05], length));
        assert_eq!(answer, [0x90, 0x00]);
        let header = if length < 256 { 3 } else { 4 };
        self.object.change((header + length + DONE.len()).to_be_bytes().to_vec());
        self.object.done = self.object.values.len();
    }

    /// The other host tries a PIN.
    fn try_pin(&mut self, random: &mut Random) {
        if self.pending {
            return;
        }
        let tries = self.status.values.last().and_then(|value| value.last()).map_or(0, |byte| byte & 0x0F);
        // Never blocked: a right one makes three of one.
        let wrong = tries > 1 && random.happens(700);
        let left = if wrong { tries - 1 } else { 3 };
        self.status.change(vec![0x63, 0xC0 | left]);
        self.world.begin(self.theirs, if wrong { &WRONG } else { &RIGHT });
        self.pending = true;
        self.answered();
    }

    /// Looks whether the other host has its answer.
    fn answered(&mut self) {
        if let Some(answer) = self.world.reply(self.theirs) {
            answer.expect("a card that stays");
            self.pending = false;
            self.status.done = self.status.values.len();
        }
    }

    /// Others do something, or nothing.
    fn meanwhile(&mut self, random: &mut Random) {
        match random.below(6) {
            0 | 1 => self.write(),
            2 => self.try_pin(random),
            _ => {}
        }
        self.world.run(random.duration(Duration::from_millis(60)));
        self.answered();
    }

    /// A program reads while others change what it reads.
    fn read(&mut self, command: &[u8], random: &mut Random, told: &str) {
        let before = self.world.traffic(self.ours).commands;
        let (object, status) = (self.object.done, self.status.done);
        self.world.begin(self.ours, command);
        self.meanwhile(random);
        let answer = self.world.finish(self.ours).expect("a card that stays within the grace");
        self.answered();
        if self.world.traffic(self.ours).commands > before {
            // The card itself has answered, after all that was done when it was asked.
            self.object.oldest = self.object.oldest.max(object - 1);
            self.status.oldest = self.status.oldest.max(status - 1);
        }
        match command {
            [_, 0xCB, ..] => self.object.see(&whole(&mut self.world, self.ours, answer), told),
            [_, 0x20, ..] => self.status.see(&answer, told),
            _ => {}
        }
    }

    /// When nothing has happened for a while, a program sees what is.
    fn settle(&mut self, told: &str) {
        self.world.do_not_cut();
        self.world.run(Duration::from_secs(8));
        self.answered();
        assert!(!self.pending, "{told}: the other host has no answer");
        self.object.oldest = self.object.values.len() - 1;
        self.status.oldest = self.status.values.len() - 1;
        self.read_quietly(&READ, told);
        self.read_quietly(&STATUS, told);
    }

    /// Waits until the last lost link is long back.
    fn heal(&mut self) {
        self.world.run(Duration::from_secs(6));
        self.answered();
    }

    fn read_quietly(&mut self, command: &[u8], told: &str) {
        let answer = self.world.transmit(self.ours, command).expect("a card that stays");
        match command {
            [_, 0xCB, ..] => self.object.see(&whole(&mut self.world, self.ours, answer), told),
            _ => self.status.see(&answer, told),
        }
    }
}

/// The length of an object whose first window this is; or the status without one.
fn whole(world: &mut World, slot: SlotNumber, mut answer: Vec<u8>) -> Vec<u8> {
    while let [.., 0x61, left] = answer[..] {
        answer.truncate(answer.len() - 2);
        answer.extend(world.transmit(slot, &[0, 0xC0, 0, 0, left]).expect("the rest is on the host"));
    }
    if answer.ends_with(&DONE) { answer.len().to_be_bytes().to_vec() } else { answer }
}

#[test]
fn nothing_is_older_than_what_was_seen() {
    for_seeds(15, 600, |seed| {
        let mut random = Random::new(seed);
        let parameters = radio(&mut random);
        let told = format!("{parameters:?}");
        let mut bench = Bench::new(seed, parameters);
        for round in 0..60 {
            let command: &[u8] = match random.below(8) {
                0 => &ASK,
                1..=3 => &STATUS,
                _ => &READ,
            };
            bench.read(command, &mut random, &told);
            bench.meanwhile(&mut random);
            if round % 20 == 19 {
                bench.settle(&told);
            }
        }
    });
}

/// The same while links are lost for less than the grace.
#[test]
fn nor_is_it_when_links_are_lost() {
    for_seeds(10, 600, |seed| {
        let mut random = Random::new(seed);
        let parameters = radio(&mut random);
        let told = format!("{parameters:?}");
        let mut bench = Bench::new(seed, parameters);
        for round in 0..40 {
            let command: &[u8] = if random.happens(200) {
                &ASK
            } else if random.happens(400) {
                &STATUS
            } else {
                &READ
            };
            if !bench.world.cut_is_planned() && random.happens(200) {
                // One at a time: two in a row may outlast the grace.
                bench.heal();
                let slot = if random.happens(700) { bench.ours } else { bench.theirs };
                let cuts = [
                    Cut::Silent(Duration::from_millis(2_500)),
                    Cut::By(pocketcard_protocol::link::Side::Host),
                    Cut::By(pocketcard_protocol::link::Side::Phone),
                ];
                bench.world.cut_after(slot, random.below(6), *random.choose(&cuts).expect("some"));
            }
            bench.read(command, &mut random, &told);
            bench.meanwhile(&mut random);
            if round % 20 == 19 {
                bench.settle(&told);
            }
        }
    });
}
