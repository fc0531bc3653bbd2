//! What logind says on the bus, in the order in which it says it, also across its restarts.

use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use dbus::Path;
use dbus::arg::{PropMap, prop_cast};
use dbus::blocking::{Connection, Proxy};
use dbus::channel::MatchingReceiver;
use dbus::message::{MatchRule, Message};

use super::{ANSWER, LOCKED, LOGIND, SESSION};

const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// The bus itself. Nobody on it can be called so: the names of its clients begin with a colon, and it gives this one to none.
const BUS: &str = "org.freedesktop.DBus";
const OWNER_CHANGED: &str = "NameOwnerChanged";

/// A subscription to all that logind says of sessions.
pub(super) struct Signals {
    pub(super) bus: Connection,
    received: Receiver<Received>,
    /// Logind's own name on the bus, while it is there. Anybody there may send anybody a signal, which then needs no match
    /// rule: every local user could end PINs, or have a lock believed that nobody shows.
    owner: Option<String>,
}

/// What came, and from whom.
enum Received {
    /// Logind's own name is this now; nothing while it is away.
    Owner(String),
    Change(Path<'static>, Change, String),
}

/// What logind says, or that it is there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It was started. What it was asked before may be lost, and what changed meanwhile nobody has said.
    Started,
    Change(Path<'static>, Change),
}

/// What a session's signal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
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

impl Signals {
    pub(super) fn new() -> Result<Self, dbus::Error> {
        let bus = Connection::new_system()?;
        let (sender, received) = mpsc::channel();
        for (interface, member) in [(SESSION, "Lock"), (SESSION, "Unlock"), (PROPERTIES, "PropertiesChanged")] {
            let sender = sender.clone();
            let rule = MatchRule::new_signal(interface, member).with_sender(LOGIND);
            bus.add_match(rule, move |(), _, message: &Message| {
                let change = match member {
                    "Lock" => Some(Change::Asked),
                    "Unlock" => Some(Change::Unlocked),
                    _ => message.read_all::<Changed>().ok().and_then(|changed| changed.hint()).map(Change::hint),
                };
                if let (Some(change), Some(path), Some(by)) = (change, message.path(), message.sender()) {
                    let _ = sender.send(Received::Change(path.into_static(), change, by.to_string()));
                }
                true
            })?;
        }
        // Of this name alone: others come and go all day.
        bus.add_match_no_cb(&format!(
            "type='signal',sender='{BUS}',interface='{BUS}',member='{OWNER_CHANGED}',arg0='{LOGIND}'"
        ))?;
        follow(&bus, sender);
        let daemon = Proxy::new(BUS, "/org/freedesktop/DBus", ANSWER, &bus);
        let owner: Result<(String,), _> = daemon.method_call(BUS, "GetNameOwner", (LOGIND,));
        let owner = match owner {
            Ok((owner,)) => Some(owner),
            Err(error) if error.name() == Some("org.freedesktop.DBus.Error.NameHasNoOwner") => None,
            Err(error) => return Err(error),
        };
        Ok(Self { bus, received, owner })
    }

    /// Whether logind is on the bus.
    pub(super) fn is_there(&self) -> bool {
        self.owner.is_some()
    }

    /// What logind says next; nothing within this time.
    ///
    /// # Errors
    /// The bus is gone.
    pub(super) fn next(&mut self, limit: Duration) -> Result<Option<Heard>, dbus::Error> {
        let until = Instant::now() + limit;
        loop {
            while let Ok(received) = self.received.try_recv() {
                match received {
                    Received::Owner(owner) => {
                        let is_there = !owner.is_empty();
                        self.owner = is_there.then_some(owner);
                        if is_there {
                            return Ok(Some(Heard::Started));
                        }
                    }
                    // What it said before it went came before the word that it did.
                    Received::Change(path, change, by) if self.owner.as_ref() == Some(&by) => {
                        return Ok(Some(Heard::Change(path, change)));
                    }
                    Received::Change(..) => {}
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.bus.process(left)?;
        }
    }
}

/// Takes note of who is logind.
fn follow(bus: &Connection, sender: Sender<Received>) {
    bus.start_receive(
        MatchRule::new_signal(BUS, OWNER_CHANGED),
        Box::new(move |message, _| {
            let is_of_the_bus = message.sender().is_some_and(|sender| &*sender == BUS);
            if let (true, Ok((LOGIND, _, owner))) = (is_of_the_bus, message.read3::<&str, &str, &str>()) {
                let _ = sender.send(Received::Owner(owner.to_owned()));
            }
            true
        }),
    );
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
        prop_cast(&self.changed, LOCKED).copied()
    }
}

impl dbus::arg::ReadAll for Changed {
    fn read(i: &mut dbus::arg::Iter<'_>) -> Result<Self, dbus::arg::TypeMismatchError> {
        Ok(Self { interface: i.read()?, changed: i.read()? })
    }
}
