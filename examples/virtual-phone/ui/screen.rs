//! The pages behind the main one: permissions of a computer, log, card.

use pocketcard_phone::{
    HostId,
    card::{
        Permissions,
        piv::{RetiredIndex, Slot},
    },
    enrolment::{SLOTS, SlotContent},
    runtime::LogEntry,
};
use ratatui::crossterm::event::KeyCode;

use super::{
    form::{Form, Purpose},
    wish::Wish,
};
use crate::enrolment::Tries;

pub(super) enum Screen {
    Main,
    Permissions(PermissionList),
    Log(LogView),
    Card(CardView),
}

/// What a key on a page leads to.
pub(super) enum Step {
    Stay,
    Back,
    Do(Wish),
    Ask(Form),
}

/// What one host may do, a line each.
pub(super) struct PermissionList {
    pub(super) host: HostId,
    pub(super) at: usize,
}

/// The lines of [`PermissionList`], in order.
pub(super) const PERMISSIONS: [&str; 8] = [
    "use key 9A (login)",
    "use key 9C (signature)",
    "use key 9D (decryption)",
    "use key 9E (no PIN)",
    "use the older decryption keys 82 to 95",
    "have a PIN compared that was typed on the computer",
    "change the card: objects, keys, number of tries",
    "have the card as soon as it connects",
];

impl PermissionList {
    pub(super) const fn new(host: HostId) -> Self {
        Self { host, at: 0 }
    }

    pub(super) fn pressed(&mut self, key: KeyCode, permissions: &Permissions) -> Step {
        match key {
            KeyCode::Esc | KeyCode::Char('q') => return Step::Back,
            KeyCode::Up => self.at = self.at.saturating_sub(1),
            KeyCode::Down => self.at = (self.at + 1).min(PERMISSIONS.len() - 1),
            KeyCode::Char(' ') | KeyCode::Enter => {
                return Step::Do(Wish::Permit(self.host, toggled(permissions.clone(), self.at)));
            }
            KeyCode::Char('c') => return Step::Do(Wish::AllowConnection(self.host)),
            _ => {}
        }
        Step::Stay
    }
}

/// Whether the permission on this line is given.
pub(super) fn is_given(permissions: &Permissions, line: usize) -> bool {
    match (SLOTS.get(line), line) {
        (Some(slot), _) => permissions.allows_key(*slot),
        (None, 4) => retired().all(|slot| permissions.allows_key(slot)),
        (None, 5) => permissions.typed_pin,
        (None, 6) => permissions.administer,
        (None, _) => permissions.connect_unattended,
    }
}

fn toggled(mut permissions: Permissions, line: usize) -> Permissions {
    let given = is_given(&permissions, line);
    let slots: Vec<Slot> = match (SLOTS.get(line), line) {
        (Some(slot), _) => vec![*slot],
        (None, 4) => retired().collect(),
        (None, 5) => {
            permissions.typed_pin = !given;
            return permissions;
        }
        (None, 6) => {
            permissions.administer = !given;
            return permissions;
        }
        (None, _) => {
            permissions.connect_unattended = !given;
            return permissions;
        }
    };
    for slot in slots {
        if given {
            permissions.keys.remove(&slot);
        } else {
            permissions.keys.insert(slot);
        }
    }
    permissions
}

fn retired() -> impl Iterator<Item = Slot> {
    (1..=u8::MAX).map_while(RetiredIndex::new).map(Slot::Retired)
}

/// The log as it was when it was opened, newest entry last.
pub(super) struct LogView {
    pub(super) entries: Vec<LogEntry>,
    /// Entries below the last one that is shown.
    pub(super) below: usize,
}

/// Entries that PageUp and PageDown pass.
const LEAF: usize = 10;

impl LogView {
    pub(super) const fn new(entries: Vec<LogEntry>) -> Self {
        Self { entries, below: 0 }
    }

    pub(super) fn pressed(&mut self, key: KeyCode) -> Step {
        let most = self.entries.len().saturating_sub(1);
        match key {
            KeyCode::Esc | KeyCode::Char('q') => return Step::Back,
            KeyCode::Up => self.below = (self.below + 1).min(most),
            KeyCode::Down => self.below = self.below.saturating_sub(1),
            KeyCode::PageUp => self.below = (self.below + LEAF).min(most),
            KeyCode::PageDown => self.below = self.below.saturating_sub(LEAF),
            KeyCode::Char('w') => return Step::Ask(Form::new(Purpose::ExportLog)),
            _ => {}
        }
        Step::Stay
    }
}

/// What is in the card.
pub(super) struct CardView {
    pub(super) slots: Vec<SlotContent>,
    pub(super) tries: Tries,
    pub(super) at: usize,
}

impl CardView {
    pub(super) const fn new(slots: Vec<SlotContent>, tries: Tries) -> Self {
        Self { slots, tries, at: 0 }
    }

    pub(super) fn pressed(&mut self, key: KeyCode) -> Step {
        let slot = self.slots.get(self.at).map(|content| content.slot);
        let purpose = match key {
            KeyCode::Esc | KeyCode::Char('q') => return Step::Back,
            KeyCode::Up => {
                self.at = self.at.saturating_sub(1);
                return Step::Stay;
            }
            KeyCode::Down => {
                self.at = (self.at + 1).min(self.slots.len().saturating_sub(1));
                return Step::Stay;
            }
            // A card without a PIN gets one on the way; one that has a PIN asks for it.
            KeyCode::Char('e') if self.tries.are_over() => Purpose::Enrol,
            KeyCode::Char('e') => Purpose::NewKeys,
            KeyCode::Char('p') => Purpose::ChangePin,
            KeyCode::Char('u') => Purpose::ChangePuk,
            KeyCode::Char('f') => Purpose::ChoosePin,
            KeyCode::Char('R') => Purpose::FactoryReset,
            KeyCode::Char('s') => match slot {
                Some(slot) => Purpose::Request(slot),
                None => return Step::Stay,
            },
            KeyCode::Char('i') => match slot {
                Some(slot) => Purpose::Import(slot),
                None => return Step::Stay,
            },
            _ => return Step::Stay,
        };
        Step::Ask(Form::new(purpose))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_takes_its_permission_back_and_gives_it_again() {
        for line in 0..PERMISSIONS.len() {
            let full = Permissions::test_host();
            assert!(is_given(&full, line), "{line}");
            let without = toggled(full.clone(), line);
            assert!(!is_given(&without, line), "{line}");
            let others = (0..PERMISSIONS.len()).filter(|other| *other != line);
            assert!(others.clone().all(|other| is_given(&without, other)), "{line}");
            assert_eq!(toggled(without, line), full, "{line}");
            let only = toggled(Permissions::none(), line);
            assert!(is_given(&only, line) && others.clone().all(|other| !is_given(&only, other)), "{line}");
        }
    }
}
