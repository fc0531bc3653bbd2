//! Says when a session of this user locks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dbus::Path;
use dbus::blocking::Connection;

use super::signals::{Change, Heard, Signals};
use super::{SessionError, is_locked, sessions};

/// A session that says so within this time after a lock was asked for is locked by the same lock.
const SAME_LOCK: Duration = Duration::from_secs(10);

/// How long libdbus waits for a signal at once; it knows no wait without an end.
const IDLE: Duration = Duration::from_secs(3600);

/// What is known of the sessions, also while nobody tells.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    lock: Lock,
    /// Those of this user, and which were locked when that was last said. Absent until logind was there.
    sessions: Option<BTreeMap<Path<'static>, bool>>,
}

/// Says each time that a session of this user locks, until the bus fails. A lock that logind could not tell of, because it was
/// away then, is said once it is back.
pub(crate) fn listen(listener: &mut Listener, mut locked: impl FnMut()) -> Result<(), SessionError> {
    let mut signals = Signals::new()?;
    if signals.is_there() && listener.look(&signals.bus) {
        locked();
    }
    loop {
        let is_lock = match signals.next(IDLE)? {
            None => false,
            Some(Heard::Started) => listener.look(&signals.bus),
            Some(Heard::Change(path, change)) => listener.change(&signals.bus, &path, change),
        };
        if is_lock {
            locked();
        }
    }
}

impl Listener {
    /// Asks for what nobody has told; gives whether a session is locked that was not.
    fn look(&mut self, bus: &Connection) -> bool {
        let Ok(sessions) = sessions(bus) else { return false };
        let now: BTreeMap<_, _> = sessions
            .into_iter()
            .map(|(_, path)| {
                let is_locked = is_locked(bus, &path).unwrap_or(false);
                (path, is_locked)
            })
            .collect();
        let before = self.sessions.replace(now);
        let was = |path| before.as_ref().is_none_or(|before| before.get(path).copied().unwrap_or(false));
        self.sessions.iter().flatten().any(|(path, is_locked)| *is_locked && !was(path))
    }

    /// Whether this begins a lock of a session of this user. Everybody hears of everybody's sessions.
    fn change(&mut self, bus: &Connection, path: &Path<'static>, change: Change) -> bool {
        // As logind has them now, or had them before it went.
        if let Ok(sessions) = sessions(bus) {
            let known = self.sessions.get_or_insert_default();
            known.retain(|path, _| sessions.iter().any(|(_, ours)| ours == path));
            for (_, path) in sessions {
                known.entry(path).or_default();
            }
        }
        let Some(is_locked) = self.sessions.as_mut().and_then(|sessions| sessions.get_mut(path)) else { return false };
        match change {
            Change::Asked => {}
            Change::Locked => *is_locked = true,
            Change::Unlocked => *is_locked = false,
        }
        self.lock.change(change, Instant::now())
    }
}

/// Tells one lock from the next: most are asked for first and then shown, others only shown.
#[derive(Debug, Default)]
struct Lock {
    asked: Option<Instant>,
}

impl Lock {
    /// Whether this begins a lock.
    fn change(&mut self, change: Change, now: Instant) -> bool {
        let asked = self.asked.take().filter(|asked| now.saturating_duration_since(*asked) < SAME_LOCK);
        match change {
            Change::Asked => {
                self.asked = Some(now);
                true
            }
            // A PIN may have been entered meanwhile to get past it.
            Change::Locked => asked.is_none(),
            Change::Unlocked => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_asked_for_and_then_shown_is_one() {
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let mut lock = Lock::default();
        assert!(lock.change(Change::Asked, now));
        assert!(!lock.change(Change::Locked, later(2)));
        assert!(!lock.change(Change::Unlocked, later(5)));
        assert!(lock.change(Change::Locked, later(6)), "by its own locker");
        assert!(lock.change(Change::Asked, later(20)), "nothing shows it");
        assert!(lock.change(Change::Asked, later(21)), "each one that is asked for counts");
        assert!(lock.change(Change::Locked, later(21) + SAME_LOCK), "this is another one");
        assert!(lock.change(Change::Asked, later(60)));
        assert!(!lock.change(Change::Unlocked, later(61)));
        assert!(lock.change(Change::Locked, later(62)));
    }
}
