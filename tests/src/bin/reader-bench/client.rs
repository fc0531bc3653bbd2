//! The client of PC/SC, which takes the times.

use std::ffi::CString;
use std::thread;
use std::time::{Duration, Instant};

use pcsc::{Card, Context, Disposition, Protocols, ReaderState, Scope, ShareMode, State};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::clock::monotonic_us;
use crate::conversation;
use crate::fixture::{self, KNOWN, KNOWN_ANSWER, LARGE, LARGE_ANSWER, SMALL};
use crate::run::Failure;
use crate::samples::Samples;

/// How long a card may take to come or go.
pub(crate) const CHANGE_LIMIT: Duration = Duration::from_secs(10);

/// What the client is told to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// The names of all readers.
    Readers,
    /// Put the large object on this reader's card.
    Prepare(String),
    /// Exchanges with all readers, in blocks, in rotating order: [`Exchanged`] in the order of the readers.
    Exchange { readers: Vec<String>, ours: String, rounds: usize, block: usize },
    /// Connect, exchange, disconnect with a reset: one [`Samples`] for each reader.
    Reset { readers: Vec<String>, count: usize },
    /// Leave all readers alone for so long, then connect and exchange: one [`Samples`] for each reader.
    Idle { readers: Vec<String>, count: usize, idle: Duration },
    /// Wait for a card to be there, or not: answers [`Changed`] at once with what is, then at every change until it is as
    /// asked for.
    Watch { reader: String, present: bool },
}

/// The durations of one reader.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Exchanged {
    pub(crate) small: Samples,
    pub(crate) large: Samples,
    pub(crate) known: Samples,
}

/// A change that PC/SC reported.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Changed {
    pub(crate) present: bool,
    pub(crate) at_us: u64,
}

pub(crate) fn serve() -> Result<(), Failure> {
    let context = Context::establish(Scope::User)?;
    conversation::serve(|request: Request, answer| match request {
        Request::Readers => answer(json!(readers(&context)?)),
        Request::Prepare(reader) => {
            // Kept open: the verified PIN lives until the card is powered off.
            let card = connect(&context, &reader)?;
            fixture::prepare(&card)?;
            disconnect(card, Disposition::LeaveCard)?;
            answer(json!(true))
        }
        Request::Exchange { readers, ours, rounds, block } => {
            answer(json!(exchange(&context, &readers, &ours, rounds, block)?))
        }
        Request::Reset { readers, count } => {
            answer(json!(each(&context, &readers, count, Disposition::ResetCard, || ())?))
        }
        Request::Idle { readers, count, idle } => {
            // pcscd says nothing when it powers a card off.
            answer(json!(each(&context, &readers, count, Disposition::LeaveCard, || thread::sleep(idle))?))
        }
        Request::Watch { reader, present } => watch(&context, &reader, present, answer),
    })
}

fn readers(context: &Context) -> Result<Vec<String>, Failure> {
    let names = context.list_readers_owned()?;
    Ok(names.into_iter().map(|name| name.to_string_lossy().into_owned()).collect())
}

fn connect(context: &Context, reader: &str) -> Result<Card, Failure> {
    Ok(context.connect(&CString::new(reader)?, ShareMode::Shared, Protocols::ANY)?)
}

fn disconnect(card: Card, disposition: Disposition) -> Result<(), Failure> {
    card.disconnect(disposition).map_err(|(_, error)| error.into())
}

fn exchange(
    context: &Context,
    readers: &[String],
    ours: &str,
    rounds: usize,
    block: usize,
) -> Result<Vec<Exchanged>, Failure> {
    let cards = readers.iter().map(|reader| connect(context, reader)).collect::<Result<Vec<_>, _>>()?;
    for (reader, card) in readers.iter().zip(&cards) {
        if reader == ours {
            fixture::open(card)?;
        }
    }
    let mut exchanged: Vec<Exchanged> = readers.iter().map(|_| Exchanged::default()).collect();
    let mut buffer = vec![0; pcsc::MAX_BUFFER_SIZE_EXTENDED];
    for round in 0..=rounds {
        for turn in 0..cards.len() {
            let index = (round + turn) % cards.len();
            let (Some(card), Some(exchanged)) = (cards.get(index), exchanged.get_mut(index)) else { continue };
            for (command, length, samples) in [
                (SMALL.as_slice(), 2, &mut exchanged.small),
                (LARGE.as_slice(), LARGE_ANSWER, &mut exchanged.large),
                (KNOWN.as_slice(), KNOWN_ANSWER, &mut exchanged.known),
            ] {
                for _ in 0..block {
                    let started = Instant::now();
                    let answered = card.transmit(command, &mut buffer)?.len();
                    let took = started.elapsed();
                    if answered != length {
                        return Err(Failure(format!("an answer of {answered} bytes instead of {length}")));
                    }
                    // The first round warms everything up.
                    if round > 0 {
                        samples.push(took.as_secs_f64() * 1e6);
                    }
                }
            }
        }
    }
    for card in cards {
        disconnect(card, Disposition::LeaveCard)?;
    }
    Ok(exchanged)
}

/// Connects, exchanges and disconnects; times the first two, and a reset.
fn each(
    context: &Context,
    readers: &[String],
    count: usize,
    disposition: Disposition,
    mut before: impl FnMut(),
) -> Result<Vec<Samples>, Failure> {
    let mut all: Vec<Samples> = readers.iter().map(|_| Samples::default()).collect();
    let mut buffer = vec![0; pcsc::MAX_BUFFER_SIZE_EXTENDED];
    for _ in 0..count {
        before();
        for (reader, samples) in readers.iter().zip(&mut all) {
            let reader = CString::new(reader.as_str())?;
            let started = Instant::now();
            let card = context.connect(&reader, ShareMode::Shared, Protocols::ANY)?;
            let answered = card.transmit(&SMALL, &mut buffer)?.len();
            let connected = started.elapsed();
            disconnect(card, disposition)?;
            let took = if disposition == Disposition::LeaveCard { connected } else { started.elapsed() };
            if answered != 2 {
                return Err(Failure(format!("an answer of {answered} bytes instead of 2")));
            }
            samples.push(took.as_secs_f64() * 1e6);
        }
    }
    Ok(all)
}

fn watch(
    context: &Context,
    reader: &str,
    present: bool,
    answer: &mut dyn FnMut(serde_json::Value) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut states = [ReaderState::new(CString::new(reader)?, State::UNAWARE)];
    // The first call says what is.
    context.get_status_change(CHANGE_LIMIT, &mut states)?;
    let mut is = report(&mut states, answer)?;
    let deadline = Instant::now() + CHANGE_LIMIT;
    while is != present {
        context.get_status_change(deadline.saturating_duration_since(Instant::now()), &mut states)?;
        is = report(&mut states, answer)?;
    }
    Ok(())
}

fn report(
    states: &mut [ReaderState; 1],
    answer: &mut dyn FnMut(serde_json::Value) -> Result<(), Failure>,
) -> Result<bool, Failure> {
    let at_us = monotonic_us();
    let [state] = states;
    let present = state.event_state().contains(State::PRESENT);
    state.sync_current_state();
    answer(json!(Changed { present, at_us }))?;
    Ok(present)
}
