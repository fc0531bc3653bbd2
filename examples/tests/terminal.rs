//! The phone's interface in a real terminal, which `script` makes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

mod support;

use std::{
    io::{Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use serde_json::json;
use support::{LIMIT, Phone, folder};

struct Terminal {
    script: Child,
    chunks: mpsc::Receiver<String>,
    /// Everything that the terminal was sent.
    written: String,
}

impl Terminal {
    /// A new phone of an owner in this folder.
    fn start(folder: &Path) -> Self {
        let command = format!(
            "stty rows 24 columns 100; exec {} --state {} --listen unix:{}",
            env!("CARGO_BIN_EXE_virtual-phone"),
            folder.join("state").display(),
            folder.join("phone.sock").display()
        );
        let mut script = Command::new("script")
            .args(["--quiet", "--flush", "--return", "--command", &command, "/dev/null"])
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = script.stdout.take().unwrap();
        let (sender, chunks) = mpsc::channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut chunk) {
                sender.send(String::from_utf8_lossy(&chunk[..count]).into_owned()).ok();
            }
        });
        let mut terminal = Self { script, chunks, written: String::new() };
        terminal.sees(&["Pair", "happens"]);
        terminal
    }

    /// Waits until each of these words has been written since the last call; words are drawn apart.
    fn sees(&mut self, words: &[&str]) {
        let mut seen = String::new();
        while !words.iter().all(|word| seen.contains(word)) {
            let chunk = self.chunks.recv_timeout(LIMIT);
            seen += &chunk.unwrap_or_else(|error| panic!("{error}, no {words:?}: {seen:?}"));
        }
        self.written += &seen;
    }

    fn types(&mut self, text: &str) {
        self.script.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Waits until the phone has ended and given the terminal back.
    fn ended(mut self) -> String {
        let mut rest = String::new();
        let ended = loop {
            match self.chunks.recv_timeout(LIMIT) {
                Ok(chunk) => rest += &chunk,
                Err(error) => break error,
            }
        };
        if ended == mpsc::RecvTimeoutError::Timeout {
            self.script.kill().unwrap();
        }
        let status = self.script.wait().unwrap();
        assert_eq!(ended, mpsc::RecvTimeoutError::Disconnected, "{rest:?}");
        assert!(status.success(), "{rest:?}");
        // Bracketed paste off, the usual screen back. Spec: xterm's control sequences.
        assert!(rest.contains("\x1b[?2004l") && rest.contains("\x1b[?1049l"), "{rest:?}");
        self.written + &rest
    }
}

/// Nothing but the characters, in the order in which they were drawn.
fn without_controls(written: &str) -> String {
    let mut parts = written.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + part.trim_start_matches(|c: char| !c.is_ascii_alphabetic()).get(1..).unwrap_or("")
    })
}

fn has_script() -> bool {
    let exists = Command::new("script").arg("--version").output().is_ok();
    if !exists {
        println!("SKIPPED: the phone's user interface: script is not installed: apt-get install bsdutils");
    }
    exists
}

#[test]
fn the_terminal_is_given_back() {
    if !has_script() {
        return;
    }
    let by_key = |terminal: &mut Terminal| terminal.types("q");
    let by_signal = |terminal: &mut Terminal| {
        let children = format!("/proc/{0}/task/{0}/children", terminal.script.id());
        let phone = std::fs::read_to_string(children).unwrap();
        assert!(Command::new("kill").args(["-TERM", phone.trim()]).status().unwrap().success());
    };
    for quit in [&by_key as &dyn Fn(&mut Terminal), &by_signal] {
        let folder = folder();
        let mut terminal = Terminal::start(folder.path());
        quit(&mut terminal);
        terminal.ended();
        assert!(!folder.path().join("phone.sock").exists());
    }
}

#[test]
fn an_owner_enrols_a_new_phone_and_no_secret_reaches_the_screen() {
    if !has_script() {
        return;
    }
    let folder = folder();
    let mut terminal = Terminal::start(folder.path());
    terminal.types("e");
    terminal.sees(&["certificate", "import"]);
    terminal.types("e");
    terminal.sees(&["Choose"]);
    terminal.types("246813\r246813\r97531864\r97531864\r");
    terminal.sees(&["Organization"]);
    terminal.types("Ann\r\r\r\r");
    terminal.sees(&["9D", "P-256"]);
    terminal.types("\r\r\r\r");
    // "Keys and certificates are made.", as far as it is not there from the line before.
    terminal.sees(&["icates"]);
    terminal.types("\x03");
    let written = without_controls(&terminal.ended());
    for secret in ["2468", "6813", "9753", "1864"] {
        assert!(!written.contains(secret), "{secret} in {written:?}");
    }

    let (mut phone, ready) = Phone::start_with_ready(folder.path(), &[]);
    assert_eq!(ready["enrolled"], true);
    phone.send(&json!({ "command": "slots" }));
    let slots = phone.event("slots");
    assert!(slots["slots"].as_array().unwrap().iter().all(|slot| slot["algorithm"] == "p256"), "{slots}");
    phone.send(&json!({ "command": "change_pin", "pin": "246813", "new": "135792" }));
    phone.event("pin_changed");
}
