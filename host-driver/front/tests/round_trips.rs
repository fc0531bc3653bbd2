//! How often the phone is asked when real programs use the card: their recorded commands, in order.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use pocketcard_front::{Config, Front, Output, PowerAction, Reply};
use pocketcard_phone::card::test_support::TestBox;
use pocketcard_phone::card::{HostId, Input, LinkId};
use pocketcard_protocol::messages::{Body, Envelope};
use pocketcard_protocol::snapshot::Snapshot;

const SSH: &str = include_str!("../../../tests/simulator/recordings/ssh-login-rsa.apdu");
const PKCS11: &str = include_str!("../../../tests/simulator/recordings/pkcs11-sign-rsa.apdu");
const PAM: &str = include_str!("../../../tests/simulator/recordings/pam-login-rsa.apdu");

const VERIFY: u8 = 0x20;
const GENERAL_AUTHENTICATE: u8 = 0x87;

/// What went to the phone and has an answer of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// A command with this instruction.
    Command(u8),
    /// A page of the snapshot.
    Page,
}

/// What the host knows when the program begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// What the card says to everybody, from an earlier run.
    Warm,
    /// Nothing, and the phone came a while ago.
    Cold,
    /// Nothing, and the phone has just come.
    Fresh,
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.bytes().filter_map(|byte| char::from(byte).to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// A host, a card on a phone, and what passed between them.
struct Desk {
    front: Front,
    card: TestBox,
    link: LinkId,
    asked: Vec<Asked>,
    /// All messages to the phone, with those that nobody waits for.
    sent: usize,
    snapshot: Option<Arc<Snapshot>>,
    generation: u64,
}

impl Desk {
    /// The card that a recording was made with, and its commands.
    fn new(recording: &str, start: Start) -> (Self, Vec<Vec<u8>>) {
        let mut card = TestBox::test_card();
        let mut commands = Vec::new();
        for line in recording.lines().filter(|line| !line.starts_with('#')) {
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["keys", algorithm] => {
                    for slot in ["9A", "9C", "9D", "9E"] {
                        let answer = card.local(&hex(&format!("004700{slot}05AC038001{algorithm}00")));
                        assert!(answer.ends_with(&[0x90, 0x00]));
                    }
                }
                ["object", tag, length] => {
                    let length: u16 = length.parse().unwrap();
                    let mut data = hex(&format!("5C03{tag}5382{length:04X}"));
                    data.resize(data.len() + usize::from(length), 0x30);
                    let put = [hex("00DB3FFF00"), (data.len() as u16).to_be_bytes().to_vec(), data].concat();
                    assert_eq!(card.local(&put), [0x90, 0x00]);
                }
                [command] => commands.push(hex(command)),
                _ => panic!("{line}"),
            }
        }
        let mut desk = Self {
            front: Front::new(Config::default()),
            card,
            link: LinkId::new(1),
            asked: Vec::new(),
            sent: 0,
            snapshot: None,
            generation: 0,
        };
        if start == Start::Warm {
            desk.connect();
            desk.answer_all();
            // The daemon is restarted, and finds on its disk what it kept.
            let kept = desk.snapshot.clone();
            assert!(kept.is_some());
            desk.card.handle(Input::LinkClosed { link: desk.link });
            (desk.front, desk.link) = (Front::new(Config::default()), LinkId::new(2));
            desk.front.offer_snapshot(kept);
            desk.asked.clear();
        }
        desk.connect();
        if start != Start::Fresh {
            desk.answer_all();
        }
        (desk, commands)
    }

    /// The phone comes, and what it says first is here.
    fn connect(&mut self) {
        self.card.handle(Input::LinkUp { link: self.link, host: HostId::new([1; 32]), host_name: "host".into() });
        self.front.handle_link_up(self.card.now);
        self.carry();
        self.deliver();
        assert!(self.generation > 0, "a card");
        self.front.handle_power(PowerAction::Up, self.generation, self.card.now).unwrap();
    }

    /// Takes to the phone what the front has to say, and gives its answer to a program.
    fn carry(&mut self) -> Option<Vec<u8>> {
        let mut reply = None;
        while let Some(output) = self.front.poll_output() {
            match output {
                Output::Send(envelope) => {
                    self.sent += 1;
                    match &envelope.body {
                        Some(Body::Transmit(transmit)) => self.asked.push(Asked::Command(transmit.command[1])),
                        Some(Body::Fetch(_)) => self.asked.push(Asked::Page),
                        _ => {}
                    }
                    self.card.handle(Input::Message { link: self.link, envelope });
                }
                Output::Reply(Reply::Response(response)) => reply = Some(response.to_vec()),
                Output::Presence(presence) => self.generation = presence.generation,
                Output::Snapshot(snapshot) => self.snapshot = Some(snapshot),
                Output::Granted | Output::Permissions(_) => {}
                other => panic!("{other:?}"),
            }
        }
        reply
    }

    /// The phone's next message arrives.
    fn deliver(&mut self) -> Option<Vec<u8>> {
        if self.card.out.sent.is_empty() {
            return None;
        }
        let (_, envelope): (_, Envelope) = self.card.out.sent.remove(0);
        self.front.handle_envelope(envelope, self.card.now);
        self.carry()
    }

    fn answer_all(&mut self) {
        while !self.card.out.sent.is_empty() {
            assert!(self.deliver().is_none());
        }
    }

    /// A command of the program. It waits for no more than its answer.
    fn command(&mut self, command: &[u8]) -> Vec<u8> {
        self.front.handle_transmit(command, self.card.now);
        let mut reply = self.carry();
        while reply.is_none() {
            assert!(!self.card.out.sent.is_empty(), "no answer to {command:02X?}");
            reply = self.deliver();
        }
        reply.unwrap()
    }
}

/// What the phone was asked in a whole run of a program that ends with a signature.
fn asked(recording: &str, start: Start) -> Vec<Asked> {
    let (mut desk, commands) = Desk::new(recording, start);
    let mut signature = Vec::new();
    for command in &commands {
        let answer = desk.command(command);
        if command[1] == GENERAL_AUTHENTICATE {
            signature = answer;
        }
    }
    // 256 bytes of it in one window, 8 more behind.
    assert_eq!((signature.len(), &signature[256..]), (258, &[0x61, 0x08][..]), "no signature");
    let sent = desk.sent;
    desk.front.handle_power(PowerAction::Down, 0, desk.card.now).unwrap();
    assert!(desk.carry().is_none());
    assert_eq!(desk.sent, sent + 1, "the reset, because there is a PIN to forget");
    assert_eq!(desk.front.poll_timeout(), None, "and then nothing");
    desk.asked
}

#[test]
fn a_login_asks_the_phone_twice() {
    for (name, recording) in [("ssh", SSH), ("pkcs11-tool", PKCS11), ("PAM", PAM)] {
        let expected = [Asked::Command(VERIFY), Asked::Command(GENERAL_AUTHENTICATE)];
        assert_eq!(asked(recording, Start::Warm), expected, "{name}");
    }
}

#[test]
fn a_login_with_a_phone_that_nobody_has_met_asks_it_four_times_at_most() {
    for (name, recording) in [("ssh", SSH), ("pkcs11-tool", PKCS11), ("PAM", PAM)] {
        let cold = asked(recording, Start::Cold);
        assert_eq!(cold, [Asked::Page, Asked::Command(VERIFY), Asked::Command(GENERAL_AUTHENTICATE)], "{name}");
        let fresh = asked(recording, Start::Fresh);
        assert!(fresh.len() <= 4 && fresh.starts_with(&[Asked::Page]), "{name}: {fresh:?}");
    }
}

#[test]
fn a_program_that_only_looks_leaves_nothing_to_reset() {
    let (mut desk, commands) = Desk::new(SSH, Start::Warm);
    for command in commands.iter().take_while(|command| command[..3] != [0, VERIFY, 0] || command.len() < 6) {
        desk.command(command);
    }
    let sent = desk.sent;
    desk.front.handle_power(PowerAction::Down, 0, desk.card.now).unwrap();
    assert!(desk.carry().is_none());
    assert_eq!((desk.asked.len(), desk.sent), (0, sent));
}
