//! The reader's PIN pad, which is the phone: what it says about itself, and which PIN entries it takes.
//!
//! A program describes a PIN entry as bytes: a command with room for digits, and where and how the digits go in. The
//! phone builds the command itself, so of all of that only three things travel on: the operation, the secret, and how
//! long to wait. A description of anything else than the PIN commands of a PIV card is refused, or a program could have
//! the PIN written into an object that it may read.
//!
//! Spec: PC/SC part 10, 2.02.09, sections 2.5 and 2.6; SP 800-73-4 part 2, section 3.2

use std::time::Duration;

use ifd_handler::part10::{self, Feature, PinEncoding, PinFormat, PinModify, PinProperties, PinVerify, Property};
use ifd_handler::{ControlCode, Error, ResponseBuffer};
use pocketcard_ipc::driver::{PinEntry, PinOperation};

/// Our control codes: what a reader calls its features by is its own choice.
pub(crate) const VERIFY_PIN: ControlCode = part10::control_code(0x06);
pub(crate) const MODIFY_PIN: ControlCode = part10::control_code(0x07);
pub(crate) const PIN_PROPERTIES: ControlCode = part10::control_code(0x0A);
pub(crate) const TLV_PROPERTIES: ControlCode = part10::control_code(0x12);

/// The status word of a description that is refused: nobody was asked.
pub(crate) const REFUSED: [u8; 2] = [0x6B, 0x80];
/// The status word of an entry that nobody made in time.
pub(crate) const TIMED_OUT: [u8; 2] = [0x64, 0x00];

/// Most data of one command or response: what an extended APDU can carry.
const MAX_DATA: u32 = 65_536;

/// Digits of a PIN. A PUK has 8 characters.
const PIN_SIZES: std::ops::RangeInclusive<u8> = 6..=8;

/// An entry ends when the owner confirms it (bit 2 of `bEntryValidationCondition`), and in no other way.
const KEY_PRESSED: u8 = 0x02;
/// Everything that `bEntryValidationCondition` may hold.
const ANY_CONDITION: u8 = 0x07;

/// A PIN in its command: 8 octets, what is not a digit `FF`.
const BLOCK: [u8; 8] = [0xFF; 8];

/// Writes which features the reader has.
pub(crate) fn write_features(pin_pad: bool, output: &mut ResponseBuffer<'_>) -> Result<(), Error> {
    if pin_pad {
        let pad = [
            (Feature::VERIFY_PIN_DIRECT, VERIFY_PIN),
            (Feature::MODIFY_PIN_DIRECT, MODIFY_PIN),
            (Feature::IFD_PIN_PROPERTIES, PIN_PROPERTIES),
        ];
        part10::write_features(&pad, output)?;
    }
    part10::write_features(&[(Feature::GET_TLV_PROPERTIES, TLV_PROPERTIES)], output)
}

/// Writes the reader's properties. They tell OpenSC that extended APDUs pass: without them it cuts everything.
pub(crate) fn write_properties(pin_pad: bool, output: &mut ResponseBuffer<'_>) -> Result<(), Error> {
    if pin_pad {
        let pad = [
            Property::LcdLayout(0),
            Property::EntryValidationCondition(KEY_PRESSED),
            Property::Timeout2(0),
            Property::MinPinSize(*PIN_SIZES.start()),
            Property::MaxPinSize(*PIN_SIZES.end()),
        ];
        part10::write_properties(&pad, output)?;
    }
    part10::write_properties(&[Property::MaxApduDataSize(MAX_DATA)], output)
}

/// Writes `PIN_PROPERTIES_STRUCTURE`.
pub(crate) fn write_pin_properties(output: &mut ResponseBuffer<'_>) -> Result<(), Error> {
    let properties = PinProperties { lcd_layout: 0, entry_validation_condition: KEY_PRESSED, timeout2: 0 };
    output.write(&properties.to_bytes())
}

/// The entry that `PIN_VERIFY_STRUCTURE` describes; `None` if it is to be refused.
#[doc(hidden)] // For the fuzz target.
pub fn verify(input: &[u8]) -> Option<PinEntry> {
    let verify = PinVerify::parse(input).ok()?;
    let (header, block) = command(verify.apdu)?;
    let fits = header.p1 == 0 && header.ins == 0x20 && block == BLOCK && is_piv(&verify.format);
    fits.then(|| PinEntry::new(PinOperation::Verify, header.p2, time_limit(&verify.format)))?
}

/// The entry that `PIN_MODIFY_STRUCTURE` describes; `None` if it is to be refused.
#[doc(hidden)] // For the fuzz target.
pub fn modify(input: &[u8]) -> Option<PinEntry> {
    let modify = PinModify::parse(input).ok()?;
    let (header, blocks) = command(modify.apdu)?;
    let operation = match header.ins {
        0x24 => PinOperation::Change,
        0x2C => PinOperation::Unblock,
        _ => return None,
    };
    // The phone asks for the present secret, so it cannot stand in the command; whether for the new one twice is its
    // own choice.
    let asks_for_both = matches!(modify.confirm_pin, 0x02 | 0x03);
    let fits = header.p1 == 0
        && blocks.split_at_checked(BLOCK.len()) == Some((&BLOCK, &BLOCK))
        && (modify.old_offset, modify.new_offset) == (0, 8)
        && asks_for_both
        && is_piv(&modify.format);
    fits.then(|| PinEntry::new(operation, header.p2, time_limit(&modify.format)))?
}

/// Whether digits are put into the command as a PIV card takes them: in ASCII, from the left, from the first octet of
/// the data on, in a block of 8, without their number.
fn is_piv(format: &PinFormat) -> bool {
    let as_digits = format.encoding() == PinEncoding::Ascii
        && !format.is_right_justified()
        && format.pin_position() == Some(0)
        && usize::from(format.pin_block_size()) == BLOCK.len()
        && format.pin_length_size() == 0
        && format.pin_length_format == 0;
    // OpenSC knows of PINs from 4 digits on. The phone has the last word; without a size in common it has none.
    let (least, most) = (format.min_digits(), format.max_digits());
    let sizes = least <= most && least <= *PIN_SIZES.end() && most >= *PIN_SIZES.start();
    let condition = format.entry_validation_condition;
    let ends_with_a_key = condition & KEY_PRESSED != 0 && condition & !ANY_CONDITION == 0;
    // None, up to three, or the reader's own; what they say is the phone's business.
    let messages = matches!(format.number_of_messages, 0..=3 | 0xFF);
    as_digits && sizes && ends_with_a_key && messages
}

fn time_limit(format: &PinFormat) -> Option<Duration> {
    (format.timeout_s != 0).then(|| Duration::from_secs(format.timeout_s.into()))
}

struct Header {
    ins: u8,
    p1: u8,
    p2: u8,
}

/// A short command of class 00 with data and without Le: header and data.
fn command(apdu: &[u8]) -> Option<(Header, &[u8])> {
    let (&[cla, ins, p1, p2, length], data) = apdu.split_first_chunk()?;
    (cla == 0 && usize::from(length) == data.len()).then_some((Header { ins, p1, p2 }, data))
}

#[cfg(test)]
#[path = "pin_pad/tests.rs"]
pub(crate) mod tests;
