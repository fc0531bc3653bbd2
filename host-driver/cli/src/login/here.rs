//! `pocketcard login here`: for PAM's rule, before pam_pkcs11, which asks whoever's phone is here for its PIN and looks whose it is
//! only then.
//!
//! It decides nothing but who is asked: whatever it cannot find out is left to pam_pkcs11, which admits nobody without the right
//! key. It reads what every program may read, and asks for no PIN.

use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;
use std::{env, thread};

use super::certificate::{self, First};
use super::mapping::{Mappings, fingerprint_of};
use crate::failure::Failure;
use crate::terminal::print;

/// For the card to be read. A program that works with it may keep it for longer; nobody who signs in is to wait for that here.
const LIMIT: Duration = Duration::from_secs(5);

/// Spec: pam_exec(8)
pub(super) fn run(root: &Path) -> ExitCode {
    let Ok(user) = env::var("PAM_USER") else { return ExitCode::SUCCESS };
    // Unreadable for who unlocks a screen, or damaged.
    let Ok(mappings) = Mappings::load(root) else { return ExitCode::SUCCESS };
    let (sender, read) = mpsc::channel();
    thread::spawn(move || drop(sender.send(certificate::of_first())));
    if is_anothers(&user, &mappings, read.recv_timeout(LIMIT).ok()) {
        print(&format!("The phone that is here is not {user}'s.\n"));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Whether the card is certainly not this user's.
fn is_anothers(user: &str, mappings: &Mappings, first: Option<Result<First, Failure>>) -> bool {
    let Some(mapping) = mappings.users.iter().find(|mapping| mapping.user == user) else { return false };
    match first {
        Some(Ok(First::None)) => true,
        Some(Ok(First::Certificate(certificate))) => {
            fingerprint_of(&certificate).is_ok_and(|fingerprint| fingerprint != mapping.sha256)
        }
        // pam_pkcs11 says in its own words that there is no card, or waits for it.
        Some(Ok(First::Absent) | Err(_)) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use x509_cert::Certificate;
    use x509_cert::der::DecodePem;

    use super::*;
    use crate::login::LoginError;
    use crate::login::mapping::tests::{AUTHORITY, CERTIFICATE, mapping};

    #[test]
    fn only_a_card_that_is_certainly_anothers_is_not_asked() {
        let card = |pem: &str| Some(Ok(First::Certificate(Box::new(Certificate::from_pem(pem).unwrap()))));
        let mappings = Mappings { module: None, users: vec![mapping("alice")] };
        assert!(is_anothers("alice", &mappings, card(AUTHORITY)));
        assert!(is_anothers("alice", &mappings, Some(Ok(First::None))));
        assert!(!is_anothers("alice", &mappings, card(CERTIFICATE)));
        assert!(!is_anothers("bob", &mappings, card(AUTHORITY)), "nobody has set it up for him");
        for unknown in [Some(Ok(First::Absent)), Some(Err(LoginError::NoReader.into())), None] {
            assert!(!is_anothers("alice", &mappings, unknown));
        }
    }
}
