//! What the programs of Pocketcard say to each other on one computer.
//!
//! Two unix sockets, both served by the daemon `pocketcardd`:
//!
//! - [`driver`]: the reader driver inside pcscd asks, the daemon answers; binary, one write and one read per APDU.
//! - [`control`]: `pocketcard` and other tools ask; lines of JSON, with a blocking [`control::Client`].
//!
//! Both begin with a `Hello` that carries [`VERSION`], so that programs from different releases say which one to
//! update instead of misreading each other. Nothing here uses an async runtime: the driver runs inside pcscd.

pub mod accounts;
pub mod address;
pub mod appearance;
pub mod control;
pub mod driver;
pub mod peer;
pub mod socket;

pub use address::{Address, AddressError};

/// Version of both local protocols. Raised by every change that an older program would misread.
pub const VERSION: u16 = 2;

/// Which of two programs is the older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The one that reads this.
    Ours,
    /// The one it talks to.
    Theirs,
}

/// Two programs that speak different versions of a local protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionMismatch {
    /// Version of this program.
    pub ours: u16,
    /// Version of the other one.
    pub theirs: u16,
}

impl VersionMismatch {
    /// `Ok` if `theirs` can be understood.
    ///
    /// # Errors
    /// [`VersionMismatch`] that says which side to update.
    pub fn check(ours: u16, theirs: u16) -> Result<(), Self> {
        if ours == theirs { Ok(()) } else { Err(Self { ours, theirs }) }
    }

    /// The side that has to be updated: the older one.
    pub fn update(&self) -> Side {
        if self.ours < self.theirs { Side::Ours } else { Side::Theirs }
    }
}
