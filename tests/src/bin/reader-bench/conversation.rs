//! JSON lines with the other processes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::run::Failure;

/// Another role of this program; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Result<Self, Failure> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::of("a process has no pipes"));
        };
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, stdin, lines })
    }

    pub(crate) fn send(&mut self, request: &impl Serialize) -> Result<(), Failure> {
        writeln!(self.stdin, "{}", serde_json::to_string(request)?)?;
        Ok(())
    }

    pub(crate) fn receive<T: DeserializeOwned>(&mut self, limit: Duration) -> Result<T, Failure> {
        let line = self.lines.recv_timeout(limit).map_err(|error| Failure(format!("no answer: {error}")))?;
        Ok(serde_json::from_str(&line)?)
    }

    pub(crate) fn ask<T: DeserializeOwned>(&mut self, request: &impl Serialize, limit: Duration) -> Result<T, Failure> {
        self.send(request)?;
        self.receive(limit)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other side: answers every line of stdin with what `handle` says to.
pub(crate) fn serve<R: DeserializeOwned>(
    mut handle: impl FnMut(R, &mut dyn FnMut(serde_json::Value) -> Result<(), Failure>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for line in std::io::stdin().lines() {
        let mut answer = |value: serde_json::Value| {
            let mut stdout = std::io::stdout().lock();
            writeln!(stdout, "{value}")?;
            Ok(stdout.flush()?)
        };
        handle(serde_json::from_str(&line?)?, &mut answer)?;
    }
    Ok(())
}
