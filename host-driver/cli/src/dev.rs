//! `pocketcard dev`: a command beside a virtual phone in a private reader.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use pocketcard_dev::{Card, Environment};
use rustix::process::{Pid, Signal, getpgrp, kill_process};
use rustix::termios::tcgetpgrp;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::failure::Failure;
use crate::strays;
use crate::terminal::note;

/// What is passed on to the command. Those that only a terminal sends reach it anyway.
const FORWARDED: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What the card holds at the start: keys and certificates in 9A, 9C, 9D and 9E, or nothing.
    #[arg(long, value_enum, default_value_t = CardArgument::Rsa)]
    card: CardArgument,
    /// How many slots the reader has.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    slots: u32,
    /// How many phones are paired, one a slot; as many as slots unless given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=16))]
    phones: Option<u32>,
    /// Where a PIN is entered: by the programs, or on the phone, which makes the reader one with a PIN pad.
    #[arg(long, value_enum, default_value_t = PinEntryArgument::Keyboard)]
    pin_entry: PinEntryArgument,
    /// Write the logs there, to stay; they say nothing secret.
    #[arg(long, value_name = "FOLDER")]
    keep_logs: Option<PathBuf>,
    /// Filter for the logs, in the syntax of RUST_LOG.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log_level: String,
    /// The command and its arguments, after `--`.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum CardArgument {
    /// RSA-2048: what every program can use
    Rsa,
    /// P-256
    Ec,
    /// No keys, for programs that provision
    Empty,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum PinEntryArgument {
    /// Programs ask for the PIN
    Keyboard,
    /// The phone, which enters the PIN of its test card by itself
    Phone,
}

impl From<CardArgument> for Card {
    fn from(argument: CardArgument) -> Self {
        match argument {
            CardArgument::Rsa => Self::Rsa,
            CardArgument::Ec => Self::Ec,
            CardArgument::Empty => Self::Empty,
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    // Up to here a signal simply ends us: the kernel then ends what was started, and a keeper removes the folder.
    let mut builder = Environment::builder()
        .card(arguments.card.into())
        .slots(arguments.slots)
        .phones(arguments.phones.unwrap_or(arguments.slots))
        .log_level(&arguments.log_level);
    if arguments.pin_entry == PinEntryArgument::Phone {
        builder = builder.daemon_config("pin_entry = \"phone\"");
    }
    if let Some(folder) = &arguments.keep_logs {
        builder = builder.keep_logs(folder);
    }
    let mut environment = builder.start()?;
    // From here on it is the command's, which may want to end in its own way.
    let mut signals = Signals::new(FORWARDED).map_err(|source| Failure::System { what: "catching signals", source })?;
    strays::inherit();
    let mut child = start(arguments, &environment)?;
    let pid = Pid::from_child(&child);
    let handle = signals.handle();
    let forwarder = thread::spawn(move || signals.forever().for_each(|signal| forward(pid, signal)));
    let ended = AtomicBool::new(arguments.pin_entry == PinEntryArgument::Keyboard);
    let status = thread::scope(|scope| {
        scope.spawn(|| environment.enter_pins(&ended));
        let status = child.wait().map_err(|source| Failure::System { what: "waiting for the command", source });
        ended.store(true, Ordering::Relaxed);
        status
    });
    handle.close();
    let _ = forwarder.join();
    drop(environment);
    strays::end();
    Ok(exit_code(status?))
}

fn start(arguments: &Arguments, environment: &Environment) -> Result<Child, Failure> {
    let (program, rest) = match arguments.command.split_first() {
        Some((program, rest)) => (program.clone(), rest),
        None => (shell(environment), [].as_slice()),
    };
    let named = || program.to_string_lossy().into_owned();
    if !exists(&program) {
        let source = io::Error::new(io::ErrorKind::NotFound, "there is no such program");
        return Err(Failure::Command { command: named(), source });
    }
    let mut command = environment.tied_command(&program)?;
    command.args(rest);
    if arguments.command.is_empty() {
        // For prompts, and for whoever wonders later which shell this is.
        command.env("POCKETCARD_DEV", "1");
    }
    command.spawn().map_err(|source| Failure::Command { command: named(), source })
}

/// Whether the program can be found: by its path, or in PATH.
fn exists(program: &OsStr) -> bool {
    let path = Path::new(program);
    if path.components().count() > 1 {
        return path.exists();
    }
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|folder| folder.join(path).is_file())
}

/// The user's shell, with a note how to leave.
fn shell(environment: &Environment) -> OsString {
    let names = environment.reader_names().join(", ");
    note(&format!(
        "A shell with a phone in the reader: {names}\n\
         Try: opensc-tool -l    pkcs11-tool -L    pocketcard status    (PIN {}, PUK {})\n\
         Leave with `exit` or Ctrl-D: everything started here ends then.",
        pocketcard_dev::TEST_PIN,
        pocketcard_dev::TEST_PUK
    ));
    env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into())
}

/// Passes a signal on, unless the terminal has already sent it to the command, too.
fn forward(command: Pid, signal: i32) {
    let from_terminal = matches!(signal, SIGINT | SIGQUIT)
        && io::stdin().is_terminal()
        && tcgetpgrp(io::stdin()).is_ok_and(|foreground| foreground == getpgrp());
    if from_terminal {
        return;
    }
    if let Some(signal) = Signal::from_named_raw(signal) {
        let _ = kill_process(command, signal);
    }
}

fn exit_code(status: ExitStatus) -> ExitCode {
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(u8::MAX).into(),
        (None, Some(signal)) => exit_by_signal(signal),
        (None, None) => ExitCode::FAILURE,
    }
}

/// As shells do. Spec: POSIX.1-2017, shell, 2.8.2.
fn exit_by_signal(signal: i32) -> ExitCode {
    u8::try_from(128 + signal).unwrap_or(u8::MAX).into()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_does() {
        for (program, found) in [("sh", true), ("/bin/sh", true), ("no-such-program", false), ("/no/such", false)] {
            assert_eq!(exists(OsStr::new(program)), found, "{program}");
        }
    }

    #[test]
    fn exit_codes_are_passed_on() {
        for (script, expected) in [("exit 0", 0), ("exit 42", 42), ("kill -TERM $$", 143)] {
            let status = Command::new("sh").args(["-c", script]).status().unwrap();
            assert_eq!(format!("{:?}", exit_code(status)), format!("{:?}", ExitCode::from(expected)), "{script}");
        }
    }
}
