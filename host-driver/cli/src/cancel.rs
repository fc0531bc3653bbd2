//! `pocketcard cancel`.

use std::process::ExitCode;

use pocketcard_ipc::control::Client;

use crate::failure::Failure;
use crate::terminal::print;

/// Give up what a program waits for.
///
/// A PIN entry ends as one that was cancelled on a PIN pad, any other command with an error. The card is reset: what was
/// verified has to be verified again.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Name, id, or start of the id of the phone that is to be waited for no longer; not needed if there is only one.
    phone: Option<String>,
    /// The reader slot, in the place of a phone.
    #[arg(long, value_name = "N", conflicts_with = "phone")]
    slot: Option<u32>,
    /// The number that `pocketcard status` shows, in the place of both: does nothing if that one is over.
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["phone", "slot"])]
    operation: Option<u64>,
}

pub(crate) fn run(
    arguments: Arguments,
    connect: impl FnOnce() -> Result<Client, Failure>,
) -> Result<ExitCode, Failure> {
    let mut client = connect()?;
    match arguments.operation {
        Some(operation) => client.cancel_operation(operation)?,
        None => client.cancel(arguments.phone, arguments.slot)?,
    }
    print("Cancelled.\n");
    Ok(ExitCode::SUCCESS)
}
