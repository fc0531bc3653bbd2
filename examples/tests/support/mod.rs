//! The phone as a program under script, and a computer's side of its socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, dead_code, unreachable_pub)]

mod host;

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    time::Instant,
};

pub use host::*;
use pocketcard_protocol::pairing::PairKeys;
use serde_json::{Value, json};

/// A folder of mode 0700 whatever the umask says.
pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o700)).tempdir().unwrap()
}

pub struct Phone {
    pub child: Child,
    pub input: Option<ChildStdin>,
    pub events: mpsc::Receiver<Value>,
    pub socket: PathBuf,
}

impl Phone {
    pub fn start(folder: &Path, more: &[&str]) -> Self {
        Self::start_with_ready(folder, more).0
    }

    /// The phone, and what it says when it is ready.
    pub fn start_with_ready(folder: &Path, more: &[&str]) -> (Self, Value) {
        let socket = folder.join("phone.sock");
        let mut child = Command::new(env!("CARGO_BIN_EXE_virtual-phone"))
            .args(["--script", "--name", "Test phone", "--state"])
            .arg(folder.join("state"))
            .arg("--listen")
            .arg(format!("unix:{}", socket.display()))
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, events) = mpsc::channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                sender.send(serde_json::from_str(&line).expect("an event is JSON")).ok();
            }
        });
        let mut phone = Self { input: child.stdin.take(), child, events, socket };
        let ready = phone.event("ready");
        (phone, ready)
    }

    /// The next event of this kind; others before it are skipped.
    pub fn event(&mut self, kind: &str) -> Value {
        self.any_of(&[kind])
    }

    /// The next event of one of these kinds.
    pub fn any_of(&mut self, kinds: &[&str]) -> Value {
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).unwrap_or_else(|error| panic!("no event {kinds:?}: {error}"));
            if kinds.iter().any(|kind| event["event"] == *kind) {
                return event;
            }
        }
    }

    pub fn send(&mut self, command: &Value) {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Pairs as `pocketcard pair` does, with a QR text.
pub fn pair(phone: &mut Phone) -> PairKeys {
    let (qr, mut host) = offer(&phone.socket);
    phone.send(&json!({ "command": "scan", "qr": *qr }));
    assert_eq!(phone.event("scanned")["host"], "Test host");
    let digits = digits(&mut host);
    let shown = phone.event("digits");
    assert_eq!(shown["digits"], digits);
    assert_eq!(shown["host"], "Test host");
    phone.send(&json!({ "command": "confirm", "agree": true }));
    let pair = confirm(host);
    phone.event("paired");
    pair
}
