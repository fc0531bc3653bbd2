//! `pocketcard status`.

use std::process::ExitCode;

use pocketcard_ipc::control::{Client, DriverState, PinPlace, Refusal, SlotStatus, Status, Transport};
use serde::Serialize;

use crate::failure::Failure;
use crate::phones::link;
use crate::refusal;
use crate::terminal::print;
use crate::watch;

/// The JSON, for `--help`. A test holds it to what is printed.
pub(crate) const JSON_HELP: &str = "\
JSON (later releases add fields, and rename or remove none):
  software, host_id, host_name, dev, pairing
  bluetooth         null if it is off in the daemon's configuration; else
                    state (\"working\", \"starting\", \"no_service\",
                    \"no_permission\", \"no_adapter\", \"powered_off\",
                    \"failed\"), adapter, message
  slots: a list of
    slot            its number, from 0
    driver          \"absent\", \"waiting\" (no program uses the reader) or
                    \"connected\"
    card_present, powered, pin_verified
    pin_tries_left  null while no card is there
    snapshot_age_s  seconds since what the card says to everybody was read;
                    null if it is not held
    pin_entry       \"keyboard\" or \"phone\"
    waiting         null, or why the phone holds a command back: \"approval\",
                    \"pin_entry\", \"key_generation\", \"locked\", \"busy\"
    operation       null, or the number of that command, for
                    `pocketcard cancel --operation`
    last_refusal    null, or what the phone refused last, if it has granted
                    nothing and no PIN was blocked since: key
                    (hexadecimal, or null), ago_s,
                    reason (\"key_not_permitted\", \"typed_pin_not_permitted\",
                    \"administration_not_permitted\", \"denied\", \"unanswered\",
                    \"too_many_denials\", \"pin_blocked\", \"last_try_kept\",
                    \"connection_not_confirmed\", \"cancelled\")
    phone           null, or an entry of `pocketcard phones --json`:
      id, name, slot, address, software, card_name
      link          {\"state\": \"connected\", \"connecting\", \"disconnected\"
                    (with \"reason\") or \"version_mismatch\" (with \"ours\",
                    \"theirs\", \"update\")}
      transport     null without a link; else {\"kind\": \"stream\", \"l2cap\",
                    or \"gatt\" with \"mtu\", its ATT MTU}
      permissions   null until the phone has said; else keys (a list,
                    hexadecimal), typed_pin, administer, connect_unattended

With --watch, one object a line: first {\"reply\": \"status\", and the fields
above}, then {\"reply\": \"event\", \"event\": \"card_present\", \"slot\": 0} and
the like; ignore events you do not know.";

#[derive(Debug, clap::Args)]
#[command(after_help = JSON_HELP)]
pub(crate) struct Arguments {
    /// Print JSON for programs; with --watch, one line per change.
    #[arg(long)]
    json: bool,
    /// Go on and show every change, until Ctrl-C.
    #[arg(long)]
    watch: bool,
}

pub(crate) fn run(arguments: &Arguments, connect: impl Fn() -> Result<Client, Failure>) -> Result<ExitCode, Failure> {
    if arguments.watch {
        return watch::live_view(arguments.json, connect);
    }
    let status = connect()?.status()?;
    let text = if arguments.json { as_json(&status)? } else { screen(&status) };
    print(&text);
    Ok(ExitCode::SUCCESS)
}

/// Any answer of the daemon as JSON.
pub(crate) fn as_json(answer: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(answer)
        .map_err(|error| Failure::System { what: "writing JSON", source: error.into() })?;
    Ok(text + "\n")
}

/// The status as a person reads it.
pub(crate) fn screen(status: &Status) -> String {
    let mut text = format!("{} on {}", status.software, status.host_name);
    if status.dev {
        text.push_str("  (a private test environment)");
    }
    text.push('\n');
    if status.pairing {
        text.push_str("a pairing is under way\n");
    }
    if let Some(message) = status.bluetooth.as_ref().and_then(|bluetooth| bluetooth.message.as_deref()) {
        text.push_str(&format!("no Bluetooth: {message}; see `pocketcard doctor`\n"));
    }
    for slot in &status.slots {
        text.push_str(&line(slot));
    }
    text
}

fn line(slot: &SlotStatus) -> String {
    let mut parts = Vec::new();
    match &slot.phone {
        None => parts.push("free".to_owned()),
        Some(phone) => {
            let over = match phone.transport {
                Some(Transport::L2cap {}) => " over Bluetooth, L2CAP".to_owned(),
                Some(Transport::Gatt { mtu }) => format!(" over Bluetooth, MTU {mtu}"),
                _ => String::new(),
            };
            parts.push(format!("{} ({}{over})", phone.name, link(&phone.link)));
        }
    }
    if slot.card_present {
        parts.push(if slot.powered { "card in use" } else { "card present" }.to_owned());
        if slot.pin_verified {
            parts.push("PIN verified".to_owned());
        }
        match slot.pin_tries_left {
            Some(0) => parts.push("PIN blocked".to_owned()),
            Some(1) => parts.push("1 PIN try left".to_owned()),
            Some(tries) => parts.push(format!("{tries} PIN tries left")),
            None => {}
        }
        parts.extend(slot.snapshot_age_s.map(|seconds| format!("public data read {} ago", age(seconds))));
    } else if slot.phone.is_some() {
        parts.push("no card".to_owned());
    }
    if slot.pin_entry == PinPlace::Phone {
        parts.push("PIN entry on the phone".to_owned());
    }
    if slot.driver == DriverState::Absent {
        parts.push("pcscd is away or has not loaded the driver".to_owned());
    }
    let mut text = format!("slot {}  {}\n", slot.slot, parts.join(", "));
    if let Some(reason) = &slot.waiting {
        let what = waiting(reason);
        text.push_str(&format!(
            "        a program waits for {what}; `{}` gives up\n",
            give_up(slot.slot, slot.operation)
        ));
    }
    if let Some(Refusal { reason, key, ago_s }) = &slot.last_refusal {
        let words = refusal::words(*reason, key.as_deref());
        text.push_str(&format!("        refused {} ago: {words}\n", age(*ago_s)));
    }
    text
}

/// What to type to give a command up, and no other.
pub(crate) fn give_up(slot: u32, operation: Option<u64>) -> String {
    match operation {
        Some(operation) => format!("pocketcard cancel --operation {operation}"),
        // A daemon of an earlier release.
        None => format!("pocketcard cancel --slot {slot}"),
    }
}

/// What a phone waits for, from the reason that the daemon tells.
pub(crate) fn waiting(reason: &str) -> &'static str {
    match reason {
        "approval" => "an approval on the phone",
        "pin_entry" => "the PIN to be entered on the phone",
        "key_generation" => "a key to be made",
        "locked" => "the phone to be unlocked",
        _ => "the phone, which is busy",
    }
}

/// So many seconds, in the largest unit of which there is one.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        86_400..172_800 => "1 day".to_owned(),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use pocketcard_ipc::control::{BluetoothState, BluetoothStatus, LinkState, Permissions, Phone, RefusalReason};

    use super::*;
    use crate::fixtures;

    fn denied() -> Refusal {
        Refusal { reason: RefusalReason::Denied, key: Some("9A".to_owned()), ago_s: 7 }
    }

    #[test]
    fn a_card_that_left_a_blocked_pin_and_a_denial_are_told_apart() {
        let phone = Some(fixtures::phone());
        let left = SlotStatus { phone: phone.clone(), ..fixtures::slot() };
        let there = SlotStatus { phone, card_present: true, ..fixtures::slot() };
        let blocked = Refusal { reason: RefusalReason::PinBlocked, key: Some("80".to_owned()), ago_s: 0 };
        let blocked = SlotStatus { pin_tries_left: Some(0), last_refusal: Some(blocked), ..there.clone() };
        let denied = SlotStatus { pin_tries_left: Some(3), last_refusal: Some(denied()), ..there.clone() };
        let waits = SlotStatus {
            waiting: Some("pin_entry".to_owned()),
            operation: Some(4711),
            pin_entry: PinPlace::Phone,
            ..there
        };
        assert_eq!(line(&left), "slot 0  Pixel (connected), no card\n");
        assert_eq!(
            line(&blocked),
            "slot 0  Pixel (connected), card present, PIN blocked\n        refused 0 s ago: the PIN is blocked: no tries are \
             left. Set a new one on the phone\n"
        );
        assert_eq!(
            line(&denied),
            "slot 0  Pixel (connected), card present, 3 PIN tries left\n        refused 7 s ago: its owner denied the use of \
             key 9A\n"
        );
        assert_eq!(
            line(&waits),
            "slot 0  Pixel (connected), card present, PIN entry on the phone\n        a program waits for the PIN to be \
             entered on the phone; `pocketcard cancel --operation 4711` gives up\n"
        );
    }

    #[test]
    fn the_json_is_what_the_help_says() {
        let link = LinkState::Disconnected { reason: None };
        let transport = Some(Transport::Gatt { mtu: 517 });
        let permissions = Some(Permissions {
            keys: vec!["9A".to_owned()],
            typed_pin: true,
            administer: false,
            connect_unattended: true,
        });
        let phone = Phone { id: "00".to_owned(), link, transport, permissions, ..fixtures::phone() };
        let slot = SlotStatus {
            phone: Some(phone),
            waiting: Some("pin_entry".to_owned()),
            operation: Some(4711),
            last_refusal: Some(denied()),
            ..fixtures::slot()
        };
        let status = Status {
            software: "pocketcardd 1".to_owned(),
            host_id: "ff".to_owned(),
            host_name: "desk".to_owned(),
            dev: false,
            pairing: false,
            bluetooth: Some(BluetoothStatus {
                state: BluetoothState::Working,
                adapter: Some("hci0".to_owned()),
                message: None,
            }),
            slots: vec![slot],
        };
        let json: serde_json::Value = serde_json::from_str(&as_json(&status).unwrap()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "software": "pocketcardd 1", "host_id": "ff", "host_name": "desk", "dev": false, "pairing": false,
                "bluetooth": { "state": "working", "adapter": "hci0", "message": null },
                "slots": [{
                    "slot": 0, "driver": "waiting", "card_present": false, "powered": false, "pin_verified": false,
                    "pin_tries_left": null, "snapshot_age_s": null, "pin_entry": "keyboard", "waiting": "pin_entry",
                    "operation": 4711, "last_refusal": { "reason": "denied", "key": "9A", "ago_s": 7 },
                    "phone": {
                        "id": "00", "name": "Pixel", "slot": 0, "address": null, "software": null, "card_name": null,
                        "link": { "state": "disconnected", "reason": null },
                        "transport": { "kind": "gatt", "mtu": 517 },
                        "permissions": {
                            "keys": ["9A"], "typed_pin": true, "administer": false, "connect_unattended": true,
                        },
                    },
                }],
            })
        );
        let words: Vec<&str> = JSON_HELP.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        let mut open = vec![&json];
        while let Some(value) = open.pop() {
            for (key, value) in value.as_object().into_iter().flatten() {
                assert!(words.contains(&key.as_str()), "the help does not name {key}");
                open.push(value);
            }
            open.extend(value.as_array().into_iter().flatten());
        }
    }

    #[test]
    fn a_slot_is_one_line() {
        let mut slot = fixtures::slot();
        assert_eq!(line(&slot), "slot 0  free\n");
        slot.phone = Some(fixtures::phone());
        slot.card_present = true;
        slot.powered = true;
        slot.pin_verified = true;
        slot.pin_tries_left = Some(3);
        slot.driver = DriverState::Absent;
        slot.snapshot_age_s = Some(200);
        assert_eq!(
            line(&slot),
            "slot 0  Pixel (connected), card in use, PIN verified, 3 PIN tries left, public data read 3 min ago, pcscd is \
             away or has not loaded the driver\n"
        );
    }

    #[test]
    fn an_age_has_one_unit() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3599, "59 min"),
            (3600, "1 h"),
            (86_399, "23 h"),
            (86_400, "1 day"),
            (172_800, "2 days"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }
}
