use std::mem::MaybeUninit;

use pocketcard_ipc::driver::PIN_ENTRY_LIMIT;
use proptest::prelude::*;

use super::*;

/// VERIFY as OpenSC 0.23 and 0.26 send it.
pub(crate) fn opensc_verify() -> Vec<u8> {
    block(&VERIFY_HEAD, &[0x00, 0x20, 0x00, 0x80, 0x08], 1)
}

/// CHANGE REFERENCE DATA as OpenSC sends it.
fn opensc_change() -> Vec<u8> {
    block(&MODIFY_HEAD, &[0x00, 0x24, 0x00, 0x80, 0x10], 2)
}

/// Both time-outs, format, block, length format, 4 to 8 digits, key pressed, no messages, language 0, index, prologue.
const VERIFY_HEAD: [u8; 15] = [30, 30, 0x02, 0x08, 0x00, 0x08, 0x04, 0x02, 0x00, 0x00, 0x00, 0x00, 0, 0, 0];
/// The same with two offsets, confirmation of everything, and three indices.
const MODIFY_HEAD: [u8; 20] =
    [30, 30, 0x02, 0x08, 0x00, 0x00, 0x08, 0x08, 0x06, 0x03, 0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0, 0, 0];

fn block(head: &[u8], command: &[u8], pins: usize) -> Vec<u8> {
    with_apdu(head, &[command, &vec![0xFF; pins * 8]].concat())
}

fn with_apdu(head: &[u8], apdu: &[u8]) -> Vec<u8> {
    let mut bytes = head.to_vec();
    // The machine's byte order, as programs write it.
    if cfg!(target_endian = "big") {
        let digits = if head.len() == VERIFY_HEAD.len() { 5 } else { 7 };
        bytes.swap(digits, digits + 1);
    }
    bytes.extend(u32::try_from(apdu.len()).unwrap().to_ne_bytes());
    bytes.extend(apdu);
    bytes
}

fn entry(operation: PinOperation, reference: u8, seconds: u64) -> Option<PinEntry> {
    PinEntry::new(operation, reference, Some(Duration::from_secs(seconds)))
}

#[test]
fn what_programs_send_is_taken() {
    for (bytes, expected) in [
        (opensc_verify(), entry(PinOperation::Verify, 0x80, 25)),
        (block(&VERIFY_HEAD, &[0x00, 0x20, 0x00, 0x00, 0x08], 1), entry(PinOperation::Verify, 0x00, 25)),
        // As the examples of CCID describe ASCII: units of octets, the language English, one message.
        (
            block(
                &[0x00, 0x00, 0x82, 0x08, 0x00, 0x08, 0x04, 0x02, 0x01, 0x09, 0x04, 0x00, 0, 0, 0],
                &[0x00, 0x20, 0x00, 0x80, 0x08],
                1,
            ),
            entry(PinOperation::Verify, 0x80, 0),
        ),
        // The reader's own messages; whichever of key, length and time ends the entry.
        (
            block(
                &[7, 15, 0x82, 0x08, 0x00, 0x08, 0x06, 0x07, 0xFF, 0x00, 0x00, 0x00, 0, 0, 0],
                &[0x00, 0x20, 0x00, 0x80, 0x08],
                1,
            ),
            entry(PinOperation::Verify, 0x80, 7),
        ),
    ] {
        assert!(expected.is_some());
        assert_eq!(verify(&bytes), expected, "{bytes:02X?}");
        assert_eq!(modify(&bytes), None, "it is no modification");
    }
    for (command, expected) in [
        ([0x00, 0x24, 0x00, 0x80, 0x10], entry(PinOperation::Change, 0x80, 25)),
        ([0x00, 0x24, 0x00, 0x81, 0x10], entry(PinOperation::Change, 0x81, 25)),
        ([0x00, 0x2C, 0x00, 0x80, 0x10], entry(PinOperation::Unblock, 0x80, 25)),
    ] {
        let bytes = block(&MODIFY_HEAD, &command, 2);
        assert!(expected.is_some());
        assert_eq!(modify(&bytes), expected, "{bytes:02X?}");
        assert_eq!(verify(&bytes), None, "it is no verification");
    }
}

#[test]
fn the_time_that_a_program_gives_is_kept_up_to_the_phones_own() {
    for (seconds, limit) in [(0, PIN_ENTRY_LIMIT), (1, Duration::from_secs(1)), (30, PIN_ENTRY_LIMIT)] {
        let mut bytes = opensc_verify();
        bytes[0] = seconds;
        assert_eq!(verify(&bytes).unwrap().time_limit(), limit, "{seconds}");
    }
}

/// A description that is right but for one thing.
fn changed(bytes: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    let mut bytes = bytes;
    bytes[at] = value;
    bytes
}

/// Every description of this list would have the PIN put somewhere else than into a PIN command of a PIV card, or would
/// have something of the computer's shown or done on the way.
pub(crate) fn hostile() -> Vec<(&'static str, ControlCode, Vec<u8>)> {
    const DATA: usize = PinVerify::HEAD;
    const MODIFY_DATA: usize = PinModify::HEAD;
    let verify_with = |at, value| changed(opensc_verify(), at, value);
    let modify_with = |at, value| changed(opensc_change(), at, value);
    let verify_of = |apdu: &[u8]| with_apdu(&VERIFY_HEAD, apdu);
    let modify_of = |apdu: &[u8]| with_apdu(&MODIFY_HEAD, apdu);
    let pin = [0xFF; 8];
    let put_data = [&[0x00, 0xDB, 0x3F, 0xFF, 0x0F, 0x5C, 0x03, 0x5F, 0xC1, 0x02, 0x53, 0x08][..], &pin].concat();
    let mut text = opensc_verify();
    text.extend(b"Enter the PIN of your bank");
    let mut long = opensc_verify();
    long[15..19].copy_from_slice(&u32::MAX.to_ne_bytes());
    let short_head = |apdu: &[u8]| with_apdu(&VERIFY_HEAD, apdu);
    let verifications = vec![
        ("nothing", Vec::new()),
        ("half a head", opensc_verify()[..10].to_vec()),
        ("a head alone", opensc_verify()[..DATA].to_vec()),
        ("an APDU cut short", opensc_verify()[..30].to_vec()),
        ("text behind the structure", text),
        ("a length beyond every APDU", long),
        ("no APDU", short_head(&[])),
        ("PUT DATA", verify_of(&put_data)),
        ("GENERAL AUTHENTICATE", verify_of(&[&[0x00, 0x87, 0x07, 0x9A, 0x08][..], &pin].concat())),
        ("WRITE BINARY", verify_of(&[&[0x00, 0xD0, 0x00, 0x00, 0x08][..], &pin].concat())),
        ("CHANGE as a verification", verify_of(&[&[0x00, 0x24, 0x00, 0x80, 0x10][..], &pin, &pin].concat())),
        ("another class", verify_with(DATA, 0x80)),
        ("a chained command", verify_with(DATA, 0x10)),
        ("secure messaging", verify_with(DATA, 0x0C)),
        ("a logout", verify_with(DATA + 2, 0xFF)),
        ("the PUK verified", verify_with(DATA + 3, 0x81)),
        ("the fingerprint", verify_with(DATA + 3, 0x96)),
        ("the pairing code", verify_with(DATA + 3, 0x98)),
        ("a wrong Lc", verify_with(DATA + 4, 0x09)),
        (
            "the digits' room of another length",
            verify_of(&[0x00, 0x20, 0x00, 0x80, 0x06, 255, 255, 255, 255, 255, 255]),
        ),
        ("a longer room", verify_of(&[&[0x00, 0x20, 0x00, 0x80, 0x10][..], &pin, &pin].concat())),
        ("no room", verify_of(&[0x00, 0x20, 0x00, 0x80])),
        ("an Le", verify_of(&[&[0x00, 0x20, 0x00, 0x80, 0x08][..], &pin, &[0]].concat())),
        ("an extended Lc", verify_of(&[&[0x00, 0x20, 0x00, 0x80, 0, 0, 8][..], &pin].concat())),
        ("padding with 00", verify_of(&[0x00, 0x20, 0x00, 0x80, 0x08, 0, 0, 0, 0, 0, 0, 0, 0])),
        ("digits of the computer", verify_of(&[&[0x00, 0x20, 0x00, 0x80, 0x08][..], b"123456\xFF\xFF"].concat())),
        ("binary digits", verify_with(2, 0x80)),
        ("BCD", verify_with(2, 0x81)),
        ("a reserved encoding", verify_with(2, 0x83)),
        ("from the right", verify_with(2, 0x86)),
        ("one octet further on", verify_with(2, 0x8A)),
        ("past the end", verify_with(2, 0xFA)),
        ("one bit further on", verify_with(2, 0x0A)),
        ("a block of 0", verify_with(3, 0x00)),
        ("a block of 4", verify_with(3, 0x04)),
        ("a block of 15", verify_with(3, 0x0F)),
        ("the number of digits in the command", verify_with(3, 0x48)),
        ("the place of that number", verify_with(4, 0x04)),
        ("at most 5 digits", changed(verify_with(5, 0x05), 6, 0x04)),
        ("at least 9 digits", changed(verify_with(5, 0x0C), 6, 0x09)),
        ("at least more than at most", changed(verify_with(5, 0x06), 6, 0x08)),
        ("an entry that time ends", verify_with(7, 0x04)),
        ("an entry that the length ends", verify_with(7, 0x01)),
        ("an entry that something unknown ends", verify_with(7, 0x82)),
        ("four messages", verify_with(8, 0x04)),
    ];
    let modifications = vec![
        ("nothing", Vec::new()),
        ("a head alone", opensc_change()[..MODIFY_DATA].to_vec()),
        ("PUT DATA", modify_of(&put_data)),
        ("VERIFY as a modification", modify_of(&[&[0x00, 0x20, 0x00, 0x80, 0x10][..], &pin, &pin].concat())),
        ("the management key", modify_with(MODIFY_DATA + 1, 0xFF)),
        ("the retry counters", modify_with(MODIFY_DATA + 1, 0xFA)),
        ("P1", modify_with(MODIFY_DATA + 2, 0x01)),
        ("the global PIN changed", modify_with(MODIFY_DATA + 3, 0x00)),
        ("the PUK unblocked", changed(modify_with(MODIFY_DATA + 1, 0x2C), MODIFY_DATA + 3, 0x81)),
        ("room for one", modify_of(&[&[0x00, 0x24, 0x00, 0x80, 0x08][..], &pin].concat())),
        ("room for three", modify_of(&[&[0x00, 0x24, 0x00, 0x80, 0x18][..], &pin, &pin, &pin].concat())),
        (
            "the old PIN of the computer",
            modify_of(&[&[0x00, 0x24, 0x00, 0x80, 0x10][..], b"123456\xFF\xFF", &pin].concat()),
        ),
        (
            "the new PIN of the computer",
            modify_of(&[&[0x00, 0x24, 0x00, 0x80, 0x10][..], &pin, b"123456\xFF\xFF"].concat()),
        ),
        ("the old PIN elsewhere", modify_with(5, 0x08)),
        ("the new PIN over the old one", modify_with(6, 0x00)),
        ("the new PIN past the end", modify_with(6, 0x10)),
        ("the old PIN not asked for", modify_with(9, 0x01)),
        ("nothing asked for", modify_with(9, 0x00)),
        ("an unknown confirmation", modify_with(9, 0x07)),
        ("BCD", modify_with(2, 0x01)),
        ("from the right", modify_with(2, 0x06)),
        ("a block of 6", modify_with(3, 0x06)),
        ("an entry that time ends", modify_with(10, 0x04)),
        ("five messages", modify_with(11, 0x05)),
    ];
    let verifications = verifications.into_iter().map(|(name, bytes)| (name, VERIFY_PIN, bytes));
    verifications.chain(modifications.into_iter().map(|(name, bytes)| (name, MODIFY_PIN, bytes))).collect()
}

#[test]
fn hostile_descriptions_are_refused() {
    assert!(hostile().len() >= 30);
    for (name, code, bytes) in hostile() {
        let taken = if code == VERIFY_PIN { verify(&bytes) } else { modify(&bytes) };
        assert_eq!(taken, None, "{name}: {bytes:02X?}");
    }
}

#[test]
fn every_length_but_the_right_one_is_refused() {
    for length in 0..opensc_verify().len() {
        assert_eq!(verify(&opensc_verify()[..length]), None, "{length}");
    }
    for length in 0..opensc_change().len() {
        assert_eq!(modify(&opensc_change()[..length]), None, "{length}");
    }
}

fn written(write: impl FnOnce(&mut ResponseBuffer<'_>) -> Result<(), Error>) -> Vec<u8> {
    let mut memory = [MaybeUninit::new(0); 256];
    let mut buffer = ResponseBuffer::new(&mut memory);
    write(&mut buffer).unwrap();
    buffer.as_slice().to_vec()
}

#[test]
fn the_pad_is_announced_only_where_pins_are_entered_on_the_phone() {
    let features = |pin_pad| part10::parse_features(&written(|output| write_features(pin_pad, output))).unwrap();
    assert_eq!(features(false), [(Feature::GET_TLV_PROPERTIES, TLV_PROPERTIES)]);
    assert_eq!(
        features(true).iter().map(|(feature, _)| *feature).collect::<Vec<_>>(),
        [
            Feature::VERIFY_PIN_DIRECT,
            Feature::MODIFY_PIN_DIRECT,
            Feature::IFD_PIN_PROPERTIES,
            Feature::GET_TLV_PROPERTIES
        ]
    );
    let properties = |pin_pad| written(|output| write_properties(pin_pad, output));
    assert_eq!(part10::parse_properties(&properties(false)).unwrap(), [Property::MaxApduDataSize(65_536)]);
    let pad = properties(true);
    let pad = part10::parse_properties(&pad).unwrap();
    for property in [
        Property::MinPinSize(6),
        Property::MaxPinSize(8),
        Property::EntryValidationCondition(2),
        Property::MaxApduDataSize(65_536),
    ] {
        assert!(pad.contains(&property), "{property:?}");
    }
    assert_eq!(written(write_pin_properties), [0, 0, 2, 0]);
}

proptest! {
    #[test]
    fn bytes_that_are_taken_hold_the_command_of_a_piv_card(
        flips in prop::collection::vec((0_usize..45, any::<u8>()), 0..4), change in any::<bool>()
    ) {
        let mut bytes = if change { opensc_change() } else { opensc_verify() };
        for (at, value) in flips {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        let (taken, head) = match change {
            true => (modify(&bytes), PinModify::HEAD),
            false => (verify(&bytes), PinVerify::HEAD),
        };
        if let Some(entry) = taken {
            let ins = match entry.operation() {
                PinOperation::Verify => 0x20,
                PinOperation::Change => 0x24,
                PinOperation::Unblock => 0x2C,
            };
            prop_assert_eq!(&bytes[head..head + 4], &[0x00, ins, 0x00, entry.key_reference()]);
            prop_assert!(bytes[head + 5..].iter().all(|octet| *octet == 0xFF));
        }
    }
}
