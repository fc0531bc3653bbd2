//! Why a login could not be set up or taken back.

use std::io;
use std::path::PathBuf;

use super::plan::Module;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LoginError {
    #[error("no such user on this computer: {0}")]
    NoSuchUser(String),
    #[error("{0:?} is no user name that PAM's configuration can hold")]
    UserName(String),
    #[error("root is not signed in by a phone: sign in as yourself and use sudo")]
    Root,
    #[error("no phone with that name is here")]
    NoPhone,
    #[error("several phones are here")]
    SeveralPhones,
    #[error("the phone's reader is not there for PC/SC")]
    NoReader,
    #[error("the phone has no certificate for signing in (PIV 9A)")]
    NoCertificate,
    #[error("the certificate in the phone cannot be read")]
    BadCertificate,
    #[error("{0} is no certificate in PEM")]
    BadAuthority(PathBuf),
    #[error("the certificate was issued by {0}, which --ca does not hold")]
    AuthorityNeeded(String),
    #[error("the certificate does not fit: {shown} is in the phone")]
    Fingerprint { shown: String },
    #[error("not agreed to")]
    Declined,
    #[error("logins are set up by {0} already; one computer uses one of the two")]
    OtherModule(Module),
    #[error("sssd is configured already, in {0}")]
    SssdInUse(PathBuf),
    #[error("{0} has the same subject in its certificate, and sssd tells users apart by nothing else")]
    SameSubject(String),
    #[error(
        "{0} has the same subject in a certificate that nobody else issued either, and OpenSSL takes one for the other"
    )]
    SameSelfSigned(String),
    #[error("the certificate of {0} can issue others, and sssd would take those, too")]
    CanIssue(String),
    #[error("sssd may read the subject in the certificate of {0} in another way: {1:?}")]
    OddSubject(String, String),
    #[error("this is not laid out as Debian is: /etc/pam.d/common-auth is missing")]
    NotDebian,
    #[error("none of the services can be changed: {0}")]
    NoService(String),
    #[error("{0} is not installed")]
    ModuleMissing(&'static str),
    #[error("no login by a phone is set up here")]
    NothingSetUp,
    #[error("no phone signs {0} in")]
    NoSuchMapping(String),
    #[error("another `pocketcard login` is at work")]
    Busy,
    #[error("{} is a symbolic link", .0.display())]
    Link(PathBuf),
    #[error("changed since it was written, so not put back: {0}")]
    Changed(String),
    #[error("{} cannot be understood", .0.display())]
    Unreadable(PathBuf),
    #[error("{what} {}: {source}", .path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
}

impl LoginError {
    /// What to do next.
    pub(crate) fn advice(&self) -> Option<String> {
        let advice = match self {
            Self::NoPhone => "bring it near and unlock it; `pocketcard status` shows what is here",
            Self::SeveralPhones => "say which one with --phone; `pocketcard phones` lists them",
            Self::NoReader => "run `pocketcard doctor`",
            Self::NoCertificate => "make a key and its certificate in the phone first",
            Self::AuthorityNeeded(_) => "give the authority's certificate: --ca FILE",
            Self::Fingerprint { .. } | Self::Declined => "nothing was changed",
            Self::OtherModule(_) => "take it back first, if you want the other one: pocketcard login undo",
            Self::SssdInUse(_) => "it stays as it is; use --module pam_pkcs11, which has a configuration of its own",
            Self::SameSubject(_) | Self::CanIssue(_) | Self::OddSubject(..) => {
                "use --module pam_pkcs11, which goes by the certificate alone"
            }
            Self::SameSelfSigned(_) => {
                "give the phone a certificate with another name, or one that an authority issued"
            }
            Self::NotDebian => "docs/login.md shows the lines; put them where your system wants them",
            Self::NoService(_) => "name those that have the line `@include common-auth` with --service",
            Self::ModuleMissing(package) => return Some(format!("apt-get install {package}")),
            Self::Busy => "let it end, or end it; then try again",
            Self::Link(_) => "nothing was changed; put a file in its place, and try again",
            Self::Changed(_) => {
                "look at what changed, then: pocketcard login undo --force; the originals are in /etc/pocketcard/login/undo"
            }
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => "run it as root: sudo",
            _ => return None,
        };
        Some(advice.to_owned())
    }
}
