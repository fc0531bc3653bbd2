//! What programs see in the slot: which card, and whether it has power.

use crate::Presence;
use crate::output::{Failure, FrontError};

/// Longest answer to reset, ISO/IEC 7816-3.
const LONGEST_ATR: usize = 33;
/// Shortest: TS and T0.
const SHORTEST_ATR: usize = 2;

/// The card of a slot as programs see it. A card that leaves takes its power with it and never comes back as the same
/// one.
#[derive(Default)]
pub(crate) struct Slot {
    insertions: u64,
    card: Option<Card>,
    powered: bool,
}

struct Card {
    atr: Vec<u8>,
    name: String,
}

impl Slot {
    pub(crate) fn presence(&self) -> Presence {
        Presence { generation: self.insertions, atr: self.card.as_ref().map(|card| card.atr.clone()) }
    }

    pub(crate) fn card_name(&self) -> Option<&str> {
        self.card.as_ref().map(|card| card.name.as_str())
    }

    pub(crate) fn has_card(&self) -> bool {
        self.card.is_some()
    }

    pub(crate) fn is_powered(&self) -> bool {
        self.powered
    }

    /// Whether a card that looks like this is in the slot already; it takes the new name then.
    pub(crate) fn is_same(&mut self, atr: &[u8], name: &str) -> bool {
        match &mut self.card {
            Some(card) if card.atr == atr => {
                name.clone_into(&mut card.name);
                true
            }
            _ => false,
        }
    }

    /// Puts a new card into the slot, which is empty.
    pub(crate) fn insert(&mut self, atr: Vec<u8>, name: String) {
        self.insertions += 1;
        self.card = Some(Card { atr, name });
    }

    /// Empties the slot. Returns whether there was a card.
    pub(crate) fn remove(&mut self) -> bool {
        self.powered = false;
        self.card.take().is_some()
    }

    /// Gives the card power, if it is the one that the reader believes in, and says whether it had it already.
    pub(crate) fn power_up(&mut self, generation: u64) -> Result<bool, Failure> {
        if self.card.is_none() || self.insertions != generation {
            return Err(Failure::NotPresent);
        }
        Ok(std::mem::replace(&mut self.powered, true))
    }

    /// Takes the power, and says whether there was some to take.
    pub(crate) fn power_down(&mut self) -> bool {
        std::mem::take(&mut self.powered)
    }

    /// The answer to reset of the card; empty without one.
    pub(crate) fn atr(&self) -> &[u8] {
        self.card.as_ref().map(|card| card.atr.as_slice()).unwrap_or_default()
    }
}

/// Refuses an answer to reset that no card has.
pub(crate) fn check_atr(atr: &[u8]) -> Result<(), FrontError> {
    if (SHORTEST_ATR..=LONGEST_ATR).contains(&atr.len()) { Ok(()) } else { Err(FrontError::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_takes_its_power_with_it_and_comes_back_as_another() {
        let mut slot = Slot::default();
        assert_eq!(slot.power_up(0), Err(Failure::NotPresent), "nothing is in it");
        slot.insert(vec![0x3B, 0], "one".into());
        assert_eq!((slot.power_up(1), slot.power_up(1), slot.is_powered()), (Ok(false), Ok(true), true));
        assert!(slot.is_same(&[0x3B, 0], "two") && !slot.is_same(&[0x3B, 1], "three"));
        assert_eq!((slot.card_name(), slot.presence().generation), (Some("two"), 1));
        assert!(slot.remove() && !slot.remove() && !slot.is_powered());
        assert_eq!(slot.power_up(1), Err(Failure::NotPresent));
        slot.insert(vec![0x3B, 0], "one".into());
        assert!(!slot.is_powered());
        assert_eq!((slot.power_up(1), slot.power_up(2)), (Err(Failure::NotPresent), Ok(false)));
        assert!(slot.power_down() && !slot.power_down());
    }

    #[test]
    fn answers_to_reset_that_no_card_has() {
        for (length, valid) in [(0, false), (1, false), (2, true), (33, true), (34, false)] {
            assert_eq!(check_atr(&vec![0x3B; length]).is_ok(), valid, "{length}");
        }
    }
}
