//! The caller's buffer for an answer.

use std::fmt;
use std::mem::MaybeUninit;

use crate::error::Error;

/// Where a reader writes its answer: the resource manager's own buffer, bounds checked.
///
/// The length that the resource manager learns is what was written here, and 0 whenever the call fails: pcscd logs the
/// buffer up to that length even then, so a stale length would put old data into a log.
pub struct ResponseBuffer<'a> {
    octets: &'a mut [MaybeUninit<u8>],
    written: usize,
}

impl<'a> ResponseBuffer<'a> {
    /// A buffer over memory that need not be initialised.
    pub fn new(octets: &'a mut [MaybeUninit<u8>]) -> Self {
        Self { octets, written: 0 }
    }

    /// How many octets fit in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.octets.len()
    }

    /// How many octets were written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.written
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.written == 0
    }

    /// What was written.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        let written = self.octets.get(..self.written).unwrap_or_default();
        // SAFETY: `write` alone moves `written`, and has initialised every octet in front of it.
        unsafe { std::slice::from_raw_parts(written.as_ptr().cast(), written.len()) }
    }

    /// Appends octets.
    ///
    /// # Errors
    /// [`Error::InsufficientBuffer`] if they do not fit; nothing is written then.
    pub fn write(&mut self, octets: &[u8]) -> Result<(), Error> {
        let free = self.octets.get_mut(self.written..).unwrap_or_default();
        let target = free.get_mut(..octets.len()).ok_or(Error::InsufficientBuffer)?;
        for (to, from) in target.iter_mut().zip(octets) {
            to.write(*from);
        }
        self.written += octets.len();
        Ok(())
    }

    /// Forgets what was written, to start again.
    pub fn clear(&mut self) {
        self.written = 0;
    }
}

/// Prints lengths only: an answer may hold secrets.
impl fmt::Debug for ResponseBuffer<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ResponseBuffer")
            .field("written", &self.written)
            .field("capacity", &self.capacity())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_does_not_fit_changes_nothing() {
        let mut memory = [MaybeUninit::new(0xEE); 4];
        let mut buffer = ResponseBuffer::new(&mut memory);
        buffer.write(&[1, 2, 3]).unwrap();
        assert_eq!(buffer.write(&[4, 5]), Err(Error::InsufficientBuffer));
        assert_eq!(buffer.len(), 3);
        buffer.write(&[4]).unwrap();
        assert_eq!(buffer.write(&[5]), Err(Error::InsufficientBuffer));
        assert_eq!((buffer.len(), buffer.capacity()), (4, 4));
        buffer.clear();
        assert!(buffer.is_empty());
        // SAFETY: all four octets were initialised when the array was made.
        let octets = memory.map(|octet| unsafe { octet.assume_init() });
        assert_eq!(octets, [1, 2, 3, 4]);
    }

    #[test]
    fn debug_shows_no_octet() {
        let mut memory = [MaybeUninit::new(0x31); 6];
        let mut buffer = ResponseBuffer::new(&mut memory);
        buffer.write(b"123456").unwrap();
        assert_eq!(format!("{buffer:?}"), "ResponseBuffer { written: 6, capacity: 6 }");
    }
}
