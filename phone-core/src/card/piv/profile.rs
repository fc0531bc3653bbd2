//! What this card says it can do.

use pocketcard_protocol::tlv::Writer;

use super::objects::PIV_AID;
use super::policy::TouchPolicy;
use super::reference::{ManagementAlgorithm, key_identifier};
use crate::traits::KeyAlgorithm;

/// Version of the Yubico extension that the card follows; programs choose commands by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Major number; programs expect 5.
    pub major: u8,
    /// Minor number; 7 or more for AES-192 as the initial management key and for MOVE KEY.
    pub minor: u8,
    /// Patch number.
    pub patch: u8,
}

impl Version {
    /// The compatibility level of this card.
    pub const COMPATIBILITY: Self = Self { major: 5, minor: 7, patch: 4 };

    pub(crate) const fn to_bytes(self) -> [u8; 3] {
        [self.major, self.minor, self.patch]
    }
}

/// Everything that varies between one card and another without being state.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) version: Version,
    /// What the key store can make.
    pub(crate) algorithms: Vec<KeyAlgorithm>,
    /// Whether keys ask the owner where nothing else was said.
    pub(crate) confirm: TouchPolicy,
    /// Tries of PIN and PUK that only the owner may use, on the phone.
    pub(crate) kept_tries: u8,
    /// Whether the phone can check that it is its owner, by face or fingerprint.
    pub(crate) owner_verification: bool,
    /// Shown in place of the serial number that was made up when the card was new.
    pub(crate) serial: Option<u32>,
}

impl Profile {
    /// The application property template, the answer to SELECT.
    ///
    /// Spec: SP 800-73-4 part 2, tables 3 to 5
    pub(crate) fn application_property_template(&self) -> Vec<u8> {
        let (provider, extension) = PIV_AID.split_at(5);
        let mut writer = Writer::new();
        writer.nest(0x61, |writer| {
            writer.put(0x4F, extension);
            writer.nest(0x79, |writer| {
                writer.put(0x4F, provider);
            });
            writer.put(0x50, b"Pocketcard");
            writer.nest(0xAC, |writer| {
                for algorithm in &self.algorithms {
                    writer.put(0x80, &[key_identifier(*algorithm)]);
                }
                for algorithm in [ManagementAlgorithm::Aes128, ManagementAlgorithm::Aes192, ManagementAlgorithm::Aes256]
                {
                    writer.put(0x80, &[algorithm.identifier()]);
                }
                writer.put(0x06, &[0x00]);
            });
        });
        writer.into_bytes().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    #[test]
    fn the_template_names_the_application_and_its_algorithms() {
        let profile = Profile {
            version: Version::COMPATIBILITY,
            algorithms: vec![KeyAlgorithm::Rsa2048, KeyAlgorithm::EccP256],
            confirm: TouchPolicy::Never,
            kept_tries: 0,
            owner_verification: false,
            serial: None,
        };
        let expected = hex!(
            "61 31 4F 06 000010000100 79 07 4F 05 A000000308 50 0A 506F636B657463617264"
            "AC 12 80 01 07 80 01 11 80 01 08 80 01 0A 80 01 0C 06 01 00"
        );
        assert_eq!(profile.application_property_template(), expected);
    }
}
