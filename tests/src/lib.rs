//! What the tests across crates share: clients of PC/SC in processes of their own, APDUs, openssl, skips with reasons.

pub mod apdu;
pub mod client;
pub mod piv;
pub mod run;

pub use client::{Client, ClientFailure};

/// Ends a test as skipped: prints the reason in the form that `cargo xtask test` collects.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        println!("SKIPPED: {}", format_args!($($reason)*));
        return;
    }};
}
