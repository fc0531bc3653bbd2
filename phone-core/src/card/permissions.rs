//! What the owner permits a host. The card holds the permissions of every host that the runtime has named to it, and looks them
//! up for each command: one that is taken back is gone with the next command, and ends what waits because of it.

use std::collections::BTreeSet;

use pocketcard_protocol::messages::{self, RefusalReason};

use super::deed::Deed;
use super::piv::{RetiredIndex, Slot};

/// What one paired host may do with the card. A key that it may use still asks for PIN and owner by its own policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// Private keys that it may use. A permission is for the place: it holds for whatever key is put there.
    pub keys: BTreeSet<Slot>,
    /// Whether a PIN or PUK that was typed on the computer is compared. If not it is refused, and costs no try.
    pub typed_pin: bool,
    /// Whether it may write objects, make, move and delete keys, set the management key and the numbers of tries, reset the PIN
    /// with the PUK, and make the card new, as far as management key and owner allow.
    pub administer: bool,
    /// Whether the card is in its reader as soon as it connects. If not the owner is asked at each connection.
    pub connect_unattended: bool,
}

impl Permissions {
    /// Those of a host that has just been paired: every key, with the owner's approval, and nothing that changes the card.
    pub fn new_host() -> Self {
        Self { keys: every_slot().collect(), typed_pin: true, administer: false, connect_unattended: true }
    }

    /// Those of every host of a test card: everything.
    pub fn test_host() -> Self {
        Self { administer: true, ..Self::new_host() }
    }

    /// Those of a host of which the owner has said nothing yet.
    pub fn default_of(test_card: bool) -> Self {
        if test_card { Self::test_host() } else { Self::new_host() }
    }

    /// No permission at all.
    pub const fn none() -> Self {
        Self { keys: BTreeSet::new(), typed_pin: false, administer: false, connect_unattended: false }
    }

    /// What both permit.
    pub(crate) fn common(&self, other: &Self) -> Self {
        Self {
            keys: self.keys.intersection(&other.keys).copied().collect(),
            typed_pin: self.typed_pin && other.typed_pin,
            administer: self.administer && other.administer,
            connect_unattended: self.connect_unattended && other.connect_unattended,
        }
    }

    /// Whether the key in this slot may be used.
    pub fn allows_key(&self, slot: Slot) -> bool {
        self.keys.contains(&slot)
    }

    /// Why a host may not do this; `None` if it may. What the owner enters on the phone needs no permission.
    pub(crate) fn refusal(&self, deed: Deed) -> Option<RefusalReason> {
        if deed.used_key().is_some_and(|slot| !self.allows_key(slot)) {
            Some(RefusalReason::KeyNotPermitted)
        } else if deed.compares_pin() && !self.typed_pin {
            Some(RefusalReason::TypedPinNotPermitted)
        } else if deed.administers() && !self.administer {
            Some(RefusalReason::AdministrationNotPermitted)
        } else {
            None
        }
    }

    /// References of the permitted keys, ascending.
    pub(crate) fn key_references(&self) -> Vec<u8> {
        let references: BTreeSet<u8> = self.keys.iter().map(|slot| slot.reference()).collect();
        references.into_iter().collect()
    }

    pub(crate) fn to_message(&self) -> messages::Permissions {
        let Self { typed_pin, administer, connect_unattended, .. } = *self;
        messages::Permissions { typed_pin, administer, connect_unattended, keys: self.key_references() }
    }
}

/// All places for private keys.
pub(crate) fn every_slot() -> impl Iterator<Item = Slot> {
    let retired = (1..=u8::MAX).map_while(RetiredIndex::new).map(Slot::Retired);
    [Slot::Authentication, Slot::Signature, Slot::KeyManagement, Slot::CardAuthentication].into_iter().chain(retired)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_host_may_use_every_key_and_change_nothing() {
        let new = Permissions::new_host();
        assert_eq!(new.keys.len(), 24);
        assert!(new.typed_pin && new.connect_unattended && !new.administer);
        assert!(Permissions::test_host().administer);
        assert!(!Permissions::none().allows_key(Slot::Authentication));
    }

    #[test]
    fn the_message_names_keys_by_reference_in_order_and_within_its_limit() {
        let message = Permissions::test_host().to_message();
        assert!(message.keys.len() <= messages::KEYS_LIMIT);
        assert!(message.keys.is_sorted());
        assert_eq!((message.keys.first(), message.keys.last()), (Some(&0x82), Some(&0x9E)));
    }
}
