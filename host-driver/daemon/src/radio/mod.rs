//! Phones over Bluetooth LE: this computer is the central.
//!
//! | Module | Does |
//! |---|---|
//! | [`air`] | what the rest of the daemon asks of the radio, and what it can be told |
//! | `search` | looks for phones and connects to them |
//! | `connection` | one phone's connection, from the first read to the last fragment |
//! | `l2cap` | a channel of L2CAP in place of fragments, where both sides can |
//! | `outbox` | the sending end of a link that is carried by the radio |
//! | [`settings`] | what BlueZ's own configuration should say |
//! | `backoff` | pauses between attempts |
//! | `bluez`, `bus` | the radio of this computer, by btleplug |
//!
//! Everything but the last line works on the traits below, so that tests run it on a radio that is not there.
//!
//! Spec: protocol/SPEC.md sections 4 and 11

pub(crate) mod air;
mod backoff;
mod carried;
mod clocks;
mod connection;
mod l2cap;
mod outbox;
mod search;
pub(crate) mod settings;

#[cfg(feature = "ble")]
mod bluez;
#[cfg(feature = "ble")]
#[cfg_attr(not(target_os = "linux"), path = "bus_elsewhere.rs")]
mod bus;
#[cfg(test)]
mod tests;

use pocketcard_protocol::advertising::Identifier;
use pocketcard_protocol::l2cap::Psm;
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use air::{Air, Search};
pub(crate) use connection::Wire;
pub(crate) use outbox::RadioOutbox;
pub(crate) use search::{RadioPhone, keep};

#[cfg(feature = "ble")]
pub(crate) use bluez::Bluez;

/// Why the radio, or something on it, does not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RadioError {
    /// Nothing answers for Bluetooth on this computer.
    #[error("the Bluetooth service is away")]
    NoService,
    /// The system does not let the daemon use Bluetooth.
    #[error("the system does not let the daemon use Bluetooth")]
    NoPermission,
    /// There is no adapter, or not the one that the configuration names.
    #[error("there is no Bluetooth adapter{}", .0.as_deref().map(|name| format!(" {name}")).unwrap_or_default())]
    NoAdapter(Option<String>),
    /// The adapter is off.
    #[error("the Bluetooth adapter {0} is off")]
    PoweredOff(String),
    /// Nothing came within a limit.
    #[error("{0} took too long")]
    TimedOut(&'static str),
    /// The peer has no service of ours, or all of it is in use.
    #[error("the phone serves no more computers")]
    NoInstance,
    /// What the phone serves is not where this computer's system looks for it, by what it found some other time.
    #[error("this computer's Bluetooth does not find the phone's service where it was")]
    StaleServices,
    /// Whatever else the system says.
    #[error("{0}")]
    Failed(String),
}

/// A device that was heard just now.
#[derive(Debug, Clone)]
pub(crate) struct Sighting<A> {
    /// To connect to it.
    pub(crate) address: A,
    /// The 128-bit service UUIDs that it advertises.
    pub(crate) identifiers: Vec<Identifier>,
}

/// The radio of a computer.
pub(crate) trait Radio: Send + Sync + 'static {
    /// An adapter in service.
    type Central: Central;
    /// What that adapter hears.
    type Ears: Ears<Address = <Self::Central as Central>::Address>;

    /// Takes an adapter into service.
    fn open(&self) -> impl Future<Output = Result<(Self::Central, Self::Ears), RadioError>> + Send;

    /// Comes back when it may be worth to open again.
    fn changed(&self) -> impl Future<Output = ()> + Send;
}

/// An adapter in service. Every wait is limited by its user.
pub(crate) trait Central: Clone + Send + Sync + 'static {
    /// By which a device is connected to.
    type Address: Clone + Eq + std::hash::Hash + Send + Sync + 'static;
    /// A connected device.
    type Peer: Peer;

    /// The adapter's name.
    fn name(&self) -> String;

    /// Begins or ends listening.
    fn listen(&self, on: bool) -> impl Future<Output = Result<(), RadioError>> + Send;

    /// Connects and learns what the device serves.
    fn connect(&self, address: &Self::Address) -> impl Future<Output = Result<Self::Peer, RadioError>> + Send;

    /// Ends what an attempt to connect may have left, which failed or took too long.
    fn forget(&self, address: &Self::Address) -> impl Future<Output = ()> + Send;
}

/// What an adapter hears.
pub(crate) trait Ears: Send + 'static {
    /// As [`Central::Address`].
    type Address;

    /// The next advertisement. May be dropped and called again.
    ///
    /// # Errors
    /// The adapter is out of service.
    fn next(&mut self) -> impl Future<Output = Result<Sighting<Self::Address>, RadioError>> + Send;
}

/// What a connected device does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PeerEvent {
    /// It notified `PhoneToHost`.
    Notified(Vec<u8>),
    /// What it serves has changed: the phone's app may be gone while the connection stays.
    ServicesChanged,
    /// The connection is over.
    Gone,
}

/// A connected device with the phone's service.
pub(crate) trait Peer: Send + 'static {
    /// The bytes of a channel of L2CAP. It closes when this is dropped.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send;

    /// The ATT MTU, as far as the system tells.
    fn mtu(&self) -> usize;

    /// Instances of the service that it has.
    fn instances(&self) -> Vec<u8>;

    /// Reads `Info`, or what is at its place by now.
    fn read_info(&mut self, instance: u8) -> impl Future<Output = Result<Vec<u8>, RadioError>> + Send;

    /// Asks the phone for a channel of L2CAP. It may still be refused when this has come back.
    fn open_l2cap(&mut self, psm: Psm) -> impl Future<Output = Result<Self::Stream, RadioError>> + Send;

    /// Subscribes to `PhoneToHost`, and forgets any other instance.
    ///
    /// # Errors
    /// [`RadioError::StaleServices`] if nothing at its place can be subscribed to.
    fn subscribe(&mut self, instance: u8) -> impl Future<Output = Result<(), RadioError>> + Send;

    /// Writes one fragment without a response.
    fn write(&mut self, instance: u8, fragment: &[u8]) -> impl Future<Output = Result<(), RadioError>> + Send;

    /// The next thing that it does. May be dropped and called again.
    fn next(&mut self) -> impl Future<Output = PeerEvent> + Send;

    /// Ends the connection, and forgets what was found on it where that is not needed for other purposes.
    fn disconnect(&mut self) -> impl Future<Output = ()> + Send;
}
