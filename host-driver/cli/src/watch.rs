//! `pocketcard status --watch`, a live view, and `pocketcard watch`, which shows notices on the desktop.

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use pocketcard_ipc::control::{Client, Event, Reply};

use crate::failure::Failure;
use crate::notices::Notices;
use crate::phones::short;
use crate::refusal;
use crate::status::{screen, waiting};
use crate::terminal::{end_with_reader, print};

/// How many past events the screen shows.
const HISTORY: usize = 12;
/// Cursor to the top left, and everything cleared. Spec: ECMA-48, CUP and ED.
const CLEAR: &str = "\x1b[H\x1b[2J";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print JSON for programs, one line per change, as `pocketcard status --watch --json` does.
    #[arg(long)]
    json: bool,
    /// Only print; show nothing on the desktop.
    #[arg(long)]
    no_notices: bool,
}

/// Prints every event and shows notices, until the daemon goes away, nobody reads any more, or the person presses Ctrl-C.
pub(crate) fn run(arguments: &Arguments, connect: impl Fn() -> Result<Client, Failure>) -> Result<ExitCode, Failure> {
    end_with_reader();
    let mut events = connect()?;
    let mut status = Some(events.watch()?);
    let mut notices = (!arguments.no_notices).then(Notices::new);
    loop {
        let reply = match status.take() {
            // What waits already is worth a notice, too.
            Some(status) => {
                for slot in &status.slots {
                    if let (Some(notices), Some(reason)) = (&mut notices, &slot.waiting) {
                        let event =
                            Event::Pending { slot: slot.slot, reason: reason.clone(), operation: slot.operation };
                        notices.event(&event, || Some(status.clone()));
                    }
                }
                Reply::Status(status)
            }
            None => events.receive(None)?,
        };
        if let (Some(notices), Reply::Event(event)) = (&mut notices, &reply) {
            notices.event(event, || connect().ok()?.status().ok());
        }
        match &reply {
            reply if arguments.json => print(&line_of_json(reply)?),
            Reply::Status(status) => print(&screen(status)),
            Reply::Event(event) => print(&format!("{}\n", words(event))),
            _ => {}
        }
    }
}

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

fn line_of_json(reply: &Reply) -> Result<String, Failure> {
    let mut line =
        serde_json::to_string(reply).map_err(|error| Failure::System { what: "writing JSON", source: error.into() })?;
    line.push('\n');
    Ok(line)
}

/// An event in words.
fn words(event: &Event) -> String {
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
        Event::Lagged {} => "some events were lost".to_owned(),
        _ => "something that this program does not know; update pocketcard".to_owned(),
    }
}
