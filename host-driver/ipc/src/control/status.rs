use serde::{Deserialize, Serialize};

use crate::{Address, Side};

/// The daemon as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Name and version of the daemon.
    pub software: String,
    /// The daemon's static public key, in hexadecimal: what phones know this computer by.
    pub host_id: String,
    /// This computer's name, as phones show it.
    pub host_name: String,
    /// Whether this is the daemon of a private test environment.
    pub dev: bool,
    /// Whether a pairing is under way.
    pub pairing: bool,
    /// The radio; absent if the configuration has it off.
    #[serde(default)]
    pub bluetooth: Option<BluetoothStatus>,
    /// One entry a reader slot.
    pub slots: Vec<SlotStatus>,
}

/// One slot of the reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// Its number, from 0.
    pub slot: u32,
    /// Whether pcscd's driver is there for it.
    pub driver: DriverState,
    /// Whether a card is in it.
    pub card_present: bool,
    /// Whether pcscd powered the card.
    pub powered: bool,
    /// Whether the card's PIN is verified, as the phone said last.
    pub pin_verified: bool,
    /// Tries left, as the phone said last; absent while no card is present.
    pub pin_tries_left: Option<u32>,
    /// How long ago what the card says to everybody was read, in seconds; absent while every command goes to the phone.
    pub snapshot_age_s: Option<u64>,
    /// Where PINs for it are entered.
    #[serde(default)]
    pub pin_entry: PinPlace,
    /// Why the phone holds a command back, as in [`super::Event::Pending`]; absent while no program waits for its owner.
    #[serde(default)]
    pub waiting: Option<String>,
    /// Number of the command that is held back, for [`super::Request::Cancel`]; none of this daemon's had it before.
    /// Absent while no program waits for the owner.
    #[serde(default)]
    pub operation: Option<u64>,
    /// What the phone refused last, until it grants something or the PIN is blocked.
    #[serde(default)]
    pub last_refusal: Option<Refusal>,
    /// The phone that is paired into it.
    pub phone: Option<Phone>,
}

/// Where a PIN is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PinPlace {
    /// At the computer, as with any reader.
    #[default]
    Keyboard,
    /// On the phone, which makes the reader one with a PIN pad.
    Phone,
}

/// What a phone refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why.
    pub reason: RefusalReason,
    /// The key or secret that it was about, as PIV names it, in hexadecimal; absent if about none.
    pub key: Option<String>,
    /// How many seconds ago.
    pub ago_s: u64,
}

/// Why a phone refused something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RefusalReason {
    /// This computer may not use the key.
    KeyNotPermitted,
    /// A PIN that is typed on this computer is not accepted.
    TypedPinNotPermitted,
    /// This computer may not change keys, certificates or settings.
    AdministrationNotPermitted,
    /// The owner said no.
    Denied,
    /// The owner did not answer in time.
    Unanswered,
    /// The owner said no twice within a minute and is not asked again.
    TooManyDenials,
    /// No tries are left.
    PinBlocked,
    /// The last try can only be used on the phone itself.
    LastTryKept,
    /// The owner has not confirmed that this computer may connect.
    ConnectionNotConfirmed,
    /// The owner cancelled it.
    Cancelled,
    /// A reason that this program does not know.
    #[serde(other)]
    Unknown,
}

/// What the owner of a phone permits this computer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    /// The keys that it may use, as PIV names them, in hexadecimal.
    pub keys: Vec<String>,
    /// Whether a PIN that is typed on this computer is accepted.
    pub typed_pin: bool,
    /// Whether it may change keys, certificates and settings.
    pub administer: bool,
    /// Whether it may connect without a confirmation on the phone.
    pub connect_unattended: bool,
}

/// State of the driver's connections for one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriverState {
    /// pcscd is not running, has not loaded the driver, or is idle.
    Absent,
    /// It listens for cards; no program uses the reader.
    Waiting,
    /// Its command connection is open.
    Connected,
}

/// A paired phone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phone {
    /// Its static public key, in hexadecimal.
    pub id: String,
    /// Its name on this computer.
    pub name: String,
    /// Its slot, from 0.
    pub slot: u32,
    /// Where it is dialled, if it is reached by a stream.
    pub address: Option<Address>,
    /// State of its link.
    pub link: LinkState,
    /// What carries its link, while there is one.
    #[serde(default)]
    pub transport: Option<Transport>,
    /// Name and version of the phone's software, while it is connected.
    pub software: Option<String>,
    /// Name of the card, while it is connected.
    pub card_name: Option<String>,
    /// What the phone permits this computer, as it said last; absent until it has.
    #[serde(default)]
    pub permissions: Option<Permissions>,
}

/// State of the link to a phone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum LinkState {
    /// Nothing answers at its address.
    Disconnected {
        /// Why the last attempt failed, in words.
        reason: Option<String>,
    },
    /// The handshake is under way.
    Connecting {},
    /// The channel is open.
    Connected {},
    /// Phone and computer speak different versions of the link protocol.
    VersionMismatch {
        /// Newest version of this computer.
        ours: u32,
        /// Newest version of the phone.
        theirs: u32,
        /// Which side to update: [`Side::Theirs`] is the phone.
        update: Side,
    },
    /// A state that this program does not know.
    #[serde(other)]
    Unknown,
}

/// What carries the link to a phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Transport {
    /// A socket.
    Stream {},
    /// Bluetooth LE, by a channel of L2CAP.
    L2cap {},
    /// Bluetooth LE, by GATT.
    Gatt {
        /// The ATT MTU in bytes, as far as the system tells.
        mtu: u32,
    },
    /// Something that this program does not know.
    #[serde(other)]
    Unknown,
}

/// The radio of this computer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BluetoothStatus {
    /// Whether it works.
    pub state: BluetoothState,
    /// The adapter, as far as it is known.
    pub adapter: Option<String>,
    /// What is wrong, in words.
    pub message: Option<String>,
}

/// Whether the radio works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BluetoothState {
    /// Not known yet.
    Starting,
    /// It listens whenever there is a phone to look for.
    Working,
    /// The system's Bluetooth service is away.
    NoService,
    /// The system does not let the daemon use it.
    NoPermission,
    /// There is no adapter, or not the one that the configuration names.
    NoAdapter,
    /// The adapter is off.
    PoweredOff,
    /// Something else; the message says what.
    Failed,
    /// A state that this program does not know.
    #[serde(other)]
    Unknown,
}

/// One check of the daemon's own installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Short stable name of the check, for example `state-folder`.
    pub check: String,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub message: String,
    /// What to do next.
    pub advice: Option<String>,
}

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// Works, but not for long or not safely.
    Warning,
    /// Does not work.
    Error,
}
