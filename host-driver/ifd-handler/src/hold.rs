//! When a card that is in the slot may not be announced yet.

use std::time::{Duration, Instant};

use crate::reader::{Insertion, Presence};

/// How long a client's thread may take from our answer to its last write into pcscd's reader state.
///
/// After a transmit that found no card, pcscd's `SCardTransmit` (`winscard.c`, 1.9.9 and later) sets the reader's state to
/// "absent" by itself, under no lock that the event thread takes. It does so a handful of instructions after our return,
/// so this is ample on a machine that is not starved.
pub(crate) const SETTLE: Duration = Duration::from_millis(100);

/// How long an arrival waits for [`SETTLE`] at most. A program that asks for the card again and again would otherwise
/// keep it from ever being announced; the next power-up of such a program puts a late write right.
pub(crate) const LONGEST_SETTLE: Duration = Duration::from_secs(1);

/// How long a card that could not be powered up stays hidden, the first time. Twice as long each further time.
pub(crate) const FIRST_RETRY: Duration = Duration::from_millis(500);

/// How long it stays hidden at most. pcscd powers up at once what it sees, so without this a dead card would keep a
/// core busy.
pub(crate) const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Reasons to hold an arrival back.
#[derive(Debug)]
pub(crate) struct Hold {
    /// Until when a client's thread may still write.
    settles: Option<Instant>,
    /// When the card that is held back for that is announced all the same.
    settles_latest: Option<Instant>,
    refused: Option<Refused>,
}

/// A card that could not be powered up.
#[derive(Debug)]
struct Refused {
    card: Insertion,
    pause: Duration,
    until: Instant,
}

impl Hold {
    pub(crate) const fn new() -> Self {
        Self { settles: None, settles_latest: None, refused: None }
    }

    /// A client's thread was told that there is no card.
    pub(crate) fn client_told(&mut self, now: Instant) {
        self.settles = now.checked_add(SETTLE);
    }

    /// A power-up failed.
    pub(crate) fn power_failed(&mut self, card: Insertion, now: Instant) {
        let pause = match &self.refused {
            Some(refused) if refused.card == card => (refused.pause * 2).min(LONGEST_RETRY),
            _ => FIRST_RETRY,
        };
        self.refused = now.checked_add(pause).map(|until| Refused { card, pause, until });
    }

    /// A power-up worked.
    pub(crate) fn power_worked(&mut self) {
        self.refused = None;
    }

    /// The reader says what is in the slot. A card that left or was replaced is forgiven.
    pub(crate) fn sees(&mut self, actual: Presence) {
        if self.refused.as_ref().is_some_and(|refused| actual != Presence::Present(refused.card)) {
            self.refused = None;
        }
        if actual == Presence::Absent {
            self.settles_latest = None;
        }
    }

    /// Until when a card that is in the slot may not be announced; `None` if it may.
    pub(crate) fn arrival(&mut self, now: Instant) -> Option<Instant> {
        let settles = self.settles.filter(|until| *until > now);
        let settles = match (settles, self.settles_latest) {
            (Some(until), None) => {
                self.settles_latest = now.checked_add(LONGEST_SETTLE);
                Some(until)
            }
            (Some(until), Some(latest)) => Some(until.min(latest)).filter(|until| *until > now),
            (None, _) => None,
        };
        if settles.is_none() {
            self.settles_latest = None;
        }
        let refused = self.refused.as_ref().map(|refused| refused.until).filter(|until| *until > now);
        settles.max(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARD: Insertion = Insertion(1);

    #[test]
    fn an_arrival_waits_for_a_client_that_was_told_but_not_for_ever() {
        let (mut hold, start) = (Hold::new(), Instant::now());
        assert_eq!(hold.arrival(start), None);
        hold.client_told(start);
        assert_eq!(hold.arrival(start + SETTLE / 2), Some(start + SETTLE));
        assert_eq!(hold.arrival(start + SETTLE), None);
        // A program that asks every 10 ms.
        let mut now = start + SETTLE;
        let held = now;
        loop {
            hold.client_told(now);
            match hold.arrival(now) {
                Some(until) => assert!(until > now && until <= held + LONGEST_SETTLE),
                None => break,
            }
            now += Duration::from_millis(10);
        }
        assert_eq!(now, held + LONGEST_SETTLE);
    }

    #[test]
    fn a_card_that_left_meanwhile_waits_anew() {
        let (mut hold, start) = (Hold::new(), Instant::now());
        hold.client_told(start);
        hold.arrival(start);
        hold.sees(Presence::Absent);
        let back = start + LONGEST_SETTLE;
        hold.client_told(back);
        assert_eq!(hold.arrival(back), Some(back + SETTLE));
    }

    #[test]
    fn a_card_that_does_not_power_up_is_tried_ever_more_rarely() {
        let (mut hold, start) = (Hold::new(), Instant::now());
        let mut pause = FIRST_RETRY;
        let mut now = start;
        for _ in 0..12 {
            hold.power_failed(CARD, now);
            hold.sees(Presence::Present(CARD));
            assert_eq!(hold.arrival(now), Some(now + pause));
            now += pause;
            assert_eq!(hold.arrival(now), None);
            pause = (pause * 2).min(LONGEST_RETRY);
        }
        assert_eq!(pause, LONGEST_RETRY);
        hold.power_worked();
        hold.power_failed(CARD, now);
        assert_eq!(hold.arrival(now), Some(now + FIRST_RETRY), "it worked once: from the start again");
    }

    #[test]
    fn another_card_is_not_made_to_wait() {
        for actual in [Presence::Absent, Presence::Present(Insertion(2))] {
            let (mut hold, now) = (Hold::new(), Instant::now());
            hold.power_failed(CARD, now);
            hold.sees(actual);
            assert_eq!(hold.arrival(now), None);
        }
    }
}
