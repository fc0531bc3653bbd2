//! PC/SC part 10: what a reader with a PIN pad, or with something to say about itself, answers to `SCardControl`.
//!
//! An application asks [`GET_FEATURE_REQUEST`] and gets a list of features, each with the control code that serves it
//! ([`write_features`]). Then it sends a [`PinVerify`] or [`PinModify`] to the code of that feature, and gets the two
//! octets of the card's status word back: 6400 for a time-out, 6401 for a cancellation, 6402 if the two new PINs differ,
//! 6403 for a PIN of the wrong length, 6B80 for a structure that the reader refuses.
//!
//! Once `VERIFY_PIN_DIRECT` is announced, programs stop to ask for a PIN themselves (OpenSC sets
//! `CKF_PROTECTED_AUTHENTICATION_PATH`), so announce it only if the reader always takes PINs. Without
//! [`Property::MaxApduDataSize`] OpenSC sends short APDUs only.
//!
//! Everything here parses bytes from any local program: lengths are checked, nothing is trusted.
//!
//! Spec: PC/SC part 10, 2.02.09, sections 2.2 to 2.6; `reader.h` of pcsc-lite

mod pin;
mod properties;

use std::fmt;

pub use pin::{PinEncoding, PinFormat, PinModify, PinProperties, PinVerify};
pub use properties::{Property, parse_properties, write_properties};

use crate::error::Error;
use crate::reader::ControlCode;
use crate::response::ResponseBuffer;

/// `SCARD_CTL_CODE` of pcsc-lite.
#[must_use]
pub const fn control_code(function: u32) -> ControlCode {
    ControlCode(0x4200_0000_u32.wrapping_add(function))
}

/// `CM_IOCTL_GET_FEATURE_REQUEST`: which features there are.
pub const GET_FEATURE_REQUEST: ControlCode = control_code(3400);
/// The same as Windows spells it; it arrives through remote desktops.
pub const GET_FEATURE_REQUEST_WINDOWS: ControlCode = ControlCode(0x0031_3520);

/// The longest `abData` of a PIN structure that is accepted: an extended APDU.
pub const MAX_PIN_DATA: usize = 65_544;

/// Bytes that are no part 10 structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part10Error {
    /// Shorter than the structure or than a length in it says.
    Truncated,
    /// Longer than its own length says.
    TrailingData,
    /// A value of a length that its tag does not have.
    Length,
    /// More data than any APDU has.
    TooLong,
}

impl fmt::Display for Part10Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Truncated => "the structure is shorter than it says",
            Self::TrailingData => "the structure is longer than it says",
            Self::Length => "a value has a length that its tag does not have",
            Self::TooLong => "the structure holds more data than an APDU",
        })
    }
}

impl std::error::Error for Part10Error {}

/// The caller's bytes are wrong, not the reader: `SCARD_E_NOT_TRANSACTED`.
impl From<Part10Error> for Error {
    fn from(_: Part10Error) -> Self {
        Self::Communication
    }
}

/// A feature of a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Feature(pub u8);

#[allow(missing_docs)] // The names are the standard's.
impl Feature {
    pub const VERIFY_PIN_START: Self = Self(0x01);
    pub const VERIFY_PIN_FINISH: Self = Self(0x02);
    pub const MODIFY_PIN_START: Self = Self(0x03);
    pub const MODIFY_PIN_FINISH: Self = Self(0x04);
    pub const GET_KEY_PRESSED: Self = Self(0x05);
    pub const VERIFY_PIN_DIRECT: Self = Self(0x06);
    pub const MODIFY_PIN_DIRECT: Self = Self(0x07);
    pub const MCT_READER_DIRECT: Self = Self(0x08);
    pub const MCT_UNIVERSAL: Self = Self(0x09);
    pub const IFD_PIN_PROPERTIES: Self = Self(0x0A);
    pub const ABORT: Self = Self(0x0B);
    pub const SET_SPE_MESSAGE: Self = Self(0x0C);
    pub const VERIFY_PIN_DIRECT_APP_ID: Self = Self(0x0D);
    pub const MODIFY_PIN_DIRECT_APP_ID: Self = Self(0x0E);
    pub const WRITE_DISPLAY: Self = Self(0x0F);
    pub const GET_KEY: Self = Self(0x10);
    pub const IFD_DISPLAY_PROPERTIES: Self = Self(0x11);
    pub const GET_TLV_PROPERTIES: Self = Self(0x12);
    pub const CCID_ESC_COMMAND: Self = Self(0x13);
    pub const EXECUTE_PACE: Self = Self(0x20);
}

/// Writes the answer to [`GET_FEATURE_REQUEST`]: one `PCSC_TLV_STRUCTURE` for each feature.
///
/// # Errors
/// [`Error::InsufficientBuffer`]
pub fn write_features(features: &[(Feature, ControlCode)], output: &mut ResponseBuffer<'_>) -> Result<(), Error> {
    for (feature, code) in features {
        output.write(&[feature.0, 4])?;
        // Big endian, whatever the machine.
        output.write(&code.0.to_be_bytes())?;
    }
    Ok(())
}

/// Reads the answer to [`GET_FEATURE_REQUEST`], the application's side of [`write_features`].
///
/// # Errors
/// [`Part10Error`] if it is no list of `PCSC_TLV_STRUCTURE`.
pub fn parse_features(bytes: &[u8]) -> Result<Vec<(Feature, ControlCode)>, Part10Error> {
    let mut rest = Cursor(bytes);
    let mut features = Vec::new();
    while !rest.is_empty() {
        let feature = Feature(rest.u8()?);
        if rest.u8()? != 4 {
            return Err(Part10Error::Length);
        }
        features.push((feature, ControlCode(u32::from_be_bytes(rest.array()?))));
    }
    Ok(features)
}

/// What is left to read.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Part10Error> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Part10Error::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Part10Error> {
        self.take(N)?.try_into().map_err(|_| Part10Error::Truncated)
    }

    fn u8(&mut self) -> Result<u8, Part10Error> {
        self.array().map(u8::from_ne_bytes)
    }

    fn u16(&mut self) -> Result<u16, Part10Error> {
        self.array().map(u16::from_ne_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;

    use proptest::prelude::*;

    use super::*;

    pub(super) fn written(write: impl FnOnce(&mut ResponseBuffer<'_>) -> Result<(), Error>) -> Vec<u8> {
        let mut memory = [MaybeUninit::new(0_u8); 256];
        let length = {
            let mut buffer = ResponseBuffer::new(&mut memory);
            write(&mut buffer).unwrap();
            buffer.len()
        };
        // SAFETY: every octet was initialised when the array was made.
        memory[..length].iter().map(|octet| unsafe { octet.assume_init() }).collect()
    }

    #[test]
    fn control_codes_are_those_of_the_header() {
        assert_eq!(GET_FEATURE_REQUEST, ControlCode(0x4200_0D48));
    }

    #[test]
    fn features_are_big_endian() {
        let list =
            [(Feature::VERIFY_PIN_DIRECT, control_code(0x0033_0006)), (Feature::GET_TLV_PROPERTIES, control_code(1))];
        let bytes = written(|output| write_features(&list, output));
        assert_eq!(bytes, [0x06, 4, 0x42, 0x33, 0x00, 0x06, 0x12, 4, 0x42, 0x00, 0x00, 0x01]);
        assert_eq!(parse_features(&bytes).unwrap(), list);
        assert_eq!(parse_features(&bytes[..7]), Err(Part10Error::Truncated));
        assert_eq!(parse_features(&[6, 3, 0, 0, 0]), Err(Part10Error::Length));
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_or_read_back(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(features) = parse_features(&bytes) {
                prop_assert_eq!(written(|output| write_features(&features, output)), bytes);
            }
        }
    }
}
