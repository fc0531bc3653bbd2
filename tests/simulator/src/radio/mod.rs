//! Bluetooth LE as far as it decides what arrives, in which order and when: connection events, packets, ATT.
//!
//! The link layer loses nothing: it repeats a packet until it is acknowledged, or the connection ends at its supervision
//! time-out. It also keeps the order; what does not is the systems above it, once they spread PDUs over several bearers.
//!
//! Spec: Bluetooth Core 5.4, volume 6 part B (link layer), volume 3 parts A (L2CAP) and F (ATT)

mod att;
mod connection;
mod parameters;

pub use att::{Att, Request};
pub use connection::{Connection, Outcome};
pub use parameters::{DataLength, Parameters, Phy};
