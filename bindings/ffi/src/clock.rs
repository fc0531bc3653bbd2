use std::time::Duration;

use async_trait::async_trait;
use pocketcard_phone::Clock;
use pocketcard_protocol::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Time that goes on while the device sleeps. Apple's `CLOCK_MONOTONIC` does so by itself.
#[cfg(not(target_vendor = "apple"))]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(target_vendor = "apple")]
const CLOCK: ClockId = ClockId::Monotonic;

/// The device's clock; sleeps on the phone's own thread.
pub(crate) struct DeviceClock;

#[async_trait]
impl Clock for DeviceClock {
    fn now(&self) -> Timestamp {
        let time = clock_gettime(CLOCK);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        Timestamp::from_origin(Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default()))
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        tokio::time::sleep(deadline.saturating_since(self.now())).await;
    }
}
