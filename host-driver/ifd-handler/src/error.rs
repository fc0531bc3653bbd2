//! What can go wrong in a reader, and the response code that says so to the resource manager.

use std::fmt;

use crate::types::{self, ResponseCode};

/// Why a call of the resource manager could not be served.
///
/// There is deliberately no variant for `IFD_NO_SUCH_DEVICE` (617). pcscd answers it with a hot-plug signal and a pause
/// of one second *on every call*, and with libudev (the default) it then rescans USB only, so a reader that was declared
/// in `reader.conf` is never removed: the reader merely becomes very slow. A reader whose device is away reports
/// [`crate::Presence::Absent`] and [`Error::CardAbsent`] until the device is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Error {
    /// There is no card, or it left during the call: `IFD_ICC_NOT_PRESENT`. The application sees `SCARD_E_NO_SMARTCARD`.
    ///
    /// This crate then reports the card absent at least once, even if it is back at once: without that pcscd would keep
    /// the reader in a state in which nothing works any more.
    CardAbsent,
    /// The device or the card did not do what was asked: `IFD_COMMUNICATION_ERROR`. The application sees
    /// `SCARD_E_NOT_TRANSACTED`.
    Communication,
    /// The card took longer than the reader waits: `IFD_RESPONSE_TIMEOUT`.
    TimedOut,
    /// The reader cannot do that: `IFD_NOT_SUPPORTED`.
    NotSupported,
    /// The card does not speak that protocol: `IFD_PROTOCOL_NOT_SUPPORTED`.
    ProtocolNotSupported,
    /// The tag of an attribute is unknown: `IFD_ERROR_TAG`. pcscd then answers the reader's names itself.
    UnknownTag,
    /// The attribute cannot be set: `IFD_ERROR_VALUE_READ_ONLY`.
    ReadOnly,
    /// The caller's buffer is too small for the answer: `IFD_ERROR_INSUFFICIENT_BUFFER`.
    ///
    /// pcscd hands this on only from a control command; from [`crate::Reader::transmit`] it becomes
    /// `SCARD_E_NOT_TRANSACTED`.
    InsufficientBuffer,
}

impl Error {
    /// The code of the IFD handler API.
    #[must_use]
    pub fn response_code(self) -> ResponseCode {
        match self {
            Self::CardAbsent => types::IFD_ICC_NOT_PRESENT,
            Self::Communication => types::IFD_COMMUNICATION_ERROR,
            Self::TimedOut => types::IFD_RESPONSE_TIMEOUT,
            Self::NotSupported => types::IFD_NOT_SUPPORTED,
            Self::ProtocolNotSupported => types::IFD_PROTOCOL_NOT_SUPPORTED,
            Self::UnknownTag => types::IFD_ERROR_TAG,
            Self::ReadOnly => types::IFD_ERROR_VALUE_READ_ONLY,
            Self::InsufficientBuffer => types::IFD_ERROR_INSUFFICIENT_BUFFER,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::CardAbsent => "there is no card in the reader",
            Self::Communication => "the reader or the card did not answer as expected",
            Self::TimedOut => "the card did not answer in time",
            Self::NotSupported => "the reader does not support this request",
            Self::ProtocolNotSupported => "the card does not support this protocol",
            Self::UnknownTag => "the attribute is unknown",
            Self::ReadOnly => "the attribute cannot be changed",
            Self::InsufficientBuffer => "the answer does not fit into the caller's buffer",
        })
    }
}

impl std::error::Error for Error {}

/// Every device error is [`Error::Communication`]; decide yourself where a broken device means that the card is gone.
impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Communication,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_response_code() {
        let table = [
            (Error::CardAbsent, 616),
            (Error::Communication, 612),
            (Error::TimedOut, 613),
            (Error::NotSupported, 614),
            (Error::ProtocolNotSupported, 607),
            (Error::UnknownTag, 600),
            (Error::ReadOnly, 602),
            (Error::InsufficientBuffer, 618),
        ];
        for (error, code) in table {
            assert_eq!(error.response_code(), code, "{error}");
        }
    }
}
