use pocketcard_phone::card::piv;
use pocketcard_phone::enrolment::{self as core, Enrolment, EnrolmentError as Core};
use pocketcard_phone::runtime;
use zeroize::Zeroizing;

use crate::entropy::SystemEntropy;
use crate::keystore::KeyAlgorithm;
use crate::phone::Phone;

/// A place for a key that every PIV card has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum Slot {
    /// 9A: login, ssh.
    Authentication,
    /// 9C: signatures; asks for the PIN each time.
    Signature,
    /// 9D: decryption, or key agreement.
    KeyManagement,
    /// 9E: asks for no PIN.
    CardAuthentication,
}

/// When a key asks for the PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum PinPolicy {
    /// Never.
    Never,
    /// Once until the card is reset.
    Once,
    /// Before every use.
    Always,
    /// As `Once`; that the phone knows its owner does as well. Refused where it cannot tell.
    MatchOnce,
    /// As `Always`; that the phone knows its owner does as well. Refused where it cannot tell.
    MatchAlways,
}

/// When a key asks the owner to confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum TouchPolicy {
    /// Never.
    Never,
    /// Before every use.
    Always,
    /// Unless the owner confirmed the same key for the same computer within the last 15 seconds.
    Cached,
}

/// A key that the owner wants.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct NewKey {
    /// Where.
    pub slot: Slot,
    /// Of which algorithm; the key store has to know it.
    pub algorithm: KeyAlgorithm,
    /// When it asks for the PIN; none: as the standard says for the slot.
    pub pin_policy: Option<PinPolicy>,
    /// When it asks the owner; none: 9C each time, the others after 15 seconds.
    pub touch_policy: Option<TouchPolicy>,
}

/// What the owner is called in certificates. The names for login are in the certificate of 9A alone.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct CertificateNames {
    /// The common name, which a login shows.
    pub common_name: String,
    /// An organization.
    pub organization: Option<String>,
    /// A user principal name, `user@domain`, by which Windows, sssd and `pam_pkcs11` find the account.
    pub principal: Option<String>,
    /// An e-mail address.
    pub email: Option<String>,
}

/// What is in a slot.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct SlotContent {
    /// Which slot.
    pub slot: Slot,
    /// The key's algorithm; none if there is no key.
    pub algorithm: Option<KeyAlgorithm>,
    /// The certificate in DER; none if there is none.
    pub certificate: Option<Vec<u8>>,
}

/// A request for a certificate, PKCS#10.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct CertificateRequest {
    /// In DER.
    pub der: Vec<u8>,
    /// In PEM.
    pub pem: String,
}

/// What has happened to a key that is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum KeyStage {
    /// The key store works on it.
    Started,
    /// It is there.
    Done,
    /// It was not made.
    Failed,
}

/// Why the phone could not be enrolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, uniffi::Error)]
pub enum EnrolmentError {
    /// The phone has stopped, or its state could not be stored.
    #[error("the phone has stopped, or its state could not be stored")]
    Phone,
    /// Another enrolment is under way.
    #[error("the card is being enrolled already; wait until that has ended")]
    Busy,
    /// A PIN has 6 to 8 digits.
    #[error("a PIN has 6 to 8 digits")]
    PinForm,
    /// The PIN is wrong.
    #[error("wrong PIN; {tries_left} tries left")]
    WrongPin {
        /// Tries that are left to the owner.
        tries_left: u8,
    },
    /// No try is left, or no PIN was ever chosen.
    #[error("the PIN is blocked or was never chosen; choose a new one")]
    PinBlocked,
    /// A name cannot be in a certificate.
    #[error("the name cannot be in a certificate")]
    Name,
    /// There is no key in the slot.
    #[error("there is no key in this slot; make one first")]
    NoKey,
    /// What was given is no certificate.
    #[error("this is no X.509 certificate")]
    NotACertificate,
    /// The certificate is for another key.
    #[error("the certificate is for another key than the one in the slot")]
    OtherKey,
    /// The card or the key store refused; the status word says more to those who know it.
    #[error("the card refused with status {status:04X}")]
    Refused {
        /// The status word.
        status: u16,
    },
    /// A failure that this version cannot name.
    #[error("the certificate could not be made")]
    Failed,
}

#[uniffi::export]
impl Phone {
    /// Makes each of `keys`, and a certificate for it that the key itself signs. Keys and certificates that were in the slots
    /// are gone. Events say how far it is. If the call is cancelled, the key that is being made is destroyed.
    pub async fn make_keys(
        &self,
        pin: String,
        keys: Vec<NewKey>,
        names: CertificateNames,
    ) -> Result<(), EnrolmentError> {
        let pin = Zeroizing::new(pin);
        let keys: Vec<core::NewKey> = keys.into_iter().map(Into::into).collect();
        Ok(self.enrolment().make_keys(&pin, &keys, &names.try_into()?).await?)
    }

    /// Makes a key without a certificate. Key and certificate that were in the slot are gone.
    pub async fn make_key(&self, new: NewKey) -> Result<(), EnrolmentError> {
        Ok(self.enrolment().make_key(new.into()).await?)
    }

    /// A request for a certificate of the key in `slot`, for whoever issues certificates.
    pub async fn request_certificate(
        &self,
        pin: String,
        slot: Slot,
        names: CertificateNames,
    ) -> Result<CertificateRequest, EnrolmentError> {
        let pin = Zeroizing::new(pin);
        let request = self.enrolment().request(&pin, slot.into(), &names.try_into()?).await?;
        Ok(CertificateRequest { der: request.to_der().to_vec(), pem: request.to_pem()? })
    }

    /// Puts a certificate, in DER or PEM, into `slot`. It must be for the key there.
    pub async fn import_certificate(&self, slot: Slot, certificate: Vec<u8>) -> Result<(), EnrolmentError> {
        Ok(self.enrolment().import_certificate(slot.into(), &certificate).await?)
    }

    /// What is in the four slots.
    pub async fn slots(&self) -> Result<Vec<SlotContent>, EnrolmentError> {
        Ok(self.enrolment().slots().await?.into_iter().filter_map(slot_content).collect())
    }
}

impl Phone {
    fn enrolment(&self) -> Enrolment<'_> {
        Enrolment::new(&self.phone, &SystemEntropy)
    }
}

fn slot_content(content: core::SlotContent) -> Option<SlotContent> {
    let core::SlotContent { slot, algorithm, certificate } = content;
    let algorithm = algorithm.and_then(|algorithm| algorithm.try_into().ok());
    Some(SlotContent { slot: Slot::from_core(slot)?, algorithm, certificate })
}

impl Slot {
    pub(crate) const fn from_core(slot: piv::Slot) -> Option<Self> {
        match slot {
            piv::Slot::Authentication => Some(Self::Authentication),
            piv::Slot::Signature => Some(Self::Signature),
            piv::Slot::KeyManagement => Some(Self::KeyManagement),
            piv::Slot::CardAuthentication => Some(Self::CardAuthentication),
            piv::Slot::Retired(_) => None,
        }
    }
}

impl From<Slot> for piv::Slot {
    fn from(slot: Slot) -> Self {
        match slot {
            Slot::Authentication => Self::Authentication,
            Slot::Signature => Self::Signature,
            Slot::KeyManagement => Self::KeyManagement,
            Slot::CardAuthentication => Self::CardAuthentication,
        }
    }
}

impl From<PinPolicy> for piv::PinPolicy {
    fn from(policy: PinPolicy) -> Self {
        match policy {
            PinPolicy::Never => Self::Never,
            PinPolicy::Once => Self::Once,
            PinPolicy::Always => Self::Always,
            PinPolicy::MatchOnce => Self::MatchOnce,
            PinPolicy::MatchAlways => Self::MatchAlways,
        }
    }
}

impl From<TouchPolicy> for piv::TouchPolicy {
    fn from(policy: TouchPolicy) -> Self {
        match policy {
            TouchPolicy::Never => Self::Never,
            TouchPolicy::Always => Self::Always,
            TouchPolicy::Cached => Self::Cached,
        }
    }
}

impl From<NewKey> for core::NewKey {
    fn from(new: NewKey) -> Self {
        let policies =
            piv::RequestedPolicies { pin: new.pin_policy.map(Into::into), touch: new.touch_policy.map(Into::into) };
        Self { policies, ..Self::new(new.slot.into(), new.algorithm.into()) }
    }
}

impl TryFrom<CertificateNames> for core::Names {
    type Error = EnrolmentError;

    fn try_from(names: CertificateNames) -> Result<Self, EnrolmentError> {
        let CertificateNames { common_name, organization, principal, email } = names;
        let names = Self::new(&common_name);
        let names = match organization {
            Some(organization) => names.and_then(|names| names.with_organization(&organization)),
            None => names,
        };
        let names = match principal {
            Some(principal) => names.and_then(|names| names.with_principal(&principal)),
            None => names,
        };
        let names = match email {
            Some(email) => names.and_then(|names| names.with_email(&email)),
            None => names,
        };
        names.map_err(|_| EnrolmentError::Name)
    }
}

impl From<Core> for EnrolmentError {
    fn from(error: Core) -> Self {
        match error {
            Core::Phone(_) => Self::Phone,
            Core::Busy => Self::Busy,
            Core::Refused { status, .. } => Self::Refused { status: status.into() },
            Core::PinForm => Self::PinForm,
            Core::WrongPin { tries_left } => Self::WrongPin { tries_left },
            Core::PinBlocked => Self::PinBlocked,
            Core::NoKey(_) => Self::NoKey,
            Core::NotACertificate => Self::NotACertificate,
            Core::OtherKey(_) => Self::OtherKey,
            _ => Self::Failed,
        }
    }
}

impl From<runtime::KeyStage> for KeyStage {
    fn from(stage: runtime::KeyStage) -> Self {
        match stage {
            runtime::KeyStage::Started => Self::Started,
            runtime::KeyStage::Done => Self::Done,
            _ => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_enrolment_keeps_its_kind() {
        let slot = piv::Slot::Signature;
        let status = pocketcard_protocol::apdu::StatusWord::WrongData;
        let table = [
            (Core::Phone(runtime::PhoneError::Stopped), EnrolmentError::Phone),
            (Core::Busy, EnrolmentError::Busy),
            (Core::Refused { command: "x", status }, EnrolmentError::Refused { status: 0x6A80 }),
            (Core::PinForm, EnrolmentError::PinForm),
            (Core::WrongPin { tries_left: 1 }, EnrolmentError::WrongPin { tries_left: 1 }),
            (Core::PinBlocked, EnrolmentError::PinBlocked),
            (Core::NoKey(slot), EnrolmentError::NoKey),
            (Core::NotACertificate, EnrolmentError::NotACertificate),
            (Core::OtherKey(slot), EnrolmentError::OtherKey),
            (Core::Incomplete, EnrolmentError::Failed),
        ];
        for (theirs, ours) in table {
            assert_eq!(EnrolmentError::from(theirs), ours);
        }
    }

    #[test]
    fn slots_keep_their_meaning() {
        for slot in core::SLOTS {
            assert_eq!(Slot::from_core(slot).map(piv::Slot::from), Some(slot));
        }
    }
}
