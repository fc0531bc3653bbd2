//! What the resource manager has been told about the card, and what it still has to hear.
//!
//! pcscd learns of a card in one place only: its event thread, which alternates between the polling function and
//! `IFDHICCPresence`. Other threads call `IFDHICCPresence` too (before every power action), and what they are told never
//! reaches the event thread. So a removal that only a client's thread saw would be lost, and a card that left and came
//! back between two looks would go unnoticed, with the handles of the old card still open. This state machine sees to it
//! that every absence and every arrival reaches the event thread: an absence is answered to everybody until the polling
//! function has returned and been entered again, because between the two the event thread has asked.
//!
//! A client's thread that was told that there is no card (by a transmit or a power action) writes that into pcscd's
//! reader state a moment later, under no lock. If the event thread announced a card in that moment, the late write would
//! win, and the reader would stay empty with a card in it. So [`Hold`] keeps an arrival back for a moment, and a card
//! that could not be powered up for longer.

use std::time::Instant;

use crate::hold::Hold;
use crate::reader::{Insertion, Presence};

/// Who asks for presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// The thread that calls the polling function, or any thread as long as nobody has called it.
    EventThread,
    /// Another thread.
    Client,
}

/// Whether the event thread has to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Review {
    /// It knows what there is to know.
    None,
    /// Something changed after it looked: the polling function returns at once.
    Due,
    /// The polling function has returned since; it has looked by the time it comes back.
    UnderWay,
}

/// What one slot has reported. Pure: the caller brings the truth and acts on the answers.
#[derive(Debug)]
pub(crate) struct Announcer {
    /// The last answer of `IFDHICCPresence`, as far as the card's identity goes.
    shown: Option<Presence>,
    /// An absence has not yet reached the event thread.
    absence_due: bool,
    review: Review,
    /// The resource manager uses the polling function. (Apple's does not.)
    polled: bool,
    /// The card that was powered up and not since powered down or lost.
    powered: Option<Insertion>,
    hold: Hold,
}

impl Announcer {
    pub(crate) const fn new() -> Self {
        Self { shown: None, absence_due: false, review: Review::None, polled: false, powered: None, hold: Hold::new() }
    }

    /// The resource manager asked for the polling function.
    pub(crate) fn polling_starts(&mut self) {
        self.polled = true;
    }

    /// Answers `IFDHICCPresence`: the card to report, and whether the polling function must be woken.
    pub(crate) fn report(&mut self, actual: Presence, asker: Asker, now: Instant) -> (Presence, bool) {
        self.hold.sees(actual);
        let wake = !self.absence_due && self.shown.is_some() && self.take(actual, now) && self.polled;
        let answer = if self.absence_due { Presence::Absent } else { *self.shown.get_or_insert(actual) };
        // Without a polling function there is one asking thread, and one answer is enough.
        self.absence_due &= self.polled;
        if answer == Presence::Absent {
            self.absence_told(asker, now);
        }
        (answer, wake)
    }

    /// A thread of the resource manager was told that there is no card, or no card that can be powered up.
    pub(crate) fn absence_told(&mut self, asker: Asker, now: Instant) {
        if self.polled && asker == Asker::Client {
            self.hold.client_told(now);
        }
    }

    /// When to look again, if a card is there that may not be announced yet.
    pub(crate) fn held_until(&mut self, actual: Presence, now: Instant) -> Option<Instant> {
        if actual == Presence::Absent { None } else { self.hold.arrival(now) }
    }

    /// The polling function is entered.
    pub(crate) fn poll_starts(&mut self) {
        if self.review == Review::UnderWay {
            self.review = Review::None;
            self.absence_due = false;
        }
    }

    /// Whether the polling function has to return now.
    pub(crate) fn poll_turns(&mut self, actual: Presence, now: Instant) -> bool {
        self.hold.sees(actual);
        if !self.absence_due {
            self.take(actual, now);
        }
        self.review == Review::Due
    }

    /// The polling function returns, for whatever reason.
    pub(crate) fn poll_ends(&mut self) {
        if self.review == Review::Due {
            self.review = Review::UnderWay;
        }
    }

    /// The card was found to be gone by a call that is no presence check. Returns whether to wake the polling function.
    pub(crate) fn lost(&mut self, now: Instant) -> bool {
        !self.absence_due && self.take(Presence::Absent, now) && self.polled
    }

    /// The card that `IFDHPowerICC` may act on.
    pub(crate) fn card(&self) -> Option<Insertion> {
        match self.shown {
            Some(Presence::Present(insertion)) if !self.absence_due => Some(insertion),
            _ => None,
        }
    }

    /// The card is powered. Nothing is recorded if it left meanwhile.
    pub(crate) fn powered_up(&mut self, insertion: Insertion) {
        if self.card() == Some(insertion) {
            self.powered = Some(insertion);
        }
        self.hold.power_worked();
    }

    /// The card could not be powered up.
    pub(crate) fn power_failed(&mut self, insertion: Insertion, now: Instant) {
        self.hold.power_failed(insertion, now);
    }

    pub(crate) fn powered_down(&mut self) {
        self.powered = None;
    }

    /// The card that a command may be sent to.
    pub(crate) fn powered(&self) -> Option<Insertion> {
        self.powered
    }

    /// Whether a card is shown at all.
    pub(crate) fn shows_card(&self) -> bool {
        self.card().is_some()
    }

    /// Adopts the truth. Another insertion is a removal first; the arrival is seen on a later turn.
    fn take(&mut self, actual: Presence, now: Instant) -> bool {
        match (self.shown, actual) {
            (Some(shown), actual) if shown == actual => return false,
            (Some(Presence::Present(_)), _) => {
                self.shown = Some(Presence::Absent);
                self.absence_due = true;
                self.powered = None;
            }
            (_, Presence::Present(_)) if self.hold.arrival(now).is_some() => return false,
            (_, actual) => self.shown = Some(actual),
        }
        self.review = Review::Due;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hold::SETTLE;

    const FIRST: Presence = Presence::Present(Insertion(1));
    const SECOND: Presence = Presence::Present(Insertion(2));
    const ABSENT: Presence = Presence::Absent;

    /// A client's thread asks, so long ago that it has settled.
    fn ask(announcer: &mut Announcer, actual: Presence) -> (Presence, bool) {
        announcer.report(actual, Asker::Client, Instant::now().checked_sub(2 * SETTLE).unwrap())
    }

    fn poll_turns(announcer: &mut Announcer, actual: Presence) -> bool {
        announcer.poll_turns(actual, Instant::now())
    }

    /// pcscd's event thread: asks, then polls, as `eventhandler.c` does.
    struct EventThread {
        sees: Presence,
        removals: u32,
    }

    impl EventThread {
        fn started(announcer: &mut Announcer, actual: Presence) -> Self {
            announcer.polling_starts();
            announcer.report(actual, Asker::EventThread, Instant::now());
            let (sees, _) = announcer.report(actual, Asker::EventThread, Instant::now());
            announcer.powered_up(Insertion(1));
            announcer.poll_starts();
            assert!(!poll_turns(announcer, actual), "no early return after the start");
            Self { sees, removals: 0 }
        }

        /// The polling function returns, pcscd asks, and polls again.
        fn turn(&mut self, announcer: &mut Announcer, actual: Presence) -> bool {
            announcer.poll_ends();
            self.ask(announcer, actual);
            announcer.poll_starts();
            poll_turns(announcer, actual)
        }

        fn ask(&mut self, announcer: &mut Announcer, actual: Presence) {
            let (sees, _) = announcer.report(actual, Asker::EventThread, Instant::now());
            self.removals += u32::from(self.sees != ABSENT && sees == ABSENT);
            self.sees = sees;
        }

        /// Until the polling function would block.
        fn settle(&mut self, announcer: &mut Announcer, actual: Presence) -> u32 {
            let mut turns = 0;
            while self.turn(announcer, actual) {
                turns += 1;
                assert!(turns < 5, "the polling function spins");
            }
            turns
        }
    }

    #[test]
    fn a_plain_removal_and_arrival_cost_one_return_each() {
        let mut announcer = Announcer::new();
        let mut pcscd = EventThread::started(&mut announcer, FIRST);
        assert!(poll_turns(&mut announcer, ABSENT));
        assert_eq!(pcscd.settle(&mut announcer, ABSENT), 0);
        assert_eq!((pcscd.sees, pcscd.removals), (ABSENT, 1));
        assert!(poll_turns(&mut announcer, SECOND));
        assert_eq!(pcscd.settle(&mut announcer, SECOND), 0, "an early return would power the new card off");
        assert_eq!((pcscd.sees, pcscd.removals), (SECOND, 1));
    }

    #[test]
    fn a_card_that_left_and_came_back_unseen_is_a_removal() {
        let mut announcer = Announcer::new();
        let mut pcscd = EventThread::started(&mut announcer, FIRST);
        assert_eq!(announcer.powered(), Some(Insertion(1)));
        assert!(poll_turns(&mut announcer, SECOND));
        assert_eq!(announcer.powered(), None, "no command reaches the new card before it is powered up");
        pcscd.settle(&mut announcer, SECOND);
        assert_eq!((pcscd.sees, pcscd.removals), (SECOND, 1));
        assert_eq!(announcer.powered(), None);
        announcer.powered_up(Insertion(2));
        assert_eq!(announcer.powered(), Some(Insertion(2)));
    }

    #[test]
    fn an_absence_told_to_a_client_thread_still_reaches_the_event_thread() {
        let mut announcer = Announcer::new();
        let mut pcscd = EventThread::started(&mut announcer, FIRST);
        assert_eq!(
            ask(&mut announcer, ABSENT),
            (ABSENT, true),
            "a client's thread asks; the polling function is woken"
        );
        assert_eq!(ask(&mut announcer, FIRST), (ABSENT, false), "the card is back, but nobody may see it yet");
        assert!(poll_turns(&mut announcer, FIRST));
        pcscd.settle(&mut announcer, FIRST);
        assert_eq!((pcscd.sees, pcscd.removals), (FIRST, 1));
    }

    #[test]
    fn an_arrival_told_to_a_client_thread_still_reaches_the_event_thread() {
        let mut announcer = Announcer::new();
        let mut pcscd = EventThread::started(&mut announcer, ABSENT);
        assert_eq!(ask(&mut announcer, FIRST), (FIRST, true));
        assert!(poll_turns(&mut announcer, FIRST));
        pcscd.settle(&mut announcer, FIRST);
        assert_eq!(pcscd.sees, FIRST);
    }

    #[test]
    fn a_loss_between_the_question_and_the_poll_is_not_forgotten() {
        let mut announcer = Announcer::new();
        let mut pcscd = EventThread::started(&mut announcer, FIRST);
        announcer.poll_ends();
        pcscd.ask(&mut announcer, FIRST);
        assert!(announcer.lost(Instant::now()));
        announcer.poll_starts();
        assert!(poll_turns(&mut announcer, FIRST), "the polling function returns at once");
        pcscd.settle(&mut announcer, FIRST);
        assert_eq!((pcscd.sees, pcscd.removals), (FIRST, 1));
    }

    #[test]
    fn a_failed_command_is_one_removal_however_often_it_fails() {
        let mut announcer = Announcer::new();
        let mut pcscd = EventThread::started(&mut announcer, FIRST);
        assert!(announcer.lost(Instant::now()));
        assert!(!announcer.lost(Instant::now()));
        assert_eq!((announcer.powered(), announcer.card()), (None, None));
        assert!(poll_turns(&mut announcer, ABSENT));
        pcscd.settle(&mut announcer, ABSENT);
        assert!(!announcer.lost(Instant::now()));
        assert_eq!((pcscd.sees, pcscd.removals), (ABSENT, 1));
    }

    #[test]
    fn without_a_polling_function_one_answer_is_enough() {
        let mut announcer = Announcer::new();
        assert_eq!(ask(&mut announcer, FIRST), (FIRST, false));
        assert_eq!(ask(&mut announcer, SECOND), (ABSENT, false));
        assert_eq!(ask(&mut announcer, SECOND), (SECOND, false));
        assert!(!announcer.lost(Instant::now()));
        assert_eq!(ask(&mut announcer, SECOND), (ABSENT, false));
        assert_eq!(ask(&mut announcer, SECOND), (SECOND, false));
        assert_eq!(ask(&mut announcer, ABSENT), (ABSENT, false));
        assert_eq!(ask(&mut announcer, ABSENT), (ABSENT, false));
        assert_eq!(ask(&mut announcer, SECOND), (SECOND, false));
    }

    #[test]
    fn a_card_that_left_during_the_power_up_takes_no_commands() {
        let mut announcer = Announcer::new();
        EventThread::started(&mut announcer, FIRST);
        assert!(announcer.lost(Instant::now()));
        announcer.powered_up(Insertion(1));
        assert_eq!(announcer.powered(), None);
    }

    #[test]
    fn after_a_client_was_told_of_an_absence_an_arrival_waits() {
        let mut announcer = Announcer::new();
        let mut pcscd = EventThread::started(&mut announcer, FIRST);
        let told = Instant::now();
        assert!(announcer.lost(told));
        assert_eq!(announcer.report(FIRST, Asker::Client, told), (ABSENT, false));
        let early = told + SETTLE / 2;
        assert!(announcer.poll_turns(FIRST, early));
        announcer.poll_ends();
        assert_eq!(announcer.report(FIRST, Asker::EventThread, early), (ABSENT, false));
        announcer.poll_starts();
        assert!(!announcer.poll_turns(FIRST, early), "the client's late write would hide the card");
        assert_eq!(
            announcer.held_until(FIRST, early),
            Some(told + SETTLE),
            "the polling function looks again by itself"
        );
        assert_eq!(announcer.report(FIRST, Asker::EventThread, early), (ABSENT, false));
        let late = told + SETTLE;
        assert!(announcer.poll_turns(FIRST, late));
        assert_eq!(announcer.held_until(FIRST, late), None);
        pcscd.ask(&mut announcer, FIRST);
        assert_eq!(pcscd.sees, FIRST);
    }
}
