//! Chromium at a server that demands a certificate.

use std::fs;

use pocketcard_dev::TEST_PIN;

use crate::clients::{ANSWERS, SERVER_LOG, tls_server, world};
use crate::failure::Failure;
use crate::page::follow;
use crate::screen::Screen;
use crate::world::{SOON, eventually, say};

/// What the server says once the browser has proved that it has the certificate's key.
const PROVED: &str = "read certificate verify";

pub(crate) fn chromium() -> Result<(), Failure> {
    let mut world = world()?;
    let _server = tls_server()?;
    let screen = Screen::start(":5")?;
    let _browser = follow("chromium.md", "export DISPLAY=:5;", ANSWERS)?;
    screen.window("Unlock Security Device")?;
    screen.settle();
    screen.picture("chromium-1-pin")?;
    screen.type_line(TEST_PIN)?;
    // The next question is drawn inside the browser's window, so nothing tells when it is there: the last picture before
    // the key that answered it shows it.
    eventually("the server to see the proof", SOON, || {
        screen.settle();
        let proved = || fs::read_to_string(SERVER_LOG).is_ok_and(|log| log.contains(PROVED));
        proved() || screen.picture("chromium-2-certificate").and_then(|()| screen.type_line("")).is_err()
    })?;
    let used = world.environment.phone(0)?.wait_event("a signature by 9A", SOON, |event| {
        event["event"] == "apdu" && event["command"] == "GENERAL AUTHENTICATE" && event["status"] == "9000"
    })?;
    say(&format!("ok      the phone signed: {used}"));
    let window = screen.window("server.example:8443")?;
    // What the server tells of the certificate is at the end.
    screen.command("xdotool", &["key", "--window", &window, "ctrl+End"])?;
    screen.settle();
    screen.picture("chromium-3-page")?;
    say("ok      chromium opened the page");
    Ok(())
}
