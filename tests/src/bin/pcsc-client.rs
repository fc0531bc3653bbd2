//! A client of PC/SC under remote control: one process per client, so that a test can kill it.
//!
//! Reads one command a line, answers with one line of JSON: `{"data":"9000","micros":120}` or
//! `{"error":"ResetCard","micros":80}`. libpcsclite keeps the socket's path for the life of a process, which is the other
//! reason why tests do not speak PC/SC themselves.
//!
//! ```text
//! connect READER shared|exclusive     begin               transmit HEX
//! disconnect DISPOSITION              end DISPOSITION     reconnect shared DISPOSITION
//! control CODE HEX
//! readers     status                  counter READER      wait READER present|absent MS
//! ```
//! DISPOSITION is leave, reset, unpower or eject.

use std::ffi::CString;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use pcsc::{
    Card, Context, Disposition, Error, MAX_BUFFER_SIZE_EXTENDED, Protocols, ReaderState, Scope, ShareMode, State,
};
use serde_json::{Value, json};

fn main() {
    let mut client = Client { context: None, card: None };
    let mut lines = io::stdin().lines().map_while(Result::ok);
    let mut next = None;
    while let Some(line) = next.take().or_else(|| lines.next()) {
        if line == "begin" {
            next = client.transaction(&mut lines);
            continue;
        }
        let started = Instant::now();
        let words: Vec<&str> = line.split('\t').collect();
        answer(started, client.run(&words));
    }
}

/// Prints one answer with how long it took.
fn answer(started: Instant, result: Result<Value, Failure>) {
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    let answer = match result {
        Ok(data) => json!({ "data": data, "micros": micros }),
        Err(Failure::Pcsc(error)) => json!({ "error": format!("{error:?}"), "micros": micros }),
        Err(Failure::Command) => json!({ "error": "BadCommand" }),
    };
    // A test that went away wants no answer.
    let _ = writeln!(io::stdout().lock(), "{answer}");
}

struct Client {
    context: Option<Context>,
    card: Option<Card>,
}

enum Failure {
    Pcsc(Error),
    Command,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Pcsc(error)
    }
}

impl Client {
    /// Runs the commands of one transaction, and returns the first one that does not belong to it.
    fn transaction(&mut self, lines: &mut impl Iterator<Item = String>) -> Option<String> {
        let started = Instant::now();
        let card = match self.card() {
            Ok(card) => card,
            Err(failure) => {
                answer(started, Err(failure));
                return None;
            }
        };
        let transaction = match card.transaction() {
            Ok(transaction) => transaction,
            Err(error) => {
                answer(started, Err(error.into()));
                return None;
            }
        };
        answer(started, Ok(Value::Null));
        for line in lines {
            let started = Instant::now();
            match line.split('\t').collect::<Vec<_>>().as_slice() {
                ["transmit", apdu] => answer(started, transmit(&transaction, apdu)),
                ["end", disposition] => {
                    let ended = parse_disposition(disposition).and_then(|disposition| {
                        transaction.end(disposition).map_err(|(transaction, error)| {
                            // Dropping it would end it a second time.
                            std::mem::forget(transaction);
                            error.into()
                        })
                    });
                    answer(started, ended.map(|()| Value::Null));
                    return None;
                }
                _ => {
                    // It goes on in pcscd, until the handle is closed or this process dies.
                    std::mem::forget(transaction);
                    return Some(line);
                }
            }
        }
        std::mem::forget(transaction);
        None
    }

    /// Runs a command. After pcscd went away the next one begins anew, as every long-lived program has to do.
    fn run(&mut self, words: &[&str]) -> Result<Value, Failure> {
        let result = self.perform(words);
        if matches!(&result, Err(Failure::Pcsc(Error::NoService | Error::ServiceStopped | Error::CommError))) {
            self.card = None;
            self.context = None;
        }
        result
    }

    /// The context, established at the first use.
    fn context(&mut self) -> Result<&Context, Failure> {
        if self.context.is_none() {
            self.context = Some(Context::establish(Scope::User)?);
        }
        self.context.as_ref().ok_or(Failure::Command)
    }

    fn card(&mut self) -> Result<&mut Card, Failure> {
        self.card.as_mut().ok_or(Failure::Pcsc(Error::InvalidHandle))
    }

    fn perform(&mut self, words: &[&str]) -> Result<Value, Failure> {
        match words {
            ["readers"] => {
                let names = self.context()?.list_readers_owned()?;
                Ok(names.iter().map(|name| name.to_string_lossy().into_owned()).collect())
            }
            ["connect", reader, share] => {
                let reader = CString::new(*reader).map_err(|_| Failure::Command)?;
                let share = share_mode(share)?;
                // Dropping a handle resets the card, which would hide what a test looks for.
                if let Some(card) = self.card.take() {
                    let _ = card.disconnect(Disposition::LeaveCard);
                }
                self.card = Some(self.context()?.connect(&reader, share, Protocols::ANY)?);
                Ok(Value::Null)
            }
            ["reconnect", share, disposition] => {
                let (share, disposition) = (share_mode(share)?, parse_disposition(disposition)?);
                self.card()?.reconnect(share, Protocols::ANY, disposition)?;
                Ok(Value::Null)
            }
            ["disconnect", disposition] => {
                let disposition = parse_disposition(disposition)?;
                let card = self.card.take().ok_or(Failure::Pcsc(Error::InvalidHandle))?;
                card.disconnect(disposition).map_err(|(_, error)| error)?;
                Ok(Value::Null)
            }
            ["transmit", apdu] => transmit(self.card()?, apdu),
            ["control", code, input] => {
                let code = u32::from_str_radix(code, 16).map_err(|_| Failure::Command)?;
                let input = hex::decode(input).map_err(|_| Failure::Command)?;
                let mut buffer = [0; 256];
                Ok(hex::encode(self.card()?.control(pcsc::ctl_code(code.into()), &input, &mut buffer)?).into())
            }
            ["status"] => {
                let (names, atr) = self
                    .card()?
                    .status2_owned()
                    .map(|status| (status.reader_names().len(), hex::encode(status.atr())))?;
                Ok(json!({ "names": names, "atr": atr }))
            }
            ["wait", reader, wanted, limit] => {
                let wanted = if *wanted == "present" { State::PRESENT } else { State::EMPTY };
                let limit = Duration::from_millis(limit.parse().map_err(|_| Failure::Command)?);
                self.wait(reader, wanted, limit)
            }
            ["counter", reader] => self.counter(reader),
            _ => Err(Failure::Command),
        }
    }

    fn wait(&mut self, reader: &str, wanted: State, limit: Duration) -> Result<Value, Failure> {
        let deadline = Instant::now() + limit;
        let reader = CString::new(reader).map_err(|_| Failure::Command)?;
        let mut states = [ReaderState::new(reader, State::UNAWARE)];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.context()?.get_status_change(left, &mut states)?;
            for state in &mut states {
                if state.event_state().contains(wanted) {
                    return Ok(state.event_count().into());
                }
                state.sync_current_state();
            }
            if left.is_zero() {
                return Err(Failure::Pcsc(Error::Timeout));
            }
        }
    }

    /// pcscd's count of insertions and removals.
    fn counter(&mut self, reader: &str) -> Result<Value, Failure> {
        let reader = CString::new(reader).map_err(|_| Failure::Command)?;
        let mut states = [ReaderState::new(reader, State::UNAWARE)];
        self.context()?.get_status_change(Duration::from_secs(1), &mut states)?;
        Ok(states.iter().map(ReaderState::event_count).sum::<u32>().into())
    }
}

fn transmit(card: &Card, apdu: &str) -> Result<Value, Failure> {
    let command = hex::decode(apdu).map_err(|_| Failure::Command)?;
    let mut buffer = vec![0; MAX_BUFFER_SIZE_EXTENDED];
    let response = card.transmit(&command, &mut buffer)?;
    Ok(hex::encode(response).into())
}

fn share_mode(word: &str) -> Result<ShareMode, Failure> {
    match word {
        "shared" => Ok(ShareMode::Shared),
        "exclusive" => Ok(ShareMode::Exclusive),
        "direct" => Ok(ShareMode::Direct),
        _ => Err(Failure::Command),
    }
}

fn parse_disposition(word: &str) -> Result<Disposition, Failure> {
    match word {
        "leave" => Ok(Disposition::LeaveCard),
        "reset" => Ok(Disposition::ResetCard),
        "unpower" => Ok(Disposition::UnpowerCard),
        "eject" => Ok(Disposition::EjectCard),
        _ => Err(Failure::Command),
    }
}
