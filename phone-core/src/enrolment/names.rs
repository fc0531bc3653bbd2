//! What a certificate calls its owner, in the forms that login modules look for.

use x509_cert::{
    attr::AttributeTypeAndValue,
    der::{
        self, Tag,
        asn1::{Any, Ia5String, ObjectIdentifier},
    },
    ext::pkix::{
        SubjectAltName,
        name::{GeneralName, OtherName},
    },
    name::{Name, RdnSequence, RelativeDistinguishedName},
};

use crate::card::piv::Slot;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");
const PRINCIPAL_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.20.2.3");

/// Longest common name and organization, in characters. Spec: RFC 5280, appendix A.1 (ub-common-name, ub-organization-name)
const NAME_LIMIT: usize = 64;

/// Longest address, in bytes. Spec: RFC 5321, section 4.5.3.1.3
const ADDRESS_LIMIT: usize = 254;

/// Why a name cannot be in a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing but white space.
    #[error("the name is empty")]
    Empty,
    /// More than a certificate may hold.
    #[error("the name is too long: 64 characters at most, 254 bytes for an address")]
    TooLong,
    /// Control characters, or others that nobody sees.
    #[error("the name has characters that cannot be seen")]
    Invisible,
    /// Not `user@domain`.
    #[error("the address is not of the form user@domain")]
    NotAnAddress,
    /// An e-mail address in a certificate is ASCII.
    #[error("an e-mail address in a certificate has letters of ASCII only; write the domain in its xn-- form")]
    NotAscii,
}

/// What the owner is called in the certificates. The names for login are in the certificate of 9A alone: a module that maps a
/// certificate to a user by one of them cannot take another key for it, least of all the one that needs no PIN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    common_name: String,
    organization: Option<String>,
    principal: Option<String>,
    email: Option<String>,
}

impl Names {
    /// A certificate's common name: what a login shows as the card's name, and what `pam_pkcs11` maps with `cn`.
    ///
    /// # Errors
    /// [`NameError`]
    pub fn new(common_name: &str) -> Result<Self, NameError> {
        Ok(Self { common_name: plain(common_name)?, organization: None, principal: None, email: None })
    }

    /// Adds an organization.
    ///
    /// # Errors
    /// [`NameError`]
    pub fn with_organization(self, organization: &str) -> Result<Self, NameError> {
        Ok(Self { organization: Some(plain(organization)?), ..self })
    }

    /// Adds a user principal name, `user@domain`: what `pam_pkcs11` maps with `ms`, sssd with `<SAN:Principal>`, and Windows.
    ///
    /// # Errors
    /// [`NameError`]
    pub fn with_principal(self, principal: &str) -> Result<Self, NameError> {
        Ok(Self { principal: Some(address(principal)?), ..self })
    }

    /// Adds an e-mail address: what `pam_pkcs11` maps with `mail`, and what signed mail needs.
    ///
    /// # Errors
    /// [`NameError`]
    pub fn with_email(self, email: &str) -> Result<Self, NameError> {
        let email = address(email)?;
        if email.is_ascii() { Ok(Self { email: Some(email), ..self }) } else { Err(NameError::NotAscii) }
    }

    pub(super) const fn has_email(&self) -> bool {
        self.email.is_some()
    }

    pub(super) const fn has_principal(&self) -> bool {
        self.principal.is_some()
    }

    /// The subject of the certificate of this slot.
    pub(super) fn subject(&self, slot: Slot) -> der::Result<Name> {
        let common_name = match slot {
            Slot::Authentication => self.common_name.clone(),
            Slot::Signature => self.with_purpose(" (signature)"),
            Slot::CardAuthentication => "Card Authentication".to_owned(),
            Slot::KeyManagement | Slot::Retired(_) => self.with_purpose(" (encryption)"),
        };
        let organization = self.organization.as_deref().map(|organization| (ORGANIZATION, organization));
        let parts = organization.into_iter().chain([(COMMON_NAME, common_name.as_str())]);
        let parts = parts.map(|(oid, text)| {
            let attribute = AttributeTypeAndValue { oid, value: Any::new(Tag::Utf8String, text.as_bytes())? };
            RelativeDistinguishedName::try_from(vec![attribute])
        });
        Ok(Name::hazmat_from_rdn_sequence(RdnSequence::from(parts.collect::<der::Result<Vec<_>>>()?)))
    }

    /// The other names of the certificate of this slot; `None` if it has none.
    pub(super) fn alternatives(&self, slot: Slot) -> der::Result<Option<SubjectAltName>> {
        let mut names = Vec::new();
        if let Some(principal) = self.principal.as_deref().filter(|_| slot == Slot::Authentication) {
            let value = Any::new(Tag::Utf8String, principal.as_bytes())?;
            names.push(GeneralName::OtherName(OtherName { type_id: PRINCIPAL_NAME, value }));
        }
        if let Some(email) = self.email.as_deref().filter(|_| slot != Slot::CardAuthentication) {
            names.push(GeneralName::Rfc822Name(Ia5String::new(email)?));
        }
        Ok((!names.is_empty()).then_some(SubjectAltName(names)))
    }

    fn with_purpose(&self, purpose: &str) -> String {
        let room = NAME_LIMIT - purpose.len();
        self.common_name.chars().take(room).chain(purpose.chars()).collect()
    }
}

fn plain(text: &str) -> Result<String, NameError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.chars().count() > NAME_LIMIT {
        return Err(NameError::TooLong);
    }
    visible(text)
}

fn address(text: &str) -> Result<String, NameError> {
    let text = text.trim();
    if text.len() > ADDRESS_LIMIT {
        return Err(NameError::TooLong);
    }
    match text.split_once('@') {
        Some((user, domain)) if !user.is_empty() && !domain.is_empty() && !domain.contains('@') => {}
        _ => return Err(NameError::NotAnAddress),
    }
    if text.chars().any(char::is_whitespace) {
        return Err(NameError::NotAnAddress);
    }
    visible(text)
}

/// Refuses what the cleaning of names from peers would take away: two names that look the same must be the same.
fn visible(text: &str) -> Result<String, NameError> {
    // The cleaning also cuts at 64 bytes, so it is asked character by character.
    let stays = |c: char| c == ' ' || !pocketcard_protocol::messages::peer_name(c.encode_utf8(&mut [0; 4])).is_empty();
    if text.chars().all(stays) { Ok(text.to_owned()) } else { Err(NameError::Invisible) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let names = Names::new("Zoë Müller, jr. \\ #1").unwrap().with_organization("Example + Sons").unwrap();
        names.with_principal("zoë@EXAMPLE.ORG").unwrap().with_email("zoe@example.org").unwrap()
    }

    #[test]
    fn characters_with_a_meaning_in_the_text_form_of_names_stay_what_they_are() {
        let subject = names().subject(Slot::Authentication).unwrap();
        let values: Vec<&[u8]> = subject.iter().map(|attribute| attribute.value.value()).collect();
        assert_eq!(values, ["Example + Sons".as_bytes(), "Zoë Müller, jr. \\ #1".as_bytes()]);
    }

    #[test]
    fn names_for_login_are_in_9a_alone() {
        let names = names();
        for slot in [Slot::Signature, Slot::KeyManagement, Slot::CardAuthentication] {
            let subject = names.subject(slot).unwrap();
            assert!(
                subject.iter().all(|attribute| attribute.value.value() != "Zoë Müller, jr. \\ #1".as_bytes()),
                "{slot}"
            );
            let others = names.alternatives(slot).unwrap().map(|names| names.0).unwrap_or_default();
            assert!(others.iter().all(|name| !matches!(name, GeneralName::OtherName(_))), "{slot}");
        }
        assert_eq!(names.alternatives(Slot::Authentication).unwrap().unwrap().0.len(), 2);
        assert_eq!(names.alternatives(Slot::CardAuthentication).unwrap(), None);
        assert_eq!(Names::new("ann").unwrap().alternatives(Slot::Authentication).unwrap(), None);
    }

    #[test]
    fn a_long_name_leaves_room_for_the_purpose_of_its_key() {
        let names = Names::new(&"é".repeat(64)).unwrap();
        for slot in [Slot::Authentication, Slot::Signature, Slot::KeyManagement] {
            let subject = names.subject(slot).unwrap();
            let text = String::from_utf8(subject.iter().next().unwrap().value.value().to_vec()).unwrap();
            assert_eq!(text.chars().count(), NAME_LIMIT, "{text}");
        }
    }

    #[test]
    fn names_that_deceive_or_do_not_fit_are_refused() {
        for (name, error) in [
            ("", NameError::Empty),
            (" \t ", NameError::Empty),
            ("a\u{0}b", NameError::Invisible),
            ("root\u{200B}", NameError::Invisible),
            ("\u{202E}toor", NameError::Invisible),
        ] {
            assert_eq!(Names::new(name), Err(error), "{name:?}");
        }
        assert_eq!(Names::new(&"x".repeat(65)), Err(NameError::TooLong));
        let ann = || Names::new("ann").unwrap();
        for address in ["", "ann", "@example.org", "ann@", "a@b@c", "a b@c", "ann@example.org\nroot@x"] {
            assert_eq!(ann().with_principal(address), Err(NameError::NotAnAddress), "{address:?}");
            assert_eq!(ann().with_email(address), Err(NameError::NotAnAddress), "{address:?}");
        }
        assert_eq!(ann().with_email("zoë@example.org"), Err(NameError::NotAscii));
        assert_eq!(ann().with_principal(&format!("{}@x", "a".repeat(254))), Err(NameError::TooLong));
    }
}
