//! What `pocketcard dev` leaves behind, however it ends, and whom it disturbs meanwhile: nothing, and nobody. And where it
//! works at all: wherever it can.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends where it fails, and prints what it measured"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pocketcard_tests::client::{eventually, program};
use pocketcard_tests::run::run;
use pocketcard_tests::{skip, start};

const LIMIT: Duration = Duration::from_secs(60);

fn dev(arguments: &[&str]) -> Command {
    // Whoever runs the tests in the background may have them ignore signals, and what they start inherits that.
    let mut command = Command::new("env");
    command.arg("--default-signal=INT,TERM,HUP").arg(program("pocketcard"));
    command.arg("dev").args(arguments).stdin(Stdio::null());
    command
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::with_capacity(1, child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// What lies in a folder that is used for nothing else.
fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect()
}

/// The processes that name the folder on their command line.
fn processes_of(folder: &Path) -> usize {
    let named = |entry: fs::DirEntry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(folder.to_str().unwrap())
    };
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| named(entry).then_some(())).count()
}

#[test]
fn a_signal_while_it_starts_ends_it_at_once_and_leaves_nothing() {
    for signal in ["INT", "TERM", "HUP"] {
        let temporary = tempfile::tempdir().unwrap();
        let mut child = dev(&["--slots", "4", "--", "true"]).env("TMPDIR", temporary.path()).spawn().unwrap();
        // Four phones make sixteen RSA keys, so it is far from ready.
        let begun = || entries(temporary.path()).iter().any(|folder| folder.join("phone-0").exists());
        assert!(eventually(LIMIT, begun));
        let begin = Instant::now();
        assert!(
            Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap().success()
        );
        let status = child.wait().unwrap();
        assert!(status.signal().is_some(), "{signal}: it was ready before it was asked to end: {status}");
        assert!(begin.elapsed() < Duration::from_secs(2), "{signal}: {:?}", begin.elapsed());
        let gone = || entries(temporary.path()).is_empty() && processes_of(temporary.path()) == 0;
        assert!(eventually(Duration::from_secs(10), gone), "{signal}: {:?}", entries(temporary.path()));
    }
}

#[test]
fn what_the_command_leaves_in_the_background_ends_too() {
    // A daemon as they are made: in a session of its own, its parent gone. The second one does not want to end.
    for trap in ["", "trap '' TERM; "] {
        let script = format!("{trap}setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $!");
        let mut child = dev(&["--card", "empty", "--", "sh", "-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        let left = PathBuf::from("/proc").join(first_line(&mut child));
        assert!(child.wait().unwrap().success());
        assert!(!left.exists(), "{left:?} still runs");
    }
}

#[test]
fn a_live_view_ends_with_its_reader() {
    let environment = start(pocketcard_dev::Environment::builder());
    let mut watch = environment
        .command(program("pocketcard"))
        .args(["status", "--watch", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(first_line(&mut watch).contains("\"reply\":\"status\""));
    // As `head -1` does it; nothing happens in the reader any more.
    drop(watch.stdout.take());
    assert!(eventually(Duration::from_secs(10), || watch.try_wait().unwrap().is_some_and(|status| status.success())));
}

/// The machine's own pcscd, played by one in a namespace that `pocketcard dev` runs in, too.
#[test]
fn a_pcscd_that_already_runs_is_not_disturbed() {
    let temporary = tempfile::tempdir().unwrap();
    let empty = temporary.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let script = "set -e
        mount --make-rprivate /; mount -t tmpfs tmpfs /run; mkdir /run/pcscd
        export PCSCLITE_HP_DROPDIR=\"$2\"
        pcscd --foreground --config \"$2\" >/dev/null 2>&1 &
        until opensc-tool --list-readers >/dev/null 2>&1 || [ $? = 1 -a -S /run/pcscd/pcscd.comm ]; do sleep 0.05; done
        before=$(stat -c %i /run/pcscd/pcscd.comm)
        \"$1\" dev --card empty -- opensc-tool --list-readers
        \"$1\" dev --card empty -- sh -c 'env -u PCSCLITE_CSOCK_NAME opensc-tool --list-readers; true'
        kill -0 $! && [ $before = $(stat -c %i /run/pcscd/pcscd.comm) ] && echo the same pcscd as before
        opensc-tool --list-readers 2>&1 || true";
    let ran = run(
        Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--", "sh", "-c", script, "sh"])
            .arg(program("pocketcard"))
            .arg(&empty)
            .env_remove("PCSCLITE_CSOCK_NAME")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        LIMIT,
    );
    if ran.text.contains("unshare:") {
        skip!("this user cannot make a namespace to play the machine's own pcscd in: {}", ran.text);
    }
    assert!(ran.text.contains("Pocketcard dev 00 00"), "{}", ran.text);
    assert_eq!(ran.text.matches("Pocketcard dev").count(), 1, "the machine's pcscd got our reader: {}", ran.text);
    assert_eq!(ran.text.matches("No smart card readers found").count(), 2, "{}", ran.text);
    assert!(ran.text.contains("the same pcscd as before"), "{}", ran.text);
}

#[test]
fn the_first_example_shows_something() {
    let ran = run(&mut dev(&["--", "pkcs11-tool", "--test", "--login", "--pin", "123456"]), LIMIT);
    assert!(ran.success && ran.text.contains("testing key 0 (PIV AUTH key)"), "{}", ran.text);
}

#[test]
fn a_temporary_folder_that_is_too_long_for_sockets_is_not_used() {
    let temporary = tempfile::tempdir().unwrap();
    let long = temporary.path().join("x".repeat(120));
    fs::create_dir(&long).unwrap();
    let ran =
        run(dev(&["--card", "empty", "--", "sh", "-c", "echo $POCKETCARD_DEV_FOLDER"]).env("TMPDIR", &long), LIMIT);
    assert!(ran.success && ran.text.starts_with("/tmp/pocketcard-dev-"), "{}", ran.text);
}

#[test]
fn more_phones_than_slots_are_refused_in_words() {
    let ran = dev(&["--slots", "2", "--phones", "3", "--", "true"]).output().unwrap();
    assert_eq!(ran.status.code(), Some(125));
    let text = String::from_utf8_lossy(&ran.stderr);
    assert!(text.contains("there is no slot 2; this environment has 2"), "{text}");
}

/// What an ordinary user is where user namespaces are switched off.
#[test]
fn an_ordinary_user_without_namespaces_is_told_what_to_do() {
    let script =
        "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --ambient-caps -all --inh-caps -all -- \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-user=1000", "--map-group=1000", "--keep-caps", "--", "sh", "-c", script, "sh"]);
    command.arg(program("pocketcard")).args(["dev", "--card", "empty", "--", "true"]);
    let ran = run(&mut command, LIMIT);
    if !ran.text.contains("pocketcard:") {
        skip!("namespaces cannot be switched off for a test: {}", ran.text);
    }
    assert!(!ran.success && ran.text.contains("no private mount namespace can be made here"), "{}", ran.text);
    assert!(ran.text.contains("user.max_user_namespaces"), "{}", ran.text);
}

#[test]
fn a_command_that_cannot_be_run_is_named() {
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("no-program");
    fs::write(&file, "text").unwrap();
    let ran = dev(&["--card", "empty", "--", file.to_str().unwrap()]).output().unwrap();
    assert_eq!(ran.status.code(), Some(126));
    let text = String::from_utf8_lossy(&ran.stderr);
    assert!(text.starts_with("pocketcard:") && text.contains("no-program"), "{text}");
}

#[test]
fn the_programs_may_lie_where_a_configuration_cannot_name_them() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("my programs ä");
    fs::create_dir(&folder).unwrap();
    for name in ["pocketcard", "pocketcardd", "virtual-phone", "libifd_pocketcard.so"] {
        fs::copy(program(name), folder.join(name)).unwrap();
    }
    let mut command = Command::new(folder.join("pocketcard"));
    command.args(["dev", "--card", "empty", "--", "opensc-tool", "--list-readers"]).env_remove("POCKETCARD_BIN_DIR");
    let ran = run(&mut command, LIMIT);
    assert!(ran.success && ran.text.contains("Pocketcard dev 00 00"), "{}", ran.text);
}
