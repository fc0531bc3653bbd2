//! A PIN that its owner enters on the phone because a host asks for it.
//!
//! Spec: SPEC.md section 7.8

use std::time::Duration;

use pocketcard_protocol::messages::{PinEntry, PinOperation};

use super::deed::Deed;
use super::event::CommandLine;
use crate::traits::PinPurpose;

/// How long the owner has to enter a PIN, at most. OpenSC gives a PIN pad 30 s.
pub(super) const PIN_ENTRY_LIMIT: Duration = Duration::from_secs(25);

/// What a host asks for.
pub(super) struct Entry {
    /// `None`: a secret that no card has, or an operation that it does not have.
    pub(super) purpose: Option<PinPurpose>,
    pub(super) limit: Duration,
}

impl Entry {
    pub(super) fn new(message: &PinEntry) -> Self {
        let limit = match message.time_limit_s {
            0 => PIN_ENTRY_LIMIT,
            seconds => PIN_ENTRY_LIMIT.min(Duration::from_secs(seconds.into())),
        };
        Self { purpose: purpose(message.operation(), message.key_reference), limit }
    }

    pub(super) fn describe(&self) -> CommandLine {
        let subject = match self.purpose {
            Some(PinPurpose::Verify) => "verify PIN",
            Some(PinPurpose::Change) => "change PIN",
            Some(PinPurpose::ChangePuk) => "change PUK",
            Some(PinPurpose::Unblock) => "unblock PIN",
            None => "",
        };
        CommandLine::new("PIN ENTRY", subject).doing(self.purpose.map(Deed::from))
    }
}

/// The global PIN (00) is among those that no card has.
const fn purpose(operation: PinOperation, key_reference: u32) -> Option<PinPurpose> {
    match (operation, key_reference) {
        (PinOperation::Verify, 0x80) => Some(PinPurpose::Verify),
        (PinOperation::Change, 0x80) => Some(PinPurpose::Change),
        (PinOperation::Change, 0x81) => Some(PinPurpose::ChangePuk),
        (PinOperation::Unblock, 0x80) => Some(PinPurpose::Unblock),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_limit_holds() {
        for (asked, expected) in [(0, 25), (1, 1), (24, 24), (25, 25), (26, 25), (u32::MAX, 25)] {
            let entry = Entry::new(&PinEntry { time_limit_s: asked, ..PinEntry::default() });
            assert_eq!(entry.limit, Duration::from_secs(expected), "{asked}");
        }
    }

    #[test]
    fn four_pairs_have_a_purpose() {
        let operations = [PinOperation::Unspecified, PinOperation::Verify, PinOperation::Change, PinOperation::Unblock];
        let pairs = operations.into_iter().flat_map(|operation| (0..=0xFF).map(move |key| (operation, key)));
        let known: Vec<_> = pairs.filter(|(operation, key)| purpose(*operation, *key).is_some()).collect();
        let expected = [
            (PinOperation::Verify, 0x80),
            (PinOperation::Change, 0x80),
            (PinOperation::Change, 0x81),
            (PinOperation::Unblock, 0x80),
        ];
        assert_eq!(known, expected);
        assert!(Entry::new(&PinEntry { operation: 7, key_reference: 0x80, ..PinEntry::default() }).purpose.is_none());
    }
}
