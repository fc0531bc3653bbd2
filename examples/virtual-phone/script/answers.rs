//! The questions that wait for the script, and its answers.

use std::collections::HashMap;

use async_channel::Sender;
use pocketcard_phone::{ApprovalDecision, EnteredPin, NewPin, OwnerDecision, PinAnswer, PinPurpose, PinRequest};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    approver::{Asked, Question},
    events,
};

/// Every question has a number; no two are alike, whatever their kind.
#[derive(Default)]
pub(super) struct Answers {
    approvals: HashMap<u64, Sender<ApprovalDecision>>,
    pins: HashMap<u64, (PinPurpose, Sender<PinAnswer>)>,
    checks: HashMap<u64, Sender<OwnerDecision>>,
}

impl Answers {
    /// What to report about a question; `None` if it is gone because it was answered.
    pub(super) fn question(&mut self, question: Question) -> Option<Value> {
        match question {
            Question::Asked { id, asked: Asked::Approval(request, answer) } => {
                self.approvals.insert(id, answer);
                Some(events::approval(id, &request))
            }
            Question::Asked { id, asked: Asked::Pin(request, answer) } => {
                let PinRequest { purpose, .. } = request;
                self.pins.insert(id, (purpose, answer));
                Some(events::pin_asked(id, &request))
            }
            Question::Asked { id, asked: Asked::Owner(check, answer) } => {
                self.checks.insert(id, answer);
                Some(events::owner_check_asked(id, &check))
            }
            Question::Gone { id } => {
                let kind = if self.approvals.remove(&id).is_some() {
                    "approval_gone"
                } else if self.pins.remove(&id).is_some() {
                    "pin_gone"
                } else if self.checks.remove(&id).is_some() {
                    "owner_check_gone"
                } else {
                    return None;
                };
                Some(json!({ "event": kind, "id": id }))
            }
        }
    }

    pub(super) fn approve(&mut self, id: u64, agree: bool) -> Result<(), &'static str> {
        let answer = self.approvals.remove(&id).ok_or("no approval with this id is waiting")?;
        let _ = answer.try_send(if agree { ApprovalDecision::Approved } else { ApprovalDecision::Denied });
        Ok(())
    }

    /// An answer that lacks what is asked for leaves the question open.
    pub(super) fn enter_pin(
        &mut self,
        id: u64,
        current: &str,
        new: Option<&str>,
        repeated: Option<&str>,
    ) -> Result<(), &'static str> {
        let (purpose, _) = self.pins.get(&id).ok_or(NO_PIN)?;
        let new = match (purpose.asks_for_new(), new, repeated) {
            (false, None, None) => None,
            (true, Some(value), Some(repeated)) => Some(NewPin { value: secret(value), repeated: secret(repeated) }),
            (true, ..) => return Err("this asks for a new one too: \"new\" and \"repeated\""),
            (false, ..) => return Err("this asks for no new PIN: leave \"new\" and \"repeated\" out"),
        };
        self.answer_pin(id, PinAnswer::Entered(EnteredPin { current: secret(current), new }))
    }

    pub(super) fn cancel_pin(&mut self, id: u64) -> Result<(), &'static str> {
        self.answer_pin(id, PinAnswer::Cancelled)
    }

    fn answer_pin(&mut self, id: u64, answer: PinAnswer) -> Result<(), &'static str> {
        let (_, sender) = self.pins.remove(&id).ok_or(NO_PIN)?;
        let _ = sender.try_send(answer);
        Ok(())
    }

    pub(super) fn check_owner(&mut self, id: u64, decision: OwnerDecision) -> Result<(), &'static str> {
        let answer = self.checks.remove(&id).ok_or("no check of the owner with this id is waiting")?;
        let _ = answer.try_send(decision);
        Ok(())
    }
}

const NO_PIN: &str = "no entry of a PIN with this id is waiting";

fn secret(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}

#[cfg(test)]
mod tests {
    use async_channel::Receiver;
    use pocketcard_phone::HostId;

    use super::*;

    fn ask(answers: &mut Answers, id: u64, purpose: PinPurpose) -> Receiver<PinAnswer> {
        let (sender, answer) = async_channel::bounded(1);
        let request = PinRequest { host: HostId::new([1; 32]), host_name: "laptop".into(), purpose, tries_left: 3 };
        let event = answers.question(Question::Asked { id, asked: Asked::Pin(request, sender) }).unwrap();
        assert_eq!((&event["event"], &event["id"]), (&json!("pin_asked"), &json!(id)));
        answer
    }

    #[test]
    fn an_incomplete_answer_leaves_the_question_open() {
        for purpose in [PinPurpose::Change, PinPurpose::ChangePuk, PinPurpose::Unblock] {
            let mut answers = Answers::default();
            let answer = ask(&mut answers, 1, purpose);
            assert!(answers.enter_pin(1, "123456", None, None).is_err());
            assert!(answers.enter_pin(1, "123456", Some("654321"), None).is_err());
            assert!(answer.is_empty() && !answer.is_closed());
            answers.enter_pin(1, "123456", Some("654321"), Some("654322")).unwrap();
            let PinAnswer::Entered(entered) = answer.try_recv().unwrap() else { panic!("not entered") };
            let new = entered.new.unwrap();
            assert_eq!((&**entered.current, &**new.value, &**new.repeated), ("123456", "654321", "654322"));
        }
        let mut answers = Answers::default();
        let answer = ask(&mut answers, 1, PinPurpose::Verify);
        assert!(answers.enter_pin(1, "123456", Some("654321"), Some("654321")).is_err());
        assert!(answer.is_empty());
    }

    #[test]
    fn a_question_is_answered_once_and_only_one_that_nobody_answered_is_reported_gone() {
        let mut answers = Answers::default();
        let answer = ask(&mut answers, 1, PinPurpose::Verify);
        ask(&mut answers, 2, PinPurpose::Verify);
        assert_eq!(answers.approve(1, true), Err("no approval with this id is waiting"));
        answers.cancel_pin(1).unwrap();
        assert!(matches!(answer.try_recv().unwrap(), PinAnswer::Cancelled));
        assert_eq!(answers.enter_pin(1, "123456", None, None), Err(NO_PIN));
        assert_eq!(answers.question(Question::Gone { id: 1 }), None);
        assert_eq!(answers.question(Question::Gone { id: 2 }), Some(json!({ "event": "pin_gone", "id": 2 })));
        assert_eq!(answers.cancel_pin(2), Err(NO_PIN));
    }
}
