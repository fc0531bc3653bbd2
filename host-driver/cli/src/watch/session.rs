//! The user's sessions, as logind has them: how they are locked, and when they lock.
//!
//! Spec: org.freedesktop.login1(5)

mod listen;
mod lock;
mod signals;

use std::time::Duration;

use dbus::Path;
use dbus::blocking::stdintf::org_freedesktop_dbus::Properties;
use dbus::blocking::{Connection, Proxy};

pub(super) use listen::{Listener, listen};
pub(super) use lock::Locking;

const LOGIND: &str = "org.freedesktop.login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const USER: &str = "org.freedesktop.login1.User";
const SESSION: &str = "org.freedesktop.login1.Session";
const LOCKED: &str = "LockedHint";

/// For logind to answer.
const ANSWER: Duration = Duration::from_secs(5);

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

impl SessionError {
    /// Whether asking again is of no use.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::NoSession)
    }
}

/// Whether somebody shows that the sessions are locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    /// So many are.
    Locked(usize),
    /// Nobody says so of these. Not every locker does.
    Doubted(Vec<String>),
    /// The phone was back first.
    Back,
}

/// What the sessions of this user are called.
///
/// # Errors
/// [`SessionError`].
pub(super) fn names() -> Result<Vec<String>, SessionError> {
    let sessions = sessions(&Connection::new_system()?)?;
    Ok(sessions.into_iter().map(|(name, _)| name).collect())
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

fn is_locked(bus: &Connection, path: &Path<'static>) -> Result<bool, dbus::Error> {
    session(bus, path).get(SESSION, LOCKED)
}
