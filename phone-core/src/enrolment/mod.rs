//! The owner makes the phone a card for login, on the phone itself: keys, certificates of their own or of an authority. By the
//! same commands that a computer would send, in the owner's own card session; no host needs a permission for any of it.
//!
//! PIN and PUK come first, by [`Phone::choose_pin`]. Then either [`Enrolment::make_keys`], whose certificates the keys sign
//! themselves, or for each key [`Enrolment::make_key`], [`Enrolment::request`] and [`Enrolment::import_certificate`].

mod certificate;
mod names;
mod session;
#[cfg(test)]
mod tests;

use pocketcard_protocol::{
    apdu::{ApduError, StatusWord},
    tlv::TlvError,
};
use x509_cert::{
    Certificate, builder,
    der::{Decode as _, Document, EncodePem as _, pem},
    request::CertReq,
    spki,
};
use zeroize::Zeroizing;

pub use self::names::{NameError, Names};
use self::{
    certificate::{CardKey, UnsignedCertificate, UnsignedRequest},
    session::Session,
};
pub use crate::card::piv::{PinPolicy, RequestedPolicies, Slot, TouchPolicy};
use crate::{
    runtime::{KeyProgress, KeyStage, Phone, PhoneError, PhoneEvent},
    traits::{Entropy, EntropyError, KeyAlgorithm},
};

/// The keys of every PIV card, in the order of their references: login and ssh, signatures, decryption, and the one without a
/// PIN.
pub const SLOTS: [Slot; 4] = [Slot::Authentication, Slot::Signature, Slot::KeyManagement, Slot::CardAuthentication];

/// Why the phone could not be enrolled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnrolmentError {
    /// The phone does not run.
    #[error(transparent)]
    Phone(#[from] PhoneError),
    /// Another enrolment is under way.
    #[error("the card is being enrolled already; wait until that has ended")]
    Busy,
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
    /// The PIN is wrong, and a try is spent.
    #[error("wrong PIN; {tries_left} tries left")]
    WrongPin {
        /// Tries that are left to the owner.
        tries_left: u8,
    },
    /// No try is left, or no PIN was ever chosen.
    #[error("the PIN is blocked or was never chosen; choose a new one")]
    PinBlocked,
    /// There is no key in the slot.
    #[error("there is no key in slot {0}; make one first")]
    NoKey(Slot),
    /// What was given is no certificate, in DER or PEM.
    #[error("this is no X.509 certificate")]
    NotACertificate,
    /// The certificate is for another key than the one in the slot.
    #[error("the certificate is for another key than the one in slot {0}")]
    OtherKey(Slot),
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

/// A key that the owner wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// Where.
    pub slot: Slot,
    /// Of which algorithm; [`KeyStore::algorithms`](crate::KeyStore::algorithms) says which there are.
    pub algorithm: KeyAlgorithm,
    /// When it asks for the PIN and for the owner; the slot's defaults if nothing is said.
    pub policies: RequestedPolicies,
}

impl NewKey {
    /// A key with the defaults of its slot.
    pub fn new(slot: Slot, algorithm: KeyAlgorithm) -> Self {
        Self { slot, algorithm, policies: RequestedPolicies::default() }
    }
}

/// What is in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotContent {
    /// Which slot.
    pub slot: Slot,
    /// The key's algorithm; `None` if there is no key.
    pub algorithm: Option<KeyAlgorithm>,
    /// The certificate in DER; `None` if there is none.
    pub certificate: Option<Vec<u8>>,
}

/// A request for a certificate, PKCS#10, signed by the key that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRequest(Vec<u8>);

impl CertificateRequest {
    /// The request in DER.
    pub fn to_der(&self) -> &[u8] {
        &self.0
    }

    /// The request in PEM, as web pages of authorities want it.
    ///
    /// # Errors
    /// [`EnrolmentError::Certificate`]
    pub fn to_pem(&self) -> Result<String, EnrolmentError> {
        Ok(CertReq::from_der(&self.0)?.to_pem(pem::LineEnding::LF)?)
    }
}

/// Keys and certificates, made by the owner. One at a time; another one is refused as [`EnrolmentError::Busy`].
#[derive(Clone, Copy)]
pub struct Enrolment<'a> {
    phone: &'a Phone,
    entropy: &'a dyn Entropy,
}

impl<'a> Enrolment<'a> {
    /// Enrolment of this phone.
    pub const fn new(phone: &'a Phone, entropy: &'a dyn Entropy) -> Self {
        Self { phone, entropy }
    }

    /// Makes each of `keys`, and a certificate for it that the key itself signs, valid for ten years. Keys and certificates that
    /// were in the slots are gone. [`PhoneEvent::Enrolment`] says how far it is. If the future is dropped the key that is being
    /// made is destroyed.
    ///
    /// - `pin`: the owner's PIN; the keys are used once each.
    ///
    /// # Errors
    /// [`EnrolmentError`]; keys before the one that failed are done.
    pub async fn make_keys(&self, pin: &str, keys: &[NewKey], names: &Names) -> Result<(), EnrolmentError> {
        let pin = padded_pin(pin)?;
        let session = Session::begin(self.phone)?;
        // A PIN that is wrong must not cost a key.
        session.verify(&pin).await?;
        for (new, number) in keys.iter().zip(1..) {
            self.tell(*new, number, keys.len(), KeyStage::Started);
            let made = self.make_and_certify(&session, &pin, *new, names).await;
            self.tell(*new, number, keys.len(), if made.is_ok() { KeyStage::Done } else { KeyStage::Failed });
            made?;
        }
        Ok(())
    }

    /// Makes a key without a certificate. Key and certificate that were in the slot are gone.
    ///
    /// # Errors
    /// [`EnrolmentError`]
    pub async fn make_key(&self, new: NewKey) -> Result<(), EnrolmentError> {
        let session = Session::begin(self.phone)?;
        self.tell(new, 1, 1, KeyStage::Started);
        let made = make(&session, new).await;
        self.tell(new, 1, 1, if made.is_ok() { KeyStage::Done } else { KeyStage::Failed });
        made.map(drop)
    }

    /// A request for a certificate of the key in `slot`, for whoever issues certificates.
    ///
    /// # Errors
    /// [`EnrolmentError`]
    pub async fn request(&self, pin: &str, slot: Slot, names: &Names) -> Result<CertificateRequest, EnrolmentError> {
        let pin = padded_pin(pin)?;
        let session = Session::begin(self.phone)?;
        let key = session.key(slot).await?.ok_or(EnrolmentError::NoKey(slot))?;
        let unsigned = UnsignedRequest::new(&key, names)?;
        let signature = session.sign(&key, &pin, unsigned.message()).await?;
        Ok(CertificateRequest(unsigned.signed(&signature)?))
    }

    /// Puts a certificate into `slot`, in the place of the one that is there. It must be for the key in the slot; who issued it
    /// is not checked.
    ///
    /// - `certificate`: DER, or a text with PEM in it, of which the first certificate is taken.
    ///
    /// # Errors
    /// [`EnrolmentError::NotACertificate`], [`EnrolmentError::OtherKey`], [`EnrolmentError::NoKey`]; others as above.
    pub async fn import_certificate(&self, slot: Slot, certificate: &[u8]) -> Result<(), EnrolmentError> {
        let certificate = certificate_der(certificate)?;
        let parsed = Certificate::from_der(&certificate).map_err(|_| EnrolmentError::NotACertificate)?;
        let session = Session::begin(self.phone)?;
        let key = session.key(slot).await?.ok_or(EnrolmentError::NoKey(slot))?;
        if *parsed.tbs_certificate().subject_public_key_info() != key.public {
            return Err(EnrolmentError::OtherKey(slot));
        }
        session.store(slot, &certificate).await
    }

    /// What is in each of [`SLOTS`].
    ///
    /// # Errors
    /// [`EnrolmentError`]
    pub async fn slots(&self) -> Result<Vec<SlotContent>, EnrolmentError> {
        let session = Session::begin(self.phone)?;
        let mut contents = Vec::new();
        for slot in SLOTS {
            let algorithm = session.key(slot).await?.map(|key| key.algorithm);
            contents.push(SlotContent { slot, algorithm, certificate: session.certificate(slot).await? });
        }
        Ok(contents)
    }

    async fn make_and_certify(
        &self,
        session: &Session,
        pin: &[u8; 8],
        new: NewKey,
        names: &Names,
    ) -> Result<(), EnrolmentError> {
        let key = make(session, new).await?;
        let unsigned = UnsignedCertificate::new(&key, names, self.entropy)?;
        let signature = session.sign(&key, pin, unsigned.message()).await?;
        session.store(new.slot, &unsigned.signed(&signature)?).await
    }

    fn tell(&self, new: NewKey, number: u8, of: usize, stage: KeyStage) {
        let of = u8::try_from(of).unwrap_or(u8::MAX);
        let NewKey { slot, algorithm, .. } = new;
        self.phone.announce(PhoneEvent::Enrolment(KeyProgress { slot, algorithm, number, of, stage }));
    }
}

/// Makes a key, and sees to it that no certificate of the one before it stays.
async fn make(session: &Session, new: NewKey) -> Result<CardKey, EnrolmentError> {
    let key = session.generate(new.slot, new.algorithm, new.policies).await?;
    if session.certificate(new.slot).await?.is_some() {
        session.remove_certificate(new.slot).await?;
    }
    Ok(key)
}

fn certificate_der(bytes: &[u8]) -> Result<Vec<u8>, EnrolmentError> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let text = std::str::from_utf8(bytes).ok();
    let Some((_, rest)) = text.and_then(|text| text.split_once(BEGIN)) else { return Ok(bytes.to_vec()) };
    let (body, _) = rest.split_once(END).ok_or(EnrolmentError::NotACertificate)?;
    let (_, document) =
        Document::from_pem(&format!("{BEGIN}{body}{END}\n")).map_err(|_| EnrolmentError::NotACertificate)?;
    Ok(document.as_bytes().to_vec())
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
