//! The driver socket: pcscd's driver asks, the daemon answers.
//!
//! Every message is a [frame](FrameBuffer): a big endian `u32` length, then one kind byte and its fields, integers big
//! endian. Per reader slot the driver holds two connections, so that it needs no thread of its own:
//!
//! - a *command* connection: one [`Request`], one [`Reply`], on whatever thread pcscd calls. Its end is a power-off.
//! - an *event* connection: after the hello the daemon only pushes [`Reply::Presence`], the current state first.
//!
//! APDUs are secrets: nothing here prints them, and buffers are wiped behind the reader.

mod coding;
mod device_name;
mod frame;
mod pin_entry;

use std::fmt;

pub use device_name::{DeviceName, DeviceNameError, Trust};
pub use frame::{FrameBuffer, FrameError, MAX_FRAME, write_frame};
pub use pin_entry::{PIN_ENTRY_LIMIT, PIN_ENTRY_MARGIN, PinEntry, PinOperation};

/// Longest answer to reset, ISO/IEC 7816-3.
pub const MAX_ATR: usize = 33;

/// Longest APDU that pcscd hands over, either way: its `MAX_BUFFER_SIZE_EXTENDED`.
pub const MAX_APDU: usize = 4 + 3 + 65_536 + 3 + 2;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// One request, one reply.
    Command,
    /// Pushes only.
    Events,
}

/// What pcscd does to the card's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerAction {
    /// Power up, or a reset if it is up.
    Up,
    /// Power down.
    Down,
    /// Reset.
    Reset,
}

/// What the driver asks.
#[derive(PartialEq, Eq)]
pub enum Request<'a> {
    /// First message of every connection.
    Hello {
        /// [`crate::VERSION`] of the driver.
        version: u16,
        /// What this connection is for.
        role: Role,
        /// Slot of the reader, from 0.
        slot: u32,
    },
    /// Answered at once by [`Reply::Powered`] or [`Reply::Failed`].
    Power {
        /// What to do.
        action: PowerAction,
        /// The insertion that pcscd believes in: the generation of the last presence that it was shown.
        generation: u64,
    },
    /// Answered by [`Reply::Response`] or [`Reply::Failed`], within 55 seconds.
    Transmit {
        /// The command as pcscd gave it.
        apdu: &'a [u8],
    },
    /// The owner is to enter a PIN on the phone. Answered by [`Reply::Response`] of a status word alone or by
    /// [`Reply::Failed`], within [`PIN_ENTRY_LIMIT`] and a [`PIN_ENTRY_MARGIN`].
    PinEntry(PinEntry),
    /// A control code that the driver does not answer itself. Answered by [`Reply::Controlled`] or [`Reply::Failed`].
    Control {
        /// The control code.
        code: u32,
        /// Its input.
        input: &'a [u8],
    },
}

/// What the daemon answers or pushes.
#[derive(PartialEq, Eq)]
pub enum Reply<'a> {
    /// Answer to [`Request::Hello`]. With another verdict than accepted the daemon closes.
    Hello {
        /// [`crate::VERSION`] of the daemon.
        version: u16,
        /// Whether the connection may stay.
        verdict: Verdict,
        /// Whether PINs of this slot are entered on the phone: the reader has a PIN pad then. Holds as long as the daemon
        /// runs.
        pin_pad: bool,
    },
    /// The card is up (with its answer to reset) or down.
    Powered {
        /// Empty after a power-down.
        atr: &'a [u8],
    },
    /// The card's response, status word included.
    Response {
        /// Two bytes at least.
        apdu: &'a [u8],
    },
    /// Result of a control code.
    Controlled {
        /// Its output.
        output: &'a [u8],
    },
    /// No result.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// Pushed on event connections: what is in the slot now.
    Presence(Presence<'a>),
}

/// What is in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence<'a> {
    /// Whether a card is in.
    pub present: bool,
    /// Number of the insertion; every new card session has another one. Never 0 with a card.
    pub generation: u64,
    /// The card's answer to reset; empty without a card.
    pub atr: &'a [u8],
}

/// Whether a connection may stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Accepted,
    /// The two programs come from different releases.
    Version,
    /// The daemon has fewer slots.
    NoSuchSlot,
}

/// Why the daemon has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No card, or another insertion than the one that was powered up.
    NotPresent,
    /// The card did not answer in time. It has been reset.
    TimedOut,
    /// The request is not one that fits here.
    BadRequest,
    /// The daemon, the slot's configuration or the phone does not do that.
    Unsupported,
    /// Somebody gave the command up (`pocketcard cancel`). The card has been reset.
    Cancelled,
}

/// Why bytes are not a message of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The message ends before its fields do.
    #[error("the message is too short")]
    Short,
    /// The message goes on behind its fields.
    #[error("the message is too long")]
    Long,
    /// An unknown kind of message.
    #[error("unknown message {0:#04x}")]
    Kind(u8),
    /// A field has a value without a meaning.
    #[error("a field has an unknown value")]
    Field,
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello { version, role, slot } => write!(f, "Hello({version}, {role:?}, slot {slot})"),
            Self::Power { action, generation } => write!(f, "Power({action:?}, insertion {generation})"),
            Self::Transmit { apdu } => write!(f, "Transmit({} bytes)", apdu.len()),
            Self::PinEntry(entry) => entry.fmt(f),
            Self::Control { code, input } => write!(f, "Control({code:#010x}, {} bytes)", input.len()),
        }
    }
}

impl fmt::Debug for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello { version, verdict, pin_pad } => {
                let pad = if *pin_pad { ", PIN pad" } else { "" };
                write!(f, "Hello({version}, {verdict:?}{pad})")
            }
            Self::Powered { atr } => write!(f, "Powered({} bytes)", atr.len()),
            Self::Response { apdu } => write!(f, "Response({} bytes)", apdu.len()),
            Self::Controlled { output } => write!(f, "Controlled({} bytes)", output.len()),
            Self::Failed { failure } => write!(f, "Failed({failure:?})"),
            Self::Presence(presence) => presence.fmt(f),
        }
    }
}
