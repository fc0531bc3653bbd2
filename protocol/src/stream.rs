//! Link messages on a byte stream: a length and the message.
//!
//! A Unix or TCP socket keeps order and loses nothing, so a frame is a big-endian `u32` and that many bytes. The hot
//! path copies nothing: [`FrameReader`] gives messages out of the buffer that the socket was read into, and [`header`]
//! beside the message makes one vectored write.
//!
//! Spec: SPEC.md section 5

use core::fmt;

/// Longest link message before the channel is open: handshake messages and `Info` are far shorter.
pub const LONGEST_BEFORE_AUTHENTICATION: usize = 4096;

/// Longest link message in an open channel: its kind and one record of the channel.
pub const LONGEST_MESSAGE: usize = crate::link::LINK_MESSAGE_LIMIT;

/// Bytes of the length.
pub const HEADER: usize = 4;

/// Why a stream cannot be read on, or a message not be sent on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// A message without bytes.
    #[error("an empty message on a stream")]
    Empty,
    /// A message longer than the state of the link allows.
    #[error("a message of {length} bytes where at most {limit} are allowed")]
    TooLong {
        /// Bytes announced.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

/// The bytes that go before a message of this length.
///
/// # Errors
/// [`StreamError::Empty`]; [`StreamError::TooLong`] above [`LONGEST_MESSAGE`].
///
/// Spec: SPEC.md section 5
pub fn header(length: usize) -> Result<[u8; HEADER], StreamError> {
    check(length, LONGEST_MESSAGE)?;
    let length = u32::try_from(length).map_err(|_| StreamError::TooLong { length, limit: LONGEST_MESSAGE })?;
    Ok(length.to_be_bytes())
}

/// Appends a frame to `out`, so that several messages can leave in one write; `out` can be used again and again.
///
/// # Errors
/// As [`header`]; nothing is appended then.
pub fn encode_into(message: &[u8], out: &mut Vec<u8>) -> Result<(), StreamError> {
    let header = header(message.len())?;
    out.reserve(HEADER + message.len());
    out.extend_from_slice(&header);
    out.extend_from_slice(message);
    Ok(())
}

/// One frame in a buffer of its own, for one write.
///
/// # Errors
/// As [`header`].
pub fn encode(message: &[u8]) -> Result<Vec<u8>, StreamError> {
    let mut out = Vec::new();
    encode_into(message, &mut out)?;
    Ok(out)
}

/// Takes a stream in chunks of any size and gives its messages.
///
/// Read from the socket into [`FrameReader::read_buffer`], say how much came with [`FrameReader::filled`], then call
/// [`FrameReader::next_message`] until it gives `None`. The buffer grows to the longest message that came, never above
/// what the limit allows, and is used again, so that nothing is allocated or copied for a message later on.
///
/// After an error the stream has no meaning any more: every further call gives the same error. Close it.
///
/// Spec: SPEC.md section 5
pub struct FrameReader {
    /// Initialised bytes; those of `start..end` came from the stream and were not given out yet.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    limit: usize,
    error: Option<StreamError>,
}

impl FrameReader {
    /// A read must never have less room than this, or many small reads would fetch one message.
    const SPARE: usize = 1024;
    const FIRST: usize = 8 * 1024;

    /// Reads messages of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { buffer: vec![0; Self::FIRST], start: 0, end: 0, limit, error: None }
    }

    /// Changes the limit; it holds for every message that was not given out yet, also if its bytes are here already.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Room to read from the socket into, never empty; call [`FrameReader::filled`] after the read.
    pub fn read_buffer(&mut self) -> &mut [u8] {
        self.make_room(Self::SPARE);
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    /// Says that the first `count` bytes of [`FrameReader::read_buffer`] came from the stream.
    pub fn filled(&mut self, count: usize) {
        self.end = self.end.saturating_add(count).min(self.buffer.len());
    }

    /// Takes bytes that were read elsewhere; this copies them.
    pub fn push(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        if let Some(room) = self.buffer.get_mut(self.end..).and_then(|room| room.get_mut(..bytes.len())) {
            room.copy_from_slice(bytes);
            self.filled(bytes.len());
        }
    }

    /// Gives the next whole message, or `None` until more bytes have come.
    ///
    /// # Errors
    /// [`StreamError`] as soon as a length is here that the limit forbids, before any of its bytes are waited for.
    pub fn next_message(&mut self) -> Result<Option<&[u8]>, StreamError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let Some(length) = self.announced() else { return Ok(None) };
        if let Err(error) = check(length, self.limit) {
            self.error = Some(error);
            return Err(error);
        }
        let message = self.start + HEADER..self.start + HEADER + length;
        if message.end > self.end {
            return Ok(None);
        }
        self.start = message.end;
        Ok(self.buffer.get(message))
    }

    /// Whether the stream ended between two messages; if not, its end cut one off.
    pub fn is_between_messages(&self) -> bool {
        self.start == self.end
    }

    /// Length of the next message, once its header is here.
    fn announced(&self) -> Option<usize> {
        let bytes = self.buffer.get(self.start..self.end)?;
        let header = bytes.first_chunk::<HEADER>()?;
        // A length that does not even fit is above every limit.
        Some(usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX))
    }

    /// Makes room for `spare` bytes after the end, and for the whole message that has begun.
    fn make_room(&mut self, spare: usize) {
        // What comes after an error is thrown away.
        if self.start == self.end || self.error.is_some() {
            self.start = 0;
            self.end = 0;
        }
        let missing = match self.announced() {
            Some(length) if check(length, self.limit).is_ok() => {
                (HEADER + length).saturating_sub(self.end - self.start)
            }
            _ => 0,
        };
        let room = spare.max(missing);
        if self.buffer.len() - self.end >= room {
            return;
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() - self.end < room {
            self.buffer.resize(self.end + room, 0);
        }
    }
}

impl fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameReader")
            .field("waiting", &(self.end - self.start))
            .field("limit", &self.limit)
            .field("error", &self.error)
            .finish()
    }
}

fn check(length: usize, limit: usize) -> Result<(), StreamError> {
    match length {
        0 => Err(StreamError::Empty),
        _ if length > limit => Err(StreamError::TooLong { length, limit }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_lengths_outside_of_the_limit() {
        let too_long = StreamError::TooLong { length: 11, limit: 10 };
        for (bytes, error) in [([0, 0, 0, 0], StreamError::Empty), ([0, 0, 0, 11], too_long)] {
            let mut reader = FrameReader::new(10);
            reader.push(&bytes);
            assert_eq!(reader.next_message(), Err(error));
            // There is no way back.
            reader.set_limit(100);
            reader.push(&[0, 0, 0, 1, 7]);
            assert_eq!(reader.next_message(), Err(error));
        }
        let mut reader = FrameReader::new(LONGEST_MESSAGE);
        reader.push(&[0xFF; 4]);
        assert!(reader.next_message().is_err());
        assert!(reader.read_buffer().len() <= FrameReader::FIRST, "room for a message that is refused");

        assert_eq!(encode(&[]), Err(StreamError::Empty));
        let length = LONGEST_MESSAGE + 1;
        assert_eq!(header(length), Err(StreamError::TooLong { length, limit: LONGEST_MESSAGE }));
        let mut out = vec![1];
        assert!(encode_into(&vec![0; length], &mut out).is_err());
        assert_eq!(out, [1]);
    }

    #[test]
    fn the_limit_follows_the_state_of_the_link() {
        let mut reader = FrameReader::new(4);
        reader.push(&[0, 0, 0, 4, 1, 2, 3, 4, 0, 0, 0, 5, 1, 2, 3, 4, 5]);
        assert_eq!(reader.next_message(), Ok(Some(&[1, 2, 3, 4][..])));
        reader.set_limit(5);
        assert_eq!(reader.next_message(), Ok(Some(&[1, 2, 3, 4, 5][..])));
        assert_eq!(reader.next_message(), Ok(None));
        assert!(reader.is_between_messages());
        reader.push(&[0]);
        assert!(!reader.is_between_messages());
    }

    #[test]
    fn reads_in_place_without_growing() {
        let mut reader = FrameReader::new(LONGEST_MESSAGE);
        let frame = encode(&[9; 4096]).unwrap();
        for _ in 0..100 {
            let room = reader.read_buffer();
            room[..frame.len()].copy_from_slice(&frame);
            reader.filled(frame.len());
            assert_eq!(reader.next_message().unwrap().unwrap().len(), 4096);
            assert_eq!(reader.next_message(), Ok(None));
        }
        assert_eq!(reader.buffer.len(), FrameReader::FIRST);
        // One byte less than a message: room for the last byte, and for more than that.
        reader.push(&frame[..frame.len() - 1]);
        assert!(reader.read_buffer().len() >= FrameReader::SPARE);
    }

    proptest! {
        #[test]
        fn any_chunks_give_the_same_messages(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..3000), 0..12),
            chunks in prop::collection::vec(1..5000usize, 1..40),
            in_place in any::<bool>(),
        ) {
            let mut stream = Vec::new();
            for message in &messages {
                encode_into(message, &mut stream).unwrap();
            }
            let mut reader = FrameReader::new(3000);
            let mut seen = Vec::new();
            let mut rest = &stream[..];
            for chunk in chunks.iter().cycle() {
                let mut count = rest.len().min(*chunk);
                if in_place {
                    let room = reader.read_buffer();
                    prop_assert!(!room.is_empty());
                    count = count.min(room.len());
                    room[..count].copy_from_slice(&rest[..count]);
                    reader.filled(count);
                } else {
                    reader.push(&rest[..count]);
                }
                rest = &rest[count..];
                while let Some(message) = reader.next_message().unwrap() {
                    seen.push(message.to_vec());
                }
                prop_assert!(reader.buffer.len() <= 2 * FrameReader::FIRST);
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(seen, messages);
            prop_assert!(reader.is_between_messages());
        }
    }
}
