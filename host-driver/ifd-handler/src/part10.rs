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

use std::fmt;

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

/// How the digits of a PIN become octets of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PinEncoding {
    /// One octet for a digit, 0 to 9.
    Binary,
    /// Two digits in an octet.
    Bcd,
    /// One octet for a digit, `0x30` to `0x39`.
    Ascii,
    /// Reserved.
    Reserved,
}

/// What [`PinVerify`] and [`PinModify`] have in common: how a PIN is taken in and put into the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PinFormat {
    /// `bTimerOut`: seconds until the entry is given up; 0 for the reader's default.
    pub timeout_s: u8,
    /// `bTimerOut2`: seconds after the first key.
    pub timeout_after_first_key_s: u8,
    /// `bmFormatString`
    pub format_string: u8,
    /// `bmPINBlockString`
    pub pin_block_string: u8,
    /// `bmPINLengthFormat`
    pub pin_length_format: u8,
    /// `wPINMaxExtraDigit`: `0xXXYY`, the least and the greatest number of digits.
    pub extra_digits: u16,
    /// `bEntryValidationCondition`: 1 greatest length reached, 2 key pressed, 4 time-out.
    pub entry_validation_condition: u8,
    /// `bNumberMessage`
    pub number_of_messages: u8,
    /// `wLangId`
    pub language_id: u16,
}

impl PinFormat {
    /// How digits are encoded.
    #[must_use]
    pub fn encoding(&self) -> PinEncoding {
        match self.format_string & 0x03 {
            0 => PinEncoding::Binary,
            1 => PinEncoding::Bcd,
            2 => PinEncoding::Ascii,
            _ => PinEncoding::Reserved,
        }
    }

    /// Whether the PIN stands at the right of its block.
    #[must_use]
    pub fn is_right_justified(&self) -> bool {
        self.format_string & 0x04 != 0
    }

    /// Where the PIN block begins in the command's data, in octets; `None` if the position is given in bits and is not a
    /// whole number of octets.
    #[must_use]
    pub fn pin_position(&self) -> Option<u8> {
        let position = (self.format_string >> 3) & 0x0F;
        match (self.format_string & 0x80 != 0, position % 8) {
            (true, _) => Some(position),
            (false, 0) => Some(position / 8),
            (false, _) => None,
        }
    }

    /// The size of the PIN block, in octets.
    #[must_use]
    pub fn pin_block_size(&self) -> u8 {
        self.pin_block_string & 0x0F
    }

    /// The size of a PIN length inside the command, in bits; 0 if there is none.
    #[must_use]
    pub fn pin_length_size(&self) -> u8 {
        self.pin_block_string >> 4
    }

    /// The least number of digits.
    #[must_use]
    pub fn min_digits(&self) -> u8 {
        self.extra_digits.to_be_bytes()[0]
    }

    /// The greatest number of digits.
    #[must_use]
    pub fn max_digits(&self) -> u8 {
        self.extra_digits.to_be_bytes()[1]
    }
}

/// `PIN_VERIFY_STRUCTURE`: a PIN is to be taken in and sent to the card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinVerify<'a> {
    /// How the PIN is taken in.
    pub format: PinFormat,
    /// `bMsgIndex`
    pub message_index: u8,
    /// `bTeoPrologue`: the prologue of a T=1 block.
    pub teo_prologue: [u8; 3],
    /// `abData`: the command APDU, with room for the PIN.
    pub apdu: &'a [u8],
}

impl<'a> PinVerify<'a> {
    /// Octets in front of `abData`.
    pub const HEAD: usize = 19;

    /// Reads the structure, numbers in the machine's byte order.
    ///
    /// # Errors
    /// [`Part10Error`] if the length of the APDU is not exactly what is left.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Part10Error> {
        let mut rest = Cursor(bytes);
        let format = PinFormat {
            timeout_s: rest.u8()?,
            timeout_after_first_key_s: rest.u8()?,
            format_string: rest.u8()?,
            pin_block_string: rest.u8()?,
            pin_length_format: rest.u8()?,
            extra_digits: rest.u16()?,
            entry_validation_condition: rest.u8()?,
            number_of_messages: rest.u8()?,
            language_id: rest.u16()?,
        };
        Ok(Self { format, message_index: rest.u8()?, teo_prologue: rest.array()?, apdu: rest.data()? })
    }

    /// The structure as an application sends it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let format = &self.format;
        let mut bytes = head(format);
        bytes.extend(format.extra_digits.to_ne_bytes());
        bytes.extend([format.entry_validation_condition, format.number_of_messages]);
        bytes.extend(format.language_id.to_ne_bytes());
        bytes.push(self.message_index);
        bytes.extend(self.teo_prologue);
        append_data(&mut bytes, self.apdu);
        bytes
    }
}

/// `PIN_MODIFY_STRUCTURE`: a PIN is to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinModify<'a> {
    /// How the PINs are taken in.
    pub format: PinFormat,
    /// `bInsertionOffsetOld`: where the old PIN goes.
    pub old_offset: u8,
    /// `bInsertionOffsetNew`: where the new PIN goes.
    pub new_offset: u8,
    /// `bConfirmPIN`: 1 to ask for the new PIN twice, 2 to ask for the old one.
    pub confirm_pin: u8,
    /// `bMsgIndex1` to `bMsgIndex3`
    pub message_indices: [u8; 3],
    /// `bTeoPrologue`: the prologue of a T=1 block.
    pub teo_prologue: [u8; 3],
    /// `abData`: the command APDU, with room for the PINs.
    pub apdu: &'a [u8],
}

impl<'a> PinModify<'a> {
    /// Octets in front of `abData`.
    pub const HEAD: usize = 24;

    /// Reads the structure, numbers in the machine's byte order.
    ///
    /// # Errors
    /// [`Part10Error`] if the length of the APDU is not exactly what is left.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Part10Error> {
        let mut rest = Cursor(bytes);
        let mut format = PinFormat {
            timeout_s: rest.u8()?,
            timeout_after_first_key_s: rest.u8()?,
            format_string: rest.u8()?,
            pin_block_string: rest.u8()?,
            pin_length_format: rest.u8()?,
            ..PinFormat::default()
        };
        let (old_offset, new_offset) = (rest.u8()?, rest.u8()?);
        format.extra_digits = rest.u16()?;
        let confirm_pin = rest.u8()?;
        format.entry_validation_condition = rest.u8()?;
        format.number_of_messages = rest.u8()?;
        format.language_id = rest.u16()?;
        let (message_indices, teo_prologue) = (rest.array()?, rest.array()?);
        Ok(Self { format, old_offset, new_offset, confirm_pin, message_indices, teo_prologue, apdu: rest.data()? })
    }

    /// The structure as an application sends it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let format = &self.format;
        let mut bytes = head(format);
        bytes.extend([self.old_offset, self.new_offset]);
        bytes.extend(format.extra_digits.to_ne_bytes());
        bytes.extend([self.confirm_pin, format.entry_validation_condition, format.number_of_messages]);
        bytes.extend(format.language_id.to_ne_bytes());
        bytes.extend(self.message_indices);
        bytes.extend(self.teo_prologue);
        append_data(&mut bytes, self.apdu);
        bytes
    }
}

/// `PIN_PROPERTIES_STRUCTURE`: the answer to `FEATURE_IFD_PIN_PROPERTIES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PinProperties {
    /// `wLcdLayout`: lines and columns of the reader's display; 0 if it has none.
    pub lcd_layout: u16,
    /// `bEntryValidationCondition`
    pub entry_validation_condition: u8,
    /// `bTimeOut2`: 1 if the reader knows a time-out after the first key.
    pub timeout2: u8,
}

impl PinProperties {
    /// The structure, numbers in the machine's byte order.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 4] {
        let [first, second] = self.lcd_layout.to_ne_bytes();
        [first, second, self.entry_validation_condition, self.timeout2]
    }
}

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

fn head(format: &PinFormat) -> Vec<u8> {
    vec![
        format.timeout_s,
        format.timeout_after_first_key_s,
        format.format_string,
        format.pin_block_string,
        format.pin_length_format,
    ]
}

/// `ulDataLength` and `abData`; an APDU that the length cannot express is cut, which no parser accepts.
fn append_data(bytes: &mut Vec<u8>, data: &[u8]) {
    bytes.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend(data);
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

    /// `ulDataLength` and `abData`, which end the structure.
    fn data(&mut self) -> Result<&'a [u8], Part10Error> {
        let length = usize::try_from(u32::from_ne_bytes(self.array()?)).unwrap_or(usize::MAX);
        if length > MAX_PIN_DATA {
            return Err(Part10Error::TooLong);
        }
        let data = self.take(length)?;
        if self.is_empty() { Ok(data) } else { Err(Part10Error::TrailingData) }
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use std::mem::MaybeUninit;

    use proptest::prelude::*;

    use super::*;

    /// What OpenSC sends for a PIV PIN: ASCII, 8 octets, padded with FF.
    const OPENSC_VERIFY: [u8; 32] = [
        30, 30, 0x82, 0x08, 0x00, 0x08, 0x04, 0x02, 0xFF, 0x09, 0x04, 0x00, 0, 0, 0, 13, 0, 0, 0, //
        0x00, 0x20, 0x00, 0x80, 0x08, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
    ];

    fn written(write: impl FnOnce(&mut ResponseBuffer<'_>) -> Result<(), Error>) -> Vec<u8> {
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

    #[test]
    fn a_verify_structure_of_opensc() {
        let verify = PinVerify::parse(&OPENSC_VERIFY).unwrap();
        assert_eq!(verify.apdu, &OPENSC_VERIFY[PinVerify::HEAD..]);
        let format = verify.format;
        assert_eq!((format.min_digits(), format.max_digits()), (4, 8));
        assert_eq!((format.encoding(), format.is_right_justified()), (PinEncoding::Ascii, false));
        assert_eq!((format.pin_position(), format.pin_block_size(), format.pin_length_size()), (Some(0), 8, 0));
        assert_eq!((format.timeout_s, format.language_id), (30, 0x0409));
        assert_eq!(verify.to_bytes(), OPENSC_VERIFY);
    }

    #[test]
    fn a_verify_structure_with_a_wrong_length_is_refused() {
        for length in 0..OPENSC_VERIFY.len() {
            assert_eq!(PinVerify::parse(&OPENSC_VERIFY[..length]), Err(Part10Error::Truncated), "{length}");
        }
        let mut longer = OPENSC_VERIFY.to_vec();
        longer.push(0);
        assert_eq!(PinVerify::parse(&longer), Err(Part10Error::TrailingData));
        let mut huge = OPENSC_VERIFY.to_vec();
        huge[15..19].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(PinVerify::parse(&huge), Err(Part10Error::TooLong));
    }

    #[test]
    fn a_modify_structure_is_read_in_order() {
        let bytes: Vec<u8> = (1..=20).chain([2, 0, 0, 0, 0xAA, 0xBB]).collect();
        assert_eq!(bytes.len(), PinModify::HEAD + 2);
        let modify = PinModify::parse(&bytes).unwrap();
        assert_eq!((modify.old_offset, modify.new_offset, modify.confirm_pin), (6, 7, 10));
        assert_eq!((modify.format.extra_digits, modify.format.language_id), (0x0908, 0x0E0D));
        assert_eq!((modify.format.entry_validation_condition, modify.format.number_of_messages), (11, 12));
        assert_eq!((modify.message_indices, modify.teo_prologue), ([15, 16, 17], [18, 19, 20]));
        assert_eq!(modify.apdu, [0xAA, 0xBB]);
        assert_eq!(modify.to_bytes(), bytes);
    }

    #[test]
    fn positions_in_bits() {
        let at = |format_string| PinFormat { format_string, ..PinFormat::default() }.pin_position();
        assert_eq!((at(0x80), at(0xA8), at(0x00), at(0x40), at(0x08)), (Some(0), Some(5), Some(0), Some(1), None));
    }

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
        assert_eq!(
            PinProperties { lcd_layout: 0x0110, entry_validation_condition: 7, timeout2: 1 }.to_bytes(),
            [0x10, 0x01, 7, 1]
        );
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_or_read_back(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(verify) = PinVerify::parse(&bytes) {
                prop_assert_eq!(verify.to_bytes(), bytes.clone());
            }
            if let Ok(modify) = PinModify::parse(&bytes) {
                prop_assert_eq!(modify.to_bytes(), bytes.clone());
            }
            let _ = parse_features(&bytes);
            let _ = parse_properties(&bytes);
        }

        #[test]
        fn a_structure_with_a_true_length_survives(head in prop::array::uniform15(any::<u8>()), apdu in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = head.to_vec();
            append_data(&mut bytes, &apdu);
            let verify = PinVerify::parse(&bytes).unwrap();
            prop_assert_eq!(verify.apdu, &apdu[..]);
            prop_assert_eq!(verify.to_bytes(), bytes);
        }
    }
}
