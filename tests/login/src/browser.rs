//! Chromium at a server that demands a certificate.

use std::fs;
use std::time::Duration;

use pocketcard_dev::{Card, TEST_PIN};

use crate::clients::{ANSWERS, SERVER_LOG, tls_server, world};
use crate::failure::{Failure, expect};
use crate::owner::{ALL_TRIES, field, pin_pad_world};
use crate::page::follow;
use crate::screen::Screen;
use crate::system;
use crate::world::{SOON, eventually, say};

/// What the server says once the browser has proved that it has the certificate's key.
const PROVED: &str = "read certificate verify";

/// What Chromium calls the window that asks for the PIN.
const PIN_WINDOW: &str = "Unlock Security Device";
/// How long that window may take on a busy machine.
const WINDOW_LIMIT: Duration = Duration::from_secs(60);
/// For that window to come once the certificate was chosen, before Enter is pressed again: it must not meet that window.
const AFTER_ENTER: Duration = Duration::from_secs(8);

/// The PIN entered on the phone: Chromium asks all the same, but what is typed goes nowhere.
pub(crate) fn chromium_phone() -> Result<(), Failure> {
    let mut world = pin_pad_world(Card::Ec)?;
    let _server = tls_server()?;
    let screen = Screen::start(":5")?;
    let _browser = follow("chromium.md", "export DISPLAY=:5;", ANSWERS)?;
    asked_for_pin(&screen)?;
    screen.type_line("zz")?;
    let question = world.enters(TEST_PIN)?;
    expect(*field(&question, "tries_left") == ALL_TRIES, || format!("what was typed cost a try: {question}"))?;
    certificate_chosen(&screen, || Ok(()))?;
    screen.window("server.example:8443")?;
    say("ok      chromium  phone  anything typed: the phone asks for the PIN, and the page is there");
    Ok(())
}

pub(crate) fn chromium() -> Result<(), Failure> {
    let mut world = world()?;
    let _server = tls_server()?;
    let screen = Screen::start(":5")?;
    let _browser = follow("chromium.md", "export DISPLAY=:5;", ANSWERS)?;
    asked_for_pin(&screen)?;
    screen.picture("chromium-1-pin")?;
    screen.type_line(TEST_PIN)?;
    certificate_chosen(&screen, || screen.picture("chromium-2-certificate"))?;
    let used = world.used("9A")?;
    say(&format!("ok      the phone signed: {used}"));
    let window = screen.window("server.example:8443")?;
    // What the server tells of the certificate is at the end.
    screen.command("xdotool", &["key", "--window", &window, "ctrl+End"])?;
    screen.settle();
    screen.picture("chromium-3-page")?;
    say("ok      chromium opened the page");
    Ok(())
}

/// Waits until Chromium asks for the PIN. With OpenSC of Debian 13, which shows certificates to whoever looks, it asks first which
/// certificate it is to be, inside its window, and nothing tells when that question is there.
fn asked_for_pin(screen: &Screen) -> Result<(), Failure> {
    let is_there = || screen.command("xdotool", &["search", "--onlyvisible", "--name", PIN_WINDOW]).is_ok();
    if system::is_debian_13() {
        screen.window("Chromium")?;
        eventually("the question for the certificate", WINDOW_LIMIT, || {
            screen.settle();
            is_there() || screen.type_line("").is_err() || eventually(PIN_WINDOW, AFTER_ENTER, is_there).is_ok()
        })?;
    }
    screen.window(PIN_WINDOW)?;
    screen.settle();
    Ok(())
}

/// The question for the certificate is drawn inside the browser's window, so nothing tells when it is there: the last picture
/// before the key that answered it shows it.
fn certificate_chosen(screen: &Screen, picture: impl Fn() -> Result<(), Failure>) -> Result<(), Failure> {
    let mut answered = Ok(());
    eventually("the server to see the proof", SOON, || {
        screen.settle();
        if fs::read_to_string(SERVER_LOG).is_ok_and(|log| log.contains(PROVED)) {
            return true;
        }
        answered = picture().and_then(|()| screen.type_line(""));
        answered.is_err()
    })?;
    answered
}
