//! The commands that enrolment gives in the owner's own card session.
//!
//! Spec: SP 800-73-4 part 2, section 3; Yubico PIV extensions (GET METADATA)

use pocketcard_protocol::{
    apdu::{Command, StatusWord},
    tlv::{self, Writer},
};
use sha2::{Digest as _, Sha256, Sha384};
use x509_cert::{
    der::Decode as _,
    spki::{EncodePublicKey as _, SubjectPublicKeyInfo, SubjectPublicKeyInfoOwned},
};
use zeroize::Zeroizing;

use super::{EnrolmentError, certificate::CardKey};
use crate::{
    card::piv::{RequestedPolicies, Slot},
    runtime::{OwnerSession, Phone},
    traits::KeyAlgorithm,
};

/// As much as a response can hold.
const EVERYTHING: Option<u32> = Some(65_536);

/// "File not found", the answer to GET DATA of an empty object.
const OBJECT_NOT_FOUND: u16 = 0x6A82;

/// "Referenced data not found", the answer to GET METADATA of an empty slot.
const KEY_NOT_FOUND: u16 = 0x6A88;

/// DigestInfo of a SHA-256 digest up to the digest. Spec: RFC 8017, section 9.2, note 1
const SHA256_DIGEST_INFO: [u8; 19] =
    [0x30, 0x31, 0x30, 0x0D, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20];
const RSA_LENGTH: usize = 256;

/// The owner's card session while enrolment has it. Ends with a reset, so that no verified PIN stays behind.
pub(super) struct Session {
    exclusive: OwnerSession,
}

impl Session {
    pub(super) fn begin(phone: &Phone) -> Result<Self, EnrolmentError> {
        Ok(Self { exclusive: phone.owner_session().ok_or(EnrolmentError::Busy)? })
    }

    /// Makes a key; the one that was in the slot is destroyed.
    pub(super) async fn generate(
        &self,
        slot: Slot,
        algorithm: KeyAlgorithm,
        policies: RequestedPolicies,
    ) -> Result<CardKey, EnrolmentError> {
        let mut template = Writer::new();
        template.nest(0xAC, |inner| {
            inner.put(0x80, &[algorithm_code(algorithm)]);
            if let Some(pin) = policies.pin {
                inner.put(0xAA, &[pin.identifier()]);
            }
            if let Some(touch) = policies.touch {
                inner.put(0xAB, &[touch.identifier()]);
            }
        });
        let header = [0x47, 0x00, slot.reference()];
        let answer = self.transmit("GENERATE ASYMMETRIC KEY PAIR", header, &template.into_bytes(), EVERYTHING).await?;
        let public = public_key(algorithm, tlv::only(&answer, 0x7F49)?)?;
        Ok(CardKey { slot, algorithm, public })
    }

    /// The key in a slot; `None` if there is none.
    pub(super) async fn key(&self, slot: Slot) -> Result<Option<CardKey>, EnrolmentError> {
        let header = [0xF7, 0x00, slot.reference()];
        let answer = match self.transmit("GET METADATA", header, &[], EVERYTHING).await {
            Ok(answer) => answer,
            Err(EnrolmentError::Refused { status, .. }) if u16::from(status) == KEY_NOT_FOUND => return Ok(None),
            Err(error) => return Err(error),
        };
        let part = |tag| tlv::find(&answer, tag)?.ok_or(EnrolmentError::Incomplete);
        let algorithm = match part(0x01)? {
            [code] => algorithm_of(*code).ok_or(EnrolmentError::Incomplete)?,
            _ => return Err(EnrolmentError::Incomplete),
        };
        let public = public_key(algorithm, part(0x04)?)?;
        Ok(Some(CardKey { slot, algorithm, public }))
    }

    pub(super) async fn verify(&self, pin: &[u8; 8]) -> Result<(), EnrolmentError> {
        match self.transmit("VERIFY", [0x20, 0x00, 0x80], pin, None).await {
            Err(EnrolmentError::Refused { status: StatusWord::RemainingTries(tries_left), .. }) => {
                Err(EnrolmentError::WrongPin { tries_left })
            }
            Err(EnrolmentError::Refused { status: StatusWord::AuthenticationMethodBlocked, .. }) => {
                Err(EnrolmentError::PinBlocked)
            }
            result => result.map(drop),
        }
    }

    /// Signs with a key of the card, after the PIN where the key asks for it.
    pub(super) async fn sign(
        &self,
        key: &CardKey,
        pin: &[u8; 8],
        message: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, EnrolmentError> {
        self.verify(pin).await?;
        let input = match key.algorithm {
            KeyAlgorithm::EccP256 => Sha256::digest(message).to_vec(),
            KeyAlgorithm::EccP384 => Sha384::digest(message).to_vec(),
            KeyAlgorithm::Rsa2048 => pkcs1_padded(&Sha256::digest(message)),
        };
        let mut template = Writer::new();
        template.nest(0x7C, |inner| {
            inner.put(0x82, &[]).put(0x81, &input);
        });
        let header = [0x87, algorithm_code(key.algorithm), key.slot.reference()];
        let answer = self.transmit("GENERAL AUTHENTICATE", header, &template.into_bytes(), EVERYTHING).await?;
        let signature = tlv::only(tlv::only(&answer, 0x7C)?, 0x82)?;
        Ok(Zeroizing::new(signature.to_vec()))
    }

    /// The certificate in a slot; `None` if there is none.
    pub(super) async fn certificate(&self, slot: Slot) -> Result<Option<Vec<u8>>, EnrolmentError> {
        let mut data = Writer::new();
        data.put(0x5C, &tag(slot));
        let object = match self.transmit("GET DATA", [0xCB, 0x3F, 0xFF], &data.into_bytes(), EVERYTHING).await {
            Ok(object) => object,
            Err(EnrolmentError::Refused { status, .. }) if u16::from(status) == OBJECT_NOT_FOUND => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(tlv::find(tlv::only(&object, 0x53)?, 0x70)?.map(<[u8]>::to_vec))
    }

    pub(super) async fn store(&self, slot: Slot, certificate: &[u8]) -> Result<(), EnrolmentError> {
        self.put(slot, |inner| {
            inner.put(0x70, certificate).put(0x71, &[0]).put(0xFE, &[]);
        })
        .await
    }

    pub(super) async fn remove_certificate(&self, slot: Slot) -> Result<(), EnrolmentError> {
        self.put(slot, |_| {}).await
    }

    async fn put(&self, slot: Slot, content: impl FnOnce(&mut Writer)) -> Result<(), EnrolmentError> {
        let mut object = Writer::new();
        object.put(0x5C, &tag(slot)).nest(0x53, content);
        self.transmit("PUT DATA", [0xDB, 0x3F, 0xFF], &object.into_bytes(), None).await.map(drop)
    }

    async fn transmit(
        &self,
        name: &'static str,
        [ins, p1, p2]: [u8; 3],
        data: &[u8],
        le: Option<u32>,
    ) -> Result<Zeroizing<Vec<u8>>, EnrolmentError> {
        let response = self.exclusive.transmit(Command::new(0, ins, p1, p2, data, le)?).await?;
        if response.status().is_success() {
            Ok(Zeroizing::new(response.data().to_vec()))
        } else {
            Err(EnrolmentError::Refused { command: name, status: response.status() })
        }
    }
}

/// The three octets of a certificate object's tag.
fn tag(slot: Slot) -> [u8; 3] {
    let [_, tag @ ..] = slot.certificate().number().to_be_bytes();
    tag
}

/// Codes of SP 800-78-4, table 6-2.
const fn algorithm_code(algorithm: KeyAlgorithm) -> u8 {
    match algorithm {
        KeyAlgorithm::Rsa2048 => 0x07,
        KeyAlgorithm::EccP256 => 0x11,
        KeyAlgorithm::EccP384 => 0x14,
    }
}

fn algorithm_of(code: u8) -> Option<KeyAlgorithm> {
    [KeyAlgorithm::Rsa2048, KeyAlgorithm::EccP256, KeyAlgorithm::EccP384]
        .into_iter()
        .find(|algorithm| algorithm_code(*algorithm) == code)
}

fn public_key(algorithm: KeyAlgorithm, template: &[u8]) -> Result<SubjectPublicKeyInfoOwned, EnrolmentError> {
    let part = |tag| tlv::find(template, tag)?.ok_or(EnrolmentError::Incomplete);
    let document = match algorithm {
        KeyAlgorithm::EccP256 => {
            p256::PublicKey::from_sec1_bytes(part(0x86)?).map_err(|_| EnrolmentError::Incomplete)?.to_public_key_der()
        }
        KeyAlgorithm::EccP384 => {
            p384::PublicKey::from_sec1_bytes(part(0x86)?).map_err(|_| EnrolmentError::Incomplete)?.to_public_key_der()
        }
        KeyAlgorithm::Rsa2048 => {
            let modulus = rsa::BoxedUint::from_be_slice_vartime(part(0x81)?);
            let exponent = rsa::BoxedUint::from_be_slice_vartime(part(0x82)?);
            rsa::PublicKey::new(modulus, exponent).map_err(|_| EnrolmentError::Incomplete)?.to_public_key_der()
        }
    }?;
    Ok(SubjectPublicKeyInfo::from_der(document.as_bytes())?)
}

/// Spec: RFC 8017, section 9.2
fn pkcs1_padded(digest: &[u8]) -> Vec<u8> {
    let tail = [&[0x00], SHA256_DIGEST_INFO.as_slice(), digest].concat();
    let mut block = vec![0x00, 0x01];
    block.resize(RSA_LENGTH - tail.len(), 0xFF);
    block.extend_from_slice(&tail);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_padded_digest_fills_the_modulus() {
        let block = pkcs1_padded(&[0xAB; 32]);
        assert_eq!(block.len(), RSA_LENGTH);
        assert_eq!(block[..3], [0, 1, 0xFF]);
        assert_eq!(block[RSA_LENGTH - 52..RSA_LENGTH - 50], [0, 0x30]);
        assert!(block[2..RSA_LENGTH - 52].iter().all(|byte| *byte == 0xFF));
    }
}
