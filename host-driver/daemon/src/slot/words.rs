//! Reasons and states in the words of the control socket.

use pocketcard_front::Failure;
use pocketcard_ipc::control::LinkState;
use pocketcard_ipc::driver;
use pocketcard_protocol::link::{self, CloseReason};
use pocketcard_protocol::messages::{Body, PendingReason};

pub(super) fn failure_of(failure: Failure) -> driver::Failure {
    match failure {
        Failure::NotPresent => driver::Failure::NotPresent,
        Failure::TimedOut => driver::Failure::TimedOut,
    }
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
