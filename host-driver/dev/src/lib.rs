//! A PC/SC reader with a phone in it, for the length of a test: no hardware, no root, nothing left behind.
//!
//! [`Environment`] starts a virtual phone, a daemon and a private pcscd in a folder of their own, pairs them, and takes
//! everything down when it is dropped, and also when its process is killed. It never disturbs a pcscd that already
//! runs: pcscd gets a mount namespace of its own, and clients find it by `PCSCLITE_CSOCK_NAME`.
//!
//! ```no_run
//! use pocketcard_dev::{Card, Environment};
//!
//! let environment = Environment::builder().card(Card::Ec).start()?;
//! let status = environment.command("opensc-tool").arg("--list-readers").status()?;
//! assert!(status.success());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Linux only: it needs pcscd, and unshare and setpriv of util-linux.

mod daemon;
mod environment;
mod error;
mod folder;
mod lines;
mod pairing;
mod pcscd;
mod phone;
mod process;
mod tools;

pub use daemon::Daemon;
pub use environment::{AIR_CARD_LIMIT, Builder, CARD_LIMIT, Environment};
pub use error::DevError;
pub use pcscd::{Pcscd, READER};
pub use phone::Phone;
pub use process::Process;
pub use tools::find_program;

/// What a test card holds at the start. All have the well-known PIN, PUK and management key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Card {
    /// No keys: for tools that provision.
    #[default]
    Empty,
    /// A P-256 key and its certificate in each of 9A, 9C, 9D and 9E.
    Ec,
    /// An RSA-2048 key and its certificate in each of 9A, 9C, 9D and 9E.
    Rsa,
}

impl Card {
    /// The word for it on command lines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Ec => "ec",
            Self::Rsa => "rsa",
        }
    }
}

/// PIN of a test card.
pub const TEST_PIN: &str = "123456";
/// PUK of a test card.
pub const TEST_PUK: &str = "12345678";
/// Management key of a test card: AES-192, in hexadecimal.
pub const TEST_MANAGEMENT_KEY: &str = "010203040506070801020304050607080102030405060708";
