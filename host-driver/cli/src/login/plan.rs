//! What is written: every file with its whole new content, in the order in which it can be written safely.

use std::fmt;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use x509_cert::Certificate;
use x509_cert::der::DecodePem;

use super::diff::diff;
use super::files::Journal;
use super::mapping::{self, Mapping, Mappings};
use super::services::{self, Services};
use super::{FOLDER, LoginError, certificate};

/// Where the package has our program. One that lies elsewhere may be anybody's to change, and PAM runs it as root.
const PROGRAM: &str = "usr/bin/pocketcard";

/// What looks at the card when somebody signs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Module {
    /// For one computer and its own users
    #[value(name = "pam_pkcs11")]
    PamPkcs11,
    /// Better words at the prompt; takes sssd for itself
    Sssd,
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PamPkcs11 => "pam_pkcs11",
            Self::Sssd => "sssd",
        })
    }
}

/// One file to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NewFile {
    /// Below the root.
    pub(super) path: PathBuf,
    pub(super) content: String,
    pub(super) mode: u32,
}

/// Everything that is written. What is named by others comes before them, so that no file ever points at nothing.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) files: Vec<NewFile>,
    services: Services,
}

impl Plan {
    pub(super) fn new(root: &Path, mappings: &Mappings, named: &[String]) -> Result<Self, LoginError> {
        let journal = Journal::load(root)?;
        // Those that were set up stay, whatever is named now.
        let mut named = named.to_vec();
        if !named.is_empty() || !journal.is_empty() {
            named.extend(journal.services());
            named.sort();
            named.dedup();
        }
        let services = Services::find(root, &named, |path| journal.original(root, path))?;
        let mut files = vec![
            in_folder(mapping::FILE, serde_json::to_string_pretty(mappings).unwrap_or_default() + "\n"),
            in_folder("trusted.pem", trusted(mappings)),
        ];
        match mappings.module {
            Some(Module::Sssd) => files.push(sssd(root, mappings, &services, &journal)?),
            _ => {
                check_self_signed(mappings)?;
                files.push(in_folder("digest_map", digest_map(mappings)));
                files.push(in_folder("pam_pkcs11.conf", pam_pkcs11(&Libraries::find(root)?)));
            }
        }
        files.push(in_services(services::RULE, rule(root, mappings)?));
        files.extend(services.changed.iter().map(|(name, text)| in_services(name, text.clone())));
        Ok(Self { files, services })
    }

    /// Where the phone signs in.
    pub(super) fn services(&self) -> Vec<&str> {
        let changed = self.services.changed.iter().map(|(name, _)| name);
        changed.chain(&self.services.covered).map(String::as_str).collect()
    }

    /// Services that were named and are left out, with the reason.
    pub(super) fn left_out(&self) -> Vec<String> {
        let unfit = self.services.unfit.iter().map(|name| format!("{name} (it has no line `@include common-auth`)"));
        let links = self.services.links.iter().map(|name| format!("{name} (it is a symbolic link, which stays one)"));
        unfit.chain(links).collect()
    }

    /// What would change, as `diff -u` shows it.
    pub(super) fn diff(&self, root: &Path) -> Result<String, LoginError> {
        let mut text = String::new();
        for NewFile { path, content, .. } in &self.files {
            let old = match fs::read_to_string(root.join(path)) {
                Ok(old) => Some(old),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(source) => return Err(LoginError::File { what: "reading", path: root.join(path), source }),
            };
            text.push_str(&diff(path, old.as_deref(), content));
        }
        Ok(text)
    }
}

fn in_folder(name: &str, content: String) -> NewFile {
    NewFile { path: Path::new(FOLDER).join(name), content, mode: 0o644 }
}

fn in_services(name: &str, content: String) -> NewFile {
    NewFile { path: Path::new(services::FOLDER).join(name), content, mode: 0o644 }
}

/// The certificates that are accepted, and what issued them.
fn trusted(mappings: &Mappings) -> String {
    let mut all: Vec<&str> = Vec::new();
    for Mapping { certificate, authority, .. } in &mappings.users {
        let trusted = match (mappings.module, authority) {
            // sssd takes the certificate itself for an anchor (partial_chain), so that nothing else of its issuer's fits.
            (Some(Module::PamPkcs11), Some(authority)) => authority,
            _ => certificate,
        };
        if !all.contains(&trusted.as_str()) {
            all.push(trusted);
        }
    }
    all.concat()
}

/// OpenSSL looks for what issued a certificate by its subject: of two that issued themselves by the same name it takes the wrong
/// one, and refuses the other.
fn check_self_signed(mappings: &Mappings) -> Result<(), LoginError> {
    let mut all = mappings.users.iter().filter(|mapping| mapping.authority.is_none()).rev();
    let Some(newest) = all.next() else { return Ok(()) };
    match all.find(|other| other.subject == newest.subject && other.sha256 != newest.sha256) {
        Some(same) => Err(LoginError::SameSelfSigned(same.user.clone())),
        None => Ok(()),
    }
}

fn digest_map(mappings: &Mappings) -> String {
    mappings.users.iter().map(|mapping| format!("{} -> {}\n", mapping.sha256, mapping.user)).collect()
}

/// What the distribution put somewhere below /usr/lib.
struct Libraries {
    opensc: PathBuf,
    mappers: PathBuf,
}

impl Libraries {
    fn find(root: &Path) -> Result<Self, LoginError> {
        library(root, "security/pam_pkcs11.so").ok_or(LoginError::ModuleMissing("libpam-pkcs11"))?;
        Ok(Self {
            opensc: library(root, "opensc-pkcs11.so").ok_or(LoginError::ModuleMissing("opensc-pkcs11"))?,
            mappers: library(root, "pam_pkcs11").ok_or(LoginError::ModuleMissing("libpam-pkcs11"))?,
        })
    }
}

/// The first of /usr/lib, /lib and the folders for architectures in them that has this file.
fn library(root: &Path, name: &str) -> Option<PathBuf> {
    ["usr/lib", "lib"].into_iter().find_map(|folder| {
        let below = fs::read_dir(root.join(folder)).into_iter().flatten().flatten().map(|entry| entry.path());
        let found = below.chain([root.join(folder)]).map(|folder| folder.join(name)).find(|path| path.exists())?;
        Some(Path::new("/").join(found.strip_prefix(root).unwrap_or(&found)))
    })
}

/// A configuration of its own, so that /etc/pam_pkcs11 stays as it is.
///
/// The digest mapper compares the whole certificate; `ca` besides that it is valid today, `signature` that the phone has its
/// key. `slot_num = 0` is the first slot with a card.
fn pam_pkcs11(libraries: &Libraries) -> String {
    format!(
        "# Written by `pocketcard login setup`.\n\
         pam_pkcs11 {{\n  nullok = false;\n  debug = false;\n  use_first_pass = false;\n  try_first_pass = false;\n  \
         card_only = false;\n  wait_for_card = false;\n  use_pkcs11_module = opensc;\n  pkcs11_module opensc {{\n    \
         module = {opensc};\n    description = \"OpenSC\";\n    slot_num = 0;\n    \
         ca_dir = /{FOLDER}/trusted.pem;\n    crl_dir = /{FOLDER};\n    support_threads = false;\n    \
         cert_policy = ca,signature;\n    token_type = \"Phone\";\n  }}\n  use_mappers = digest;\n  \
         mapper_search_path = {mappers};\n  mapper digest {{\n    debug = false;\n    module = internal;\n    \
         algorithm = \"sha256\";\n    mapfile = file:///{FOLDER}/digest_map;\n  }}\n}}\n",
        opensc = libraries.opensc.display(),
        mappers = libraries.mappers.display(),
    )
}

/// The rule that services include.
///
/// Only users who have a phone are asked for its PIN: anybody else's password would be sent to it, and cost a try. Only a
/// PIN that was refused ends it: with no phone, and whatever may be broken, the password is asked for.
fn rule(root: &Path, mappings: &Mappings) -> Result<String, LoginError> {
    let users: Vec<&str> = mappings.users.iter().map(|mapping| mapping.user.as_str()).collect();
    let card = match mappings.module {
        Some(Module::Sssd) => {
            library(root, "security/pam_sss.so").ok_or(LoginError::ModuleMissing("libpam-sss"))?;
            "pam_sss.so try_cert_auth".to_owned()
        }
        _ => format!("pam_pkcs11.so config_file=/{FOLDER}/pam_pkcs11.conf"),
    };
    let guard = guard(root, mappings);
    Ok(format!(
        "# Written by `pocketcard login setup`; `pocketcard login undo` takes it back.\n\
         # Who has a phone is asked for its PIN while it is here; everybody else, and without it, for the password.\n\
         auth [success=ignore default={modules}] pam_succeed_if.so quiet user in {users}\n{guard}\
         auth [success=done auth_err=die default=ignore] {card}\n\
         @include common-auth\n",
        modules = 1 + guard.lines().count(),
        users = users.join(":"),
    ))
}

/// Passes pam_pkcs11 by if the phone that is here is somebody else's: it would ask for that one's PIN, and only then look whose
/// certificate it is. sssd looks first. Where our program is not installed there is no such line.
fn guard(root: &Path, mappings: &Mappings) -> String {
    if mappings.module == Some(Module::Sssd) || !root.join(PROGRAM).exists() {
        return String::new();
    }
    format!("auth [success=ignore default=1] pam_exec.so quiet stdout seteuid /{PROGRAM} login here\n")
}

/// sssd for the local users who have phones.
///
/// sssd has no rule for one certificate, so the certificates themselves are the only ones it trusts; among them the rule of
/// each user tells by the whole subject, which therefore has to differ.
fn sssd(root: &Path, mappings: &Mappings, services: &Services, journal: &Journal) -> Result<NewFile, LoginError> {
    let path = Path::new("etc/sssd/sssd.conf");
    if !root.join("usr/sbin/sssd").exists() {
        return Err(LoginError::ModuleMissing("sssd-common sssd-proxy libpam-sss"));
    }
    if root.join(path).exists() && !journal.holds(path) {
        return Err(LoginError::SssdInUse(Path::new("/").join(path)));
    }
    let changed = services.changed.iter().map(|(name, _)| name);
    let allowed: Vec<String> = changed.chain(&services.covered).map(|name| format!("+{name}")).collect();
    let mut content = format!(
        "# Written by `pocketcard login setup`; `pocketcard login undo` takes it back.\n\
         [sssd]\nservices = nss, pam\ndomains = pocketcard\n\
         # A certificate is trusted if it is in the file below, whoever issued it.\n\
         certificate_verification = no_ocsp, partial_chain\n\n\
         [pam]\npam_cert_auth = True\npam_cert_db_path = /{FOLDER}/trusted.pem\n\
         pam_p11_allowed_services = {}\n\
         # The phone's owner has 50 s to confirm; sssd would give up after 10.\n\
         p11_child_timeout = 55\n\n\
         [domain/pocketcard]\n{}",
        allowed.join(", "),
        local_users(root)
    );
    for (index, mapping) in mappings.users.iter().enumerate() {
        let before = mappings.users.iter().take(index);
        if let Some(same) = before.clone().find(|other| other.subject == mapping.subject) {
            return Err(LoginError::SameSubject(same.user.clone()));
        }
        let Mapping { user, subject, .. } = mapping;
        // A certificate that it issues is of whatever subject its owner likes: another user's.
        let read = Certificate::from_pem(&mapping.certificate).map_err(|_| LoginError::BadCertificate)?;
        if !certificate::can_issue_none(&read) {
            return Err(LoginError::CanIssue(user.clone()));
        }
        if !is_plain(subject) {
            return Err(LoginError::OddSubject(user.clone(), subject.clone()));
        }
        // Writing to a String cannot fail.
        let _ = write!(content, "\n[certmap/pocketcard/{user}]\nmatchrule = <SUBJECT>^{}$\n", escaped(subject));
    }
    Ok(NewFile { path: path.to_path_buf(), content, mode: 0o600 })
}

/// How sssd gets at the users of /etc/passwd: since 2.9 by the proxy, and then it has to be told that it is the card that
/// signs them in; before that by a provider of its own, which new ones still may have but which is on its way out.
fn local_users(root: &Path) -> &'static str {
    let known = fs::read_to_string(root.join("usr/share/sssd/sssd.api.conf")).unwrap_or_default();
    if known.contains("local_auth_policy") {
        "id_provider = proxy\nproxy_lib_name = files\nauth_provider = none\nlocal_auth_policy = only\n"
    } else {
        "id_provider = files\n"
    }
}

/// Whether everybody writes this subject alike, so that different texts are different subjects to sssd as well. Text beyond
/// ASCII, text of rare kinds (which we show as `#` and octets) and what has to be escaped is written in several ways.
fn is_plain(subject: &str) -> bool {
    subject.chars().all(|character| character.is_ascii_alphanumeric() || " .,=-_@()'/:".contains(character))
}

/// A text as the regular expression that matches it and nothing else. Spec: POSIX.1-2017, extended regular expressions.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        if r".[]{}()*+?^$|\".contains(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::login::mapping::tests::{AUTHORITY, mapping};

    /// A root with what Debian has there.
    pub(in crate::login) fn debian() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("etc/pam.d/common-auth", ""),
            ("etc/pam.d/su", "@include common-auth\n"),
            ("etc/pam.d/su-l", "auth include su\n"),
            ("usr/lib/x86_64-linux-gnu/security/pam_pkcs11.so", ""),
            ("usr/lib/x86_64-linux-gnu/security/pam_sss.so", ""),
            ("usr/lib/x86_64-linux-gnu/pam_pkcs11/x", ""),
            ("usr/lib/x86_64-linux-gnu/opensc-pkcs11.so", ""),
            ("usr/sbin/sssd", ""),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn mappings(module: Module, users: &[&str]) -> Mappings {
        Mappings { module: Some(module), users: users.iter().map(|user| mapping(user)).collect() }
    }

    fn content<'a>(plan: &'a Plan, path: &str) -> &'a str {
        &plan.files.iter().find(|file| file.path.ends_with(path)).unwrap().content
    }

    #[test]
    fn nobody_is_let_in_by_a_name() {
        let root = debian();
        let plan = Plan::new(root.path(), &mappings(Module::PamPkcs11, &["alice", "carol"]), &[]).unwrap();
        let conf = content(&plan, "pam_pkcs11.conf");
        for needed in ["use_mappers = digest;", "cert_policy = ca,signature;", "nullok = false;", "card_only = false;"]
        {
            assert!(conf.contains(needed), "{needed}");
        }
        assert_eq!(conf.matches("mapper ").count(), 1, "{conf}");
        let fingerprint = &mapping("alice").sha256;
        assert_eq!(content(&plan, "digest_map"), format!("{fingerprint} -> alice\n{fingerprint} -> carol\n"));
        assert!(content(&plan, "pocketcard-auth").contains("quiet user in alice:carol\n"));
        assert_eq!(content(&plan, "pam.d/su"), "auth substack pocketcard-auth\n");
        assert_eq!(plan.services(), ["su", "su-l"]);
    }

    #[test]
    fn two_certificates_that_openssl_takes_for_each_other_are_refused() {
        let root = debian();
        let plan = |bob: Mapping| {
            let mappings = Mappings { module: Some(Module::PamPkcs11), users: vec![mapping("alice"), bob] };
            Plan::new(root.path(), &mappings, &[])
        };
        let other = Mapping { sha256: "00".to_owned(), ..mapping("bob") };
        let error = plan(other.clone()).unwrap_err();
        assert!(matches!(&error, LoginError::SameSelfSigned(user) if user == "alice"), "{error}");
        plan(Mapping { authority: Some(AUTHORITY.to_owned()), ..other.clone() }).unwrap();
        plan(Mapping { subject: "CN=Bob".to_owned(), ..other }).unwrap();
        plan(mapping("bob")).unwrap();
    }

    #[test]
    fn a_module_that_asks_first_is_passed_by_if_the_card_is_not_the_users() {
        let root = debian();
        let rule = |module| {
            let plan = Plan::new(root.path(), &mappings(module, &["alice"]), &[]).unwrap();
            content(&plan, "pocketcard-auth").to_owned()
        };
        let (jumps_one, exec) = ("[success=ignore default=1] pam_succeed_if.so", "pam_exec.so");
        assert!(rule(Module::PamPkcs11).contains(jumps_one) && !rule(Module::PamPkcs11).contains(exec));
        fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        fs::write(root.path().join(PROGRAM), "").unwrap();
        let guarded = rule(Module::PamPkcs11);
        let lines: Vec<&str> = guarded.lines().filter(|line| line.starts_with("auth")).collect();
        assert_eq!(lines[0], "auth [success=ignore default=2] pam_succeed_if.so quiet user in alice");
        assert_eq!(
            lines[1],
            "auth [success=ignore default=1] pam_exec.so quiet stdout seteuid /usr/bin/pocketcard login here"
        );
        assert!(lines[2].contains("pam_pkcs11.so"), "{guarded}");
        assert!(rule(Module::Sssd).contains(jumps_one) && !rule(Module::Sssd).contains(exec));
    }

    #[test]
    fn every_file_comes_before_those_that_name_it() {
        let root = debian();
        for module in [Module::PamPkcs11, Module::Sssd] {
            let plan = Plan::new(root.path(), &mappings(module, &["alice"]), &[]).unwrap();
            for (index, file) in plan.files.iter().enumerate() {
                let name = file.path.file_name().unwrap().to_string_lossy().into_owned();
                let earlier = plan.files.iter().take(index);
                assert!(earlier.clone().all(|file| !file.content.contains(&format!("/{name}"))), "{name}");
            }
            assert!(
                plan.files.iter().position(|file| file.path.ends_with(services::RULE)).unwrap() < plan.files.len() - 1
            );
        }
    }

    #[test]
    fn sssd_trusts_the_certificate_alone_and_wants_different_subjects() {
        let root = debian();
        let plan = Plan::new(root.path(), &mappings(Module::Sssd, &["alice"]), &[]).unwrap();
        let conf = content(&plan, "sssd.conf");
        assert!(conf.contains("matchrule = <SUBJECT>^CN=Pocketcard test card$\n"), "{conf}");
        assert!(conf.contains("certificate_verification = no_ocsp, partial_chain\n"), "{conf}");
        assert!(conf.contains("pam_p11_allowed_services = +su, +su-l\n"), "{conf}");
        assert!(conf.contains("p11_child_timeout = 55\n"), "its owner is given the time to answer: {conf}");
        assert!(!conf.contains("no_verification"));
        assert_eq!(content(&plan, "trusted.pem"), mapping("alice").certificate);
        assert!(conf.contains("id_provider = files\n"), "{conf}");
        let known = root.path().join("usr/share/sssd");
        fs::create_dir_all(&known).unwrap();
        fs::write(known.join("sssd.api.conf"), "local_auth_policy = str, None, false\n").unwrap();
        let newer = Plan::new(root.path(), &mappings(Module::Sssd, &["alice"]), &[]).unwrap();
        assert!(content(&newer, "sssd.conf").contains("id_provider = proxy\n"), "sssd since 2.9");
        let error = Plan::new(root.path(), &mappings(Module::Sssd, &["alice", "carol"]), &[]).unwrap_err();
        assert!(matches!(error, LoginError::SameSubject(_)), "{error}");
        let plan = |user| Plan::new(root.path(), &Mappings { module: Some(Module::Sssd), users: vec![user] }, &[]);
        let error = plan(Mapping { certificate: AUTHORITY.to_owned(), ..mapping("alice") }).unwrap_err();
        assert!(matches!(error, LoginError::CanIssue(_)), "{error}");
        for subject in ["2.5.4.3=#1e060062006f0062", "CN=bob+O=x", "CN=b\\2cob", "CN=Jürgen", "CN=b\nob"] {
            let error = plan(Mapping { subject: subject.to_owned(), ..mapping("alice") }).unwrap_err();
            assert!(matches!(error, LoginError::OddSubject(..)), "{error}");
        }
        fs::create_dir(root.path().join("etc/sssd")).unwrap();
        fs::write(root.path().join("etc/sssd/sssd.conf"), "[sssd]\n").unwrap();
        let error = Plan::new(root.path(), &mappings(Module::Sssd, &["alice"]), &[]).unwrap_err();
        assert!(matches!(error, LoginError::SssdInUse(_)), "{error}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let root = debian();
        fs::remove_file(root.path().join("usr/lib/x86_64-linux-gnu/security/pam_pkcs11.so")).unwrap();
        let error = Plan::new(root.path(), &mappings(Module::PamPkcs11, &["alice"]), &[]).unwrap_err();
        assert!(matches!(error, LoginError::ModuleMissing("libpam-pkcs11")), "{error}");
        assert_eq!(escaped("CN=a.b (c)"), r"CN=a\.b \(c\)");
    }
}
