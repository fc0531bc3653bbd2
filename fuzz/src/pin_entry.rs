//! Part 10 of PC/SC: what a program describes to the reader's PIN pad.

use ifd_pocketcard::pin_pad;
use pocketcard_ipc::driver::{PIN_ENTRY_LIMIT, PinEntry, PinOperation, Request};

use crate::Input;

/// Octets in front of `abData`, of a verification and of a modification.
const HEADS: [usize; 2] = [19, 24];

/// Any bytes as a structure; or a right one with some of its bytes changed.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.byte();
    let modifies = kind & 1 == 1;
    if kind & 2 == 0 {
        return check(modifies, input.all());
    }
    let mut bytes = right(modifies, kind & 4 != 0);
    for change in input.all().chunks_exact(2) {
        let at = usize::from(change[0]) % bytes.len();
        bytes[at] = change[1];
    }
    check(modifies, &bytes);
}

/// What is taken holds one of the PIN commands of a PIV card, room for nothing but digits, and travels in one form.
fn check(modifies: bool, bytes: &[u8]) {
    let taken = if modifies { pin_pad::modify(bytes) } else { pin_pad::verify(bytes) };
    let Some(entry) = taken else { return };
    let apdu = &bytes[HEADS[usize::from(modifies)]..];
    let (ins, length) = match entry.operation() {
        PinOperation::Verify => (0x20, 8),
        PinOperation::Change => (0x24, 16),
        PinOperation::Unblock => (0x2C, 16),
    };
    assert_eq!(apdu[..5], [0x00, ins, 0x00, entry.key_reference(), length]);
    assert_eq!(apdu.len(), 5 + usize::from(length));
    assert!(apdu[5..].iter().all(|octet| *octet == 0xFF), "digits of the computer");
    assert_eq!(modifies, entry.operation() != PinOperation::Verify);
    assert!(entry.time_limit() <= PIN_ENTRY_LIMIT && !entry.time_limit().is_zero());
    assert_eq!(bytes[2] & 0x7F, 0x02, "ASCII from the left, from the first octet on");
    assert_eq!(bytes[3], 0x08, "a block of 8, and no length");
    let mut frame = Vec::new();
    Request::PinEntry(entry).encode(&mut frame).expect("a short frame");
    assert_eq!(frame.len(), 4 + 1 + 3, "three octets travel, none of them text");
    let Ok(Request::PinEntry(read)) = Request::parse(&frame[4..]) else { panic!("it is not read") };
    assert_eq!(read, entry);
    assert!(PinEntry::new(entry.operation(), entry.key_reference(), None).is_some());
}

/// As OpenSC describes it.
fn right(modifies: bool, unblocks: bool) -> Vec<u8> {
    let mut bytes = vec![30, 30, 0x02, 0x08, 0x00];
    let digits = 0x0408_u16.to_ne_bytes();
    let (header, pins) = match (modifies, unblocks) {
        (false, _) => ([0x00, 0x20, 0x00, 0x80], 1),
        (true, false) => ([0x00, 0x24, 0x00, 0x80], 2),
        (true, true) => ([0x00, 0x2C, 0x00, 0x80], 2),
    };
    if modifies {
        bytes.extend([0, 8, digits[0], digits[1], 0x03, 0x02, 0, 0, 0, 0, 1, 2, 0, 0, 0]);
    } else {
        bytes.extend([digits[0], digits[1], 0x02, 0, 0, 0, 0, 0, 0, 0]);
    }
    let data = pins * 8;
    bytes.extend((5 + u32::from(data)).to_ne_bytes());
    bytes.extend(header);
    bytes.push(data);
    bytes.extend(vec![0xFF; usize::from(data)]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_target_begins_with_is_taken() {
        for (modifies, unblocks) in [(false, false), (true, false), (true, true)] {
            let bytes = right(modifies, unblocks);
            let taken = if modifies { pin_pad::modify(&bytes) } else { pin_pad::verify(&bytes) };
            assert!(taken.is_some(), "{bytes:02X?}");
        }
    }
}
