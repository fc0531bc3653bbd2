//! The control socket: status, pairing and settings, as lines of JSON.
//!
//! Each side first sends a `hello` line. Then a client sends one [`Request`] a line and gets one [`Reply`] a line, with
//! two exceptions: [`Request::PairStart`] is followed by a series of replies that ends with [`Reply::Paired`] or
//! [`Reply::Error`], and [`Request::Watch`] by [`Reply::Event`] until the client closes.
//!
//! A pairing belongs to the connection that started it: closing the connection cancels it.

mod client;
mod line;
mod status;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use client::{Client, ClientError, Limits};
pub use line::{LineError, LineReader, MAX_LINE, encode};
pub use status::{
    BluetoothState, BluetoothStatus, DriverState, Finding, Level, LinkState, Permissions, Phone, PinPlace, Refusal,
    RefusalReason, SlotStatus, Status, Transport,
};

use crate::{Address, Side};

/// What a client asks of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Request {
    /// First line of every connection.
    Hello {
        /// [`crate::VERSION`] of the client.
        version: u16,
        /// Name and version of the program, for the daemon's log.
        software: String,
    },
    /// Answered by [`Reply::Status`].
    Status {},
    /// Answered by [`Reply::Phones`].
    Phones {},
    /// Begins a pairing. Answered by [`Reply::PairOffer`], then [`Reply::PairDigits`], then, after a
    /// [`Request::PairConfirm`] here and the owner's confirmation on the phone, [`Reply::Paired`].
    PairStart {
        /// Where the phone listens. Absent: the only link of the daemon's configuration.
        connect: Option<Address>,
        /// How the phone learns who is asking.
        #[serde(default)]
        method: PairMethod,
        /// The reader slot, from 0. Absent: the first free one.
        slot: Option<u32>,
    },
    /// The person at the computer compared the digits.
    PairConfirm {
        /// They are the same on the phone.
        agree: bool,
    },
    /// Ends a pairing; answered by [`Reply::Error`] with [`ErrorCode::PairingCancelled`].
    PairCancel {},
    /// Deletes a pairing and closes its link at once. Answered by [`Reply::Done`].
    Forget {
        /// Id, unambiguous start of an id, or name of a phone.
        phone: String,
    },
    /// Gives a phone another name on this computer. Answered by [`Reply::Done`].
    Rename {
        /// Id, unambiguous start of an id, or name of a phone.
        phone: String,
        /// Its new name.
        name: String,
    },
    /// Gives up what a program waits for, as if the owner had cancelled it on the phone. Answered by [`Reply::Done`].
    Cancel {
        /// Id, unambiguous start of an id, or name of a phone. Absent: the one that a program waits for.
        phone: Option<String>,
        /// The reader slot, from 0, in the place of a phone.
        slot: Option<u32>,
        /// [`SlotStatus::operation`], in the place of both: what has ended meanwhile is then not mistaken for what came
        /// after it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        operation: Option<u64>,
    },
    /// The session at the computer was locked: verified PINs end in every slot, and what programs wait for is given up.
    /// Answered by [`Reply::Done`].
    EndPin {},
    /// Answered by [`Reply::Status`], then [`Reply::Event`] for everything that happens.
    Watch {},
    /// Answered by [`Reply::Doctor`]: what the daemon can see of its own installation.
    Doctor {},
}

/// How the phone learns who wants to pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairMethod {
    /// The phone scans a code that the computer shows.
    #[default]
    Qr,
    /// Without a camera: both show six digits to compare.
    Compare,
}

/// What the daemon answers.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reply {
    /// First line of every connection.
    Hello {
        /// [`crate::VERSION`] of the daemon.
        version: u16,
        /// Name and version of the daemon.
        software: String,
    },
    /// The daemon as a whole.
    Status(Status),
    /// Every paired phone, in the order of their slots.
    Phones {
        /// The phones.
        phones: Vec<Phone>,
    },
    /// It is done, durably.
    Done {},
    /// It was not done.
    Error(Failure),
    /// Show this to the phone.
    PairOffer {
        /// The text of the QR code; absent with [`PairMethod::Compare`].
        qr_text: Option<String>,
        /// Seconds until the offer expires.
        expires_in_s: u64,
    },
    /// Show these digits and ask whether the phone shows the same.
    PairDigits {
        /// Six digits.
        digits: String,
        /// The phone's own name, as it says.
        phone_name: String,
    },
    /// The owner confirmed on the phone; this side has not yet.
    PairPhoneConfirmed {},
    /// The pairing is stored on both sides.
    Paired {
        /// The new phone.
        phone: Phone,
    },
    /// What the daemon found.
    Doctor {
        /// One entry a check, good ones included.
        findings: Vec<Finding>,
    },
    /// Something happened.
    Event(Event),
}

/// Why a request was not done, in words for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For programs.
    pub code: ErrorCode,
    /// What is wrong.
    pub message: String,
    /// What to do next, as far as the daemon can tell.
    pub advice: Option<String>,
}

/// Kind of a [`Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// The two programs come from different releases.
    Version,
    /// The line is not a request, or not one that fits here.
    BadRequest,
    /// No paired phone has this id or name.
    NoSuchPhone,
    /// Several phones fit.
    AmbiguousPhone,
    /// The name is empty, too long, or has control characters.
    BadName,
    /// Every slot has a phone.
    TableFull,
    /// The slot does not exist, or has another phone.
    SlotTaken,
    /// Another pairing is under way.
    PairingBusy,
    /// Too many failed pairings within ten minutes.
    TooManyTries,
    /// The address is not one that the configuration allows.
    AddressRefused,
    /// Nothing answers at the address.
    Unreachable,
    /// The phone is not ready to pair: it has not scanned, or its owner has not opened pairing.
    PhoneNotPairing,
    /// One of the two sides refused, or the time ran out, or the link broke.
    PairingFailed,
    /// The client or the owner ended it.
    PairingCancelled,
    /// The phone speaks another version of the link protocol; the message says which side to update.
    PhoneVersion,
    /// The pairing store could not be written.
    Storage,
    /// No program waits for the phone, so nothing can be cancelled.
    NothingUnderWay,
    /// A code that this program does not know.
    #[serde(other)]
    Unknown,
}

/// Something that happened, for a live view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A phone's encrypted channel opened.
    PhoneConnected {
        /// Id of the phone.
        phone: String,
        /// Its name here.
        name: String,
        /// Its slot.
        slot: u32,
    },
    /// A phone's link ended.
    PhoneDisconnected {
        /// Id of the phone.
        phone: String,
        /// Its name here.
        name: String,
        /// Its slot.
        slot: u32,
        /// Why, in words.
        reason: String,
    },
    /// A card is in the reader.
    CardPresent {
        /// Its slot.
        slot: u32,
    },
    /// The card left the reader.
    CardAbsent {
        /// Its slot.
        slot: u32,
    },
    /// The phone holds a command back: its owner decides, or it is busy.
    Pending {
        /// Its slot.
        slot: u32,
        /// `approval`, `pin_entry`, `key_generation`, `locked` or `busy`.
        reason: String,
        /// As [`SlotStatus::operation`].
        #[serde(default)]
        operation: Option<u64>,
    },
    /// What the phone held back has its answer, or was given up.
    PendingOver {
        /// Its slot.
        slot: u32,
    },
    /// The phone refuses what a program asked; the program sees a status word.
    Refused {
        /// Its slot.
        slot: u32,
        /// Why.
        reason: RefusalReason,
        /// The key or secret that it was about, as PIV names it, in hexadecimal.
        key: Option<String>,
    },
    /// What a phone permits this computer is known now, or has changed.
    PermissionsChanged {
        /// Id of the phone.
        phone: String,
        /// What it permits.
        permissions: Permissions,
    },
    /// The reader driver came or went.
    Driver {
        /// The slot of the reader.
        slot: u32,
        /// Whether it is there.
        connected: bool,
    },
    /// A phone was paired.
    PhonePaired {
        /// The phone.
        phone: Phone,
    },
    /// A phone was forgotten.
    PhoneForgotten {
        /// Id of the phone.
        phone: String,
    },
    /// A phone got another name.
    PhoneRenamed {
        /// Id of the phone.
        phone: String,
        /// Its new name here.
        name: String,
    },
    /// The daemon ends. Cards that are removed after this say nothing about phones.
    Stopping {},
    /// Events were lost because this client read too slowly; ask for the status again.
    Lagged {},
    /// An event that this program does not know.
    #[serde(other)]
    Unknown,
}

/// Prints neither the text of a QR code, which holds a secret, nor the digits that only two people may compare.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello { version, software } => write!(f, "Hello({version}, {software:?})"),
            Self::Status(status) => status.fmt(f),
            Self::Phones { phones } => write!(f, "Phones({phones:?})"),
            Self::Done {} => f.write_str("Done"),
            Self::Error(failure) => write!(f, "Error({failure:?})"),
            Self::PairOffer { qr_text, expires_in_s } => {
                let code = if qr_text.is_some() { "with" } else { "without" };
                write!(f, "PairOffer({code} a code, {expires_in_s} s)")
            }
            Self::PairDigits { phone_name, .. } => write!(f, "PairDigits({phone_name:?})"),
            Self::PairPhoneConfirmed {} => f.write_str("PairPhoneConfirmed"),
            Self::Paired { phone } => write!(f, "Paired({phone:?})"),
            Self::Doctor { findings } => write!(f, "Doctor({findings:?})"),
            Self::Event(event) => write!(f, "Event({event:?})"),
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "this computer's side",
            Self::Theirs => "the other side",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_are_the_lines_that_the_documentation_shows() {
        for (line, request) in [
            (r#"{"request":"status"}"#, Request::Status {}),
            (
                r#"{"request":"pair_start","connect":"unix:/p","method":"qr","slot":null}"#,
                Request::PairStart { connect: Some(Address::Unix("/p".into())), method: PairMethod::Qr, slot: None },
            ),
            (
                r#"{"request":"cancel","phone":null,"slot":1}"#,
                Request::Cancel { phone: None, slot: Some(1), operation: None },
            ),
            (
                r#"{"request":"cancel","phone":null,"slot":null,"operation":4711}"#,
                Request::Cancel { phone: None, slot: None, operation: Some(4711) },
            ),
            (r#"{"request":"end_pin"}"#, Request::EndPin {}),
            (
                r#"{"request":"rename","phone":"ab","name":"Pixel"}"#,
                Request::Rename { phone: "ab".into(), name: "Pixel".into() },
            ),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), line);
            assert_eq!(serde_json::from_str::<Request>(line).unwrap(), request);
        }
        let short = serde_json::from_str::<Request>(r#"{"request":"pair_start"}"#).unwrap();
        assert_eq!(short, Request::PairStart { connect: None, method: PairMethod::Qr, slot: None });
    }

    #[test]
    fn requests_that_are_refused() {
        for line in [
            "",
            "{}",
            "[]",
            r#"{"request":"format_disk"}"#,
            r#"{"request":"status","extra":1}"#,
            r#"{"request":"forget"}"#,
            r#"{"request":"pair_start","connect":"tcp:192.0.2.1:1"}"#,
        ] {
            assert!(serde_json::from_str::<Request>(line).is_err(), "{line}");
        }
    }

    #[test]
    fn debug_shows_neither_code_nor_digits() {
        let offer = Reply::PairOffer { qr_text: Some("POCKETCARD:SECRET".into()), expires_in_s: 120 };
        assert_eq!(format!("{offer:?}"), "PairOffer(with a code, 120 s)");
        let digits = Reply::PairDigits { digits: "271828".into(), phone_name: "Pixel".into() };
        assert_eq!(format!("{digits:?}"), "PairDigits(\"Pixel\")");
        let mut lines = LineReader::new();
        lines.push(b"POCKETCARD:SECRET").unwrap();
        assert_eq!(format!("{lines:?}"), "LineReader(17 bytes)");
    }

    #[test]
    fn an_older_client_survives_new_codes_and_events() {
        let reply = r#"{"reply":"error","code":"from_the_future","message":"m","advice":null}"#;
        let Reply::Error(failure) = serde_json::from_str(reply).unwrap() else { panic!() };
        assert_eq!(failure.code, ErrorCode::Unknown);
        let event = serde_json::from_str::<Reply>(r#"{"reply":"event","event":"from_the_future"}"#).unwrap();
        assert_eq!(event, Reply::Event(Event::Unknown));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = serde_json::from_slice::<Request>(&bytes);
            let _ = serde_json::from_slice::<Reply>(&bytes);
        }
    }
}
