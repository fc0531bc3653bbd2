//! A clock that stands still, an approver without an opinion of its own: for tests, never part of an app.

use std::{
    future::poll_fn,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use pocketcard_protocol::time::Timestamp;

use crate::traits::{ApprovalDecision, ApprovalRequest, Approver, Clock, PinAnswer, PinRequest};

/// A clock that only [`ManualClock::advance`] moves.
#[derive(Default)]
pub struct ManualClock {
    state: Mutex<ClockState>,
}

#[derive(Default)]
struct ClockState {
    now: Timestamp,
    sleepers: Vec<Waker>,
}

impl ManualClock {
    /// A clock at its origin.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock and wakes whoever sleeps.
    pub fn advance(&self, duration: Duration) {
        let mut state = self.state();
        state.now += duration;
        state.sleepers.drain(..).for_each(Waker::wake);
    }

    fn state(&self) -> MutexGuard<'_, ClockState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.state().now
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        poll_fn(|context| {
            let mut state = self.state();
            if state.now >= deadline {
                return Poll::Ready(());
            }
            state.sleepers.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Answers every question the same way, and enters no PIN.
#[derive(Clone, Copy, Debug)]
pub struct FixedApprover(pub ApprovalDecision);

#[async_trait]
impl Approver for FixedApprover {
    async fn approve(&self, _request: ApprovalRequest) -> ApprovalDecision {
        self.0
    }

    async fn enter_pin(&self, _request: PinRequest) -> PinAnswer {
        PinAnswer::Unanswered
    }
}
