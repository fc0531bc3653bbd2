//! `pocketcard wait-card` (hidden): waits by PC/SC events until a card came or left.

use std::ffi::CString;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use pcsc::{Context, PNP_NOTIFICATION, ReaderState, Scope, State};

use crate::failure::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The reader's name.
    reader: CString,
    /// What to wait for.
    wanted: Wanted,
    /// For how long, in milliseconds.
    limit_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Wanted {
    Present,
    Absent,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let deadline = Instant::now() + Duration::from_millis(arguments.limit_ms);
    let context = Context::establish(Scope::User)?;
    let mut states = [
        ReaderState::new(PNP_NOTIFICATION(), State::UNAWARE),
        ReaderState::new(arguments.reader.clone(), State::UNAWARE),
    ];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match context.get_status_change(left, &mut states) {
            // The reader may still be coming; its arrival is an event of the first entry.
            Ok(()) | Err(pcsc::Error::UnknownReader) => {}
            Err(pcsc::Error::Timeout) => return Err(Failure::NoCardChange(arguments.limit_ms)),
            Err(error) => return Err(error.into()),
        }
        let seen = states.iter().map(ReaderState::event_state).next_back().unwrap_or(State::UNKNOWN);
        let reached = match arguments.wanted {
            Wanted::Present => seen.contains(State::PRESENT) && !seen.contains(State::MUTE),
            Wanted::Absent => seen.contains(State::EMPTY),
        };
        if reached {
            return Ok(ExitCode::SUCCESS);
        }
        if left.is_zero() {
            return Err(Failure::NoCardChange(arguments.limit_ms));
        }
        states.iter_mut().for_each(ReaderState::sync_current_state);
    }
}
