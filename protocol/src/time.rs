//! Monotonic time, given by the caller.

use std::ops::{Add, AddAssign};
use std::time::Duration;

/// A moment on a clock that never goes back, counted from an origin that the caller chose.
///
/// Only moments of one origin may be compared. The clock must not stop while the machine sleeps if the limits of this
/// crate are to hold across a suspend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(Duration);

impl Timestamp {
    /// The origin itself.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// The moment `elapsed` after the origin.
    #[must_use]
    pub const fn from_origin(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// Time since the origin.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        self.0
    }

    /// Time since `earlier`; zero if `earlier` is in fact later.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    /// The moment `duration` later; stays at the end of time instead of wrapping.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

impl AddAssign<Duration> for Timestamp {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let second = Timestamp::from_origin(Duration::from_secs(1));
        assert_eq!(Timestamp::ZERO.saturating_since(second), Duration::ZERO);
        assert_eq!(second.saturating_since(Timestamp::ZERO), Duration::from_secs(1));
        assert_eq!((second + Duration::MAX).as_duration(), Duration::MAX);
    }
}
