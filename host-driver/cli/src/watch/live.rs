//! `pocketcard status --watch`, and what events are called.

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use pocketcard_ipc::control::{Client, Event, Reply};

use crate::failure::Failure;
use crate::phones::short;
use crate::refusal;
use crate::status::{screen, waiting};
use crate::terminal::{end_with_reader, print};

/// How many past events the screen shows.
const HISTORY: usize = 12;
/// Cursor to the top left, and everything cleared. Spec: ECMA-48, CUP and ED.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows the status after every event until the daemon goes away, nobody reads any more, or the person presses Ctrl-C.
///
/// A terminal is redrawn; anything else gets one line an event.
pub(crate) fn live_view(json: bool, connect: impl Fn() -> Result<Client, Failure>) -> Result<ExitCode, Failure> {
    end_with_reader();
    let mut events = connect()?;
    let mut status = events.watch()?;
    let redraw = io::stdout().is_terminal() && !json;
    let mut history = VecDeque::new();
    if json {
        print(&line_of_json(&Reply::Status(status.clone()))?);
    } else if !redraw {
        print(&screen(&status));
    }
    loop {
        if redraw {
            let past: String = history.iter().map(|line| format!("  {line}\n")).collect();
            print(&format!("{CLEAR}{}\n{past}\nCtrl-C to leave\n", screen(&status)));
        }
        let reply = events.receive(None)?;
        let Reply::Event(event) = &reply else { continue };
        if json {
            print(&line_of_json(&reply)?);
        } else if redraw {
            if history.len() == HISTORY {
                history.pop_front();
            }
            history.push_back(words(event));
            status = connect()?.status()?;
        } else {
            print(&format!("{}\n", words(event)));
        }
    }
}

pub(super) fn line_of_json(reply: &Reply) -> Result<String, Failure> {
    let mut line =
        serde_json::to_string(reply).map_err(|error| Failure::System { what: "writing JSON", source: error.into() })?;
    line.push('\n');
    Ok(line)
}

/// An event in words.
pub(super) fn words(event: &Event) -> String {
    match event {
        Event::PhoneConnected { name, slot, .. } => format!("slot {slot}: {name} connected"),
        Event::PhoneDisconnected { name, slot, reason, .. } => format!("slot {slot}: {name} disconnected: {reason}"),
        Event::CardPresent { slot } => format!("slot {slot}: card inserted"),
        Event::CardAbsent { slot } => format!("slot {slot}: card removed"),
        Event::Pending { slot, reason, .. } => format!("slot {slot}: waiting for {}", waiting(reason)),
        Event::PendingOver { slot } => format!("slot {slot}: the phone has answered, or was given up"),
        Event::Refused { slot, reason, key } => {
            format!("slot {slot}: refused: {}", refusal::words(*reason, key.as_deref()))
        }
        Event::PermissionsChanged { phone, permissions } => {
            format!("phone {} permits: {}", short(phone), refusal::permitted(permissions))
        }
        Event::Driver { slot, connected: true } => format!("slot {slot}: pcscd's driver is there"),
        Event::Driver { slot, connected: false } => format!("slot {slot}: pcscd's driver left"),
        Event::PhonePaired { phone } => format!("slot {}: {} paired", phone.slot, phone.name),
        Event::PhoneForgotten { .. } => "a phone was forgotten".to_owned(),
        Event::PhoneRenamed { name, .. } => format!("a phone is now called {name}"),
        Event::Stopping {} => "the daemon ends".to_owned(),
        Event::Lagged {} => "some events were lost".to_owned(),
        _ => "something that this program does not know; update pocketcard".to_owned(),
    }
}
