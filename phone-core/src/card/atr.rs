//! The answer to reset that a reader shows for this card.

/// An answer to reset: `3B`, T=1 offered, a compact-TLV that says the card takes command chaining and extended lengths, an
/// issuer text, and the check character.
///
/// T0 has no interface byte TA1 (a leading nibble F makes management tools take the reader for a USB token), T=1 is offered
/// because some clients connect with nothing else, and the historical bytes do not name a make of card that clients would
/// treat specially.
///
/// Spec: ISO/IEC 7816-3 section 8; ISO/IEC 7816-4 section 12.1.1
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerToReset([u8; 19]);

impl AnswerToReset {
    /// The answer to reset of every Pocketcard.
    pub const POCKETCARD: Self = Self([
        0x3B, // direct convention
        0x8C, // T0: TD1 follows, 12 historical bytes
        0x81, // TD1: TD2 follows; T=1
        0x31, // TD2: TA3 and TB3 follow; T=1
        0xFE, // TA3: information field of 254 bytes
        0x45, // TB3: waiting times
        0x80, // category: compact-TLV
        0x73, 0xC0, 0x01, 0xC0, // capabilities: selection by full and partial name; chaining and extended lengths
        0x56, b'P', b'h', b'o', b'n', b'e', b'V', // card issuer's data
        0x29, // check character
    ]);

    /// The bytes, TS first; at most 33.
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes with which OpenSC, ykman and yubico-piv-tool were observed to work.
    #[test]
    fn the_bytes_are_the_observed_ones() {
        let mut expected = vec![0x3B, 0x8C, 0x81, 0x31, 0xFE, 0x45, 0x80, 0x73, 0xC0, 0x01, 0xC0, 0x56];
        expected.extend_from_slice(b"PhoneV");
        expected.push(0x29);
        assert_eq!(AnswerToReset::POCKETCARD.as_bytes(), expected);
        assert!(AnswerToReset::POCKETCARD.as_bytes().len() <= 33);
    }

    #[test]
    fn a_reader_can_parse_it() {
        let [ts, t0, td1, td2, _ta3, _tb3, rest @ ..] = AnswerToReset::POCKETCARD.as_bytes() else {
            panic!("too short")
        };
        assert_eq!(*ts, 0x3B);
        assert_eq!(t0 >> 4, 0x8, "TD1 only; F would look like a USB token to ykman");
        assert_eq!(td1, &0x81, "TD2 follows, T=1");
        assert_eq!(td2 & 0x0F, 1, "T=1");
        let historical = usize::from(t0 & 0x0F);
        assert_eq!(rest.len(), historical + 1);
        let (category, mut compact) = rest[..historical].split_first().unwrap();
        assert_eq!(*category, 0x80);
        let mut found = Vec::new();
        while let Some((head, tail)) = compact.split_first() {
            let (value, next) = tail.split_at(usize::from(head & 0x0F));
            found.push((head >> 4, value));
            compact = next;
        }
        assert_eq!(found[0].0, 7);
        assert_eq!(found[0].1[2] & 0xC0, 0xC0, "chaining and extended lengths");
        assert_eq!(found[1], (5, &b"PhoneV"[..]));
        let check = AnswerToReset::POCKETCARD.as_bytes()[1..].iter().fold(0, |sum, byte| sum ^ byte);
        assert_eq!(check, 0, "TCK makes the exclusive or of everything after TS zero");
    }
}
