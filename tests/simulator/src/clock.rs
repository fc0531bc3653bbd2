//! The clock of a simulated phone: it stands still until the world moves it.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use async_trait::async_trait;
use pocketcard_phone::Clock;
use pocketcard_protocol::Timestamp;

/// Time as the world tells it. It knows when its next sleeper wants to be woken, so that the world can jump there.
#[derive(Debug, Default)]
pub(crate) struct VirtualClock(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    now: Timestamp,
    sleepers: BTreeMap<u64, (Timestamp, Waker)>,
    next: u64,
}

impl VirtualClock {
    /// Moves the clock and wakes whoever is due. It never goes back.
    pub(crate) fn set(&self, now: Timestamp) {
        let mut state = self.state();
        state.now = state.now.max(now);
        let now = state.now;
        // Once, as a timer does: the future may not want to know any more.
        for (_, (_, waker)) in state.sleepers.extract_if(.., |_, (until, _)| *until <= now) {
            waker.wake();
        }
    }

    /// When the next sleeper wakes.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.state().sleepers.values().map(|(until, _)| *until).min()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        self.state().now
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        let number = {
            let mut state = self.state();
            state.next += 1;
            state.next
        };
        let sleeper = Sleeper { clock: self, number };
        poll_fn(|context| {
            let mut state = self.state();
            if state.now >= deadline {
                return Poll::Ready(());
            }
            state.sleepers.insert(sleeper.number, (deadline, context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// Takes itself off the list when its future ends or is dropped.
struct Sleeper<'a> {
    clock: &'a VirtualClock,
    number: u64,
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.clock.state().sleepers.remove(&self.number);
    }
}

/// Notes that a future wants to be polled.
#[derive(Debug, Default)]
pub(crate) struct Flag(std::sync::atomic::AtomicBool);

impl Flag {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(true.into()))
    }

    /// Whether it was woken since the last call.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, std::sync::atomic::Ordering::AcqRel)
    }
}

impl std::task::Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_sleeper_is_known_until_it_wakes_or_is_dropped() {
        let clock = VirtualClock::default();
        let at = |seconds| Timestamp::from_origin(Duration::from_secs(seconds));
        let flag = Flag::new();
        let waker = Waker::from(Arc::clone(&flag));
        let mut context = Context::from_waker(&waker);
        {
            let mut sleeping = pin!(clock.sleep_until(at(2)));
            let mut longer = Box::pin(clock.sleep_until(at(3)));
            assert!(sleeping.as_mut().poll(&mut context).is_pending());
            assert!(longer.as_mut().poll(&mut context).is_pending());
            flag.take();
            clock.set(at(1));
            assert!(!flag.take());
            assert_eq!(clock.next_deadline(), Some(at(2)));
            clock.set(at(2));
            assert!(flag.take());
            assert!(sleeping.as_mut().poll(&mut context).is_ready());
        }
        assert_eq!(clock.next_deadline(), None);
    }
}
