//! Data objects: their tags, who may read them, and what the card says where nobody has written anything.
//!
//! Spec: SP 800-73-4 part 1, section 3, tables 2, 3 and 7; appendix A

use std::fmt;

use pocketcard_protocol::tlv::Writer;

use super::reference::{RetiredIndex, Slot};

/// The complete application identifier of the PIV card application.
///
/// Spec: SP 800-73-4 part 1, section 2.2
pub(crate) const PIV_AID: [u8; 11] = [0xA0, 0x00, 0x00, 0x03, 0x08, 0x00, 0x00, 0x10, 0x00, 0x01, 0x00];

/// Longest content of one object. The largest that the standard names is the facial image with 12,710 octets.
pub(crate) const OBJECT_LIMIT: usize = 16 * 1024;
/// Objects that a card holds at most.
pub(crate) const OBJECT_COUNT_LIMIT: usize = 128;
/// Octets of content that a card holds at most.
pub(crate) const TOTAL_LIMIT: usize = 256 * 1024;

/// Tag of a data object, 1 to 3 octets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectTag(u32);

impl ObjectTag {
    /// Discovery object.
    pub const DISCOVERY: Self = Self(0x7E);
    /// Biometric information templates group template.
    pub const BIOMETRIC_TEMPLATES: Self = Self(0x7F61);
    /// X.509 certificate for card authentication (9E).
    pub const CARD_AUTHENTICATION_CERTIFICATE: Self = Self(0x5F_C101);
    /// Card holder unique identifier.
    pub const CHUID: Self = Self(0x5F_C102);
    /// Cardholder fingerprints.
    pub const FINGERPRINTS: Self = Self(0x5F_C103);
    /// X.509 certificate for PIV authentication (9A).
    pub const AUTHENTICATION_CERTIFICATE: Self = Self(0x5F_C105);
    /// Security object.
    pub const SECURITY: Self = Self(0x5F_C106);
    /// Card capability container.
    pub const CAPABILITY: Self = Self(0x5F_C107);
    /// Cardholder facial image.
    pub const FACIAL_IMAGE: Self = Self(0x5F_C108);
    /// Printed information; management tools keep a PIN-protected management key in it.
    pub const PRINTED: Self = Self(0x5F_C109);
    /// X.509 certificate for digital signature (9C).
    pub const SIGNATURE_CERTIFICATE: Self = Self(0x5F_C10A);
    /// X.509 certificate for key management (9D).
    pub const KEY_MANAGEMENT_CERTIFICATE: Self = Self(0x5F_C10B);
    /// Key history.
    pub const KEY_HISTORY: Self = Self(0x5F_C10C);
    /// Cardholder iris images.
    pub const IRIS: Self = Self(0x5F_C121);
    /// Secure messaging certificate signer.
    pub const SECURE_MESSAGING_SIGNER: Self = Self(0x5F_C122);
    /// Pairing code reference data.
    pub const PAIRING_CODE: Self = Self(0x5F_C123);

    /// The certificate of a retired key management key.
    pub const fn retired_certificate(index: RetiredIndex) -> Self {
        Self(0x5F_C10C + index.number() as u32)
    }

    /// Reads a tag of 1 to 3 octets. It need not be a well-formed BER tag: tools write objects under `5F0001`. `None` if it is
    /// shorter, longer, or begins with 0.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let tag = match *bytes {
            [a] => [0, 0, 0, a],
            [a, b] => [0, 0, a, b],
            [a, b, c] => [0, a, b, c],
            _ => return None,
        };
        (bytes.first() != Some(&0)).then(|| Self(u32::from_be_bytes(tag)))
    }

    /// The tag as a number, most significant octet first.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Whether the object travels bare, without `53` around it.
    pub const fn is_bare(self) -> bool {
        matches!(self, Self::DISCOVERY | Self::BIOMETRIC_TEMPLATES)
    }

    /// The objects that [`ObjectTag::needs_pin`].
    pub(crate) const NEED_PIN: [Self; 5] =
        [Self::FINGERPRINTS, Self::FACIAL_IMAGE, Self::PRINTED, Self::IRIS, Self::PAIRING_CODE];

    /// Whether reading asks for the PIN, even to learn that the object is empty.
    pub fn needs_pin(self) -> bool {
        Self::NEED_PIN.contains(&self)
    }

    /// Name of a known object for people.
    fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::DISCOVERY => "discovery",
            Self::BIOMETRIC_TEMPLATES => "biometric templates",
            Self::CARD_AUTHENTICATION_CERTIFICATE => "certificate 9E",
            Self::CHUID => "CHUID",
            Self::FINGERPRINTS => "fingerprints",
            Self::AUTHENTICATION_CERTIFICATE => "certificate 9A",
            Self::SECURITY => "security object",
            Self::CAPABILITY => "capability container",
            Self::FACIAL_IMAGE => "facial image",
            Self::PRINTED => "printed information",
            Self::SIGNATURE_CERTIFICATE => "certificate 9C",
            Self::KEY_MANAGEMENT_CERTIFICATE => "certificate 9D",
            Self::KEY_HISTORY => "key history",
            Self::IRIS => "iris images",
            Self::SECURE_MESSAGING_SIGNER => "secure messaging signer",
            Self::PAIRING_CODE => "pairing code",
            _ => return None,
        })
    }
}

impl fmt::Display for ObjectTag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self.0) {
            (Some(name), _) => formatter.write_str(name),
            // The certificate of retired key n is 5FC10C + n, its key reference 81 + n.
            (None, 0x5F_C10D..=0x5F_C120) => write!(formatter, "certificate {:02X}", self.0 - 0x5F_C10C + 0x81),
            (None, number) => write!(formatter, "object {number:02X}"),
        }
    }
}

impl fmt::Debug for ObjectTag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ObjectTag({:02X})", self.0)
    }
}

/// A CHUID of this card, unsigned, with a FASC-N outside the federal number space (agency 9999), so that hosts name the card
/// by its GUID.
///
/// Spec: SP 800-73-4 part 1, section 3.1.2 and appendix A, table 9
pub(crate) fn chuid(guid: &[u8; 16]) -> Vec<u8> {
    /// 9999-9999-999999-0-1-0000000000300001
    const FASC_N: [u8; 25] = [
        0xD4, 0xE7, 0x39, 0xDA, 0x73, 0x9C, 0xED, 0x39, 0xCE, 0x73, 0x9D, 0x83, 0x68, 0x58, 0x21, 0x08, 0x42, 0x10,
        0x84, 0x21, 0xC8, 0x42, 0x10, 0xC3, 0xEB,
    ];
    let mut writer = Writer::new();
    writer.put(0x30, &FASC_N);
    writer.put(0x34, guid);
    writer.put(0x35, b"20991231");
    writer.put(0x3E, &[]);
    writer.put(0xFE, &[]);
    writer.into_bytes().to_vec()
}

/// A capability container with this card identifier.
///
/// Spec: SP 800-73-4 part 1, section 3.1.1 and appendix A, table 8; GSC-IS 2.1, section 6.3
pub(crate) fn capability_container(card_identifier: &[u8; 14]) -> Vec<u8> {
    let mut identifier = vec![0xA0, 0x00, 0x00, 0x01, 0x16, 0xFF, 0x02];
    identifier.extend_from_slice(card_identifier);
    let mut writer = Writer::new();
    writer.put(0xF0, &identifier);
    writer.put(0xF1, &[0x21]);
    writer.put(0xF2, &[0x21]);
    writer.put(0xF3, &[]);
    writer.put(0xF4, &[0x00]);
    writer.put(0xF5, &[0x10]);
    for tag in [0xF6, 0xF7, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE] {
        writer.put(tag, &[]);
    }
    writer.into_bytes().to_vec()
}

/// Content of the discovery object: this application, and a PIN usage policy that knows the application's own PIN alone.
///
/// Spec: SP 800-73-4 part 1, section 3.3.2
pub(crate) fn discovery() -> Vec<u8> {
    let mut writer = Writer::new();
    writer.put(0x4F, &PIV_AID);
    writer.put(0x5F2F, &[0x40, 0x00]);
    writer.into_bytes().to_vec()
}

/// Content of a key history that nobody wrote. Readers take the first C1 retired slots, so C1 is the highest slot in use.
///
/// Spec: SP 800-73-4 part 1, section 3.3.3
pub(crate) fn key_history(highest_retired: u8) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.put(0xC1, &[highest_retired]);
    writer.put(0xC2, &[0]);
    if highest_retired > 0 {
        writer.put(0xF3, &[]);
    }
    writer.put(0xFE, &[]);
    writer.into_bytes().to_vec()
}

/// The retired slot whose certificate this is.
pub(crate) fn retired_slot(tag: ObjectTag) -> Option<RetiredIndex> {
    let number = tag.number().checked_sub(0x5F_C10C)?;
    let index = RetiredIndex::new(u8::try_from(number).ok()?)?;
    debug_assert_eq!(Slot::Retired(index).certificate(), tag);
    Some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_one_to_three_octets_are_read_and_nothing_else() {
        for (bytes, number) in [
            (&[0x7E][..], Some(0x7E)),
            (&[0x7F, 0x61], Some(0x7F61)),
            (&[0x5F, 0xC1, 0x02], Some(0x5F_C102)),
            (&[0x5F, 0xFF, 0x00], Some(0x5F_FF00)),
            (&[0x5F, 0xFF, 0x91], Some(0x5F_FF91)),
            (&[0x5F, 0x00, 0x01], Some(0x5F_0001)),
            (&[0x5F, 0xC1], Some(0x5FC1)),
            (&[], None),
            (&[0x00], None),
            (&[0x00, 0x42], None),
            (&[0x5F, 0xC1, 0x02, 0x00], None),
        ] {
            assert_eq!(ObjectTag::from_bytes(bytes).map(ObjectTag::number), number, "{bytes:02X?}");
        }
    }

    #[test]
    fn discovery_is_the_one_of_the_standard() {
        let expected = [0x4F, 0x0B, 0xA0, 0, 0, 3, 8, 0, 0, 0x10, 0, 1, 0, 0x5F, 0x2F, 2, 0x40, 0];
        assert_eq!(discovery(), expected);
    }

    #[test]
    fn a_chuid_holds_its_guid_and_the_number_of_no_agency() {
        let chuid = chuid(&[0xAB; 16]);
        assert_eq!(chuid.len(), 27 + 18 + 10 + 2 + 2);
        assert!(chuid.starts_with(&[0x30, 0x19, 0xD4, 0xE7, 0x39]));
        assert!(chuid.windows(18).any(|part| part[..2] == [0x34, 0x10] && part[2..] == [0xAB; 16]));
    }

    #[test]
    fn an_empty_key_history_names_no_address() {
        assert_eq!(key_history(0), [0xC1, 1, 0, 0xC2, 1, 0, 0xFE, 0]);
        assert_eq!(key_history(3), [0xC1, 1, 3, 0xC2, 1, 0, 0xF3, 0, 0xFE, 0]);
    }

    #[test]
    fn names_say_which_key_a_certificate_belongs_to() {
        assert_eq!(Slot::Authentication.certificate().to_string(), "certificate 9A");
        assert_eq!(Slot::from_reference(0x82).unwrap().certificate().to_string(), "certificate 82");
        assert_eq!(Slot::from_reference(0x95).unwrap().certificate().to_string(), "certificate 95");
        assert_eq!(ObjectTag::from_bytes(&[0x5F, 0xFF, 0x00]).unwrap().to_string(), "object 5FFF00");
    }
}
