use pocketcard_phone::card::{self, piv::Slot};

use crate::error::PhoneError;

/// What a paired computer may do with the card. A key that it may use still asks for PIN and owner by its own policies.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Permissions {
    /// References of the private keys that it may use, ascending: `0x9A`, `0x9C`, `0x9D`, `0x9E`, `0x82` to `0x95`.
    pub keys: Vec<u8>,
    /// Whether a PIN or PUK that was typed on the computer is compared.
    pub typed_pin: bool,
    /// Whether it may change the card, as far as management key and owner allow.
    pub administer: bool,
    /// Whether the card is in its reader as soon as it connects, without a question to the owner.
    pub connect_unattended: bool,
}

/// What a computer may do that has just been paired with an owner's phone.
#[uniffi::export]
pub fn permissions_of_a_new_host() -> Permissions {
    card::Permissions::new_host().into()
}

impl From<card::Permissions> for Permissions {
    fn from(permissions: card::Permissions) -> Self {
        let card::Permissions { keys, typed_pin, administer, connect_unattended } = permissions;
        let mut keys: Vec<u8> = keys.into_iter().map(Slot::reference).collect();
        keys.sort_unstable();
        Self { keys, typed_pin, administer, connect_unattended }
    }
}

impl TryFrom<Permissions> for card::Permissions {
    type Error = PhoneError;

    fn try_from(permissions: Permissions) -> Result<Self, PhoneError> {
        let Permissions { keys, typed_pin, administer, connect_unattended } = permissions;
        let slot = |reference| Slot::from_reference(reference).ok_or(PhoneError::UnknownKey);
        let keys = keys.into_iter().map(slot).collect::<Result<_, _>>()?;
        Ok(Self { keys, typed_pin, administer, connect_unattended })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_survive_their_way_through_another_language() {
        for permissions in [card::Permissions::new_host(), card::Permissions::none(), card::Permissions::test_host()] {
            let record = Permissions::from(permissions.clone());
            assert!(record.keys.is_sorted());
            assert_eq!(card::Permissions::try_from(record), Ok(permissions));
        }
        let unknown = Permissions { keys: vec![0x9B], ..permissions_of_a_new_host() };
        assert_eq!(card::Permissions::try_from(unknown), Err(PhoneError::UnknownKey));
    }
}
