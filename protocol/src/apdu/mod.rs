//! Commands and responses of a smart card, and what lies between their short and their logical form.
//!
//! [`Command`] and [`Response`] are one APDU each, exactly as sent: the class byte stays raw and an absent Le stays
//! absent. [`Chaining`] turns the short pieces that programs send into logical commands and cuts whole responses into
//! the windows they ask for; the front on the host uses it, and so does a card on NFC.
//!
//! Spec: SPEC.md section 7.2; ISO/IEC 7816-3 section 12.1; ISO/IEC 7816-4 section 5

mod chaining;
mod command;
mod response;
mod status_word;

pub use chaining::{Chaining, Step};
pub use command::{Command, Parts};
pub use response::Response;
pub use status_word::StatusWord;

/// Why bytes or fields are not an APDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApduError {
    /// A command without its four header bytes, or a response without its status word.
    #[error("an APDU ends before its fixed part is complete ({length} bytes)")]
    Truncated {
        /// Bytes that were there.
        length: usize,
    },
    /// The length fields contradict the number of bytes, or mix short and extended forms.
    #[error("the length fields of a command do not fit its {length} bytes")]
    Lengths {
        /// Bytes of the whole command.
        length: usize,
    },
    /// More data than one command or response can carry.
    #[error("{length} bytes of data are more than an APDU can carry")]
    DataTooLong {
        /// Bytes of data.
        length: usize,
    },
    /// An expected length outside of 1..=65,536.
    #[error("an expected length of {le} cannot be coded")]
    Le {
        /// The length asked for.
        le: u32,
    },
}
