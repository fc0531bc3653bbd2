//! The whole: phones, daemon, driver and pcscd, started, paired, and taken down again.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use pocketcard_ipc::control::{Client, ClientError, PairMethod};
use pocketcard_ipc::driver::{DeviceName, Trust};

use crate::daemon::Daemon;
use crate::folder::{Folder, write_atomically};
use crate::pairing::pair;
use crate::pcscd::{Pcscd, READER};
use crate::phone::{Phone, PhoneSpec};
use crate::process::{Process, Spec, dying_with_parent};
use crate::tools::Built;
use crate::{Card, DevError};

/// How long a paired phone may take to connect and its card to be in the reader.
pub const CARD_LIMIT: Duration = Duration::from_secs(10);
/// The same over the air, in a machine that may be an emulated one.
pub const AIR_CARD_LIMIT: Duration = Duration::from_secs(60);

/// What an [`Environment`] is to have. [`Self::start`] builds it.
#[derive(Debug, Clone)]
pub struct Builder {
    card: Option<Card>,
    slots: u32,
    phones: Option<u32>,
    keep_logs: Option<PathBuf>,
    log_level: String,
    auto_approve: bool,
    daemon_config: String,
    more_readers: String,
    bin_dir: Option<PathBuf>,
    air: Option<Air>,
    paired: bool,
    system: Option<String>,
}

/// The adapters of an environment whose phones are reached by Bluetooth.
#[derive(Debug, Clone)]
struct Air {
    host: String,
    phones: Vec<String>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            card: Some(Card::Empty),
            slots: 1,
            phones: None,
            keep_logs: None,
            log_level: "info".to_owned(),
            auto_approve: true,
            daemon_config: String::new(),
            more_readers: String::new(),
            bin_dir: None,
            air: None,
            paired: true,
            system: None,
        }
    }
}

impl Builder {
    /// What the phones' cards hold at the start.
    #[must_use]
    pub fn card(mut self, card: Card) -> Self {
        self.card = Some(card);
        self
    }

    /// Gives the phones cards of their own instead of test cards: without PIN and keys until their owner enrols them, and
    /// with an owner who is asked.
    #[must_use]
    pub fn owned(mut self) -> Self {
        (self.card, self.auto_approve) = (None, false);
        self
    }

    /// How many slots the reader has. One by default: many tools take the first or refuse several.
    #[must_use]
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots.max(1);
        self
    }

    /// How many phones are started and paired, each into its own slot. As many as slots by default.
    #[must_use]
    pub fn phones(mut self, phones: u32) -> Self {
        self.phones = Some(phones);
        self
    }

    /// Where the logs are written instead of into the environment's folder, to stay after its end.
    #[must_use]
    pub fn keep_logs(mut self, folder: impl Into<PathBuf>) -> Self {
        self.keep_logs = Some(folder.into());
        self
    }

    /// The filter of every log, in the syntax of `RUST_LOG`. `info` by default.
    #[must_use]
    pub fn log_level(mut self, level: impl Into<String>) -> Self {
        self.log_level = level.into();
        self
    }

    /// Whether the phones approve every operation by themselves. Yes by default.
    #[must_use]
    pub fn auto_approve(mut self, auto_approve: bool) -> Self {
        self.auto_approve = auto_approve;
        self
    }

    /// More lines for the daemon's configuration, such as `pin_entry = "phone"`.
    #[must_use]
    pub fn daemon_config(mut self, lines: impl Into<String>) -> Self {
        self.daemon_config = lines.into();
        self
    }

    /// More readers for pcscd, in the language of reader.conf(5).
    #[must_use]
    pub fn more_readers(mut self, configuration: impl Into<String>) -> Self {
        self.more_readers = configuration.into();
        self
    }

    /// Where the daemon, the driver, the virtual phone and `pocketcard` lie. Unless told: `POCKETCARD_BIN_DIR`, or beside
    /// the running program.
    #[must_use]
    pub fn bin_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.bin_dir = Some(folder.into());
        self
    }

    /// Lets daemon and phones meet over the air: the daemon at the adapter `host`, a phone at each of `phones`. The virtual
    /// phone has to be built with its feature `ble`, and bluetoothd has to run.
    #[must_use]
    pub fn over_the_air(mut self, host: &str, phones: &[&str]) -> Self {
        self.phones = u32::try_from(phones.len()).ok();
        self.air = Some(Air { host: host.to_owned(), phones: phones.iter().map(|&name| name.to_owned()).collect() });
        self
    }

    /// Starts the phones without pairing them, for a test that does it by itself.
    #[must_use]
    pub fn unpaired(mut self) -> Self {
        self.paired = false;
        self
    }

    /// Lets the daemon and pcscd stand as those of a system stand: each lets in whom the system's would, pcscd asks polkit if
    /// it can, and runs as this user. Only root can.
    #[must_use]
    pub fn as_system(mut self, pcscd_user: impl Into<String>) -> Self {
        self.system = Some(pcscd_user.into());
        self
    }

    /// Starts everything and returns when the cards are in the reader.
    ///
    /// # Errors
    /// Whatever did not start, with its last words. Everything that did start is ended again.
    pub fn start(mut self) -> Result<Environment, DevError> {
        let built = Built::find(self.bin_dir.as_deref())?;
        let count = self.phones.unwrap_or(self.slots);
        if count > self.slots {
            let (index, count) = (self.slots as usize, self.slots as usize);
            return Err(DevError::NoSuch { what: "slot", index, count });
        }
        let folder = Folder::create(self.keep_logs.as_deref())?;
        if self.system.is_some() {
            folder.let_through()?;
        }
        let card_limit = if self.air.is_some() { AIR_CARD_LIMIT } else { CARD_LIMIT };
        let mut adapters = Vec::new();
        if let Some(Air { host, phones }) = self.air.take() {
            self.daemon_config.push_str(&format!("[bluetooth]\nenabled = true\nadapter = \"{host}\"\n"));
            adapters = phones;
        } else if self.system.is_some() {
            // Which a system's daemon looks for unless told otherwise.
            self.daemon_config.push_str("[bluetooth]\nenabled = false\n");
        }
        let mut adapters = adapters.into_iter();
        let mut phones = Vec::new();
        for index in 0..count {
            let phone = Phone::new(PhoneSpec {
                name: format!("Test phone {}", index + 1),
                program: built.phone.clone(),
                state: folder.join(&format!("phone-{index}")),
                socket: folder.join(&format!("phone-{index}.sock")),
                adapter: adapters.next(),
                log: folder.log(&format!("phone-{index}")),
                level: self.log_level.clone(),
                card: self.card,
                auto_approve: self.auto_approve,
            });
            phones.push(phone);
        }
        let links: Vec<String> = phones.iter().filter(|phone| !phone.is_on_air()).map(Phone::address).collect();
        let dev = self.system.is_none();
        let daemon =
            Daemon::start(&folder, &built.daemon, self.slots, &links, &self.log_level, &self.daemon_config, dev)?;
        let mut environment = Environment { slots: self.slots, built, phones, pcscd: None, daemon, folder };
        for phone in &mut environment.phones {
            phone.restart()?;
        }
        let paired = if self.paired { count } else { 0 };
        for (slot, phone) in (0..paired).zip(&mut environment.phones) {
            pair(&mut environment.daemon.control()?, phone, slot, PairMethod::Qr)?;
        }
        // The cards come first: pcscd lets no client in before its first look at every reader, so whoever comes
        // first finds them there.
        for slot in 0..paired {
            environment.daemon.wait_card(slot, true, card_limit)?;
        }
        let trust = if dev { Trust::OwnUser } else { Trust::System };
        let device = device_name(environment.daemon.driver_socket(), self.slots, trust)?.to_string();
        let driver = environment.built.driver.clone();
        if !self.more_readers.is_empty() {
            write_atomically(&environment.folder.join("reader.conf.d/more"), &self.more_readers, 0o644)?;
        }
        environment.pcscd =
            Some(Pcscd::start(&environment.folder, &driver, &device, &self.log_level, self.system.as_deref())?);
        for slot in 0..paired {
            environment.wait_card(slot, true, card_limit)?;
        }
        Ok(environment)
    }
}

/// What tells the driver where the daemon is, and whom it runs as.
fn device_name(socket: &Path, slots: u32, trust: Trust) -> Result<DeviceName, DevError> {
    let count = DeviceName::MAX_SLOTS.into();
    let slots = u8::try_from(slots).map_err(|_| DevError::NoSuch { what: "slot", index: slots as usize, count })?;
    DeviceName::new(socket, slots, trust).map_err(|_| DevError::FolderName { folder: socket.to_path_buf() })
}

/// A reader with phones in it that nobody else sees. Dropping it ends every process and removes the folder.
///
/// The order of the fields is the order in which they end.
#[derive(Debug)]
pub struct Environment {
    pcscd: Option<Pcscd>,
    daemon: Daemon,
    phones: Vec<Phone>,
    built: Built,
    slots: u32,
    folder: Folder,
}

impl Environment {
    /// Describes an environment; one slot, one phone, an empty card unless told otherwise.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The environment's folder, for files that are to go away with it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder with one log per process.
    pub fn logs(&self) -> &Path {
        self.folder.logs()
    }

    /// What `PCSCLITE_CSOCK_NAME` has to be for a client of PC/SC.
    pub fn pcsc_socket(&self) -> PathBuf {
        self.folder.join("run/pcscd.comm")
    }

    /// The names of the reader's slots, as clients of PC/SC see them.
    pub fn reader_names(&self) -> Vec<String> {
        (0..self.slots).map(|slot| format!("{READER} 00 {slot:02X}")).collect()
    }

    /// A command that finds this environment's pcscd and daemon and no other.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.envs(self.variables());
        command
    }

    /// Like [`Self::command`], for a program that must not outlive this process, even if that is killed.
    ///
    /// Start it from a thread that lives as long as the program: its death counts as ours.
    ///
    /// # Errors
    /// [`DevError::ProgramMissing`] without setpriv.
    pub fn tied_command(&self, program: impl AsRef<OsStr>) -> Result<Command, DevError> {
        let mut command = dying_with_parent(Path::new(program.as_ref()))?;
        command.envs(self.variables());
        Ok(command)
    }

    /// The variables that [`Self::command`] sets.
    pub fn variables(&self) -> [(&'static str, PathBuf); 4] {
        [
            ("PCSCLITE_CSOCK_NAME", self.pcsc_socket()),
            ("POCKETCARD_CONTROL", self.daemon.control_socket().to_path_buf()),
            ("POCKETCARD_READER_CONF", self.folder.join("reader.conf.d")),
            ("POCKETCARD_DEV_FOLDER", self.folder.path().to_path_buf()),
        ]
    }

    /// One of the phones, counted from 0.
    ///
    /// # Errors
    /// [`DevError::NoSuch`].
    pub fn phone(&mut self, index: usize) -> Result<&mut Phone, DevError> {
        let count = self.phones.len();
        self.phones.get_mut(index).ok_or(DevError::NoSuch { what: "phone", index, count })
    }

    /// Lets the phones enter the PIN of their test cards whenever they are asked for it, until `ended` says so. What would
    /// change a PIN is cancelled.
    pub fn enter_pins(&mut self, ended: &AtomicBool) {
        thread::scope(|scope| {
            for phone in &mut self.phones {
                scope.spawn(|| phone.enter_pins(ended));
            }
        });
    }

    /// The daemon.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    /// The private pcscd.
    ///
    /// # Errors
    /// [`DevError::NoSuch`] while the environment is being built.
    pub fn pcscd(&mut self) -> Result<&mut Pcscd, DevError> {
        self.pcscd.as_mut().ok_or(DevError::NoSuch { what: "pcscd", index: 0, count: 0 })
    }

    /// Returns when PC/SC says that a card is (or is not) in the slot.
    ///
    /// # Errors
    /// [`DevError::TimedOut`] after `limit`; [`DevError::ChildEnded`] if PC/SC cannot be asked.
    pub fn wait_card(&self, slot: u32, present: bool, limit: Duration) -> Result<(), DevError> {
        let names = self.reader_names();
        let count = names.len();
        let index = slot as usize;
        let name = names.get(index).ok_or(DevError::NoSuch { what: "slot", index, count })?;
        let started = Instant::now();
        let mut waiter = Process::start(Spec {
            name: "waiting for the card".to_owned(),
            program: &self.built.cli,
            arguments: vec![
                "wait-card".into(),
                name.into(),
                if present { "present" } else { "absent" }.into(),
                limit.as_millis().to_string().into(),
            ],
            environment: self.variables().map(|(name, value)| (name, value.into_os_string())).into(),
            log: self.folder.log("wait-card"),
            talks: false,
        })?;
        // It keeps the limit itself; the extra second is for its start on a busy machine.
        match waiter.wait(limit + Duration::from_secs(1)) {
            Some(status) if status.success() => Ok(()),
            None => Err(waiter.timed_out("the card's coming or going", limit)),
            Some(_) if started.elapsed() >= limit => Err(waiter.timed_out("the card's coming or going", limit)),
            Some(_) => Err(waiter.ended_early()),
        }
    }

    /// Pairs phone `index` again into `slot`, for tests that made the daemon forget it.
    ///
    /// # Errors
    /// Those of a pairing; [`DevError::NoSuch`].
    pub fn pair_again(&mut self, index: usize, slot: u32) -> Result<(), DevError> {
        let mut control = self.daemon.control()?;
        pair(&mut control, self.phone(index)?, slot, PairMethod::Qr)
    }

    /// Pairs phone `index` into `slot` without its camera.
    ///
    /// # Errors
    /// Those of a pairing; [`DevError::NoSuch`].
    pub fn pair_by_digits(&mut self, index: usize, slot: u32) -> Result<(), DevError> {
        let mut control = self.daemon.control()?;
        pair(&mut control, self.phone(index)?, slot, PairMethod::Compare)
    }

    /// Pairs a phone of another environment into `slot`: a second computer for it.
    ///
    /// # Errors
    /// Those of a pairing.
    pub fn pair_guest(&mut self, phone: &mut Phone, slot: u32) -> Result<(), DevError> {
        pair(&mut self.daemon.control()?, phone, slot, PairMethod::Qr)
    }

    /// A connection to the daemon's control socket.
    ///
    /// # Errors
    /// [`DevError::Control`] if the daemon is not there.
    pub fn daemon_control(&self) -> Result<Client, DevError> {
        self.daemon.control()
    }

    /// Whether the daemon answers at its control socket.
    pub fn daemon_answers(&self) -> Result<(), ClientError> {
        match self.daemon.control() {
            Err(DevError::Control(error)) => Err(error),
            _ => Ok(()),
        }
    }
}
