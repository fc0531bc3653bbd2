//! `pocketcard phones`, `forget` and `rename`.

use std::process::ExitCode;

use pocketcard_ipc::Side;
use pocketcard_ipc::control::{Client, LinkState, Phone};

use crate::failure::Failure;
use crate::login;
use crate::refusal;
use crate::status::as_json;
use crate::terminal::print;

#[derive(Debug, clap::Args)]
pub(crate) struct ListArguments {
    /// Print JSON for programs; `pocketcard status --help` describes it.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ForgetArguments {
    /// Its name, its id, or the start of its id.
    phone: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RenameArguments {
    /// Its name, its id, or the start of its id.
    phone: String,
    /// Its new name on this computer.
    name: String,
}

pub(crate) fn list(
    arguments: &ListArguments,
    connect: impl FnOnce() -> Result<Client, Failure>,
) -> Result<ExitCode, Failure> {
    let phones = connect()?.phones()?;
    let text = if arguments.json { as_json(&phones)? } else { table(&phones) };
    print(&text);
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn forget(
    arguments: &ForgetArguments,
    connect: impl FnOnce() -> Result<Client, Failure>,
) -> Result<ExitCode, Failure> {
    let mut client = connect()?;
    let wanted = &arguments.phone;
    let known = client.phones()?.into_iter().find(|phone| phone.name == *wanted || phone.id.starts_with(&**wanted));
    client.forget(wanted)?;
    print("Forgotten. Remove this computer in the phone's list, too.\n");
    if let Some(phone) = known {
        login::after_forgetting(&phone.id)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn rename(
    arguments: &RenameArguments,
    connect: impl FnOnce() -> Result<Client, Failure>,
) -> Result<ExitCode, Failure> {
    connect()?.rename(&arguments.phone, &arguments.name)?;
    Ok(ExitCode::SUCCESS)
}

fn table(phones: &[Phone]) -> String {
    if phones.is_empty() {
        return "No phone is paired. Pair one: pocketcard pair\n".to_owned();
    }
    let mut text = String::new();
    for phone in phones {
        let id = short(&phone.id);
        text.push_str(&format!("slot {}  {id}  {}  ({})\n", phone.slot, phone.name, link(&phone.link)));
        if let Some(permissions) = &phone.permissions {
            text.push_str(&format!("        permits: {}\n", refusal::permitted(permissions)));
        }
    }
    text
}

/// The start of an id, enough to name the phone by.
pub(crate) fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// The state of a link in words.
pub(crate) fn link(state: &LinkState) -> String {
    match state {
        LinkState::Connected {} => "connected".to_owned(),
        LinkState::Connecting {} => "connecting".to_owned(),
        LinkState::Disconnected { reason: None } => "not connected".to_owned(),
        LinkState::Disconnected { reason: Some(reason) } => format!("not connected: {reason}"),
        LinkState::VersionMismatch { ours, theirs, update } => {
            let which = match update {
                Side::Ours => "Pocketcard on this computer",
                Side::Theirs => "the phone's app",
            };
            format!("version {theirs} on the phone, {ours} here: update {which}")
        }
        _ => "in a state that this program does not know; update pocketcard".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use pocketcard_ipc::control::Permissions;

    use super::*;
    use crate::fixtures;

    #[test]
    fn the_table_names_what_forget_takes() {
        let link = LinkState::VersionMismatch { ours: 1, theirs: 2, update: Side::Ours };
        let phone = Phone { slot: 1, link, ..fixtures::phone() };
        assert_eq!(
            table(&[phone]),
            "slot 1  00112233  Pixel  (version 2 on the phone, 1 here: update Pocketcard on this computer)\n"
        );
        assert!(table(&[]).contains("pocketcard pair"));
        let permissions =
            Permissions { keys: vec!["9A".to_owned()], typed_pin: true, administer: false, connect_unattended: true };
        let phone = Phone { permissions: Some(permissions), ..fixtures::phone() };
        assert_eq!(
            table(&[phone]),
            "slot 0  00112233  Pixel  (connected)\n        permits: keys 9A; PIN typed here; no administration; connects \
             unattended\n"
        );
    }
}
