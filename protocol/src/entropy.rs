//! Randomness, given by the caller.

/// A cryptographically secure random source: the operating system's, or a fixed one in a test.
pub trait Entropy: Send + Sync {
    /// Fills all of `buffer` with random bytes.
    ///
    /// # Errors
    /// [`EntropyError`] if the source failed. Whatever is in `buffer` must then not be used.
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError>;
}

/// The random source failed; nothing secret may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the random source failed")]
pub struct EntropyError;
