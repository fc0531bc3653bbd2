//! The text of the QR code that a host shows.

use std::fmt;
use std::time::Duration;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::OFFER_LIFETIME;
use super::base32::{self, Base32Error};
use crate::channel::{Psk, PublicKey};
use crate::messages::{NAME_LIMIT, peer_name};

/// What the text begins with; upper case is accepted too.
pub const QR_SCHEME: &str = "pocketcard:";

const VERSION: u8 = 1;
/// Version, lifetime, key, secret, seed, length of the name.
const FIXED_LENGTH: usize = 1 + 1 + 32 + 32 + 16 + 1;
const CHECKSUM_LENGTH: usize = 4;
const CHECKSUM_LABEL: &[u8] = b"pocketcard v1 qr checksum";
/// Longest text: the scheme and the longest payload in base 32. Spaces, line breaks and hyphens come on top.
const TEXT_LIMIT: usize = 1024;

/// What a host's QR code says.
///
/// Spec: SPEC.md section 8.1
pub struct QrText {
    host: PublicKey,
    secret: Psk,
    seed: [u8; 16],
    lifetime: Duration,
    name: String,
    hash: [u8; 32],
    /// As encoded; the hash is over exactly these bytes.
    payload: Zeroizing<Vec<u8>>,
}

impl QrText {
    pub(super) fn new(host: PublicKey, secret: &[u8; 32], seed: [u8; 16], name: &str) -> Self {
        let name = peer_name(name);
        let mut payload = Zeroizing::new(Vec::with_capacity(FIXED_LENGTH + NAME_LIMIT + CHECKSUM_LENGTH));
        payload.push(VERSION);
        payload.push(u8::try_from(OFFER_LIFETIME.as_secs()).unwrap_or(u8::MAX));
        payload.extend_from_slice(host.as_bytes());
        payload.extend_from_slice(secret);
        payload.extend_from_slice(&seed);
        payload.push(u8::try_from(name.len()).unwrap_or(0));
        payload.extend_from_slice(name.as_bytes());
        let checksum = checksum(&payload);
        payload.extend_from_slice(&checksum);
        Self {
            host,
            secret: Psk::from_bytes(secret),
            seed,
            lifetime: OFFER_LIFETIME,
            name,
            hash: Sha256::digest(payload.as_slice()).into(),
            payload,
        }
    }

    /// Reads the text of a QR code, from a camera or from a keyboard: upper or lower case, spaces, line breaks and
    /// hyphens anywhere after the scheme.
    ///
    /// # Errors
    /// [`QrError`], which says what to do.
    pub fn parse(text: &str) -> Result<Self, QrError> {
        let text = text.trim();
        if text.len() > TEXT_LIMIT {
            return Err(QrError::Length);
        }
        let body = match text.split_at_checked(QR_SCHEME.len()) {
            Some((scheme, body)) if scheme.eq_ignore_ascii_case(QR_SCHEME) => body,
            _ => return Err(QrError::NotPocketcard),
        };
        // Never grows: an allocation that a secret has outgrown would be freed unwiped.
        let mut typed = Zeroizing::new(String::with_capacity(body.len()));
        typed.extend(body.chars().filter(|c| !c.is_ascii_whitespace() && *c != '-'));
        let mut payload = Zeroizing::new(Vec::with_capacity(TEXT_LIMIT));
        let decoded = base32::decode(&typed, &mut payload);
        // The version comes first: what follows may differ in a later one.
        match payload.first() {
            Some(&VERSION) => {}
            Some(&version) if decoded.is_ok() => return Err(QrError::Version(version)),
            _ => return Err(decoded.err().map_or(QrError::Length, QrError::from)),
        }
        decoded?;

        let (content, sum) = payload.split_last_chunk::<CHECKSUM_LENGTH>().ok_or(QrError::Length)?;
        if content.len() < FIXED_LENGTH {
            return Err(QrError::Length);
        }
        if *sum != checksum(content) {
            return Err(QrError::Checksum);
        }
        let ([_version, lifetime], rest) = content.split_first_chunk::<2>().ok_or(QrError::Length)?;
        let (host, rest) = rest.split_first_chunk::<32>().ok_or(QrError::Length)?;
        let (secret, rest) = rest.split_first_chunk::<32>().ok_or(QrError::Length)?;
        let (seed, rest) = rest.split_first_chunk::<16>().ok_or(QrError::Length)?;
        let (&name_length, name) = rest.split_first().ok_or(QrError::Length)?;
        if name.len() != usize::from(name_length) || name.len() > NAME_LIMIT {
            return Err(QrError::Length);
        }
        let name = std::str::from_utf8(name).map_err(|_| QrError::Name)?;
        Ok(Self {
            host: PublicKey::from(*host),
            secret: Psk::from_bytes(secret),
            seed: *seed,
            lifetime: Duration::from_secs(u64::from(*lifetime)),
            name: peer_name(name),
            hash: Sha256::digest(payload.as_slice()).into(),
            payload,
        })
    }

    /// The text, wiped on drop.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(TEXT_LIMIT));
        text.push_str(QR_SCHEME);
        base32::encode(&self.payload, &mut text);
        text
    }

    /// The host's identity. The handshake must end with this key on the other side.
    #[must_use]
    pub const fn host(&self) -> &PublicKey {
        &self.host
    }

    /// The host's name, sanitised.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long after it was made the offer holds. The host enforces it; the phone merely stops trying.
    #[must_use]
    pub const fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// By what the phone advertises that it wants to answer this offer.
    #[must_use]
    pub const fn advertising_seed(&self) -> &[u8; 16] {
        &self.seed
    }

    pub(crate) const fn secret(&self) -> &Psk {
        &self.secret
    }

    #[cfg(test)]
    pub(crate) fn with_lifetime_for_testing_only(self, lifetime: Duration) -> Self {
        Self { lifetime, ..self }
    }

    /// SHA-256 over the payload, as the prologue binds it.
    pub(crate) const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }
}

impl fmt::Debug for QrText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QrText").field("host", &self.host).field("name", &self.name).finish_non_exhaustive()
    }
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM_LENGTH] {
    let digest: [u8; 32] = Sha256::new().chain_update(CHECKSUM_LABEL).chain_update(content).finalize().into();
    digest.first_chunk().copied().unwrap_or_default()
}

/// Why text is not a host's QR code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QrError {
    /// Some other QR code.
    #[error("this is not a Pocketcard code; scan the one that `pocketcard pair` shows")]
    NotPocketcard,
    /// Made by a program of another version.
    #[error("this code is of version {0}, which this phone does not know; update the app on the phone")]
    Version(u8),
    /// A character that no code has.
    #[error("character {} after the colon is not part of any code", .0 + 1)]
    Character(usize),
    /// Cut, or more than one code.
    #[error("this code is not complete; copy all of it")]
    Length,
    /// Mistyped.
    #[error("this code has a typing mistake")]
    Checksum,
    /// The host's name is not text.
    #[error("the computer's name in this code is not text")]
    Name,
}

impl From<Base32Error> for QrError {
    fn from(error: Base32Error) -> Self {
        match error {
            Base32Error::Character(position) => Self::Character(position),
            Base32Error::Length => Self::Length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(name: &str) -> QrText {
        QrText::new(PublicKey::from([1; 32]), &[2; 32], [3; 16], name)
    }

    /// The text of a payload whose checksum is right, whatever the rest is.
    fn text_of(content: &[u8]) -> String {
        let mut text = String::from(QR_SCHEME);
        base32::encode(&[content, &checksum(content)].concat(), &mut text);
        text
    }

    fn content_of(qr: &QrText) -> Vec<u8> {
        qr.payload[..qr.payload.len() - CHECKSUM_LENGTH].to_vec()
    }

    #[test]
    fn a_scanned_code_says_what_the_host_meant() {
        let shown = sample("desk\u{202E}");
        let read = QrText::parse(&shown.to_text()).expect("just written");
        assert_eq!((read.host(), read.name()), (&PublicKey::from([1; 32]), "desk"));
        assert_eq!((read.secret().as_bytes(), read.advertising_seed()), (&[2; 32], &[3; 16]));
        assert_eq!((read.lifetime(), read.hash()), (Duration::from_secs(120), shown.hash()));
    }

    #[test]
    fn case_spaces_and_hyphens_do_not_matter() {
        let shown = sample("desk");
        let text = shown.to_text();
        let (scheme, body) = text.split_at(QR_SCHEME.len());
        let typed = format!("  {}{}\n", scheme.to_uppercase(), body.to_lowercase());
        assert_eq!(QrText::parse(&typed).map(|read| *read.hash()), Ok(*shown.hash()));
        let grouped: Vec<&str> = body.as_bytes().chunks(8).map(|c| std::str::from_utf8(c).expect("ascii")).collect();
        let typed = format!("{scheme}{}", grouped.join("- \n"));
        assert_eq!(QrText::parse(&typed).map(|read| *read.hash()), Ok(*shown.hash()));
    }

    #[test]
    fn the_text_fits_a_small_code() {
        // Byte mode for the scheme, alphanumeric for the rest; a code of version 12 holds 250 characters or more.
        let longest = sample(&"x".repeat(64)).to_text();
        assert!(longest.len() <= 254, "{}", longest.len());
        assert!(longest[QR_SCHEME.len()..].bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()));
        assert!(longest.len() < TEXT_LIMIT);
    }

    #[test]
    fn each_mistake_is_named() {
        let text = sample("desk").to_text().to_string();
        let mut version = content_of(&sample("desk"));
        version[0] = 2;
        let mut name = content_of(&sample("desk"));
        name[FIXED_LENGTH] = 0xFF;
        let mut name_length = content_of(&sample("desk"));
        name_length[FIXED_LENGTH - 1] = 3;
        let mut long_name = content_of(&sample(&"x".repeat(64)));
        long_name[FIXED_LENGTH - 1] = 65;
        long_name.push(b'x');
        let mut typo = text.clone().into_bytes();
        let last = typo.len() - 10;
        typo[last] = if typo[last] == b'A' { b'B' } else { b'A' };
        let typo = String::from_utf8(typo).expect("ascii");
        let table = [
            (String::new(), QrError::NotPocketcard),
            ("https://example.org/".into(), QrError::NotPocketcard),
            (text.replace("pocketcard", "packetcord"), QrError::NotPocketcard),
            ("pocketcard:".into(), QrError::Length),
            (format!("{text}!"), QrError::Character(text.len() - QR_SCHEME.len())),
            (text[..text.len() - 8].to_owned(), QrError::Length),
            (text[..40].to_owned(), QrError::Length),
            (format!("{text}{text}"), QrError::Character(text.len() - 1)),
            ("pocketcard:".to_owned() + &"A".repeat(2000), QrError::Length),
            (typo, QrError::Checksum),
            (text_of(&version), QrError::Version(2)),
            (text_of(&name), QrError::Name),
            (text_of(&name_length), QrError::Length),
            (text_of(&long_name), QrError::Length),
        ];
        for (text, expected) in table {
            assert_eq!(QrText::parse(&text).err(), Some(expected), "{text}");
        }
    }

    #[test]
    fn the_secret_is_not_printed() {
        assert_eq!(format!("{:?}", sample("desk")), "QrText { host: PublicKey(01010101..), name: \"desk\", .. }");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = QrText::parse(&text);
        }

        #[test]
        fn any_content_is_read_or_refused(content in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(read) = QrText::parse(&text_of(&content)) {
                prop_assert_eq!(QrText::parse(&read.to_text()).map(|again| *again.hash()), Ok(*read.hash()));
            }
        }

        #[test]
        fn any_name_survives(name in any::<String>()) {
            let shown = sample(&name);
            let read = QrText::parse(&shown.to_text());
            prop_assert_eq!(read.map(|read| read.name().to_owned()), Ok(peer_name(&name)));
        }
    }
}
