//! Compiles the messages of `proto/v1` without a `protoc` on the machine.

use std::error::Error;

/// Messages that carry APDUs, tokens or secrets: `messages/redacted.rs` writes their `Debug` by hand.
const REDACTED: [&str; 6] = [
    ".pocketcard.v1.Open",
    ".pocketcard.v1.Opened",
    ".pocketcard.v1.Transmit",
    ".pocketcard.v1.Response",
    ".pocketcard.v1.PairOpen",
    ".pocketcard.v1.PairSecret",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    // Set by `cargo fuzz`.
    println!("cargo::rustc-check-cfg=cfg(fuzzing)");
    let descriptors = protox::compile(["proto/v1/pocketcard.proto"], ["proto"])?;
    prost_build::Config::new().skip_debug(REDACTED).compile_fds(descriptors)?;
    Ok(())
}
