//! The bodies of the fuzz targets, one module each, so that a stable compiler can run the seeds through them too.
//!
//! Every `run` takes the fuzzer's bytes and panics if something does not hold; `README.md` says what each asserts.
//! Bytes that are no list of operations are read as far as they go: every input is a valid one.

#![warn(missing_docs)]

pub mod apdu;
pub mod card;
pub mod control_messages;
pub mod driver_messages;
pub mod envelope;
pub mod fragment;
pub mod front;
mod input;
pub mod link;
pub mod pin_entry;
pub mod qr_text;
pub mod stream;
pub mod tlv;

pub use input::Input;

/// A target's name and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target, as `cargo fuzz list` names it.
pub const TARGETS: &[Target] = &[
    ("apdu", apdu::run),
    ("card", card::run),
    ("control_messages", control_messages::run),
    ("driver_messages", driver_messages::run),
    ("envelope", envelope::run),
    ("fragment", fragment::run),
    ("front", front::run),
    ("link", link::run),
    ("pin_entry", pin_entry::run),
    ("qr_text", qr_text::run),
    ("stream", stream::run),
    ("tlv", tlv::run),
];
