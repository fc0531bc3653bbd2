//! The command-line clients that people use, against a phone's card through a real pcscd.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends where it fails, and prints what it measured"
)]

use std::time::Duration;

use pocketcard_dev::{Card, Environment, TEST_PIN};
use pocketcard_tests::run::{run, ykman};
use pocketcard_tests::{skip, start};

/// `pkcs11-tool --test` makes a hundred operations with an RSA card.
const LIMIT: Duration = Duration::from_secs(120);

fn installed(program: &str) -> bool {
    pocketcard_dev::find_program(program).is_some()
}

/// What `pkcs11-tool --test` says of each key, besides "OK"s: lines with an error mean that it failed.
fn pkcs11_test(environment: &Environment) -> String {
    let mut command = environment.command("pkcs11-tool");
    let ran = run(command.args(["--test", "--login", "--pin", TEST_PIN]), LIMIT);
    assert!(ran.success, "{}", ran.text);
    let errors: Vec<&str> = ran.text.lines().filter(|line| line.to_ascii_lowercase().contains("error")).collect();
    assert!(errors.is_empty() || ran.text.contains("No errors"), "{errors:?} in:\n{}", ran.text);
    assert!(ran.text.contains("No errors"), "{}", ran.text);
    assert!(ran.text.contains("C_SeedRandom() and C_GenerateRandom()"), "{}", ran.text);
    assert!(!ran.text.contains("C_GenerateRandom failed"), "{}", ran.text);
    ran.text
}

/// The keys that the phone used, from its own record of commands: (slot, successful uses).
fn uses_of_keys(environment: &mut Environment) -> Vec<(String, usize)> {
    let phone = environment.phone(0).unwrap();
    let mut uses: Vec<(String, usize)> = Vec::new();
    // The events are there already: the limit only ends the search.
    while let Ok(event) = phone.wait_event("a use of a key", Duration::from_millis(200), |event| {
        event["event"] == "apdu" && event["command"] == "GENERAL AUTHENTICATE" && event["status"] == "9000"
    }) {
        let subject = event["subject"].as_str().unwrap_or_default();
        let slot = subject.split(' ').next().unwrap_or_default().to_owned();
        match uses.iter_mut().find(|(name, _)| *name == slot) {
            Some((_, count)) => *count += 1,
            None => uses.push((slot, 1)),
        }
    }
    uses
}

fn pkcs11_test_with(card: Card) {
    if !installed("pkcs11-tool") {
        skip!("pkcs11-tool is not installed: apt-get install opensc");
    }
    let mut environment = start(Environment::builder().card(card));
    let text = pkcs11_test(&environment);
    match card {
        Card::Rsa => {
            assert!(text.contains("Decryption (currently only for RSA)"), "{text}");
            assert!(text.contains("SHA256-RSA-PKCS: OK") || text.contains("RSA-PKCS: OK"), "{text}");
        }
        // Debian 12's `--test` only tries RSA keys.
        _ => sign_and_derive(&environment),
    }
    let uses = uses_of_keys(&mut environment);
    println!("pkcs11-tool --test with {card:?}: successful private-key operations {uses:?}");
    for slot in ["9A", "9C", "9E"] {
        assert!(uses.iter().any(|(name, _)| name == slot), "no signature by {slot}: {uses:?}\n{text}");
    }
    assert!(uses.iter().any(|(name, _)| name == "9D"), "no decryption or derivation by 9d: {uses:?}\n{text}");
}

#[test]
fn pkcs11_tool_tests_an_rsa_card() {
    pkcs11_test_with(Card::Rsa);
}

#[test]
fn pkcs11_tool_tests_a_p256_card() {
    pkcs11_test_with(Card::Ec);
}

/// A signature by each of the P-256 keys, checked by openssl, and ECDH with 9D, compared with openssl's.
fn sign_and_derive(environment: &Environment) {
    let script = format!(
        r#"
        printf 'signed by a phone' > document
        # 9A, 9C and 9E are 01, 02 and 04 for PKCS#11.
        for id in 01 02 04; do
            pkcs11-tool --read-object --type cert --id $id --output-file cert.der
            openssl x509 -inform DER -in cert.der -noout -pubkey > card.pem
            pkcs11-tool --login --pin {TEST_PIN} --id $id --sign --mechanism ECDSA-SHA256 \
                --signature-format openssl --input-file document --output-file signature
            openssl dgst -sha256 -verify card.pem -signature signature document
        done
        # The name for login is that of 9A alone.
        pkcs11-tool --list-objects --type cert > certificates
        test $(grep -c 'CN=Pocketcard test card$' certificates) = 1
        grep 'CN=Pocketcard test card (signature)$' certificates
        grep 'CN=Card Authentication$' certificates
        # The other party's key, and 9D's public key out of its certificate.
        openssl ecparam -name prime256v1 -genkey -noout -out other.pem
        openssl ec -in other.pem -pubout -outform DER -out other.der
        pkcs11-tool --read-object --type cert --id 03 --output-file cert.der
        openssl x509 -inform DER -in cert.der -noout -pubkey > card.pem
        pkcs11-tool --login --pin {TEST_PIN} --id 03 --derive --mechanism ECDH1-DERIVE \
            --input-file other.der --output-file ours
        openssl pkeyutl -derive -inkey other.pem -peerkey card.pem -out theirs
        test $(stat -c %s ours) = 32
        cmp ours theirs
        "#
    );
    let ran = run(environment.command("sh").args(["-exc", &script]).current_dir(environment.folder()), LIMIT);
    assert!(ran.success, "{}", ran.text);
}

#[test]
fn opensc_tool_and_yubico_piv_tool_see_the_card() {
    let environment = start(Environment::builder().card(Card::Ec));
    let reader = environment.reader_names().concat();
    if installed("opensc-tool") {
        let ran = run(environment.command("opensc-tool").arg("--list-readers"), LIMIT);
        assert!(ran.success && ran.text.contains(&reader) && ran.text.contains("Yes"), "{}", ran.text);
        let ran = run(environment.command("opensc-tool").args(["--name", "--reader", "0"]), LIMIT);
        assert!(ran.success && ran.text.contains("Personal Identity Verification"), "{}", ran.text);
    } else {
        println!("SKIPPED: opensc-tool is not installed: apt-get install opensc");
    }
    if installed("yubico-piv-tool") {
        let ran = run(environment.command("yubico-piv-tool").args(["--reader", &reader, "--action", "status"]), LIMIT);
        assert!(ran.success, "{}", ran.text);
        for expected in ["Version:", "Slot 9a:", "Slot 9c:", "Slot 9d:", "Slot 9e:", "PIN tries left:\t3"] {
            assert!(ran.text.contains(expected), "no {expected:?} in:\n{}", ran.text);
        }
    } else {
        println!("SKIPPED: yubico-piv-tool is not installed: apt-get install yubico-piv-tool");
    }
}

#[test]
fn ykman_sees_the_card() {
    let Some(ykman) = ykman() else { skip!("ykman is not installed; `cargo xtask test` installs it") };
    let environment = start(Environment::builder().card(Card::Rsa));
    let reader = environment.reader_names().concat();
    let ran = run(environment.command(ykman).args(["--reader", &reader, "piv", "info"]), LIMIT);
    assert!(ran.success, "{}", ran.text);
    for expected in ["PIV version:", "PIN tries remaining:", "Slot 9A", "Slot 9C", "Slot 9D", "Slot 9E", "RSA2048"] {
        assert!(ran.text.contains(expected), "no {expected:?} in:\n{}", ran.text);
    }
}
