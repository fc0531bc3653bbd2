//! Events as JSON. Nothing in them is secret: no PIN, no key, no data of a command.

use std::time::UNIX_EPOCH;

use pocketcard_phone::{
    ApprovalRequest, HostId, OwnerCheck, PinPurpose, PinRequest,
    card::{Caller, CardEvent, Permissions},
    enrolment::SlotContent,
    runtime::{HostInfo, KeyProgress, KeyStage, LogEntry, LogResult, PairingFailure, PhoneEvent},
};
use serde_json::{Value, json};

use crate::enrolment::algorithm_name;

/// Whether there may be thousands of such events in a second.
pub(crate) fn is_frequent(event: &PhoneEvent) -> bool {
    matches!(event, PhoneEvent::Card(CardEvent::Command { .. }) | PhoneEvent::Logged(_))
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
        PhoneEvent::PermissionsChanged { host, name, permissions: granted } => json!({
            "event": "permissions", "id": host.to_string(), "host": name, "permissions": permissions(granted),
        }),
        PhoneEvent::Enrolment(progress) => enrolment(progress),
        PhoneEvent::Logged(entry) => tagged("logged", log_entry(entry)),
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
    json!({
        "id": info.host.to_string(),
        "name": info.name,
        "paired_at_unix_s": paired_at,
        "connected": info.connected,
        "permissions": permissions(&info.permissions),
    })
}

fn permissions(permissions: &Permissions) -> Value {
    let Permissions { keys, typed_pin, administer, connect_unattended } = permissions;
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    json!({
        "keys": keys, "typed_pin": typed_pin, "administer": administer, "connect_unattended": connect_unattended,
    })
}

fn enrolment(progress: &KeyProgress) -> Value {
    let KeyProgress { slot, algorithm, number, of, stage } = progress;
    let stage = match stage {
        KeyStage::Started => "started",
        KeyStage::Done => "done",
        KeyStage::Failed => "failed",
        _ => "other",
    };
    json!({
        "event": "enrolment", "slot": slot.to_string(), "algorithm": algorithm_name(*algorithm),
        "number": number, "of": of, "stage": stage,
    })
}

pub(crate) fn slot(content: &SlotContent) -> Value {
    let hex = |bytes: &Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    json!({
        "slot": content.slot.to_string(),
        "algorithm": content.algorithm.map(algorithm_name),
        "certificate_hex": content.certificate.as_ref().map(hex),
    })
}

/// An entry of the log, as it is shown to scripts and exported.
pub(crate) fn log_entry(entry: &LogEntry) -> Value {
    let since = entry.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (tries_left, status) = match entry.result {
        LogResult::WrongPin { tries_left } => (Some(tries_left), None),
        LogResult::Failed { status } => (None, Some(format!("{status:04X}"))),
        _ => (None, None),
    };
    json!({
        "at_unix_ms": u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        "id": entry.host.as_ref().map(|host| host.host.to_string()),
        "host": entry.host.as_ref().map(|host| host.name.as_str()),
        "operation": entry.operation.name(),
        "key": entry.operation.key().map(|key| format!("{key:02X}")),
        "result": entry.result.name(),
        "tries_left": tries_left,
        "status": status,
        "asked": entry.asked,
    })
}

/// An object as an event of this kind.
pub(crate) fn tagged(kind: &str, mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.insert("event".to_owned(), kind.into());
    }
    object
}

pub(crate) fn error(message: &str) -> Value {
    json!({ "event": "error", "message": message })
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
        CardEvent::Command { caller, command, status, refused, duration, .. } => json!({
            "event": "apdu",
            "host": caller.name(),
            "id": caller_id(caller),
            "command": command.name,
            "subject": command.subject,
            "status": format!("{:04X}", u16::from(*status)),
            "refused": refused.map(|reason| LogResult::Refused(reason).name()),
            "duration_us": u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
        }),
        CardEvent::Cancelled { caller, command, .. } => json!({
            "event": "cancelled", "host": caller.name(), "id": caller_id(caller),
            "command": command.name, "subject": command.subject,
        }),
        CardEvent::SecurityChanged { host, pin_verified, pin_tries_left } => json!({
            "event": "security", "id": host.to_string(), "pin_verified": pin_verified, "pin_tries_left": pin_tries_left,
        }),
        CardEvent::ConnectionDecided { host, host_name, refused } => json!({
            "event": "connection", "id": host.to_string(), "host": host_name,
            "refused": refused.map(|reason| LogResult::Refused(reason).name()),
        }),
        CardEvent::PromptsHeld { host, held } => {
            json!({ "event": "prompts_held", "id": host.to_string(), "held": held })
        }
        CardEvent::Locked(locked) => json!({ "event": "locked", "locked": locked }),
        _ => json!({ "event": "other" }),
    }
}

fn caller_id(caller: &Caller) -> Option<String> {
    caller.host().map(|host| host.to_string())
}
