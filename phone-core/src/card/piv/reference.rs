//! Key references and algorithm identifiers as types, so that a handler cannot be given a key it has no rule for.
//!
//! Spec: SP 800-73-4 part 1, tables 4a, 4b and 5; SP 800-78-4, table 6-2

use std::fmt;

use super::objects::ObjectTag;
use super::policy::PinPolicy;
use crate::traits::KeyAlgorithm;

/// A place for a private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// 9A, PIV authentication.
    Authentication,
    /// 9C, digital signature.
    Signature,
    /// 9D, key management.
    KeyManagement,
    /// 9E, card authentication.
    CardAuthentication,
    /// 82 to 95, retired key management.
    Retired(RetiredIndex),
}

/// Number of a retired key management key, 1 to 20.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RetiredIndex(u8);

impl RetiredIndex {
    /// The retired key with this number, counted from 1.
    pub const fn new(number: u8) -> Option<Self> {
        if number >= 1 && number <= 20 { Some(Self(number)) } else { None }
    }

    /// The number, 1 to 20.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl Slot {
    /// The slot that a key reference names; `None` if it names something else or nothing.
    pub const fn from_reference(reference: u8) -> Option<Self> {
        match reference {
            0x9A => Some(Self::Authentication),
            0x9C => Some(Self::Signature),
            0x9D => Some(Self::KeyManagement),
            0x9E => Some(Self::CardAuthentication),
            0x82..=0x95 => Some(Self::Retired(RetiredIndex(reference - 0x81))),
            _ => None,
        }
    }

    /// The key reference on the wire.
    pub const fn reference(self) -> u8 {
        match self {
            Self::Authentication => 0x9A,
            Self::Signature => 0x9C,
            Self::KeyManagement => 0x9D,
            Self::CardAuthentication => 0x9E,
            Self::Retired(RetiredIndex(number)) => 0x81 + number,
        }
    }

    /// The object that holds this key's certificate.
    pub const fn certificate(self) -> ObjectTag {
        match self {
            Self::Authentication => ObjectTag::AUTHENTICATION_CERTIFICATE,
            Self::Signature => ObjectTag::SIGNATURE_CERTIFICATE,
            Self::KeyManagement => ObjectTag::KEY_MANAGEMENT_CERTIFICATE,
            Self::CardAuthentication => ObjectTag::CARD_AUTHENTICATION_CERTIFICATE,
            Self::Retired(index) => ObjectTag::retired_certificate(index),
        }
    }

    /// The slot's PIN rule where the key was made without one.
    ///
    /// Spec: SP 800-73-4 part 1, table 4b
    pub const fn default_pin_policy(self) -> PinPolicy {
        match self {
            Self::Signature => PinPolicy::Always,
            Self::CardAuthentication => PinPolicy::Never,
            Self::Authentication | Self::KeyManagement | Self::Retired(_) => PinPolicy::Once,
        }
    }

    /// Whether the slot's standard use is key establishment, so that a raw RSA operation is taken for a decryption.
    pub const fn is_key_management(self) -> bool {
        matches!(self, Self::KeyManagement | Self::Retired(_))
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:02X}", self.reference())
    }
}

/// Reference data that a person knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinReference {
    /// 80, the PIV card application PIN.
    Pin,
    /// 81, the PIN unblocking key.
    Puk,
}

impl PinReference {
    /// The key reference on the wire.
    pub const fn identifier(self) -> u8 {
        match self {
            Self::Pin => 0x80,
            Self::Puk => 0x81,
        }
    }
}

/// Whatever GET METADATA can be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataReference {
    /// A private key.
    Slot(Slot),
    /// PIN or PUK.
    Pin(PinReference),
    /// 9B, the card management key.
    Management,
    /// 96, the comparison by face or fingerprint.
    Biometric,
}

/// Algorithm of the card management key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManagementAlgorithm {
    /// 08
    Aes128,
    /// 0A
    Aes192,
    /// 0C
    Aes256,
}

impl ManagementAlgorithm {
    /// The algorithm with this identifier.
    pub const fn from_identifier(identifier: u8) -> Option<Self> {
        match identifier {
            0x08 => Some(Self::Aes128),
            0x0A => Some(Self::Aes192),
            0x0C => Some(Self::Aes256),
            _ => None,
        }
    }

    /// The identifier on the wire.
    pub const fn identifier(self) -> u8 {
        match self {
            Self::Aes128 => 0x08,
            Self::Aes192 => 0x0A,
            Self::Aes256 => 0x0C,
        }
    }

    /// Octets of a key.
    pub const fn key_length(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes192 => 24,
            Self::Aes256 => 32,
        }
    }
}

/// The algorithm of a private key with this identifier.
pub(crate) const fn key_algorithm(identifier: u8) -> Option<KeyAlgorithm> {
    match identifier {
        0x07 => Some(KeyAlgorithm::Rsa2048),
        0x11 => Some(KeyAlgorithm::EccP256),
        0x14 => Some(KeyAlgorithm::EccP384),
        _ => None,
    }
}

/// The identifier of a private key's algorithm.
pub(crate) const fn key_identifier(algorithm: KeyAlgorithm) -> u8 {
    match algorithm {
        KeyAlgorithm::Rsa2048 => 0x07,
        KeyAlgorithm::EccP256 => 0x11,
        KeyAlgorithm::EccP384 => 0x14,
    }
}

/// What a private key takes and gives, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A curve with field elements of this length.
    Curve(usize),
    /// RSA with a modulus of this length.
    Modulus(usize),
}

/// The lengths of an algorithm.
pub(crate) const fn shape(algorithm: KeyAlgorithm) -> Shape {
    match algorithm {
        KeyAlgorithm::EccP256 => Shape::Curve(32),
        KeyAlgorithm::EccP384 => Shape::Curve(48),
        KeyAlgorithm::Rsa2048 => Shape::Modulus(256),
    }
}

/// Name of an algorithm for people.
pub(crate) const fn algorithm_name(algorithm: KeyAlgorithm) -> &'static str {
    match algorithm {
        KeyAlgorithm::EccP256 => "P-256",
        KeyAlgorithm::EccP384 => "P-384",
        KeyAlgorithm::Rsa2048 => "RSA-2048",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_is_a_slot_or_none() {
        let mut slots = 0;
        for reference in 0..=0xFF {
            if let Some(slot) = Slot::from_reference(reference) {
                assert_eq!(slot.reference(), reference);
                slots += 1;
            }
        }
        assert_eq!(slots, 24);
        assert_eq!(Slot::from_reference(0x9B), None);
        assert_eq!(Slot::from_reference(0x81), None);
        assert_eq!(Slot::from_reference(0x96), None);
    }

    #[test]
    fn certificates_of_retired_keys_are_in_order() {
        assert_eq!(
            Slot::from_reference(0x82).unwrap().certificate(),
            ObjectTag::from_bytes(&[0x5F, 0xC1, 0x0D]).unwrap()
        );
        assert_eq!(
            Slot::from_reference(0x95).unwrap().certificate(),
            ObjectTag::from_bytes(&[0x5F, 0xC1, 0x20]).unwrap()
        );
    }
}
