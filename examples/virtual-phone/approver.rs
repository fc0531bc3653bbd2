//! What the card asks its owner, on its way to whoever shows it, and the answers.

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
};

use async_channel::{Receiver, Sender};
use async_trait::async_trait;
use pocketcard_phone::{ApprovalDecision, ApprovalRequest, Approver, OwnerCheck, OwnerDecision, PinAnswer, PinRequest};

/// What the owner is asked, for whoever shows it.
pub(crate) enum Question {
    Asked {
        id: u64,
        asked: Asked,
    },
    /// The question must go away: it was answered, cancelled, or took too long.
    Gone {
        id: u64,
    },
}

pub(crate) enum Asked {
    Approval(ApprovalRequest, Sender<ApprovalDecision>),
    Pin(PinRequest, Sender<PinAnswer>),
    Owner(OwnerCheck, Sender<OwnerDecision>),
}

/// Asks whoever reads the questions.
pub(crate) struct AskOwner {
    next: AtomicU64,
    questions: Sender<Question>,
    approves: bool,
    has_sensor: bool,
}

impl AskOwner {
    /// - `approves`: whether every use of a key is approved without asking; for test cards only. PINs are asked for all the same.
    /// - `has_sensor`: whether there is a stand-in for a sensor that knows its owner.
    pub(crate) fn new(approves: bool, has_sensor: bool) -> (Self, Receiver<Question>) {
        let (questions, reader) = async_channel::unbounded();
        (Self { next: AtomicU64::new(1), questions, approves, has_sensor }, reader)
    }

    /// Asks, and takes the question back when this future ends or is dropped.
    fn ask<T: Send>(&self, asked: impl FnOnce(Sender<T>) -> Asked) -> impl Future<Output = Option<T>> + Send {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, decision) = async_channel::bounded(1);
        let is_asked = self.questions.try_send(Question::Asked { id, asked: asked(answer) }).is_ok();
        let asking = Asking { id, questions: self.questions.clone() };
        async move {
            let _asking = asking;
            if is_asked { decision.recv().await.ok() } else { None }
        }
    }
}

struct Asking {
    id: u64,
    questions: Sender<Question>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        let _ = self.questions.try_send(Question::Gone { id: self.id });
    }
}

#[async_trait]
impl Approver for AskOwner {
    async fn approve(&self, request: ApprovalRequest) -> ApprovalDecision {
        if self.approves {
            return ApprovalDecision::Approved;
        }
        self.ask(|answer| Asked::Approval(request, answer)).await.unwrap_or(ApprovalDecision::Unanswered)
    }

    async fn enter_pin(&self, request: PinRequest) -> PinAnswer {
        self.ask(|answer| Asked::Pin(request, answer)).await.unwrap_or(PinAnswer::Unanswered)
    }

    fn has_owner_verification(&self) -> bool {
        self.has_sensor
    }

    async fn verify_owner(&self, check: OwnerCheck) -> OwnerDecision {
        if !self.has_sensor {
            return OwnerDecision::Unavailable;
        }
        self.ask(|answer| Asked::Owner(check, answer)).await.unwrap_or(OwnerDecision::Unavailable)
    }
}
