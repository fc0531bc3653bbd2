//! Write a driver for PC/SC smart card readers in safe Rust.
//!
//! pcscd (pcsc-lite) and Apple's SmartCardServices load *IFD handlers*: shared libraries with a dozen C functions, version
//! 3 of the "IFD handler API". This crate turns that API into one trait, [`Reader`], and one macro,
//! [`export_ifd_handler!`]:
//!
//! ```
//! use ifd_handler::{Atr, Device, Error, Insertion, Lun, Notifier, PowerAction, Presence, Reader, ResponseBuffer};
//!
//! struct Echo;
//!
//! impl Reader for Echo {
//!     fn open(_: Lun, _: Device<'_>, _: Notifier) -> Result<Self, Error> {
//!         Ok(Self)
//!     }
//!     fn presence(&self) -> Presence {
//!         Presence::Present(Insertion::default())
//!     }
//!     fn power(&self, _: Insertion, _: PowerAction) -> Result<Atr, Error> {
//!         Atr::new(&[0x3B, 0x80, 0x01, 0x81]).ok_or(Error::Communication)
//!     }
//!     fn power_down(&self) {}
//!     fn transmit(&self, _: Insertion, command: &[u8], response: &mut ResponseBuffer<'_>) -> Result<(), Error> {
//!         response.write(command)?;
//!         response.write(&[0x90, 0x00])
//!     }
//! }
//!
//! ifd_handler::export_ifd_handler!(Echo);
//! ```
//!
//! What pcscd expects of a driver is written down nowhere in one place. It is here: on [`Reader`] and its methods, on
//! [`Error`] (why there is no "no such device"), on [`Insertion`] (cards that come back), in [`abi`] (each C function).
//! [`part10`] reads and writes the structures of PC/SC part 10 (PIN pads, properties).
//!
//! The crate has no dependencies. It is the place for `unsafe`; drivers need none.
#![cfg(unix)]

/// The README is compiled as well.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod abi;
mod error;
mod export;
mod hold;
pub mod part10;
mod presence;
mod reader;
mod response;
mod slot;
pub mod types;
mod wait;

pub use error::Error;
pub use reader::{Atr, ControlCode, Device, Insertion, Lun, PowerAction, Presence, Protocol, Reader};
pub use response::ResponseBuffer;
pub use slot::Table;
pub use wait::{Notifier, Waiter, Woken};
