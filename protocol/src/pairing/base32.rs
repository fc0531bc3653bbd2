//! Base 32 (RFC 4648, section 6) without padding: upper case, so that a QR code uses its compact alphanumeric mode.

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Why text is not base 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base32Error {
    /// A character that is not of the alphabet, counted from 0.
    Character(usize),
    /// A length that no bytes have, or bits set after the last byte.
    Length,
}

/// Appends the text for `bytes`.
pub(super) fn encode(bytes: &[u8], text: &mut String) {
    let (mut bits, mut count) = (0_u32, 0);
    for &byte in bytes {
        bits = bits << 8 | u32::from(byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            text.push(character(bits >> count));
        }
    }
    if count > 0 {
        text.push(character(bits << (5 - count)));
    }
}

/// Appends the bytes of `text`, which may be in lower case.
pub(super) fn decode(text: &str, bytes: &mut Vec<u8>) -> Result<(), Base32Error> {
    let (mut bits, mut count) = (0_u32, 0);
    for (position, character) in text.chars().enumerate() {
        bits = bits << 5 | value(character).ok_or(Base32Error::Character(position))?;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xFF) as u8);
        }
    }
    // What is left is padding: fewer than five bits, all zero, else two texts would mean the same bytes.
    if count >= 5 || bits & ((1 << count) - 1) != 0 { Err(Base32Error::Length) } else { Ok(()) }
}

fn character(bits: u32) -> char {
    ALPHABET.get((bits & 31) as usize).copied().map_or('=', char::from)
}

fn value(character: char) -> Option<u32> {
    match character.to_ascii_uppercase() {
        letter @ 'A'..='Z' => Some(u32::from(letter) - u32::from('A')),
        digit @ '2'..='7' => Some(u32::from(digit) - u32::from('2') + 26),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_rfc_4648() {
        // RFC 4648, section 10, without the padding.
        let table = [
            ("", ""),
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foo", "MZXW6"),
            ("foob", "MZXW6YQ"),
            ("fooba", "MZXW6YTB"),
            ("foobar", "MZXW6YTBOI"),
        ];
        for (bytes, text) in table {
            let mut encoded = String::new();
            encode(bytes.as_bytes(), &mut encoded);
            assert_eq!(encoded, text);
            let mut decoded = Vec::new();
            assert_eq!(decode(&text.to_lowercase(), &mut decoded), Ok(()));
            assert_eq!(decoded, bytes.as_bytes());
        }
    }

    #[test]
    fn other_text_is_refused() {
        let table = [
            ("MZ1W", Base32Error::Character(2)),
            ("M=", Base32Error::Character(1)),
            ("MÄ", Base32Error::Character(1)),
            ("M", Base32Error::Length),
            ("MZX", Base32Error::Length),
            ("MZ", Base32Error::Length),
        ];
        for (text, error) in table {
            assert_eq!(decode(text, &mut Vec::new()), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_decoded_is_encoded_the_same(text in "[A-Z2-7]{0,40}") {
            let mut bytes = Vec::new();
            if decode(&text, &mut bytes).is_ok() {
                let mut again = String::new();
                encode(&bytes, &mut again);
                prop_assert_eq!(again, text);
            }
        }
    }
}
