//! `pocketcardd`: finds the paired phones, keeps an encrypted link to each, and serves the reader driver and the
//! control socket.
//!
//! | Module | Does |
//! |---|---|
//! | [`config`] | the configuration file |
//! | [`store`] | this computer's identity and the pairs, on disk |
//! | [`daemon`] | starts and ends everything |
//! | `hub` | which phone belongs to which slot |
//! | `slot` | one reader slot: front, link and driver side by side |
//! | `snapshots` | what the phones say to everybody, on disk |
//! | `phone_link` | dials a phone, again and again |
//! | `driver_socket`, `control_socket`, `listener` | the two doors |
//! | `radio` | finds phones over Bluetooth LE and carries their links |
//! | `pairing` | the conversation of a pairing |
//! | `doctor` | what the daemon can see of its own installation |
//!
//! Everything runs on one thread. The way of an APDU has no hand-off: the task that reads the driver's connection
//! writes to the phone's socket, and the task that reads the phone's socket writes the answer to the driver's.
//! What blocks it is the disk alone, for one flush when a phone is paired, renamed or forgotten; snapshots are written
//! by another thread.
#![forbid(unsafe_code)]

pub mod config;
pub mod daemon;
pub mod store;

mod clock;
mod control_socket;
mod doctor;
mod driver_socket;
mod hub;
mod listener;
mod pairing;
mod pause;
mod phone_link;
#[cfg_attr(not(feature = "ble"), allow(dead_code, unused_imports, reason = "only its tests use it then"))]
mod radio;
mod random;
mod slot;
mod snapshots;
mod stream;

pub use clock::Clock;
pub use random::SystemEntropy;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Name and version of this program, for the other side's log.
pub const SOFTWARE: &str = concat!("pocketcardd ", env!("CARGO_PKG_VERSION"));

/// A lock that a panic elsewhere does not take away. Held for the time of one step, never across an await.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
