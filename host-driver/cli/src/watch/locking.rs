//! Goes on locking until every session is locked, or the phone is back.

use std::convert::Infallible;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread;
use std::time::Duration;

use super::session::{self, SessionError, Shown};

/// How often a logind that answers is asked for sessions that do not show a lock. No more: not every locker shows it, and who
/// opened the screen by the password would have it closed again and again.
const MOST_ASKED: usize = 3;

/// Before a logind that cannot be asked is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// What came of one attempt.
pub(super) type Outcome = Result<Shown, SessionError>;

/// A lock that is under way. Without this value there is no further attempt.
#[derive(Debug)]
pub(super) struct UnderWay {
    _away: Sender<Infallible>,
}

impl UnderWay {
    /// Begins one.
    ///
    /// - `say`: is told what came of each attempt, and whether there is another.
    pub(super) fn begin(say: impl Fn(Outcome, bool) + Send + 'static) -> Self {
        let (away, back) = mpsc::channel();
        thread::spawn(move || {
            let mut locking = session::Locking::default();
            go_on(&back, || locking.attempt(|| back.try_recv() == Err(TryRecvError::Empty)), say, RETRY);
        });
        Self { _away: away }
    }

    #[cfg(test)]
    pub(super) fn for_testing_only() -> (Self, Receiver<Infallible>) {
        let (away, back) = mpsc::channel();
        (Self { _away: away }, back)
    }
}

fn go_on(
    back: &Receiver<Infallible>,
    mut attempt: impl FnMut() -> Outcome,
    say: impl Fn(Outcome, bool),
    retry: Duration,
) {
    let mut asked = 0;
    loop {
        let outcome = attempt();
        let pause = match &outcome {
            Ok(Shown::Locked(_)) => None,
            Ok(Shown::Back) => return,
            Ok(Shown::Doubted(_)) => {
                asked += 1;
                (asked < MOST_ASKED).then_some(Duration::ZERO)
            }
            Err(error) if error.is_final() => None,
            Err(_) => Some(retry),
        };
        say(outcome, pause.is_some());
        let Some(pause) = pause else { return };
        if back.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of these attempts while the phone stays away, and whether there is another after each.
    fn said(attempts: Vec<Outcome>) -> Vec<bool> {
        let (_away, back) = mpsc::channel();
        let (sender, said) = mpsc::channel();
        let mut attempts = attempts.into_iter();
        go_on(
            &back,
            || attempts.next().unwrap_or(Ok(Shown::Back)),
            |_, again| sender.send(again).unwrap(),
            Duration::ZERO,
        );
        drop(sender);
        said.iter().collect()
    }

    fn doubted() -> Outcome {
        Ok(Shown::Doubted(vec!["c2".to_owned()]))
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_cannot_be_asked_is_tried_for_as_long_as_it_takes_and_what_shows_nothing_is_not() {
        let broken = || Err(SessionError::Bus(dbus::Error::new_failed("away")));
        assert_eq!(said(vec![broken(), broken(), broken(), broken(), broken(), Ok(Shown::Locked(1))]).len(), 6);
        assert_eq!(said(vec![doubted(), Ok(Shown::Locked(1)), doubted()]), [true, false]);
        assert_eq!(said((0..9).map(|_| doubted()).collect()), [true, true, false]);
    }

    #[test]
    fn a_phone_that_is_back_ends_it() {
        let (away, back) = mpsc::channel();
        drop(away);
        let attempts = std::cell::Cell::new(0);
        let attempt = || {
            attempts.set(attempts.get() + 1);
            doubted()
        };
        go_on(&back, attempt, |_, _| (), RETRY);
        assert_eq!(attempts.get(), 1);
    }
}
