//! The phone under script: events out, commands in, both as JSON lines.

use std::{collections::HashMap, io, thread};

use async_channel::{Receiver, Sender};
use pocketcard_phone::{ApprovalDecision, HostId, runtime::Phone};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{approver::Question, events, output::Output};

#[derive(Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    Scan { qr: String },
    Compare,
    Confirm { agree: bool },
    CancelPairing,
    Approve { id: u64, agree: bool },
    Hosts,
    Forget { id: String },
    Rename { id: String, name: String },
    Lock,
    Unlock,
    Quit,
}

/// Reads commands until the input ends or says `quit`.
pub(crate) async fn run(phone: &Phone, output: &Output, questions: Receiver<Question>) {
    let lines = lines();
    let mut answers: HashMap<u64, Sender<ApprovalDecision>> = HashMap::new();
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
            Ok(question) = questions.recv() => match question {
                Question::Asked { id, request, answer } => {
                    output.event(&events::approval(id, &request));
                    answers.insert(id, answer);
                }
                Question::Gone { id } => {
                    // Gone too when it was answered: then there is nothing to report.
                    if answers.remove(&id).is_some() {
                        output.event(&json!({ "event": "approval_gone", "id": id }));
                    }
                }
            },
        }
    }
}

async fn perform(
    request: Request,
    phone: &Phone,
    output: &Output,
    answers: &mut HashMap<u64, Sender<ApprovalDecision>>,
) {
    let failure: Option<String> = match request {
        Request::Scan { qr } => match phone.scan(&qr).await {
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
        Request::Approve { id, agree } => match answers.remove(&id) {
            Some(answer) => {
                let _ = answer.try_send(if agree { ApprovalDecision::Approved } else { ApprovalDecision::Denied });
                None
            }
            None => Some("no approval with this id is waiting".to_owned()),
        },
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
fn lines() -> Receiver<String> {
    let (sender, receiver) = async_channel::bounded(16);
    let read = move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if sender.send_blocking(line).is_err() {
                return;
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
