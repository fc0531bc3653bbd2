//! How fast the reader is, beside vsmartcard's virtual reader in the same pcscd.
//!
//! `cargo xtask bench` builds and runs it. It is three programs in one, so that on both sides the client and the card are
//! processes of their own: `run` starts everything and reports, `client` speaks PC/SC, `card` is the card behind vpcd.

mod card;
mod client;
mod clock;
mod conversation;
mod fixture;
mod report;
mod run;
mod samples;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use run::Failure;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Measure and report.
    Run(run::Arguments),
    /// The client of PC/SC; JSON lines in and out.
    Client,
    /// The card behind vpcd at this port; JSON lines in and out.
    Card { port: u16 },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().role {
        Role::Run(arguments) => run::run(&arguments),
        Role::Client => client::serve(),
        Role::Card { port } => card::serve(port),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(what)) => {
            eprintln!("reader-bench: {what}");
            ExitCode::FAILURE
        }
    }
}
