//! The owner at the terminal, with a real phone, and a computer at its socket.

use std::path::PathBuf;

use async_channel::{Receiver, Sender};
use clap::Parser;
use pocketcard_protocol::messages::{PinEntry, PinOperation};
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{Event, KeyCode, KeyEvent},
};
use tokio::task::{JoinHandle, spawn_blocking};

use super::{
    super::{App, Interface, view},
    host::{self, Host, LIMIT},
};
use crate::{
    arguments::Arguments,
    output::Output,
    setup::{self, Started},
};

struct Owner {
    interface: Interface,
    terminal: Terminal<TestBackend>,
    keys: Sender<Event>,
    typed: Receiver<Event>,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Owner {
    async fn start(more: &[&str]) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let private = std::fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().permissions(private).tempdir().unwrap();
        let socket = folder.path().join("phone.sock");
        let state = folder.path().join("state").display().to_string();
        let listen = format!("unix:{}", socket.display());
        let arguments = [&["virtual-phone", "--state", &state, "--listen", &listen], more].concat();
        let arguments = Arguments::parse_from(arguments);
        let (output, _writer) = Output::start(false, None).unwrap();
        let Started { phone, listener, questions, enrolled, .. } = setup::start(&arguments, &output).await.unwrap();
        tokio::spawn(listener.unwrap().serve(phone.clone()));
        let interface = Interface::new(App::new(&arguments, &listen, enrolled), &phone, questions).await;
        let terminal = Terminal::new(TestBackend::new(100, 24)).unwrap();
        let (keys, typed) = async_channel::unbounded();
        Self { interface, terminal, keys, typed, socket, _folder: folder }
    }

    fn screen(&mut self) -> String {
        self.terminal.draw(|frame| view::draw(frame, &self.interface.app)).unwrap();
        self.terminal.backend().to_string()
    }

    /// Waits until the screen shows something.
    async fn sees(&mut self, text: &str) -> String {
        loop {
            let shown = self.screen();
            if shown.contains(text) {
                return shown;
            }
            let next = tokio::time::timeout(LIMIT, self.interface.next(&self.typed)).await;
            next.unwrap_or_else(|_| panic!("no {text:?} in {shown}")).expect("the interface goes on");
        }
    }

    async fn presses(&mut self, key: KeyCode) {
        self.keys.send(Event::Key(KeyEvent::from(key))).await.unwrap();
        while !self.typed.is_empty() {
            self.interface.next(&self.typed).await.expect("the interface goes on");
        }
    }

    async fn types(&mut self, text: &str) {
        for character in text.chars() {
            self.presses(KeyCode::Char(character)).await;
        }
    }

    /// Types into the fields of a page, one after the other.
    async fn fills(&mut self, values: &[&str]) {
        for value in values {
            self.types(value).await;
            self.presses(KeyCode::Enter).await;
        }
    }

    /// Goes on until the computer is done.
    async fn meanwhile<T: Send + 'static>(&mut self, mut computer: JoinHandle<T>) -> T {
        loop {
            tokio::select! {
                done = &mut computer => return done.unwrap(),
                next = self.interface.next(&self.typed) => next.expect("the interface goes on"),
            }
        }
    }
}

/// GENERAL AUTHENTICATE with key 9A, P-256: a signature.
///
/// Each time of something else: what was just denied is denied again without a question.
fn sign(host: &mut Host, session: u64, request_id: u64) -> Vec<u8> {
    let mut command = vec![0x00, 0x87, 0x11, 0x9A, 0x26, 0x7C, 0x24, 0x82, 0x00, 0x81, 0x20];
    command.extend([u8::try_from(request_id).unwrap(); 32]);
    command.push(0);
    host.transmit(session, request_id, &command)
}

fn enter_pin(host: &mut Host, session: u64, request_id: u64) -> Vec<u8> {
    let operation = PinOperation::Verify.into();
    host.request(PinEntry { session, request_id, epoch: 1, operation, key_reference: 0x80, time_limit_s: 0 })
}

#[tokio::test]
async fn a_new_phone_is_enrolled_paired_and_used_by_its_owner() {
    let mut owner = Owner::start(&[]).await;
    let mut seen = owner.sees("not enrolled yet").await;

    // From nothing: PIN and PUK, each twice, names, keys.
    owner.presses(KeyCode::Char('e')).await;
    owner.sees("No PIN can be used").await;
    owner.presses(KeyCode::Char('e')).await;
    owner.sees("Choose PIN and PUK").await;
    owner.fills(&["246813", "246814", "97531864", "97531864"]).await;
    seen += &owner.sees("the two are not the same").await;
    owner.presses(KeyCode::Down).await;
    owner.presses(KeyCode::Backspace).await;
    owner.fills(&["3", "", ""]).await;
    seen += &owner.sees("Names (2 of 3)").await;
    owner.fills(&["Ann", "", "no-address", ""]).await;
    owner.sees("not of the form user@domain").await;
    owner.presses(KeyCode::Down).await;
    owner.presses(KeyCode::Down).await;
    for _ in "no-address".chars() {
        owner.presses(KeyCode::Backspace).await;
    }
    owner.fills(&["ann@example.org", ""]).await;
    owner.sees("Keys (3 of 3)").await;
    owner.presses(KeyCode::Down).await;
    owner.presses(KeyCode::Right).await;
    owner.fills(&["", "", ""]).await;
    owner.sees("Keys and certificates are made.").await;
    seen += &owner.sees("9C (signature)   P-384      with certificate").await;
    seen += &owner.sees("9A (login)       P-256      with certificate").await;
    owner.presses(KeyCode::Esc).await;
    let shown = owner.sees("in the reader of every connected computer").await;
    assert!(shown.contains("made key 4 of 4: 9E (no PIN), P-256"), "{shown}");

    // Pairing.
    let (qr, mut computer) = host::offer(&owner.socket);
    owner.keys.send(Event::Paste(qr.to_string())).await.unwrap();
    owner.sees("Waiting two minutes for Test host.").await;
    let (digits, computer) = owner.meanwhile(spawn_blocking(move || (host::digits(&mut computer), computer))).await;
    owner.sees("Test host wants to pair.").await;
    assert!(owner.screen().contains(&digits));
    owner.presses(KeyCode::Char('y')).await;
    let pair = owner.meanwhile(spawn_blocking(move || host::confirm(computer))).await;
    owner.sees("paired with Test host").await;

    // PIN, an approval, a denial.
    let socket = owner.socket.clone();
    let computer = spawn_blocking(move || {
        let mut host = Host::connect(&socket, &pair);
        let session = host.open();
        let entered = enter_pin(&mut host, session, 1);
        (host, session, entered)
    });
    owner.sees("Test host wants to use keys that ask for the PIN.").await;
    owner.types("246813").await;
    seen += &owner.screen();
    owner.presses(KeyCode::Enter).await;
    let (mut host, session, entered) = owner.meanwhile(computer).await;
    assert_eq!(entered, [0x90, 0x00]);
    for (request_id, answer, expected) in [(2, 'n', [0x69, 0x82]), (3, 'y', [0x90, 0x00])] {
        let computer = spawn_blocking(move || {
            let response = sign(&mut host, session, request_id);
            (response, host)
        });
        owner.sees("Test host wants to sign with key 9A (login).").await;
        owner.presses(KeyCode::Char(answer)).await;
        let (response, back) = owner.meanwhile(computer).await;
        assert_eq!(response[response.len() - 2..], expected);
        host = back;
    }

    // A permission is taken back, and its key refused without a question.
    owner.presses(KeyCode::Enter).await;
    owner.sees("[x] use key 9A (login)").await;
    owner.presses(KeyCode::Char(' ')).await;
    owner.sees("[ ] use key 9A (login)").await;
    owner.presses(KeyCode::Esc).await;
    let computer = spawn_blocking(move || (sign(&mut host, session, 4), host));
    let (response, _host) = owner.meanwhile(computer).await;
    assert_eq!(response, [0x69, 0x82]);

    // The log says it all.
    owner.presses(KeyCode::Char('v')).await;
    let log = owner.sees("Log (").await;
    for entry in [
        "Test host  pairing: done",
        "Test host  PIN: done, asked here",
        "Test host  sign with 9A (login): denied, asked here",
        "Test host  sign with 9A (login): done, asked here",
        "Test host  permissions changed: done",
        "Test host  sign with 9A (login): refused (key not permitted)",
    ] {
        assert!(log.contains(entry), "{entry:?} is missing in {log}");
    }
    owner.presses(KeyCode::PageUp).await;
    owner.sees("this phone  PIN and PUK chosen: done").await;
    owner.presses(KeyCode::Char('w')).await;
    let export = owner.socket.with_extension("log");
    owner.fills(&[&export.display().to_string()]).await;
    owner.sees("entries are in").await;
    seen += &std::fs::read_to_string(export).unwrap();
    owner.presses(KeyCode::Esc).await;
    seen += &owner.sees("What happens").await;
    assert!(!seen.contains("246813") && !seen.contains("97531864"), "a secret was shown");

    // Locked: no computer has the card.
    owner.presses(KeyCode::Char('l')).await;
    owner.sees("locked: no computer sees it").await;
    owner.presses(KeyCode::Char('l')).await;
    owner.sees("in the reader of every connected computer").await;
}

#[tokio::test]
async fn pin_and_keys_change_and_a_factory_reset_leaves_nothing() {
    let mut owner = Owner::start(&["--test-card", "ec"]).await;
    owner.presses(KeyCode::Char('e')).await;
    owner.sees("PIN: 3 tries left. PUK: 3 tries left.").await;
    owner.presses(KeyCode::Char('p')).await;
    owner.fills(&["111111", "246813", "246813"]).await;
    owner.sees("Not done: wrong PIN or PUK; 2 tries left.").await;
    owner.presses(KeyCode::Char('p')).await;
    owner.fills(&["123456", "246813", "246813"]).await;
    owner.sees("The PIN is changed.").await;
    owner.presses(KeyCode::Char('u')).await;
    owner.fills(&["12345678", "97531864", "97531864"]).await;
    owner.sees("The PUK is changed.").await;
    owner.presses(KeyCode::Char('f')).await;
    owner.fills(&["135792", "135792", "86420975", "86420975"]).await;
    owner.sees("PIN and PUK are chosen.").await;

    // A request for the key in 9A, and the certificate of an authority, which is for another key.
    owner.presses(KeyCode::Char('s')).await;
    let request = owner.socket.with_extension("csr").display().to_string();
    owner.fills(&["135792", "Ann", "", "", "", &request]).await;
    owner.sees("The request is in").await;
    assert!(std::fs::read_to_string(&request).unwrap().starts_with("-----BEGIN CERTIFICATE REQUEST-----"));
    owner.presses(KeyCode::Char('i')).await;
    owner.fills(&[&request]).await;
    owner.sees("Not done: this is no X.509 certificate.").await;

    owner.presses(KeyCode::Char('R')).await;
    owner.fills(&["yes"]).await;
    owner.sees("type the word reset").await;
    for _ in 0..3 {
        owner.presses(KeyCode::Backspace).await;
    }
    owner.fills(&["reset"]).await;
    owner.sees("The phone is as good as new.").await;
    owner.sees("9A (login)       no key     no certificate").await;
}
