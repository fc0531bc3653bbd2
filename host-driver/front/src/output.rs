//! What a front is told to do, what it answers, and how a phone can break the protocol.

use std::sync::Arc;

use pocketcard_protocol::messages::{Envelope, PendingReason, Permissions, RefusalReason};
use pocketcard_protocol::snapshot::Snapshot;
use zeroize::Zeroizing;

use crate::Presence;

/// What the reader does to the card's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerAction {
    /// Power up; a reset if it is up.
    Up,
    /// Power down.
    Down,
    /// Reset.
    Reset,
}

/// Why a program gets no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No card, or not the one that was powered up.
    NotPresent,
    /// The card took too long; it has been reset.
    TimedOut,
    /// Somebody gave the command up; the card has been reset.
    Cancelled,
    /// The phone does not know how to have a PIN entered.
    Unsupported,
}

/// What a program gets for its command.
#[derive(Debug)]
pub enum Reply {
    /// The card's response, or a window of it.
    Response(Zeroizing<Vec<u8>>),
    /// None.
    Failed(Failure),
}

/// What is to be done, in this order.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output {
    /// Send to the phone.
    Send(Envelope),
    /// Answer the program that waits for its command.
    Reply(Reply),
    /// Tell the reader what is in the slot.
    Presence(Presence),
    /// Tell the owner that the phone holds the command back.
    Pending(PendingReason),
    /// Tell the owner that the phone refuses the command under way, and why. Its response follows.
    Refused {
        /// Why.
        reason: RefusalReason,
        /// Key or secret that it was about; 0 if about none.
        key_reference: u8,
    },
    /// Something that the owner could have refused succeeded; its response follows.
    Granted,
    /// What the owner permits this host.
    Permissions(Permissions),
    /// What the phone says to everybody was loaded; it may be kept for [`Front::offer_snapshot`].
    ///
    /// [`Front::offer_snapshot`]: crate::Front::offer_snapshot
    Snapshot(Arc<Snapshot>),
    /// Close the link: the phone does not keep to the protocol.
    Close(FrontError),
}

/// How a phone broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrontError {
    /// A session was opened that nobody asked for, or a message came before the session was open.
    #[error("the phone sent a message that does not fit the state of the session")]
    OutOfOrder,
    /// The phone resumed a session that this host does not hold.
    #[error("the phone resumed a session that was not asked for")]
    Resumed,
    /// An answer to a request that was never sent.
    #[error("the phone answered a request that was never sent")]
    UnknownRequest,
    /// A response without a status word, or a card without an answer to reset.
    #[error("the phone sent a response or a card that cannot exist")]
    Malformed,
    /// The phone does not know a message that every version has.
    #[error("the phone does not support card sessions")]
    Unsupported,
}
