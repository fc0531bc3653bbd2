//! PIN pads: what an application sends to have a PIN taken in and put into a command.

use std::fmt;

use super::{Cursor, MAX_PIN_DATA, Part10Error};

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
#[derive(Clone, PartialEq, Eq)]
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
#[derive(Clone, PartialEq, Eq)]
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

/// Prints the length of the command alone: a program may have put a PIN into it.
impl fmt::Debug for PinVerify<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PinVerify({:?}, {} octets)", self.format, self.apdu.len())
    }
}

/// Prints the length of the command alone: a program may have put a PIN into it.
impl fmt::Debug for PinModify<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PinModify({:?}, {} octets)", self.format, self.apdu.len())
    }
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

impl<'a> Cursor<'a> {
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
    use proptest::prelude::*;

    use super::*;

    /// What OpenSC sends for a PIV PIN: ASCII, 8 octets, padded with FF.
    const OPENSC_VERIFY: [u8; 32] = [
        30, 30, 0x82, 0x08, 0x00, 0x08, 0x04, 0x02, 0xFF, 0x09, 0x04, 0x00, 0, 0, 0, 13, 0, 0, 0, //
        0x00, 0x20, 0x00, 0x80, 0x08, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
    ];

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
    fn pin_properties() {
        assert_eq!(
            PinProperties { lcd_layout: 0x0110, entry_validation_condition: 7, timeout2: 1 }.to_bytes(),
            [0x10, 0x01, 7, 1]
        );
    }

    #[test]
    fn debug_shows_no_command() {
        let verify = PinVerify::parse(&OPENSC_VERIFY).unwrap();
        assert_eq!(format!("{verify:?}"), format!("PinVerify({:?}, 13 octets)", verify.format));
        let modify = [&[0; 20][..], &[4, 0, 0, 0], b"1234"].concat();
        let modify = PinModify::parse(&modify).unwrap();
        assert_eq!(format!("{modify:?}"), format!("PinModify({:?}, 4 octets)", modify.format));
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
