//! Certificates and requests for the keys of the card, signed by the keys themselves. What is signed leaves here unsigned; the
//! card signs it.
//!
//! Spec: RFC 5280; RFC 2986

use std::time::Duration;

use rsa::signature::Keypair;
use sha2::{Digest as _, Sha256};
use x509_cert::{
    Certificate,
    builder::{self, Builder, CertificateBuilder, profile::BuilderProfile},
    certificate::TbsCertificate,
    der::{
        self, Encode,
        asn1::{Any, BitString, ObjectIdentifier, OctetString},
        flagset::FlagSet,
    },
    ext::{
        Extension, ToExtension,
        pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectKeyIdentifier},
    },
    name::Name,
    request::{CertReq, CertReqInfo, ExtensionReq, Version},
    serial_number::SerialNumber,
    spki::{
        self, AlgorithmIdentifierOwned, Document, DynSignatureAlgorithmIdentifier, EncodePublicKey,
        SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef,
    },
    time::Validity,
};

use super::{EnrolmentError, names::Names};
use crate::{card::piv::Slot, traits::Entropy, traits::KeyAlgorithm};

const VALIDITY: Duration = Duration::from_secs(10 * 365 * 86_400);
const SERIAL_LENGTH: usize = 16;

/// Octets of a key's identifier. Spec: RFC 7093, section 2, method 1
const KEY_IDENTIFIER_LENGTH: usize = 20;

const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
const EMAIL_PROTECTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.4");
const SMART_CARD_LOGON: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.20.2.2");
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const RSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");

/// A key of the card as its certificates see it. It does not sign itself: the card does, asynchronously.
#[derive(Clone)]
pub(super) struct CardKey {
    pub(super) slot: Slot,
    pub(super) algorithm: KeyAlgorithm,
    pub(super) public: SubjectPublicKeyInfoOwned,
}

/// A certificate that lacks its signature.
pub(super) struct UnsignedCertificate {
    builder: CertificateBuilder<Profile>,
    key: CardKey,
    message: Vec<u8>,
}

impl UnsignedCertificate {
    /// A certificate of this key that it is to sign itself, valid for ten years.
    pub(super) fn new(key: &CardKey, names: &Names, entropy: &dyn Entropy) -> Result<Self, EnrolmentError> {
        let mut serial = [0; SERIAL_LENGTH];
        entropy.fill(&mut serial)?;
        // Positive and never zero, as the standard wants it.
        if let Some(first) = serial.first_mut() {
            *first = *first & 0x3F | 0x40;
        }
        let profile = Profile { subject: names.subject(key.slot)?, extensions: extensions(key, names)? };
        let validity = Validity::from_now(VALIDITY)?;
        let serial = SerialNumber::new(&serial)?;
        let mut builder = CertificateBuilder::new(profile, serial, validity, key.public.clone())?;
        let message = builder.finalize(key)?;
        Ok(Self { builder, key: key.clone(), message })
    }

    /// What is to be signed.
    pub(super) fn message(&self) -> &[u8] {
        &self.message
    }

    /// The certificate, in DER.
    pub(super) fn signed(self, signature: &[u8]) -> Result<Vec<u8>, EnrolmentError> {
        let certificate: Certificate = self.builder.assemble(BitString::from_bytes(signature)?, &self.key)?;
        Ok(certificate.to_der()?)
    }
}

/// A request for a certificate that lacks its signature.
pub(super) struct UnsignedRequest {
    info: CertReqInfo,
    algorithm: AlgorithmIdentifierOwned,
    message: Vec<u8>,
}

impl UnsignedRequest {
    /// A request for a certificate of this key with these names. Which of them the certificate gets, its issuer decides.
    pub(super) fn new(key: &CardKey, names: &Names) -> Result<Self, EnrolmentError> {
        let subject = names.subject(key.slot)?;
        let mut attributes = x509_cert::attr::Attributes::default();
        attributes.insert(ExtensionReq(usage(key, names, &subject)?).try_into()?)?;
        let info = CertReqInfo { version: Version::V1, subject, public_key: key.public.clone(), attributes };
        let message = info.to_der()?;
        Ok(Self { info, algorithm: key.signature_algorithm_identifier()?, message })
    }

    /// What is to be signed.
    pub(super) fn message(&self) -> &[u8] {
        &self.message
    }

    /// The request, in DER.
    pub(super) fn signed(self, signature: &[u8]) -> Result<Vec<u8>, EnrolmentError> {
        let signature = BitString::from_bytes(signature)?;
        Ok(CertReq { info: self.info, algorithm: self.algorithm, signature }.to_der()?)
    }
}

fn key_usage(slot: Slot, algorithm: KeyAlgorithm) -> FlagSet<KeyUsages> {
    match (slot, algorithm) {
        (Slot::Authentication | Slot::CardAuthentication, _) => KeyUsages::DigitalSignature.into(),
        (Slot::Signature, _) => KeyUsages::DigitalSignature | KeyUsages::NonRepudiation,
        (Slot::KeyManagement | Slot::Retired(_), KeyAlgorithm::Rsa2048) => KeyUsages::KeyEncipherment.into(),
        (Slot::KeyManagement | Slot::Retired(_), KeyAlgorithm::EccP256 | KeyAlgorithm::EccP384) => {
            KeyUsages::KeyAgreement.into()
        }
    }
}

fn extended_key_usage(slot: Slot, names: &Names) -> Vec<ObjectIdentifier> {
    match slot {
        Slot::Authentication if names.has_principal() => vec![CLIENT_AUTH, SMART_CARD_LOGON],
        Slot::Authentication => vec![CLIENT_AUTH],
        Slot::Signature | Slot::KeyManagement if names.has_email() => vec![EMAIL_PROTECTION],
        _ => Vec::new(),
    }
}

/// What the key is for and how its owner is called: the same in a certificate and in a request.
fn usage(key: &CardKey, names: &Names, subject: &Name) -> der::Result<Vec<Extension>> {
    let mut extensions = Vec::new();
    extensions.push(KeyUsage(key_usage(key.slot, key.algorithm)).to_extension(subject, &extensions)?);
    let purposes = extended_key_usage(key.slot, names);
    if !purposes.is_empty() {
        extensions.push(ExtendedKeyUsage(purposes).to_extension(subject, &extensions)?);
    }
    if let Some(alternatives) = names.alternatives(key.slot)? {
        extensions.push(alternatives.to_extension(subject, &extensions)?);
    }
    Ok(extensions)
}

fn extensions(key: &CardKey, names: &Names) -> der::Result<Vec<Extension>> {
    let subject = names.subject(key.slot)?;
    let mut extensions = Vec::new();
    let constraints = BasicConstraints { ca: false, path_len_constraint: None };
    extensions.push(constraints.to_extension(&subject, &extensions)?);
    extensions.extend(usage(key, names, &subject)?);
    let digest = Sha256::digest(key.public.subject_public_key.raw_bytes());
    let identifier = digest.get(..KEY_IDENTIFIER_LENGTH).unwrap_or(&digest);
    extensions.push(SubjectKeyIdentifier(OctetString::new(identifier)?).to_extension(&subject, &extensions)?);
    Ok(extensions)
}

/// What a certificate says besides its key.
struct Profile {
    subject: Name,
    extensions: Vec<Extension>,
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
        _tbs: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        Ok(self.extensions.clone())
    }
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
