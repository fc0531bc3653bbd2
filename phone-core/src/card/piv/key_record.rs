//! What the card's state says about one private key: everything but the key.

use pocketcard_protocol::tlv::{Reader, Writer};

use super::policy::{PinPolicy, Policies, TouchPolicy};
use super::reference::{Shape, key_algorithm, key_identifier, shape};
use crate::traits::{KeyAlgorithm, KeyHandle, PublicKeyData};

/// Where a key was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// In the phone.
    Generated,
}

impl Origin {
    pub(crate) const fn identifier(self) -> u8 {
        match self {
            Self::Generated => 1,
        }
    }

    const fn from_identifier(identifier: u8) -> Option<Self> {
        match identifier {
            1 => Some(Self::Generated),
            _ => None,
        }
    }
}

/// A key of the card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRecord {
    pub(crate) algorithm: KeyAlgorithm,
    pub(crate) policies: Policies,
    pub(crate) origin: Origin,
    pub(crate) handle: KeyHandle,
    /// The objects inside `7F49`.
    pub(crate) public: Vec<u8>,
}

impl KeyRecord {
    /// The stored form.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.put(
            0x80,
            &[
                key_identifier(self.algorithm),
                self.policies.pin.identifier(),
                self.policies.touch.identifier(),
                self.origin.identifier(),
            ],
        );
        writer.put(0x81, self.handle.as_bytes());
        writer.put(0x82, &self.public);
        writer.into_bytes().to_vec()
    }

    /// Reads the stored form.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (mut rules, mut handle, mut public) = (None, None, None);
        for object in Reader::new(bytes) {
            let object = object.ok()?;
            match object.tag {
                0x80 => rules = Some(<[u8; 4]>::try_from(object.value).ok()?),
                0x81 => handle = Some(KeyHandle::new(object.value.to_vec())),
                0x82 => public = Some(object.value.to_vec()),
                _ => return None,
            }
        }
        let [algorithm, pin, touch, origin] = rules?;
        let policies =
            Policies { pin: PinPolicy::from_identifier(pin).ok()??, touch: TouchPolicy::from_identifier(touch).ok()?? };
        Some(Self {
            algorithm: key_algorithm(algorithm)?,
            policies,
            origin: Origin::from_identifier(origin)?,
            handle: handle?,
            public: public?,
        })
    }
}

/// The objects inside `7F49` for a public key; `None` if it is not one of this algorithm.
///
/// Spec: SP 800-73-4 part 2, tables 12 and 13
pub(crate) fn public_key_objects(algorithm: KeyAlgorithm, public: &PublicKeyData) -> Option<Vec<u8>> {
    let mut writer = Writer::new();
    match (shape(algorithm), public) {
        (Shape::Curve(field), PublicKeyData::Ecc { point }) => {
            if point.len() != 2 * field + 1 || point.first() != Some(&0x04) {
                return None;
            }
            writer.put(0x86, point);
        }
        (Shape::Modulus(length), PublicKeyData::Rsa { modulus, exponent }) => {
            if modulus.len() != length || exponent.is_empty() {
                return None;
            }
            writer.put(0x81, modulus);
            writer.put(0x82, exponent);
        }
        _ => return None,
    }
    Some(writer.into_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_reads_back() {
        let record = KeyRecord {
            algorithm: KeyAlgorithm::EccP384,
            policies: Policies { pin: PinPolicy::Always, touch: TouchPolicy::Cached },
            origin: Origin::Generated,
            handle: KeyHandle::new(vec![1, 2, 3]),
            public: vec![0x86, 1, 4],
        };
        let bytes = record.to_bytes();
        assert_eq!(KeyRecord::from_bytes(&bytes), Some(record));
        assert_eq!(KeyRecord::from_bytes(&bytes[..bytes.len() - 1]), None);
    }

    #[test]
    fn a_public_key_of_another_algorithm_is_refused() {
        let mut point = vec![4];
        point.extend([1; 64]);
        let p256 = PublicKeyData::Ecc { point: point.clone() };
        assert_eq!(public_key_objects(KeyAlgorithm::EccP256, &p256).unwrap().len(), 67);
        assert_eq!(public_key_objects(KeyAlgorithm::EccP384, &p256), None);
        assert_eq!(public_key_objects(KeyAlgorithm::Rsa2048, &p256), None);
        point[0] = 2;
        assert_eq!(public_key_objects(KeyAlgorithm::EccP256, &PublicKeyData::Ecc { point }), None);
        let rsa = PublicKeyData::Rsa { modulus: vec![0x80; 256], exponent: vec![1, 0, 1] };
        let objects = public_key_objects(KeyAlgorithm::Rsa2048, &rsa).unwrap();
        assert!(objects.starts_with(&[0x81, 0x82, 0x01, 0x00]) && objects.ends_with(&[0x82, 3, 1, 0, 1]));
    }
}
