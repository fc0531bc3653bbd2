//! A virtual X server, and somebody who looks at it and types.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::air;
use crate::failure::{Failure, expect};
use crate::service::Service;
use crate::world::{SOON, eventually, run, say, text};

/// Where pictures go; the xtask shares it.
const RESULTS: &str = "/opt/results";
/// How long a window may take to come, on a machine that is busy and starts a browser for the first time.
const WINDOW_LIMIT: Duration = Duration::from_secs(60);
/// How long the drawing of a window is waited for, and how many looks alike after another say that it is over.
const SETTLE_LIMIT: Duration = Duration::from_secs(2);
const STILL: u32 = 2;
/// Between two keys: some programs lose them if they come at once.
const KEY_DELAY: &str = "60";

/// A screen, by what its clients have to know.
pub(crate) struct Screen {
    display: &'static str,
    authority: Option<&'static str>,
    _server: Option<Service>,
}

impl Screen {
    /// Starts a screen that every user here may use.
    pub(crate) fn start(display: &'static str) -> Result<Self, Failure> {
        let arguments = [display, "-ac", "-screen", "0", "1024x768x24", "-nolisten", "tcp", "-noreset"];
        let screen = Self { display, authority: None, _server: Some(Service::start("Xvfb", &arguments)?) };
        eventually("Xvfb", SOON, || screen.command("xdotool", &["getdisplaygeometry"]).is_ok())?;
        Ok(screen)
    }

    /// A screen that somebody else has started.
    pub(crate) fn of(display: &'static str, authority: &'static str) -> Self {
        Self { display, authority: Some(authority), _server: None }
    }

    /// Runs a program that looks at the screen.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Result<String, Failure> {
        let mut command = Command::new(program);
        command.args(arguments).env("DISPLAY", self.display);
        if let Some(authority) = self.authority {
            command.env("XAUTHORITY", authority);
        }
        let output = run(&mut command, "")?;
        expect(output.status.success(), || format!("{program}: {}", text(&output)))?;
        Ok(text(&output))
    }

    /// Waits for a window with this in its name, and gives it the focus.
    pub(crate) fn window(&self, name: &str) -> Result<String, Failure> {
        let mut found = String::new();
        let search = || self.command("xdotool", &["search", "--onlyvisible", "--name", name]);
        eventually(name, WINDOW_LIMIT, || {
            found = search().unwrap_or_default().lines().last().unwrap_or_default().to_owned();
            !found.is_empty()
        })
        .inspect_err(|_| {
            let _ = self.picture("failed");
        })?;
        let _ = self.command("xdotool", &["windowfocus", "--sync", &found]);
        Ok(found)
    }

    /// Types text, then Enter.
    pub(crate) fn type_line(&self, line: &str) -> Result<(), Failure> {
        if !line.is_empty() {
            self.command("xdotool", &["type", "--delay", KEY_DELAY, line])?;
        }
        self.command("xdotool", &["key", "Return"]).map(|_| ())
    }

    /// Takes a picture for the docs.
    pub(crate) fn picture(&self, name: &str) -> Result<(), Failure> {
        let name = air::picture_name(name);
        let path = Path::new(RESULTS).join(format!("{name}.png"));
        let shown = path.display().to_string();
        self.command("import", &["-window", "root", "-strip", &shown])?;
        say(&format!("picture {name}.png"));
        Ok(())
    }

    /// What is to be seen, for comparison.
    pub(crate) fn look(&self) -> String {
        self.command("sh", &["-c", "import -window root rgb:- | md5sum"]).unwrap_or_default()
    }

    /// Waits until something else is to be seen, and programs have finished drawing it.
    pub(crate) fn changes(&self, before: &str) -> Result<(), Failure> {
        eventually("something new on the screen", SOON, || self.look() != before)?;
        self.settle();
        Ok(())
    }

    /// Lets programs finish drawing, so that a picture shows what a person would see. A cursor may blink, and a page
    /// turn its wheel, for ever: then the picture is taken all the same.
    pub(crate) fn settle(&self) {
        let (mut before, mut still) = (String::new(), 0);
        let _ = eventually("a screen that stands still", SETTLE_LIMIT, || {
            let now = self.look();
            still = if now == before { still + 1 } else { 0 };
            before = now;
            still == STILL
        });
    }
}
