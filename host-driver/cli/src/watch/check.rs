//! `pocketcard watch --check`: what a watcher would do.

use std::path::Path;
use std::process::ExitCode;

use pocketcard_ipc::control::Status;

use super::session::{self, SessionError};
use super::settings::Settings;
use super::watched;
use crate::failure::Failure;
use crate::phones::short;
use crate::terminal::print;

pub(super) fn run(settings: &Settings, file: Option<&Path>, status: &Status) -> Result<ExitCode, Failure> {
    let id = watched(settings.phone.as_deref(), status)?;
    print(&words(settings, file, status, id.as_deref(), session::names));
    Ok(ExitCode::SUCCESS)
}

fn words(
    settings: &Settings,
    file: Option<&Path>,
    status: &Status,
    id: Option<&str>,
    sessions: impl FnOnce() -> Result<Vec<String>, SessionError>,
) -> String {
    let file = file.map_or_else(|| "none".to_owned(), |path| path.display().to_string());
    let slots =
        status.slots.iter().filter(|slot| slot.phone.as_ref().is_some_and(|phone| id.is_none_or(|id| id == phone.id)));
    let mut phones: Vec<String> = slots
        .filter_map(|slot| {
            let phone = slot.phone.as_ref()?;
            let card = if slot.card_present { "here" } else { "not here" };
            Some(format!("{} ({}), {card}", phone.name, short(&phone.id)))
        })
        .collect();
    if phones.is_empty() {
        phones.push("none is paired".to_owned());
    }
    let lock = settings.lock.then(|| match sessions() {
        Ok(names) => format!("lock by logind: {}", names.join(" ")),
        Err(error) => format!("lock by logind, which cannot be done: {error}"),
    });
    let run = |command: &Option<String>| command.as_ref().map(|command| format!("run {command:?}"));
    let none = || "nothing".to_owned();
    let leave: Vec<String> = lock.into_iter().chain(run(&settings.on_leave)).collect();
    let leave = if leave.is_empty() { none() } else { leave.join("; ") };
    let arrive = run(&settings.on_arrive).unwrap_or_else(none);
    let phones = phones.join("; ");
    format!("Configuration file: {file}\nPhone: {phones}\nWhen it leaves: {leave}\nWhen it comes: {arrive}\n")
}

#[cfg(test)]
mod tests {
    use pocketcard_ipc::control::SlotStatus;

    use super::*;
    use crate::fixtures;

    fn status() -> Status {
        let slot = SlotStatus { card_present: true, phone: Some(fixtures::phone()), ..fixtures::slot() };
        Status { slots: vec![slot], ..fixtures::status() }
    }

    #[test]
    fn it_says_what_is_done() {
        let settings = Settings { lock: true, on_leave: Some("i3lock -c \"00\"".to_owned()), ..Settings::default() };
        let file = Path::new("/home/alice/.config/pocketcard/watch.toml");
        let sessions = || Ok(vec!["2".to_owned(), "c3".to_owned()]);
        assert_eq!(
            words(&settings, Some(file), &status(), None, sessions),
            "Configuration file: /home/alice/.config/pocketcard/watch.toml\nPhone: Pixel (00112233), here\nWhen it leaves: \
             lock by logind: 2 c3; run \"i3lock -c \\\"00\\\"\"\nWhen it comes: nothing\n"
        );
    }

    #[test]
    fn it_says_that_nothing_is_done() {
        let said = words(&Settings::default(), None, &fixtures::status(), None, || panic!("nobody is asked"));
        assert_eq!(
            said,
            "Configuration file: none\nPhone: none is paired\nWhen it leaves: nothing\nWhen it comes: nothing\n"
        );
    }
}
