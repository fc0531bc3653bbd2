//! Wiping of long buffers on the hot path, and a buffer that leaves no copy of its content behind.
//!
//! `zeroize` writes byte by byte, twice for a `Vec`: two microseconds and more for each 4 KiB. This is one `memset`
//! whose result the compiler must assume to be read. Keys and secrets use `zeroize`; APDU bodies and plaintexts this.

use core::mem;
use core::ops::Deref;
use std::hint::black_box;

use zeroize::Zeroizing;

/// Overwrites all that `buffer` ever held within its present allocation, and empties it.
pub(crate) fn wipe_vec(buffer: &mut Vec<u8>) {
    let capacity = buffer.capacity();
    buffer.clear();
    buffer.resize(capacity, 0);
    black_box(buffer.as_mut_slice());
    buffer.clear();
}

/// Bytes that are wiped when dropped, and in every allocation that they outgrow.
///
/// A plain `Vec`, even inside `Zeroizing`, frees its old allocation unwiped whenever it grows.
#[derive(Clone, Default)]
pub(crate) struct WipedBuffer(Vec<u8>);

impl WipedBuffer {
    const SMALLEST: usize = 64;

    /// An empty buffer that holds `capacity` bytes before it has to move.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// Zeros, to be written over.
    pub(crate) fn zeroed(length: usize) -> Self {
        Self(vec![0; length])
    }

    /// Makes room for `length` bytes in all; what is in the buffer is kept.
    pub(crate) fn reserve_total(&mut self, length: usize) {
        if length > self.0.capacity() {
            let capacity = length.max(self.0.capacity().saturating_mul(2)).max(Self::SMALLEST);
            let mut larger = Vec::with_capacity(capacity);
            larger.extend_from_slice(&self.0);
            wipe_vec(&mut self.0);
            self.0 = larger;
        }
    }

    /// The bytes, to be written within the room reserved before.
    pub(crate) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// Appends bytes.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.reserve_total(self.0.len().saturating_add(bytes.len()));
        self.0.extend_from_slice(bytes);
    }

    /// Puts bytes before position `at`; a position past the end counts as the end.
    pub(crate) fn insert(&mut self, at: usize, bytes: &[u8]) {
        let at = at.min(self.0.len());
        self.extend(bytes);
        if let Some(tail) = self.0.get_mut(at..) {
            tail.rotate_right(bytes.len());
        }
    }

    /// Wipes what is in the buffer and empties it; the allocation stays.
    pub(crate) fn clear(&mut self) {
        self.0.fill(0);
        black_box(self.0.as_mut_slice());
        self.0.clear();
    }

    /// The content, still wiped when it is dropped.
    pub(crate) fn into_bytes(mut self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(mem::take(&mut self.0))
    }
}

impl From<Zeroizing<Vec<u8>>> for WipedBuffer {
    /// Takes the bytes over without a copy.
    fn from(mut bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(mem::take(&mut *bytes))
    }
}

impl Deref for WipedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for WipedBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for WipedBuffer {
    fn drop(&mut self) {
        wipe_vec(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_inserts_like_a_vec() {
        let mut buffer = WipedBuffer::default();
        let mut plain = Vec::new();
        for n in 0..200u8 {
            buffer.extend(&[n, n ^ 0xFF]);
            plain.extend_from_slice(&[n, n ^ 0xFF]);
            let at = usize::from(n);
            buffer.insert(at, &[1, 2, 3]);
            plain.splice(at..at, [1, 2, 3]);
        }
        assert_eq!(&buffer[..], &plain[..]);
        buffer.insert(usize::MAX, &[9]);
        assert_eq!(buffer.last(), Some(&9));
        assert_eq!(buffer.clone().into_bytes().as_slice(), &buffer[..]);
    }

    #[test]
    fn wiped_bytes_are_gone_from_the_whole_allocation() {
        let mut bytes = vec![7; 100];
        bytes.truncate(10);
        let (start, capacity) = (bytes.as_ptr(), bytes.capacity());
        wipe_vec(&mut bytes);
        assert_eq!((bytes.len(), bytes.as_ptr(), bytes.capacity()), (0, start, capacity), "wiped in place");

        let mut buffer = WipedBuffer::with_capacity(100);
        buffer.extend(&[7; 100]);
        let start = buffer.as_ptr();
        buffer.clear();
        assert_eq!((buffer.len(), buffer.bytes_mut().as_ptr()), (0, start), "the allocation stays");
    }
}
