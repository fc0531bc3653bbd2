//! Events as JSON. Nothing in them is secret: no PIN, no key, no data of a command.

use std::time::UNIX_EPOCH;

use pocketcard_phone::{
    ApprovalRequest, HostId, OwnerCheck, PinPurpose, PinRequest,
    card::{Caller, CardEvent},
    runtime::{HostInfo, PairingFailure, PhoneEvent},
};
use serde_json::{Value, json};

/// Whether there may be thousands of such events in a second.
pub(crate) fn is_frequent(event: &PhoneEvent) -> bool {
    matches!(event, PhoneEvent::Card(CardEvent::Command { .. }))
}

pub(crate) fn value(event: &PhoneEvent) -> Value {
    match event {
        PhoneEvent::Connected { host, name } => named("connected", host, name),
        PhoneEvent::Disconnected { host, name, reason } => {
            json!({ "event": "disconnected", "id": host.to_string(), "host": name, "reason": reason.to_string() })
        }
        PhoneEvent::LinkRefused { reason } => json!({ "event": "refused", "reason": reason.to_string() }),
        PhoneEvent::PairingDigits { digits, host_name, host } => {
            json!({ "event": "digits", "digits": digits.to_string(), "host": host_name, "id": host.to_string() })
        }
        PhoneEvent::PairingPeerConfirmed => json!({ "event": "peer_confirmed" }),
        PhoneEvent::Paired { host, name } => named("paired", host, name),
        PhoneEvent::PairingFailed { reason } => json!({ "event": "pairing_failed", "reason": pairing_failure(reason) }),
        PhoneEvent::Forgotten { host, name } => named("forgotten", host, name),
        PhoneEvent::Card(event) => card(event),
        _ => json!({ "event": "other" }),
    }
}

pub(crate) fn pairing_failure(failure: &PairingFailure) -> String {
    match failure {
        PairingFailure::Expired => "two minutes passed".to_owned(),
        PairingFailure::Cancelled => "it was given up on the phone".to_owned(),
        PairingFailure::Closed(reason) => reason.to_string(),
        PairingFailure::Store => "the phone could not store the pair".to_owned(),
        _ => "unknown".to_owned(),
    }
}

pub(crate) fn approval(id: u64, request: &ApprovalRequest) -> Value {
    json!({
        "event": "approval",
        "id": id,
        "host": request.host_name,
        "host_id": request.host.to_string(),
        "key": format!("{:02X}", request.key),
        "purpose": purpose(request),
    })
}

pub(crate) fn pin_asked(id: u64, request: &PinRequest) -> Value {
    let purpose = match request.purpose {
        PinPurpose::Verify => "verify",
        PinPurpose::Change => "change",
        PinPurpose::ChangePuk => "change_puk",
        PinPurpose::Unblock => "unblock",
        _ => "other",
    };
    json!({
        "event": "pin_asked",
        "id": id,
        "host": request.host.to_string(),
        "host_name": request.host_name,
        "purpose": purpose,
        "tries_left": request.tries_left,
    })
}

pub(crate) fn owner_check_asked(id: u64, check: &OwnerCheck) -> Value {
    json!({ "event": "owner_check_asked", "id": id, "host": check.host.to_string(), "host_name": check.host_name })
}

pub(crate) fn purpose(request: &ApprovalRequest) -> &'static str {
    use pocketcard_phone::ApprovalPurpose;
    match request.purpose {
        ApprovalPurpose::Sign => "sign",
        ApprovalPurpose::Decrypt => "decrypt",
        ApprovalPurpose::Agree => "agree",
        ApprovalPurpose::Administer => "administer",
        ApprovalPurpose::Connect => "connect",
        _ => "other",
    }
}

pub(crate) fn host(info: &HostInfo) -> Value {
    let paired_at = info.paired_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    json!({ "id": info.host.to_string(), "name": info.name, "paired_at_unix_s": paired_at, "connected": info.connected })
}

fn named(event: &str, host: &HostId, name: &str) -> Value {
    json!({ "event": event, "id": host.to_string(), "host": name })
}

fn card(event: &CardEvent) -> Value {
    match event {
        CardEvent::SessionOpened { host, host_name, software, resumed } => json!({
            "event": "session", "id": host.to_string(), "host": host_name, "software": software, "resumed": resumed,
        }),
        CardEvent::SessionClosed { host } => json!({ "event": "session_closed", "id": host.to_string() }),
        CardEvent::Command { caller, command, status, duration, .. } => json!({
            "event": "apdu",
            "host": caller.name(),
            "id": caller_id(caller),
            "command": command.name,
            "subject": command.subject,
            "status": format!("{:04X}", u16::from(*status)),
            "duration_us": u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
        }),
        CardEvent::Cancelled { caller, command, .. } => json!({
            "event": "cancelled", "host": caller.name(), "id": caller_id(caller),
            "command": command.name, "subject": command.subject,
        }),
        CardEvent::SecurityChanged { host, pin_verified, pin_tries_left } => json!({
            "event": "security", "id": host.to_string(), "pin_verified": pin_verified, "pin_tries_left": pin_tries_left,
        }),
        CardEvent::Locked(locked) => json!({ "event": "locked", "locked": locked }),
        _ => json!({ "event": "other" }),
    }
}

fn caller_id(caller: &Caller) -> Option<String> {
    caller.host().map(|host| host.to_string())
}
