//! A host's and a phone's link with an attacker between them who sees, changes, drops, repeats and invents messages.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pocketcard_protocol::Timestamp;
use pocketcard_protocol::link::{CloseReason, Event, Link, PairingMode, Side};
use pocketcard_protocol::messages::{
    Cancel, CardState, Envelope, Open, Opened, Pending, Reset, Response, SecurityState, Transmit,
};
use pocketcard_protocol::pairing::{Attempts, Offer, PairKeys, QrText};
use pocketcard_protocol::test_support::{Flight, Pair, Parties, TestEntropy};

use crate::Input;

/// What one side's caller has seen so far.
#[derive(Default)]
struct Seen {
    connected: bool,
    closed: bool,
    messages: Vec<Envelope>,
    digits: Option<String>,
    pair: Option<PairKeys>,
}

struct World {
    pair: Pair,
    /// What the attacker does to the next messages.
    fates: Rc<RefCell<VecDeque<(u8, u8)>>>,
    sent: [Vec<Envelope>; 2],
    agreed: [bool; 2],
    seen: [Seen; 2],
    pairing: bool,
}

/// What kind of link, then operations.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(input.byte());
    while !input.is_empty() {
        world.operate(&mut input);
        world.check();
    }
    world.pair.advance(Duration::from_secs(300));
    world.check();
    // Without anybody who sends, every link but a live one ends by itself.
    if world.pairing {
        assert!(world.pair.host.is_closed() && world.pair.phone.is_closed());
    }
}

impl World {
    fn new(kind: u8) -> Self {
        let (parties, keys) = parties(u64::from(kind >> 2));
        let now = Timestamp::ZERO;
        let (mut pair, pairing) = match kind & 3 {
            0 | 1 => (parties.connecting_with(&keys), false),
            2 => {
                let offer = Offer::compare(&Attempts::new(), now).expect("first offer");
                let mut phone = parties.phone.clone();
                phone.pairing = PairingMode::Compare;
                (Pair::new(Link::host_pair(parties.host.clone(), offer, now), Link::phone(phone, now)), true)
            }
            _ => {
                let (host, entropy) = (parties.host.identity.public(), &parties.host.entropy);
                let offer = Offer::new(&host, "desk", entropy.as_ref(), &Attempts::new(), now).expect("first offer");
                let qr = QrText::parse(&offer.qr_text().expect("a code")).expect("a good code");
                let mut phone = parties.phone.clone();
                phone.pairing = PairingMode::Scanned(Arc::new(qr));
                (Pair::new(Link::host_pair(parties.host.clone(), offer, now), Link::phone(phone, now)), true)
            }
        };
        let fates: Rc<RefCell<VecDeque<(u8, u8)>>> = Rc::default();
        let next = Rc::clone(&fates);
        let mut past: Vec<Flight> = Vec::new();
        pair.intercept(move |flight| {
            let (fate, detail) = next.borrow_mut().pop_front().unwrap_or_default();
            past.push(flight.clone());
            attack(flight, fate, detail, &past)
        });
        Self { pair, fates, sent: Default::default(), agreed: [false; 2], seen: Default::default(), pairing }
    }

    fn operate(&mut self, input: &mut Input<'_>) {
        let operation = input.byte();
        let side = if operation & 1 == 0 { Side::Host } else { Side::Phone };
        let now = self.pair.now;
        match operation >> 1 & 15 {
            0 => self.pair.settle(),
            1 => self.pair.advance(Duration::from_millis(50 * u64::from(input.byte()))),
            2 => self.fates.borrow_mut().push_back((input.byte(), input.byte())),
            3 => {
                // A message of the attacker's own.
                let message = input.chunk().to_vec();
                self.pair.link(side).handle_message(&message, now);
            }
            4 => {
                self.agreed[index(side)] |= self.seen[index(side)].digits.is_some();
                self.pair.link(side).confirm_pairing(true, now);
            }
            5 => self.pair.link(side).confirm_pairing(false, now),
            6 => self.pair.link(side).pair_stored(now),
            7 => self.pair.link(side).close(CloseReason::Done, now),
            8 => self.pair.disconnect(),
            9 => self.pair.link(side).ping(now),
            10 => self.pair.phone.set_pairing(PairingMode::Compare, now),
            11 => self.pair.latency = Duration::from_millis(u64::from(input.byte())),
            _ => {
                let message = message(input);
                if self.pair.send(side, message.clone()).is_ok() {
                    self.sent[index(side)].push(message);
                }
            }
        }
    }

    fn check(&mut self) {
        for side in [Side::Host, Side::Phone] {
            let events = self.pair.take_events(side);
            let (ours, theirs) = (index(side), index(side.other()));
            for event in events {
                let seen = &mut self.seen[ours];
                assert!(!seen.closed, "nothing comes after the end: {event:?}");
                match event {
                    Event::Connected { .. } => {
                        assert!(!seen.connected && !self.pairing);
                        seen.connected = true;
                    }
                    Event::Message(message) => {
                        assert!(seen.connected, "nothing happens before the channel is open");
                        seen.messages.push(message);
                    }
                    Event::PairingDigits { digits, .. } => {
                        assert!(self.pairing);
                        assert_eq!(seen.digits.replace(digits.to_string()), None);
                    }
                    Event::PeerConfirmed => assert!(self.agreed[theirs], "a confirmation that nobody gave"),
                    Event::Paired { pair, .. } => {
                        assert!(self.agreed == [true; 2], "a pair without both confirmations");
                        seen.pair = Some(pair);
                    }
                    Event::PairingDone => assert!(seen.pair.is_some()),
                    Event::Closed(_) => seen.closed = true,
                }
            }
            assert_eq!(self.seen[ours].closed, self.pair.link(side).is_closed());
            assert_eq!(self.pair.link(side).poll_timeout().is_none(), self.seen[ours].closed);
            // Whatever lies between: what arrives is what was sent, in order, without a gap.
            assert!(self.sent[theirs].starts_with(&self.seen[ours].messages), "{side:?} saw what was not sent");
        }
        let [host, phone] = &self.seen;
        assert!(!phone.connected || host.connected, "the phone knows the host by its first record");
        if let (Some(host), Some(phone)) = (&host.digits, &phone.digits) {
            assert_eq!(host, phone, "an attacker who changes bits cannot make different digits");
        }
        if let (Some(host), Some(phone)) = (&host.pair, &phone.pair) {
            // Both hold the same secrets behind the version and the other's key.
            assert_eq!(host.to_bytes()[33..], phone.to_bytes()[33..]);
        }
    }
}

/// The two of a seed and the host's keys: made once, for their identities cost more than most inputs. The entropy
/// begins anew each time, so that an input does the same whatever ran before it.
fn parties(seed: u64) -> (Parties, PairKeys) {
    thread_local! {
        static MADE: (Parties, PairKeys) = {
            let parties = Parties::new(0);
            let keys = parties.pair();
            (parties, keys)
        };
    }
    let (mut parties, keys) = MADE.with(|(parties, keys)| (parties.clone(), keys.duplicate()));
    parties.host.entropy = Arc::new(TestEntropy::new(2 * seed));
    parties.phone.entropy = Arc::new(TestEntropy::new(2 * seed + 1));
    (parties, keys)
}

fn index(side: Side) -> usize {
    match side {
        Side::Host => 0,
        Side::Phone => 1,
    }
}

/// What arrives in place of a message.
fn attack(mut flight: Flight, fate: u8, detail: u8, past: &[Flight]) -> Vec<Flight> {
    let at = usize::from(detail);
    match fate % 8 {
        0 => vec![flight],
        1 => vec![],
        2 => vec![flight.clone(), flight],
        3 => {
            let bit = at % (8 * flight.message.len()).max(1);
            if let Some(byte) = flight.message.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
            vec![flight]
        }
        4 => {
            let length = flight.message.len().saturating_sub(1 + at);
            flight.message.truncate(length);
            vec![flight]
        }
        5 => {
            flight.delay = Duration::from_millis(20 * u64::from(detail));
            vec![flight]
        }
        6 => {
            // An old message again, of either side, to either side.
            let mut old = past[at % past.len()].clone();
            if detail & 0x80 != 0 {
                old.from = old.from.other();
            }
            vec![flight, old]
        }
        _ => {
            flight.message.push(detail);
            vec![flight]
        }
    }
}

fn message(input: &mut Input<'_>) -> Envelope {
    let (session, request_id, epoch) = (1, u64::from(input.byte()), u64::from(input.byte()));
    match input.byte() % 9 {
        0 => Open { resume_token: vec![], epoch, software: "host".into() }.into(),
        1 => Transmit { session, request_id, epoch, command: vec![0x5A; usize::from(input.u16())] }.into(),
        2 => Reset { session, epoch }.into(),
        3 => Cancel { session, request_id }.into(),
        4 => Opened {
            session,
            token: vec![7; 32],
            resumed: false,
            last_request_id: request_id,
            card_state: None,
            security_state: None,
            software: "phone".into(),
        }
        .into(),
        5 => Response {
            session,
            request_id,
            epoch,
            response: vec![0xA5; usize::from(input.u16())],
            security_version: epoch,
            snapshot_digest: vec![],
        }
        .into(),
        6 => Pending { session, request_id, reason: i32::from(input.byte() % 6) }.into(),
        7 => CardState { present: true, atr: vec![0x3B], card_name: "card".into(), serial: 7 }.into(),
        _ => SecurityState { version: epoch, pin_verified: true, pin_tries_left: 3, ..SecurityState::default() }.into(),
    }
}
