//! A virtual phone under script: started, talked to in JSON lines, killed and started again as the same phone.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::{Process, Spec};
use crate::{Card, DevError, TEST_PIN};

/// How long a phone may take to be ready; four RSA keys are generated at the first start.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// How often [`Phone::enter_pins`] looks whether it is to end, which the phone does not tell.
const ENDED_INTERVAL: Duration = Duration::from_millis(100);
/// How many past events are kept for [`Phone::wait_event`].
const BACKLOG: usize = 4096;

/// One virtual phone. Its state lies in a folder, so it is the same phone after a restart.
#[derive(Debug)]
pub struct Phone {
    name: String,
    program: PathBuf,
    state: PathBuf,
    socket: PathBuf,
    adapter: Option<String>,
    log: PathBuf,
    level: String,
    card: Option<Card>,
    auto_approve: bool,
    process: Option<Process>,
    events: VecDeque<Value>,
}

/// What a new phone is made of.
#[derive(Debug)]
pub(crate) struct PhoneSpec {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) socket: PathBuf,
    /// The Bluetooth adapter that it uses instead of the socket.
    pub(crate) adapter: Option<String>,
    pub(crate) log: PathBuf,
    pub(crate) level: String,
    /// `None`: a card of its owner, not one for tests.
    pub(crate) card: Option<Card>,
    pub(crate) auto_approve: bool,
}

impl Phone {
    pub(crate) fn new(spec: PhoneSpec) -> Self {
        let PhoneSpec { name, program, state, socket, adapter, log, level, card, auto_approve } = spec;
        let events = VecDeque::new();
        Self { name, program, state, socket, adapter, log, level, card, auto_approve, process: None, events }
    }

    /// The name that computers show for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is reached over the air.
    pub(crate) fn is_on_air(&self) -> bool {
        self.adapter.is_some()
    }

    /// Where it listens, as `pocketcard pair --connect` takes it. A phone on the air listens nowhere.
    pub fn address(&self) -> String {
        format!("unix:{}", self.socket.display())
    }

    /// The folder that makes it the same phone after a restart.
    pub fn state(&self) -> &std::path::Path {
        &self.state
    }

    /// Starts the phone (again) and returns when it listens. One that still runs is killed first.
    ///
    /// # Errors
    /// [`DevError::ChildEnded`] with its last words, [`DevError::TimedOut`] after two minutes.
    pub fn restart(&mut self) -> Result<(), DevError> {
        self.restart_with(&[])
    }

    /// Like [`Self::restart`], with arguments added, such as `--probe-stop-for-testing-only`.
    ///
    /// # Errors
    /// Those of [`Self::restart`].
    pub fn restart_with(&mut self, more: &[&str]) -> Result<(), DevError> {
        self.kill();
        // A phone that was killed leaves its socket behind.
        let _ = std::fs::remove_file(&self.socket);
        let mut arguments: Vec<OsString> = vec!["--script".into(), "--state".into(), self.state.clone().into()];
        match &self.adapter {
            None => arguments.extend(["--listen".into(), self.address().into()]),
            Some(adapter) => arguments.push(format!("--ble={adapter}").into()),
        }
        arguments.extend(["--name".into(), self.name.clone().into()]);
        if let Some(card) = self.card {
            arguments.extend(["--test-card".into(), card.as_str().into()]);
        }
        arguments.extend(["--log".into(), self.log.clone().into()]);
        if self.auto_approve {
            arguments.push("--auto-approve".into());
        }
        arguments.extend(more.iter().map(OsString::from));
        self.process = Some(Process::start(Spec {
            name: format!("the phone {:?}", self.name),
            program: &self.program,
            arguments,
            environment: vec![("RUST_LOG", self.level.clone().into())],
            log: self.log.clone(),
            talks: true,
        })?);
        self.wait_event("saying that it is ready", READY_LIMIT, |event| is(event, "ready"))?;
        Ok(())
    }

    /// Whether approvals are given without asking; takes effect at the next restart.
    pub fn set_auto_approve(&mut self, auto_approve: bool) {
        self.auto_approve = auto_approve;
    }

    /// Kills the phone with SIGKILL. Does nothing if it does not run.
    pub fn kill(&mut self) {
        self.process = None;
        self.events.clear();
    }

    /// The process, to signal it; `None` between kill and restart.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// Sends one command of the script, such as `{"command": "lock"}`.
    ///
    /// # Errors
    /// [`DevError::ChildEnded`] if the phone is not there to take it.
    pub fn send(&mut self, command: &Value) -> Result<(), DevError> {
        let process = self.process.as_mut().ok_or_else(|| not_running(&self.name))?;
        let Some(stdin) = process.stdin() else { return Err(process.ended_early()) };
        if writeln!(stdin, "{command}").and_then(|()| stdin.flush()).is_err() {
            return Err(process.ended_early());
        }
        Ok(())
    }

    /// Takes the next event that fits out of what the phone reported, waiting for it up to `limit`.
    ///
    /// Events that do not fit stay for later calls.
    ///
    /// # Errors
    /// [`DevError::TimedOut`] names `what`; [`DevError::ChildEnded`] if the phone ended.
    pub fn wait_event(
        &mut self,
        what: &'static str,
        limit: Duration,
        mut fits: impl FnMut(&Value) -> bool,
    ) -> Result<Value, DevError> {
        if let Some(index) = self.events.iter().position(&mut fits) {
            return Ok(self.events.remove(index).unwrap_or_default());
        }
        let deadline = Instant::now() + limit;
        loop {
            let process = self.process.as_mut().ok_or_else(|| not_running(&self.name))?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(process.timed_out(what, limit));
            }
            let line = match process.line(what, left) {
                Err(DevError::TimedOut { .. }) => return Err(process.timed_out(what, limit)),
                other => other?,
            };
            let Ok(event) = serde_json::from_str::<Value>(&line) else {
                return Err(DevError::Unexpected { process: process.name().to_owned(), what, answer: line });
            };
            if fits(&event) {
                return Ok(event);
            }
            if self.events.len() == BACKLOG {
                self.events.pop_front();
            }
            self.events.push_back(event);
        }
    }

    /// Enters the PIN of the test card whenever it is asked for, until `ended` says so or the phone ends.
    pub(crate) fn enter_pins(&mut self, ended: &AtomicBool) {
        while !ended.load(Ordering::Relaxed) {
            let asked = match self.wait_event("asking for a PIN", ENDED_INTERVAL, |event| is(event, "pin_asked")) {
                Ok(asked) => asked,
                Err(DevError::TimedOut { .. }) => continue,
                Err(_) => return,
            };
            let id = asked.get("id");
            let answer = match asked.get("purpose").and_then(Value::as_str) {
                Some("verify") => json!({ "command": "enter_pin", "id": id, "pin": TEST_PIN }),
                _ => json!({ "command": "cancel_pin", "id": id }),
            };
            if self.send(&answer).is_err() {
                return;
            }
        }
    }

    /// Shows the phone a QR text, as its camera would.
    pub(crate) fn scan(&mut self, qr_text: &str) -> Result<(), DevError> {
        self.send(&json!({ "command": "scan", "qr": qr_text }))
    }

    /// Lets the phone pair without its camera.
    pub(crate) fn compare(&mut self) -> Result<(), DevError> {
        self.send(&json!({ "command": "compare" }))
    }

    /// The six digits that the phone shows.
    pub(crate) fn digits(&mut self, limit: Duration) -> Result<String, DevError> {
        let event = self.wait_event("showing the six digits", limit, |event| is(event, "digits"))?;
        Ok(event.get("digits").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// The owner's yes or no to the digits.
    pub(crate) fn confirm(&mut self, agree: bool) -> Result<(), DevError> {
        self.send(&json!({ "command": "confirm", "agree": agree }))
    }
}

fn is(event: &Value, name: &str) -> bool {
    event.get("event").is_some_and(|event| event == name)
}

fn not_running(name: &str) -> DevError {
    DevError::ChildEnded {
        process: format!("the phone {name:?}"),
        status: "not started".to_owned(),
        tail: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A shell script that speaks the phone's script language.
    fn fake(folder: &std::path::Path, script: &str) -> Phone {
        let program = folder.join("fake-phone");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Phone::new(PhoneSpec {
            name: "Fake".to_owned(),
            program,
            state: folder.join("state"),
            socket: folder.join("phone.sock"),
            adapter: None,
            log: folder.join("phone.log"),
            level: "info".to_owned(),
            card: Some(Card::Empty),
            auto_approve: true,
        })
    }

    #[test]
    fn events_wait_for_whoever_asks_for_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut phone = fake(
            folder.path(),
            r#"echo '{"event":"connected"}'; echo '{"event":"ready"}'; read line
               echo "$line" >&2; echo '{"event":"digits","digits":"042137"}'; read line"#,
        );
        phone.restart().unwrap();
        phone.scan("pocketcard:x").unwrap();
        assert_eq!(phone.digits(Duration::from_secs(5)).unwrap(), "042137");
        phone.wait_event("the connection", Duration::from_secs(5), |event| event["event"] == "connected").unwrap();
        let log = std::fs::read_to_string(folder.path().join("phone.log")).unwrap();
        assert!(log.contains(r#""qr":"pocketcard:x""#), "{log}");
    }

    #[test]
    fn pins_are_entered_and_nothing_is_changed_until_told_to_stop() {
        let folder = tempfile::tempdir().unwrap();
        let mut phone = fake(
            folder.path(),
            r#"echo '{"event":"ready"}'
               echo '{"event":"pin_asked","id":1,"purpose":"verify"}'; read line; echo "$line" >&2
               echo '{"event":"pin_asked","id":2,"purpose":"change"}'; read line; echo "$line" >&2; echo '{}'; read line"#,
        );
        phone.restart().unwrap();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let entering = scope.spawn(|| phone.enter_pins(&ended));
            let log = folder.path().join("phone.log");
            let deadline = Instant::now() + Duration::from_secs(10);
            while !std::fs::read_to_string(&log).is_ok_and(|log| log.contains("cancel_pin")) {
                assert!(Instant::now() < deadline && !entering.is_finished());
                std::thread::yield_now();
            }
            ended.store(true, Ordering::Relaxed);
        });
        let log = std::fs::read_to_string(folder.path().join("phone.log")).unwrap();
        assert!(log.contains(r#""pin":"123456""#) && log.contains(r#"{"command":"cancel_pin","id":2}"#), "{log}");
    }

    #[test]
    fn a_phone_that_does_not_start_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let mut phone = fake(folder.path(), "echo 'no such card' >&2; exit 2");
        let error = phone.restart().unwrap_err().to_string();
        assert!(error.contains("exit code 2") && error.ends_with("no such card"), "{error}");
    }
}
