//! What the owner does with the card on the phone itself: PIN and PUK, keys, certificates, the log's export. For script and
//! terminal alike.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use pocketcard_phone::{
    Entropy, KeyAlgorithm, SystemEntropy,
    enrolment::{Enrolment, EnrolmentError, NameError, Names, NewKey},
    runtime::{Phone, PhoneError},
};
use pocketcard_protocol::{apdu::Command, tlv};
use zeroize::Zeroizing;

use crate::events;

const GET_METADATA: u8 = 0xF7;
const TRIES: u32 = 0x06;
const LENGTH: usize = 8;

static ENTROPY: SystemEntropy = SystemEntropy;

/// A certificate file is no longer. What the card takes is a quarter of it, and PEM adds a third.
const CERTIFICATE_FILE: u64 = 64 * 1024;

/// Why the owner's wish was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnerError {
    #[error("a PIN has 6 to 8 digits")]
    PinForm,
    #[error("a PUK has 8 characters, none of them beyond ASCII")]
    PukForm,
    #[error(transparent)]
    Phone(#[from] PhoneError),
    #[error(transparent)]
    Enrolment(#[from] EnrolmentError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("no file with a certificate is longer than {} KiB", CERTIFICATE_FILE / 1024)]
    FileTooLong,
    #[error("the file cannot be used: {0}")]
    File(#[source] io::Error),
}

/// Tries that the owner has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tries {
    pub(crate) pin: u8,
    pub(crate) puk: u8,
}

impl Tries {
    /// Whether no PIN can be used, nor be had back with the PUK: none was ever chosen, or both are blocked.
    pub(crate) const fn are_over(self) -> bool {
        self.pin == 0 && self.puk == 0
    }
}

pub(crate) async fn tries(phone: &Phone) -> Tries {
    Tries { pin: tries_of(phone, 0x80).await.unwrap_or(0), puk: tries_of(phone, 0x81).await.unwrap_or(0) }
}

async fn tries_of(phone: &Phone, reference: u8) -> Option<u8> {
    let command = Command::new(0, GET_METADATA, 0, reference, &[], Some(256)).ok()?;
    let response = phone.local_transmit(command).await.ok()?;
    match tlv::find(response.data(), TRIES).ok()?? {
        [_, left] => Some(*left),
        _ => None,
    }
}

pub(crate) async fn choose_pin(phone: &Phone, pin: &str, puk: &str) -> Result<(), OwnerError> {
    Ok(phone.choose_pin(padded_pin(pin)?, padded_puk(puk)?).await?)
}

pub(crate) async fn change_pin(phone: &Phone, current: &str, new: &str) -> Result<(), OwnerError> {
    Ok(phone.change_pin(padded_pin(current)?, padded_pin(new)?).await?)
}

pub(crate) async fn change_puk(phone: &Phone, current: &str, new: &str) -> Result<(), OwnerError> {
    Ok(phone.change_puk(padded_puk(current)?, padded_puk(new)?).await?)
}

/// Enrolment with the entropy of the system.
pub(crate) fn enrolment(phone: &Phone) -> Enrolment<'_> {
    let entropy: &dyn Entropy = &ENTROPY;
    Enrolment::new(phone, entropy)
}

/// Chooses PIN and PUK if there is a new PUK, and makes keys with certificates that they sign themselves.
pub(crate) async fn enrol(
    phone: &Phone,
    pin: &str,
    puk: Option<&str>,
    names: &Names,
    keys: &[NewKey],
) -> Result<(), OwnerError> {
    if let Some(puk) = puk {
        choose_pin(phone, pin, puk).await?;
    }
    Ok(enrolment(phone).make_keys(pin, keys, names).await?)
}

/// Names for a certificate; a text that is empty is left out.
pub(crate) fn names(common: &str, organization: &str, principal: &str, email: &str) -> Result<Names, NameError> {
    let mut names = Names::new(common)?;
    if !organization.is_empty() {
        names = names.with_organization(organization)?;
    }
    if !principal.is_empty() {
        names = names.with_principal(principal)?;
    }
    if !email.is_empty() {
        names = names.with_email(email)?;
    }
    Ok(names)
}

pub(crate) const fn algorithm_name(algorithm: KeyAlgorithm) -> &'static str {
    match algorithm {
        KeyAlgorithm::EccP256 => "p256",
        KeyAlgorithm::EccP384 => "p384",
        KeyAlgorithm::Rsa2048 => "rsa2048",
        _ => "other",
    }
}

/// Writes the log into a new file of mode 0600, an entry a line, as JSON. Returns the number of entries.
pub(crate) async fn export_log(phone: &Phone, path: &Path) -> Result<usize, OwnerError> {
    let entries = phone.log().await?;
    let mut text = String::new();
    for entry in &entries {
        text.push_str(&events::log_entry(entry).to_string());
        text.push('\n');
    }
    write_new(path, &text)?;
    Ok(entries.len())
}

/// Reads a file in which a certificate is to be, in DER or PEM.
pub(crate) fn read_certificate(path: &Path) -> Result<Vec<u8>, OwnerError> {
    // A pipe would be waited for, and a device may never end.
    if !path.metadata().map_err(OwnerError::File)?.is_file() {
        return Err(OwnerError::File(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")));
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(CERTIFICATE_FILE + 1).read_to_end(&mut bytes));
    read.map_err(OwnerError::File)?;
    if bytes.len() as u64 > CERTIFICATE_FILE { Err(OwnerError::FileTooLong) } else { Ok(bytes) }
}

/// Writes a new file of mode 0600.
pub(crate) fn write_new(path: &Path, text: &str) -> Result<(), OwnerError> {
    // A file that is there may be somebody's; it is not written over.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(OwnerError::File)
}

pub(crate) fn check_pin(text: &str) -> Result<(), OwnerError> {
    padded_pin(text).map(drop)
}

pub(crate) fn check_puk(text: &str) -> Result<(), OwnerError> {
    padded_puk(text).map(drop)
}

fn padded_pin(text: &str) -> Result<Zeroizing<[u8; LENGTH]>, OwnerError> {
    let is_pin = (6..=LENGTH).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_pin { Ok(padded(text)) } else { Err(OwnerError::PinForm) }
}

fn padded_puk(text: &str) -> Result<Zeroizing<[u8; LENGTH]>, OwnerError> {
    if text.len() == LENGTH && text.is_ascii() { Ok(padded(text)) } else { Err(OwnerError::PukForm) }
}

fn padded(text: &str) -> Zeroizing<[u8; LENGTH]> {
    let mut padded = Zeroizing::new([0xFF; LENGTH]);
    padded.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_can_be_no_certificate_is_not_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let limit = usize::try_from(CERTIFICATE_FILE).unwrap();
        std::fs::write(&file, vec![b'x'; limit]).unwrap();
        assert_eq!(read_certificate(&file).unwrap().len(), limit);
        std::fs::write(&file, vec![b'x'; limit + 1]).unwrap();
        assert!(matches!(read_certificate(&file), Err(OwnerError::FileTooLong)));
        for other in [Path::new("/dev/zero"), folder.path(), &folder.path().join("missing")] {
            assert!(matches!(read_certificate(other), Err(OwnerError::File(_))), "{}", other.display());
        }
    }

    #[test]
    fn pins_and_puks_have_their_form() {
        for (text, pin, puk) in [
            ("", false, false),
            ("12345", false, false),
            ("123456", true, false),
            ("12345678", true, true),
            ("123456789", false, false),
            ("12345a", false, false),
            ("aäbcdef", false, false),
            ("abcdefgh", false, true),
        ] {
            assert_eq!((padded_pin(text).is_ok(), padded_puk(text).is_ok()), (pin, puk), "{text}");
        }
        assert_eq!(*padded_pin("123456").unwrap(), *b"123456\xFF\xFF");
    }
}
