//! What a reader says about itself: the answer to `FEATURE_GET_TLV_PROPERTIES`.

use super::{Cursor, Part10Error};
use crate::error::Error;
use crate::response::ResponseBuffer;

/// A property of a reader: the answer to `FEATURE_GET_TLV_PROPERTIES` is a list of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Property<'a> {
    /// `wLcdLayout`
    LcdLayout(u16),
    /// `bEntryValidationCondition`
    EntryValidationCondition(u8),
    /// `bTimeOut2`
    Timeout2(u8),
    /// `wLcdMaxCharacters`
    LcdMaxCharacters(u16),
    /// `wLcdMaxLines`
    LcdMaxLines(u16),
    /// `bMinPINSize`
    MinPinSize(u8),
    /// `bMaxPINSize`
    MaxPinSize(u8),
    /// `sFirmwareID`
    FirmwareId(&'a str),
    /// `bPPDUSupport`: 1 if pseudo-APDUs come through `SCardControl`, 2 through `SCardTransmit`.
    PpduSupport(u8),
    /// `dwMaxAPDUDataSize`: the longest data of an APDU that the reader passes on; more than 256 means extended APDUs.
    MaxApduDataSize(u32),
    /// `wIdVendor`
    VendorId(u16),
    /// `wIdProduct`
    ProductId(u16),
    /// A property with a tag that this version does not know.
    Other(u8, &'a [u8]),
}

/// Writes the answer to `FEATURE_GET_TLV_PROPERTIES`. Numbers are little endian, whatever the machine.
///
/// # Errors
/// [`Error::InsufficientBuffer`], also for a value of more than 255 octets.
pub fn write_properties(properties: &[Property<'_>], output: &mut ResponseBuffer<'_>) -> Result<(), Error> {
    let mut put = |tag: u8, value: &[u8]| {
        let length = u8::try_from(value.len()).map_err(|_| Error::InsufficientBuffer)?;
        output.write(&[tag, length])?;
        output.write(value)
    };
    for property in properties {
        match *property {
            Property::LcdLayout(value) => put(1, &value.to_le_bytes()),
            Property::EntryValidationCondition(value) => put(2, &[value]),
            Property::Timeout2(value) => put(3, &[value]),
            Property::LcdMaxCharacters(value) => put(4, &value.to_le_bytes()),
            Property::LcdMaxLines(value) => put(5, &value.to_le_bytes()),
            Property::MinPinSize(value) => put(6, &[value]),
            Property::MaxPinSize(value) => put(7, &[value]),
            Property::FirmwareId(value) => put(8, value.as_bytes()),
            Property::PpduSupport(value) => put(9, &[value]),
            Property::MaxApduDataSize(value) => put(10, &value.to_le_bytes()),
            Property::VendorId(value) => put(11, &value.to_le_bytes()),
            Property::ProductId(value) => put(12, &value.to_le_bytes()),
            Property::Other(tag, value) => put(tag, value),
        }?;
    }
    Ok(())
}

/// Reads the answer to `FEATURE_GET_TLV_PROPERTIES`, the application's side of [`write_properties`].
///
/// # Errors
/// [`Part10Error`] if it is no list of properties or a known one has the wrong length.
pub fn parse_properties(bytes: &[u8]) -> Result<Vec<Property<'_>>, Part10Error> {
    fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N], Part10Error> {
        value.try_into().map_err(|_| Part10Error::Length)
    }
    let octet = |value| fixed(value).map(u8::from_le_bytes);
    let word = |value| fixed(value).map(u16::from_le_bytes);

    let mut rest = Cursor(bytes);
    let mut properties = Vec::new();
    while !rest.is_empty() {
        let tag = rest.u8()?;
        let length = rest.u8()?;
        let value = rest.take(usize::from(length))?;
        properties.push(match tag {
            1 => Property::LcdLayout(word(value)?),
            2 => Property::EntryValidationCondition(octet(value)?),
            3 => Property::Timeout2(octet(value)?),
            4 => Property::LcdMaxCharacters(word(value)?),
            5 => Property::LcdMaxLines(word(value)?),
            6 => Property::MinPinSize(octet(value)?),
            7 => Property::MaxPinSize(octet(value)?),
            8 => match std::str::from_utf8(value) {
                Ok(text) => Property::FirmwareId(text),
                Err(_) => Property::Other(tag, value),
            },
            9 => Property::PpduSupport(octet(value)?),
            10 => Property::MaxApduDataSize(u32::from_le_bytes(fixed(value)?)),
            11 => Property::VendorId(word(value)?),
            12 => Property::ProductId(word(value)?),
            _ => Property::Other(tag, value),
        });
    }
    Ok(properties)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::written;
    use super::*;

    #[test]
    fn properties_are_little_endian() {
        let list = [
            Property::MaxApduDataSize(0x0001_0000),
            Property::LcdLayout(0),
            Property::MinPinSize(6),
            Property::FirmwareId("1.0"),
            Property::VendorId(0x1234),
            Property::Other(0x77, &[9]),
        ];
        let bytes = written(|output| write_properties(&list, output));
        assert_eq!(bytes[..6], [10, 4, 0, 0, 1, 0]);
        assert_eq!(parse_properties(&bytes).unwrap(), list);
        assert_eq!(parse_properties(&[10, 2, 0, 0]), Err(Part10Error::Length));
        assert_eq!(parse_properties(&[10, 4, 0]), Err(Part10Error::Truncated));
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_or_read_back(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(properties) = parse_properties(&bytes) {
                prop_assert_eq!(written(|output| write_properties(&properties, output)), bytes);
            }
        }
    }
}
