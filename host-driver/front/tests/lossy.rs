//! A front and a card whose link is lost at any point: between any two messages, over and over, on the way back as well.
//! Within the grace nothing is lost and nothing is done twice; after it the card is gone, and comes back clean.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

use std::collections::VecDeque;
use std::time::Duration;

use pocketcard_front::{Config, Failure, Front, Output, PowerAction, Presence, Reply};
use pocketcard_phone::card::test_support::TestBox;
use pocketcard_phone::card::{Effect, HostId, Input, LinkId};
use pocketcard_protocol::messages::{CloseReason, Envelope};

const WRONG_PIN: &[u8] = b"\x00\x20\x00\x80\x08654321\xFF\xFF";
const RIGHT_PIN: &[u8] = b"\x00\x20\x00\x80\x08123456\xFF\xFF";
const PIN_STATUS: &[u8] = &[0x00, 0x20, 0x00, 0x80];
const GENERATE: &[u8] = &[0x00, 0x47, 0x00, 0x9A, 0x05, 0xAC, 0x03, 0x80, 0x01, 0x11, 0x00];
const HOST: HostId = HostId::new([1; 32]);

/// How long a link is away at most before it is tried again.
const AWAY: Duration = Duration::from_millis(900);

/// Longer than the card's and the front's.
const BEYOND_THE_GRACE: Duration = Duration::from_millis(5001);

fn sign(number: u8) -> Vec<u8> {
    let mut command = vec![0x00, 0x87, 0x11, 0x9A, 0x26, 0x7C, 0x24, 0x82, 0x00, 0x81, 0x20];
    command.extend([number; 32]);
    command.push(0x00);
    command
}

/// Numbers that a seed gives. Spec: xorshift64* (Vigna)
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }
}

/// When the link is lost: asked before each message, which it takes with it, and after it.
type Losing<'a> = &'a mut dyn FnMut() -> bool;

struct Air {
    front: Front,
    card: TestBox,
    link: Option<LinkId>,
    /// A link that the front has lost and the card has not missed yet.
    stale: Option<LinkId>,
    links: u64,
    to_card: VecDeque<Envelope>,
    to_front: VecDeque<Envelope>,
    replies: Vec<Result<Vec<u8>, Failure>>,
    presences: Vec<Presence>,
    losses: usize,
    /// Signatures that the card has begun to make.
    signatures: usize,
    random: Random,
}

impl Air {
    fn new(seed: u64) -> Self {
        let mut card = TestBox::test_card();
        assert!(card.local(GENERATE).ends_with(&[0x90, 0x00]));
        card.hold = true;
        let mut air = Self {
            front: Front::new(Config::default()),
            card,
            link: None,
            stale: None,
            links: 1 << 40,
            to_card: VecDeque::new(),
            to_front: VecDeque::new(),
            replies: Vec::new(),
            presences: Vec::new(),
            losses: 0,
            signatures: 0,
            random: Random(seed.wrapping_mul(2).wrapping_add(1)),
        };
        air.connect();
        while air.deliver() {}
        air.power_up();
        air
    }

    fn power_up(&mut self) {
        let generation = self.front.presence().generation;
        self.front.handle_power(PowerAction::Up, generation, self.card.now).expect("a card is there");
        self.presences.clear();
    }

    fn connect(&mut self) {
        self.links += 1;
        let link = LinkId::new(self.links);
        self.link = Some(link);
        self.card.handle(Input::LinkUp { link, host: HOST, host_name: "host".into() });
        self.front.handle_link_up(self.card.now);
        self.collect();
    }

    /// The link is gone with all that was on its way. The card misses it now or later.
    fn lose(&mut self) {
        self.losses += 1;
        self.to_card.clear();
        self.to_front.clear();
        self.front.handle_link_down(self.card.now);
        if let Some(link) = self.stale.take() {
            self.card.handle(Input::LinkDown { link });
        }
        if let Some(link) = self.link.take() {
            if self.random.below(2) == 0 {
                self.card.handle(Input::LinkDown { link });
            } else {
                self.stale = Some(link);
            }
        }
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(output) = self.front.poll_output() {
            match output {
                Output::Send(envelope) => {
                    assert!(self.link.is_some(), "something is sent without a link");
                    self.to_card.push_back(envelope);
                }
                Output::Reply(Reply::Response(response)) => self.replies.push(Ok(response.to_vec())),
                Output::Reply(Reply::Failed(failure)) => self.replies.push(Err(failure)),
                Output::Presence(presence) => self.presences.push(presence),
                Output::Close(error) => panic!("{error}"),
                _ => {}
            }
        }
        for (link, envelope) in std::mem::take(&mut self.card.out.sent) {
            if Some(link) == self.link {
                self.to_front.push_back(envelope);
            }
        }
        for (link, reason) in std::mem::take(&mut self.card.out.closed) {
            assert_eq!((Some(link), reason), (self.stale.take(), CloseReason::Replaced), "the card closed a link");
        }
    }

    /// Carries the next message, if there is one.
    fn deliver(&mut self) -> bool {
        let card_first = self.random.below(2) == 0;
        for to_card in [card_first, !card_first] {
            let queue = if to_card { &mut self.to_card } else { &mut self.to_front };
            let Some(envelope) = queue.pop_front() else { continue };
            match (to_card, self.link) {
                (true, Some(link)) => self.card.handle(Input::Message { link, envelope }),
                (true, None) => panic!("a message without a link"),
                (false, _) => self.front.handle_envelope(envelope, self.card.now),
            }
            self.collect();
            return true;
        }
        false
    }

    fn pass(&mut self, time: Duration) {
        let end = self.card.now + time;
        while let Some(due) = self.front.poll_timeout().filter(|due| *due <= end) {
            self.card.advance(due.saturating_since(self.card.now));
            self.front.handle_timeout(due);
            self.collect();
        }
        self.card.advance(end.saturating_since(self.card.now));
        self.collect();
    }

    /// The key store takes its time, and does not care about links.
    fn work(&mut self) {
        if matches!(self.card.out.held.first(), Some((_, Effect::Sign { .. }))) {
            self.signatures += 1;
        }
        self.card.release();
        self.collect();
    }

    /// A program's command, with a link that is lost when `losing` says so.
    fn transmit(&mut self, command: &[u8], losing: Losing<'_>) -> Result<Vec<u8>, Failure> {
        assert!(self.replies.is_empty());
        self.front.handle_transmit(command, self.card.now);
        self.collect();
        for _ in 0..100_000 {
            if let Some(reply) = self.replies.pop() {
                assert!(self.replies.is_empty(), "one reply");
                return reply;
            }
            if self.link.is_some() && losing() {
                self.lose();
                continue;
            }
            match (self.link, self.random.below(4)) {
                // However often the way back fails: not for longer than the grace.
                (None, 0) if self.front.poll_timeout().is_some_and(|due| due > self.card.now + AWAY) => {
                    let away = self.random.below(AWAY.as_millis() as u64);
                    self.pass(Duration::from_millis(away));
                }
                (None, 1) => self.work(),
                (None, _) => self.connect(),
                (Some(_), 0) => self.work(),
                (Some(_), _) if self.deliver() => {}
                (Some(_), _) => self.pass(Duration::from_millis(100)),
            }
            // The card has missed a link by the time that it takes a message of the next one.
            if self.random.below(8) == 0
                && let Some(link) = self.stale.take()
            {
                self.card.handle(Input::LinkDown { link });
                self.collect();
            }
        }
        panic!("no reply");
    }

    /// A wrong PIN costs one try, which the right one gives back.
    fn pins(&mut self, losing: Losing<'_>) {
        for (command, expected) in [(WRONG_PIN, 0x63C2), (RIGHT_PIN, 0x9000), (PIN_STATUS, 0x9000)] {
            let reply = self.transmit(command, losing).expect("within the grace");
            assert_eq!(u16::from_be_bytes([reply[0], reply[1]]), expected, "{command:02X?}");
        }
    }

    /// What programs do, and what they have to get.
    fn script(&mut self, losing: Losing<'_>) {
        self.pins(losing);
        for number in 0..2 {
            let before = self.signatures;
            let reply = self.transmit(&sign(number), losing).expect("within the grace");
            assert!(reply.starts_with(&[0x7C]) && reply.ends_with(&[0x90, 0x00]), "{reply:02X?}");
            assert_eq!(self.signatures, before + 1, "each is made once");
        }
        assert!(self.presences.is_empty(), "{:?}", self.presences);
    }
}

/// Losses to make in all.
fn losses_wanted() -> usize {
    if std::env::var_os("POCKETCARD_SOAK").is_some_and(|value| value != "0") { 20_000 } else { 1_000 }
}

/// At each point between two messages, and then once more at each point of what follows.
#[test]
fn a_link_lost_twice_at_any_two_points_loses_nothing() {
    let (mut runs, mut losses) = (0, 0);
    for first in 1.. {
        let mut end = 0;
        for second in 1.. {
            let mut air = Air::new(first * 1000 + second);
            let mut asked = 0;
            air.script(&mut || {
                asked += 1;
                asked == first || asked == first + second
            });
            losses += air.losses;
            runs += 1;
            end = asked;
            if asked < first + second {
                break;
            }
        }
        if end < first {
            break;
        }
    }
    println!("REPORT: lossy: a link lost once or twice at every point, {losses} times in {runs} runs");
    assert!(losses > 200, "{losses}");
}

#[test]
fn a_link_lost_at_random_loses_nothing_and_does_nothing_twice() {
    let (mut seed, mut losses) = (0, 0);
    while losses < losses_wanted() {
        seed += 1;
        let mut air = Air::new(seed);
        let mut when = Random(seed * 2 + 1);
        // From now and then to at almost every message, but not so that no link ever lasts.
        let rate = 2 + when.below(8);
        air.script(&mut || when.below(rate) == 0);
        losses += air.losses;
    }
    println!("REPORT: lossy: {losses} links lost at random in {seed} runs: nothing lost, nothing done twice");
}

/// The same with resets and long absences between: then commands may fail, but what was done was done once.
#[test]
fn whatever_happens_nothing_is_done_twice_and_the_card_comes_back() {
    let (mut seed, mut losses, mut removals, mut failures) = (0, 0, 0, 0);
    while losses < losses_wanted() {
        seed += 1;
        let mut air = Air::new(seed);
        let mut when = Random(seed * 2 + 1);
        for number in 0..20 {
            air.pins(&mut || when.below(6) == 0);
            let before = air.signatures;
            air.front.handle_transmit(&sign(number), air.card.now);
            air.collect();
            for _ in 0..when.below(6) {
                air.deliver();
            }
            let interruption = when.below(4);
            match interruption {
                0 => {
                    air.lose();
                    air.pass(BEYOND_THE_GRACE);
                    assert_eq!(air.front.presence().atr, None, "the card has left");
                    assert_eq!(air.replies.pop(), Some(Err(Failure::NotPresent)), "in time");
                    air.work();
                    removals += 1;
                }
                1 => {
                    air.lose();
                    air.front.handle_driver_gone(air.card.now);
                    air.collect();
                }
                2 => {
                    air.lose();
                    air.connect();
                    air.front.handle_driver_gone(air.card.now);
                    air.collect();
                }
                _ => {}
            }
            if let Some(Err(_)) = air.replies.pop() {
                failures += 1;
            }
            if air.link.is_none() {
                air.connect();
            }
            while air.deliver() || interruption == 3 && !air.card.out.held.is_empty() {
                if interruption == 3 {
                    air.work();
                }
            }
            air.replies.clear();
            assert!(air.signatures <= before + 1, "it was made twice");
            assert!(air.card.out.held.is_empty(), "nothing runs that nobody waits for");
            air.power_up();
        }
        losses += air.losses;
    }
    println!("REPORT: lossy: {losses} losses with {removals} removals and {failures} resets in {seed} runs");
    assert!(removals > 0 && failures > 0);
}
