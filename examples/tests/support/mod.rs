//! The phone as a program under script, and a computer's side of its socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, dead_code, unreachable_pub)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use pocketcard_phone::SystemEntropy;
use pocketcard_protocol::{
    Timestamp,
    channel::StaticSecret,
    link::{CloseReason, Event, HostConfig, LINK_MESSAGE_LIMIT, Link, VersionRange},
    messages::{Body, Envelope, Open, Transmit},
    pairing::{Attempts, Offer, PairKeys},
    stream::{self, FrameReader},
};
use serde_json::{Value, json};

pub const LIMIT: Duration = Duration::from_secs(20);

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

/// The computer's side of one link, over a real socket.
pub struct Host {
    pub stream: UnixStream,
    pub frames: FrameReader,
    pub link: Link,
    pub origin: Instant,
}

pub fn host_config(versions: VersionRange) -> HostConfig {
    let identity = Arc::new(StaticSecret::from_bytes(&[7; 32]));
    let entropy = Arc::new(SystemEntropy);
    HostConfig { identity, name: "Test host".into(), software: "test 1".into(), entropy, versions }
}

impl Host {
    pub fn new(socket: &Path, link: Link, origin: Instant) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        Self { stream, frames: FrameReader::new(LINK_MESSAGE_LIMIT), link, origin }
    }

    pub fn connect(socket: &Path, pair: &PairKeys) -> Self {
        let link = Link::host_connect(host_config(VersionRange::SUPPORTED), pair, Timestamp::ZERO);
        Self::new(socket, link, Instant::now())
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_origin(self.origin.elapsed())
    }

    pub fn flush(&mut self) {
        while let Some(message) = self.link.poll_transmit() {
            // Whoever closed the stream has said why before.
            let _ = self.stream.write_all(&stream::encode(&message).unwrap());
        }
    }

    /// The next event of the link.
    pub fn event(&mut self) -> Event {
        let deadline = Instant::now() + LIMIT;
        loop {
            self.flush();
            if let Some(event) = self.link.poll_event() {
                return event;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nothing happened on the link");
            self.stream.set_read_timeout(Some(left)).unwrap();
            let count = self.stream.read(self.frames.read_buffer()).unwrap();
            if count == 0 {
                return Event::Closed(CloseReason::Lost);
            }
            self.frames.filled(count);
            while let Some(message) = self.frames.next_message().unwrap() {
                let now = Timestamp::from_origin(self.origin.elapsed());
                self.link.handle_message(message, now);
            }
        }
    }

    pub fn send(&mut self, envelope: impl Into<Envelope>) {
        let now = self.now();
        self.link.send(&envelope.into(), now).unwrap();
        self.flush();
    }

    /// Opens a card session; its number.
    pub fn open(&mut self) -> u64 {
        let event = self.event();
        assert!(matches!(event, Event::Connected { .. }), "{event:?}");
        self.send(Open { resume_token: Vec::new(), epoch: 1, software: "test 1".into() });
        loop {
            if let Event::Message(Envelope { body: Some(Body::Opened(opened)) }) = self.event() {
                return opened.session;
            }
        }
    }

    pub fn transmit(&mut self, session: u64, request_id: u64, command: &[u8]) -> Vec<u8> {
        self.send(Transmit { session, request_id, epoch: 1, command: command.to_vec() });
        loop {
            match self.event() {
                Event::Message(Envelope { body: Some(Body::Response(response)) }) => return response.response.clone(),
                Event::Message(_) => {}
                event => panic!("{event:?}"),
            }
        }
    }
}

/// Pairs as `pocketcard pair` does, with a QR text.
pub fn pair(phone: &mut Phone) -> PairKeys {
    let origin = Instant::now();
    let config = host_config(VersionRange::SUPPORTED);
    let offer =
        Offer::new(&config.identity.public(), &config.name, &SystemEntropy, &Attempts::new(), Timestamp::ZERO).unwrap();
    let qr = offer.qr_text().unwrap();
    let mut host = Host::new(&phone.socket, Link::host_pair(config, offer, Timestamp::ZERO), origin);
    host.flush();
    phone.send(&json!({ "command": "scan", "qr": *qr }));
    assert_eq!(phone.event("scanned")["host"], "Test host");
    let Event::PairingDigits { digits, peer_name, .. } = host.event() else { panic!("no digits") };
    assert_eq!(peer_name, "Test phone");
    let shown = phone.event("digits");
    assert_eq!(shown["digits"], digits.to_string());
    assert_eq!(shown["host"], "Test host");
    phone.send(&json!({ "command": "confirm", "agree": true }));
    host.link.confirm_pairing(true, host.now());
    let pair = loop {
        match host.event() {
            Event::PeerConfirmed => {}
            Event::Paired { pair, .. } => break pair,
            event => panic!("{event:?}"),
        }
    };
    let now = host.now();
    host.link.pair_stored(now);
    while !matches!(host.event(), Event::PairingDone) {}
    host.flush();
    phone.event("paired");
    pair
}
