//! The phone under script: events out, commands in, both as JSON lines.

mod answers;
mod command;
mod jobs;

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
use command::{Command, changed, new_keys};
use jobs::Jobs;

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
                    Ok(Command::Quit) => return,
                    Ok(command) => {
                        if let Err(message) = script.perform(command).await {
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
    async fn perform(&mut self, command: Command<'_>) -> Result<(), String> {
        match command {
            Command::Scan { qr } => {
                let host = self.phone.scan(qr).await.map_err(text)?;
                self.output.event(&json!({ "event": "scanned", "host": host }));
            }
            Command::Compare => self.phone.compare().await.map_err(text)?,
            Command::Confirm { agree } => self.phone.confirm_pairing(agree).await.map_err(text)?,
            Command::CancelPairing => self.phone.cancel_pairing(),
            Command::Approve { id, agree } => self.answers.approve(id, agree)?,
            Command::EnterPin { id, pin, new, repeated } => self.answers.enter_pin(id, pin, new, repeated)?,
            Command::CancelPin { id } => self.answers.cancel_pin(id)?,
            Command::OwnerCheck { id, result } => self.answers.check_owner(id, result.into())?,
            Command::Hosts => {
                let hosts: Vec<Value> = self.phone.hosts().await.map_err(text)?.iter().map(events::host).collect();
                self.output.event(&json!({ "event": "hosts", "hosts": hosts }));
            }
            Command::Forget { id } => self.phone.forget(host(&id)?).await.map_err(text)?,
            Command::Rename { id, name } => self.phone.rename(host(&id)?, &name).await.map_err(text)?,
            Command::Permit { id, keys, typed_pin, administer, connect_unattended } => {
                let host = host(&id)?;
                let hosts = self.phone.hosts().await.map_err(text)?;
                let info = hosts.into_iter().find(|info| info.host == host).ok_or("no host with this id is paired")?;
                let permissions = changed(info.permissions, keys, typed_pin, administer, connect_unattended);
                self.phone.set_permissions(host, permissions).await.map_err(text)?;
            }
            Command::AllowConnection { id } => self.phone.allow_connection(host(&id)?).await.map_err(text)?,
            Command::OwnerPresent => self.phone.owner_present(),
            Command::Log => self.log().await?,
            Command::ExportLog { path } => {
                let entries = owner::export_log(self.phone, Path::new(&path)).await.map_err(text)?;
                self.output.event(&json!({ "event": "log_exported", "path": path, "entries": entries }));
            }
            Command::ChoosePin { pin, puk } => self.jobs.choose_pin(pin, puk),
            Command::ChangePin { pin, new } => self.jobs.change_pin(pin, new),
            Command::ChangePuk { puk, new } => self.jobs.change_puk(puk, new),
            Command::Enrol { pin, puk, names, keys } => {
                let names = Names::try_from(names).map_err(text)?;
                self.jobs.enrol(pin, puk, names, new_keys(keys));
            }
            Command::MakeKey { key } => self.jobs.make_key(key.into()),
            Command::RequestCertificate { pin, slot, names } => {
                let names = Names::try_from(names).map_err(text)?;
                self.jobs.request_certificate(pin, slot.0, names);
            }
            Command::ImportCertificate { slot, certificate } => self.jobs.import_certificate(slot.0, certificate),
            Command::Slots => self.jobs.slots(),
            Command::FactoryReset => self.jobs.factory_reset(),
            Command::Lock => self.phone.lock_card(),
            Command::Unlock => self.phone.unlock_card(),
            Command::Quit => {}
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
