//! What somebody else may hold up: a terminal that is stopped, a pager, a desktop that does not answer. The watcher must not
//! wait for it, or it would not lock.

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use crate::terminal::{alarm, note, print};

/// What may wait at once; what comes then is lost.
const MOST_WAITING: usize = 1000;

/// How long what still waits is waited for at the end.
const LAST: Duration = Duration::from_secs(1);

/// Work for a thread of its own.
#[derive(Debug)]
pub(super) struct Aside<T> {
    work: Option<SyncSender<T>>,
    /// Ends with the thread.
    done: Receiver<()>,
}

impl<T: Send + 'static> Aside<T> {
    /// - `begin`: gives, on that thread, what does the work.
    pub(super) fn new<F: FnMut(T)>(begin: impl FnOnce() -> F + Send + 'static) -> Self {
        let (work, waiting) = mpsc::sync_channel(MOST_WAITING);
        let (ended, done) = mpsc::sync_channel(0);
        thread::spawn(move || {
            let mut does = begin();
            waiting.iter().for_each(&mut does);
            // What it holds has an end of its own, which is waited for.
            drop(does);
            drop(ended);
        });
        Self { work: Some(work), done }
    }

    /// Never waits. Gives whether it is going to be done.
    pub(super) fn give(&self, work: T) -> bool {
        self.work.as_ref().is_some_and(|sender| sender.try_send(work).is_ok())
    }
}

impl<T> Drop for Aside<T> {
    fn drop(&mut self) {
        self.work = None;
        let _ = self.done.recv_timeout(LAST);
    }
}

/// Something to say.
#[derive(Debug)]
pub(super) enum Line {
    /// On stdout, as it is.
    Output(String),
    /// On stderr, as a line.
    Note(String),
    /// The same, and as an error where that can be told.
    Alarm(String),
}

/// Says what it is given.
pub(super) fn lines() -> Aside<Line> {
    Aside::new(|| {
        |line| match line {
            Line::Output(text) => print(&text),
            Line::Note(text) => note(&text),
            Line::Alarm(text) => alarm(&text),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_up_holds_nobody_up() {
        let (go_on, held) = mpsc::channel::<()>();
        let (sender, done) = mpsc::channel();
        let aside = Aside::new(move || {
            move |number: usize| {
                let _ = held.recv();
                let _ = sender.send(number);
            }
        });
        let given = (0..MOST_WAITING * 2).take_while(|number| aside.give(*number)).count();
        assert!((MOST_WAITING..=MOST_WAITING + 1).contains(&given), "{given}");
        drop(go_on);
        drop(aside);
        assert_eq!(done.iter().count(), given, "what was taken is done, also at the end");
    }

    #[test]
    fn the_end_does_not_wait_for_ever() {
        let (_go_on, held) = mpsc::channel::<()>();
        let aside = Aside::new(move || {
            move |()| {
                let _ = held.recv();
            }
        });
        assert!(aside.give(()));
        let (sender, ended) = mpsc::channel();
        thread::spawn(move || {
            drop(aside);
            let _ = sender.send(());
        });
        assert!(ended.recv_timeout(LAST * 20).is_ok(), "it waits for what is held up");
    }
}
