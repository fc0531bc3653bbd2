//! Reasons and states in the words of the control socket.

use pocketcard_front::{Failure, PinEntry};
use pocketcard_ipc::control::{LinkState, RefusalReason};
use pocketcard_ipc::driver;
use pocketcard_protocol::link::{self, CloseReason};
use pocketcard_protocol::messages::{self, Body, PendingReason, PinOperation};

pub(super) fn failure_of(failure: Failure) -> driver::Failure {
    match failure {
        Failure::NotPresent => driver::Failure::NotPresent,
        Failure::TimedOut => driver::Failure::TimedOut,
        Failure::Cancelled => driver::Failure::Cancelled,
        Failure::Unsupported => driver::Failure::Unsupported,
    }
}

pub(super) fn pin_entry_of(entry: driver::PinEntry) -> PinEntry {
    PinEntry {
        operation: match entry.operation() {
            driver::PinOperation::Verify => PinOperation::Verify,
            driver::PinOperation::Change => PinOperation::Change,
            driver::PinOperation::Unblock => PinOperation::Unblock,
        },
        key_reference: entry.key_reference(),
        time_limit: entry.time_limit(),
    }
}

pub(super) fn refusal_of(reason: messages::RefusalReason) -> RefusalReason {
    use messages::RefusalReason as Said;
    match reason {
        Said::Unspecified => RefusalReason::Unknown,
        Said::KeyNotPermitted => RefusalReason::KeyNotPermitted,
        Said::TypedPinNotPermitted => RefusalReason::TypedPinNotPermitted,
        Said::AdministrationNotPermitted => RefusalReason::AdministrationNotPermitted,
        Said::Denied => RefusalReason::Denied,
        Said::Unanswered => RefusalReason::Unanswered,
        Said::TooManyDenials => RefusalReason::TooManyDenials,
        Said::PinBlocked => RefusalReason::PinBlocked,
        Said::LastTryKept => RefusalReason::LastTryKept,
        Said::ConnectionNotConfirmed => RefusalReason::ConnectionNotConfirmed,
        Said::Cancelled => RefusalReason::Cancelled,
    }
}

/// The key or secret that a refusal is about, as PIV names it.
pub(super) fn key_words(key_reference: u8) -> Option<String> {
    (key_reference != 0).then(|| format!("{key_reference:02X}"))
}

pub(super) fn pending_words(reason: PendingReason) -> &'static str {
    match reason {
        PendingReason::Unspecified | PendingReason::Busy => "busy",
        PendingReason::Approval => "approval",
        PendingReason::PinEntry => "pin_entry",
        PendingReason::KeyGeneration => "key_generation",
        PendingReason::Locked => "locked",
    }
}

/// What a message asks of the phone, without what is in it.
pub(super) fn request_words(body: Option<&Body>) -> &'static str {
    match body {
        Some(Body::Open(_)) => "open",
        Some(Body::Transmit(_)) => "transmit",
        Some(Body::PinEntry(_)) => "pin_entry",
        Some(Body::Fetch(_)) => "fetch",
        Some(Body::Reset(_)) => "reset",
        Some(Body::Cancel(_)) => "cancel",
        _ => "another",
    }
}

pub(super) fn link_state_of(reason: CloseReason) -> LinkState {
    match reason {
        CloseReason::VersionMismatch { ours, theirs, update } => LinkState::VersionMismatch {
            ours: u32::from(ours.max()),
            theirs: u32::from(theirs.max()),
            update: match update {
                link::Side::Host => pocketcard_ipc::Side::Ours,
                link::Side::Phone => pocketcard_ipc::Side::Theirs,
            },
        },
        reason => LinkState::Disconnected { reason: Some(describe(reason)) },
    }
}

/// The reason in words, with what to do about it.
pub(crate) fn describe(reason: CloseReason) -> String {
    match reason {
        CloseReason::VersionMismatch { update: link::Side::Host, .. } => {
            "the phone is newer than this computer; update Pocketcard on this computer".to_owned()
        }
        CloseReason::VersionMismatch { update: link::Side::Phone, .. } => {
            "the phone is older than this computer; update Pocketcard on the phone".to_owned()
        }
        reason => reason.to_string(),
    }
}

/// Enough of an id to tell phones apart in a log.
pub(super) fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}
