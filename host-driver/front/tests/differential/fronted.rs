//! The front with a card behind it, and a link on which the phone's messages take their time.

use std::collections::VecDeque;

use pocketcard_front::{Config, Failure, Front, Output, PinEntry, PowerAction, Reply};
use pocketcard_phone::card::test_support::{TestBox, TestHost};
use pocketcard_phone::card::{CardEvent, EffectResult, HostId, Input, LinkId};
use pocketcard_protocol::messages::{Body, Envelope};

use crate::card::{self, Seen};
use crate::steps::{Change, Gap, Owner};

/// The number of the first link of [`Fronted`]; far from those that a `TestBox` gives.
const LINK: u64 = 1 << 40;
const HOST: HostId = HostId::new([1; 32]);

/// What is on its way from the phone.
enum Wired {
    Message(Envelope),
    /// Everything that the phone has to say at once about a change is ahead of this.
    Change(usize),
}

pub(crate) struct Fronted {
    pub(crate) front: Front,
    pub(crate) card: TestBox,
    other: TestHost,
    link: u64,
    wire: VecDeque<Wired>,
    /// Changes that this host has heard of.
    pub(crate) heard: usize,
    /// Changes that the card has behind it.
    pub(crate) changes: usize,
    /// A command went to the card in this step.
    pub(crate) relayed: bool,
    /// Commands that went to the card, and all.
    pub(crate) counts: (usize, usize),
    /// What the reader was told last.
    generation: u64,
    /// What the card itself says of this host's PIN, by its last event.
    pin_verified: bool,
}

impl Fronted {
    pub(crate) fn new() -> Self {
        let mut card = card::new();
        let other = card.host(2);
        let mut fronted = Self {
            front: Front::new(Config::default()),
            card,
            other,
            link: LINK,
            wire: VecDeque::new(),
            heard: 0,
            changes: 0,
            relayed: false,
            counts: (0, 0),
            generation: 0,
            pin_verified: false,
        };
        fronted.connect();
        assert_eq!(fronted.power(PowerAction::Up), Seen::Nothing);
        fronted
    }

    fn connect(&mut self) {
        let link = LinkId::new(self.link);
        self.card.handle(Input::LinkUp { link, host: HOST, host_name: "host".into() });
        self.front.handle_link_up(self.card.now);
        assert!(self.settle().is_none());
        self.deliver_all();
    }

    /// Carries out what the front wants, and takes what the card has to say onto the wire.
    fn settle(&mut self) -> Option<Seen> {
        let mut seen = Vec::new();
        while let Some(output) = self.front.poll_output() {
            match output {
                Output::Send(envelope) => {
                    self.relayed |= matches!(envelope.body, Some(Body::Transmit(_) | Body::PinEntry(_)));
                    self.card.handle(Input::Message { link: LinkId::new(self.link), envelope });
                }
                Output::Reply(Reply::Response(response)) => seen.push(Seen::Response(response.to_vec())),
                Output::Reply(Reply::Failed(Failure::NotPresent)) => seen.push(Seen::Gone),
                Output::Presence(presence) => self.generation = presence.generation,
                // For a person; no program learns of them.
                Output::Pending(_) | Output::Refused { .. } | Output::Granted | Output::Permissions(_) => {}
                Output::Snapshot(_) => {}
                other => panic!("{other:?}"),
            }
        }
        self.collect();
        assert!(self.card.out.closed.is_empty(), "the card closed the link: {:?}", self.card.out.closed);
        assert!(seen.len() <= 1, "{seen:?}");
        seen.pop()
    }

    /// What the card sent to this host is on its way.
    fn collect(&mut self) {
        let link = LinkId::new(self.link);
        let (ours, others) = std::mem::take(&mut self.card.out.sent).into_iter().partition(|(to, _)| *to == link);
        self.card.out.sent = others;
        let ours: Vec<(LinkId, Envelope)> = ours;
        self.wire.extend(ours.into_iter().map(|(_, envelope)| Wired::Message(envelope)));
        for event in self.card.out.events.drain(..) {
            if let CardEvent::SecurityChanged { host: HOST, pin_verified, .. } = event {
                self.pin_verified = pin_verified;
            }
        }
    }

    fn deliver_one(&mut self) -> Option<Seen> {
        match self.wire.pop_front()? {
            Wired::Message(envelope) => self.front.handle_envelope(envelope, self.card.now),
            Wired::Change(number) => self.heard = number,
        }
        while let Some(Wired::Change(number)) = self.wire.front() {
            self.heard = *number;
            self.wire.pop_front();
        }
        self.settle()
    }

    /// So many messages arrive. Nobody waits for a command.
    pub(crate) fn deliver(&mut self, count: u8) {
        for _ in 0..count.min(u8::try_from(self.wire.len()).unwrap_or(u8::MAX)) {
            assert!(self.deliver_one().is_none(), "nobody waits for an answer");
        }
    }

    pub(crate) fn deliver_all(&mut self) {
        while !self.wire.is_empty() {
            self.deliver(1);
        }
    }

    pub(crate) fn command(&mut self, command: &[u8]) -> Seen {
        self.relayed = false;
        self.front.handle_transmit(command, self.card.now);
        let mut seen = self.settle();
        self.counts.1 += 1;
        if self.relayed {
            self.counts.0 += 1;
            while seen.is_none() {
                assert!(!self.wire.is_empty(), "instant keys answer at once");
                seen = self.deliver_one();
            }
            // The program has its answer when everything before it has been heard of; what is behind may as well come.
            self.deliver_all();
        }
        seen.expect("a reply to each command")
    }

    /// The owner is asked for a PIN, if the card comes to that.
    pub(crate) fn enter_pin(&mut self, entry: PinEntry, owner: Owner) -> Seen {
        self.relayed = false;
        self.card.hold = true;
        self.front.handle_pin_entry(entry, self.card.now);
        let mut seen = self.settle();
        self.card.hold = false;
        self.card.complete(EffectResult::Pin(owner.answer(entry.operation)));
        self.collect();
        while seen.is_none() {
            assert!(!self.wire.is_empty(), "the owner has answered");
            seen = self.deliver_one();
        }
        if self.relayed {
            self.deliver_all();
        }
        seen.expect("a reply to each entry")
    }

    pub(crate) fn power(&mut self, action: PowerAction) -> Seen {
        let result = self.front.handle_power(action, self.generation, self.card.now).map(<[u8]>::to_vec);
        assert!(self.settle().is_none());
        self.nothing_is_left();
        if result.is_ok() { Seen::Nothing } else { Seen::Gone }
    }

    pub(crate) fn driver_gone(&mut self) {
        self.front.handle_driver_gone(self.card.now);
        assert!(self.settle().is_none());
        self.nothing_is_left();
    }

    /// A reset ends the card's state at once, not only when this host says something again.
    fn nothing_is_left(&self) {
        assert!(!self.pin_verified, "the PIN is still verified on the card");
    }

    /// A command goes out, and the driver goes away before the answer comes. What the phone has to say crosses with the
    /// reset, and stays on its way.
    pub(crate) fn interrupted(&mut self, command: &[u8], working: bool) -> Seen {
        self.relayed = false;
        self.card.hold = working;
        self.front.handle_transmit(command, self.card.now);
        let seen = self.settle();
        self.front.handle_driver_gone(self.card.now);
        let late = self.settle();
        match &seen {
            None => assert_eq!(late, Some(Seen::Gone), "the program hears once that its card is gone"),
            Some(_) => assert_eq!(late, None),
        }
        self.card.hold = false;
        assert!(!self.card.release(), "the card goes on with a command that was cancelled");
        self.collect();
        self.nothing_is_left();
        Seen::Nothing
    }

    /// The link is lost and back. Gives what a program saw of its command, if it sent one; [`Fronted::relayed`] says
    /// whether it had to wait for the phone.
    pub(crate) fn link_lost(&mut self, gap: &Gap) -> Option<Seen> {
        self.wire.clear();
        self.front.handle_link_down(self.card.now);
        self.card.handle(Input::LinkDown { link: LinkId::new(self.link) });
        assert!(self.settle().is_none());
        let reset = |fronted: &mut Self, wanted: bool| {
            if wanted {
                let (generation, now) = (fronted.generation, fronted.card.now);
                fronted.front.handle_power(PowerAction::Reset, generation, now).expect("the card stays");
                assert!(fronted.settle().is_none());
            }
        };
        reset(self, gap.reset_early);
        self.link += 1;
        let link = LinkId::new(self.link);
        self.card.handle(Input::LinkUp { link, host: HOST, host_name: "host".into() });
        self.front.handle_link_up(self.card.now);
        assert!(self.settle().is_none());
        reset(self, gap.reset_late);
        let mut seen = None;
        self.relayed = false;
        if let Some(command) = &gap.command {
            self.front.handle_transmit(command, self.card.now);
            seen = self.settle();
            self.relayed = seen.is_none();
            while seen.is_none() {
                assert!(!self.wire.is_empty(), "instant keys answer at once");
                seen = self.deliver_one();
            }
        }
        self.deliver_all();
        self.heard = self.changes;
        seen
    }

    /// Somebody else does something. What this host hears of it is on its way.
    pub(crate) fn change(&mut self, change: &Change) -> Vec<u8> {
        let answer = card::change(&mut self.card, &mut self.other, change);
        self.changes += 1;
        self.collect();
        // The card leaves with the first word of that; what else there is to say belongs to a card that is gone.
        let at = match change {
            Change::Lock | Change::Unlock => {
                self.wire.iter().rposition(is_card_state).map_or(self.wire.len(), |at| at + 1)
            }
            _ => self.wire.len(),
        };
        self.wire.insert(at, Wired::Change(self.changes));
        answer
    }
}

fn is_card_state(wired: &Wired) -> bool {
    matches!(wired, Wired::Message(Envelope { body: Some(Body::CardState(_)) }))
}
