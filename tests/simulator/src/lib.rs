//! Bluetooth LE between our real host and our real phone, on a virtual clock: what a flow costs on the air, and what
//! the two ends do when the air is bad or belongs to somebody else.
//!
//! Nothing sleeps and nothing is random but by its seed. On the host [`pocketcard_front::Front`], on the phone the
//! runtime of [`pocketcard_phone`], between them [`pocketcard_protocol`]'s links and fragments: the code that ships.
//! Simulated are the [`radio`], the systems' GATT ends, and the platform of the phone ([`keys`]).
//!
//! - [`World`]: hosts, phones, the pairs between them, time; [`Interceptor`]: whoever owns the air.
//! - [`recording`]: what real programs send. [`relay`]: what the same costs without this project.
#![allow(clippy::panic, clippy::expect_used)] // a simulation that cannot go on ends its test

mod clock;
mod host;
pub mod keys;
mod people;
mod phone;
pub mod radio;
mod random;
pub mod recording;
pub mod relay;
mod traffic;
mod world;

pub use host::PairingView;
pub use people::{Decision, PairingResult};
pub use phone::{PhoneSetup, SimulatedPhone};
pub use random::{Random, for_seeds, repeats};
pub use traffic::Traffic;
pub use world::{Cut, Forger, HostNumber, Interceptor, Passing, PhoneNumber, SlotNumber, World};
