//! Running programs in the workspace.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::Problem;
use crate::problem::Context;
use crate::steps::say;

/// The workspace's folder.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A file or folder of this tool's own below the target folder.
pub(crate) fn scratch(name: &str) -> PathBuf {
    target().join("xtask").join(name)
}

/// A cargo command in the workspace, without what `cargo run` put into our environment.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = command("cargo", arguments);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST") || text == "RUSTUP_TOOLCHAIN" {
            command.env_remove(name);
        }
    }
    command
}

/// A command in the workspace.
pub(crate) fn command<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    command
}

/// The exit code of a command that was begun by [`limited`] and took longer than it may. Spec: timeout(1)
pub(crate) const TIMED_OUT: i32 = 124;

/// Begins a command, of which the rest are arguments, that is ended after a while with what it has started; and when we end, since
/// `timeout` takes it out of the reach of Ctrl-C.
pub(crate) fn limited(limit: Duration) -> Command {
    let seconds = limit.as_secs().to_string();
    command("setpriv", ["--pdeathsig", "TERM", "--", "timeout", "--kill-after=10", &seconds])
}

/// Runs a command with its output shown, and fails if it does.
pub(crate) fn run(command: &mut Command) -> Result<(), Problem> {
    say(&format!("    $ {}", shown(command)));
    let status = command.status().map_err(|error| Problem::NotStarted(program(command), error))?;
    if status.success() { Ok(()) } else { Err(Problem::Failed(shown(command))) }
}

/// Runs a command quietly and returns what it wrote to stdout.
pub(crate) fn output(command: &mut Command) -> Result<String, Problem> {
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|error| Problem::NotStarted(program(command), error))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    say(&text);
    Err(Problem::Failed(shown(command)))
}

/// Whether a command works, quietly.
pub(crate) fn works(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Runs a command, shows every line that it writes to stdout or stderr, and hands it to `see`, too.
///
/// Returns the exit code, for scripts that mean something by it.
pub(crate) fn watch(command: &mut Command, mut see: impl FnMut(&str)) -> Result<i32, Problem> {
    say(&format!("    $ {}", shown(command)));
    let (mut child, lines) = start(command)?;
    // Until the last writer closes; a daemon that a test left behind would be found out here.
    for line in lines {
        say(&line);
        see(&line);
    }
    let status = child.wait().context("waiting for a command")?;
    Ok(status.code().unwrap_or(-1))
}

/// How a command with a time limit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, with this exit code, or -1 after a signal.
    Code(i32),
    /// It ran longer than it may.
    Killed,
}

/// Runs a command without showing what it writes, and kills it after `limit`.
pub(crate) fn watch_within(command: &mut Command, limit: Duration, mut see: impl FnMut(&str)) -> Result<End, Problem> {
    let deadline = Instant::now() + limit;
    let (mut child, lines) = start(command)?;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => see(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                child.kill().context("killing a command that takes too long")?;
                child.wait().context("waiting for a command")?;
                return Ok(End::Killed);
            }
        }
    }
    let status = child.wait().context("waiting for a command")?;
    Ok(End::Code(status.code().unwrap_or(-1)))
}

/// Starts a command; the lines that it writes to stdout or stderr end when its last writer has closed them.
fn start(command: &mut Command) -> Result<(Child, Receiver<String>), Problem> {
    let (reader, writer) = std::io::pipe().context("making a pipe")?;
    command.stdout(writer.try_clone().context("making a pipe")?).stderr(writer);
    let child = command.spawn().map_err(|error| Problem::NotStarted(program(command), error))?;
    // The command holds the writing ends; without them gone the lines would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    Ok((child, lines))
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// A command line as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut words = vec![program(command)];
    words.extend(command.get_args().map(|argument| {
        let text = argument.to_string_lossy();
        if text.is_empty() || text.contains([' ', '"', '$', '*']) { format!("'{text}'") } else { text.into_owned() }
    }));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_outputs_and_the_code_are_seen() {
        let mut lines = Vec::new();
        let code = watch(&mut command("sh", ["-c", "echo one; echo two >&2; exit 77"]), |line| {
            lines.push(line.to_owned());
        });
        assert_eq!(code.unwrap(), 77);
        lines.sort();
        assert_eq!(lines, ["one", "two"]);
    }

    #[test]
    fn a_command_that_takes_too_long_is_killed() {
        let mut lines = Vec::new();
        // `exec`, so that nothing is left behind.
        let mut hangs = command("sh", ["-c", "echo one; exec sleep 600"]);
        let end = watch_within(&mut hangs, Duration::from_secs(1), |line| lines.push(line.to_owned()));
        assert_eq!((end.unwrap(), lines), (End::Killed, vec!["one".to_owned()]));
        let mut ends = command("sh", ["-c", "exit 3"]);
        assert_eq!(watch_within(&mut ends, Duration::from_secs(60), |_| ()).unwrap(), End::Code(3));
    }

    #[test]
    fn what_a_limited_command_has_started_ends_with_it() {
        let mut lines = Vec::new();
        let mut hangs = limited(Duration::from_secs(1));
        hangs.args(["sh", "-c", "sleep 600 & echo one; wait"]);
        // Its lines end when nobody is left who could write any.
        let code = watch(&mut hangs, |line| lines.push(line.to_owned()));
        assert_eq!((code.unwrap(), lines), (TIMED_OUT, vec!["one".to_owned()]));
    }

    #[test]
    fn the_root_is_the_workspace() {
        assert!(root().join("Cargo.lock").is_file());
    }
}
