//! The environment's own pocketcardd.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pocketcard_ipc::control::{Client, ClientError, Event, Limits, Reply};

use crate::DevError;
use crate::folder::{Folder, write_atomically};
use crate::process::{Process, Spec};

/// How long the daemon may take until its sockets listen.
const READY_LIMIT: Duration = Duration::from_secs(10);

/// The daemon, with handles to kill and restart it.
#[derive(Debug)]
pub struct Daemon {
    process: Option<Process>,
    program: PathBuf,
    config: PathBuf,
    control_socket: PathBuf,
    driver_socket: PathBuf,
    log: PathBuf,
    level: String,
}

impl Daemon {
    /// Writes the configuration and starts the daemon.
    ///
    /// - `links`: where the phones listen, in the form `unix:/path`.
    /// - `dev`: whether it is a private one, that lets in its own user alone.
    pub(crate) fn start(
        folder: &Folder,
        program: &Path,
        slots: u32,
        links: &[String],
        level: &str,
        more: &str,
        dev: bool,
    ) -> Result<Self, DevError> {
        let config = folder.join("pocketcardd.toml");
        let driver_socket = folder.join("driver.sock");
        let control_socket = folder.join("control.sock");
        let text = configuration(&folder.join("daemon"), &driver_socket, &control_socket, slots, links, more, dev);
        write_atomically(&config, &text, 0o600)?;
        let mut daemon = Self {
            process: None,
            program: program.to_path_buf(),
            config,
            control_socket,
            driver_socket,
            log: folder.log("pocketcardd"),
            level: level.to_owned(),
        };
        daemon.restart()?;
        Ok(daemon)
    }

    /// Starts the daemon (again) and returns when its sockets listen. One that still runs is killed first.
    ///
    /// # Errors
    /// [`DevError::ChildEnded`] with its last words, [`DevError::TimedOut`] after 10 s.
    pub fn restart(&mut self) -> Result<(), DevError> {
        self.kill();
        let mut process = Process::start(Spec {
            name: "pocketcardd".to_owned(),
            program: &self.program,
            arguments: vec!["--config".into(), self.config.clone().into(), "--foreground".into()],
            environment: vec![("RUST_LOG", self.level.clone().into())],
            log: self.log.clone(),
            talks: true,
        })?;
        let line = process.line("saying that it is ready", READY_LIMIT)?;
        if line != "ready" {
            let what = "saying that it is ready";
            return Err(DevError::Unexpected { process: "pocketcardd".to_owned(), what, answer: line });
        }
        self.process = Some(process);
        Ok(())
    }

    /// Kills the daemon with SIGKILL. Does nothing if it does not run.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Ends the daemon as the system does when it shuts down: SIGTERM, then SIGKILL after five seconds.
    pub fn terminate(&mut self) {
        if let Some(process) = &mut self.process {
            process.terminate();
        }
        self.kill();
    }

    /// The process, to signal it; `None` between kill and restart.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// The configuration file, for `pocketcard --config` and for tests.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The control socket's path.
    pub fn control_socket(&self) -> &Path {
        &self.control_socket
    }

    /// The driver socket's path.
    pub fn driver_socket(&self) -> &Path {
        &self.driver_socket
    }

    /// A connection to the control socket.
    ///
    /// # Errors
    /// [`DevError::Control`] if the daemon is not there.
    pub fn control(&self) -> Result<Client, DevError> {
        let software = concat!("pocketcard-dev ", env!("CARGO_PKG_VERSION"));
        Ok(Client::connect(&self.control_socket, software, Limits::default())?)
    }

    /// Returns when the daemon says that a card is (or is not) in the slot.
    ///
    /// This is the daemon's view; pcscd follows a moment later, see [`crate::Environment::wait_card`].
    ///
    /// # Errors
    /// [`DevError::TimedOut`] after `limit`, [`DevError::Control`] if the daemon goes away.
    pub fn wait_card(&mut self, slot: u32, present: bool, limit: Duration) -> Result<(), DevError> {
        let deadline = Instant::now() + limit;
        let mut client = self.control()?;
        'status: loop {
            let status = client.watch()?;
            if status.slots.iter().any(|entry| entry.slot == slot && entry.card_present == present) {
                return Ok(());
            }
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                let reply = match client.receive(Some(left)) {
                    Err(ClientError::TimedOut) => return Err(self.card_timed_out(present, limit)),
                    other => other?,
                };
                match reply {
                    Reply::Event(Event::CardPresent { slot: at }) if at == slot && present => return Ok(()),
                    Reply::Event(Event::CardAbsent { slot: at }) if at == slot && !present => return Ok(()),
                    Reply::Event(Event::Lagged {}) => {
                        client = self.control()?;
                        continue 'status;
                    }
                    _ => {}
                }
            }
        }
    }

    fn card_timed_out(&self, present: bool, limit: Duration) -> DevError {
        let what = if present { "a card arriving" } else { "the card leaving" };
        match &self.process {
            Some(process) => process.timed_out(what, limit),
            None => DevError::TimedOut { process: "pocketcardd".to_owned(), what, limit, tail: String::new() },
        }
    }
}

fn configuration(
    state: &Path,
    driver_socket: &Path,
    control_socket: &Path,
    slots: u32,
    links: &[String],
    more: &str,
    dev: bool,
) -> String {
    let quoted = |path: &Path| quote(&path.display().to_string());
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "dev = {dev}");
    let _ = writeln!(text, "state_dir = {}", quoted(state));
    let _ = writeln!(text, "driver_socket = {}", quoted(driver_socket));
    let _ = writeln!(text, "control_socket = {}", quoted(control_socket));
    let _ = writeln!(text, "reader_slots = {slots}");
    text.push_str(more);
    for link in links {
        let _ = writeln!(text, "\n[[link]]\naddress = {}", quote(link));
    }
    text
}

/// A basic string of TOML. Spec: TOML 1.0, "String".
fn quote(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_quotes_paths() {
        let links = ["unix:/t/a\"b.sock".to_owned()];
        let path = Path::new("/t/back\\slash");
        let text =
            configuration(path, Path::new("/t/d"), Path::new("/t/c"), 2, &links, "pin_entry = \"keyboard\"\n", true);
        assert_eq!(
            text,
            "dev = true\nstate_dir = \"/t/back\\\\slash\"\ndriver_socket = \"/t/d\"\ncontrol_socket = \"/t/c\"\n\
             reader_slots = 2\npin_entry = \"keyboard\"\n\n[[link]]\naddress = \"unix:/t/a\\\"b.sock\"\n"
        );
    }
}
