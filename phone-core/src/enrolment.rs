//! Keys and certificates made on the phone itself, by the same commands that a computer would send, in the owner's own session.

use std::{str::FromStr, time::Duration};

use pocketcard_protocol::{
    apdu::{ApduError, Command, StatusWord},
    tlv::{self, TlvError, Writer},
};
use rsa::signature::Keypair;
use sha2::{Digest, Sha256, Sha384};
use x509_cert::{
    Certificate,
    builder::{self, Builder, CertificateBuilder, profile::BuilderProfile},
    certificate::TbsCertificate,
    der::{
        Decode, Encode,
        asn1::{Any, BitString, ObjectIdentifier},
        flagset::FlagSet,
    },
    ext::{
        Extension,
        pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages},
    },
    name::Name,
    serial_number::SerialNumber,
    spki::{
        self, AlgorithmIdentifierOwned, Document, DynSignatureAlgorithmIdentifier, EncodePublicKey,
        SubjectPublicKeyInfo, SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef,
    },
    time::Validity,
};
use zeroize::Zeroizing;

use crate::{
    runtime::{Phone, PhoneError},
    traits::{Entropy, EntropyError, KeyAlgorithm},
};

const VALIDITY: Duration = Duration::from_secs(10 * 365 * 86_400);
const SERIAL_LENGTH: usize = 16;
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const RSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");

/// DigestInfo of a SHA-256 digest up to the digest. Spec: RFC 8017, section 9.2, note 1
const SHA256_DIGEST_INFO: [u8; 19] =
    [0x30, 0x31, 0x30, 0x0D, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20];
const RSA_LENGTH: usize = 256;

/// "File not found", the answer to GET DATA of an empty object.
const NOT_FOUND: u16 = 0x6A82;

/// Why the phone could not be enrolled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnrolmentError {
    /// The phone does not run.
    #[error(transparent)]
    Phone(#[from] PhoneError),
    /// The card refused a command.
    #[error("the card refused {command} with status {:04X}", u16::from(*status))]
    Refused {
        /// Name of the command.
        command: &'static str,
        /// What it answered.
        status: StatusWord,
    },
    /// A PIN has 6 to 8 digits.
    #[error("a PIN has 6 to 8 digits")]
    PinForm,
    /// A command could not be built.
    #[error(transparent)]
    Command(#[from] ApduError),
    /// The card's answer is not what the standard says.
    #[error("the card's answer cannot be read: {0}")]
    Answer(#[from] TlvError),
    /// The card's answer lacks something.
    #[error("the card's answer is incomplete")]
    Incomplete,
    /// The certificate could not be built.
    #[error("the certificate cannot be built")]
    Certificate(#[source] builder::Error),
    /// The random source failed.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

impl From<builder::Error> for EnrolmentError {
    fn from(error: builder::Error) -> Self {
        Self::Certificate(error)
    }
}

impl From<x509_cert::der::Error> for EnrolmentError {
    fn from(error: x509_cert::der::Error) -> Self {
        Self::Certificate(error.into())
    }
}

impl From<spki::Error> for EnrolmentError {
    fn from(error: spki::Error) -> Self {
        Self::Certificate(error.into())
    }
}

/// One of the four keys of every PIV card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// 9A, PIV authentication: login, ssh.
    Authentication,
    /// 9C, digital signature.
    Signature,
    /// 9D, key management: decryption or key agreement.
    KeyManagement,
    /// 9E, card authentication: no PIN.
    CardAuthentication,
}

impl Slot {
    /// All four, in the order of their references.
    pub const ALL: [Self; 4] = [Self::Authentication, Self::Signature, Self::KeyManagement, Self::CardAuthentication];

    /// The key reference. Spec: SP 800-73-4 part 1, table 4b
    pub const fn reference(self) -> u8 {
        match self {
            Self::Authentication => 0x9A,
            Self::Signature => 0x9C,
            Self::KeyManagement => 0x9D,
            Self::CardAuthentication => 0x9E,
        }
    }

    /// Tag of the object that holds the certificate. Spec: SP 800-73-4 part 1, table 3
    const fn object(self) -> [u8; 3] {
        match self {
            Self::Authentication => [0x5F, 0xC1, 0x05],
            Self::Signature => [0x5F, 0xC1, 0x0A],
            Self::KeyManagement => [0x5F, 0xC1, 0x0B],
            Self::CardAuthentication => [0x5F, 0xC1, 0x01],
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Authentication => "PIV Authentication",
            Self::Signature => "Digital Signature",
            Self::KeyManagement => "Key Management",
            Self::CardAuthentication => "Card Authentication",
        }
    }

    fn usage(self, algorithm: KeyAlgorithm) -> FlagSet<KeyUsages> {
        match (self, algorithm) {
            (Self::Authentication | Self::CardAuthentication, _) => KeyUsages::DigitalSignature.into(),
            (Self::Signature, _) => KeyUsages::DigitalSignature | KeyUsages::NonRepudiation,
            (Self::KeyManagement, KeyAlgorithm::Rsa2048) => KeyUsages::KeyEncipherment.into(),
            (Self::KeyManagement, KeyAlgorithm::EccP256 | KeyAlgorithm::EccP384) => KeyUsages::KeyAgreement.into(),
        }
    }
}

/// Makes a key of `algorithm` in each of `slots`, and a certificate for it that the key itself signs, valid for ten years.
///
/// - `pin`: the owner's PIN; the keys are used once each.
/// - `organization`: goes into the certificates, as do the names of the slots.
///
/// # Errors
/// [`EnrolmentError`]; slots before the one that failed are done.
pub async fn enrol(
    phone: &Phone,
    pin: &str,
    slots: &[Slot],
    algorithm: KeyAlgorithm,
    organization: &str,
    entropy: &dyn Entropy,
) -> Result<(), EnrolmentError> {
    let card = Session { phone, pin: padded_pin(pin)? };
    let made = card.enrol(slots, algorithm, organization, entropy).await;
    // Also where something failed: the owner's session must not be left with a verified PIN.
    phone.local_reset();
    made
}

/// Whether there is a certificate for the key of `slot`.
///
/// # Errors
/// [`EnrolmentError`]
pub async fn has_certificate(phone: &Phone, slot: Slot) -> Result<bool, EnrolmentError> {
    let mut data = Writer::new();
    data.put(0x5C, &slot.object());
    let command = Command::new(0, 0xCB, 0x3F, 0xFF, &data.into_bytes(), Some(65_536))?;
    let response = phone.local_transmit(command).await?;
    match response.status() {
        status if status.is_success() => Ok(true),
        status if u16::from(status) == NOT_FOUND => Ok(false),
        status => Err(EnrolmentError::Refused { command: "GET DATA", status }),
    }
}

fn padded_pin(pin: &str) -> Result<Zeroizing<[u8; 8]>, EnrolmentError> {
    // Before the card sees it, and counts it.
    if !(6..=8).contains(&pin.len()) || !pin.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(EnrolmentError::PinForm);
    }
    let mut padded = Zeroizing::new([0xFF; 8]);
    padded.iter_mut().zip(pin.bytes()).for_each(|(to, from)| *to = from);
    Ok(padded)
}

/// The owner's card session.
struct Session<'a> {
    phone: &'a Phone,
    pin: Zeroizing<[u8; 8]>,
}

impl Session<'_> {
    async fn enrol(
        &self,
        slots: &[Slot],
        algorithm: KeyAlgorithm,
        organization: &str,
        entropy: &dyn Entropy,
    ) -> Result<(), EnrolmentError> {
        for slot in slots {
            let public = self.generate(*slot, algorithm).await?;
            let certificate = self.certify(*slot, algorithm, public, organization, entropy).await?;
            self.store(*slot, &certificate).await?;
        }
        Ok(())
    }

    async fn transmit(
        &self,
        name: &'static str,
        [ins, p1, p2]: [u8; 3],
        data: &[u8],
        le: Option<u32>,
    ) -> Result<Zeroizing<Vec<u8>>, EnrolmentError> {
        let response = self.phone.local_transmit(Command::new(0, ins, p1, p2, data, le)?).await?;
        if response.status().is_success() {
            Ok(Zeroizing::new(response.data().to_vec()))
        } else {
            Err(EnrolmentError::Refused { command: name, status: response.status() })
        }
    }

    async fn generate(&self, slot: Slot, algorithm: KeyAlgorithm) -> Result<SubjectPublicKeyInfoOwned, EnrolmentError> {
        let mut template = Writer::new();
        template.nest(0xAC, |inner| {
            inner.put(0x80, &[algorithm_code(algorithm)]);
        });
        let header = [0x47, 0x00, slot.reference()];
        let answer =
            self.transmit("GENERATE ASYMMETRIC KEY PAIR", header, &template.into_bytes(), Some(65_536)).await?;
        public_key(algorithm, tlv::only(&answer, 0x7F49)?)
    }

    async fn certify(
        &self,
        slot: Slot,
        algorithm: KeyAlgorithm,
        public: SubjectPublicKeyInfoOwned,
        organization: &str,
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, EnrolmentError> {
        let mut serial = [0; SERIAL_LENGTH];
        entropy.fill(&mut serial)?;
        // Positive and never zero, as the standard wants it.
        if let Some(first) = serial.first_mut() {
            *first = *first & 0x3F | 0x40;
        }
        let profile = Profile { subject: subject(slot, organization)?, slot, algorithm };
        let validity = Validity::from_now(VALIDITY)?;
        let mut builder = CertificateBuilder::new(profile, SerialNumber::new(&serial)?, validity, public.clone())?;
        let signer = CardKey { algorithm, public };
        let unsigned = builder.finalize(&signer)?;
        let signature = self.sign(slot, algorithm, &unsigned).await?;
        let certificate: Certificate = builder.assemble(BitString::from_bytes(&signature)?, &signer)?;
        Ok(certificate.to_der()?)
    }

    async fn sign(
        &self,
        slot: Slot,
        algorithm: KeyAlgorithm,
        message: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, EnrolmentError> {
        if slot != Slot::CardAuthentication {
            self.transmit("VERIFY", [0x20, 0x00, 0x80], &*self.pin, None).await?;
        }
        let input = match algorithm {
            KeyAlgorithm::EccP256 => Sha256::digest(message).to_vec(),
            KeyAlgorithm::EccP384 => Sha384::digest(message).to_vec(),
            KeyAlgorithm::Rsa2048 => pkcs1_padded(&Sha256::digest(message)),
        };
        let mut template = Writer::new();
        template.nest(0x7C, |inner| {
            inner.put(0x82, &[]).put(0x81, &input);
        });
        let header = [0x87, algorithm_code(algorithm), slot.reference()];
        let answer = self.transmit("GENERAL AUTHENTICATE", header, &template.into_bytes(), Some(65_536)).await?;
        let signature = tlv::only(tlv::only(&answer, 0x7C)?, 0x82)?;
        Ok(Zeroizing::new(signature.to_vec()))
    }

    async fn store(&self, slot: Slot, certificate: &[u8]) -> Result<(), EnrolmentError> {
        let mut object = Writer::new();
        object.put(0x5C, &slot.object()).nest(0x53, |inner| {
            inner.put(0x70, certificate).put(0x71, &[0]).put(0xFE, &[]);
        });
        self.transmit("PUT DATA", [0xDB, 0x3F, 0xFF], &object.into_bytes(), None).await.map(drop)
    }
}

/// Codes of SP 800-78-4, table 6-2.
const fn algorithm_code(algorithm: KeyAlgorithm) -> u8 {
    match algorithm {
        KeyAlgorithm::Rsa2048 => 0x07,
        KeyAlgorithm::EccP256 => 0x11,
        KeyAlgorithm::EccP384 => 0x14,
    }
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

fn subject(slot: Slot, organization: &str) -> Result<Name, EnrolmentError> {
    // The text form of a name gives meaning to some characters; those that need no care are enough here.
    let plain = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '.' | '_');
    let organization: String = organization.chars().filter(plain).collect();
    let organization = organization.trim();
    let title = slot.title();
    let text = if organization.is_empty() { format!("CN={title}") } else { format!("CN={title},O={organization}") };
    Ok(Name::from_str(&text)?)
}

/// What a certificate of a slot says besides its key.
struct Profile {
    subject: Name,
    slot: Slot,
    algorithm: KeyAlgorithm,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, subject: &Name) -> Name {
        subject.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        _spk: SubjectPublicKeyInfoRef<'_>,
        _issuer_spk: SubjectPublicKeyInfoRef<'_>,
        tbs: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        use x509_cert::ext::ToExtension;

        let mut extensions = Vec::new();
        let constraints = BasicConstraints { ca: false, path_len_constraint: None };
        extensions.push(constraints.to_extension(tbs.subject(), &extensions)?);
        extensions.push(KeyUsage(self.slot.usage(self.algorithm)).to_extension(tbs.subject(), &extensions)?);
        if self.slot == Slot::Authentication {
            extensions.push(ExtendedKeyUsage(vec![CLIENT_AUTH]).to_extension(tbs.subject(), &extensions)?);
        }
        Ok(extensions)
    }
}

/// The public side of a key in the card, as the certificate builder wants to see a signer. It does not sign itself: the card
/// does, asynchronously.
#[derive(Clone)]
struct CardKey {
    algorithm: KeyAlgorithm,
    public: SubjectPublicKeyInfoOwned,
}

impl Keypair for CardKey {
    type VerifyingKey = Self;

    fn verifying_key(&self) -> Self {
        self.clone()
    }
}

impl EncodePublicKey for CardKey {
    fn to_public_key_der(&self) -> spki::Result<Document> {
        Ok(Document::try_from(self.public.to_der()?)?)
    }
}

impl DynSignatureAlgorithmIdentifier for CardKey {
    fn signature_algorithm_identifier(&self) -> spki::Result<AlgorithmIdentifierOwned> {
        Ok(match self.algorithm {
            KeyAlgorithm::EccP256 => AlgorithmIdentifierOwned { oid: ECDSA_SHA256, parameters: None },
            KeyAlgorithm::EccP384 => AlgorithmIdentifierOwned { oid: ECDSA_SHA384, parameters: None },
            KeyAlgorithm::Rsa2048 => AlgorithmIdentifierOwned { oid: RSA_SHA256, parameters: Some(Any::null()) },
        })
    }
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

    #[test]
    fn names_with_meaning_in_them_stay_harmless() {
        let name = subject(Slot::Signature, "Ann+Bob, CN=root\\").unwrap();
        assert_eq!(name.to_string(), "CN=Digital Signature,O=AnnBob CNroot");
        assert_eq!(subject(Slot::Signature, " ,").unwrap().to_string(), "CN=Digital Signature");
    }

    #[test]
    fn pins_are_padded_and_have_six_to_eight_digits() {
        assert_eq!(*padded_pin("123456").unwrap(), [0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0xFF, 0xFF]);
        for refused in ["12345", "123456789", "12345a", "12345 7", "१२३"] {
            assert!(matches!(padded_pin(refused), Err(EnrolmentError::PinForm)), "{refused}");
        }
    }
}
