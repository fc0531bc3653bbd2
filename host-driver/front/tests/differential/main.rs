//! No program can tell the front from the card: random sequences of commands, resets, losses and changes by others go
//! through a front with a card behind it, and through the same card directly; what programs see must be equal.
//!
//! Between the card and the front the phone's messages take their time. The card alone is changed by others when the
//! front hears of it: a change that nobody has told of yet has not happened for a program, and one that the answer to a
//! command was behind has.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers of tests

mod card;
mod fronted;
mod steps;

use std::collections::VecDeque;

use pocketcard_front::{PinEntry, PowerAction};
use pocketcard_protocol::messages::PinOperation;
use proptest::prelude::*;

use card::{Direct, Seen, administer};
use fronted::Fronted;
use steps::{Change, Gap, Owner, Step, hex, step};

/// Random sequences in CI, and with `POCKETCARD_SOAK=1` so many that 100,000 commands come together.
const SEQUENCES: u32 = 250;
const SOAK_SEQUENCES: u32 = 3_000;
const LONGEST_SEQUENCE: usize = 120;

/// Both, side by side.
struct Pair {
    fronted: Fronted,
    direct: Direct,
    /// What others did to the front's card and not yet to the other one, with what they saw.
    pending: VecDeque<(Change, Vec<u8>)>,
    /// Changes that both have behind them.
    done: usize,
}

impl Pair {
    fn new() -> Self {
        Self { fronted: Fronted::new(), direct: Direct::new(), pending: VecDeque::new(), done: 0 }
    }

    /// Brings the other card up to a change.
    fn catch_up(&mut self, changes: usize) {
        while self.done < changes {
            let (change, seen) = self.pending.pop_front().expect("a change");
            self.done += 1;
            assert_eq!(self.direct.change(&change), seen, "{change:?} itself looks different");
        }
    }

    /// What a program sees of a command, on both sides.
    fn command(&mut self, command: &[u8]) -> (Seen, Seen) {
        let before = self.fronted.changes;
        let seen = self.fronted.command(command);
        // The card had all of them behind it when the command came.
        self.catch_up(if self.fronted.relayed { before } else { self.fronted.heard });
        (seen, self.direct.command(command))
    }

    /// Everything arrives that is on its way.
    fn deliver_all(&mut self) {
        self.fronted.deliver_all();
        self.catch_up(self.fronted.heard);
    }

    /// A command that crosses a removal and an insertion on its way may be carried out by the card that is back, although
    /// its program sees the removal: nobody can tell. So the phone's word comes first.
    fn no_card_is_back_unheard(&mut self) {
        if self.pending.iter().any(|(change, _)| matches!(change, Change::Unlock)) {
            self.deliver_all();
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        if matches!(step, Step::Command(_) | Step::EnterPin(..) | Step::Administer | Step::Interrupted { .. }) {
            self.no_card_is_back_unheard();
        }
        let (seen, expected) = match step {
            Step::Command(command) => self.command(command),
            Step::EnterPin(entry, owner) => {
                let before = self.fronted.changes;
                let seen = self.fronted.enter_pin(*entry, *owner);
                self.catch_up(if self.fronted.relayed { before } else { self.fronted.heard });
                (seen, self.direct.enter_pin(*entry, *owner))
            }
            Step::Administer => {
                let mut equal = Ok(());
                administer(|command| {
                    let (seen, expected) = self.command(command);
                    if seen != expected {
                        equal = Err(TestCaseError::fail(format!("{seen:02X?}, not {expected:02X?}")));
                    }
                    if let Seen::Response(response) = seen { response } else { Vec::new() }
                });
                return equal;
            }
            Step::Reset => (self.fronted.power(PowerAction::Reset), self.direct.power_up()),
            Step::PowerDownAndUp => {
                self.fronted.power(PowerAction::Down);
                self.direct.power_down();
                (self.fronted.power(PowerAction::Up), self.direct.power_up())
            }
            Step::Driver => {
                self.fronted.driver_gone();
                self.direct.power_down();
                (self.fronted.power(PowerAction::Up), self.direct.power_up())
            }
            Step::Interrupted { command, working } => {
                // A card that is locked did not do it, and this host does not know yet.
                if self.pending.iter().any(|(change, _)| matches!(change, Change::Lock)) {
                    self.deliver_all();
                }
                let seen = self.fronted.interrupted(command, *working);
                self.catch_up(if self.fronted.relayed { self.fronted.changes } else { self.fronted.heard });
                (seen, self.direct.interrupted(command, *working))
            }
            Step::LinkLost(gap) => {
                // That the card left and came back in this moment nobody hears, and the PIN is gone all the same.
                if self.pending.iter().any(|(change, _)| matches!(change, Change::Lock | Change::Unlock)) {
                    self.deliver_all();
                }
                if !self.direct.is_present() {
                    return Ok(());
                }
                let seen = self.fronted.link_lost(gap);
                for _ in [gap.reset_early, gap.reset_late].into_iter().filter(|reset| *reset) {
                    self.direct.power_up();
                }
                let mut expected = None;
                if let Some(command) = gap.command.as_ref().filter(|_| !self.fronted.relayed) {
                    expected = Some(self.direct.command(command));
                }
                self.catch_up(self.fronted.heard);
                self.direct.link_lost();
                if let Some(command) = gap.command.as_ref().filter(|_| self.fronted.relayed) {
                    expected = Some(self.direct.command(command));
                }
                prop_assert_eq!(seen, expected);
                return Ok(());
            }
            Step::Change(change) => {
                let seen = self.fronted.change(change);
                self.pending.push_back((change.clone(), seen));
                return Ok(());
            }
            Step::Deliver(count) => {
                self.fronted.deliver(*count);
                self.catch_up(self.fronted.heard);
                return Ok(());
            }
        };
        prop_assert_eq!(seen, expected);
        Ok(())
    }

    /// One step of which the outcome must be equal.
    #[track_caller]
    fn both(&mut self, step: Step) {
        self.step(&step).unwrap_or_else(|error| panic!("{step:02X?}: {error}"));
    }

    /// A command, and what both sides see of it.
    #[track_caller]
    fn says(&mut self, command: &str) -> Vec<u8> {
        let (seen, expected) = self.command(&hex(command));
        assert_eq!(seen, expected, "{command}");
        let Seen::Response(response) = seen else { panic!("{command}: the card is gone") };
        response
    }

    /// Commands that had to go to the card so far.
    fn relayed(&self) -> usize {
        self.fronted.counts.0
    }
}

fn sequences() -> u32 {
    let soak = std::env::var_os("POCKETCARD_SOAK").is_some_and(|value| value != "0");
    if soak { SOAK_SEQUENCES } else { SEQUENCES }
}

#[test]
fn no_program_can_tell_the_front_from_the_card() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: sequences(),
        ..ProptestConfig::with_source_file(file!())
    });
    let counts = std::cell::Cell::new((0, 0));
    let sequence = prop::collection::vec(step(), 1..LONGEST_SEQUENCE);
    let result = runner.run(&sequence, |steps| {
        let mut pair = Pair::new();
        for (number, step) in steps.iter().enumerate() {
            pair.step(step).map_err(|error| TestCaseError::fail(format!("step {number}, {step:02X?}: {error}")))?;
        }
        pair.deliver_all();
        let (relayed, all) = (counts.get().0 + pair.fronted.counts.0, counts.get().1 + pair.fronted.counts.1);
        counts.set((relayed, all));
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    let (relayed, all) = counts.get();
    println!("{all} commands, {relayed} of them went to the card");
    assert!(3 * relayed < 2 * all, "the front answers {} of {all}: this does not test what it is for", all - relayed);
}

const VERIFY: &str = "0020008008313233343536FFFF";
const WRONG: &str = "0020008008393939393939FFFF";
const STATUS: &str = "00200080";
const PRINTED: &str = "00CB3FFF055C035FC10900";
const CERTIFICATE: &str = "00CB3FFF055C035FC10500";
const DELETE_CERTIFICATE: &str = "00DB3FFF075C035FC1055300";
const SIGN: &str = "0087119A267C24820081200102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F2000";

#[test]
fn a_pin_of_the_phone_counts_like_a_typed_one() {
    let mut pair = Pair::new();
    let enter = |operation, owner| {
        let time_limit = std::time::Duration::from_secs(25);
        Step::EnterPin(PinEntry { operation, key_reference: 0x80, time_limit }, owner)
    };
    pair.both(enter(PinOperation::Verify, Owner::Enters("999999")));
    assert_eq!(pair.says(STATUS), [0x63, 0xC2]);
    assert_eq!(pair.says(PRINTED), [0x69, 0x82]);
    assert_eq!(pair.says(CERTIFICATE).len(), 258);
    pair.both(enter(PinOperation::Verify, Owner::Enters("123456")));
    assert_eq!(pair.says("00C0000000"), [0x69, 0x85], "nothing is left of the certificate");
    assert_eq!(pair.says(STATUS), [0x90, 0x00]);
    assert_eq!(pair.says(PRINTED), [0x6A, 0x82]);
    assert!(pair.says(SIGN).ends_with(&[0x90, 0x00]));
    pair.both(Step::Reset);
    assert_eq!(pair.says(STATUS), [0x63, 0xC3]);
    for owner in [Owner::Ignores, Owner::Mistypes] {
        pair.both(enter(PinOperation::Change, owner));
    }
    assert_eq!(pair.says(STATUS), [0x63, 0xC3]);
}

#[test]
fn the_vocabulary_reaches_what_it_is_for() {
    let mut pair = Pair::new();
    assert!(pair.says("00A4040009A00000030800001000").ends_with(&[0x90, 0x00]));
    let window = pair.says(CERTIFICATE);
    assert_eq!((window.len(), window[256]), (258, 0x61), "a long object comes in windows");
    assert_eq!(pair.says("00C0000010").len(), 18);
    assert_eq!(pair.says(STATUS), [0x63, 0xC3]);
    assert_eq!(pair.says(PRINTED), [0x69, 0x82]);
    assert_eq!(pair.says("00A4040006D27600012401"), [0x6A, 0x82]);
    assert_eq!(pair.says("00CADF3005"), [0x6D, 0x00]);
    assert_eq!(pair.relayed(), 0, "all that without the card");
    assert_eq!(pair.says(VERIFY), [0x90, 0x00]);
    assert_eq!(pair.says(STATUS), [0x90, 0x00], "verified");
    assert_eq!(pair.says("1087119A0E7C24820081200102030405060708"), [0x90, 0x00], "a part of a chain");
    assert_eq!(pair.relayed(), 1);
    let signature = pair.says("0087119A18090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F2000");
    assert!(signature.starts_with(&[0x7C]) && signature.ends_with(&[0x90, 0x00]), "{signature:02X?}");
    assert_eq!(pair.says("00C0000000"), [0x69, 0x85]);
    assert_eq!(pair.says(PRINTED), [0x6A, 0x82], "it may be read, and there is none");
    assert_eq!(pair.relayed(), 3, "what needs the PIN is never held here");
    pair.both(Step::Reset);
    assert_eq!(pair.says(STATUS), [0x63, 0xC3], "no longer verified");
    // The other application: nothing is certain that is said to it.
    assert!(pair.says("00A4040008A000000527471117").ends_with(&[0x90, 0x00]));
    assert_eq!((pair.says(STATUS), pair.says("00FD000000")), (vec![0x6D, 0x00], vec![0x6D, 0x00]));
    assert_eq!(pair.says("00A4040006D27600012401"), [0x6A, 0x82]);
    assert_eq!(pair.relayed(), 6);
    assert!(pair.says("00A4040005A000000308").ends_with(&[0x90, 0x00]));
    assert_eq!((pair.says(STATUS), pair.relayed()), (vec![0x63, 0xC3], 7));
}

#[test]
fn a_change_by_others_happens_when_it_is_heard_of() {
    let mut pair = Pair::new();
    let there = pair.says(CERTIFICATE);
    pair.both(Step::Change(Change::Owner(hex(DELETE_CERTIFICATE))));
    assert_eq!((pair.says(CERTIFICATE), pair.relayed()), (there, 0), "not yet");
    pair.both(Step::Deliver(1));
    assert_eq!((pair.says(CERTIFICATE), pair.relayed()), (vec![0x6A, 0x82], 1), "what is held is not current");
    assert_eq!((pair.says(CERTIFICATE), pair.relayed()), (vec![0x6A, 0x82], 1), "and has been fetched by now");

    // Another host tries a wrong PIN: that is heard of before the answer to a command which the card got later.
    assert_eq!(pair.says(VERIFY), [0x90, 0x00]);
    pair.both(Step::Change(Change::Host(hex(WRONG))));
    pair.both(Step::Reset);
    assert_eq!(pair.says(STATUS), [0x63, 0xC3]);
    assert_eq!(pair.says("00F7008000")[..3], [0x01, 0x01, 0xFF]);
    assert_eq!(pair.says(STATUS), [0x63, 0xC2]);

    // The PIN is changed elsewhere, which takes back what was verified here.
    assert_eq!(pair.says(VERIFY), [0x90, 0x00]);
    pair.both(Step::Change(Change::Host(hex("0024008010313233343536FFFF363534333231FFFF"))));
    assert_eq!(pair.says(STATUS), [0x90, 0x00]);
    assert_eq!(pair.says(SIGN), [0x69, 0x82]);
    assert_eq!((pair.says(STATUS), pair.says(PRINTED)), (vec![0x63, 0xC3], vec![0x69, 0x82]));

    let relayed = pair.relayed();
    pair.both(Step::Change(Change::Lock));
    assert_eq!(pair.says(STATUS), [0x63, 0xC3]);
    pair.both(Step::Deliver(1));
    assert_eq!(pair.command(&hex(STATUS)), (Seen::Gone, Seen::Gone));
    pair.both(Step::Reset);
    pair.both(Step::Change(Change::Unlock));
    pair.both(Step::Deliver(9));
    assert_eq!(pair.command(&hex(STATUS)), (Seen::Gone, Seen::Gone), "it has no power");
    pair.both(Step::Reset);
    assert_eq!(pair.says(CERTIFICATE), [0x6A, 0x82]);
    assert_eq!(pair.relayed(), relayed, "the snapshot is the one from before");
}

#[test]
fn a_command_that_was_interrupted_is_not_guessed_at() {
    for working in [true, false] {
        let mut pair = Pair::new();
        pair.both(Step::Interrupted { command: hex(WRONG), working });
        pair.both(Step::Driver);
        assert_eq!((pair.says(STATUS), pair.relayed()), (vec![0x63, 0xC2], 1));
        assert_eq!((pair.says(STATUS), pair.relayed()), (vec![0x63, 0xC2], 1));
        pair.both(Step::Interrupted { command: hex(VERIFY), working });
        pair.both(Step::Driver);
        assert_eq!((pair.says(STATUS), pair.says(PRINTED)), (vec![0x63, 0xC3], vec![0x69, 0x82]));
    }
}

#[test]
fn an_interrupted_signature_is_never_made() {
    for working in [true, false] {
        let mut pair = Pair::new();
        assert!(pair.says("00A4040009A00000030800001000").ends_with(&[0x90, 0x00]));
        assert_eq!(pair.says(VERIFY), [0x90, 0x00]);
        let cancelled = pair.fronted.card.out.cancelled.len();
        pair.both(Step::Interrupted { command: hex(SIGN), working });
        assert_eq!(pair.fronted.card.out.cancelled.len() - cancelled, usize::from(working));
        pair.both(Step::Driver);
        assert_eq!(pair.says(STATUS), [0x63, 0xC3]);
    }
}

#[test]
fn a_link_that_is_lost_and_back_in_time_is_the_same_card() {
    let mut pair = Pair::new();
    assert_eq!(pair.says(VERIFY), [0x90, 0x00]);
    pair.both(Step::LinkLost(Gap::default()));
    assert_eq!((pair.says(STATUS), pair.relayed()), (vec![0x90, 0x00], 1));
    assert_eq!(pair.says(VERIFY), [0x90, 0x00]);
    pair.both(Step::Change(Change::Owner(hex(DELETE_CERTIFICATE))));
    pair.both(Step::LinkLost(Gap::default()));
    assert_eq!(pair.says(CERTIFICATE), [0x6A, 0x82], "what was said into the lost link is said again");
}
