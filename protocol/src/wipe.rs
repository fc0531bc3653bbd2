//! Wiping of long buffers on the hot path.

use std::hint::black_box;

/// Overwrites `buffer` with zeros.
///
/// `zeroize` writes byte by byte, which costs a microsecond for each 4 KiB; this is one `memset` whose result the
/// compiler must assume to be read. Keys and secrets use `zeroize`; APDU bodies use this.
pub(crate) fn wipe(buffer: &mut [u8]) {
    buffer.fill(0);
    black_box(buffer);
}

/// Overwrites all that `buffer` ever held within its present allocation, and empties it.
pub(crate) fn wipe_vec(buffer: &mut Vec<u8>) {
    let capacity = buffer.capacity();
    buffer.clear();
    buffer.resize(capacity, 0);
    black_box(buffer.as_mut_slice());
    buffer.clear();
}

/// A growing buffer for plaintext that is wiped when it moves to a larger allocation, when told, and on drop.
#[derive(Default)]
pub(crate) struct Plaintext(Vec<u8>);

impl Plaintext {
    /// Makes room for `length` bytes in all; what was in the buffer is kept.
    pub(crate) fn reserve_total(&mut self, length: usize) {
        if length > self.0.capacity() {
            let mut larger = Vec::with_capacity(length.max(self.0.capacity().saturating_mul(2)));
            larger.extend_from_slice(&self.0);
            wipe_vec(&mut self.0);
            self.0 = larger;
        }
    }

    /// The bytes, to be written within the room reserved before.
    pub(crate) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Wipes what is in the buffer and empties it; the allocation stays.
    pub(crate) fn clear(&mut self) {
        wipe(&mut self.0);
        self.0.clear();
    }
}

impl Drop for Plaintext {
    fn drop(&mut self) {
        wipe_vec(&mut self.0);
    }
}
