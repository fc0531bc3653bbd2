//! Which message of [`Envelope`](super::Envelope) something is, by the number of its field, so that a side that does not know it
//! can say which one it means.

use super::Body;

/// Number of the first field of an encoded envelope; 0 if there is none.
pub(crate) fn first_field(mut message: &[u8]) -> u32 {
    prost::encoding::decode_key(&mut message).map_or(0, |(number, _)| number)
}

impl Body {
    /// The number of its field.
    #[must_use]
    pub const fn number(&self) -> u32 {
        match self {
            Self::Open(_) => 1,
            Self::Transmit(_) => 2,
            Self::Reset(_) => 3,
            Self::Cancel(_) => 4,
            Self::Fetch(_) => 5,
            Self::PinEntry(_) => 6,
            Self::Opened(_) => 16,
            Self::Response(_) => 17,
            Self::Pending(_) => 18,
            Self::CardState(_) => 19,
            Self::SecurityState(_) => 20,
            Self::SnapshotPage(_) => 21,
            Self::Refused(_) => 22,
            Self::Permissions(_) => 23,
            Self::Ping(_) => 32,
            Self::Pong(_) => 33,
            Self::Close(_) => 34,
            Self::Unsupported(_) => 35,
            Self::PairCommit(_) => 48,
            Self::PairNonce(_) => 49,
            Self::PairOpen(_) => 50,
            Self::PairConfirm(_) => 51,
            Self::PairSecret(_) => 52,
            Self::PairStored(_) => 53,
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::messages::Envelope;

    #[test]
    fn the_numbers_are_those_of_the_schema() {
        let mut known = Vec::new();
        for number in 1..100 {
            // A message of no bytes in that field.
            let mut encoded = Vec::new();
            prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut encoded);
            encoded.push(0);
            assert_eq!(first_field(&encoded), number);
            if let Some(body) = Envelope::decode(&*encoded).expect("an envelope").body {
                assert_eq!(body.number(), number, "{body:?}");
                known.push(number);
            }
        }
        assert_eq!(known.len(), 24);
    }

    #[test]
    fn what_is_no_field_has_no_number() {
        for bytes in [&[][..], &[0], &[0x80], &[0xFF; 11], &[0x07]] {
            assert_eq!(first_field(bytes), 0, "{bytes:02X?}");
        }
    }
}
