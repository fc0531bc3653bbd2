//! The interface in a terminal of memory: questions and forms alone, and the whole of it with a real phone and a computer.

mod owner;
mod questions;
mod recording;

use clap::Parser;
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent},
};

use super::{app::App, view, wish::Wish};
use crate::{arguments::Arguments, host};

fn app(enrolled: bool) -> App {
    let arguments = Arguments::parse_from(["virtual-phone", "--state", "/tmp/x", "--listen", "unix:/tmp/x/s"]);
    App::new(&arguments, "unix:/tmp/x/s", enrolled)
}

fn screen_of(app: &App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(frame, app)).unwrap();
    terminal.backend().to_string()
}

fn screen(app: &App) -> String {
    screen_of(app, 100, 24)
}

fn press(app: &mut App, key: KeyCode) -> Option<Wish> {
    app.pressed(KeyEvent::from(key))
}

fn write(app: &mut App, text: &str) {
    for character in text.chars() {
        assert!(press(app, KeyCode::Char(character)).is_none(), "{character}");
    }
}
