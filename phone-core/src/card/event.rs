//! What the card tells the phone's user interface and log. Nothing here can hold a PIN, a key or the data of a command.

use std::fmt;
use std::time::Duration;

use pocketcard_protocol::apdu::StatusWord;
use pocketcard_protocol::messages::RefusalReason;

use super::deed::Deed;
use crate::traits::HostId;

/// Who gave a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The owner, on the phone itself.
    Owner,
    /// A paired host.
    Host {
        /// Which.
        id: HostId,
        /// Its name as stored at pairing.
        name: String,
    },
}

impl Caller {
    /// The host; `None` for the owner.
    pub const fn host(&self) -> Option<HostId> {
        match self {
            Self::Owner => None,
            Self::Host { id, .. } => Some(*id),
        }
    }

    /// Name for people.
    pub fn name(&self) -> &str {
        match self {
            Self::Owner => "this phone",
            Self::Host { name, .. } => name,
        }
    }
}

/// A command in words: its name, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// Name of the command in the standard, such as `GET DATA`.
    pub name: &'static str,
    /// Object, key or application; empty where there is none.
    pub subject: String,
    /// What it does, if it does more than read.
    pub deed: Option<Deed>,
}

impl CommandLine {
    pub(crate) fn new(name: &'static str, subject: impl fmt::Display) -> Self {
        Self { name, subject: subject.to_string(), deed: None }
    }

    pub(crate) const fn bare(name: &'static str) -> Self {
        Self { name, subject: String::new(), deed: None }
    }

    pub(crate) fn doing(self, deed: Option<Deed>) -> Self {
        Self { deed, ..self }
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)?;
        if self.subject.is_empty() { Ok(()) } else { write!(formatter, " {}", self.subject) }
    }
}

/// Something a user interface may show.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CardEvent {
    /// A host began or resumed a card session.
    SessionOpened {
        /// The host.
        host: HostId,
        /// Its name.
        host_name: String,
        /// Name and version of its software.
        software: String,
        /// Whether an earlier session went on.
        resumed: bool,
    },
    /// A host's card session is over; its security state is gone.
    SessionClosed {
        /// The host.
        host: HostId,
    },
    /// A command was answered.
    Command {
        /// Who gave it.
        caller: Caller,
        /// What it was.
        command: CommandLine,
        /// How it was answered.
        status: StatusWord,
        /// Why it was refused, if that is more than the status word says.
        refused: Option<RefusalReason>,
        /// Whether its host gave it up, or it took too long.
        given_up: bool,
        /// Whether the owner was asked.
        asked: bool,
        /// From its arrival to its answer.
        duration: Duration,
    },
    /// A command was given up before it was answered: reset, power-off, or the end of the session.
    Cancelled {
        /// Who gave it.
        caller: Caller,
        /// What it was.
        command: CommandLine,
        /// Whether its host had gone without a word.
        link_lost: bool,
        /// Whether the owner was asked.
        asked: bool,
    },
    /// The owner was to confirm that a host gets the card.
    ConnectionDecided {
        /// The host.
        host: HostId,
        /// Its name.
        host_name: String,
        /// Why it does not get it.
        refused: Option<RefusalReason>,
    },
    /// What a host may do has changed.
    SecurityChanged {
        /// The host.
        host: HostId,
        /// Whether its session has verified the PIN.
        pin_verified: bool,
        /// Tries that the host has left.
        pin_tries_left: u8,
    },
    /// A host may no longer have the owner asked, because it was denied twice; or it may again, since the owner came, or
    /// forgot it.
    PromptsHeld {
        /// The host.
        host: HostId,
        /// Whether it is held from now on.
        held: bool,
    },
    /// The owner locked or unlocked the card.
    Locked(bool),
}
