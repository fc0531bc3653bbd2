//! A phone that its owner enrols by themselves, with a computer that may administer nothing.

use std::path::Path;
use std::time::Duration;

use pocketcard_dev::{Environment, Phone};
use pocketcard_tests::{skip, start};
use serde_json::json;

use crate::logins::{GREETING, MODULE, Sshd, authenticated, is_root, pamtester, prepare_pam, sshd};
use crate::{SOON, enter, meanwhile};

const PIN: &str = "246813";
/// For keys to be made.
const MADE: Duration = Duration::from_secs(120);

fn enrolled(algorithm: &str) -> Environment {
    let mut environment = start(Environment::builder().owned().daemon_config("pin_entry = \"phone\""));
    let phone = environment.phone(0).unwrap();
    let names = json!({ "common_name": "Ann", "principal": "ann@example.org" });
    let keys: Vec<_> =
        ["9A", "9C", "9D", "9E"].iter().map(|slot| json!({ "slot": slot, "algorithm": algorithm })).collect();
    phone.send(&json!({ "command": "enrol", "pin": PIN, "puk": "97531864", "names": names, "keys": keys })).unwrap();
    phone.wait_event("the enrolment", MADE, |event| event["event"] == "enrolled").unwrap();
    let phones = environment.daemon_control().unwrap().phones().unwrap();
    let permissions = phones[0].permissions.clone().expect("what this computer may do");
    assert!(!permissions.administer, "nobody gave it that");
    environment
}

/// The owner enters the PIN, and says yes or no to the use of the key.
fn decide(phone: &mut Phone, agree: bool) {
    enter(phone, PIN);
    let asked = phone.wait_event("asking for approval", SOON, |event| event["event"] == "approval").unwrap();
    assert_eq!(asked["key"], "9A", "{asked}");
    phone.send(&json!({ "command": "approve", "id": asked["id"], "agree": agree })).unwrap();
}

#[test]
fn a_phone_that_its_owner_enrolled_logs_in_by_ssh() {
    let Some(sshd) = sshd() else { skip!("there is no sshd; `cargo xtask demo` unpacks one") };
    if !is_root() || !Path::new(MODULE).exists() {
        skip!("needs root, for a mount namespace, and opensc-pkcs11");
    }
    let mut environment = enrolled("p256");
    let sshd = Sshd::start(&environment, &sshd);
    let (ran, (), _) = meanwhile(sshd.login(&environment, "000000"), || decide(environment.phone(0).unwrap(), true));
    assert!(ran.success && ran.text.contains(GREETING), "{}", ran.text);
}

#[test]
fn a_phone_that_its_owner_enrolled_logs_in_by_pam() {
    let mut environment = enrolled("rsa2048");
    let Some(folder) = prepare_pam(&environment) else { skip!("needs root, pamtester and libpam-pkcs11") };
    for agree in [false, true] {
        let attempt = pamtester(&environment, &folder, "");
        let (ran, (), _) = meanwhile(attempt, || decide(environment.phone(0).unwrap(), agree));
        assert_eq!(authenticated(&ran), agree, "{}", ran.text);
        // OpenSC tries once more by itself what failed; the owner is not asked twice.
        let phone = environment.phone(0).unwrap();
        let again = phone.wait_event("nothing", Duration::from_millis(300), |event| event["event"] == "approval");
        assert!(again.is_err(), "{again:?}");
    }
}
