//! A program at a terminal of its own, and somebody who reads and types.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use crate::air::patient;
use crate::failure::{Context, Failure};

/// How often it is looked whether a program has turned the echo off, which gives no event.
const ECHO_POLL: Duration = Duration::from_millis(5);
/// How often it is looked whether a program that has hung its terminal up has opened it again, which gives no event.
const REOPEN_POLL: Duration = Duration::from_millis(5);
/// How long a program may take from its prompt to turning the echo off.
const ECHO_LIMIT: Duration = Duration::from_secs(5);
/// A question after which the echo is still on is one that may be answered openly.
const OPEN_LIMIT: Duration = Duration::from_secs(1);

/// A program that runs at a terminal.
pub(crate) struct Dialogue {
    name: String,
    child: Child,
    terminal: File,
    arriving: Receiver<Vec<u8>>,
    /// Everything that came so far, and how much of it was waited for.
    seen: String,
    read: usize,
}

impl Dialogue {
    /// Starts a program in a session of its own, with its terminal.
    pub(crate) fn start(
        program: &str,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Self, Failure> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).context("openpt")?;
        grantpt(&ours).context("grantpt")?;
        unlockpt(&ours).context("unlockpt")?;
        let name = ptsname(&ours, Vec::new()).context("ptsname")?;
        let theirs = File::options()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NOCTTY.bits().cast_signed())
            .open(name.to_string_lossy().as_ref())
            .context("opening a terminal")?;
        let copy = || theirs.try_clone().context("opening a terminal");
        let child = Command::new("setsid")
            .args(["--ctty", "--"])
            .arg(program)
            .args(arguments)
            .stdin(copy()?)
            .stdout(copy()?)
            .stderr(copy()?)
            .spawn()
            .context(format!("starting {program}"))?;
        drop(theirs);
        let terminal = File::from(ours);
        let mut reader = terminal.try_clone().context("reading a terminal")?;
        let (sender, arriving) = mpsc::channel();
        let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).context("watching a program")?;
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                match reader.read(&mut buffer) {
                    Ok(length @ 1..) if sender.send(buffer.get(..length).unwrap_or_default().to_vec()).is_ok() => {}
                    // EIO: nobody has the other end open. That is the end, unless the program hangs its terminal up to open
                    // it anew for itself alone, as login does.
                    Err(_) if !is_readable(&ended, REOPEN_POLL) => {}
                    _ => break,
                }
            }
        });
        Ok(Self { name: program.to_owned(), child, terminal, arriving, seen: String::new(), read: 0 })
    }

    /// Waits for one of some texts, after what was waited for before, and says which.
    pub(crate) fn one_of(&mut self, wanted: &[&str], limit: Duration) -> Result<usize, Failure> {
        let limit = patient(limit);
        let deadline = Instant::now() + limit;
        loop {
            let new = self.seen.get(self.read..).unwrap_or_default();
            let places =
                wanted.iter().enumerate().filter_map(|(index, text)| Some((new.find(text)?, index, text.len())));
            if let Some((place, index, length)) = places.min() {
                self.read += place + length;
                return Ok(index);
            }
            match self.arriving.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => {
                    return Err(Failure::Silent { wanted: wanted.join(" | "), limit, seen: self.seen.clone() });
                }
            }
        }
    }

    /// Waits for a text.
    pub(crate) fn expect(&mut self, wanted: &str, limit: Duration) -> Result<(), Failure> {
        self.one_of(&[wanted], limit).map(|_| ())
    }

    /// Types a line.
    pub(crate) fn type_line(&mut self, line: &str) -> Result<(), Failure> {
        self.terminal.write_all(format!("{line}\r").as_bytes()).context("typing")
    }

    /// Types a secret, once the program has turned the echo off: what is typed earlier it throws away.
    pub(crate) fn type_secret(&mut self, secret: &str) -> Result<(), Failure> {
        let limit = patient(ECHO_LIMIT);
        let deadline = Instant::now() + limit;
        while self.echoes() {
            if Instant::now() > deadline {
                let seen = self.seen.clone();
                return Err(Failure::Silent { wanted: "a prompt without echo".to_owned(), limit, seen });
            }
            thread::sleep(ECHO_POLL);
        }
        self.type_line(secret)
    }

    /// Types an answer to a question that may be for a secret: once the echo is off, or if it stays on for a moment.
    pub(crate) fn type_answer(&mut self, answer: &str) -> Result<(), Failure> {
        let deadline = Instant::now() + OPEN_LIMIT;
        while Instant::now() < deadline && self.echoes() {
            thread::sleep(ECHO_POLL);
        }
        self.type_line(answer)
    }

    fn echoes(&self) -> bool {
        tcgetattr(&self.terminal).is_ok_and(|modes| modes.local_modes.contains(LocalModes::ECHO))
    }

    /// Waits for the program's end; what it wrote is in [`Self::seen`] then.
    pub(crate) fn end(&mut self, limit: Duration) -> Result<ExitStatus, Failure> {
        let limit = patient(limit);
        let deadline = Instant::now() + limit;
        loop {
            match self.arriving.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(Failure::Hangs { program: self.name.clone(), limit, seen: self.seen.clone() });
                }
            }
        }
        self.read = self.seen.len();
        self.child.wait().context("waiting for a program")
    }

    /// Everything that the program wrote so far.
    pub(crate) fn seen(&self) -> &str {
        &self.seen
    }
}

/// Whether something happens at a descriptor within the limit.
fn is_readable(descriptor: &OwnedFd, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).ok();
    poll(&mut [PollFd::new(descriptor, PollFlags::IN)], limit.as_ref()).is_ok_and(|count| count > 0)
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[test]
    fn a_secret_is_typed_when_it_is_asked_for() {
        let script = "printf 'PIN: '; stty -echo; read pin; stty echo; echo; echo got $pin; exit 3";
        let mut dialogue = Dialogue::start("sh", ["-c", script]).unwrap();
        assert_eq!(dialogue.one_of(&["Password:", "PIN:"], LIMIT).unwrap(), 1);
        dialogue.type_secret("123456").unwrap();
        assert_eq!(dialogue.end(LIMIT).unwrap().code(), Some(3));
        assert!(dialogue.seen().contains("got 123456"), "{}", dialogue.seen());
        assert_eq!(dialogue.seen().matches("123456").count(), 1, "not echoed");
    }

    #[test]
    fn what_does_not_come_is_named() {
        let mut dialogue = Dialogue::start("sh", ["-c", "echo something else; read line"]).unwrap();
        let failure = dialogue.expect("PIN:", Duration::from_millis(300)).unwrap_err().to_string();
        assert!(failure.contains("PIN:") && failure.contains("something else"), "{failure}");
        let failure = dialogue.end(Duration::from_millis(50)).unwrap_err();
        assert!(matches!(failure, Failure::Hangs { .. }), "{failure}");
    }
}
