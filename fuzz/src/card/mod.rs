//! The card in the phone, and two hosts that send it anything. Both know the management key, so that what it opens is run for
//! real and not only refused.

mod entry;
mod management_key;
mod model;
mod vocabulary;

use std::collections::BTreeMap;
use std::time::Duration;

use pocketcard_phone::card::test_support::{TestBox, TestHost};
use pocketcard_phone::card::{Effect, EffectResult, Input as CardInput, ProbePoint};
use pocketcard_phone::traits::{ApprovalDecision, KeyHandle};
use pocketcard_protocol::apdu::{Chaining, Response, Step};
use pocketcard_protocol::messages::{Body, Envelope};
use pocketcard_protocol::tlv;

use self::management_key::ManagementKey;
use self::model::{Earned, Rules, inner};
use self::vocabulary::VOCABULARY;
use crate::Input;

/// What the host sends in return for the witness.
const OWN_CHALLENGE: [u8; 16] = *b"a host's own one";

struct Program {
    host: TestHost,
    chaining: Chaining,
    earned: Earned,
}

struct World {
    card: TestBox,
    programs: [Program; 2],
    management: ManagementKey,
    /// The keys there must be, and no others.
    slots: BTreeMap<u8, (KeyHandle, Rules)>,
    /// What was written and not deleted.
    objects: BTreeMap<u32, Vec<u8>>,
    owner_agrees: bool,
    /// Whether the owner agreed to the command under way.
    agreed: bool,
    /// Whether the owner has left a question of this host unanswered, or said no, since the app was opened: it may be held.
    asked_in_vain: [bool; 2],
    /// Commands that hosts succeeded with, by instruction.
    successes: BTreeMap<u8, u32>,
    /// Entries on the phone that succeeded, by the instruction that they stand for.
    entries: BTreeMap<u8, u32>,
}

/// A list of operations.
pub fn run(data: &[u8]) {
    play(data);
}

/// What succeeded, by instruction.
pub struct Successes {
    /// Commands of the hosts.
    pub commands: BTreeMap<u8, u32>,
    /// Entries on the phone, by the instruction that they stand for.
    pub entries: BTreeMap<u8, u32>,
}

/// Runs a list of operations, and counts what succeeded.
pub fn play(data: &[u8]) -> Successes {
    let mut input = Input::new(data);
    let mut world = World::new();
    while !input.is_empty() {
        world.operate(&mut input);
    }
    // The owner, too, finds a card that answers.
    world.card.store.set_failing(false);
    world.card.handle(CardInput::UnlockCard);
    world.settle(None);
    assert!(world.card.local(&[0, 0x20, 0, 0x80]).len() >= 2);
    Successes { commands: world.successes, entries: world.entries }
}

impl World {
    fn new() -> Self {
        let mut card = TestBox::test_card();
        let mut slots = BTreeMap::new();
        for (slot, pin) in [(0x9A, 2), (0x9C, 3), (0x9D, 2), (0x9E, 1)] {
            let known = card.keys.handles();
            let generated = card.local(&[0, 0x47, 0, slot, 5, 0xAC, 3, 0x80, 1, 0x11, 0]);
            assert_eq!(generated.last_chunk(), Some(&[0x90, 0x00]));
            let handle = card.keys.handles().into_iter().find(|handle| !known.contains(handle)).expect("a key");
            slots.insert(slot, (handle, Rules { pin, touch: 1 }));
        }
        let programs = [1, 2].map(|number| Program {
            host: card.host(number),
            chaining: Chaining::new(),
            earned: Earned::default(),
        });
        card.hold = true;
        Self {
            card,
            programs,
            management: ManagementKey::well_known(),
            slots,
            objects: BTreeMap::new(),
            owner_agrees: true,
            agreed: false,
            asked_in_vain: [false; 2],
            successes: BTreeMap::new(),
            entries: BTreeMap::new(),
        }
    }

    fn operate(&mut self, input: &mut Input<'_>) {
        let operation = input.byte();
        let who = usize::from(operation & 1);
        match operation >> 1 & 15 {
            0 => {
                self.programs[who].chaining.reset();
                self.programs[who].host.reset(&mut self.card);
                self.programs[who].earned = Earned::default();
            }
            1 => {
                self.programs[who].host.disconnect(&mut self.card);
                // Not within the grace, and without a token anyway.
                let host = self.card.host(1 + who as u8);
                self.programs[who] = Program { host, chaining: Chaining::new(), earned: Earned::default() };
            }
            2 => {
                self.card.handle(CardInput::LockCard);
                self.card.handle(CardInput::UnlockCard);
                self.programs.iter_mut().for_each(|program| program.earned = Earned::default());
            }
            3 => self.card.advance(Duration::from_secs(u64::from(input.byte()))),
            4 => {
                let moods = input.byte();
                self.card.store.set_failing(moods & 1 != 0);
                self.owner_agrees = moods & 2 == 0;
            }
            5 => {
                if let Ok(envelope) = Envelope::from_bytes(input.chunk())
                    && !matches!(envelope.body, Some(Body::Transmit(_) | Body::PinEntry(_)))
                {
                    let link = self.programs[who].host.link;
                    self.card.handle(CardInput::Message { link, envelope });
                    self.settle(Some(who));
                }
            }
            6 => {
                // A known command with a change in it.
                let mut command = VOCABULARY[usize::from(input.byte()) % VOCABULARY.len()].to_vec();
                let at = usize::from(input.byte()) % command.len();
                command[at] = input.byte();
                self.command(who, &command);
            }
            7..=9 => {
                self.command(who, input.chunk());
            }
            11 => self.prove_by_witness(who),
            12 => self.prove_by_challenge(who),
            13 => self.pretend(who, input.byte()),
            14 => self.pin_entry(who, input),
            15 => self.owner_comes(),
            _ => {
                self.command(who, VOCABULARY[usize::from(input.byte()) % VOCABULARY.len()]);
            }
        }
        self.settle(None);
        for event in self.card.out.events.drain(..) {
            let shown = format!("{event:?}");
            assert!(!shown.contains("123456") && !shown.contains("654321"), "{shown}");
        }
    }

    /// Asks for a witness (`80`) or a challenge (`81`). `None` if the card does not answer with one, whyever.
    fn ask(&mut self, who: usize, tag: u8) -> Option<[u8; 16]> {
        // Whatever chain there was, a command of its own ends it.
        self.programs[who].chaining.reset();
        let response = self.command(who, &[0, 0x87, self.management.algorithm, 0x9B, 4, 0x7C, 2, tag, 0, 0])?;
        let sent = response.status().is_success().then(|| inner(response.data(), tag)).flatten()?;
        sent.try_into().ok()
    }

    fn mutual(&self, witness: [u8; 16]) -> Vec<u8> {
        let header = [0, 0x87, self.management.algorithm, 0x9B, 0x26, 0x7C, 0x24];
        [&header[..], &[0x80, 0x10], &witness, &[0x81, 0x10], &OWN_CHALLENGE, &[0]].concat()
    }

    fn single(&self, response: [u8; 16]) -> Vec<u8> {
        [&[0, 0x87, self.management.algorithm, 0x9B, 0x14, 0x7C, 0x12, 0x82, 0x10], &response[..]].concat()
    }

    /// Mutual authentication as a management tool does it.
    fn prove_by_witness(&mut self, who: usize) {
        let Some(encrypted) = self.ask(who, 0x80) else { return };
        let command = self.mutual(self.management.decrypt(encrypted));
        let Some(response) = self.command(who, &command) else { return };
        if (!self.owner_agrees || self.asked_in_vain[who]) && !response.status().is_success() {
            return;
        }
        assert!(response.status().is_success(), "the right witness was refused");
        let answer = self.management.encrypt(OWN_CHALLENGE);
        assert_eq!(inner(response.data(), 0x82), Some(&answer[..]), "the card does not know its own key");
    }

    fn prove_by_challenge(&mut self, who: usize) {
        let Some(challenge) = self.ask(who, 0x81) else { return };
        let command = self.single(self.management.encrypt(challenge));
        let Some(response) = self.command(who, &command) else { return };
        let may_be_refused = !self.owner_agrees || self.asked_in_vain[who];
        assert!(response.status().is_success() || may_be_refused, "the right response was refused");
    }

    /// What somebody without the key can try. The model itself sees that none of it counts.
    fn pretend(&mut self, who: usize, how: u8) {
        let tag = 0x80 | how & 1;
        let Some(sent) = self.ask(who, tag) else { return };
        let mut right = if tag == 0x80 { self.management.decrypt(sent) } else { self.management.encrypt(sent) };
        let (who, command) = match how >> 1 & 3 {
            // Off by one bit, sent back as it came, for the other question, and by the other host.
            0 => {
                right[usize::from(how >> 4)] ^= 1;
                (who, if tag == 0x80 { self.mutual(right) } else { self.single(right) })
            }
            1 => (who, if tag == 0x80 { self.mutual(sent) } else { self.single(sent) }),
            2 => (who, if tag == 0x80 { self.single(sent) } else { self.mutual(sent) }),
            _ => {
                self.programs[1 - who].chaining.reset();
                self.programs[1 - who].earned.pending = None;
                (1 - who, if tag == 0x80 { self.mutual(right) } else { self.single(right) })
            }
        };
        // The other host may have a question of its own open, to which this is no answer either.
        let Some(response) = self.command(who, &command) else { return };
        assert!(!response.status().is_success(), "somebody without the key was believed");
    }

    /// Sends a command as a program does, lets the card finish it, and learns from the answer.
    fn command(&mut self, who: usize, raw: &[u8]) -> Option<Response> {
        let program = &mut self.programs[who];
        let command = match program.chaining.handle(raw) {
            Step::Reply(reply) => {
                assert!(reply.len() >= 2);
                return None;
            }
            Step::Execute(command) => command,
        };
        let blocked = command.ins() == 0xFB && self.is_blocked();
        let program = &mut self.programs[who];
        self.agreed = false;
        program.host.last_request += 1;
        program.host.send(&mut self.card, program.host.last_request, command.as_bytes());
        self.settle(Some(who));
        let program = &mut self.programs[who];
        let closed = self.card.out.closed.iter().any(|(link, _)| *link == program.host.link);
        let Some(answer) = program.host.answer(&mut self.card) else {
            assert!(closed, "no answer to {command:?}");
            return None;
        };
        let response = Response::parse(&answer).expect("a whole response");
        if response.status().is_success() {
            *self.successes.entry(command.ins()).or_default() += 1;
            assert!(command.ins() != 0xFB || blocked, "a card that was not blocked was made new");
        }
        self.learn(who, &command, &response);
        self.keys_are_the_ones_known();
        let window = self.programs[who].chaining.respond(response);
        assert!((2..=65_538).contains(&window.len()));
        self.tries_come_first();
        Response::parse(&answer).ok()
    }

    /// Does what the card asks for, after a look at whether `who` may have it.
    fn settle(&mut self, who: Option<usize>) {
        while let Some((operation, effect)) = self.card.out.held.first() {
            if matches!(effect, Effect::Approve(_)) {
                self.agreed = self.owner_agrees;
                if !self.owner_agrees {
                    self.asked_in_vain = [true; 2];
                    let operation = *operation;
                    self.card.out.held.remove(0);
                    let result = EffectResult::Approval(ApprovalDecision::Denied);
                    self.card.handle(CardInput::Completed { operation, result });
                    continue;
                }
            }
            if let Effect::Sign { key, .. } | Effect::Decrypt { key, .. } | Effect::Agree { key, .. } = effect {
                let who = who.expect("no key is used unless a program asks");
                let earned = &mut self.programs[who].earned;
                let rules = self.slots.values().find(|(known, _)| known == key).expect("a key that the card has").1;
                match rules.pin {
                    1 => {}
                    2 => assert!(earned.pin, "a key that the PIN protects"),
                    _ => assert!(earned.fresh, "a key that always asks, without a verification of its own"),
                }
                assert!(rules.touch != 2 || self.agreed, "a key that asks its owner every time");
                earned.fresh = false;
            }
            assert!(self.card.release());
        }
        self.card.out.cancelled.clear();
    }

    fn is_blocked(&mut self) -> bool {
        [0x80, 0x81].into_iter().all(|reference| {
            let metadata = self.card.local(&[0, 0xF7, 0, reference, 0]);
            matches!(tlv::find(&metadata[..metadata.len() - 2], 6), Ok(Some([_, 0])))
        })
    }

    /// A try is spent, durably, before a PIN is compared.
    fn tries_come_first(&mut self) {
        let mut stored = false;
        for point in self.card.probe.take() {
            match point {
                ProbePoint::VerifyReceived => stored = false,
                ProbePoint::VerifyAfterCommit => stored = true,
                ProbePoint::VerifyCompared => assert!(stored, "compared before the try was stored"),
                _ => {}
            }
        }
    }
}
