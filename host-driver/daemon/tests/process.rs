//! `pocketcardd` as a process: how it starts, and how signals end it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // helpers of tests

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use pocketcard_ipc::control::{Client, Level, Limits};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

fn start(folder: &Path, state: &str) -> Child {
    let config = folder.join(format!("{state}.toml"));
    let text = format!(
        "dev = true\nstate_dir = '{0}/{state}'\ndriver_socket = '{0}/driver'\ncontrol_socket = '{0}/control'\n",
        folder.display()
    );
    std::fs::write(&config, text).unwrap();
    Command::new(env!("CARGO_BIN_EXE_pocketcardd"))
        .arg("--config")
        .arg(config)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn ready(child: &mut Child) {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
}

/// The exit code, within ten seconds.
fn ended(child: &mut Child) -> Option<i32> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap();
    let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
    if poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)).unwrap() == 0 {
        child.kill().unwrap();
    }
    child.wait().unwrap().code()
}

fn refused(folder: &Path, state: &str) -> String {
    let mut child = start(folder, state);
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(ended(&mut child), Some(1), "{text}");
    text
}

#[test]
fn each_signal_ends_it_well_and_takes_its_sockets_away() {
    let folder = tempfile::tempdir().unwrap();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut child = start(folder.path(), "state");
        ready(&mut child);
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(ended(&mut child), Some(0), "{signal:?}");
        assert!(!folder.path().join("driver").exists() && !folder.path().join("control").exists(), "{signal:?}");
    }
}

#[test]
fn a_second_daemon_takes_nothing_from_the_first_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = start(folder.path(), "state");
    ready(&mut first);
    let text = refused(folder.path(), "state");
    assert!(text.contains("another daemon already uses"), "{text}");
    let text = refused(folder.path(), "other-state");
    assert!(text.contains("another daemon listens there"), "{text}");
    std::os::unix::net::UnixStream::connect(folder.path().join("control")).unwrap();
    // What a killed daemon leaves behind is in nobody's way.
    first.kill().unwrap();
    first.wait().unwrap();
    let mut next = start(folder.path(), "state");
    ready(&mut next);
    next.kill().unwrap();
    next.wait().unwrap();
}

#[test]
fn no_core_is_dumped_and_no_other_process_may_look_inside() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = start(folder.path(), "state");
    ready(&mut child);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let limits = Limits { answer: std::time::Duration::from_secs(10) };
    let mut client = Client::connect(&folder.path().join("control"), "test", limits).unwrap();
    let findings = client.doctor().unwrap();
    let dumpable = findings.iter().find(|finding| finding.check == "core-dumps").unwrap();
    assert_eq!(dumpable.level, Level::Good, "{dumpable:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}
