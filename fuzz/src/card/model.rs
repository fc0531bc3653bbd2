//! What follows from each answer of the card, and what may not follow.

use pocketcard_protocol::apdu::{Command, Response, StatusWord};
use pocketcard_protocol::tlv;

use super::World;
use super::management_key::ManagementKey;

/// Objects that a card has without anybody having written them.
const NATIVE: [u32; 4] = [0x7E, 0x5F_C102, 0x5F_C107, 0x5F_C10C];

/// Objects that ask for the PIN.
const PROTECTED: [u32; 5] = [0x5F_C103, 0x5F_C108, 0x5F_C109, 0x5F_C121, 0x5F_C123];

/// What a host may have earned; the card may be stricter, never more generous.
#[derive(Clone, Copy, Default)]
pub(super) struct Earned {
    pub(super) pin: bool,
    /// A verification that no use of a key has consumed.
    pub(super) fresh: bool,
    pub(super) management: bool,
    /// What the card sent last for the host to prove the management key with.
    pub(super) pending: Option<Pending>,
}

#[derive(Clone, Copy)]
pub(super) enum Pending {
    Witness([u8; 16]),
    Challenge([u8; 16]),
}

/// The rules that a key was made with, as on the wire: 1 never, 2 once, 3 always; and 1 never, 2 always, 3 cached.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    pub(super) pin: u8,
    pub(super) touch: u8,
}

impl World {
    /// What follows for the model from an answer.
    pub(super) fn learn(&mut self, who: usize, command: &Command, response: &Response) {
        let (is_success, data) = (response.status().is_success(), command.data());
        let earned = self.programs[who].earned;
        let other = 1 - who;
        match command.ins() {
            // A verification, and a change of the PIN, which proves that it is known.
            0x20 if is_success && !data.is_empty() => self.set_pin(who, true),
            0x20 if is_success && command.p1() == 0xFF => self.set_pin(who, false),
            0x24 if is_success && command.p2() == 0x80 => {
                self.set_pin(who, true);
                self.set_pin(other, false);
            }
            0x2C if is_success => self.set_pin(other, false),
            // A wrong PIN ends what was verified, and so does a wrong PUK. The last try of the PIN ends it for everybody.
            // A blocked one (69 83) is not compared and changes nothing.
            0x20 | 0x24 | 0x2C if matches!(response.status(), StatusWord::RemainingTries(_)) && !data.is_empty() => {
                if command.ins() == 0x2C || command.p2() == 0x80 {
                    self.set_pin(who, false);
                }
                if command.ins() != 0x2C && command.p2() == 0x80 && response.status() == StatusWord::RemainingTries(0) {
                    self.set_pin(other, false);
                }
            }
            0x87 if command.p2() == 0x9B => self.learn_proof(who, command, response),
            0xCB => self.check_object(who, command, response),
            0xDB | 0x47 | 0xF6 | 0xFF | 0xFA if !is_success => {}
            0xDB | 0x47 | 0xF6 | 0xFF | 0xFA => {
                assert!(earned.management, "administration without the management key: {command:?}");
                assert!(command.ins() != 0xFA || earned.pin, "tries were set without the PIN");
                self.learn_administration(who, command);
            }
            0xFB if is_success => {
                self.programs.iter_mut().for_each(|program| program.earned = Earned::default());
                self.management = ManagementKey::well_known();
                self.slots.clear();
                self.objects.clear();
            }
            _ => {}
        }
    }

    fn set_pin(&mut self, who: usize, verified: bool) {
        self.programs[who].earned.pin = verified;
        self.programs[who].earned.fresh = verified;
    }

    /// The management key is proven by whoever answers what the card asked last, and by nobody else.
    fn learn_proof(&mut self, who: usize, command: &Command, response: &Response) {
        let earned = &mut self.programs[who].earned;
        if response.status() == StatusWord::SecurityStatusNotSatisfied {
            earned.management = false;
            earned.pending = None;
        }
        if !response.status().is_success() {
            return;
        }
        let block = |data, tag| inner(data, tag).and_then(|value| <[u8; 16]>::try_from(value).ok());
        match (block(command.data(), 0x80), block(command.data(), 0x82)) {
            (Some(witness), _) => {
                let Some(Pending::Witness(encrypted)) = earned.pending.take() else { panic!("nothing was asked") };
                assert_eq!(self.management.decrypt(encrypted), witness, "a wrong witness was believed");
                earned.management = true;
            }
            (_, Some(answer)) => {
                let Some(Pending::Challenge(challenge)) = earned.pending.take() else { panic!("nothing was asked") };
                assert_eq!(self.management.encrypt(challenge), answer, "a wrong response was believed");
                earned.management = true;
            }
            (None, None) => {
                let witness = block(response.data(), 0x80).map(Pending::Witness);
                earned.pending = witness.or_else(|| block(response.data(), 0x81).map(Pending::Challenge));
                assert!(earned.pending.is_some(), "neither a witness nor a challenge");
            }
        }
    }

    fn learn_administration(&mut self, who: usize, command: &Command) {
        match command.ins() {
            0xDB => {
                let (tag, content) = written(command.data());
                if content.is_empty() {
                    self.objects.remove(&tag);
                } else {
                    self.objects.insert(tag, content);
                }
            }
            0x47 => {
                let named = self.card.card.key_handles();
                let mut new = named.into_iter().filter(|handle| self.slots.values().all(|(known, _)| known != handle));
                let handle = new.next().expect("a new key");
                assert!(new.next().is_none(), "two new keys");
                let slot = command.p2();
                let default =
                    Rules { pin: [2, 3, 1][usize::from(slot == 0x9C) + 2 * usize::from(slot == 0x9E)], touch: 1 };
                self.slots.insert(slot, (handle, rules(command.data(), default)));
            }
            0xF6 => {
                let moved = self.slots.remove(&command.p2()).expect("a key to move");
                if command.p1() != 0xFF {
                    assert!(self.slots.insert(command.p1(), moved).is_none(), "a key was moved over another");
                }
            }
            0xFF => {
                let [algorithm, _, _, key @ ..] = command.data() else { panic!("a key without a header") };
                self.management = ManagementKey { algorithm: *algorithm, key: key.to_vec() };
                self.programs[who].earned.pending = None;
                let other = &mut self.programs[1 - who].earned;
                other.management = false;
                other.pending = None;
            }
            _ => {
                self.set_pin(0, false);
                self.set_pin(1, false);
            }
        }
    }

    /// Who reads an object gets what was written, all of it, and the protected ones only with the PIN.
    fn check_object(&self, who: usize, command: &Command, response: &Response) {
        let Ok(tag) = tlv::only(command.data(), 0x5C) else { return };
        let tag = number(tag);
        let written = self.objects.get(&tag);
        match response.status() {
            StatusWord::Success => {
                assert!(!PROTECTED.contains(&tag) || self.programs[who].earned.pin, "a protected object");
                let outer = if matches!(tag, 0x7E | 0x7F61) { tag } else { 0x53 };
                let content = tlv::only(response.data(), outer).expect("an object");
                match written {
                    Some(written) => assert_eq!(content, written, "another content than was written"),
                    None => assert!(NATIVE.contains(&tag), "an object that nobody wrote: {tag:X}"),
                }
            }
            StatusWord::NotFound => assert!(written.is_none(), "an object is lost: {tag:X}"),
            _ => {}
        }
    }

    /// No key is lost, and none is left behind under a name.
    pub(super) fn keys_are_the_ones_known(&self) {
        let mut named = self.card.card.key_handles();
        let mut known: Vec<_> = self.slots.values().map(|(handle, _)| handle.clone()).collect();
        named.sort();
        known.sort();
        assert_eq!(named, known);
        let there = self.card.keys.handles();
        assert!(known.iter().all(|handle| there.contains(handle)), "a key that is named was destroyed");
    }
}

/// The value of an object in a dynamic authentication template.
pub(super) fn inner(template: &[u8], tag: u8) -> Option<&[u8]> {
    tlv::find(tlv::only(template, 0x7C).ok()?, u32::from(tag)).ok()?
}

/// Tag and content that a PUT DATA wrote.
fn written(data: &[u8]) -> (u32, Vec<u8>) {
    let objects: Vec<_> = tlv::Reader::new(data).map(|object| object.expect("what the card could read")).collect();
    match objects[..] {
        [tag, content] => (number(tag.value), content.value.to_vec()),
        [bare] => (bare.tag, bare.value.to_vec()),
        _ => panic!("an object was written with {} objects", objects.len()),
    }
}

/// The rules that a GENERATE asks for; 0 is the default, and the last word counts.
fn rules(data: &[u8], default: Rules) -> Rules {
    let mut rules = default;
    for object in tlv::Reader::new(tlv::only(data, 0xAC).expect("a template")) {
        let object = object.expect("what the card could read");
        match (object.tag, object.value) {
            (0xAA, [pin]) => rules.pin = if *pin == 0 { default.pin } else { *pin },
            (0xAB, [touch]) => rules.touch = if *touch == 0 { default.touch } else { *touch },
            _ => {}
        }
    }
    rules
}

fn number(tag: &[u8]) -> u32 {
    tag.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}
