//! No program can tell the front from the card: random sequences of APDUs, resets and losses go through a front with a
//! card behind it, and through the same card directly; what programs see must be equal.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers of tests

use std::time::Duration;

use pocketcard_front::{Config, Failure, Front, Output, PowerAction, Reply};
use pocketcard_phone::card::test_support::{TestBox, TestHost};
use pocketcard_phone::card::{CardEvent, HostId, Input, LinkId};
use proptest::prelude::*;

/// What a program or the world does.
#[derive(Debug, Clone)]
enum Step {
    Command(Vec<u8>),
    Reset,
    PowerDownAndUp,
    /// The driver goes away and another one powers the card up.
    Driver,
    /// The owner locks the card and unlocks it again.
    Lock,
    /// Another host works on the same card.
    OtherHost(Vec<u8>),
    /// The driver goes away while a command runs.
    Interrupted {
        command: Vec<u8>,
        /// The card still works on it, if it takes a key; else its answer is on the way and comes too late.
        working: bool,
    },
}

/// The front with a card behind it.
struct Fronted {
    front: Front,
    card: TestBox,
    other: TestHost,
    link: LinkId,
    /// What the reader was told last.
    generation: u64,
    /// What the card itself says of this host's PIN, by its last event.
    pin_verified: bool,
}

/// The number of the link of [`Fronted`]; far from those that a `TestBox` gives.
const LINK: u64 = 1 << 40;

impl Fronted {
    fn new() -> Self {
        let mut card = TestBox::test_card();
        let link = LinkId::new(LINK);
        let other = card.host(2);
        let front = Front::new(Config::default());
        let mut fronted = Self { front, card, other, link, generation: 0, pin_verified: false };
        fronted.card.handle(Input::LinkUp { link, host: HostId::new([1; 32]), host_name: "host".into() });
        fronted.front.handle_link_up(fronted.card.now);
        assert!(fronted.run().is_none());
        fronted.power_up();
        fronted
    }

    /// Carries messages between front and card until both are quiet; gives the reply to a program, if there was one.
    fn run(&mut self) -> Option<Result<Vec<u8>, Failure>> {
        let mut replies = Vec::new();
        loop {
            let mut moved = false;
            while let Some(output) = self.front.poll_output() {
                moved = true;
                match output {
                    Output::Send(envelope) => self.card.handle(Input::Message { link: self.link, envelope }),
                    Output::Reply(Reply::Response(response)) => replies.push(Ok(response.to_vec())),
                    Output::Reply(Reply::Failed(failure)) => replies.push(Err(failure)),
                    Output::Presence(presence) => self.generation = presence.generation,
                    Output::Pending(_) => {}
                    other => panic!("{other:?}"),
                }
            }
            let sent = std::mem::take(&mut self.card.out.sent);
            for (link, envelope) in sent {
                if link == self.link {
                    moved = true;
                    self.front.handle_envelope(envelope, self.card.now);
                } else {
                    self.card.out.sent.push((link, envelope));
                    // Left for the other host; not a movement of ours.
                }
            }
            if !moved {
                break;
            }
        }
        for event in self.card.out.events.drain(..) {
            if let CardEvent::SecurityChanged { host, pin_verified, .. } = event
                && host == HostId::new([1; 32])
            {
                self.pin_verified = pin_verified;
            }
        }
        assert!(self.card.out.closed.is_empty(), "the card closed the link: {:?}", self.card.out.closed);
        assert!(replies.len() <= 1, "{replies:?}");
        replies.pop()
    }

    fn power_up(&mut self) {
        self.front.handle_power(PowerAction::Up, self.generation, self.card.now).expect("a card is there");
        assert!(self.run().is_none());
    }

    fn step(&mut self, step: &Step) -> Vec<u8> {
        match step {
            Step::Command(command) => {
                self.front.handle_transmit(command, self.card.now);
                return self.run().expect("instant keys answer at once").expect("the card is powered");
            }
            Step::Reset => {
                self.front.handle_power(PowerAction::Reset, self.generation, self.card.now).expect("a card is there");
                assert!(self.run().is_none());
                self.nothing_is_left();
            }
            Step::PowerDownAndUp => {
                self.front.handle_power(PowerAction::Down, 0, self.card.now).expect("never fails");
                assert!(self.run().is_none());
                self.nothing_is_left();
                self.power_up();
            }
            Step::Driver => {
                self.front.handle_driver_gone(self.card.now);
                assert!(self.run().is_none());
                self.nothing_is_left();
                self.power_up();
            }
            Step::Lock => {
                let before = self.generation;
                self.card.handle(Input::LockCard);
                assert!(self.run().is_none());
                assert!(self.front.presence().atr.is_none());
                self.nothing_is_left();
                self.front.handle_transmit(&[0, 0xFD, 0, 0, 0], self.card.now);
                assert_eq!(self.run(), Some(Err(Failure::NotPresent)));
                self.card.handle(Input::UnlockCard);
                assert!(self.run().is_none());
                assert!(self.generation > before, "a new insertion");
                self.power_up();
            }
            Step::OtherHost(command) => return self.other.raw(&mut self.card, command),
            Step::Interrupted { command, working } => self.interrupted(command, *working),
        }
        assert!(self.run().is_none());
        Vec::new()
    }

    /// A reset ends the card's state at once, not only when this host says something again.
    fn nothing_is_left(&self) {
        assert!(!self.pin_verified, "the PIN is still verified on the card");
    }

    fn interrupted(&mut self, command: &[u8], working: bool) {
        self.card.hold = working;
        self.front.handle_transmit(command, self.card.now);
        let sent = self.front.poll_output();
        let (envelope, failures) = match sent {
            Some(Output::Send(envelope)) => (Some(envelope), 1),
            // A part of a chain, or nothing that a card would have to see.
            Some(Output::Reply(Reply::Response(_))) => (None, 0),
            other => panic!("{other:?}"),
        };
        if let Some(envelope) = envelope {
            self.card.handle(Input::Message { link: self.link, envelope });
        }
        // Whatever the card has to say crosses with the reset.
        let late = std::mem::take(&mut self.card.out.sent);
        self.front.handle_driver_gone(self.card.now);
        let mut replies = 0;
        while let Some(output) = self.front.poll_output() {
            match output {
                Output::Send(envelope) => self.card.handle(Input::Message { link: self.link, envelope }),
                Output::Reply(Reply::Failed(Failure::NotPresent)) => replies += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(replies, failures, "the program hears once that its card is gone");
        self.card.out.sent.splice(0..0, late);
        self.card.hold = false;
        assert!(!self.card.release(), "the card goes on with a command that was cancelled");
        assert!(self.run().is_none(), "nobody waits for a late answer");
        self.nothing_is_left();
        self.power_up();
    }
}

/// The card alone, with a program that talks to it through the same chaining.
struct Direct {
    card: TestBox,
    host: TestHost,
    other: TestHost,
}

impl Direct {
    fn new() -> Self {
        let mut card = TestBox::test_card();
        let other = card.host(2);
        let host = card.host(1);
        Self { card, host, other }
    }

    fn step(&mut self, step: &Step) -> Vec<u8> {
        match step {
            Step::Command(command) => self.host.raw(&mut self.card, command),
            Step::Reset | Step::PowerDownAndUp | Step::Driver => {
                self.host.reset(&mut self.card);
                Vec::new()
            }
            Step::Lock => {
                self.card.handle(Input::LockCard);
                self.card.handle(Input::UnlockCard);
                self.host.reset(&mut self.card);
                Vec::new()
            }
            Step::OtherHost(command) => self.other.raw(&mut self.card, command),
            Step::Interrupted { command, working } => {
                self.card.hold = *working;
                let _ = self.host.raw(&mut self.card, command);
                self.host.reset(&mut self.card);
                self.card.hold = false;
                Vec::new()
            }
        }
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.bytes().filter_map(|byte| char::from(byte).to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Commands of real programs, right and wrong, whole and in pieces.
fn vocabulary() -> Vec<Vec<u8>> {
    [
        "00A4040009A00000030800001000",
        "00A4040005A000000308",
        "00A404000BA000000308000010000100",
        "00A4040006D27600012401",
        "0020008008313233343536FFFF",
        "0020008008393939393939FFFF",
        "00200080",
        "0020FF80",
        "00200081083132333435363738",
        "0024008010313233343536FFFF363534333231FFFF",
        "0024008010363534333231FFFF313233343536FFFF",
        "002C0080103132333435363738313233343536FFFF",
        "00CB3FFF035C017E00",
        "00CB3FFF055C035FC10200",
        "00CB3FFF055C035FC10500",
        "00CB3FFF055C035FC10508",
        "00CB3FFF055C035FC10900",
        "00CB3FFF055C035FC107",
        "00FD000000",
        "00F8000000",
        "00F7009A00",
        "00F7008000",
        "00C0000000",
        "00C0000010",
        "00C00000FF",
        "00C0010000",
        "0087039B047C02810000",
        "00870A9B047C02810000",
        "0047009A05AC0380011100",
        "0087119A267C24820081200102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F2000",
        "1087119A0E7C24820081200102030405060708",
        "0087119A18090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F2000",
        "10DB3FFF0B5C035FC1055308706101",
        "00DB3FFF03020304",
        "00DB3FFF0A5C035FC105530370016A",
        "10200080043132333400",
        "002000800435360000",
        "00",
        "FF000000",
        "00CB3FFF",
        "0020008009313233343536",
        "00CB3FFF0000055C035FC1050000",
        "00CB3FFF0000035C017E0004",
    ]
    .iter()
    .map(|text| hex(text))
    .collect()
}

fn command() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        20 => prop::sample::select(vocabulary()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
        // A word of the vocabulary with one byte changed.
        2 => (prop::sample::select(vocabulary()), any::<prop::sample::Index>(), any::<u8>()).prop_map(
            |(mut command, at, byte)| {
                let at = at.index(command.len());
                command[at] = byte;
                command
            }
        ),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => command().prop_map(Step::Command),
        2 => Just(Step::Reset),
        1 => Just(Step::PowerDownAndUp),
        1 => Just(Step::Driver),
        1 => Just(Step::Lock),
        2 => command().prop_map(Step::OtherHost),
        3 => (command(), any::<bool>()).prop_map(|(command, working)| Step::Interrupted { command, working }),
    ]
}

/// What a program does to sign: management key aside, it is the path on which state matters most.
fn with_objects(fill: bool) -> (Fronted, Direct) {
    let (mut fronted, mut direct) = (Fronted::new(), Direct::new());
    if fill {
        // A certificate of 600 bytes, so that windows and GET RESPONSE occur; the owner's session may write.
        let mut put = hex("00DB3FFF00 026A 5C035FC105 53820261 7082025A");
        put.extend((0..602u32).map(|number| number.to_le_bytes()[0]));
        put.extend(hex("710100"));
        assert_eq!(fronted.card.local(&put), [0x90, 0x00]);
        assert_eq!(direct.card.local(&put), [0x90, 0x00]);
        let generate = hex("0047009A05AC0380011100");
        let public_key = fronted.card.local(&generate);
        assert!(public_key.ends_with(&[0x90, 0x00]));
        assert_eq!(direct.card.local(&generate), public_key);
        assert!(fronted.run().is_none());
    }
    (fronted, direct)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_program_can_tell_the_front_from_the_card(steps in prop::collection::vec(step(), 1..60), fill in any::<bool>()) {
        let (mut fronted, mut direct) = with_objects(fill);
        for (number, step) in steps.iter().enumerate() {
            let (seen, expected) = (fronted.step(step), direct.step(step));
            prop_assert_eq!(seen, expected, "step {} of {:02X?}", number, &steps);
        }
    }
}

#[test]
fn the_vocabulary_reaches_what_it_is_for() {
    let (mut fronted, mut direct) = with_objects(true);
    let mut both = |text: &str| {
        let step = Step::Command(hex(text));
        let seen = fronted.step(&step);
        assert_eq!(seen, direct.step(&step), "{text}");
        seen
    };
    assert!(both("00A4040009A00000030800001000").ends_with(&[0x90, 0x00]));
    let window = both("00CB3FFF055C035FC10500");
    assert_eq!((window.len(), window[256]), (258, 0x61), "a long object comes in windows");
    assert_eq!(both("00C0000010").len(), 18);
    assert_eq!(both("0020008008313233343536FFFF"), [0x90, 0x00]);
    assert_eq!(both("00200080"), [0x90, 0x00], "verified");
    assert_eq!(both("1087119A0E7C24820081200102030405060708"), [0x90, 0x00], "a part of a chain");
    let last = "0087119A18090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F2000";
    let signature = both(last);
    assert!(signature.starts_with(&[0x7C]) && signature.ends_with(&[0x90, 0x00]), "{signature:02X?}");
    assert_eq!(both("00C0000000"), [0x69, 0x85]);
    let mut both_do = |step: Step| assert_eq!(fronted.step(&step), direct.step(&step));
    both_do(Step::Reset);
    assert_eq!(fronted.step(&Step::Command(hex("00200080"))), [0x63, 0xC3], "no longer verified");
}

#[test]
fn an_interrupted_signature_is_never_made() {
    let (mut fronted, mut direct) = with_objects(true);
    let sign = "0087119A267C24820081200102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F2000";
    for working in [true, false] {
        for text in ["00A4040009A00000030800001000", "0020008008313233343536FFFF"] {
            let step = Step::Command(hex(text));
            assert_eq!(fronted.step(&step), direct.step(&step), "{text}");
        }
        let interrupted = Step::Interrupted { command: hex(sign), working };
        let cancelled = fronted.card.out.cancelled.len();
        assert_eq!(fronted.step(&interrupted), direct.step(&interrupted));
        assert_eq!(fronted.card.out.cancelled.len() - cancelled, usize::from(working));
        let asks = Step::Command(hex("00200080"));
        assert_eq!(fronted.step(&asks), direct.step(&asks));
    }
}

#[test]
fn a_link_that_is_lost_and_back_is_a_card_without_state() {
    let mut fronted = Fronted::new();
    assert_eq!(fronted.step(&Step::Command(hex("0020008008313233343536FFFF"))), [0x90, 0x00]);
    let now = fronted.card.now;
    fronted.front.handle_link_down(now);
    fronted.card.handle(Input::LinkDown { link: fronted.link });
    assert!(fronted.run().is_none());
    fronted.card.advance(Duration::from_millis(100));
    fronted.link = LinkId::new(LINK + 1);
    fronted.card.handle(Input::LinkUp { link: fronted.link, host: HostId::new([1; 32]), host_name: "host".into() });
    fronted.front.handle_link_up(fronted.card.now);
    assert!(fronted.run().is_none());
    fronted.power_up();
    assert_eq!(fronted.step(&Step::Command(hex("00200080"))), [0x63, 0xC3]);
}
