//! The daemon of Pocketcard: `pocketcardd --config FILE`.
#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use pocketcard_daemon::config::Config;
use pocketcard_daemon::daemon::{Daemon, DaemonError, EndSignals};
use rustix::process::{Resource, Rlimit, setrlimit};

/// Keeps the links to paired phones and serves the reader driver and `pocketcard`.
#[derive(Debug, Parser)]
#[command(name = "pocketcardd", version)]
struct Arguments {
    /// The configuration file.
    #[arg(long, default_value = "/etc/pocketcard/pocketcardd.toml")]
    config: PathBuf,
    /// Stay in the foreground. It always does; the option is there for those who expect it.
    #[arg(long)]
    foreground: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // A journal is no terminal.
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .init();
    keep_secrets_in_memory();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), DaemonError> {
    let config = Config::load(&arguments.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DaemonError::Signals)?;
    runtime.block_on(async {
        let signals = EndSignals::catch()?;
        let daemon = Daemon::start(config)?;
        tracing::info!("listening");
        // For whoever started us and waits; nobody need be reading.
        let mut stdout = std::io::stdout();
        let _ = stdout.write_all(b"ready\n").and_then(|()| stdout.flush());
        daemon.until(signals).await;
        Ok(())
    })
}

/// No core dump, and no other process of this user may read our memory. Failing is no reason not to run.
fn keep_secrets_in_memory() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps stay on");
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "the process stays dumpable");
    }
}
