//! Desktop notices: that a phone waits for its owner, and that it refused something.
//!
//! Spec: Desktop Notifications Specification 1.2

use std::collections::HashMap;

use notify_rust::{Notification, NotificationHandle, Timeout, Urgency};
use pocketcard_ipc::control::{Event, RefusalReason};

use crate::refusal;
use crate::status::give_up;
use crate::terminal::note;

/// What a notice is given at most, should nobody take it away: the longest that a phone waits for its owner.
const LIFETIME_MS: u32 = 60_000;

/// The notices that are shown now, by slot. They go away with this value.
pub(crate) struct Notices {
    shown: HashMap<u32, NotificationHandle>,
    /// That the session may be open although the phone has left.
    open_session: Option<NotificationHandle>,
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
        Self { shown: HashMap::new(), open_session: None, working: true }
    }

    /// Shows or takes away what an event is about.
    ///
    /// - `phone`: what the phone in a slot is called here.
    pub(crate) fn event<'a>(&mut self, event: &Event, phone: impl FnOnce(u32) -> Option<&'a str>) {
        let name = |slot| phone(slot).unwrap_or("the phone");
        match event {
            Event::Pending { slot, reason, operation } => match waiting(reason, *slot, *operation, name(*slot)) {
                Some(words) => self.show(*slot, &words),
                None => self.close(*slot),
            },
            // Whoever cancelled knows.
            Event::Refused { slot, reason, key } if *reason != RefusalReason::Cancelled => {
                let summary = format!("{} refused", name(*slot));
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

    /// Shows that the session may be open although the phone has left, until somebody takes that away.
    pub(crate) fn open_session(&mut self, why: &str) {
        self.close_open_session();
        let words = Words { summary: "Your phone left, and this session may be open".to_owned(), body: why.to_owned() };
        self.open_session = self.shown(&words, Timeout::Never, Urgency::Critical);
    }

    /// Takes that away.
    pub(crate) fn close_open_session(&mut self) {
        if let Some(handle) = self.open_session.take() {
            handle.close();
        }
    }

    /// Takes away all that is about phones.
    pub(crate) fn close_all(&mut self) {
        for (_, handle) in self.shown.drain() {
            handle.close();
        }
    }

    fn show(&mut self, slot: u32, words: &Words) {
        self.close(slot);
        if let Some(handle) = self.shown(words, Timeout::Milliseconds(LIFETIME_MS), Urgency::Normal) {
            self.shown.insert(slot, handle);
        }
    }

    fn shown(&mut self, words: &Words, timeout: Timeout, urgency: Urgency) -> Option<NotificationHandle> {
        if !self.working {
            return None;
        }
        let mut notification = Notification::new();
        notification.appname("Pocketcard").icon("phone").summary(&words.summary).body(&escaped(&words.body));
        #[cfg(all(unix, not(target_os = "macos")))]
        notification.urgency(urgency);
        #[cfg(target_os = "macos")]
        let _ = urgency;
        match notification.timeout(timeout).show() {
            Ok(handle) => Some(handle),
            Err(error) => {
                self.working = false;
                note(&format!("no notices on the desktop: {error}"));
                None
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
        self.close_all();
        self.close_open_session();
    }
}

/// What to say while a phone waits for its owner; nothing while it waits for nobody.
fn waiting(reason: &str, slot: u32, operation: Option<u64>, phone: &str) -> Option<Words> {
    let (what, how) = match reason {
        "pin_entry" => ("Enter the PIN", "enter the PIN, or cancel"),
        "approval" => ("Approve or deny", "approve or deny it"),
        "locked" => ("Unlock", "unlock the card"),
        _ => return None,
    };
    let summary = format!("{what} on {phone}");
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

    #[test]
    fn a_notice_says_where_and_how_to_answer() {
        let words = waiting("pin_entry", 1, Some(4711), "Pixel").unwrap();
        assert_eq!(words.summary, "Enter the PIN on Pixel");
        assert_eq!(
            words.body,
            "A program that uses the reader's slot 1 waits. On the phone: enter the PIN, or cancel. Here: pocketcard cancel \
             --operation 4711"
        );
        for reason in ["approval", "locked"] {
            assert!(waiting(reason, 0, None, "").is_some(), "{reason}");
        }
        for reason in ["key_generation", "busy", "something new"] {
            assert_eq!(waiting(reason, 0, None, ""), None, "{reason}");
        }
    }

    #[test]
    fn a_body_has_no_markup() {
        assert_eq!(escaped("<b>&"), "&lt;b&gt;&amp;");
    }
}
