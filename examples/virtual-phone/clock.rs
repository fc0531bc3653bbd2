use std::time::Duration;

use async_trait::async_trait;
use pocketcard_phone::Clock;
use pocketcard_protocol::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Time since the computer started, its sleep included.
pub(crate) struct BootClock;

#[async_trait]
impl Clock for BootClock {
    fn now(&self) -> Timestamp {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
        Timestamp::from_origin(Duration::new(seconds, nanoseconds))
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        tokio::time::sleep(deadline.saturating_since(self.now())).await;
    }
}
