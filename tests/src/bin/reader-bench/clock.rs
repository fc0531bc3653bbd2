//! Time that processes can compare.

use rustix::time::{ClockId, clock_gettime};

/// Microseconds of CLOCK_MONOTONIC, the same in every process.
pub(crate) fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000
}
