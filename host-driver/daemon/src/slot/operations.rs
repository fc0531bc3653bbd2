//! Numbers for the commands that people at the computer hear of, so that they can say which one they mean.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pocketcard_protocol::Entropy;

/// The first number is below this: few enough digits to type, and so many that a number of an earlier run of the daemon
/// hardly ever names something in this one.
const FIRST_BELOW: u64 = 10_000;

/// Counts on through all slots, so that a number names one command of one slot.
#[derive(Debug, Clone)]
pub(crate) struct Operations(Arc<AtomicU64>);

impl Operations {
    /// Begins anywhere.
    pub(crate) fn new(entropy: &impl Entropy) -> Self {
        let mut first = [0; 8];
        // Without randomness the numbers begin at 0; nothing secret hangs on them.
        let _ = entropy.fill(&mut first);
        Self(Arc::new(AtomicU64::new(u64::from_be_bytes(first) % FIRST_BELOW)))
    }

    pub(super) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}
