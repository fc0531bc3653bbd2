//! Desktop notices: that a phone waits for its owner, and that it refused something.
//!
//! Spec: Desktop Notifications Specification 1.2

use std::collections::HashMap;

use notify_rust::{Notification, NotificationHandle, Timeout, Urgency};
use pocketcard_ipc::control::{Event, RefusalReason, Status};

use crate::refusal;
use crate::status::give_up;
use crate::terminal::note;

/// What a notice is given at most, should nobody take it away: the longest that a phone waits for its owner.
const LIFETIME_MS: u32 = 60_000;

/// The notices that are shown now, by slot. They go away with this value.
pub(crate) struct Notices {
    shown: HashMap<u32, NotificationHandle>,
    /// Without a desktop there are none, which is said once.
    working: bool,
}

/// The words of a notice.
#[derive(Debug, PartialEq, Eq)]
struct Words {
    summary: String,
    body: String,
}

impl Notices {
    pub(crate) fn new() -> Self {
        Self { shown: HashMap::new(), working: true }
    }

    /// Shows or takes away what an event is about.
    ///
    /// - `status`: asked for if an event is worth a notice, for the name of the phone.
    pub(crate) fn event(&mut self, event: &Event, status: impl FnOnce() -> Option<Status>) {
        match event {
            Event::Pending { slot, reason, operation } => {
                match waiting(reason, *slot, *operation, || name(status(), *slot)) {
                    Some(words) => self.show(*slot, &words),
                    None => self.close(*slot),
                }
            }
            // Whoever cancelled knows.
            Event::Refused { slot, reason, key } if *reason != RefusalReason::Cancelled => {
                let summary = format!("{} refused", name(status(), *slot));
                self.show(*slot, &Words { summary, body: refusal::words(*reason, key.as_deref()) });
                // It has been said; nothing takes it away but time.
                self.shown.remove(slot);
            }
            Event::PendingOver { slot } | Event::CardAbsent { slot } | Event::PhoneDisconnected { slot, .. } => {
                self.close(*slot);
            }
            _ => {}
        }
    }

    fn show(&mut self, slot: u32, words: &Words) {
        self.close(slot);
        if !self.working {
            return;
        }
        let mut notification = Notification::new();
        notification.appname("Pocketcard").icon("phone").summary(&words.summary).body(&escaped(&words.body));
        #[cfg(all(unix, not(target_os = "macos")))]
        notification.urgency(Urgency::Normal);
        match notification.timeout(Timeout::Milliseconds(LIFETIME_MS)).show() {
            Ok(handle) => {
                self.shown.insert(slot, handle);
            }
            Err(error) => {
                self.working = false;
                note(&format!("no notices on the desktop: {error}"));
            }
        }
    }

    fn close(&mut self, slot: u32) {
        if let Some(handle) = self.shown.remove(&slot) {
            handle.close();
        }
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        for (_, handle) in self.shown.drain() {
            handle.close();
        }
    }
}

/// The phone in a slot.
fn name(status: Option<Status>, slot: u32) -> String {
    let slots = status.map(|status| status.slots).unwrap_or_default();
    let found = slots.into_iter().find(|entry| entry.slot == slot).and_then(|entry| entry.phone);
    found.map_or_else(|| "the phone".to_owned(), |phone| phone.name)
}

/// What to say while a phone waits for its owner; nothing while it waits for nobody.
fn waiting(reason: &str, slot: u32, operation: Option<u64>, phone: impl FnOnce() -> String) -> Option<Words> {
    let (what, how) = match reason {
        "pin_entry" => ("Enter the PIN", "enter the PIN, or cancel"),
        "approval" => ("Approve or deny", "approve or deny it"),
        "locked" => ("Unlock", "unlock the card"),
        _ => return None,
    };
    let summary = format!("{what} on {}", phone());
    let here = give_up(slot, operation);
    let body = format!("A program that uses the reader's slot {slot} waits. On the phone: {how}. Here: {here}");
    Some(Words { summary, body })
}

/// A desktop may read a body as markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn a_notice_says_where_and_how_to_answer() {
        let words = waiting("pin_entry", 1, Some(4711), || "Pixel".to_owned()).unwrap();
        assert_eq!(words.summary, "Enter the PIN on Pixel");
        assert_eq!(
            words.body,
            "A program that uses the reader's slot 1 waits. On the phone: enter the PIN, or cancel. Here: pocketcard cancel \
             --operation 4711"
        );
        for reason in ["approval", "locked"] {
            assert!(waiting(reason, 0, None, String::new).is_some(), "{reason}");
        }
        for reason in ["key_generation", "busy", "something new"] {
            assert_eq!(waiting(reason, 0, None, || panic!("nobody is asked")), None, "{reason}");
        }
    }

    #[test]
    fn a_phone_is_called_by_its_name_here() {
        let mut slot = fixtures::slot();
        slot.phone = Some(fixtures::phone());
        let status = Status {
            software: String::new(),
            host_id: String::new(),
            host_name: String::new(),
            dev: false,
            pairing: false,
            bluetooth: None,
            slots: vec![slot],
        };
        assert_eq!(name(Some(status.clone()), 0), "Pixel");
        assert_eq!((name(Some(status), 1).as_str(), name(None, 0).as_str()), ("the phone", "the phone"));
    }

    #[test]
    fn a_body_has_no_markup() {
        assert_eq!(escaped("<b>&"), "&lt;b&gt;&amp;");
    }
}
