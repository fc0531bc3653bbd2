use std::time::SystemTime;

use pocketcard_protocol::{apdu::StatusWord, link::CloseReason, messages::RefusalReason};

use crate::{card::Deed, traits::HostId};

/// A host as it was when an entry was written; it may have another name by now, or be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedHost {
    /// The host.
    pub host: HostId,
    /// Its name then.
    pub name: String,
}

/// Something that was done, or was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// When it ended, by the phone's wall clock.
    pub at: SystemTime,
    /// The host that asked for it, or that the owner dealt with; `None`: the owner, with the card itself.
    pub host: Option<LoggedHost>,
    /// What it was.
    pub operation: LogOperation,
    /// How it ended.
    pub result: LogResult,
    /// Whether the owner was asked on the phone for it: to confirm, to enter a PIN, to show that it is the owner.
    pub asked: bool,
}

impl LogEntry {
    pub(super) fn host_id(&self) -> Option<HostId> {
        self.host.as_ref().map(|host| host.host)
    }
}

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogOperation {
    /// A command of the card.
    Card(Deed),
    /// A host was paired.
    Pair,
    /// A host was forgotten, or dropped because it never finished its pairing.
    Forget,
    /// A host's channel was opened.
    Connect,
    /// A host's channel was closed.
    Disconnect,
    /// The owner was asked whether the card may be in a host's reader.
    ConfirmConnection,
    /// The owner changed a host's permissions.
    SetPermissions,
    /// The owner chose PIN, PUK or both.
    ChoosePin,
    /// The owner locked the card.
    Lock,
    /// The owner unlocked the card.
    Unlock,
}

impl LogOperation {
    /// A name that does not change between versions, for exports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Card(deed) => deed.name(),
            Self::Pair => "pair",
            Self::Forget => "forget",
            Self::Connect => "connect",
            Self::Disconnect => "disconnect",
            Self::ConfirmConnection => "confirm_connection",
            Self::SetPermissions => "set_permissions",
            Self::ChoosePin => "choose_pin",
            Self::Lock => "lock",
            Self::Unlock => "unlock",
        }
    }

    /// Reference of the key or secret that it was about, such as `0x9A`.
    pub const fn key(self) -> Option<u8> {
        match self {
            Self::Card(deed) => deed.key_reference(),
            _ => None,
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogResult {
    /// It was done.
    Done,
    /// The PIN or PUK was wrong; so many tries are left to whoever asked.
    WrongPin {
        /// Tries left.
        tries_left: u8,
    },
    /// It was refused, for this reason.
    Refused(RefusalReason),
    /// It was given up before it was done: by the host, by a reset, or because it took too long.
    Cancelled,
    /// The link to the host was lost, and the host did not come back for it.
    LinkLost,
    /// It was answered with this status word.
    Failed {
        /// The status word.
        status: u16,
    },
}

impl LogResult {
    /// A name that does not change between versions, for exports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::WrongPin { .. } => "wrong_pin",
            Self::Refused(reason) => refusal_name(reason),
            Self::Cancelled => "cancelled",
            Self::LinkLost => "link_lost",
            Self::Failed { .. } => "failed",
        }
    }

    pub(crate) fn of_command(status: StatusWord, refused: Option<RefusalReason>) -> Self {
        match (status, refused) {
            (StatusWord::Success, _) => Self::Done,
            (StatusWord::RemainingTries(tries_left), _) => Self::WrongPin { tries_left },
            (_, Some(reason)) => Self::Refused(reason),
            (StatusWord::AuthenticationMethodBlocked, None) => Self::Refused(RefusalReason::PinBlocked),
            (status, None) => Self::Failed { status: u16::from(status) },
        }
    }

    pub(crate) const fn of_link(reason: CloseReason) -> Self {
        if reason.is_loss() { Self::LinkLost } else { Self::Done }
    }
}

const fn refusal_name(reason: RefusalReason) -> &'static str {
    match reason {
        RefusalReason::Unspecified => "refused",
        RefusalReason::KeyNotPermitted => "key_not_permitted",
        RefusalReason::TypedPinNotPermitted => "typed_pin_not_permitted",
        RefusalReason::AdministrationNotPermitted => "administration_not_permitted",
        RefusalReason::Denied => "denied",
        RefusalReason::Unanswered => "unanswered",
        RefusalReason::TooManyDenials => "too_many_denials",
        RefusalReason::PinBlocked => "pin_blocked",
        RefusalReason::LastTryKept => "last_try_kept",
        RefusalReason::ConnectionNotConfirmed => "connection_not_confirmed",
        RefusalReason::Cancelled => "cancelled_by_owner",
    }
}
