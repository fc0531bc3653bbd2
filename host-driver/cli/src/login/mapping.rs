//! Which certificate signs which user in.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use pocketcard_ipc::control::Phone;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Encode, EncodePem};

use super::plan::Module;
use super::{FOLDER, LoginError};

/// The file that holds them, below [`FOLDER`]. Nothing in it is secret.
pub(super) const FILE: &str = "mappings.json";

/// One user and the certificate that signs them in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mapping {
    pub(super) user: String,
    pub(super) phone: String,
    pub(super) phone_id: String,
    pub(super) subject: String,
    pub(super) issuer: String,
    /// The fingerprint, as openssl prints it.
    pub(super) sha256: String,
    /// The certificate itself, in PEM.
    pub(super) certificate: String,
    /// What issued it, in PEM, if that is somebody else.
    pub(super) authority: Option<String>,
}

impl Mapping {
    /// # Errors
    /// [`LoginError::AuthorityNeeded`] if the certificate was issued by somebody else than the authority that was given.
    pub(super) fn new(
        user: &str,
        phone: &Phone,
        certificate: &Certificate,
        authority: Option<Certificate>,
    ) -> Result<Self, LoginError> {
        let of = certificate.tbs_certificate();
        let issuer = shown(&of.issuer().to_string());
        let self_signed = of.issuer() == of.subject();
        let authority = authority.filter(|authority| authority.tbs_certificate().subject() == of.issuer());
        if !self_signed && authority.is_none() {
            return Err(LoginError::AuthorityNeeded(issuer));
        }
        let pem =
            |certificate: &Certificate| certificate.to_pem(LineEnding::LF).map_err(|_| LoginError::BadCertificate);
        Ok(Self {
            user: user.to_owned(),
            phone: phone.name.clone(),
            phone_id: phone.id.clone(),
            subject: shown(&of.subject().to_string()),
            issuer,
            sha256: fingerprint_of(certificate)?,
            certificate: pem(certificate)?,
            authority: if self_signed { None } else { authority.as_ref().map(pem).transpose()? },
        })
    }
}

/// All of them. One module serves the whole computer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mappings {
    pub(super) module: Option<Module>,
    pub(super) users: Vec<Mapping>,
}

impl Mappings {
    /// Reads them; none if the file is not there.
    pub(super) fn load(root: &Path) -> Result<Self, LoginError> {
        let path = root.join(FOLDER).join(FILE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| LoginError::Unreadable(path)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(LoginError::File { what: "reading", path, source }),
        }
    }

    /// Adds one; a user has one phone, so it takes the place of the user's former one.
    pub(super) fn add(&mut self, mapping: Mapping) {
        self.users.retain(|other| other.user != mapping.user);
        self.users.push(mapping);
    }

    /// Takes some out; says whether there were any.
    pub(super) fn remove(&mut self, gone: impl Fn(&Mapping) -> bool) -> bool {
        let before = self.users.len();
        self.users.retain(|mapping| !gone(mapping));
        self.users.len() < before
    }
}

/// Refuses whom PAM's configuration could not name exactly, root, and whoever does not exist.
pub(super) fn check_user(root: &Path, user: &str) -> Result<(), LoginError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.".contains(&byte);
    if user.is_empty() || !user.bytes().all(plain) || user.starts_with(['-', '.']) {
        return Err(LoginError::UserName(user.to_owned()));
    }
    if user == "root" {
        return Err(LoginError::Root);
    }
    let exists = if root == Path::new("/") {
        // Asks every source of users that this computer has.
        let mut getent = Command::new("getent");
        getent.args(["passwd", user]).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
    } else {
        let passwd = fs::read_to_string(root.join("etc/passwd")).unwrap_or_default();
        passwd.lines().any(|line| line.split(':').next() == Some(user))
    };
    if exists { Ok(()) } else { Err(LoginError::NoSuchUser(user.to_owned())) }
}

/// A name out of a certificate without characters that steer a terminal or turn a line around: whoever made the certificate
/// chose it, and whoever sets up a login decides by what is shown.
fn shown(name: &str) -> String {
    let escaped = |character: char| match character {
        '\\' | '"' | '\'' => character.to_string(),
        other => other.escape_debug().to_string(),
    };
    name.chars().map(escaped).collect()
}

/// The fingerprint of a certificate.
pub(super) fn fingerprint_of(certificate: &Certificate) -> Result<String, LoginError> {
    Ok(fingerprint(&certificate.to_der().map_err(|_| LoginError::BadCertificate)?))
}

/// A fingerprint, as openssl prints it and pam_pkcs11's digest mapper compares it.
fn fingerprint(der: &[u8]) -> String {
    Sha256::digest(der).iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// Whether somebody typed this fingerprint, with or without colons.
pub(super) fn same_fingerprint(given: &str, fingerprint: &str) -> bool {
    let plain = |text: &str| text.replace([':', ' '], "").to_ascii_uppercase();
    plain(given) == plain(fingerprint)
}

#[cfg(test)]
pub(super) mod tests {
    use x509_cert::der::DecodePem;

    use super::*;
    use crate::fixtures;

    /// Of a test card, P-256, signed by itself.
    pub(in crate::login) const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBjzCCATagAwIBAgIQcWJTu1y2PrUQMaZtVCvRmDAKBggqhkjOPQQDAjAfMR0w
GwYDVQQDDBRQb2NrZXRjYXJkIHRlc3QgY2FyZDAeFw0yNjExMjQxMzQxMjRaFw0z
NjExMjExMzQxMjRaMB8xHTAbBgNVBAMMFFBvY2tldGNhcmQgdGVzdCBjYXJkMFkw
EwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE2mno1lJpt5OCxywNWf+UCYrGyUA74+t6
qZxecrWHJ7Sg7Ktdu0n7kLC2hxNZERUjE+a9fHXudg1tO6R0YmTARqNUMFIwDAYD
VR0TAQH/BAIwADAOBgNVHQ8BAf8EBAMCB4AwEwYDVR0lBAwwCgYIKwYBBQUHAwIw
HQYDVR0OBBYEFCIvZ/CrHXa8fJbQRU4lgCqqLWnIMAoGCCqGSM49BAMCA0cAMEQC
IH5UA6ZUEFWlypXhCpUwyyZlMHPxRC3eAhdaioWZNVIVAiAG0yQ92xbNnA+W+de7
yCm09scZLotuL8K4pP1+rWxtjA==
-----END CERTIFICATE-----
";

    /// Of an authority, as `openssl req -x509` makes one for any key unless told.
    pub(in crate::login) const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----
MIIBdTCCARugAwIBAgIULuZaFeyyeao+IUAng+t+xU19s5cwCgYIKoZIzj0EAwIw
EDEOMAwGA1UEAwwFYWxpY2UwHhcNMjYxMTI0MTQyOTE0WhcNMjYxMjI0MTQyOTE0
WjAQMQ4wDAYDVQQDDAVhbGljZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABENx
OID1VHiDM9PGY1QZYyDCVbPrk/V7mnPTuksQBsrxlFGzhoFWLqBq7y9mftCLQ+Sl
jv2HpLyZM+XRHia/3amjUzBRMB0GA1UdDgQWBBRxAIXGFiTrLhjchiu5e2kTKwd8
KjAfBgNVHSMEGDAWgBRxAIXGFiTrLhjchiu5e2kTKwd8KjAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0gAMEUCIQCJ/DTMciOx+GvQP7ICb7on8vZY+cIIqjAe
ooj+P0LHDAIgBiIHIAjM66H0D7YQ+OX/VdKZ3R2yLPm89AljGqe7TLo=
-----END CERTIFICATE-----
";

    pub(in crate::login) fn mapping(user: &str) -> Mapping {
        let certificate = Certificate::from_pem(CERTIFICATE).unwrap();
        Mapping::new(user, &fixtures::phone(), &certificate, None).unwrap()
    }

    #[test]
    fn the_fingerprint_is_openssls_in_either_spelling() {
        // openssl x509 -noout -fingerprint -sha256
        let shown = "E4:6E:B8:8A:39:00:84:0C:0B:DA:17:A8:BD:7C:D3:A3:82:67:25:72:7A:0B:0E:07:4B:18:1D:F2:3E:85:0B:BE";
        let mapping = mapping("alice");
        assert_eq!(mapping.sha256, shown);
        assert_eq!(mapping.subject, "CN=Pocketcard test card");
        assert_eq!(mapping.certificate, CERTIFICATE);
        assert!(same_fingerprint(&shown.replace(':', "").to_lowercase(), &mapping.sha256));
        assert!(!same_fingerprint(&shown[3..], &mapping.sha256));
    }

    #[test]
    fn a_name_in_a_certificate_steers_no_terminal() {
        assert_eq!(shown("CN=J\u{FC}rgen \\+ \"O'Hara\""), "CN=J\u{FC}rgen \\+ \"O'Hara\"");
        assert_eq!(shown("CN=\u{9B}2K\u{202E}x\n"), r"CN=\u{9b}2K\u{202e}x\n");
    }

    #[test]
    fn a_user_has_one_phone() {
        let mut mappings = Mappings::default();
        mappings.add(mapping("alice"));
        mappings.add(mapping("carol"));
        mappings.add(Mapping { phone: "new".to_owned(), ..mapping("alice") });
        let shown: Vec<_> = mappings.users.iter().map(|mapping| (&*mapping.user, &*mapping.phone)).collect();
        assert_eq!(shown, [("carol", "Pixel"), ("alice", "new")]);
        assert!(mappings.remove(|mapping| mapping.user == "carol"));
        assert!(!mappings.remove(|mapping| mapping.user == "carol"));
    }

    #[test]
    fn only_plain_names_of_users_who_exist() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/passwd"), "root:x:0:0\nalice:x:1000:1000\n").unwrap();
        assert!(check_user(root.path(), "alice").is_ok());
        assert!(matches!(check_user(root.path(), "root"), Err(LoginError::Root)));
        assert!(matches!(check_user(root.path(), "ali"), Err(LoginError::NoSuchUser(_))));
        for name in ["", "a:b", "a b", "a\nauth", "-a", "A", "ä"] {
            assert!(matches!(check_user(root.path(), name), Err(LoginError::UserName(_))), "{name:?}");
        }
    }
}
