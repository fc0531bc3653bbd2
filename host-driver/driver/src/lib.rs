//! The reader that pcscd loads: `libifd_pocketcard.so`, a thin client of the daemon `pocketcardd`.
//!
//! It has no radio, no keys, no threads and no configuration but the `DEVICENAME` of its `reader.conf`
//! ([`pocketcard_ipc::driver::DeviceName`]):
//!
//! ```text
//! FRIENDLYNAME "Pocketcard"
//! DEVICENAME   /run/pocketcard/driver.sock:4
//! LIBPATH      /usr/lib/pcsc/drivers/serial/libifd_pocketcard.so
//! ```
//!
//! Per slot it holds two connections: one for commands, on whatever thread pcscd calls, and one on which the daemon
//! pushes what is in the slot. While the daemon is away the slot is empty; when it comes back, so does the card.
#![forbid(unsafe_code)]

use std::io::Write;

mod command;
mod connection;
mod events;
#[doc(hidden)] // For the fuzz target.
pub mod pin_pad;
mod slot;

#[cfg(test)]
mod fake_daemon;

pub use slot::PhoneSlot;

/// Writes a line to pcscd's log. A log that is gone is no reason to fail: `eprintln!` would panic, and the reader would
/// stay empty.
fn log(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "pocketcard: {line}");
}

ifd_handler::export_ifd_handler!(PhoneSlot);
