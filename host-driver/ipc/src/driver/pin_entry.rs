//! A PIN that the owner enters on the phone: all that a program can ask for.

use std::time::Duration;

/// How long the phone waits for its owner. Programs that know PIN pads wait 30 s (OpenSC), so everybody on the way has
/// to have given up by then.
pub const PIN_ENTRY_LIMIT: Duration = Duration::from_secs(25);

/// How much longer than the layer below each layer waits: the daemon than the phone, the driver than the daemon. Enough
/// for the answer to travel, and twice of it still less than a program waits.
pub const PIN_ENTRY_MARGIN: Duration = Duration::from_millis(1500);

/// What the owner is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinOperation {
    /// Verify the PIN.
    Verify,
    /// Change the PIN or the PUK.
    Change,
    /// Set a new PIN with the PUK.
    Unblock,
}

/// A PIN entry. No text, language, format or offset of the computer is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinEntry {
    operation: PinOperation,
    key_reference: u8,
    /// 0 for the phone's own.
    time_limit_s: u8,
}

impl PinEntry {
    /// `None` if a PIV card has no such secret, or not for this operation.
    ///
    /// - `key_reference`: P2 of the command.
    /// - `time_limit`: whole seconds up to [`PIN_ENTRY_LIMIT`], which stands for everything longer.
    pub fn new(operation: PinOperation, key_reference: u8, time_limit: Option<Duration>) -> Option<Self> {
        let known = match operation {
            PinOperation::Verify => matches!(key_reference, 0x80 | 0x00),
            PinOperation::Change => matches!(key_reference, 0x80 | 0x81),
            PinOperation::Unblock => key_reference == 0x80,
        };
        let seconds = time_limit.unwrap_or_default().min(PIN_ENTRY_LIMIT).as_secs();
        known.then_some(Self { operation, key_reference, time_limit_s: u8::try_from(seconds).unwrap_or_default() })
    }

    /// What the owner is asked to do.
    pub fn operation(&self) -> PinOperation {
        self.operation
    }

    /// P2 of the command.
    pub fn key_reference(&self) -> u8 {
        self.key_reference
    }

    /// How long the owner has.
    pub fn time_limit(&self) -> Duration {
        match self.time_limit_s {
            0 => PIN_ENTRY_LIMIT,
            seconds => Duration::from_secs(seconds.into()),
        }
    }

    pub(super) fn to_bytes(self) -> [u8; 3] {
        let operation = match self.operation {
            PinOperation::Verify => 1,
            PinOperation::Change => 2,
            PinOperation::Unblock => 3,
        };
        [operation, self.key_reference, self.time_limit_s]
    }

    pub(super) fn from_bytes([operation, key_reference, time_limit_s]: [u8; 3]) -> Option<Self> {
        let operation = match operation {
            1 => PinOperation::Verify,
            2 => PinOperation::Change,
            3 => PinOperation::Unblock,
            _ => return None,
        };
        let entry = Self::new(operation, key_reference, Some(Duration::from_secs(time_limit_s.into())))?;
        // One form only: a longer limit would have been written as the longest.
        (entry.time_limit_s == time_limit_s).then_some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secrets_of_a_piv_card_can_be_asked_for() {
        for (operation, references) in [
            (PinOperation::Verify, &[0x00, 0x80][..]),
            (PinOperation::Change, &[0x80, 0x81]),
            (PinOperation::Unblock, &[0x80]),
        ] {
            for reference in 0..=u8::MAX {
                let entry = PinEntry::new(operation, reference, None);
                assert_eq!(entry.is_some(), references.contains(&reference), "{operation:?} {reference:02X}");
            }
        }
    }

    #[test]
    fn a_time_limit_is_at_most_the_phones() {
        let limit = |seconds| {
            let entry = PinEntry::new(PinOperation::Verify, 0x80, Some(Duration::from_secs(seconds))).unwrap();
            assert_eq!(PinEntry::from_bytes(entry.to_bytes()), Some(entry));
            entry.time_limit().as_secs()
        };
        assert_eq!([0, 1, 24, 25, 26, 300].map(limit), [25, 1, 24, 25, 25, 25]);
        assert_eq!(PinEntry::from_bytes([1, 0x80, 26]), None);
        let spec = include_str!("../../../../protocol/SPEC.md");
        assert!(spec.contains(&format!("| {} s after its `time_limit_s` |\n", PIN_ENTRY_MARGIN.as_secs_f64())));
        assert!(PIN_ENTRY_LIMIT + PIN_ENTRY_MARGIN * 2 < Duration::from_secs(30), "what OpenSC waits");
    }
}
