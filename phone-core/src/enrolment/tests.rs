//! A phone of an owner is enrolled, and openssl says what it thinks of that.
#![cfg(feature = "software-keys")]

use std::{
    fs,
    path::Path,
    process::Command as Process,
    sync::{Arc, Mutex},
};

use futures_lite::future;
use pocketcard_protocol::link::VersionRange;

use super::*;
use crate::{
    SystemEntropy,
    card::{CardConfig, NoProbe},
    keystore::{AesSealingKey, SoftwareKeyStore},
    runtime::{Parts, PhoneConfig, phone},
    store::MemoryStore,
    test_support::{FixedApprover, ManualClock},
    traits::{ApprovalDecision, SealingKey, StateStore},
};

const PIN: &str = "246810";

fn padded(pin: &str) -> Zeroizing<[u8; 8]> {
    padded_pin(pin).unwrap()
}

/// Runs a phone of an owner while `work` does something with it.
fn with_phone<T>(store: &MemoryStore, work: impl AsyncFnOnce(&Phone) -> T) -> T {
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let sealing: Arc<dyn SealingKey> = Arc::new(AesSealingKey::new(&[1; 32], Arc::clone(&entropy)));
    let state: Arc<dyn StateStore> = Arc::new(store.clone());
    let keystore = SoftwareKeyStore::open(Arc::clone(&state), Arc::clone(&sealing), Arc::clone(&entropy)).unwrap();
    let parts = Parts {
        store: state,
        keystore: Arc::new(keystore),
        sealing,
        approver: Arc::new(FixedApprover(ApprovalDecision::Denied)),
        clock: Arc::new(ManualClock::new()),
        entropy,
        probe: Arc::new(NoProbe),
    };
    let config = PhoneConfig {
        name: "Phone".into(),
        software: "test 1".into(),
        versions: VersionRange::SUPPORTED,
        card: CardConfig::default(),
    };
    future::block_on(async {
        let (phone, running) = phone(config, parts).await.unwrap();
        future::or(work(&phone), async {
            running.await;
            panic!("the phone has stopped");
        })
        .await
    })
}

/// The same with a PIN, and a folder for files.
fn enrolled<T>(work: impl AsyncFnOnce(&Phone, &Path) -> T) -> T {
    let folder = tempfile::tempdir().unwrap();
    with_phone(&MemoryStore::new(), async |phone| {
        phone.choose_pin(padded(PIN), (*b"87654321").into()).await.unwrap();
        work(phone, folder.path()).await
    })
}

fn names() -> Names {
    let names = Names::new("Zoë Müller").unwrap().with_organization("Example, Sons").unwrap();
    names.with_principal("zoë@EXAMPLE.ORG").unwrap().with_email("zoe@example.org").unwrap()
}

/// What openssl says, if it is content.
#[track_caller]
fn openssl(folder: &Path, arguments: &str) -> String {
    let ran = Process::new("openssl").args(arguments.split_whitespace()).current_dir(folder).output().unwrap();
    let text = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "openssl {arguments}: {text}");
    text
}

fn has_openssl() -> bool {
    let there = Process::new("openssl").arg("version").output().is_ok();
    if !there {
        eprintln!("SKIPPED: openssl is not installed: apt-get install openssl");
    }
    there
}

async fn certificate(enrolment: &Enrolment<'_>, slot: Slot) -> Option<Vec<u8>> {
    let contents = enrolment.slots().await.unwrap();
    contents.into_iter().find(|content| content.slot == slot).unwrap().certificate
}

#[test]
fn keys_of_every_kind_get_certificates_that_openssl_verifies() {
    if !has_openssl() {
        return;
    }
    enrolled(async |phone, folder| {
        let enrolment = Enrolment::new(phone, &SystemEntropy);
        let keys = [
            NewKey::new(Slot::Authentication, KeyAlgorithm::EccP256),
            NewKey::new(Slot::Signature, KeyAlgorithm::EccP384),
            NewKey::new(Slot::KeyManagement, KeyAlgorithm::Rsa2048),
            NewKey::new(Slot::CardAuthentication, KeyAlgorithm::EccP256),
        ];
        enrolment.make_keys(PIN, &keys, &names()).await.unwrap();
        let mut texts = Vec::new();
        for content in enrolment.slots().await.unwrap() {
            let wanted = keys.iter().find(|key| key.slot == content.slot).unwrap();
            assert_eq!(content.algorithm, Some(wanted.algorithm));
            fs::write(folder.join("cert.der"), content.certificate.unwrap()).unwrap();
            openssl(folder, "x509 -inform DER -in cert.der -out cert.pem");
            assert!(openssl(folder, "verify -check_ss_sig -CAfile cert.pem cert.pem").contains("OK"));
            texts.push(openssl(folder, "x509 -in cert.pem -noout -text -nameopt utf8,-esc_msb,sep_comma_plus"));
        }
        let [authentication, signature, management, card] = texts.try_into().unwrap();
        for expected in [
            "Subject: O=Example, Sons,CN=Zoë Müller",
            "othername: UPN::zoë@EXAMPLE.ORG",
            "TLS Web Client Authentication, Microsoft Smartcard Login",
            "email:zoe@example.org",
            "Digital Signature",
            "CA:FALSE",
            "Subject Key Identifier",
        ] {
            assert!(authentication.contains(expected), "{expected} in {authentication}");
        }
        assert!(
            signature.contains("CN=Zoë Müller (signature)") && signature.contains("E-mail Protection"),
            "{signature}"
        );
        assert!(signature.contains("Non Repudiation") && signature.contains("ecdsa-with-SHA384"), "{signature}");
        assert!(management.contains("Key Encipherment") && management.contains("RSA"), "{management}");
        assert!(!card.contains("Zoë") && !card.contains("zoe@"), "{card}");
        for other in [&signature, &management, &card] {
            assert!(!other.contains("Client Authentication"), "{other}");
        }
    });
}

#[test]
fn a_request_becomes_a_certificate_of_an_authority() {
    if !has_openssl() {
        return;
    }
    enrolled(async |phone, folder| {
        let enrolment = Enrolment::new(phone, &SystemEntropy);
        openssl(folder, "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=Authority -days 2");
        for (slot, algorithm) in
            [(Slot::Authentication, KeyAlgorithm::EccP256), (Slot::Signature, KeyAlgorithm::Rsa2048)]
        {
            let missing = enrolment.request(PIN, slot, &names()).await;
            assert!(matches!(missing, Err(EnrolmentError::NoKey(empty)) if empty == slot));
            enrolment.make_key(NewKey::new(slot, algorithm)).await.unwrap();
            let request = enrolment.request(PIN, slot, &names()).await.unwrap();
            fs::write(folder.join("key.csr"), request.to_pem().unwrap()).unwrap();
            fs::write(folder.join("key.der"), request.to_der()).unwrap();
            assert!(openssl(folder, "req -in key.csr -noout -verify").contains("OK"));
            assert!(openssl(folder, "req -inform DER -in key.der -noout -text").contains("email:zoe@example.org"));
            openssl(
                folder,
                "x509 -req -in key.csr -CA ca.pem -CAkey ca.key -CAcreateserial -copy_extensions copy -days 1 -out cert.pem",
            );
            // A text before and another certificate after, as authorities send them.
            let mut text = openssl(folder, "x509 -in cert.pem -text");
            text.push_str(&fs::read_to_string(folder.join("ca.pem")).unwrap());
            enrolment.import_certificate(slot, text.as_bytes()).await.unwrap();
            fs::write(folder.join("card.der"), certificate(&enrolment, slot).await.unwrap()).unwrap();
            openssl(folder, "x509 -inform DER -in card.der -out card.pem");
            assert!(openssl(folder, "verify -CAfile ca.pem card.pem").contains("OK"));
            assert_eq!(
                openssl(folder, "x509 -in card.pem -noout -fingerprint"),
                openssl(folder, "x509 -in cert.pem -noout -fingerprint")
            );
        }
        openssl(folder, "x509 -in ca.pem -outform DER -out ca.der");
        let stays = certificate(&enrolment, Slot::Authentication).await;
        for (what, bytes, slot) in [
            ("another key", fs::read(folder.join("ca.der")).unwrap(), Slot::Authentication),
            ("that of 9C", fs::read(folder.join("cert.pem")).unwrap(), Slot::Authentication),
        ] {
            let refused = enrolment.import_certificate(slot, &bytes).await;
            assert!(matches!(refused, Err(EnrolmentError::OtherKey(Slot::Authentication))), "{what}: {refused:?}");
        }
        for bytes in [&b""[..], b"nonsense", b"\x30\x03\x02\x01\x00", b"-----BEGIN CERTIFICATE-----\nAAAA\n"] {
            let refused = enrolment.import_certificate(Slot::Authentication, bytes).await;
            assert!(matches!(refused, Err(EnrolmentError::NotACertificate)), "{bytes:?}");
        }
        let der = stays.clone().unwrap();
        let empty = enrolment.import_certificate(Slot::KeyManagement, &der).await;
        assert!(matches!(empty, Err(EnrolmentError::NoKey(Slot::KeyManagement))));
        assert_eq!(certificate(&enrolment, Slot::Authentication).await, stays);
    });
}

#[test]
fn a_new_key_takes_the_certificate_of_the_old_one_along() {
    enrolled(async |phone, _| {
        let enrolment = Enrolment::new(phone, &SystemEntropy);
        let new = NewKey::new(Slot::Authentication, KeyAlgorithm::EccP256);
        enrolment.make_keys(PIN, &[new], &names()).await.unwrap();
        let first = certificate(&enrolment, Slot::Authentication).await.unwrap();
        enrolment.make_key(new).await.unwrap();
        assert_eq!(certificate(&enrolment, Slot::Authentication).await, None);
        let refused = enrolment.import_certificate(Slot::Authentication, &first).await;
        assert!(matches!(refused, Err(EnrolmentError::OtherKey(_))));
    });
}

#[test]
fn a_wrong_pin_costs_a_try_and_no_key() {
    enrolled(async |phone, _| {
        let enrolment = Enrolment::new(phone, &SystemEntropy);
        let keys = [NewKey::new(Slot::Authentication, KeyAlgorithm::EccP256)];
        enrolment.make_keys(PIN, &keys, &names()).await.unwrap();
        let before = certificate(&enrolment, Slot::Authentication).await;
        for refused in ["12345", "123456789", "12345a", "12345 7", "१२३", ""] {
            assert!(
                matches!(enrolment.make_keys(refused, &keys, &names()).await, Err(EnrolmentError::PinForm)),
                "{refused}"
            );
        }
        for tries_left in [2, 1, 0] {
            let result = enrolment.make_keys("999999", &keys, &names()).await;
            assert!(
                matches!(result, Err(EnrolmentError::WrongPin { tries_left: left }) if left == tries_left),
                "{result:?}"
            );
        }
        assert!(matches!(enrolment.make_keys(PIN, &keys, &names()).await, Err(EnrolmentError::PinBlocked)));
        assert_eq!(certificate(&enrolment, Slot::Authentication).await, before);
        // Forgotten: the owner chooses again, and the keys are what they were.
        phone.choose_pin(padded("135790"), (*b"11112222").into()).await.unwrap();
        let request = enrolment.request("135790", Slot::Authentication, &names()).await;
        assert!(request.is_ok(), "{request:?}");
    });
}

#[test]
fn the_owner_changes_pin_and_puk_with_every_try_of_them() {
    enrolled(async |phone, _| {
        let puk = |text: &[u8; 8]| Zeroizing::new(*text);
        for tries_left in [2, 1] {
            let wrong = phone.change_pin(padded("999999"), padded("135790")).await;
            assert!(matches!(wrong, Err(PhoneError::WrongPin { tries_left: left }) if left == tries_left), "{wrong:?}");
        }
        let malformed = phone.change_pin(padded(PIN), puk(b"12ab56\xFF\xFF")).await;
        assert!(matches!(malformed, Err(PhoneError::PinRefused)), "{malformed:?}");
        phone.change_pin(padded(PIN), padded("135790")).await.unwrap();
        phone.change_puk(puk(b"87654321"), puk(b"puk:1234")).await.unwrap();
        let wrong = phone.change_puk(puk(b"87654321"), puk(b"12345678")).await;
        assert!(matches!(wrong, Err(PhoneError::WrongPin { tries_left: 2 })), "{wrong:?}");
        for _ in 0..3 {
            phone.change_pin(padded("999999"), padded(PIN)).await.unwrap_err();
        }
        assert!(matches!(phone.change_pin(padded("135790"), padded(PIN)).await, Err(PhoneError::PinBlocked)));
    });
}

#[test]
fn nothing_that_was_verified_is_left_to_the_next_command() {
    enrolled(async |phone, _| {
        let enrolment = Enrolment::new(phone, &SystemEntropy);
        let keys = [NewKey::new(Slot::Authentication, KeyAlgorithm::EccP256)];
        enrolment.make_keys(PIN, &keys, &names()).await.unwrap();
        let status = pocketcard_protocol::apdu::Command::parse(&[0x00, 0x20, 0x00, 0x80]).unwrap();
        assert_eq!(phone.local_transmit(status.clone()).await.unwrap().status(), StatusWord::RemainingTries(3));
        phone.change_pin(padded(PIN), padded("135790")).await.unwrap();
        assert_eq!(phone.local_transmit(status).await.unwrap().status(), StatusWord::RemainingTries(3));
    });
}

#[test]
fn one_enrolment_at_a_time_and_one_that_is_dropped_leaves_nothing_behind() {
    enrolled(async |phone, _| {
        let enrolment = Enrolment::new(phone, &SystemEntropy);
        let keys = [NewKey::new(Slot::Authentication, KeyAlgorithm::Rsa2048)];
        let names = names();
        let mut making = std::pin::pin!(enrolment.make_keys(PIN, &keys, &names));
        assert!(future::poll_once(&mut making).await.is_none());
        let other = enrolment.make_key(NewKey::new(Slot::Signature, KeyAlgorithm::EccP256)).await;
        assert!(matches!(other, Err(EnrolmentError::Busy)), "{other:?}");
        assert!(matches!(phone.change_pin(padded(PIN), padded(PIN)).await, Err(PhoneError::Busy)));
    });
    enrolled(async |phone, _| {
        let enrolment = Enrolment::new(phone, &SystemEntropy);
        let events = phone.events();
        let rsa = [NewKey::new(Slot::Authentication, KeyAlgorithm::Rsa2048)];
        let names = names();
        let started = async {
            loop {
                if matches!(events.recv().await, Ok(PhoneEvent::Card(_))) {
                    return;
                }
            }
        };
        // The verification of the PIN is the first command; then the key is being made.
        future::or(async { drop(enrolment.make_keys(PIN, &rsa, &names).await) }, started).await;
        assert_eq!(enrolment.slots().await.unwrap().iter().filter(|content| content.algorithm.is_some()).count(), 0);
        let new = NewKey::new(Slot::Authentication, KeyAlgorithm::EccP256);
        enrolment.make_key(new).await.unwrap();
    });
}

#[test]
fn progress_is_told_key_by_key() {
    enrolled(async |phone, _| {
        let events = phone.events();
        let enrolment = Enrolment::new(phone, &SystemEntropy);
        let keys = SLOTS.map(|slot| NewKey::new(slot, KeyAlgorithm::EccP256));
        enrolment.make_keys(PIN, &keys[..2], &names()).await.unwrap();
        enrolment.slots().await.unwrap();
        let mut seen = Vec::new();
        while let Ok(event) = events.try_recv() {
            if let PhoneEvent::Enrolment(KeyProgress { slot, number, of, stage, .. }) = event {
                seen.push((slot, number, of, stage));
            }
        }
        let expected = [
            (Slot::Authentication, 1, 2, KeyStage::Started),
            (Slot::Authentication, 1, 2, KeyStage::Done),
            (Slot::Signature, 2, 2, KeyStage::Started),
            (Slot::Signature, 2, 2, KeyStage::Done),
        ];
        assert_eq!(seen, expected);
    });
}

#[test]
fn a_certificate_that_is_damaged_anywhere_is_refused_or_stored_and_does_no_harm() {
    enrolled(async |phone, _| {
        let enrolment = Enrolment::new(phone, &SystemEntropy);
        let slot = Slot::Authentication;
        enrolment.make_keys(PIN, &[NewKey::new(slot, KeyAlgorithm::EccP256)], &names()).await.unwrap();
        let certificate = enrolment.slots().await.unwrap().remove(0).certificate.unwrap();
        for at in 0..certificate.len() {
            assert!(enrolment.import_certificate(slot, &certificate[..at]).await.is_err());
            for value in [0x00, 0x30, 0x7F, 0x80, 0x84, 0xFF] {
                let mut damaged = certificate.clone();
                damaged[at] = value;
                let imported = enrolment.import_certificate(slot, &damaged).await;
                let refused = matches!(imported, Err(EnrolmentError::NotACertificate | EnrolmentError::OtherKey(_)));
                assert!(imported.is_ok() || refused, "{at} {value:02X} {imported:?}");
            }
        }
        for nested in [vec![0x30, 0x84, 0xFF, 0xFF, 0xFF, 0xFF], [0x30, 0x80].repeat(20_000), vec![0x30; 70_000]] {
            assert!(enrolment.import_certificate(slot, &nested).await.is_err());
        }
        for text in ["-----BEGIN CERTIFICATE-----", "-----BEGIN CERTIFICATE----------END CERTIFICATE-----", "\u{0}"] {
            assert!(enrolment.import_certificate(slot, text.as_bytes()).await.is_err(), "{text}");
        }
    });
}

#[test]
fn what_was_begun_before_a_factory_reset_leaves_nothing_on_the_new_card() {
    enrolled(async |phone, _| {
        let session = Session::begin(phone).unwrap();
        session.generate(Slot::Authentication, KeyAlgorithm::EccP256, RequestedPolicies::default()).await.unwrap();
        phone.factory_reset().await.unwrap();
        let refused = session.store(Slot::Authentication, &[0x30, 0x00]).await;
        assert!(matches!(refused, Err(EnrolmentError::Refused { status: StatusWord::NoDiagnosis, .. })), "{refused:?}");
        drop(session);
        let contents = Enrolment::new(phone, &SystemEntropy).slots().await.unwrap();
        assert!(contents.iter().all(|content| content.certificate.is_none()));
    });
}

#[test]
fn after_a_factory_reset_there_is_nothing_but_the_log() {
    let store = MemoryStore::new();
    let commands = Mutex::new(Vec::new());
    with_phone(&store, async |phone| {
        phone.choose_pin(padded(PIN), (*b"87654321").into()).await.unwrap();
        let enrolment = Enrolment::new(phone, &SystemEntropy);
        let keys = SLOTS.map(|slot| NewKey::new(slot, KeyAlgorithm::EccP256));
        enrolment.make_keys(PIN, &keys, &names()).await.unwrap();
        phone.factory_reset().await.unwrap();
        let contents = enrolment.slots().await.unwrap();
        assert!(contents.iter().all(|content| content.algorithm.is_none() && content.certificate.is_none()));
        assert!(matches!(enrolment.make_keys(PIN, &keys, &names()).await, Err(EnrolmentError::PinBlocked)));
        let log = phone.log().await.unwrap();
        commands.lock().unwrap().extend(log.iter().map(|entry| entry.operation.name()));
        phone.choose_pin(padded("135790"), (*b"87654321").into()).await.unwrap();
        enrolment.make_keys("135790", &keys, &names()).await.unwrap();
    });
    let commands = commands.into_inner().unwrap();
    assert!(commands.contains(&"choose_pin") && commands.contains(&"make_new"), "{commands:?}");
    let of_keys: Vec<&str> = commands.into_iter().filter(|name| !matches!(*name, "choose_pin" | "make_new")).collect();
    let expected = ["make_key", "sign", "write_object"].repeat(4);
    assert_eq!(of_keys[..12], expected, "a PIN that was verified for each step is none of its own");
    let handles = store.load().unwrap().iter().filter(|(name, _)| name.starts_with("key/")).count();
    assert_eq!(handles, 4, "the keys of before are gone");
}
