use std::sync::atomic::{AtomicU64, Ordering};

use async_channel::{Receiver, Sender};
use async_trait::async_trait;
use pocketcard_phone::{ApprovalDecision, ApprovalRequest, Approver, PinAnswer, PinRequest};

/// Approves everything, and enters no PIN. For test cards only.
pub(crate) struct AutoApprove;

#[async_trait]
impl Approver for AutoApprove {
    async fn approve(&self, _request: ApprovalRequest) -> ApprovalDecision {
        ApprovalDecision::Approved
    }

    async fn enter_pin(&self, _request: PinRequest) -> PinAnswer {
        PinAnswer::Unanswered
    }
}

/// What the owner is asked, for whoever shows it.
pub(crate) enum Question {
    Asked {
        id: u64,
        request: ApprovalRequest,
        answer: Sender<ApprovalDecision>,
    },
    /// The request was cancelled; the question must go away.
    Gone {
        id: u64,
    },
}

/// Asks whoever reads the questions.
pub(crate) struct AskOwner {
    next: AtomicU64,
    questions: Sender<Question>,
}

impl AskOwner {
    pub(crate) fn new() -> (Self, Receiver<Question>) {
        let (questions, reader) = async_channel::unbounded();
        (Self { next: AtomicU64::new(1), questions }, reader)
    }
}

/// Takes a question back when its future ends or is dropped.
struct Asking<'a> {
    id: u64,
    questions: &'a Sender<Question>,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let _ = self.questions.try_send(Question::Gone { id: self.id });
    }
}

#[async_trait]
impl Approver for AskOwner {
    async fn approve(&self, request: ApprovalRequest) -> ApprovalDecision {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, decision) = async_channel::bounded(1);
        if self.questions.try_send(Question::Asked { id, request, answer }).is_err() {
            return ApprovalDecision::Unanswered;
        }
        let _asking = Asking { id, questions: &self.questions };
        decision.recv().await.unwrap_or(ApprovalDecision::Unanswered)
    }

    async fn enter_pin(&self, _request: PinRequest) -> PinAnswer {
        PinAnswer::Unanswered
    }
}
