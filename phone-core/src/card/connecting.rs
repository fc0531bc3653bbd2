//! Hosts that may not connect unattended: they have a session but no card, until the owner confirms on the phone.
//!
//! Spec: SPEC.md sections 7.9 and 9.4

use std::time::Duration;

use pocketcard_protocol::messages::{RefusalReason, Refused};
use pocketcard_protocol::time::Timestamp;

use super::applet::SessionId;
use super::effect::{Effect, EffectResult, OperationId};
use super::event::CardEvent;
use super::prompts::Verdict;
use super::{Card, HostId, Output};
use crate::traits::{ApprovalDecision, ApprovalPurpose, ApprovalRequest};

/// How long the owner is asked whether a host gets the card. After that it is as if the answer had been no, but that it does
/// not count as a denial.
pub(super) const CONNECTION_LIMIT: Duration = Duration::from_secs(60);

/// A session without a card.
pub(super) enum Connecting {
    /// Nobody asks the owner: not yet, or no longer.
    Kept,
    /// The owner is being asked.
    Asking { operation: OperationId, until: Timestamp },
}

impl Connecting {
    /// When the question is given up.
    pub(super) const fn deadline(&self) -> Option<Timestamp> {
        match self {
            Self::Kept => None,
            Self::Asking { until, .. } => Some(*until),
        }
    }
}

impl Card {
    /// Whether a session has a card to speak to; the owner's own always has.
    pub(super) fn is_present(&self, id: SessionId) -> bool {
        id == SessionId::OWNER || !self.locked && !self.connecting.contains_key(&id)
    }

    /// A new session gets no card before the owner has confirmed, if its host may not connect unattended.
    pub(super) fn await_confirmation(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        if !self.permissions_of(&session.host).connect_unattended {
            self.connecting.insert(id, Connecting::Kept);
        }
    }

    /// Asks the owner, where nobody has been asked yet and the host is not held.
    pub(super) fn ask_for_connection(&mut self, id: SessionId, now: Timestamp) {
        let Some(session) = self.sessions.get(&id) else { return };
        let (host, host_name) = (session.host, session.host_name.clone());
        if !matches!(self.connecting.get(&id), Some(Connecting::Kept)) {
            return;
        }
        if self.prompts.ask(host, None, now) != Verdict::Ask {
            return self.keep_card_from(id, RefusalReason::TooManyDenials);
        }
        let operation = self.next_operation();
        self.connecting.insert(id, Connecting::Asking { operation, until: now + CONNECTION_LIMIT });
        let purpose = ApprovalPurpose::Connect;
        let request = ApprovalRequest { host, host_name, key: 0, purpose, input_digest: [0; 32] };
        self.outputs.push_back(Output::Effect { operation, effect: Effect::Approve(request) });
    }

    /// The session for which this operation asks the owner.
    pub(super) fn connection_of(&self, operation: OperationId) -> Option<SessionId> {
        let asks = |connecting: &Connecting| matches!(connecting, Connecting::Asking { operation: asked, .. } if *asked == operation);
        self.connecting.iter().find(|(_, connecting)| asks(connecting)).map(|(id, _)| *id)
    }

    pub(super) fn connection_decided(&mut self, id: SessionId, result: EffectResult, now: Timestamp) {
        let Some(session) = self.sessions.get(&id) else { return };
        let (host, host_name) = (session.host, session.host_name.clone());
        self.connecting.insert(id, Connecting::Kept);
        match result {
            EffectResult::Approval(ApprovalDecision::Approved) => {
                self.prompts.answered(host);
                self.tell(CardEvent::ConnectionDecided { host, host_name, refused: None });
                self.admit_session(id);
                self.announce_security();
            }
            EffectResult::Approval(ApprovalDecision::Denied) => {
                if self.prompts.denied(host, now) {
                    self.tell(CardEvent::PromptsHeld { host, held: true });
                }
                self.keep_card_from(id, RefusalReason::Denied);
            }
            _ => self.keep_card_from(id, RefusalReason::Unanswered),
        }
    }

    /// The owner gives a host the card without having been asked, or in the middle of that.
    pub(super) fn allow_connection(&mut self, host: HostId) {
        let sessions = self.sessions.iter().filter(|(_, session)| session.host == host);
        let ids: Vec<SessionId> = sessions.map(|(id, _)| *id).collect();
        for id in ids.into_iter().filter(|id| self.connecting.contains_key(id)).collect::<Vec<_>>() {
            let host_name = self.sessions.get(&id).map(|session| session.host_name.clone()).unwrap_or_default();
            self.tell(CardEvent::ConnectionDecided { host, host_name, refused: None });
            self.admit_session(id);
        }
        self.announce_security();
    }

    /// The session has a card from now on.
    pub(super) fn admit_session(&mut self, id: SessionId) {
        if self.connecting.contains_key(&id) {
            self.forget_connection(id);
            self.tell_presence(id);
        }
    }

    /// The session has no card any more, until the owner confirms.
    pub(super) fn take_card_from(&mut self, id: SessionId, now: Timestamp) {
        if self.link_of(id).is_none() {
            // Its host has to see the card leave, and cannot be told now.
            return self.end_session(id);
        }
        self.abandon(id);
        self.dispatcher.reset(id);
        self.connecting.insert(id, Connecting::Kept);
        self.tell_presence(id);
        self.ask_for_connection(id, now);
    }

    /// Nobody asks for this session any more.
    pub(super) fn forget_connection(&mut self, id: SessionId) {
        if let Some(Connecting::Asking { operation, .. }) = self.connecting.remove(&id) {
            self.outputs.push_back(Output::CancelEffect(operation));
        }
    }

    /// Ends the questions that nobody has answered.
    pub(super) fn give_up_questions(&mut self, now: Timestamp) {
        let is_due = |connecting: &Connecting| connecting.deadline().is_some_and(|deadline| deadline <= now);
        let due: Vec<SessionId> =
            self.connecting.iter().filter(|(_, connecting)| is_due(connecting)).map(|(id, _)| *id).collect();
        for id in due {
            self.forget_connection(id);
            self.connecting.insert(id, Connecting::Kept);
            self.keep_card_from(id, RefusalReason::Unanswered);
        }
    }

    /// Tells the host why it has no card, and the phone's log.
    fn keep_card_from(&mut self, id: SessionId, refused: RefusalReason) {
        let Some(session) = self.sessions.get(&id) else { return };
        let (host, host_name, link) = (session.host, session.host_name.clone(), session.link);
        if let Some(link) = link {
            let reason = RefusalReason::ConnectionNotConfirmed.into();
            let message = Refused { session: id.0, request_id: 0, reason, key_reference: 0 };
            self.outputs.push_back(Output::Send { link, envelope: message.into() });
        }
        self.tell(CardEvent::ConnectionDecided { host, host_name, refused: Some(refused) });
    }

    fn tell_presence(&mut self, id: SessionId) {
        if let Some(link) = self.link_of(id) {
            let envelope = self.card_state(id).into();
            self.outputs.push_back(Output::Send { link, envelope });
        }
    }
}
