//! One response APDU.

use core::fmt;

use zeroize::Zeroizing;

use super::{ApduError, StatusWord};
use crate::wipe::WipedBuffer;

/// Most bytes that an extended Le can ask for.
const LONGEST_DATA: usize = 0x1_0000;

/// An answer of a card: data and a status word.
///
/// It is wiped when dropped, and `Debug` shows the length and the status, never the data.
///
/// Spec: ISO/IEC 7816-4 section 5.1; SPEC.md section 7.2
#[derive(Clone)]
pub struct Response {
    /// The data and, in its last two bytes, the status word.
    bytes: WipedBuffer,
    status: StatusWord,
}

impl Response {
    /// An answer with data.
    pub fn new(data: &[u8], status: StatusWord) -> Self {
        let mut bytes = WipedBuffer::with_capacity(data.len() + 2);
        bytes.extend(data);
        bytes.extend(&status.to_bytes());
        Self { bytes, status }
    }

    /// An answer that is a status word and nothing else.
    pub fn status_only(status: StatusWord) -> Self {
        Self::new(&[], status)
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// [`ApduError::Truncated`] without a status word; [`ApduError::DataTooLong`] above 65,536 bytes of data.
    pub fn parse(bytes: &[u8]) -> Result<Self, ApduError> {
        Self::from_bytes(Zeroizing::new(bytes.to_vec()))
    }

    /// Reads an answer without copying it.
    ///
    /// # Errors
    /// As [`Response::parse`]; the bytes are wiped then.
    pub fn from_bytes(bytes: Zeroizing<Vec<u8>>) -> Result<Self, ApduError> {
        let bytes = WipedBuffer::from(bytes);
        let Some((data, status)) = bytes.split_last_chunk::<2>() else {
            return Err(ApduError::Truncated { length: bytes.len() });
        };
        if data.len() > LONGEST_DATA {
            return Err(ApduError::DataTooLong { length: data.len() });
        }
        let status = StatusWord::from(u16::from_be_bytes(*status));
        Ok(Self { bytes, status })
    }

    /// The data, empty when there is none.
    pub fn data(&self) -> &[u8] {
        self.bytes.split_last_chunk::<2>().map_or(&[], |(data, _)| data)
    }

    /// The status word.
    pub fn status(&self) -> StatusWord {
        self.status
    }

    /// The answer as sent, without a copy.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The answer as sent, without a copy.
    pub fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.bytes.into_bytes()
    }

    /// A copy of the answer as sent.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.bytes.to_vec())
    }
}

impl From<StatusWord> for Response {
    fn from(status: StatusWord) -> Self {
        Self::status_only(status)
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("data_length", &self.data().len())
            .field("status", &format_args!("{}", self.status))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_is_no_response() {
        assert_eq!(Response::parse(&[]).unwrap_err(), ApduError::Truncated { length: 0 });
        assert_eq!(Response::parse(&[0x90]).unwrap_err(), ApduError::Truncated { length: 1 });
        let long = vec![0; 65_539];
        assert_eq!(Response::parse(&long).unwrap_err(), ApduError::DataTooLong { length: 65_537 });
        assert_eq!(Response::parse(&long[1..]).unwrap().data().len(), 65_536);
    }

    #[test]
    fn debug_shows_no_data() {
        let shown = format!("{:?}", Response::new(&[0xAB; 3], StatusWord::RemainingTries(2)));
        assert_eq!(shown, "Response { data_length: 3, status: 63C2 }");
    }

    proptest! {
        #[test]
        fn comes_back_as_itself(data in prop::collection::vec(any::<u8>(), 0..600), status in any::<u16>()) {
            let response = Response::new(&data, status.into());
            let again = Response::parse(&response.to_bytes()).unwrap();
            prop_assert_eq!(again.data(), &data[..]);
            prop_assert_eq!(again.status(), status.into());
            prop_assert_eq!(again.as_bytes(), response.as_bytes());
        }
    }
}
