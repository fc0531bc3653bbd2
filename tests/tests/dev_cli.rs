//! `pocketcard` as a person or a script uses it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends where it fails, and prints what it measured"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pocketcard_dev::{Card, Environment};
use pocketcard_tests::client::{eventually, program};
use pocketcard_tests::run::run;
use pocketcard_tests::{Client, skip, start};

const LIMIT: Duration = Duration::from_secs(60);

fn pocketcard() -> Command {
    Command::new(program("pocketcard"))
}

/// Starts `pocketcard dev` with a script that prints one line when it runs; returns the line, too.
fn dev(script: &str) -> (Child, String) {
    let mut child = pocketcard()
        .args(["dev", "--", "sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = child.stdout.as_mut().unwrap();
    let mut reader = BufReader::with_capacity(1, stdout);
    reader.read_line(&mut line).unwrap();
    (child, line.trim().to_owned())
}

/// The processes that have the folder's name in their command line or environment of files: none may be left.
fn processes_of(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(folder) {
            found.push(line);
        }
    }
    found
}

fn gone(folder: &str) -> bool {
    eventually(Duration::from_secs(10), || !Path::new(folder).exists() && processes_of(folder).is_empty())
}

#[test]
fn the_exit_code_of_the_command_is_passed_on() {
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137)] {
        let status = pocketcard().args(["dev", "--", "sh", "-c", script]).status().unwrap();
        assert_eq!(status.code(), Some(code), "{script}");
    }
    let status = pocketcard().args(["dev", "--", "/no/such/program"]).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(127));
}

#[test]
fn a_pin_pad_is_there_for_whoever_wants_one_and_its_test_card_has_a_pin() {
    if pocketcard_dev::find_program("pkcs11-tool").is_none() {
        skip!("pkcs11-tool is not installed: apt-get install opensc");
    }
    for (pin_entry, pad) in [("keyboard", false), ("phone", true)] {
        let mut dev = pocketcard();
        dev.args(["dev", "--card", "ec", "--pin-entry", pin_entry, "--"]);
        dev.args([
            "sh",
            "-c",
            "pkcs11-tool --list-slots; pkcs11-tool --login --list-objects --type privkey </dev/null",
        ]);
        let ran = run(&mut dev, LIMIT);
        assert_eq!(ran.text.contains("PIN pad present"), pad, "{}", ran.text);
        // Without a pad and without a terminal there is no PIN.
        assert_eq!(ran.text.contains("Private Key Object"), pad, "{}", ran.text);
    }
}

#[test]
fn a_signal_reaches_the_command_and_everything_ends() {
    let (mut child, folder) = dev("trap 'exit 5' TERM; echo $POCKETCARD_DEV_FOLDER; while :; do sleep 0.1; done");
    assert!(Path::new(&folder).is_dir(), "{folder:?}");
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert!(gone(&folder), "left: {:?}", processes_of(&folder));
}

#[test]
fn nothing_is_left_after_kill_9() {
    let (mut child, folder) = dev("echo $POCKETCARD_DEV_FOLDER; exec sleep 1000");
    assert!(!processes_of(&folder).is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(gone(&folder), "left: {:?}, folder there: {}", processes_of(&folder), Path::new(&folder).exists());
}

#[test]
fn two_environments_do_not_meet() {
    let first = start(Environment::builder());
    let second = start(Environment::builder());
    assert_ne!(first.pcsc_socket(), second.pcsc_socket());
    Client::connected(&first, 0);
    let socket = second.pcsc_socket();
    drop(second);
    assert!(!socket.exists());
    Client::connected(&first, 0);
}

/// Also root's files are nobody's business: the binaries are copied to where another user can read them.
#[test]
fn an_ordinary_user_can_use_dev() {
    let is_root = run(Command::new("id").arg("-u"), LIMIT).text.trim() == "0";
    if !is_root {
        skip!("the other tests run as an ordinary user already");
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["pocketcard", "pocketcardd", "virtual-phone", "libifd_pocketcard.so"] {
        fs::copy(program(name), folder.path().join(name)).unwrap();
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
    command.arg(folder.path().join("pocketcard")).args(["dev", "--", "opensc-tool", "--list-readers"]);
    command.current_dir("/").env("POCKETCARD_BIN_DIR", folder.path()).env("HOME", "/nonexistent");
    let ran = run(&mut command, LIMIT);
    if ran.text.contains("unshare") && ran.text.contains("Operation not permitted") {
        skip!("this kernel does not let an ordinary user make a mount namespace");
    }
    assert!(ran.success && ran.text.contains("Pocketcard dev 00 00"), "{}", ran.text);
}

#[test]
fn a_system_without_namespaces_is_named_as_such() {
    let mut command = Command::new("setpriv");
    // What root is in an ordinary container.
    command.args(["--bounding-set", "-sys_admin", "--"]).arg(program("pocketcard")).args(["dev", "--", "true"]);
    let ran = run(&mut command, LIMIT);
    if ran.text.contains("setpriv:") || ran.success {
        skip!("this user cannot give up the right to make namespaces");
    }
    assert!(ran.text.contains("no private mount namespace can be made here"), "{}", ran.text);
    assert!(ran.text.contains("--cap-add SYS_ADMIN"), "{}", ran.text);
}

#[test]
fn status_phones_rename_forget() {
    let environment = start(Environment::builder().card(Card::Empty));
    let ask = |arguments: &[&str]| run(environment.command(program("pocketcard")).args(arguments), LIMIT);
    let ran = ask(&["status"]);
    assert!(ran.success && ran.text.contains("Test phone 1 (connected)"), "{}", ran.text);
    let ran = ask(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&ran.text).unwrap();
    assert_eq!(status["slots"][0]["card_present"], true, "{status}");
    assert!(ask(&["rename", "Test phone 1", "Anna"]).success);
    let ran = ask(&["phones"]);
    assert!(ran.text.contains("Anna"), "{}", ran.text);
    let ran = ask(&["forget", "nobody"]);
    assert!(!ran.success && ran.text.contains("pocketcard:"), "{}", ran.text);
    assert!(ask(&["forget", "Anna"]).success);
    environment.wait_card(0, false, LIMIT).unwrap();
    let ran = ask(&["phones"]);
    assert!(ran.success && ran.text.contains("No phone is paired"), "{}", ran.text);
}

#[test]
fn a_live_view_shows_the_card_leave() {
    let mut environment = start(Environment::builder());
    let mut watch = environment
        .command(program("pocketcard"))
        .args(["status", "--watch", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.next().unwrap().contains("\"reply\":\"status\""));
    environment.phone(0).unwrap().kill();
    assert!(lines.any(|line| line.contains("card_absent")), "the view ended without it");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn without_a_daemon_the_program_says_what_to_do() {
    let ran = run(pocketcard().args(["--control", "/nonexistent/control.sock", "status"]), LIMIT);
    assert!(!ran.success);
    assert!(ran.text.contains("no daemon listens") && ran.text.contains("what to do:"), "{}", ran.text);
    let status = pocketcard().args(["--control", "/nonexistent/c", "phones"]).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(3));
}

/// Pairs a phone by hand: a second phone that the environment did not pair.
#[test]
fn a_person_pairs_by_comparing_digits() {
    let mut environment = start(Environment::builder().slots(2).phones(1));
    environment.phone(0).unwrap();
    let ran = run(environment.command(program("pocketcard")).args(["forget", "Test phone 1"]), LIMIT);
    assert!(ran.success, "{}", ran.text);
    let address = environment.phone(0).unwrap().address();
    // Wrong digits are refused, and nothing is stored.
    let mut pair = environment
        .command(program("pocketcard"))
        .args(["pair", "--connect", &address, "--yes-if-digits", "no digits"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    let mut reader = BufReader::new(pair.stdout.take().unwrap());
    let code = loop {
        let mut line = String::new();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0, "no code in:\n{text}");
        text.push_str(&line);
        if line.starts_with("pocketcard:") {
            break line.trim().to_owned();
        }
    };
    assert!(text.contains('█'), "{text}");
    environment.phone(0).unwrap().send(&serde_json::json!({ "command": "scan", "qr": code })).unwrap();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!(pair.wait().unwrap().code(), Some(6), "{text}{rest}");
    let ran = run(environment.command(program("pocketcard")).arg("phones"), LIMIT);
    assert!(ran.text.contains("No phone is paired"), "{}", ran.text);
}

#[test]
fn doctor_finds_nothing_wrong_here_and_a_dead_daemon() {
    let mut environment = start(Environment::builder());
    let doctor = |environment: &Environment| {
        let status = environment.command(program("pocketcard")).arg("doctor").output().unwrap();
        (status.status.code(), pocketcard_tests::run::text(&status))
    };
    let (code, text) = doctor(&environment);
    assert!(code == Some(0) && !text.contains("ERROR"), "{text}");
    environment.daemon().kill();
    let (code, text) = doctor(&environment);
    assert!(code == Some(7) && text.contains("ERROR    daemon: no daemon listens"), "{text}");
    fs::write(environment.folder().join("reader.conf.d/leftover~"), "import pip\n").unwrap();
    let (_, text) = doctor(&environment);
    assert!(text.contains("leftover~: it looks like a backup copy"), "{text}");
}

#[test]
fn doctor_reports_without_secrets() {
    let logs = tempfile::tempdir().unwrap();
    let mut environment = start(Environment::builder().card(Card::Ec).log_level("trace").keep_logs(logs.path()));
    let mut client = Client::connected(&environment, 0);
    client.transmit(pocketcard_tests::apdu::SELECT_PIV).unwrap();
    client.transmit(&pocketcard_tests::apdu::verify(pocketcard_tests::apdu::RIGHT_PIN)).unwrap();
    let report = environment.folder().join("report.txt");
    let config = environment.daemon().config().to_path_buf();
    let mut command = environment.command(program("pocketcard"));
    command.args(["doctor", "--bundle"]).arg(&report).arg("--config").arg(&config);
    let mut sources: Vec<PathBuf> = fs::read_dir(logs.path()).unwrap().flatten().map(|entry| entry.path()).collect();
    sources.sort();
    for log in &sources {
        command.arg("--log").arg(log);
    }
    let ran = run(&mut command, LIMIT);
    assert!(ran.success, "{}", ran.text);
    let text = fs::read_to_string(&report).unwrap();
    assert_eq!(fs::metadata(&report).unwrap().permissions().mode() & 0o777, 0o600);
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    for secret in ["123456", "313233343536", "31 32 33 34 35 36", "pocketcard:1", "Test phone 1", host.trim()] {
        assert!(!text.contains(secret), "{secret:?} is in the report:\n{text}");
    }
    for useful in ["== versions ==", "== findings ==", "reader_slots = 1", "pcscd"] {
        assert!(text.contains(useful), "no {useful:?} in:\n{text}");
    }
}
