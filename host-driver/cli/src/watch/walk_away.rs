//! Decides when a phone has left and when it has come, from what the daemon says. No I/O and no clock.

use std::time::{Duration, Instant};

use pocketcard_ipc::control::{Event, Status};

use super::slots::Slots;

/// How long the daemon may be away, and the phone not be back after it, before that counts as a phone that left: else
/// whoever ends the daemon keeps a session open. Long enough for a restart, which finds a phone within seconds.
pub(super) const DAEMON_AWAY_LIMIT: Duration = Duration::from_secs(20);

/// A phone, at the moment it came or left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Who {
    /// Its name here; hostile text as far as a shell is concerned.
    pub(super) phone: String,
    pub(super) slot: u32,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Leave(Who, Reason),
    Arrive(Who),
}

/// Why a phone counts as one that left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Its card was removed.
    CardRemoved,
    /// The daemon went, and neither it nor the phone was back in time.
    DaemonAway,
}

/// Watches one phone, or whichever are there.
#[derive(Debug)]
pub(super) struct WalkAway {
    /// The id of the phone; without one, the last card counts.
    phone: Option<String>,
    slots: Slots,
    /// Who is here: only who was can leave.
    here: Option<Who>,
    /// When an absence that may be the daemon's becomes the phone's.
    until: Option<Instant>,
    /// What is there at the start has not come.
    began: bool,
}

impl WalkAway {
    /// - `phone`: the id of the only phone that counts.
    pub(super) fn new(phone: Option<String>) -> Self {
        Self { phone, slots: Slots::default(), here: None, until: None, began: false }
    }

    /// What the phone in a slot is called.
    pub(super) fn name(&self, slot: u32) -> Option<&str> {
        self.slots.phone(slot)
    }

    /// The daemon is there, and this is all of it.
    pub(super) fn status(&mut self, status: &Status) -> Option<Action> {
        self.slots.set(status);
        let action = self.settle();
        let began = std::mem::replace(&mut self.began, true);
        action.filter(|_| began)
    }

    /// Something happened.
    pub(super) fn event(&mut self, event: &Event, now: Instant) -> Option<Action> {
        if *event == (Event::Stopping {}) {
            self.daemon_lost(now);
        }
        self.slots.event(event);
        self.settle()
    }

    /// The daemon went away, or says that it is about to.
    pub(super) fn daemon_lost(&mut self, now: Instant) {
        self.slots.forget_cards();
        if self.here.is_some() {
            // A daemon that goes again and again must not put it off for ever.
            self.until.get_or_insert(now + DAEMON_AWAY_LIMIT);
        }
    }

    /// When [`WalkAway::due`] is to be asked.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// Whether the daemon's time is over.
    pub(super) fn due(&mut self, now: Instant) -> Option<Action> {
        self.until.filter(|until| *until <= now)?;
        self.until = None;
        self.here.take().map(|who| Action::Leave(who, Reason::DaemonAway))
    }

    fn settle(&mut self) -> Option<Action> {
        let card = self.slots.card(self.phone.as_deref());
        let Some((slot, name)) = card else {
            if self.until.is_some() {
                return None;
            }
            return self.here.take().map(|who| Action::Leave(who, Reason::CardRemoved));
        };
        self.until = None;
        let phone = name.map(|name| name.name.clone()).unwrap_or_default();
        let who = Who { phone, slot };
        match self.here.replace(who.clone()) {
            Some(_) => None,
            None => Some(Action::Arrive(who)),
        }
    }
}

#[cfg(test)]
mod tests {
    use pocketcard_ipc::control::{Phone, SlotStatus};

    use super::*;
    use crate::fixtures;

    const SECOND: Duration = Duration::from_secs(1);

    /// Two phones, in slots 0 and 1: whose cards are there.
    fn status(cards: [bool; 2]) -> Status {
        let slots = [(0, "aa00", "Pixel"), (1, "bb00", "$(reboot)")].into_iter().zip(cards);
        let slots = slots.map(|((slot, id, name), card_present)| SlotStatus {
            slot,
            card_present,
            phone: Some(Phone { id: id.to_owned(), name: name.to_owned(), slot, ..fixtures::phone() }),
            ..fixtures::slot()
        });
        Status { slots: slots.collect(), ..fixtures::status() }
    }

    fn pixel() -> Who {
        Who { phone: "Pixel".to_owned(), slot: 0 }
    }

    fn other() -> Who {
        Who { phone: "$(reboot)".to_owned(), slot: 1 }
    }

    fn began(phone: Option<&str>, cards: [bool; 2]) -> WalkAway {
        let mut walk_away = WalkAway::new(phone.map(str::to_owned));
        assert_eq!(walk_away.status(&status(cards)), None, "nothing comes or leaves at the start");
        walk_away
    }

    #[test]
    fn a_card_that_was_there_leaves_and_comes_back() {
        let mut walk_away = began(None, [true, false]);
        let left = Action::Leave(pixel(), Reason::CardRemoved);
        assert_eq!(walk_away.event(&Event::CardAbsent { slot: 0 }, Instant::now()), Some(left));
        assert_eq!(walk_away.event(&Event::CardAbsent { slot: 0 }, Instant::now()), None, "once");
        assert_eq!(walk_away.event(&Event::CardPresent { slot: 0 }, Instant::now()), Some(Action::Arrive(pixel())));
        assert_eq!(walk_away.event(&Event::CardPresent { slot: 0 }, Instant::now()), None, "once");
    }

    #[test]
    fn without_a_phone_nothing_leaves() {
        let mut walk_away = began(None, [false, false]);
        for event in [Event::CardAbsent { slot: 0 }, Event::Driver { slot: 0, connected: false }] {
            assert_eq!(walk_away.event(&event, Instant::now()), None);
        }
        walk_away.daemon_lost(Instant::now());
        assert_eq!(walk_away.deadline(), None);
        assert_eq!(walk_away.status(&status([true, false])), Some(Action::Arrive(pixel())));
    }

    #[test]
    fn without_a_name_the_last_card_counts() {
        let mut walk_away = began(None, [true, true]);
        assert_eq!(walk_away.event(&Event::CardAbsent { slot: 0 }, Instant::now()), None);
        let left = Action::Leave(other(), Reason::CardRemoved);
        assert_eq!(walk_away.event(&Event::CardAbsent { slot: 1 }, Instant::now()), Some(left));
        assert_eq!(walk_away.event(&Event::CardPresent { slot: 1 }, Instant::now()), Some(Action::Arrive(other())));
        assert_eq!(walk_away.event(&Event::CardPresent { slot: 0 }, Instant::now()), None);
    }

    #[test]
    fn with_a_name_no_other_phone_counts() {
        let mut walk_away = began(Some("aa00"), [true, true]);
        assert_eq!(walk_away.event(&Event::CardAbsent { slot: 1 }, Instant::now()), None);
        assert!(walk_away.event(&Event::CardAbsent { slot: 0 }, Instant::now()).is_some());
        assert_eq!(walk_away.event(&Event::CardPresent { slot: 1 }, Instant::now()), None);
        // Another phone that takes its name, and its slot.
        walk_away.event(&Event::PhoneForgotten { phone: "aa00".to_owned() }, Instant::now());
        let phone = Phone { id: "cc00".to_owned(), name: "Pixel".to_owned(), slot: 0, ..fixtures::phone() };
        walk_away.event(&Event::PhonePaired { phone }, Instant::now());
        assert_eq!(walk_away.event(&Event::CardPresent { slot: 0 }, Instant::now()), None);
    }

    #[test]
    fn a_phone_goes_by_its_newest_name() {
        let mut walk_away = began(Some("aa00"), [false, false]);
        walk_away.event(&Event::PhoneRenamed { phone: "aa00".to_owned(), name: "Old".to_owned() }, Instant::now());
        walk_away.event(&Event::PhoneRenamed { phone: "bb00".to_owned(), name: "Pixel".to_owned() }, Instant::now());
        let arrived = walk_away.event(&Event::CardPresent { slot: 0 }, Instant::now());
        assert_eq!(arrived, Some(Action::Arrive(Who { phone: "Old".to_owned(), slot: 0 })));
        assert_eq!(walk_away.name(1), Some("Pixel"));
    }

    #[test]
    fn a_phone_that_is_forgotten_has_left() {
        let mut walk_away = began(Some("aa00"), [true, false]);
        walk_away.event(&Event::PhoneForgotten { phone: "aa00".to_owned() }, Instant::now()).unwrap();
    }

    #[test]
    fn a_daemon_that_is_back_in_time_with_the_phone_locks_nothing() {
        let mut walk_away = began(None, [true, false]);
        let begin = Instant::now();
        walk_away.daemon_lost(begin);
        assert_eq!(walk_away.deadline(), Some(begin + DAEMON_AWAY_LIMIT));
        assert_eq!(walk_away.due(begin + DAEMON_AWAY_LIMIT - SECOND), None);
        // It has not found the phone yet.
        assert_eq!(walk_away.status(&status([false, false])), None);
        assert_eq!(walk_away.event(&Event::CardPresent { slot: 0 }, Instant::now()), None);
        assert_eq!(walk_away.deadline(), None);
        assert_eq!(walk_away.due(begin + DAEMON_AWAY_LIMIT * 2), None);
        // From then on the daemon is believed again.
        let left = Action::Leave(pixel(), Reason::CardRemoved);
        assert_eq!(walk_away.event(&Event::CardAbsent { slot: 0 }, Instant::now()), Some(left));
    }

    #[test]
    fn a_daemon_that_stays_away_is_a_phone_that_left() {
        for comes_back in [false, true] {
            let mut walk_away = began(None, [true, false]);
            let begin = Instant::now();
            walk_away.daemon_lost(begin);
            if comes_back {
                assert_eq!(walk_away.status(&status([false, false])), None);
            }
            // However often it goes, the limit is what it was.
            walk_away.daemon_lost(begin + SECOND);
            let left = Action::Leave(pixel(), Reason::DaemonAway);
            assert_eq!(walk_away.due(begin + DAEMON_AWAY_LIMIT), Some(left));
            assert_eq!(walk_away.deadline(), None);
            assert_eq!(walk_away.status(&status([true, false])), Some(Action::Arrive(pixel())));
        }
    }

    #[test]
    fn a_daemon_that_says_good_bye_takes_no_phone_with_it() {
        let mut walk_away = began(None, [true, false]);
        let begin = Instant::now();
        assert_eq!(walk_away.event(&Event::Stopping {}, begin), None);
        // It closes its links before its sockets.
        assert_eq!(walk_away.event(&Event::CardAbsent { slot: 0 }, Instant::now()), None);
        assert_eq!(walk_away.deadline(), Some(begin + DAEMON_AWAY_LIMIT));
    }

    #[test]
    fn what_a_newer_status_says_counts_although_the_events_were_lost() {
        let mut walk_away = began(None, [true, false]);
        walk_away.event(&Event::Lagged {}, Instant::now());
        let left = Action::Leave(pixel(), Reason::CardRemoved);
        assert_eq!(walk_away.status(&status([false, false])), Some(left));
    }
}
