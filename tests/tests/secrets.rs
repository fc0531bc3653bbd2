//! A whole PIN session with everything logged, and then a search for what nobody may have written down.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::field_reassign_with_default,
    reason = "a test ends where it fails, and prints what it measured"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pocketcard_dev::{CARD_LIMIT, Card, Environment, TEST_MANAGEMENT_KEY, TEST_PIN, TEST_PUK};
use pocketcard_protocol::apdu::{Chaining, Command, Response, StatusWord};
use pocketcard_protocol::channel::StaticSecret;
use pocketcard_protocol::messages::{self, Body, Envelope, Transmit};
use pocketcard_protocol::pairing::PairKeys;
use pocketcard_tests::apdu::{SELECT_PIV, sign_p256, signature, status_word, verify};
use pocketcard_tests::client::{program, reader};
use pocketcard_tests::run::{run, ykman};
use pocketcard_tests::{Client, start};

/// A PIN and a PUK that occur in no time stamp by chance.
const PIN: &str = "90417263";
const WRONG: &str = "83615207";
const PUK: &str = "56038471";

/// CHANGE REFERENCE DATA or RESET RETRY COUNTER: two values, each padded to 8 octets.
fn two_values(instruction: u8, reference: u8, first: &str, second: &str) -> Vec<u8> {
    let mut command = vec![0x00, instruction, 0x00, reference, 0x10];
    for value in [first, second] {
        let mut block = value.as_bytes().to_vec();
        block.resize(8, 0xFF);
        command.extend(block);
    }
    command
}

/// A secret as somebody might write it.
fn spellings(secret: &[u8]) -> Vec<String> {
    let hex = |between: &str, upper: bool| {
        let pairs: Vec<String> =
            secret.iter().map(|byte| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") }).collect();
        pairs.join(between)
    };
    let decimal: Vec<String> = secret.iter().map(u8::to_string).collect();
    let mut all = vec![decimal.join(", "), decimal.join(",")];
    // As it is, if it is text.
    all.extend(String::from_utf8(secret.to_vec()));
    for between in ["", " ", ":", ", 0x", ", "] {
        all.extend([hex(between, false), hex(between, true)]);
    }
    all
}

/// So that PINs can be entered on the phone, besides being typed.
const PIN_PAD: &str = "pin_entry = \"phone\"";

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files.extend(files_below(&path));
        } else if kind.is_file() {
            files.push(path);
        }
    }
    files
}

/// Every 32 bytes in a row of the daemon's store that can be a key. Where in the files the keys lie does not matter.
fn stored_keys(folder: &Path, public: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for file in files_below(folder) {
        keys.extend(fs::read(&file).unwrap().windows(32).map(<[u8]>::to_vec));
    }
    let is_text = |key: &[u8]| key.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    let different = |key: &[u8]| key.iter().collect::<std::collections::HashSet<_>>().len();
    keys.retain(|key| !public.contains(key) && !is_text(key) && different(key) >= 16);
    keys
}

#[test]
fn no_log_has_a_pin_or_a_key() {
    let logs = tempfile::tempdir().unwrap();
    let environment = Environment::builder()
        .card(Card::Ec)
        .log_level("trace")
        .keep_logs(logs.path())
        .daemon_config(PIN_PAD)
        .phones(1);
    let mut environment = start(environment);
    let mut client = Client::connected(&environment, 0);
    let mut expect = |apdu: &[u8], word: u16| {
        let response = client.transmit(apdu).unwrap();
        assert_eq!(status_word(&response), word);
        response
    };
    expect(SELECT_PIV, 0x9000);
    expect(&two_values(0x24, 0x81, TEST_PUK, PUK), 0x9000);
    expect(&two_values(0x24, 0x80, TEST_PIN, PIN), 0x9000);
    expect(&verify(WRONG), 0x63C2);
    expect(&two_values(0x2C, 0x80, PUK, PIN), 0x9000);
    expect(&verify(PIN), 0x9000);
    let response = expect(&sign_p256(0x9A, &[0x5A; 32]), 0x9000);
    let signed = signature(&response).unwrap().to_vec();
    // The same by the PIN pad, and a wrong one.
    for (pin, word) in [(PIN, "9000"), (WRONG, "63c2")] {
        client.send(&["control", "6", "1e1e020800080402000000000000000d0000000020008008ffffffffffffffff"]);
        let phone = environment.phone(0).unwrap();
        let asked = phone.wait_event("asking for a PIN", CARD_LIMIT, |event| event["event"] == "pin_asked").unwrap();
        phone.send(&serde_json::json!({ "command": "enter_pin", "id": asked["id"], "pin": pin })).unwrap();
        assert_eq!(client.answer(CARD_LIMIT).unwrap(), word);
    }
    // The management key, and everything else that a provisioning tool sends.
    if let Some(ykman) = ykman() {
        let mut generate = environment.command(ykman);
        generate.args(["--reader", &reader(&environment, 0), "piv", "keys", "generate", "--algorithm", "ECCP256"]);
        generate.args(["--management-key", TEST_MANAGEMENT_KEY, "--pin", PIN, "9c", "-"]);
        let ran = run(&mut generate, Duration::from_secs(60));
        assert!(ran.success, "{}", ran.text);
    } else {
        println!("SKIPPED: the management key was not used: ykman is not installed");
    }
    // Reconnection, a restarted daemon, and the lines of an end.
    environment.phone(0).unwrap().restart().unwrap();
    environment.wait_card(0, true, CARD_LIMIT).unwrap();
    environment.daemon().restart().unwrap();
    environment.wait_card(0, true, CARD_LIMIT).unwrap();
    let ran = run(environment.command(program("pocketcard")).args(["status", "--json"]), Duration::from_secs(10));
    let status: serde_json::Value = serde_json::from_str(&ran.text).unwrap();
    let ids = [&status["host_id"], &status["slots"][0]["phone"]["id"]];
    let public = ids.map(|id| hex::decode(id.as_str().unwrap()).unwrap());

    let keys = stored_keys(&environment.folder().join("daemon"), &public);
    assert!(!keys.is_empty(), "the daemon's store was not understood: nothing was searched for");
    let mut secrets: Vec<(String, Vec<u8>)> = keys.into_iter().map(|key| ("a stored key".to_owned(), key)).collect();
    // What seals everything else that the phone keeps.
    let device_keys = files_below(environment.folder()).into_iter().filter(|path| path.ends_with("device.key"));
    secrets.extend(device_keys.map(|path| ("the phone's device key".to_owned(), fs::read(path).unwrap())));
    assert!(secrets.iter().any(|(name, key)| name == "the phone's device key" && key.len() == 32));
    for (name, secret) in [("the PIN", PIN), ("a wrong PIN", WRONG), ("the PUK", PUK)] {
        secrets.push((name.to_owned(), secret.as_bytes().to_vec()));
    }
    // Eight octets of it: the pattern repeats.
    secrets.push(("the management key".to_owned(), hex::decode(&TEST_MANAGEMENT_KEY[..16]).unwrap()));
    secrets.push(("the signature".to_owned(), signed));
    drop(environment);

    let mut searched = 0;
    for file in files_below(logs.path()) {
        let content = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
        searched += content.len();
        println!("{}: {} bytes", file.display(), content.len());
        for (name, secret) in &secrets {
            for spelling in spellings(secret) {
                assert!(!content.contains(&spelling), "{name} is in {}", file.display());
            }
        }
        assert!(!content.contains("pocketcard:1"), "a pairing code is in {}", file.display());
    }
    println!("{} secrets, {searched} bytes of logs", secrets.len());
    assert!(searched > 5_000, "the logs have only {searched} bytes: were they written at all?");
}

#[test]
fn the_search_finds_what_it_is_for() {
    for line in ["90417263", "39 30 34 31 37 32 36 33", "[57, 48, 52, 49, 55, 50, 54, 51]", "3930343137323633"] {
        assert!(spellings(PIN.as_bytes()).iter().any(|spelling| line.contains(spelling)), "{line}");
    }
}

/// Whoever logs a value of these types by `?` or `{:?}` writes lengths, not bytes.
#[test]
fn no_debug_text_has_a_secret() {
    let secret: [u8; 32] = std::array::from_fn(|index| 0x91 + u8::try_from(index).unwrap() * 3);
    let command = Command::new(0x00, 0x20, 0x00, 0x80, &secret, None).unwrap();
    let response = Response::new(&secret, StatusWord::Success);
    let pair = [[1].as_slice(), &[0x11; 32], &secret, &secret].concat();
    let mut answered = messages::Response::default();
    answered.response = secret.to_vec();
    let mut open = messages::Open::default();
    open.resume_token = secret.to_vec();
    let mut opened = messages::Opened::default();
    opened.token = secret.to_vec();
    let bodies = [
        Body::Transmit(Transmit { session: 1, request_id: 2, epoch: 3, command: secret.to_vec() }),
        Body::Response(answered),
        Body::Open(open),
        Body::Opened(opened),
        Body::PairSecret(messages::PairSecret { secret: secret.to_vec() }),
    ];
    let mut texts = vec![
        format!("{command:?} {command:#?}"),
        format!("{response:?} {response:#?}"),
        format!("{:?}", StaticSecret::from_bytes(&secret)),
        format!("{:?}", PairKeys::from_bytes(&pair).unwrap()),
        format!("{:?}", Chaining::new()),
    ];
    for body in bodies {
        let envelope = Envelope { body: Some(body) };
        texts.push(format!("{envelope:?} {envelope:#?}"));
    }
    // `{:#?}` puts every element on a line of its own.
    let lines: Vec<String> = texts.iter().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for (text, line) in texts.iter().zip(&lines) {
        for part in [&secret[..], &secret[..8], &secret[8..16]] {
            for spelling in spellings(part) {
                assert!(!text.contains(&spelling) && !line.contains(&spelling), "{text}");
            }
        }
    }
}
