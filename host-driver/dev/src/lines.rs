//! What a child process says, kept until somebody asks for it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Most lines that wait. A phone reports every command, for days perhaps, in an environment where nobody asks.
const MOST: usize = 4096;

/// Lines between the thread that reads them and whoever wants them; the oldest go first when there are too many.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<String>,
    ended: bool,
}

/// Why there is no line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoLine {
    /// None came within the limit.
    TimedOut,
    /// None will come.
    Ended,
}

impl Lines {
    pub(crate) fn push(&self, line: String) {
        self.change(|state| {
            if state.waiting.len() == MOST {
                state.waiting.pop_front();
            }
            state.waiting.push_back(line);
        });
    }

    /// There will be no more lines.
    pub(crate) fn end(&self) {
        self.change(|state| state.ended = true);
    }

    /// The next line, as soon as there is one.
    pub(crate) fn next(&self, limit: Duration) -> Result<String, NoLine> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let nothing = |state: &mut State| state.waiting.is_empty() && !state.ended;
        let (mut state, _) =
            self.changed.wait_timeout_while(state, limit, nothing).unwrap_or_else(PoisonError::into_inner);
        let ended = state.ended;
        state.waiting.pop_front().ok_or(if ended { NoLine::Ended } else { NoLine::TimedOut })
    }

    fn change(&self, step: impl FnOnce(&mut State)) {
        step(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_wait_and_the_end_comes_after_them() {
        let lines = Lines::default();
        assert_eq!(lines.next(Duration::ZERO), Err(NoLine::TimedOut));
        for number in 0..MOST + 10 {
            lines.push(number.to_string());
        }
        lines.end();
        assert_eq!(lines.next(Duration::ZERO).as_deref(), Ok("10"));
        for _ in 1..MOST {
            lines.next(Duration::ZERO).unwrap();
        }
        assert_eq!(lines.next(Duration::from_secs(60)), Err(NoLine::Ended));
    }

    #[test]
    fn a_line_ends_the_wait_for_it() {
        let lines = Lines::default();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| lines.next(Duration::from_secs(60)));
            lines.push("a".to_owned());
            assert_eq!(waiter.join().unwrap().as_deref(), Ok("a"));
        });
    }
}
