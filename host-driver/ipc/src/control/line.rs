use std::fmt;
use std::io::{self, Read};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest line, without its newline. A status of many slots fits several times over.
pub const MAX_LINE: usize = 64 * 1024;

/// Why a line could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The stream ended.
    #[error("the connection was closed")]
    Closed,
    /// More than [`MAX_LINE`] bytes without a newline.
    #[error("a line is longer than {MAX_LINE} bytes")]
    TooLong,
    /// The line is not a message.
    #[error("a line is not a message of this protocol")]
    Malformed,
    /// Reading failed.
    #[error("reading failed")]
    Io(#[from] io::Error),
}

/// The message as one line, newline included.
///
/// # Errors
/// [`LineError::Malformed`] if the message cannot be written as JSON, which no message of this crate brings about.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, LineError> {
    let mut line = serde_json::to_vec(message).map_err(|_| LineError::Malformed)?;
    line.push(b'\n');
    Ok(line)
}

/// Cuts a stream of bytes into lines of at most [`MAX_LINE`] bytes.
#[derive(Default)]
pub struct LineReader {
    buffer: Vec<u8>,
    searched: usize,
}

/// Prints a length only: a line may hold the code of a pairing.
impl fmt::Debug for LineReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LineReader({} bytes)", self.buffer.len())
    }
}

impl LineReader {
    /// An empty reader.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes in, as they come.
    ///
    /// # Errors
    /// [`LineError::TooLong`]; close the connection then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), LineError> {
        self.buffer.extend_from_slice(bytes);
        let complete = self.buffer.get(self.searched..).is_some_and(|fresh| fresh.contains(&b'\n'));
        if self.buffer.len() > MAX_LINE && !complete { Err(LineError::TooLong) } else { Ok(()) }
    }

    /// The next whole line as a message, if there is one.
    ///
    /// # Errors
    /// [`LineError::Malformed`] or [`LineError::TooLong`]; the line is consumed in both cases.
    pub fn next_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LineError> {
        let fresh = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(end) = fresh.iter().position(|byte| *byte == b'\n').map(|at| at + self.searched) else {
            self.searched = self.buffer.len();
            return Ok(None);
        };
        let rest = self.buffer.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.buffer, rest);
        self.searched = 0;
        line.pop();
        if line.len() > MAX_LINE {
            return Err(LineError::TooLong);
        }
        serde_json::from_slice(&line).map(Some).map_err(|_| LineError::Malformed)
    }

    /// Reads until a whole line is there.
    ///
    /// # Errors
    /// As [`LineReader::push`] and [`LineReader::next_message`], and whatever the source gives, time-outs included.
    pub fn read_from<T: DeserializeOwned>(&mut self, source: &mut impl Read) -> Result<T, LineError> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(message) = self.next_message()? {
                return Ok(message);
            }
            let count = match source.read(&mut chunk) {
                Ok(0) => return Err(LineError::Closed),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            self.push(chunk.get(..count).unwrap_or_default())?;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_endless_line_is_refused_before_it_fills_the_memory() {
        let mut reader = LineReader::new();
        let chunk = [b'x'; 4096];
        let refused_at = (0..100).position(|_| reader.push(&chunk).is_err()).unwrap();
        assert_eq!(refused_at, MAX_LINE / chunk.len());
    }

    #[test]
    fn the_longest_line_passes_and_one_byte_more_does_not() {
        let mut reader = LineReader::new();
        let text = "x".repeat(MAX_LINE - 2);
        reader.push(&encode(&text).unwrap()).unwrap();
        assert_eq!(reader.next_message::<String>().unwrap(), Some(text));
        reader.push(&encode(&"x".repeat(MAX_LINE - 1)).unwrap()).unwrap();
        assert!(matches!(reader.next_message::<String>(), Err(LineError::TooLong)));
    }

    proptest! {
        #[test]
        fn lines_survive_any_cut(
            numbers in prop::collection::vec(any::<u64>(), 0..20),
            cuts in prop::collection::vec(1usize..40, 1..60),
        ) {
            let stream: Vec<u8> = numbers.iter().flat_map(|number| encode(number).unwrap()).collect();
            let mut reader = LineReader::new();
            let mut seen = Vec::new();
            let mut rest = stream.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                rest = later;
                reader.push(now).unwrap();
                while let Some(number) = reader.next_message::<u64>().unwrap() {
                    seen.push(number);
                }
            }
            prop_assert_eq!(seen, numbers);
        }
    }
}
