//! A D-Bus of a test's own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::client::unusable;

/// A bus, which ends with this value.
#[derive(Debug)]
pub struct Bus(Child);

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Bus {
    /// Starts a bus with its socket in a folder, and gives its address; nothing if dbus-daemon is not installed.
    pub fn start(folder: &Path) -> Option<(Self, String)> {
        let mut command = Command::new(pocketcard_dev::find_program("dbus-daemon")?);
        command.args(["--session", "--nofork", "--print-address=1", "--address"]);
        command.arg(format!("unix:path={}", folder.join("bus").display()));
        let child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn();
        let mut bus = Self(child.unwrap_or_else(|error| unusable(&format!("dbus-daemon does not start: {error}"))));
        let mut address = String::new();
        let read = bus.0.stdout.take().map(|stdout| BufReader::new(stdout).read_line(&mut address));
        if !matches!(read, Some(Ok(1..))) {
            unusable("dbus-daemon does not say where it is");
        }
        Some((bus, address.trim().to_owned()))
    }
}
