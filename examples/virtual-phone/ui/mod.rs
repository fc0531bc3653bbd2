//! The phone's face in a terminal: state, hosts, questions, and every command in words. Never a PIN: the phone has none to show.

mod app;
mod keys;
mod view;

use std::{io, thread};

use async_channel::Receiver;
use pocketcard_phone::runtime::Phone;
use ratatui::{
    DefaultTerminal,
    crossterm::{
        event::{self, DisableBracketedPaste, EnableBracketedPaste, Event},
        execute,
    },
};
use zeroize::Zeroizing;

use crate::{approver::Question, arguments::Arguments};
use app::App;

/// Shows the phone until its owner quits.
pub(crate) async fn run(
    phone: &Phone,
    arguments: &Arguments,
    address: &str,
    enrolled: bool,
    questions: Receiver<Question>,
) -> io::Result<()> {
    // Sets a hook, too, that restores the terminal before a panic is printed.
    let mut terminal = ratatui::try_init()?;
    let _restored = Restored;
    execute!(io::stdout(), EnableBracketedPaste)?;
    let app = App::new(arguments, address, enrolled);
    show(&mut terminal, app, phone, questions).await
}

/// Gives the terminal back however the interface ends: by its owner, a signal, an error or a panic.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        let _ = execute!(io::stdout(), DisableBracketedPaste);
        let _ = ratatui::try_restore();
    }
}

async fn show(
    terminal: &mut DefaultTerminal,
    mut app: App,
    phone: &Phone,
    questions: Receiver<Question>,
) -> io::Result<()> {
    let happened = phone.events();
    let typed = terminal_events()?;
    app.set_hosts(phone.hosts().await.unwrap_or_default());
    loop {
        terminal.draw(|frame| view::draw(frame, &app))?;
        tokio::select! {
            event = happened.recv() => match event {
                Ok(event) => app.happened(&event),
                Err(_) => return Ok(()),
            },
            Ok(question) = questions.recv() => app.question(question),
            event = typed.recv() => match event {
                Ok(Event::Key(key)) if keys::is_quit(&app, key) => return Ok(()),
                Ok(Event::Key(key)) => keys::pressed(&mut app, phone, key).await,
                Ok(Event::Paste(text)) => keys::pasted(&mut app, phone, &Zeroizing::new(text)).await,
                Ok(_) => {}
                Err(_) => return Ok(()),
            },
        }
        // What came in the meantime is drawn together, so that a thousand commands a second are not a thousand pictures.
        while let Ok(event) = happened.try_recv() {
            app.happened(&event);
        }
        if app.take_hosts_changed() {
            app.set_hosts(phone.hosts().await.unwrap_or_default());
        }
    }
}

/// The terminal is read by a thread, which ends with the process.
fn terminal_events() -> io::Result<Receiver<Event>> {
    let (sender, receiver) = async_channel::bounded(64);
    thread::Builder::new().name("terminal".to_owned()).spawn(move || {
        while let Ok(event) = event::read() {
            if sender.send_blocking(event).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}
