//! The phone's face in a terminal: state, hosts, questions, and every command in words. Never a PIN: what is typed is shown as
//! dots.

mod app;
mod field;
mod form;
mod prompt;
mod screen;
#[cfg(test)]
mod tests;
mod view;
mod wish;
mod words;

use std::{io, sync::Arc, thread};

use async_channel::Receiver;
use pocketcard_phone::runtime::{Phone, PhoneEvent};
use ratatui::{
    DefaultTerminal,
    crossterm::{
        event::{self, DisableBracketedPaste, EnableBracketedPaste, Event, KeyCode, KeyEvent, KeyModifiers},
        execute,
    },
};
use tokio::{sync::Mutex, task::JoinSet};
use zeroize::Zeroizing;

use crate::{approver::Question, arguments::Arguments};
use app::App;
use wish::{Outcome, Wish};

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
    show(&mut terminal, Interface::new(app, phone, questions).await).await
}

/// Gives the terminal back however the interface ends: by its owner, a signal, an error or a panic.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        let _ = execute!(io::stdout(), DisableBracketedPaste);
        let _ = ratatui::try_restore();
    }
}

async fn show(terminal: &mut DefaultTerminal, mut interface: Interface) -> io::Result<()> {
    let typed = terminal_events()?;
    loop {
        terminal.draw(|frame| view::draw(frame, &interface.app))?;
        if interface.next(&typed).await.is_none() {
            return Ok(());
        }
    }
}

/// The screen's state, and everything that changes it.
struct Interface {
    app: App,
    phone: Phone,
    happened: Receiver<PhoneEvent>,
    questions: Receiver<Question>,
    /// What the owner wants done; it ends with the interface.
    wishes: JoinSet<Outcome>,
    session: Arc<Mutex<()>>,
}

impl Interface {
    async fn new(mut app: App, phone: &Phone, questions: Receiver<Question>) -> Self {
        let happened = phone.events();
        app.set_hosts(phone.hosts().await.unwrap_or_default());
        Self { app, phone: phone.clone(), happened, questions, wishes: JoinSet::new(), session: Arc::default() }
    }

    /// Takes in the next thing that happens; `None` at the end. Nothing is lost if the future is dropped.
    async fn next(&mut self, typed: &Receiver<Event>) -> Option<()> {
        let wish = tokio::select! {
            event = self.happened.recv() => {
                self.app.happened(&event.ok()?);
                None
            }
            Ok(question) = self.questions.recv() => {
                self.app.question(question);
                None
            }
            Some(Ok(outcome)) = self.wishes.join_next() => self.app.became(outcome),
            event = typed.recv() => match event.ok()? {
                Event::Key(key) if is_quit(&self.app, key) => return None,
                Event::Key(key) => self.app.pressed(key),
                Event::Paste(text) => self.app.pasted(&Zeroizing::new(text)),
                _ => None,
            },
        };
        if let Some(wish) = wish {
            self.start(wish);
        }
        // What came in the meantime is drawn together, so that a thousand commands a second are not a thousand pictures.
        while let Ok(event) = self.happened.try_recv() {
            self.app.happened(&event);
        }
        if self.app.hosts_changed {
            self.app.set_hosts(self.phone.hosts().await.unwrap_or_default());
        }
        Some(())
    }

    fn start(&mut self, wish: Wish) {
        self.wishes.spawn(wish::perform(self.phone.clone(), wish, Arc::clone(&self.session)));
    }
}

fn is_quit(app: &App, key: KeyEvent) -> bool {
    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    control_c || app.is_at_home() && key.code == KeyCode::Char('q')
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
