//! The test's end of `pcsc-client`: one process per client of PC/SC.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use pocketcard_dev::Environment;
use serde_json::Value;

/// How long a call may take unless a test says otherwise: longer than the driver's own 60 s would hide a hang.
pub const CALL_LIMIT: Duration = Duration::from_secs(30);

/// Why a call of a client failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientFailure {
    /// PC/SC answered with this error, as the `pcsc` crate names it, for example `ResetCard`.
    Pcsc(String),
    /// The client process ended.
    Gone,
    /// No answer within the limit.
    Hangs,
}

/// One client of PC/SC.
#[derive(Debug)]
pub struct Client {
    child: Child,
    stdin: ChildStdin,
    answers: Receiver<Value>,
}

impl Client {
    /// Starts a client that is connected to nothing yet.
    pub fn start(environment: &Environment) -> Self {
        let mut child = environment
            .command(program("pcsc-client"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| unusable(&format!("pcsc-client cannot be started: {error}")));
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            unusable("pcsc-client has no pipes")
        };
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Ok(answer) = serde_json::from_str(&line) else { break };
                if sender.send(answer).is_err() {
                    break;
                }
            }
        });
        Self { child, stdin, answers }
    }

    /// Starts a client that shares the reader's slot.
    pub fn connected(environment: &Environment, slot: usize) -> Self {
        let mut client = Self::start(environment);
        if let Err(failure) = client.connect(&reader(environment, slot)) {
            unusable(&format!("connecting to slot {slot}: {failure:?}"));
        }
        client
    }

    /// Connects, shared.
    ///
    /// # Errors
    /// What PC/SC answers.
    pub fn connect(&mut self, reader: &str) -> Result<Value, ClientFailure> {
        self.call(&["connect", reader, "shared"])
    }

    /// Sends a command APDU and returns the response with its status word.
    ///
    /// # Errors
    /// What PC/SC answers.
    pub fn transmit(&mut self, apdu: &[u8]) -> Result<Vec<u8>, ClientFailure> {
        self.send(&["transmit", &hex::encode(apdu)]);
        self.response(CALL_LIMIT)
    }

    /// The response to a `transmit` that was sent with [`Self::send`].
    ///
    /// # Errors
    /// What PC/SC answers.
    pub fn response(&mut self, limit: Duration) -> Result<Vec<u8>, ClientFailure> {
        let answer = self.answer(limit)?;
        Ok(answer.as_str().and_then(|text| hex::decode(text).ok()).unwrap_or_default())
    }

    /// Runs one command of `pcsc-client`.
    ///
    /// # Errors
    /// What PC/SC answers.
    pub fn call(&mut self, words: &[&str]) -> Result<Value, ClientFailure> {
        self.send(words);
        self.answer(CALL_LIMIT)
    }

    /// Sends a command without waiting for its answer.
    pub fn send(&mut self, words: &[&str]) {
        // If the client is gone, the answer says so.
        let _ = writeln!(self.stdin, "{}", words.join("\t"));
    }

    /// The answer to the oldest command that was sent.
    ///
    /// # Errors
    /// What PC/SC answers.
    pub fn answer(&mut self, limit: Duration) -> Result<Value, ClientFailure> {
        let mut answer = self.answers.recv_timeout(limit).map_err(|error| match error {
            RecvTimeoutError::Timeout => ClientFailure::Hangs,
            RecvTimeoutError::Disconnected => ClientFailure::Gone,
        })?;
        match answer.get("error").and_then(Value::as_str) {
            None => Ok(answer.get_mut("data").map(Value::take).unwrap_or_default()),
            Some(error) => Err(ClientFailure::Pcsc(error.to_owned())),
        }
    }

    /// Kills the client with SIGKILL and waits until it is gone.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The name of a slot.
pub fn reader(environment: &Environment, slot: usize) -> String {
    environment.reader_names().into_iter().nth(slot).unwrap_or_else(|| unusable(&format!("there is no slot {slot}")))
}

/// Waits until a condition holds, asking again every 20 ms: for what gives no event, such as the effects of pcscd's
/// own timers.
pub fn eventually(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A program of this package or workspace, beside the running test.
pub fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("POCKETCARD_BIN_DIR").map(PathBuf::from).or_else(|| {
        let test = std::env::current_exe().ok()?;
        Some(test.ancestors().nth(2)?.to_path_buf())
    });
    folder.unwrap_or_default().join(name)
}

#[allow(clippy::panic, reason = "a test without its tools has failed")]
pub(crate) fn unusable(what: &str) -> ! {
    panic!("{what}")
}
