//! The phone under script: events out, commands in, both as JSON lines.

mod answers;

use std::{
    io::{self, BufRead},
    thread,
};

use async_channel::Receiver;
use pocketcard_phone::{HostId, OwnerDecision, runtime::Phone};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{approver::Question, events, output::Output};
use answers::Answers;

/// Length of a line that needs no more room while it is read, in bytes. No line with a secret in it is longer.
const LINE: usize = 4096;

/// A secret is borrowed from the line, which is wiped. One that is written with escapes is refused: it would have to be copied.
type Secret<'a> = &'a str;

#[derive(Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
enum Request<'a> {
    Scan {
        #[serde(borrow)]
        qr: Secret<'a>,
    },
    Compare,
    Confirm {
        agree: bool,
    },
    CancelPairing,
    Approve {
        id: u64,
        agree: bool,
    },
    EnterPin {
        id: u64,
        #[serde(borrow)]
        pin: Secret<'a>,
        #[serde(borrow)]
        new: Option<Secret<'a>>,
        #[serde(borrow)]
        repeated: Option<Secret<'a>>,
    },
    CancelPin {
        id: u64,
    },
    OwnerCheck {
        id: u64,
        result: OwnerCheckResult,
    },
    Hosts,
    Forget {
        id: String,
    },
    Rename {
        id: String,
        name: String,
    },
    Lock,
    Unlock,
    Quit,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OwnerCheckResult {
    Matched,
    NotMatched,
    Cancelled,
}

impl From<OwnerCheckResult> for OwnerDecision {
    fn from(result: OwnerCheckResult) -> Self {
        match result {
            OwnerCheckResult::Matched => Self::Matched,
            OwnerCheckResult::NotMatched => Self::NotMatched,
            OwnerCheckResult::Cancelled => Self::Cancelled,
        }
    }
}

/// Reads commands until the input ends or says `quit`.
pub(crate) async fn run(phone: &Phone, output: &Output, questions: Receiver<Question>) {
    let lines = lines();
    let mut answers = Answers::default();
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => match serde_json::from_str(&line) {
                    Ok(Request::Quit) => return,
                    Ok(request) => perform(request, phone, output, &mut answers).await,
                    // The text itself is not repeated: it may be a QR text.
                    Err(error) => refuse(output, &format!("this is no command: {}", kind(&error))),
                },
                Err(_) => return,
            },
            Ok(question) = questions.recv() => {
                if let Some(event) = answers.question(question) {
                    output.event(&event);
                }
            }
        }
    }
}

async fn perform(request: Request<'_>, phone: &Phone, output: &Output, answers: &mut Answers) {
    let failure: Option<String> = match request {
        Request::Scan { qr } => match phone.scan(qr).await {
            Ok(host) => {
                output.event(&json!({ "event": "scanned", "host": host }));
                None
            }
            Err(error) => Some(error.to_string()),
        },
        Request::Compare => phone.compare().await.err().map(|error| error.to_string()),
        Request::Confirm { agree } => phone.confirm_pairing(agree).await.err().map(|error| error.to_string()),
        Request::CancelPairing => {
            phone.cancel_pairing();
            None
        }
        Request::Approve { id, agree } => answers.approve(id, agree).err().map(str::to_owned),
        Request::EnterPin { id, pin, new, repeated } => {
            answers.enter_pin(id, pin, new, repeated).err().map(str::to_owned)
        }
        Request::CancelPin { id } => answers.cancel_pin(id).err().map(str::to_owned),
        Request::OwnerCheck { id, result } => answers.check_owner(id, result.into()).err().map(str::to_owned),
        Request::Hosts => match phone.hosts().await {
            Ok(hosts) => {
                let hosts: Vec<Value> = hosts.iter().map(events::host).collect();
                output.event(&json!({ "event": "hosts", "hosts": hosts }));
                None
            }
            Err(error) => Some(error.to_string()),
        },
        Request::Forget { id } => match HostId::from_hex(&id) {
            Some(host) => phone.forget(host).await.err().map(|error| error.to_string()),
            None => Some("an id is 64 hexadecimal digits, as in the event \"hosts\"".to_owned()),
        },
        Request::Rename { id, name } => match HostId::from_hex(&id) {
            Some(host) => phone.rename(host, &name).await.err().map(|error| error.to_string()),
            None => Some("an id is 64 hexadecimal digits, as in the event \"hosts\"".to_owned()),
        },
        Request::Lock => {
            phone.lock_card();
            None
        }
        Request::Unlock => {
            phone.unlock_card();
            None
        }
        Request::Quit => None,
    };
    if let Some(message) = failure {
        output.event(&json!({ "event": "error", "message": message }));
    }
}

fn refuse(output: &Output, message: &str) {
    let advice = "send one JSON object per line, such as {\"command\": \"hosts\"}";
    output.event(&json!({ "event": "error", "message": message, "advice": advice }));
}

/// Standard input is read by a thread, which ends with the process: a read of it cannot be given up.
fn lines() -> Receiver<Zeroizing<String>> {
    let (sender, receiver) = async_channel::bounded(16);
    let read = move || {
        let mut input = io::stdin().lock();
        loop {
            // With room enough that a line with a secret in it does not grow, which would leave a copy behind.
            let mut line = Zeroizing::new(String::with_capacity(LINE));
            match input.read_line(&mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) if sender.send_blocking(line).is_err() => return,
                Ok(_) => {}
            }
        }
    };
    // Without the thread the sender is gone and the script ends at once.
    drop(thread::Builder::new().name("input".to_owned()).spawn(read));
    receiver
}

fn kind(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Data => "unknown command or field",
        _ => "not JSON",
    }
}
