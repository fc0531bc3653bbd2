//! The host's count of failed pairings.

use std::sync::{Arc, Mutex, PoisonError};

use super::{TRIES_LIMIT, TRIES_WINDOW};
use crate::time::Timestamp;

/// Counts this host's pairings, across all links: three that fail within ten minutes are enough for anyone who guesses.
///
/// A host has one, for as long as it runs; clones share the count. A pairing counts from the moment its last handshake
/// message is sent, and no longer once both sides have confirmed it.
///
/// Spec: SPEC.md section 8.5
#[derive(Clone, Debug, Default)]
pub struct Attempts(Arc<Mutex<Log>>);

#[derive(Debug, Default)]
struct Log {
    entries: Vec<Entry>,
    /// Never given out again, so that a try taken back late cannot take back another.
    next: u64,
}

#[derive(Debug)]
struct Entry {
    at: Timestamp,
    /// Distinguishes tries of the same moment.
    number: u64,
}

/// No pairing before `until`: too many have failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many pairings failed within ten minutes")]
pub struct TooManyTries {
    /// When the next one may be made.
    pub until: Timestamp,
}

impl Attempts {
    /// A count of zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a pairing may be begun now.
    ///
    /// # Errors
    /// [`TooManyTries`] with the moment from which it may.
    pub fn check(&self, now: Timestamp) -> Result<(), TooManyTries> {
        self.log().allow(now)
    }

    /// Counts one try.
    pub(crate) fn begin(&self, now: Timestamp) -> Result<Attempt, TooManyTries> {
        let mut log = self.log();
        log.allow(now)?;
        let number = log.next;
        log.next += 1;
        log.entries.push(Entry { at: now, number });
        drop(log);
        Ok(Attempt { attempts: self.clone(), number })
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        // A list of moments is right whatever its last holder did.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn allow(&mut self, now: Timestamp) -> Result<(), TooManyTries> {
        self.entries.retain(|entry| now.saturating_since(entry.at) < TRIES_WINDOW);
        match self.entries.first() {
            Some(first) if self.entries.len() >= TRIES_LIMIT => Err(TooManyTries { until: first.at + TRIES_WINDOW }),
            _ => Ok(()),
        }
    }
}

/// One counted try.
#[derive(Debug)]
pub(crate) struct Attempt {
    attempts: Attempts,
    number: u64,
}

impl Attempt {
    /// Takes the try back: people on both sides have confirmed the digits.
    pub(crate) fn succeeded(&self) {
        self.attempts.log().entries.retain(|entry| entry.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn the_fourth_failure_within_ten_minutes_is_refused() {
        let attempts = Attempts::new();
        for second in [0, 100, 200] {
            assert!(attempts.clone().begin(at(second)).is_ok());
        }
        assert_eq!(attempts.begin(at(599)).err(), Some(TooManyTries { until: at(600) }));
        assert!(attempts.begin(at(600)).is_ok());
        assert_eq!(attempts.check(at(601)).err(), Some(TooManyTries { until: at(700) }));
    }

    #[test]
    fn a_try_taken_back_late_takes_back_no_other() {
        let attempts = Attempts::new();
        let late = attempts.begin(at(0)).expect("first");
        for _ in 0..TRIES_LIMIT {
            let _failed = attempts.begin(at(600)).expect("the first counts no more");
        }
        late.succeeded();
        assert!(attempts.begin(at(600)).is_err());
    }

    #[test]
    fn a_success_does_not_count() {
        let attempts = Attempts::new();
        for _ in 0..10 {
            attempts.begin(at(0)).expect("only failures count").succeeded();
        }
        let first = attempts.begin(at(1)).expect("first");
        let _second = attempts.begin(at(1)).expect("second");
        first.succeeded();
        let _third = attempts.begin(at(1)).expect("third");
        let _fourth = attempts.begin(at(1)).expect("the first was taken back");
        assert!(attempts.begin(at(1)).is_err());
    }
}
