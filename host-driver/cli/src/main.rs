//! `pocketcard`: pairs phones, shows what the reader does, finds what is wrong, runs programs beside a virtual phone.
//!
//! Presentation only: what is decided is decided in the daemon, in `pocketcard-dev` and in the programs they start.
//!
//! # Exit codes
//! The table in [`failure::Code`]; `pocketcard dev -- COMMAND` ends with COMMAND's.

mod bundle;
mod cancel;
mod dev;
mod doctor;
mod end_pin;
mod failure;
#[cfg(test)]
mod fixtures;
mod login;
mod notices;
mod pair;
mod phones;
mod reader_conf;
mod redact;
mod refusal;
mod status;
mod strays;
mod terminal;
mod wait_card;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use pocketcard_ipc::control::{Client, Limits};

use failure::Failure;

/// Use a phone as the smart card of this computer.
#[derive(Debug, Parser)]
#[command(name = "pocketcard", version, about, after_help = failure::EXIT_CODES)]
struct Arguments {
    /// Control socket of the daemon.
    #[arg(long, global = true, value_name = "PATH", env = "POCKETCARD_CONTROL", default_value = CONTROL_SOCKET)]
    control: PathBuf,
    #[command(subcommand)]
    command: Subcommands,
}

/// Where the daemon of the system listens.
const CONTROL_SOCKET: &str = "/run/pocketcard/control.sock";

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Pair a phone: show a code for it to scan, compare six digits, confirm on both sides.
    Pair(pair::Arguments),
    /// List the paired phones.
    Phones(phones::ListArguments),
    /// Delete a pairing; the phone's card leaves the reader at once.
    Forget(phones::ForgetArguments),
    /// Give a phone another name on this computer.
    Rename(phones::RenameArguments),
    /// Show the daemon, the reader's slots and the cards in them.
    Status(status::Arguments),
    /// Print what happens, show notices while a phone waits for its owner, and lock the session when it leaves.
    Watch(watch::Arguments),
    // Its own words are longer.
    Cancel(cancel::Arguments),
    // Its own words are longer.
    EndPin(end_pin::Arguments),
    /// Look for what is wrong and say what to do about it.
    Doctor(doctor::Arguments),
    /// Sign in to this computer with a phone: set it up, show it, take it back.
    Login(login::Arguments),
    /// Run a command beside a virtual phone in a private reader; a shell if no command is given.
    Dev(dev::Arguments),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder, for those who make packages.
    #[command(hide = true)]
    Man {
        /// An existing folder.
        folder: PathBuf,
    },
    /// Wait until a card is in a reader or has left it.
    #[command(hide = true)]
    WaitCard(wait_card::Arguments),
}

fn main() -> ExitCode {
    let Arguments { control, command } = Arguments::parse();
    let socket = control.clone();
    let connect = move || connect(&socket);
    let result = match command {
        Subcommands::Pair(arguments) => pair::run(&arguments, &mut terminal::Terminal, connect),
        Subcommands::Phones(arguments) => phones::list(&arguments, connect),
        Subcommands::Forget(arguments) => phones::forget(&arguments, connect),
        Subcommands::Rename(arguments) => phones::rename(&arguments, connect),
        Subcommands::Status(arguments) => status::run(&arguments, connect),
        Subcommands::Watch(arguments) => watch::run(&arguments, connect),
        Subcommands::Cancel(arguments) => cancel::run(arguments, connect),
        Subcommands::EndPin(arguments) => end_pin::run(&arguments, connect),
        Subcommands::Doctor(arguments) => doctor::run(&arguments, &control),
        Subcommands::Login(arguments) => login::run(&arguments, connect),
        Subcommands::Dev(arguments) => dev::run(&arguments),
        Subcommands::Completions { shell } => completions(shell),
        Subcommands::Man { folder } => man(&folder),
        Subcommands::WaitCard(arguments) => wait_card::run(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            terminal::complain(&failure);
            failure.code().into()
        }
    }
}

/// A connection to the daemon.
fn connect(control: &std::path::Path) -> Result<Client, Failure> {
    Ok(Client::connect(control, concat!("pocketcard ", env!("CARGO_PKG_VERSION")), Limits::default())?)
}

fn completions(shell: clap_complete::Shell) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "pocketcard", &mut script);
    terminal::print(&String::from_utf8_lossy(&script));
    Ok(ExitCode::SUCCESS)
}

/// One page for the program and one for each of its commands.
fn man(folder: &std::path::Path) -> Result<ExitCode, Failure> {
    let failed = |source| Failure::System { what: "writing the manual pages", source };
    clap_mangen::generate_to(Arguments::command(), folder).map_err(failed)?;
    for page in std::fs::read_dir(folder).map_err(failed)?.flatten() {
        let text = std::fs::read_to_string(page.path()).map_err(failed)?;
        std::fs::write(page.path(), with_columns(&text)).map_err(failed)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What stands below the options in `--help` has columns of its own: it is not to be filled.
fn with_columns(page: &str) -> String {
    let Some((before, rest)) = page.split_once(".SH EXTRA\n") else { return page.to_owned() };
    let (notes, after) = rest.split_once("\n.SH ").unwrap_or((rest, ""));
    format!("{before}.SH NOTES\n.nf\n{notes}\n.fi\n.SH {after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_manual_page() {
        let folder = tempfile::tempdir().unwrap();
        man(folder.path()).unwrap();
        let program = Arguments::command();
        let mut names = vec!["pocketcard".to_owned()];
        let shown = |command: &&clap::Command| !command.is_hide_set();
        for command in program.get_subcommands().filter(shown) {
            let name = format!("pocketcard-{}", command.get_name());
            let below = command.get_subcommands().filter(shown);
            names.extend(below.map(|below| format!("{name}-{}", below.get_name())));
            names.push(name);
        }
        assert!(names.contains(&"pocketcard-login-setup".to_owned()), "{names:?}");
        for name in names {
            let page = std::fs::read_to_string(folder.path().join(format!("{name}.1"))).unwrap();
            assert!(page.contains(".TH pocketcard") && !page.contains(".SH EXTRA"), "{name}: {page}");
        }
        assert!(!folder.path().join("pocketcard-wait-card.1").exists(), "hidden commands stay hidden");
    }

    #[test]
    fn columns_fit_a_terminal() {
        for text in [failure::EXIT_CODES, status::JSON_HELP] {
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
