//! The configuration file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pocketcard_ipc::Address;
use pocketcard_ipc::control::PinPlace;
use pocketcard_ipc::driver::DeviceName;
use pocketcard_protocol::messages::peer_name;
use serde::Deserialize;

/// What the daemon is told by its configuration file. Every key has a default; an unknown key is an error.
///
/// ```toml
/// state_dir = "/var/lib/pocketcard"
/// driver_socket = "/run/pocketcard/driver.sock"
/// control_socket = "/run/pocketcard/control.sock"
/// reader_slots = 4            # as in the DEVICENAME of the driver's reader.conf
/// host_name = "my laptop"     # as phones show it; the computer's name if absent
/// pin_entry = "keyboard"      # or "phone": the reader has a PIN pad, and programs ask for no PIN
///
/// [[slot]]                    # what is different in one slot
/// number = 1
/// pin_entry = "phone"
///
/// [bluetooth]                 # phones over Bluetooth LE
/// enabled = true              # false by default if `dev`
/// adapter = "hci0"            # the first one that is on if absent
/// l2cap = false               # GATT alone; true by default
///
/// [[link]]                    # phones that are reached by a stream; none by default
/// address = "tcp:127.0.0.1:7816"
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the identity and the pairs are kept; private to the daemon.
    pub state_dir: PathBuf,
    /// Where the reader driver connects.
    pub driver_socket: PathBuf,
    /// Where `pocketcard` connects.
    pub control_socket: PathBuf,
    /// Slots of the reader.
    pub reader_slots: u8,
    /// This computer's name, as phones show it.
    pub host_name: Option<String>,
    /// Where a PIN is entered.
    pub pin_entry: PinPlace,
    /// What is different in single slots.
    pub slot: Vec<SlotConfig>,
    /// A private test environment: only this process's own user is let in, by either socket.
    pub dev: bool,
    /// Whether a pairing may name an address that is not listed under `link`. By default only with `dev`.
    pub allow_connect: Option<bool>,
    /// Further users, by number, whose pcscd may connect.
    pub driver_uids: Vec<u32>,
    /// Further users, by number, who may use the control socket.
    pub control_uids: Vec<u32>,
    /// Phones over Bluetooth LE.
    pub bluetooth: BluetoothConfig,
    /// Phones that are reached by a stream. The daemon dials, the phone listens.
    pub link: Vec<StreamLink>,
}

/// The table `[bluetooth]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BluetoothConfig {
    /// Whether phones are looked for. By default they are, but not with `dev`.
    pub enabled: Option<bool>,
    /// The adapter's name; the first one that is on, by default.
    pub adapter: Option<String>,
    /// Whether channels of L2CAP are used with phones that offer them. By default they are; GATT does as well.
    pub l2cap: Option<bool>,
}

/// One entry of `[[link]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamLink {
    /// Where the phone listens.
    pub address: Address,
}

/// One entry of `[[slot]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotConfig {
    /// Which slot, from 0.
    pub number: u32,
    /// Where a PIN is entered; as everywhere, by default.
    pub pin_entry: Option<PinPlace>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}. Make it (an empty file gives the defaults), or name another with --config", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not TOML, or has a key or value that does not exist.
    #[error("{}: {source}", path.display())]
    Parse {
        /// Its path.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A path is relative.
    #[error("`{key}` must be an absolute path")]
    Relative {
        /// The key.
        key: &'static str,
    },
    /// A socket's path is too long for the system.
    #[error("`{key}` must be at most {} bytes long", Address::MAX_PATH)]
    LongPath {
        /// The key.
        key: &'static str,
    },
    /// The number of slots is out of range.
    #[error("`reader_slots` must be 1 to {}", DeviceName::MAX_SLOTS)]
    Slots,
    /// An entry of `[[slot]]` names a slot that the reader does not have.
    #[error("the slot {0} does not exist; the reader's slots are 0 to `reader_slots` less one")]
    NoSuchSlot(u32),
    /// Two entries of `[[slot]]` name the same slot.
    #[error("the slot {0} is listed twice")]
    DoubleSlot(u32),
    /// The name is empty once control characters are taken out.
    #[error("`host_name` is empty")]
    HostName,
    /// Two entries of `[[link]]` are the same.
    #[error("the link {0} is listed twice")]
    DoubleLink(Address),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/pocketcard".into(),
            driver_socket: "/run/pocketcard/driver.sock".into(),
            control_socket: "/run/pocketcard/control.sock".into(),
            reader_slots: 4,
            host_name: None,
            pin_entry: PinPlace::Keyboard,
            slot: Vec::new(),
            dev: false,
            allow_connect: None,
            driver_uids: Vec::new(),
            control_uids: Vec::new(),
            bluetooth: BluetoothConfig::default(),
            link: Vec::new(),
        }
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`], in words that say what to change.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let config: Self = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        config.check()?;
        Ok(config)
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        for (key, path, socket) in [
            ("state_dir", &self.state_dir, false),
            ("driver_socket", &self.driver_socket, true),
            ("control_socket", &self.control_socket, true),
        ] {
            if !path.is_absolute() {
                return Err(ConfigError::Relative { key });
            }
            if socket && path.as_os_str().len() > Address::MAX_PATH {
                return Err(ConfigError::LongPath { key });
            }
        }
        if self.reader_slots == 0 || self.reader_slots > DeviceName::MAX_SLOTS {
            return Err(ConfigError::Slots);
        }
        for (index, slot) in self.slot.iter().enumerate() {
            if slot.number >= u32::from(self.reader_slots) {
                return Err(ConfigError::NoSuchSlot(slot.number));
            }
            if self.slot.iter().take(index).any(|other| other.number == slot.number) {
                return Err(ConfigError::DoubleSlot(slot.number));
            }
        }
        if self.host_name.as_deref().is_some_and(|name| peer_name(name).is_empty()) {
            return Err(ConfigError::HostName);
        }
        for (index, link) in self.link.iter().enumerate() {
            if self.link.iter().take(index).any(|other| other == link) {
                return Err(ConfigError::DoubleLink(link.address.clone()));
            }
        }
        Ok(())
    }

    /// Where a PIN for a slot is entered.
    pub(crate) fn pin_place(&self, slot: u32) -> PinPlace {
        let own = self.slot.iter().find(|entry| entry.number == slot).and_then(|entry| entry.pin_entry);
        own.unwrap_or(self.pin_entry)
    }

    /// This computer's name as phones show it.
    pub(crate) fn shown_name(&self) -> String {
        let system =
            || fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| fs::read_to_string("/etc/hostname"));
        let name = match &self.host_name {
            Some(name) => peer_name(name),
            None => peer_name(system().unwrap_or_default().trim()),
        };
        if name.is_empty() { "computer".to_owned() } else { name }
    }

    /// Whether phones are looked for over Bluetooth.
    pub(crate) fn uses_bluetooth(&self) -> bool {
        cfg!(feature = "ble") && self.bluetooth.enabled.unwrap_or(!self.dev)
    }

    /// Whether a pairing may dial this address.
    pub(crate) fn allows(&self, address: &Address) -> bool {
        self.allow_connect.unwrap_or(self.dev) || self.link.iter().any(|link| link.address == *address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        fs::write(&path, text).unwrap();
        Config::load(&path).map_err(|error| error.to_string().replace(path.to_str().unwrap(), "FILE"))
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        assert_eq!(parse("").unwrap(), Config::default());
        assert!(Config::default().check().is_ok());
    }

    #[test]
    fn errors_say_what_to_change() {
        for (text, words) in [
            ("reader_slot = 4", "unknown field `reader_slot`"),
            ("reader_slots = 0", "`reader_slots` must be 1 to 16"),
            ("reader_slots = 17", "`reader_slots` must be 1 to 16"),
            ("state_dir = 'var'", "`state_dir` must be an absolute path"),
            ("[[slot]]\nnumber = 4", "slot 4 does not exist"),
            ("[[slot]]\nnumber = 1\n[[slot]]\nnumber = 1", "listed twice"),
            ("[[slot]]\npin_entry = 'phone'", "missing field `number`"),
            ("pin_entry = 'card'", "unknown variant `card`"),
            ("host_name = \"\\u0007\"", "`host_name` is empty"),
            ("[[link]]\naddress = 'tcp:192.0.2.1:1'", "must be on the loopback interface"),
            ("[[link]]\naddress = 'unix:/a'\n[[link]]\naddress = 'unix:/a'", "listed twice"),
            ("[[link]]\naddress = 'unix:/a'\nport = 1", "unknown field `port`"),
            ("driver_socket", "FILE"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        let long = format!("control_socket = '/{}'", "x".repeat(103));
        assert!(parse(&long).unwrap_err().contains("at most 103 bytes"));
        let missing = Config::load(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(missing.contains("/nonexistent") && missing.contains("--config"), "{missing}");
    }

    #[test]
    fn bluetooth_is_on_but_not_in_a_test_environment() {
        for (text, on) in [
            ("", true),
            ("dev = true", false),
            ("dev = true\n[bluetooth]\nenabled = true", true),
            ("[bluetooth]\nenabled = false", false),
            ("[bluetooth]\nadapter = 'hci1'", true),
        ] {
            assert_eq!(parse(text).unwrap().uses_bluetooth(), on && cfg!(feature = "ble"), "{text}");
        }
        assert!(parse("[bluetooth]\nadaptor = 'hci1'").unwrap_err().contains("unknown field `adaptor`"));
    }

    #[test]
    fn addresses_are_allowed_if_listed_or_if_pairing_may_name_them() {
        let listed: Address = "unix:/listed".parse().unwrap();
        let other: Address = "unix:/other".parse().unwrap();
        let mut config = parse("[[link]]\naddress = 'unix:/listed'").unwrap();
        assert!(config.allows(&listed));
        assert!(!config.allows(&other));
        config.dev = true;
        assert!(config.allows(&other));
        config.allow_connect = Some(false);
        assert!(!config.allows(&other));
    }
}
