//! What a command does that its owner may want to read about later. Commands that only read have none.

use super::piv::Slot;
use crate::traits::PinPurpose;

/// Reference of the PIN, the PUK, the owner's biometrics and the management key.
const PIN: u8 = 0x80;
const PUK: u8 = 0x81;
const BIOMETRICS: u8 = 0x96;
const MANAGEMENT_KEY: u8 = 0x9B;

/// What a command does, or was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deed {
    /// Compares the PIN.
    VerifyPin,
    /// Compares the PIN and sets another.
    ChangePin,
    /// Compares the PUK and sets another.
    ChangePuk,
    /// Compares the PUK and sets another PIN.
    UnblockPin,
    /// Has the phone check who its owner is.
    VerifyOwner,
    /// Signs.
    Sign(Slot),
    /// Decrypts.
    Decrypt(Slot),
    /// Agrees on a secret.
    Agree(Slot),
    /// Asks for what is needed to prove the management key.
    AskForWitness,
    /// Proves the management key.
    ProveManagementKey,
    /// Sets the management key.
    SetManagementKey,
    /// Writes or deletes an object.
    WriteObject,
    /// Makes a key.
    MakeKey(Slot),
    /// Moves a key out of this slot.
    MoveKey(Slot),
    /// Deletes a key.
    DeleteKey(Slot),
    /// Sets the numbers of tries of PIN and PUK.
    SetTries,
    /// Makes the card new.
    MakeNew,
}

impl Deed {
    /// A name that does not change between versions, for exports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VerifyPin => "verify_pin",
            Self::ChangePin => "change_pin",
            Self::ChangePuk => "change_puk",
            Self::UnblockPin => "unblock_pin",
            Self::VerifyOwner => "verify_owner",
            Self::Sign(_) => "sign",
            Self::Decrypt(_) => "decrypt",
            Self::Agree(_) => "agree",
            Self::AskForWitness => "ask_for_witness",
            Self::ProveManagementKey => "prove_management_key",
            Self::SetManagementKey => "set_management_key",
            Self::WriteObject => "write_object",
            Self::MakeKey(_) => "make_key",
            Self::MoveKey(_) => "move_key",
            Self::DeleteKey(_) => "delete_key",
            Self::SetTries => "set_tries",
            Self::MakeNew => "make_new",
        }
    }

    /// Reference of the key or secret that it is about, such as `0x9A`.
    pub const fn key_reference(self) -> Option<u8> {
        match self {
            Self::VerifyPin | Self::ChangePin => Some(PIN),
            Self::ChangePuk | Self::UnblockPin => Some(PUK),
            Self::VerifyOwner => Some(BIOMETRICS),
            Self::AskForWitness | Self::ProveManagementKey | Self::SetManagementKey => Some(MANAGEMENT_KEY),
            Self::WriteObject | Self::SetTries | Self::MakeNew => None,
            Self::Sign(slot) | Self::Decrypt(slot) | Self::Agree(slot) => Some(slot.reference()),
            Self::MakeKey(slot) | Self::MoveKey(slot) | Self::DeleteKey(slot) => Some(slot.reference()),
        }
    }

    /// The private key that it uses.
    pub const fn used_key(self) -> Option<Slot> {
        match self {
            Self::Sign(slot) | Self::Decrypt(slot) | Self::Agree(slot) => Some(slot),
            _ => None,
        }
    }

    /// Whether it changes the card, so that a host needs the permission to administer.
    pub const fn administers(self) -> bool {
        match self {
            Self::VerifyPin | Self::ChangePin | Self::ChangePuk | Self::VerifyOwner => false,
            Self::Sign(_) | Self::Decrypt(_) | Self::Agree(_) => false,
            Self::UnblockPin | Self::AskForWitness | Self::ProveManagementKey | Self::SetManagementKey => true,
            Self::WriteObject
            | Self::MakeKey(_)
            | Self::MoveKey(_)
            | Self::DeleteKey(_)
            | Self::SetTries
            | Self::MakeNew => true,
        }
    }

    /// Whether it is only a step towards another deed, so that it matters when it is refused.
    pub const fn is_step(self) -> bool {
        matches!(self, Self::AskForWitness)
    }

    /// Whether it compares a secret that a person knows.
    pub const fn compares_pin(self) -> bool {
        matches!(self, Self::VerifyPin | Self::ChangePin | Self::ChangePuk | Self::UnblockPin)
    }
}

impl From<PinPurpose> for Deed {
    fn from(purpose: PinPurpose) -> Self {
        match purpose {
            PinPurpose::Verify => Self::VerifyPin,
            PinPurpose::Change => Self::ChangePin,
            PinPurpose::ChangePuk => Self::ChangePuk,
            PinPurpose::Unblock => Self::UnblockPin,
        }
    }
}
