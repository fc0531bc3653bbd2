//! Locks the sessions of this user.

use std::time::{Duration, Instant};

use dbus::Path;
use dbus::arg::{PropMap, prop_cast};
use dbus::blocking::Connection;
use dbus::blocking::stdintf::org_freedesktop_dbus::Properties;

use super::signals::{Change, Heard, Signals};
use super::{SESSION, SessionError, Shown, is_locked, session, sessions};

/// How long whatever shows the lock may take to say that it does, before it is doubted.
const LOCKED_LIMIT: Duration = Duration::from_secs(5);

/// How long a logind that is away is waited for: its restart takes less than a second.
const LOGIND_LIMIT: Duration = Duration::from_secs(10);

/// One attempt in all, should logind be started again and again.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(30);

/// Before a logind that says nothing is asked again, and before it is seen again whether the phone is back.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Sessions that are to be locked: those that were there when the phone left.
#[derive(Debug, Default)]
pub(crate) struct Locking {
    /// Absent until logind has said.
    sessions: Option<Vec<Session>>,
}

#[derive(Debug)]
struct Session {
    name: String,
    path: Path<'static>,
    /// Whether there is a screen to lock. One on a console shows no lock.
    is_graphical: bool,
    is_locked: bool,
}

impl Locking {
    /// Asks for all sessions of this user to be locked, and waits until each with a screen says that it is, but not for long.
    /// Without such, one will do. A logind that is started meanwhile is asked anew.
    ///
    /// - `is_away`: whether the phone still is.
    ///
    /// # Errors
    /// [`SessionError`]; something may be open then.
    pub(crate) fn attempt(&mut self, is_away: impl Fn() -> bool) -> Result<Shown, SessionError> {
        let mut signals = Signals::new()?;
        let end = Instant::now() + ATTEMPT_LIMIT;
        let mut until = Instant::now() + LOGIND_LIMIT;
        let mut is_asked = false;
        loop {
            if !is_away() {
                return Ok(Shown::Back);
            }
            if !is_asked {
                match self.ask(&signals.bus) {
                    Ok(()) => {
                        is_asked = true;
                        until = (Instant::now() + LOCKED_LIMIT).min(end);
                    }
                    Err(error) if error.is_final() || Instant::now() >= until => return Err(error),
                    Err(_) => {}
                }
            }
            if is_asked {
                if signals.is_there() {
                    self.look(&signals.bus);
                }
                let left = self.doubted();
                if left.is_empty() {
                    return Ok(Shown::Locked(self.shown()));
                }
                if Instant::now() >= until {
                    return Ok(Shown::Doubted(left));
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            match signals.next(left.min(LOOK_AGAIN))? {
                Some(Heard::Started) => {
                    is_asked = false;
                    until = (Instant::now() + LOGIND_LIMIT).min(end);
                }
                Some(Heard::Change(path, Change::Locked)) => self.locked(&path),
                _ => {}
            }
        }
    }

    /// Asks for those to be locked that do not show it.
    fn ask(&mut self, bus: &Connection) -> Result<(), SessionError> {
        let there = sessions(bus)?;
        let all = match &mut self.sessions {
            Some(all) => all,
            none => none.insert(described(bus, &there)?),
        };
        // Who has logged out has left nothing open.
        all.retain(|session| there.iter().any(|(_, path)| *path == session.path));
        let mut done = Err(SessionError::NoSession);
        let mut refused = None;
        for one in all.iter().filter(|session| !session.is_locked) {
            match session(bus, &one.path).method_call::<(), _, _, _>(SESSION, "Lock", ()) {
                Ok(()) => done = Ok(()),
                Err(error) if one.is_graphical => refused = Some(error),
                // Not every session can be locked, such as that of a service manager.
                Err(error) if done.is_err() => done = Err(SessionError::Refused(error)),
                Err(_) => {}
            }
        }
        match refused {
            Some(error) => Err(SessionError::Refused(error)),
            None if all.iter().any(|session| session.is_locked) => Ok(()),
            None => done,
        }
    }

    /// Looks which show it by now.
    fn look(&mut self, bus: &Connection) {
        for session in self.sessions.iter_mut().flatten().filter(|session| !session.is_locked) {
            session.is_locked = is_locked(bus, &session.path).unwrap_or(false);
        }
    }

    fn locked(&mut self, path: &Path<'static>) {
        for session in self.sessions.iter_mut().flatten().filter(|session| session.path == *path) {
            session.is_locked = true;
        }
    }

    fn all(&self) -> impl Iterator<Item = &Session> {
        self.sessions.iter().flatten()
    }

    /// Those that have to show the lock, and do not.
    fn doubted(&self) -> Vec<String> {
        let names = |is_counted: fn(&Session) -> bool| {
            self.all().filter(|session| is_counted(session)).map(|session| session.name.clone()).collect()
        };
        if self.all().any(|session| session.is_graphical) {
            names(|session| session.is_graphical && !session.is_locked)
        } else if self.all().any(|session| session.is_locked) {
            Vec::new()
        } else {
            names(|_| true)
        }
    }

    /// How many show it.
    fn shown(&self) -> usize {
        self.all().filter(|session| session.is_locked).count()
    }
}

/// The sessions that can be open. One that closes only waits for its last programs.
fn described(bus: &Connection, there: &[(String, Path<'static>)]) -> Result<Vec<Session>, SessionError> {
    let mut all = Vec::new();
    for (name, path) in there {
        let properties = session(bus, path).get_all(SESSION)?;
        if text(&properties, "State") == "closing" {
            continue;
        }
        let has_screen = matches!(text(&properties, "Type"), "x11" | "wayland" | "mir");
        let is_graphical = has_screen && text(&properties, "Class").starts_with("user");
        all.push(Session { name: name.clone(), path: path.clone(), is_graphical, is_locked: false });
    }
    Ok(all)
}

fn text<'a>(properties: &'a PropMap, name: &str) -> &'a str {
    prop_cast::<String>(properties, name).map_or("", String::as_str)
}
