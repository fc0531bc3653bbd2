//! Whoever owns the air gets nothing but denial of service. Below the channel the attacker drops, repeats, reorders,
//! changes and makes up GATT values, and poses as either side; every answer that a program gets is nevertheless the
//! card's, nothing is signed that was not asked for, and when the attacker is gone everything works again.
//!
//! What an attacker may do to link messages (downgrade, a man in the middle of a pairing, a photographed code, replayed
//! handshakes) is tested where it is decided: `attacks.rs` and `pairing_attacks.rs` of `pocketcard-protocol`.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // helpers of tests

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use pocketcard_front::{Failure, PowerAction};
use pocketcard_phone::runtime::PhoneEvent;
use pocketcard_protocol::link::Side;
use pocketcard_simulator::radio::Parameters;
use pocketcard_simulator::recording::{DirectCard, local, put_data};
use pocketcard_simulator::{Decision, Interceptor, Passing, PhoneSetup, Random, SlotNumber, World, for_seeds};

const VERIFY: [u8; 13] = [0, 0x20, 0, 0x80, 8, b'1', b'2', b'3', b'4', b'5', b'6', 0xFF, 0xFF];
const STATUS: [u8; 4] = [0, 0x20, 0, 0x80];
const DONE: [u8; 2] = [0x90, 0x00];
/// GET DATA of the certificate for 9A.
const READ: [u8; 11] = [0, 0xCB, 0x3F, 0xFF, 5, 0x5C, 3, 0x5F, 0xC1, 0x05, 0];
const SECOND: Duration = Duration::from_secs(1);

/// A signature with 9A.
fn sign(byte: u8) -> Vec<u8> {
    let head = [0, 0x87, 0x11, 0x9A, 0x26, 0x7C, 0x24, 0x82, 0x00, 0x81, 0x20];
    [head.as_slice(), &[byte; 32], &[0]].concat()
}

struct Victims {
    world: World,
    slot: SlotNumber,
    direct: DirectCard,
    asked: u64,
}

impl Victims {
    fn new(seed: u64, parameters: Parameters) -> Self {
        let (mut world, slot) = World::with_pair(seed, PhoneSetup::default(), parameters);
        let answer = local(world.phone_of(slot), &[0, 0x47, 0, 0x9A, 5, 0xAC, 3, 0x80, 1, 0x11, 0]);
        assert!(answer.ends_with(&DONE));
        assert_eq!(local(world.phone_of(slot), &put_data([0x5F, 0xC1, 0x05], 900)), DONE);
        let direct = DirectCard::copy_of(world.phone_of(slot));
        world.insert(slot);
        world.returns_after(slot, Some(Duration::from_millis(100)));
        Self { world, slot, direct, asked: 0 }
    }

    fn signed(&mut self) -> u64 {
        self.world.phone_of(self.slot).keys().uses()
    }

    /// A command of a program. What is answered is what the card would answer; without an answer the card is gone.
    fn command(&mut self, command: &[u8]) -> Result<Vec<u8>, Failure> {
        if command[1] == 0x87 {
            self.asked += 1;
        }
        let answer = self.world.transmit(self.slot, command);
        match &answer {
            Ok(answer) => assert_eq!(*answer, self.direct.transmit(command), "{command:02X?}"),
            // The card is gone, or has been reset because no link lived long enough.
            Err(_) => self.direct.reset(),
        }
        answer
    }

    /// A program that verifies the PIN and signs, and begins again whenever the card goes. Gives how often it succeeded.
    fn work(&mut self, rounds: u8) -> u32 {
        let mut succeeded = 0;
        for round in 0..rounds {
            let slot = self.slot;
            self.world.run_until(8 * SECOND, |world| world.has_card(slot));
            if self.world.power(self.slot, PowerAction::Reset).is_err() {
                continue;
            }
            self.direct.reset();
            let steps = [READ.to_vec(), VERIFY.to_vec(), sign(round), STATUS.to_vec(), sign(round ^ 0xFF)];
            succeeded += u32::from(steps.iter().all(|step| self.command(step).is_ok()));
        }
        succeeded
    }

    /// The attacker leaves: after the longest limit of a link all is as before.
    fn recover(&mut self) {
        self.world.intercept(None);
        self.world.run(130 * SECOND);
        self.world.insert(self.slot);
        self.direct.reset();
        assert_eq!(self.command(&STATUS), Ok(vec![0x63, 0xC3]), "an attacker spends no try");
        assert_eq!(self.command(&VERIFY), Ok(DONE.to_vec()));
        assert!(self.command(&sign(7)).expect("a card that stays").ends_with(&DONE));
        let (signed, asked) = (self.signed(), self.asked);
        assert!(signed <= asked, "{signed} signatures for {asked} commands");
    }
}

/// What an attacker does to the values, with the chance of doing it.
fn attack(name: &str, make: impl Fn() -> Interceptor) {
    let mut disturbed = 0;
    for_seeds(5, 100, |seed| {
        let mtu = *Random::new(seed).choose(&[23, 185, 517]).expect("some");
        let mut victims = Victims::new(seed, Parameters { mtu, ..Parameters::default() });
        victims.world.intercept(Some(make()));
        victims.work(6);
        disturbed += victims.world.traffic(victims.slot).links - 1;
        victims.recover();
    });
    assert!(disturbed > 0, "{name} disturbs nothing: no attack");
}

fn whole(passing: &Passing<'_>) -> Vec<(Duration, Vec<u8>)> {
    vec![(Duration::ZERO, passing.value.to_vec())]
}

#[test]
fn values_that_are_dropped() {
    attack("dropping", || Box::new(|passing, random| if random.happens(40) { Vec::new() } else { whole(passing) }));
}

#[test]
fn values_that_are_repeated() {
    attack("repeating", || {
        let mut seen: Vec<Vec<u8>> = Vec::new();
        Box::new(move |passing, random| {
            seen.push(passing.value.to_vec());
            let mut arriving = whole(passing);
            if random.happens(40) {
                let old = random.choose(&seen).cloned().unwrap_or_default();
                arriving.push((random.duration(SECOND), old));
            }
            arriving
        })
    });
}

#[test]
fn values_that_are_held_back() {
    attack("reordering", || {
        Box::new(|passing, random| {
            let delay = if random.happens(60) { random.duration(3 * SECOND) } else { Duration::ZERO };
            vec![(delay, passing.value.to_vec())]
        })
    });
}

#[test]
fn values_that_are_changed() {
    attack("changing", || {
        Box::new(|passing, random| {
            let mut value = passing.value.to_vec();
            if random.happens(40) {
                let at = random.below(value.len());
                value[at] ^= 1 << random.below(8);
            }
            vec![(Duration::ZERO, value)]
        })
    });
}

#[test]
fn values_that_are_cut_or_lengthened() {
    attack("cutting", || {
        Box::new(|passing, random| {
            let mut value = passing.value.to_vec();
            if random.happens(40) {
                let length = random.below(value.len() + 8);
                value.resize(length, 0x5A);
            }
            vec![(Duration::ZERO, value)]
        })
    });
}

#[test]
fn values_that_are_made_up() {
    attack("injecting", || {
        Box::new(|passing, random| {
            let mut arriving = whole(passing);
            if random.happens(40) {
                // Whole records, credits and noise, with the right message id or any.
                let body: Vec<u8> = (0..random.below(200)).map(|_| random.number().to_le_bytes()[0]).collect();
                let length = u8::try_from(body.len() + 1).unwrap_or(0);
                let id = passing.value.get(1).map_or(0, |id| id.wrapping_add(1));
                let forged = match random.below(3) {
                    0 => [[3, id, 0, 0, 0, 0, 0, length, 2].as_slice(), &body].concat(),
                    1 => vec![0x80, 0, random.number().to_le_bytes()[0]],
                    _ => body,
                };
                arriving.push((Duration::ZERO, forged));
            }
            arriving
        })
    });
}

#[test]
fn a_link_that_is_mirrored() {
    attack("mirroring", || {
        let mut last: [Vec<u8>; 2] = Default::default();
        Box::new(move |passing, random| {
            let [host, phone] = &mut last;
            let (ours, theirs) = if passing.from == Side::Host { (host, phone) } else { (phone, host) };
            *ours = passing.value.to_vec();
            let mut arriving = whole(passing);
            if random.happens(40) && !theirs.is_empty() {
                // What a side sent comes back to it.
                arriving.push((Duration::ZERO, theirs.clone()));
            }
            arriving
        })
    });
}

/// The recorded values of a session with a signature, played to the phone again in place of the host's.
#[test]
fn a_session_that_is_played_again_signs_nothing() {
    let mut victims = Victims::new(3, Parameters::default());
    victims.world.returns_after(victims.slot, None);
    let recorded: Rc<RefCell<Vec<Vec<u8>>>> = Rc::default();
    let log = Rc::clone(&recorded);
    victims.world.intercept(Some(Box::new(move |passing, _| {
        if passing.from == Side::Host {
            log.borrow_mut().push(passing.value.to_vec());
        }
        whole(passing)
    })));
    // A link of its own, from its first value on.
    drop_link(&mut victims);
    victims.world.insert(victims.slot);
    victims.direct.reset();
    assert!(victims.command(&VERIFY).is_ok() && victims.command(&sign(1)).is_ok());
    assert_eq!(victims.signed(), 1);
    drop_link(&mut victims);

    let mut replay = recorded.borrow_mut().drain(..).collect::<Vec<_>>().into_iter();
    victims.world.intercept(Some(Box::new(move |passing, _| match passing.from {
        Side::Host => replay.by_ref().map(|value| (Duration::from_millis(1), value)).collect(),
        Side::Phone => Vec::new(),
    })));
    let _ = victims.world.phone_of(victims.slot).points();
    victims.world.connect(victims.slot);
    victims.world.run(20 * SECOND);
    assert_eq!(victims.world.phone_of(victims.slot).points(), [], "the card was not reached");
    assert_eq!(victims.signed(), 1);
    assert!(!victims.world.has_card(victims.slot));
    victims.recover();
}

/// Ends the link for longer than any grace, unless the host comes back by itself.
fn drop_link(victims: &mut Victims) {
    victims.world.cut_after(victims.slot, 0, pocketcard_simulator::Cut::By(Side::Host));
    victims.world.run(8 * SECOND);
}

/// A host that nobody paired goes for the phone; one with the pair's keys but another identity, too.
#[test]
fn a_host_that_poses_as_another_reaches_no_card() {
    let mut victims = Victims::new(4, Parameters::default());
    let phone = victims.world.phone_number(victims.slot);
    let stolen = victims.world.host_pair(victims.slot).expect("paired");
    let unpaired_world = Victims::new(5, Parameters::default());
    let foreign = unpaired_world.world.host_pair(unpaired_world.slot).expect("paired");
    for keys in [stolen, foreign] {
        let thief = victims.world.add_host("desk");
        let slot = victims.world.add_slot(thief, phone);
        victims.world.set_host_pair(slot, Some(keys));
        let _ = (victims.world.phone(phone).events(), victims.world.phone(phone).points());
        victims.world.connect(slot);
        victims.world.run(20 * SECOND);
        assert!(!victims.world.has_card(slot));
        assert_eq!(victims.world.phone(phone).points(), []);
        let events = victims.world.phone(phone).events();
        assert!(events.iter().all(|event| matches!(event, PhoneEvent::LinkRefused { .. })), "{events:?}");
    }
    victims.recover();
}

/// Another phone answers where the host looks for its own.
#[test]
fn a_phone_that_poses_as_another_is_no_card() {
    let mut victims = Victims::new(6, Parameters::default());
    let own = victims.world.phone_number(victims.slot);
    let thief = victims.world.add_phone(PhoneSetup::default());
    victims.world.redirect(victims.slot, thief);
    drop_link(&mut victims);
    victims.world.run(20 * SECOND);
    assert!(!victims.world.has_card(victims.slot));
    assert!(victims.world.traffic(victims.slot).procedures > 20, "it has tried again and again");
    victims.world.redirect(victims.slot, own);
    victims.recover();
}

/// What everybody may read of a phone is read through the attacker: a changed one opens no channel, not even one with
/// fewer capabilities or an older version.
#[test]
fn info_that_is_changed_opens_no_channel() {
    let mut victims = Victims::new(7, Parameters::default());
    victims.world.returns_after(victims.slot, None);
    for at in 0..26 {
        drop_link(&mut victims);
        let _ = (victims.world.phone_of(victims.slot).points(), victims.world.take_closed(victims.slot));
        let links = victims.world.traffic(victims.slot).links;
        victims.world.forge_info(Some(Box::new(move |info| match at {
            24 => drop(info.pop()),
            25 => info.push(0),
            at => info[at] ^= 0x80,
        })));
        victims.world.connect(victims.slot);
        victims.world.run(20 * SECOND);
        assert_eq!(victims.world.traffic(victims.slot).links, links, "byte {at}");
        assert_eq!(victims.world.phone_of(victims.slot).points(), [], "byte {at}");
    }
    victims.world.forge_info(None);
    victims.recover();
}

/// The air carries a link over any distance: slower, and nothing else. SECURITY.md says what bounds that.
#[test]
fn a_relay_gets_nothing() {
    let mut victims = Victims::new(8, Parameters::default());
    victims.world.intercept(Some(Box::new(|passing, _| vec![(Duration::from_millis(150), passing.value.to_vec())])));
    assert_eq!(victims.work(5), 5);
    assert_eq!(victims.signed(), victims.asked);
    victims.recover();
}

/// Two devices of an attacker stand between a host and a phone that pair by comparing digits, each a real one.
#[test]
fn a_pairing_through_two_devices_of_an_attacker_leaves_no_pair() {
    for_seeds(3, 50, |seed| {
        let mut world = World::new(seed);
        let (desk, phone) = (world.add_host("desk"), world.add_phone(PhoneSetup::default()));
        let (thief, decoy) = (world.add_host("desk"), world.add_phone(PhoneSetup::default()));
        let ours = world.add_slot(desk, decoy);
        let theirs = world.add_slot(thief, phone);
        // The owner looks at desk and phone; the attacker's devices say yes to everything.
        let at_desk = world.try_pair(ours, false, Decision::Look);
        let at_phone = world.try_pair(theirs, false, Decision::Look);
        assert!(at_desk.host_digits.is_some() && at_phone.phone_digits.is_some());
        assert_ne!(at_desk.host_digits, at_phone.phone_digits, "one chance in a million");
        world.decide(ours, false, true);
        world.decide(theirs, true, false);
        world.run(300 * SECOND);
        assert!(world.host_pair(ours).is_none());
        assert_eq!(world.hosts_of(phone), 0);
        // Nor can the attacker's host use what it has.
        world.connect(theirs);
        world.run(20 * SECOND);
        assert!(!world.has_card(theirs));
    });
}

/// The code is photographed: another phone is faster. Its owner's phone shows no digits, so the owner says no.
#[test]
fn a_photographed_code_leaves_no_pair() {
    let mut world = World::new(9);
    let (desk, own) = (world.add_host("desk"), world.add_phone(PhoneSetup::default()));
    let thief = world.add_phone(PhoneSetup::default());
    let slot = world.add_slot(desk, own);
    world.redirect(slot, thief);
    let result = world.try_pair(slot, true, Decision::Look);
    assert!(result.host_digits.is_some(), "the thief's phone got there");
    world.decide(slot, false, true);
    world.run(300 * SECOND);
    assert!(world.host_pair(slot).is_none());
    assert_eq!((world.hosts_of(own), world.hosts_of(thief)), (0, 0));
    // The owner begins again.
    world.redirect(slot, own);
    world.pair(slot);
    world.insert(slot);
}
