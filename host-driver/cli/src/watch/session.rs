//! The user's sessions, as logind has them: how they are locked, and when they lock.
//!
//! Spec: org.freedesktop.login1(5)

use std::sync::mpsc;
use std::time::{Duration, Instant};

use dbus::Path;
use dbus::arg::PropMap;
use dbus::blocking::stdintf::org_freedesktop_dbus::Properties;
use dbus::blocking::{Connection, Proxy};
use dbus::message::{MatchRule, Message};

const LOGIND: &str = "org.freedesktop.login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const USER: &str = "org.freedesktop.login1.User";
const SESSION: &str = "org.freedesktop.login1.Session";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const LOCKED: &str = "LockedHint";

/// For logind to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// How long whatever shows the lock may take to say that it does, before it is doubted.
pub(super) const LOCKED_LIMIT: Duration = Duration::from_secs(5);

/// A session that says so within this time after a lock was asked for is locked by the same lock.
const SAME_LOCK: Duration = Duration::from_secs(10);

/// How long libdbus waits for a signal at once; it knows no wait without an end.
const IDLE: Duration = Duration::from_secs(3600);

/// Why the sessions cannot be locked or listened to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SessionError {
    #[error("logind does not answer: {0}")]
    Bus(#[from] dbus::Error),
    #[error("logind has no session of this user")]
    NoSession,
    #[error("logind locks no session of this user: {0}")]
    Refused(dbus::Error),
}

/// Whether somebody shows that the sessions are locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Locked,
    /// Nobody says so. Not every locker does.
    Unknown,
}

/// Asks for all sessions of this user to be locked, and waits until one says that it is, but not for long.
///
/// # Errors
/// [`SessionError`]; nothing was locked then.
pub(super) fn lock() -> Result<Shown, SessionError> {
    let bus = Connection::new_system()?;
    let (sender, locked) = mpsc::channel();
    let rule = MatchRule::new_signal(PROPERTIES, "PropertiesChanged").with_sender(LOGIND);
    bus.add_match(rule, move |changed: Changed, _, message| {
        if let (Some(true), Some(path)) = (changed.hint(), message.path()) {
            let _ = sender.send((path.into_static(), said_by(message)));
        }
        true
    })?;
    let sessions = sessions(&bus)?;
    let mut done = Err(SessionError::NoSession);
    for (_, path) in &sessions {
        // Not every session can be locked, such as that of a service manager.
        match session(&bus, path).method_call::<(), _, _, _>(SESSION, "Lock", ()) {
            Ok(()) => done = Ok(()),
            Err(error) if done.is_err() => done = Err(SessionError::Refused(error)),
            Err(_) => {}
        }
    }
    done?;
    let until = Instant::now() + LOCKED_LIMIT;
    loop {
        let is_ours = |(path, by): (Path<'static>, Option<String>)| {
            sessions.iter().any(|(_, ours)| *ours == path) && is_logind(&bus, by.as_deref())
        };
        if locked.try_iter().any(is_ours) || sessions.iter().any(|(_, path)| is_locked(&bus, path)) {
            return Ok(Shown::Locked);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Shown::Unknown);
        }
        bus.process(left)?;
    }
}

/// What the sessions of this user are called.
///
/// # Errors
/// [`SessionError`].
pub(super) fn names() -> Result<Vec<String>, SessionError> {
    let sessions = sessions(&Connection::new_system()?)?;
    Ok(sessions.into_iter().map(|(name, _)| name).collect())
}

/// Says each time that a session of this user locks, until the bus fails.
pub(super) fn listen(mut locked: impl FnMut()) -> Result<(), SessionError> {
    let bus = Connection::new_system()?;
    let (sender, signals) = mpsc::channel();
    for (interface, member) in [(SESSION, "Lock"), (SESSION, "Unlock"), (PROPERTIES, "PropertiesChanged")] {
        let sender = sender.clone();
        let rule = MatchRule::new_signal(interface, member).with_sender(LOGIND);
        bus.add_match(rule, move |(), _, message: &Message| {
            let change = match member {
                "Lock" => Some(Change::Asked),
                "Unlock" => Some(Change::Unlocked),
                _ => message.read_all::<Changed>().ok().and_then(|changed| changed.hint()).map(Change::hint),
            };
            if let (Some(change), Some(path)) = (change, message.path()) {
                let _ = sender.send((path.into_static(), change, said_by(message)));
            }
            true
        })?;
    }
    let mut lock = Lock::default();
    loop {
        bus.process(IDLE)?;
        while let Ok((path, change, by)) = signals.try_recv() {
            if !is_logind(&bus, by.as_deref()) {
                continue;
            }
            // Everybody hears of everybody's sessions.
            let is_ours = sessions(&bus)?.iter().any(|(_, ours)| *ours == path);
            if is_ours && lock.change(change, Instant::now()) {
                locked();
            }
        }
    }
}

/// Whose signal it is.
fn said_by(message: &Message) -> Option<String> {
    message.sender().map(|name| name.to_string())
}

/// Whether this is logind's own name on the bus. Anybody there may send anybody a signal, which then needs no match rule:
/// every local user could end PINs, or have a lock believed that nobody shows.
fn is_logind(bus: &Connection, sender: Option<&str>) -> bool {
    let daemon = Proxy::new("org.freedesktop.DBus", "/org/freedesktop/DBus", ANSWER, bus);
    let owner: Result<(String,), _> = daemon.method_call("org.freedesktop.DBus", "GetNameOwner", (LOGIND,));
    owner.is_ok_and(|(owner,)| sender == Some(owner.as_str()))
}

/// The sessions of this user. A service of the user's is in none of them, so all count.
fn sessions(bus: &Connection) -> Result<Vec<(String, Path<'static>)>, SessionError> {
    let manager = Proxy::new(LOGIND, "/org/freedesktop/login1", ANSWER, bus);
    let number = rustix::process::getuid().as_raw();
    let (user,): (Path<'static>,) = match manager.method_call(MANAGER, "GetUser", (number,)) {
        Err(error) if error.name() == Some("org.freedesktop.login1.NoSuchUser") => return Err(SessionError::NoSession),
        other => other?,
    };
    Ok(Proxy::new(LOGIND, user, ANSWER, bus).get(USER, "Sessions")?)
}

fn session<'a>(bus: &'a Connection, path: &Path<'static>) -> Proxy<'static, &'a Connection> {
    Proxy::new(LOGIND, path.clone(), ANSWER, bus)
}

fn is_locked(bus: &Connection, path: &Path<'static>) -> bool {
    session(bus, path).get(SESSION, LOCKED).unwrap_or(false)
}

/// What a session's properties became.
struct Changed {
    interface: String,
    changed: PropMap,
}

impl Changed {
    fn hint(&self) -> Option<bool> {
        if self.interface != SESSION {
            return None;
        }
        dbus::arg::prop_cast(&self.changed, LOCKED).copied()
    }
}

impl dbus::arg::ReadAll for Changed {
    fn read(i: &mut dbus::arg::Iter<'_>) -> Result<Self, dbus::arg::TypeMismatchError> {
        Ok(Self { interface: i.read()?, changed: i.read()? })
    }
}

/// What a session's signal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// It is to be locked.
    Asked,
    /// It is locked.
    Locked,
    Unlocked,
}

impl Change {
    fn hint(is_locked: bool) -> Self {
        if is_locked { Self::Locked } else { Self::Unlocked }
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
