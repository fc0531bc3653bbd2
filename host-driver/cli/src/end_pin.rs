//! `pocketcard end-pin`.

use std::process::ExitCode;

use pocketcard_ipc::control::Client;

use crate::failure::Failure;
use crate::terminal::print;

/// End what was verified: whoever uses a card next is asked for the PIN again. For screen lockers and scripts.
///
/// It concerns every phone of this computer. What a program waits for is given up, as by `pocketcard cancel`; the cards
/// stay in the reader. `pocketcard watch` does it by itself when a session locks.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments, connect: impl FnOnce() -> Result<Client, Failure>) -> Result<ExitCode, Failure> {
    connect()?.end_pin()?;
    print("Verified PINs ended.\n");
    Ok(ExitCode::SUCCESS)
}
