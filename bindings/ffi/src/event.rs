use async_channel::Receiver;
use pocketcard_phone::{card::CardEvent, runtime};
use pocketcard_protocol::link::CloseReason;

use crate::enrolment::{KeyStage, Slot};
use crate::keystore::KeyAlgorithm;
use crate::log::LogEntry;
use crate::permissions::Permissions;

/// A side of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum Side {
    /// The computer.
    Host,
    /// The phone.
    Phone,
}

/// Why a link ended.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Closing {
    /// In words.
    pub text: String,
    /// If the two sides have no version of the protocol in common: which of them to update.
    pub update: Option<Side>,
}

impl From<CloseReason> for Closing {
    fn from(reason: CloseReason) -> Self {
        let update = match reason {
            CloseReason::VersionMismatch { update, .. } => Some(match update {
                pocketcard_protocol::link::Side::Host => Side::Host,
                pocketcard_protocol::link::Side::Phone => Side::Phone,
            }),
            _ => None,
        };
        Self { text: reason.to_string(), update }
    }
}

/// What happened, for a user interface and a log. Holds no PIN, no key and no body of a command.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs)] // The fields are the host's id and name, or say what they are.
pub enum PhoneEvent {
    /// A paired host opened its channel.
    Connected { host_id: String, name: String },
    /// The channel of a paired host closed.
    Disconnected { host_id: String, name: String, reason: Closing },
    /// A link closed before anybody was authenticated on it.
    LinkRefused { reason: Closing },
    /// Ask the owner whether the computer shows the same digits; the answer goes to `Phone.confirm_pairing`.
    PairingDigits { digits: String, host_name: String, host_id: String },
    /// The person at the computer confirmed the digits.
    PairingPeerConfirmed,
    /// The pair is stored on both sides.
    Paired { host_id: String, name: String },
    /// The pairing did not come about; no reason means that the owner or a time limit ended it.
    PairingFailed { reason: Option<Closing> },
    /// A host was forgotten.
    Forgotten { host_id: String, name: String },
    /// The owner changed what a host may do.
    PermissionsChanged { host_id: String, name: String, permissions: Permissions },
    /// A key is being made, was made, or could not be made: number `number` of `of`.
    KeyProgress { slot: Slot, algorithm: KeyAlgorithm, number: u8, of: u8, stage: KeyStage },
    /// Something was written into the log.
    Logged { entry: LogEntry },
    /// A host waited for the owner to give it the card; `refused`: it does not get it.
    ConnectionDecided { host_id: String, name: String, refused: bool },
    /// A host may no longer have the owner asked, because it was denied twice; or it may again.
    PromptsHeld { host_id: String, held: bool },
    /// A host began or resumed a card session.
    SessionOpened { host_id: String, name: String, software: String, resumed: bool },
    /// A host's card session is over; what it had verified is gone.
    SessionClosed { host_id: String },
    /// A command was answered. No `host_id`: by the owner's own session.
    CommandAnswered { host_id: Option<String>, command: String, status: u16, duration_ms: u64 },
    /// A command was given up before it was answered.
    CommandCancelled { host_id: Option<String>, command: String },
    /// What a host may do has changed.
    SecurityChanged { host_id: String, pin_verified: bool, pin_tries_left: u8 },
    /// The owner locked or unlocked the card.
    CardLocked { locked: bool },
}

/// A subscription to what happens.
#[derive(uniffi::Object)]
pub struct Events(pub(crate) Receiver<runtime::PhoneEvent>);

#[uniffi::export]
impl Events {
    /// The next event; none after the phone has stopped. A call that is cancelled loses no event.
    pub async fn next(&self) -> Option<PhoneEvent> {
        loop {
            // An event that this version has no name for is left out.
            if let Some(event) = from_core(self.0.recv().await.ok()?) {
                return Some(event);
            }
        }
    }
}

fn from_core(event: runtime::PhoneEvent) -> Option<PhoneEvent> {
    use runtime::PhoneEvent as Core;
    Some(match event {
        Core::Connected { host, name } => PhoneEvent::Connected { host_id: host.to_string(), name },
        Core::Disconnected { host, name, reason } => {
            PhoneEvent::Disconnected { host_id: host.to_string(), name, reason: reason.into() }
        }
        Core::LinkRefused { reason } => PhoneEvent::LinkRefused { reason: reason.into() },
        Core::PairingDigits { digits, host_name, host } => {
            PhoneEvent::PairingDigits { digits: digits.to_string(), host_name, host_id: host.to_string() }
        }
        Core::PairingPeerConfirmed => PhoneEvent::PairingPeerConfirmed,
        Core::Paired { host, name } => PhoneEvent::Paired { host_id: host.to_string(), name },
        Core::PairingFailed { reason: runtime::PairingFailure::Closed(reason) } => {
            PhoneEvent::PairingFailed { reason: Some(reason.into()) }
        }
        Core::PairingFailed { .. } => PhoneEvent::PairingFailed { reason: None },
        Core::Forgotten { host, name } => PhoneEvent::Forgotten { host_id: host.to_string(), name },
        Core::PermissionsChanged { host, name, permissions } => {
            PhoneEvent::PermissionsChanged { host_id: host.to_string(), name, permissions: permissions.into() }
        }
        Core::Enrolment(runtime::KeyProgress { slot, algorithm, number, of, stage }) => {
            let (slot, algorithm) = (Slot::from_core(slot)?, algorithm.try_into().ok()?);
            PhoneEvent::KeyProgress { slot, algorithm, number, of, stage: stage.into() }
        }
        Core::Logged(entry) => PhoneEvent::Logged { entry: entry.into() },
        Core::Card(event) => card_event(event)?,
        _ => return None,
    })
}

fn card_event(event: CardEvent) -> Option<PhoneEvent> {
    Some(match event {
        CardEvent::SessionOpened { host, host_name, software, resumed } => {
            PhoneEvent::SessionOpened { host_id: host.to_string(), name: host_name, software, resumed }
        }
        CardEvent::SessionClosed { host } => PhoneEvent::SessionClosed { host_id: host.to_string() },
        CardEvent::Command { caller, command, status, duration, .. } => PhoneEvent::CommandAnswered {
            host_id: caller.host().map(|host| host.to_string()),
            command: command.to_string(),
            status: status.into(),
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        },
        CardEvent::Cancelled { caller, command, .. } => PhoneEvent::CommandCancelled {
            host_id: caller.host().map(|host| host.to_string()),
            command: command.to_string(),
        },
        CardEvent::SecurityChanged { host, pin_verified, pin_tries_left } => {
            PhoneEvent::SecurityChanged { host_id: host.to_string(), pin_verified, pin_tries_left }
        }
        CardEvent::ConnectionDecided { host, host_name, refused } => {
            PhoneEvent::ConnectionDecided { host_id: host.to_string(), name: host_name, refused: refused.is_some() }
        }
        CardEvent::PromptsHeld { host, held } => PhoneEvent::PromptsHeld { host_id: host.to_string(), held },
        CardEvent::Locked(locked) => PhoneEvent::CardLocked { locked },
        _ => return None,
    })
}
