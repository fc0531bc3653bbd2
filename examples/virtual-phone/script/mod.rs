//! The phone under script: events out, commands in, both as JSON lines.

mod answers;
mod jobs;
mod request;

use std::{
    fmt::Display,
    io::{self, BufRead},
    path::Path,
    thread,
};

use async_channel::{Receiver, Sender};
use pocketcard_phone::{HostId, enrolment::Names, runtime::Phone};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{approver::Question, enrolment as owner, events, output::Output};
use answers::Answers;
use jobs::Jobs;
use request::{Request, changed, new_keys};

/// Length of a line that needs no more room while it is read, in bytes. No line with a secret in it need be longer.
const LINE: usize = 4096;

struct Script<'a> {
    phone: &'a Phone,
    output: &'a Output,
    answers: Answers,
    jobs: Jobs,
}

/// Reads commands until the input ends or says `quit`.
///
/// - `results`: takes the events that end what takes a while, to be written after what happened until then.
pub(crate) async fn run(phone: &Phone, output: &Output, results: Sender<Value>, questions: Receiver<Question>) {
    let lines = lines();
    let mut script = Script { phone, output, answers: Answers::default(), jobs: Jobs::new(phone, results) };
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => match serde_json::from_str(&line) {
                    Ok(Request::Quit) => return,
                    Ok(request) => {
                        if let Err(message) = script.perform(request).await {
                            output.event(&events::error(&message));
                        }
                    }
                    // The text itself is not repeated: it may be a QR text or a PIN.
                    Err(error) => refuse(output, &format!("this is no command: {}", kind(&error))),
                },
                Err(_) => return,
            },
            Ok(question) = questions.recv() => {
                if let Some(event) = script.answers.question(question) {
                    output.event(&event);
                }
            }
            () = script.jobs.next_ended() => {}
        }
    }
}

impl Script<'_> {
    async fn perform(&mut self, request: Request<'_>) -> Result<(), String> {
        match request {
            Request::Scan { qr } => {
                let host = self.phone.scan(qr).await.map_err(text)?;
                self.output.event(&json!({ "event": "scanned", "host": host }));
            }
            Request::Compare => self.phone.compare().await.map_err(text)?,
            Request::Confirm { agree } => self.phone.confirm_pairing(agree).await.map_err(text)?,
            Request::CancelPairing => self.phone.cancel_pairing(),
            Request::Approve { id, agree } => self.answers.approve(id, agree)?,
            Request::EnterPin { id, pin, new, repeated } => self.answers.enter_pin(id, pin, new, repeated)?,
            Request::CancelPin { id } => self.answers.cancel_pin(id)?,
            Request::OwnerCheck { id, result } => self.answers.check_owner(id, result.into())?,
            Request::Hosts => {
                let hosts: Vec<Value> = self.phone.hosts().await.map_err(text)?.iter().map(events::host).collect();
                self.output.event(&json!({ "event": "hosts", "hosts": hosts }));
            }
            Request::Forget { id } => self.phone.forget(host(&id)?).await.map_err(text)?,
            Request::Rename { id, name } => self.phone.rename(host(&id)?, &name).await.map_err(text)?,
            Request::Permit { id, keys, typed_pin, administer, connect_unattended } => {
                let host = host(&id)?;
                let hosts = self.phone.hosts().await.map_err(text)?;
                let info = hosts.into_iter().find(|info| info.host == host).ok_or("no host with this id is paired")?;
                let permissions = changed(info.permissions, keys, typed_pin, administer, connect_unattended);
                self.phone.set_permissions(host, permissions).await.map_err(text)?;
            }
            Request::AllowConnection { id } => self.phone.allow_connection(host(&id)?).await.map_err(text)?,
            Request::OwnerPresent => self.phone.owner_present(),
            Request::Log => self.log().await?,
            Request::ExportLog { path } => {
                let entries = owner::export_log(self.phone, Path::new(&path)).await.map_err(text)?;
                self.output.event(&json!({ "event": "log_exported", "path": path, "entries": entries }));
            }
            Request::ChoosePin { pin, puk } => self.jobs.choose_pin(pin, puk),
            Request::ChangePin { pin, new } => self.jobs.change_pin(pin, new),
            Request::ChangePuk { puk, new } => self.jobs.change_puk(puk, new),
            Request::Enrol { pin, puk, names, keys } => {
                let names = Names::try_from(names).map_err(text)?;
                self.jobs.enrol(pin, puk, names, new_keys(keys));
            }
            Request::MakeKey { key } => self.jobs.make_key(key.into()),
            Request::RequestCertificate { pin, slot, names } => {
                let names = Names::try_from(names).map_err(text)?;
                self.jobs.request_certificate(pin, slot.0, names);
            }
            Request::ImportCertificate { slot, certificate } => self.jobs.import_certificate(slot.0, certificate),
            Request::Slots => self.jobs.slots(),
            Request::FactoryReset => self.jobs.factory_reset(),
            Request::Lock => self.phone.lock_card(),
            Request::Unlock => self.phone.unlock_card(),
            Request::Quit => {}
        }
        Ok(())
    }

    async fn log(&self) -> Result<(), String> {
        let entries = self.phone.log().await.map_err(text)?;
        for entry in &entries {
            self.output.event(&events::tagged("log_entry", events::log_entry(entry)));
        }
        self.output.event(&json!({ "event": "log_end", "entries": entries.len() }));
        Ok(())
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

fn host(id: &str) -> Result<HostId, &'static str> {
    HostId::from_hex(id).ok_or("an id is 64 hexadecimal digits, as in the event \"hosts\"")
}

fn text(error: impl Display) -> String {
    error.to_string()
}

fn kind(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Data => "unknown command or field",
        _ => "not JSON",
    }
}
