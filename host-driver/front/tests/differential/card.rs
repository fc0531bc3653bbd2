//! The card alone, with a program that talks to it through the same chaining; and what others do to either card.

use aes::cipher::{Array, BlockCipherEncrypt as _, KeyInit as _};
use pocketcard_front::PinEntry;
use pocketcard_phone::card::test_support::{TestBox, TestHost};
use pocketcard_phone::card::{CardConfig, EffectResult, HostId, Input, LinkId};

use crate::steps::{Change, Owner, hex};

/// What a program or a reader sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Response(Vec<u8>),
    /// The card is not there, or has no power.
    Gone,
    Nothing,
}

/// Far from the numbers of links that a `TestBox` gives.
const LINKS: u64 = 1 << 40;

/// A card of which everybody knows the PIN, with P-256 in 9A and a certificate of 600 bytes, so that windows and GET
/// RESPONSE occur.
pub(crate) fn new() -> TestBox {
    let config = CardConfig { test_card: true, ..CardConfig::default() };
    let mut card = TestBox::with(config, Default::default());
    let mut put = hex("00DB3FFF00 026A 5C035FC105 53820261 7082025A");
    put.extend((0..602u32).map(|number| number.to_le_bytes()[0]));
    put.extend(hex("710100"));
    assert_eq!(card.local(&put), [0x90, 0x00]);
    assert!(card.local(&hex("0047009A05AC0380011100")).ends_with(&[0x90, 0x00]));
    card
}

/// Somebody who is not the host under test does something; what they see of it.
pub(crate) fn change(card: &mut TestBox, other: &mut TestHost, change: &Change) -> Vec<u8> {
    match change {
        Change::Owner(command) => card.local(command),
        Change::Host(command) => other.raw(card, command),
        Change::HostAdministers => administer(|command| other.raw(card, command)),
        Change::Lock | Change::Unlock => {
            card.handle(if matches!(change, Change::Lock) { Input::LockCard } else { Input::UnlockCard });
            Vec::new()
        }
        Change::Idle => {
            let limit = CardConfig::default().idle_limit.expect("a limit");
            card.advance(limit);
            Vec::new()
        }
    }
}

/// Proves the management key by the single challenge; gives the last answer.
pub(crate) fn administer(mut send: impl FnMut(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let answer = send(&hex("00870A9B047C02810000"));
    let Some(challenge) = answer.strip_prefix(&[0x7C, 0x12, 0x81, 0x10]).and_then(|rest| rest.get(..16)) else {
        return answer;
    };
    let key = hex("010203040506070801020304050607080102030405060708");
    let mut block = Array::try_from(challenge).expect("a block");
    aes::Aes192::new_from_slice(&key).expect("a key").encrypt_block(&mut block);
    send(&[hex("00870A9B147C128210"), block.to_vec()].concat())
}

pub(crate) struct Direct {
    pub(crate) card: TestBox,
    host: TestHost,
    other: TestHost,
    present: bool,
    powered: bool,
}

impl Direct {
    pub(crate) fn new() -> Self {
        let mut card = new();
        let other = card.host(2);
        let host = card.host(1);
        Self { card, host, other, present: true, powered: true }
    }

    pub(crate) fn is_present(&self) -> bool {
        self.present
    }

    pub(crate) fn command(&mut self, command: &[u8]) -> Seen {
        if !self.powered {
            return Seen::Gone;
        }
        Seen::Response(self.host.raw(&mut self.card, command))
    }

    pub(crate) fn enter_pin(&mut self, entry: PinEntry, owner: Owner) -> Seen {
        if !self.powered {
            return Seen::Gone;
        }
        self.card.hold = true;
        let mut answer = self.host.enter_pin(&mut self.card, entry.operation, entry.key_reference.into());
        self.card.hold = false;
        if self.card.complete(EffectResult::Pin(owner.answer(entry.operation))) {
            answer = self.host.answer(&mut self.card).expect("the owner has answered");
        }
        Seen::Response(answer)
    }

    /// Power, whichever way: a card that has it is reset.
    pub(crate) fn power_up(&mut self) -> Seen {
        if !self.present {
            return Seen::Gone;
        }
        if std::mem::replace(&mut self.powered, true) {
            self.host.reset(&mut self.card);
        }
        Seen::Nothing
    }

    pub(crate) fn power_down(&mut self) {
        if std::mem::take(&mut self.powered) {
            self.host.reset(&mut self.card);
        }
    }

    pub(crate) fn interrupted(&mut self, command: &[u8], working: bool) -> Seen {
        if self.powered {
            self.card.hold = working;
            let _ = self.host.raw(&mut self.card, command);
            self.power_down();
            self.card.hold = false;
        }
        Seen::Nothing
    }

    /// The host comes back on another link, which a program must not notice.
    pub(crate) fn link_lost(&mut self) {
        self.host.disconnect(&mut self.card);
        self.host.link = LinkId::new(self.host.link.number() + LINKS);
        let input = Input::LinkUp { link: self.host.link, host: HostId::new([1; 32]), host_name: "host 1".into() };
        self.card.handle(input);
        let token = self.host.token.clone();
        self.host.open(&mut self.card, token);
        assert!(self.host.resumed);
    }

    pub(crate) fn change(&mut self, change: &Change) -> Vec<u8> {
        let answer = self::change(&mut self.card, &mut self.other, change);
        match change {
            Change::Lock => {
                self.present = false;
                self.power_down();
            }
            Change::Unlock => self.present = true,
            _ => {}
        }
        answer
    }
}
