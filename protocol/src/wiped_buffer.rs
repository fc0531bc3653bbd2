//! A growing byte buffer that leaves no copy of its content behind.

use core::ops::Deref;

use zeroize::Zeroizing;

/// Collects bytes whose number is not known beforehand and wipes every allocation it leaves.
///
/// A plain `Vec`, even inside `Zeroizing`, frees its old allocation unwiped whenever it grows.
#[derive(Default)]
pub(crate) struct WipedBuffer(Zeroizing<Vec<u8>>);

impl WipedBuffer {
    const SMALLEST: usize = 64;

    /// An empty buffer that holds `capacity` bytes before it has to move.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    /// Appends bytes; the allocation they outgrow is wiped.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
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

    /// The content, still wiped when it is dropped.
    pub(crate) fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.0
    }

    fn reserve(&mut self, additional: usize) {
        let needed = self.0.len().saturating_add(additional);
        if needed > self.0.capacity() {
            let capacity = needed.max(self.0.capacity().saturating_mul(2)).max(Self::SMALLEST);
            let mut grown = Zeroizing::new(Vec::with_capacity(capacity));
            grown.extend_from_slice(&self.0);
            // The old allocation is wiped here, by the drop of what `grown` replaces.
            self.0 = grown;
        }
    }
}

impl Deref for WipedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
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
    }
}
