//! What real programs send to a card. The answers are not recorded: they come from the card.
//!
//! A recording is text. A line is a command in hexadecimal digits, or one of
//!
//! | Line | Means |
//! |---|---|
//! | `# ...` | what was recorded, and with what |
//! | `keys 07` | the card has keys of this algorithm (SP 800-78-4, table 6-2) in 9A, 9C, 9D and 9E |
//! | `object 5FC105 1040` | the card has an object with content of this many bytes |
//! | `reset` | the reader resets the card or takes its power, between two programs or sessions |
//!
//! `record.sh` beside this package makes them.

use std::time::Duration;

use pocketcard_phone::Batch;
use pocketcard_phone::StateStore as _;
use pocketcard_phone::card::test_support::{TestBox, TestHost, TestStore};
use pocketcard_phone::card::{CardConfig, Effect};
use pocketcard_protocol::apdu::Command;

use crate::phone::{PhoneSetup, SimulatedPhone};
use crate::radio::Parameters;
use crate::relay::RelayCost;
use crate::traffic::Traffic;
use crate::world::{SlotNumber, World};
use pocketcard_front::{Failure, PowerAction};

/// GET DATA of the discovery object.
const DISCOVERY: [u8; 9] = [0, 0xCB, 0x3F, 0xFF, 3, 0x5C, 1, 0x7E, 0];
/// Longer than a snapshot takes to arrive, and than a card session waits for its link.
const IDLE: Duration = Duration::from_secs(8);
/// The key references that a recording's `keys` fill.
const REFERENCES: [u8; 4] = [0x9A, 0x9C, 0x9D, 0x9E];

/// A recorded flow.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The name of its file.
    pub name: &'static str,
    /// What it was recorded from.
    pub title: String,
    /// What happens.
    pub steps: Vec<Step>,
    keys: Option<u8>,
    objects: Vec<([u8; 3], usize)>,
}

/// A step of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A command of a program.
    Command(Vec<u8>),
    /// The reader resets the card.
    Reset,
}

/// What the host knows of the card when a flow begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing: it sees the card for the first time.
    Cold,
    /// What the card says to everybody, from an earlier session.
    Warm,
}

/// What a flow has cost.
#[derive(Clone, Debug)]
pub struct Cost {
    /// Commands of the program.
    pub commands: usize,
    /// What crossed the air.
    pub traffic: Traffic,
    /// From the first command to the last answer.
    pub time: Duration,
    /// What the program saw.
    pub answers: Vec<Vec<u8>>,
}

impl From<&Cost> for RelayCost {
    fn from(cost: &Cost) -> Self {
        let Cost { traffic, time, .. } = cost;
        let bytes = traffic.bytes.iter().sum();
        Self { round_trips: traffic.round_trips(), values: traffic.values(), bytes, time: *time }
    }
}

macro_rules! recordings {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../recordings/", $name, ".apdu")))),*]
    };
}

impl Recording {
    /// Every recording of this package.
    ///
    /// # Panics
    /// If a file is not a recording.
    #[must_use]
    pub fn all() -> Vec<Self> {
        recordings![
            "ssh-login-rsa",
            "ssh-login-ec",
            "pkcs11-sign-rsa",
            "pkcs11-sign-ec",
            "pam-login-rsa",
            "yubico-piv-tool-status",
            "ykman-info",
        ]
        .into_iter()
        .map(|(name, text)| Self::parse(name, text).unwrap_or_else(|| panic!("{name} is not a recording")))
        .collect()
    }

    /// The recording with this name.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::all().into_iter().find(|recording| recording.name == name).expect("a recording of this package")
    }

    fn parse(name: &'static str, text: &str) -> Option<Self> {
        let mut recording = Self { name, title: String::new(), steps: Vec::new(), keys: None, objects: Vec::new() };
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            match line.split_whitespace().collect::<Vec<&str>>().as_slice() {
                ["#", words @ ..] if recording.title.is_empty() => recording.title = words.join(" "),
                ["#", ..] => {}
                ["keys", algorithm] => recording.keys = u8::from_str_radix(algorithm, 16).ok(),
                ["object", tag, length] => {
                    let tag = hex::decode(tag).ok()?.try_into().ok()?;
                    recording.objects.push((tag, length.parse().ok()?));
                }
                ["reset"] => recording.steps.push(Step::Reset),
                [command] => recording.steps.push(Step::Command(hex::decode(command).ok()?)),
                _ => return None,
            }
        }
        Some(recording)
    }

    /// Its commands.
    pub fn commands(&self) -> impl Iterator<Item = &[u8]> {
        self.steps.iter().filter_map(|step| match step {
            Step::Command(command) => Some(command.as_slice()),
            Step::Reset => None,
        })
    }

    /// Makes the keys and objects that the recorded card had.
    ///
    /// # Panics
    /// If the card does not take them.
    pub fn provision(&self, phone: &mut SimulatedPhone) {
        for command in self.preparation() {
            let answer = local(phone, &command);
            assert!(answer.ends_with(&[0x90, 0x00]), "{command:02X?}: {answer:02X?}");
        }
    }

    /// What the owner of the card does before: GENERATE and PUT DATA.
    fn preparation(&self) -> Vec<Vec<u8>> {
        let generate = |(reference, algorithm)| vec![0, 0x47, 0, reference, 5, 0xAC, 3, 0x80, 1, algorithm, 0];
        let keys = self.keys.into_iter().flat_map(|algorithm| REFERENCES.map(|reference| (reference, algorithm)));
        let objects = self.objects.iter().map(|(tag, length)| put_data(*tag, *length));
        keys.map(generate).chain(objects).collect()
    }

    /// A host and a phone with the keys and objects of this recording, at the moment when its card is in the reader.
    ///
    /// # Panics
    /// If the card does not come about.
    #[must_use]
    pub fn world(&self, seed: u64, setup: PhoneSetup, parameters: Parameters, start: Start) -> (World, SlotNumber) {
        let (mut world, slot) = World::with_pair(seed, setup, parameters);
        self.provision(world.phone_of(slot));
        world.insert(slot);
        if start == Start::Warm {
            // Whatever reads something makes the host fetch the whole.
            world.transmit(slot, &DISCOVERY).expect("a card that stays");
            world.run(IDLE);
            world.restart_host(slot, true);
            world.run(IDLE);
            world.insert(slot);
        }
        (world, slot)
    }

    /// Plays the flow in a slot whose card has power, as one program would, and gives what it cost.
    ///
    /// # Errors
    /// [`Failure`] if the card goes away.
    pub fn play(&self, world: &mut World, slot: SlotNumber) -> Result<Cost, Failure> {
        let (began, before) = (world.now(), world.traffic(slot));
        let mut ended = began;
        let mut answers = Vec::new();
        for step in &self.steps {
            match step {
                Step::Reset => {
                    world.power(slot, PowerAction::Reset)?;
                }
                Step::Command(command) => {
                    answers.push(world.transmit(slot, command)?);
                    ended = world.now();
                }
            }
        }
        let time = ended.saturating_since(began);
        Ok(Cost { commands: answers.len(), traffic: world.traffic(slot) - before, time, answers })
    }
}

/// The same card without radio, host and phone: what the answers must be.
pub struct DirectCard {
    card: TestBox,
    host: TestHost,
}

impl DirectCard {
    /// A card with the state and the keys that `phone` has now.
    ///
    /// # Panics
    /// If the state cannot be copied.
    #[must_use]
    pub fn copy_of(phone: &SimulatedPhone) -> Self {
        let store = TestStore::new();
        let mut batch = Batch::new();
        for (key, value) in phone.store().load().expect("a store in memory") {
            batch.put(&key, &value);
        }
        store.commit(batch).expect("a store in memory");
        let mut card = TestBox::with(CardConfig { test_card: true, ..CardConfig::default() }, store);
        // Handles are counted: the same number of keys has the same handles, whatever their order.
        for algorithm in phone.keys().made() {
            card.keys.perform(Effect::Generate { algorithm });
        }
        let host = card.host(1);
        Self { card, host }
    }

    /// The card's answer to a command of a program.
    pub fn transmit(&mut self, command: &[u8]) -> Vec<u8> {
        self.host.raw(&mut self.card, command)
    }

    /// Resets the card.
    pub fn reset(&mut self) {
        self.host.reset(&mut self.card);
    }

    /// Plays a flow and gives the answers.
    pub fn play(&mut self, recording: &Recording) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        for step in &recording.steps {
            match step {
                Step::Command(command) => answers.push(self.transmit(command)),
                Step::Reset => self.reset(),
            }
        }
        answers
    }
}

/// A command of the phone's owner.
///
/// # Panics
/// If the phone does not answer.
pub fn local(phone: &mut SimulatedPhone, command: &[u8]) -> Vec<u8> {
    let command = Command::parse(command).expect("a command");
    let answer = phone.ask(|phone| Box::pin(async move { phone.local_transmit(command).await }));
    answer.expect("an answer at once").expect("a phone that runs").to_bytes().to_vec()
}

/// PUT DATA of an object with so many bytes of content. Spec: SP 800-73-4 part 2, section 3.3.2
///
/// # Panics
/// If no card has objects of that length.
#[must_use]
pub fn put_data(tag: [u8; 3], length: usize) -> Vec<u8> {
    let length = u16::try_from(length).expect("an object of a PIV card").to_be_bytes();
    let mut data = vec![0x5C, 3];
    data.extend_from_slice(&tag);
    data.extend_from_slice(&[0x53, 0x82]);
    data.extend_from_slice(&length);
    data.extend(std::iter::repeat_n(0x30, usize::from(u16::from_be_bytes(length))));
    let lc = u16::try_from(data.len()).expect("an object of a PIV card").to_be_bytes();
    [&[0, 0xDB, 0x3F, 0xFF, 0], lc.as_slice(), &data].concat()
}
