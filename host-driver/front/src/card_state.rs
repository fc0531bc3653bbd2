//! Which commands may leave something on the card that a reset has to end.

use pocketcard_protocol::apdu::Command;

const VERIFY: u8 = 0x20;
const SELECT: u8 = 0xA4;
const GET_DATA: u8 = 0xCB;
const GET_METADATA: u8 = 0xF7;
const GET_SERIAL: u8 = 0xF8;
const GET_VERSION: u8 = 0xFD;

/// Whether the card may behave differently after `command` until it is reset.
///
/// A reset after commands that certainly leave nothing behind need not be sent: its epoch rides on the next request, so
/// a program that only looked at the card costs no message. Whatever is not known for certain counts as leaving
/// something, so that a command of tomorrow is never a hole.
pub(crate) fn may_leave_state(command: &Command) -> bool {
    match command.ins() {
        GET_DATA | GET_METADATA | GET_SERIAL | GET_VERSION => false,
        // Without data it only asks; P1 = FF logs out.
        VERIFY => !command.data().is_empty() || command.p1() != 0,
        _ => true,
    }
}

/// Whether the owner could have refused `command`: it needs a key, a secret or the right to administer.
pub(crate) fn is_guarded(command: &Command) -> bool {
    may_leave_state(command) && command.ins() != SELECT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_commands_known_to_be_harmless_leave_nothing() {
        for (bytes, leaves) in [
            (&[0x00, 0xCB, 0x3F, 0xFF, 0x03, 0x5C, 0x01, 0x7E, 0x00][..], false),
            (&[0x00, 0xFD, 0x00, 0x00, 0x00], false),
            (&[0x00, 0xF8, 0x00, 0x00, 0x00], false),
            (&[0x00, 0xF7, 0x00, 0x9A, 0x00], false),
            (&[0x00, 0x20, 0x00, 0x80], false),
            (&[0x00, 0x20, 0xFF, 0x80], true),
            (&[0x00, 0x20, 0x00, 0x80, 0x02, 0x31, 0x32], true),
            (&[0x00, 0xA4, 0x04, 0x00], true),
            (&[0x00, 0x87, 0x11, 0x9A, 0x02, 0x7C, 0x00, 0x00], true),
            (&[0x00, 0xDB, 0x3F, 0xFF], true),
            (&[0x80, 0x77, 0x00, 0x00], true),
        ] {
            let command = Command::parse(bytes).unwrap();
            assert_eq!(may_leave_state(&command), leaves, "{bytes:02x?}");
            assert_eq!(is_guarded(&command), leaves && command.ins() != SELECT, "{bytes:02x?}");
        }
    }
}
