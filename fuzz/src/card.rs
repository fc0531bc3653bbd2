//! The card in the phone, and two hosts that send it anything.

use std::time::Duration;

use pocketcard_phone::card::test_support::{TestBox, TestHost};
use pocketcard_phone::card::{Effect, Input as CardInput, ProbePoint};
use pocketcard_phone::traits::KeyHandle;
use pocketcard_protocol::apdu::{Chaining, Command, Response, StatusWord, Step};
use pocketcard_protocol::messages::{Body, Envelope};

use crate::Input;

/// Right and wrong commands that random bytes would not find; the fuzzer changes them as it likes.
const VOCABULARY: &[&[u8]] = &[
    &[0, 0xA4, 4, 0, 5, 0xA0, 0, 0, 3, 8],
    &[0, 0xA4, 4, 0, 6, 0xD2, 0x76, 0, 1, 0x24, 1],
    b"\x00\x20\x00\x80\x08123456\xFF\xFF",
    b"\x00\x20\x00\x80\x08999999\xFF\xFF",
    &[0, 0x20, 0, 0x80],
    &[0, 0x20, 0xFF, 0x80],
    b"\x00\x24\x00\x80\x10123456\xFF\xFF654321\xFF\xFF",
    b"\x00\x20\x00\x80\x08654321\xFF\xFF",
    b"\x00\x2C\x00\x80\x1012345678123456\xFF\xFF",
    b"\x00\x2C\x00\x80\x1087654321123456\xFF\xFF",
    &SIGN_9A,
    &[0, 0x87, 0x11, 0x9C, 10, 0x7C, 8, 0x82, 0, 0x81, 4, 1, 2, 3, 4, 0],
    &[0, 0x87, 0x11, 0x9D, 10, 0x7C, 8, 0x82, 0, 0x81, 4, 1, 2, 3, 4, 0],
    &[0, 0x87, 0x11, 0x9E, 10, 0x7C, 8, 0x82, 0, 0x81, 4, 1, 2, 3, 4, 0],
    &[0x10, 0x87, 0x11, 0x9A, 4, 0x7C, 8, 0x82, 0],
    &[0, 0x87, 0x11, 0x9A, 6, 0x81, 4, 1, 2, 3, 4, 0],
    &[0, 0xCB, 0x3F, 0xFF, 3, 0x5C, 1, 0x7E, 8],
    &[0, 0xCB, 0x3F, 0xFF, 5, 0x5C, 3, 0x5F, 0xC1, 2, 0],
    &[0, 0xCB, 0x3F, 0xFF, 5, 0x5C, 3, 0x5F, 0xC1, 9, 0],
    &[0, 0xF7, 0, 0x9A, 0],
    &[0, 0xF8, 0, 0, 0],
    &[0, 0xFB, 0, 0],
    &[0, 0x47, 0, 0x9A, 5, 0xAC, 3, 0x80, 1, 0x11, 0],
    &[0, 0x87, 0x0A, 0x9B, 4, 0x7C, 2, 0x80, 0, 0],
    &[0, 0xC0, 0, 0, 0],
];

const SIGN_9A: [u8; 16] = [0, 0x87, 0x11, 0x9A, 10, 0x7C, 8, 0x82, 0, 0x81, 4, 1, 2, 3, 4, 0];

/// What a host may have earned; the card may be stricter, never more generous.
#[derive(Clone, Copy, Default)]
struct Earned {
    pin: bool,
    /// A verification that no use of 9C has consumed.
    fresh: bool,
}

struct Program {
    host: TestHost,
    chaining: Chaining,
    earned: Earned,
}

struct World {
    card: TestBox,
    programs: [Program; 2],
    /// Keys of 9A, 9C, 9D and 9E, as long as they are the ones made at the start.
    keys: Vec<KeyHandle>,
}

/// A list of operations.
pub fn run(data: &[u8]) {
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
}

impl World {
    fn new() -> Self {
        let mut card = TestBox::test_card();
        for slot in [0x9A, 0x9C, 0x9D, 0x9E] {
            let generated = card.local(&[0, 0x47, 0, slot, 5, 0xAC, 3, 0x80, 1, 0x11, 0]);
            assert_eq!(generated.last_chunk(), Some(&[0x90, 0x00]));
        }
        let keys = card.keys.handles();
        assert_eq!(keys.len(), 4);
        let programs = [1, 2].map(|number| Program {
            host: card.host(number),
            chaining: Chaining::new(),
            earned: Earned::default(),
        });
        card.hold = true;
        Self { card, programs, keys }
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
            4 => self.card.store.set_failing(input.byte() & 1 != 0),
            5 => {
                if let Ok(envelope) = Envelope::from_bytes(input.chunk())
                    && !matches!(envelope.body, Some(Body::Transmit(_)))
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
            7..=9 => self.command(who, input.chunk()),
            _ => self.command(who, VOCABULARY[usize::from(input.byte()) % VOCABULARY.len()]),
        }
        self.settle(None);
        for event in self.card.out.events.drain(..) {
            let shown = format!("{event:?}");
            assert!(!shown.contains("123456") && !shown.contains("654321"), "{shown}");
        }
    }

    /// Sends a command as a program does, lets the card finish it, and learns from the answer.
    fn command(&mut self, who: usize, raw: &[u8]) {
        let program = &mut self.programs[who];
        let command = match program.chaining.handle(raw) {
            Step::Reply(reply) => return assert!(reply.len() >= 2),
            Step::Execute(command) => command,
        };
        program.host.last_request += 1;
        program.host.send(&mut self.card, program.host.last_request, command.as_bytes());
        self.settle(Some(who));
        let program = &mut self.programs[who];
        let closed = self.card.out.closed.iter().any(|(link, _)| *link == program.host.link);
        let Some(answer) = program.host.answer(&mut self.card) else {
            return assert!(closed, "no answer to {command:?}");
        };
        let response = Response::parse(&answer).expect("a whole response");
        program.earned = learn(program.earned, &command, &response);
        let window = program.chaining.respond(response);
        assert!((2..=65_538).contains(&window.len()));
        self.tries_come_first();
    }

    /// Does what the card asks for, after a look at whether `who` may have it.
    fn settle(&mut self, who: Option<usize>) {
        while let Some((_, effect)) = self.card.out.held.first() {
            if let Effect::Sign { key, .. } | Effect::Decrypt { key, .. } | Effect::Agree { key, .. } = effect {
                let who = who.expect("no key is used unless a program asks");
                let earned = &mut self.programs[who].earned;
                match self.keys.iter().position(|known| known == key) {
                    Some(1) => {
                        assert!(earned.fresh, "9C without a verification of its own");
                        earned.fresh = false;
                    }
                    Some(0 | 2) => assert!(earned.pin, "a key that the PIN protects"),
                    // 9E asks for nothing.
                    _ => {}
                }
            }
            assert!(self.card.release());
        }
        self.card.out.cancelled.clear();
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

fn learn(earned: Earned, command: &Command, response: &Response) -> Earned {
    let is_success = response.status().is_success();
    match command.ins() {
        // A verification, and a change of the PIN, which proves that it is known.
        0x20 | 0x24 if is_success && !command.data().is_empty() => Earned { pin: true, fresh: true },
        0x20 if is_success && command.p1() == 0xFF => Earned::default(),
        // A wrong PIN ends what was verified. A blocked one (69 83) is not compared and changes nothing.
        0x20 if matches!(response.status(), StatusWord::RemainingTries(_)) && !command.data().is_empty() => {
            Earned::default()
        }
        _ => earned,
    }
}
