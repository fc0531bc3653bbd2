use std::fmt;

use zeroize::Zeroize;

use super::MAX_APDU;

/// Longest body of a frame: an APDU, the kind byte and a few fields.
pub const MAX_FRAME: usize = MAX_APDU + 16;

const HEADER: usize = 4;

/// Why a stream is not one of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A body longer than [`MAX_FRAME`].
    #[error("a frame is longer than {MAX_FRAME} bytes")]
    TooLong,
    /// A body without a kind byte.
    #[error("a frame is empty")]
    Empty,
}

/// Puts a frame of one kind byte and `parts` into `frame`, replacing (and wiping) what was there.
///
/// # Errors
/// [`FrameError::TooLong`]; `frame` is then empty.
pub fn write_frame(frame: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) -> Result<(), FrameError> {
    frame.as_mut_slice().zeroize();
    frame.clear();
    let length = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    let header = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME).ok_or(FrameError::TooLong)?;
    frame.reserve(HEADER + length);
    frame.extend_from_slice(&header.to_be_bytes());
    frame.push(kind);
    for part in parts {
        frame.extend_from_slice(part);
    }
    Ok(())
}

/// Cuts a stream into frames in place: read into [`FrameBuffer::space`], then take [`FrameBuffer::frame`]s out.
///
/// One read takes in whatever has arrived, and a frame is used where it lies. Frames are wiped behind the reader.
pub struct FrameBuffer {
    bytes: Vec<u8>,
    /// Where the frame that was given out last begins; it is wiped at the next call.
    given: usize,
    start: usize,
    end: usize,
}

impl Default for FrameBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FrameBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameBuffer({} bytes)", self.end - self.start)
    }
}

impl Drop for FrameBuffer {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl FrameBuffer {
    /// An empty buffer with room for the longest frame.
    pub fn new() -> Self {
        Self { bytes: vec![0; HEADER + MAX_FRAME], given: 0, start: 0, end: 0 }
    }

    /// Room to read into; never empty as long as [`FrameBuffer::frame`] was called until it gave none.
    pub fn space(&mut self) -> &mut [u8] {
        self.wipe_given();
        if self.start > 0 {
            let left = self.end - self.start;
            self.bytes.copy_within(self.start..self.end, 0);
            if let Some(stale) = self.bytes.get_mut(left.max(self.start)..self.end) {
                stale.zeroize();
            }
            (self.given, self.start, self.end) = (0, 0, left);
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// Says how many bytes were read into [`FrameBuffer::space`].
    pub fn filled(&mut self, count: usize) {
        self.end = self.end.saturating_add(count).min(self.bytes.len());
    }

    /// Body of the next whole frame. It is wiped by the next call of any method.
    ///
    /// # Errors
    /// [`FrameError`]; close the connection then.
    pub fn frame(&mut self) -> Result<Option<&[u8]>, FrameError> {
        self.wipe_given();
        let Some(length) = self.next_length()? else { return Ok(None) };
        self.given = self.start;
        self.start += HEADER + length;
        Ok(self.bytes.get(self.given + HEADER..self.start))
    }

    /// Whether [`FrameBuffer::frame`] has one to give.
    ///
    /// # Errors
    /// [`FrameError`]; close the connection then.
    pub fn has_frame(&self) -> Result<bool, FrameError> {
        Ok(self.next_length()?.is_some())
    }

    /// Whether bytes are left that are not yet a frame.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Forgets everything, for a new connection.
    pub fn clear(&mut self) {
        if let Some(used) = self.bytes.get_mut(..self.end) {
            used.zeroize();
        }
        (self.given, self.start, self.end) = (0, 0, 0);
    }

    /// Length of the next body, if it is there as a whole.
    fn next_length(&self) -> Result<Option<usize>, FrameError> {
        let pending = self.bytes.get(self.start..self.end).unwrap_or_default();
        let Some((header, body)) = pending.split_first_chunk::<HEADER>() else { return Ok(None) };
        match usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX) {
            0 => Err(FrameError::Empty),
            length if length > MAX_FRAME => Err(FrameError::TooLong),
            length if length > body.len() => Ok(None),
            length => Ok(Some(length)),
        }
    }

    fn wipe_given(&mut self) {
        if let Some(given) = self.bytes.get_mut(self.given..self.start) {
            given.zeroize();
        }
        self.given = self.start;
        if self.start == self.end {
            (self.given, self.start, self.end) = (0, 0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(buffer: &mut FrameBuffer, bytes: &[u8]) -> usize {
        let space = buffer.space();
        let count = space.len().min(bytes.len());
        space[..count].copy_from_slice(&bytes[..count]);
        buffer.filled(count);
        count
    }

    #[test]
    fn the_longest_frame_fits_and_one_byte_more_does_not() {
        let mut frame = Vec::new();
        write_frame(&mut frame, 1, &[&vec![7; MAX_FRAME - 1]]).unwrap();
        let mut buffer = FrameBuffer::new();
        assert_eq!(read(&mut buffer, &frame), frame.len());
        assert_eq!(buffer.frame().unwrap().unwrap().len(), MAX_FRAME);
        assert_eq!(write_frame(&mut frame, 1, &[&vec![7; MAX_FRAME]]), Err(FrameError::TooLong));

        let mut buffer = FrameBuffer::new();
        read(&mut buffer, &u32::try_from(MAX_FRAME + 1).unwrap().to_be_bytes());
        assert_eq!(buffer.frame(), Err(FrameError::TooLong));
        let mut buffer = FrameBuffer::new();
        read(&mut buffer, &[0; 4]);
        assert_eq!(buffer.frame(), Err(FrameError::Empty));
    }

    #[test]
    fn frames_are_wiped_behind_the_reader() {
        let mut frame = Vec::new();
        let mut buffer = FrameBuffer::new();
        write_frame(&mut frame, 1, &[b"secret"]).unwrap();
        let mut two = frame.clone();
        two.extend_from_slice(&frame);
        read(&mut buffer, &two[..two.len() - 1]);
        assert_eq!(buffer.frame().unwrap().unwrap(), b"\x01secret");
        assert_eq!(buffer.frame().unwrap(), None);
        read(&mut buffer, &two[two.len() - 1..]);
        assert_eq!(buffer.frame().unwrap().unwrap(), b"\x01secret");
        assert_eq!(buffer.frame().unwrap(), None);
        assert!(buffer.bytes.iter().all(|byte| *byte == 0), "nothing of either frame is left");
        write_frame(&mut frame, 2, &[]).unwrap();
        assert_eq!(frame, [0, 0, 0, 1, 2]);
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20),
            cuts in prop::collection::vec(1usize..40, 1..60),
        ) {
            let mut stream = Vec::new();
            let mut frame = Vec::new();
            for body in &bodies {
                write_frame(&mut frame, 0x42, &[body]).unwrap();
                stream.extend_from_slice(&frame);
            }
            let mut buffer = FrameBuffer::new();
            let mut seen = Vec::new();
            let mut rest = stream.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let count = read(&mut buffer, &rest[..(*cut).min(rest.len())]);
                rest = &rest[count..];
                while let Some(frame) = buffer.frame().unwrap() {
                    prop_assert_eq!(frame[0], 0x42);
                    seen.push(frame[1..].to_vec());
                }
            }
            prop_assert_eq!(seen, bodies);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn any_stream_is_bounded(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..40)) {
            let mut buffer = FrameBuffer::new();
            'stream: for chunk in &chunks {
                let mut rest = chunk.as_slice();
                while !rest.is_empty() {
                    let count = read(&mut buffer, rest);
                    prop_assert!(count > 0, "there is always room after the frames were taken");
                    rest = &rest[count..];
                    loop {
                        match buffer.frame() {
                            Ok(Some(frame)) => prop_assert!(frame.len() <= MAX_FRAME),
                            Ok(None) => break,
                            Err(_) => break 'stream,
                        }
                    }
                }
            }
        }
    }
}
