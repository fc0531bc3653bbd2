//! What a phone refuses and permits, in words that say where to change it.

use pocketcard_ipc::control::{Permissions, RefusalReason};

/// Keys of a PIV card: 9A, 9C, 9D, 9E and 20 retired ones.
const ALL_KEYS: usize = 24;

/// The key or secret, as people who know PIV call it.
fn subject(key: Option<&str>) -> String {
    match key {
        Some("80" | "00") => "the PIN".to_owned(),
        Some("81") => "the PUK".to_owned(),
        Some("9B") => "the management key".to_owned(),
        Some(key) => format!("key {key}"),
        None => "this".to_owned(),
    }
}

/// Why the phone refused, and what to do about it.
pub(crate) fn words(reason: RefusalReason, key: Option<&str>) -> String {
    let subject = subject(key);
    match reason {
        RefusalReason::KeyNotPermitted => format!(
            "this computer may not use {subject}; allow it on the phone, in the list of computers, under this one"
        ),
        RefusalReason::TypedPinNotPermitted => "a PIN typed on this computer is not accepted; enter it on the phone \
             (`pin_entry = \"phone\"` in the daemon's configuration), or allow typing on the phone, in the list of \
             computers, under this one"
            .to_owned(),
        RefusalReason::AdministrationNotPermitted => {
            "this computer may not change keys, certificates or settings; do it on the phone, or allow it there, in the \
             list of computers, under this one"
                .to_owned()
        }
        RefusalReason::Denied => format!("its owner denied the use of {subject}"),
        RefusalReason::Unanswered => format!("nobody answered the phone's question about {subject} in time"),
        RefusalReason::TooManyDenials => {
            "its owner said no twice within a minute; open Pocketcard on the phone to be asked again".to_owned()
        }
        RefusalReason::PinBlocked => {
            format!("{subject} is blocked: no tries are left. Set a new one on the phone")
        }
        RefusalReason::LastTryKept => {
            format!("only one try is left for {subject}, and the phone keeps it: enter it on the phone")
        }
        RefusalReason::ConnectionNotConfirmed => {
            "this computer waits for its owner: confirm on the phone that it may connect".to_owned()
        }
        RefusalReason::Cancelled => "it was cancelled".to_owned(),
        _ => "for a reason that this program does not know; update pocketcard".to_owned(),
    }
}

/// What the phone permits this computer.
pub(crate) fn permitted(permissions: &Permissions) -> String {
    let Permissions { keys, typed_pin, administer, connect_unattended } = permissions;
    let keys = match keys.len() {
        0 => "no keys".to_owned(),
        ALL_KEYS => "every key".to_owned(),
        _ => format!("keys {}", keys.join(" ")),
    };
    let no = |permitted: &bool| if *permitted { "" } else { "no " };
    let confirmed = if *connect_unattended { "connects unattended" } else { "each connection is confirmed" };
    format!("{keys}; {}PIN typed here; {}administration; {confirmed}", no(typed_pin), no(administer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_where_to_change_it() {
        for (reason, key, part) in [
            (RefusalReason::KeyNotPermitted, Some("9C"), "key 9C; allow it on the phone"),
            (RefusalReason::TypedPinNotPermitted, Some("80"), "enter it on the phone"),
            (RefusalReason::AdministrationNotPermitted, None, "allow it there"),
            (RefusalReason::Denied, Some("9A"), "denied the use of key 9A"),
            (RefusalReason::Unanswered, Some("80"), "about the PIN"),
            (RefusalReason::TooManyDenials, None, "open Pocketcard"),
            (RefusalReason::PinBlocked, Some("80"), "the PIN is blocked"),
            (RefusalReason::PinBlocked, Some("81"), "the PUK is blocked"),
            (RefusalReason::LastTryKept, Some("80"), "enter it on the phone"),
            (RefusalReason::ConnectionNotConfirmed, None, "confirm on the phone"),
            (RefusalReason::Cancelled, None, "cancelled"),
            (RefusalReason::Unknown, None, "update pocketcard"),
        ] {
            let words = words(reason, key);
            assert!(words.contains(part), "{words}");
        }
    }

    #[test]
    fn permissions_are_one_line() {
        let mut permissions = Permissions {
            keys: vec!["9A".to_owned(), "9C".to_owned()],
            typed_pin: true,
            administer: false,
            connect_unattended: true,
        };
        assert_eq!(permitted(&permissions), "keys 9A 9C; PIN typed here; no administration; connects unattended");
        permissions = Permissions { keys: Vec::new(), typed_pin: false, administer: true, connect_unattended: false };
        assert_eq!(permitted(&permissions), "no keys; no PIN typed here; administration; each connection is confirmed");
    }
}
