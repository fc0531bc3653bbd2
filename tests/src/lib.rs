//! What the tests across crates share: clients of PC/SC in processes of their own, APDUs, openssl, skips with reasons.

pub mod apdu;
pub mod bus;
pub mod client;
pub mod cutter;
pub mod piv;
pub mod run;

pub use client::{Client, ClientFailure};

use pocketcard_dev::{Builder, Environment};

/// Starts an environment, or ends the test as failed with the reason.
pub fn start(builder: Builder) -> Environment {
    builder.start().unwrap_or_else(|error| client::unusable(&format!("the environment does not start: {error}")))
}

/// Ends a test as skipped: prints the reason in the form that `cargo xtask test` collects.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        println!("SKIPPED: {}", format_args!($($reason)*));
        return;
    }};
}
