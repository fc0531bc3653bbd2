use std::time::Duration;

use pocketcard_protocol::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// The daemon's monotonic clock. It goes on while the computer sleeps, so that a pairing offer or a request does not
/// outlive its limit in a closed laptop.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock;

impl Clock {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const ID: ClockId = ClockId::Boottime;
    /// Apple's `CLOCK_MONOTONIC` counts sleep too.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const ID: ClockId = ClockId::Monotonic;

    /// Now, counted from the start of the computer.
    pub fn now(self) -> Timestamp {
        let time = clock_gettime(Self::ID);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
        Timestamp::from_origin(Duration::new(seconds, nanoseconds))
    }

    /// Sleeps until `moment`; at once if it has passed.
    pub(crate) async fn sleep_until(self, moment: Timestamp) {
        tokio::time::sleep(moment.saturating_since(self.now())).await;
    }
}
