//! Requests under way: from the moment one is admitted to its one answer.
//!
//! Spec: SPEC.md sections 7.4, 7.5 and 7.8

use std::cell::Cell;
use std::time::Duration;

use pocketcard_protocol::apdu::{Command, Response, StatusWord};
use pocketcard_protocol::messages::{Pending, PendingReason, RefusalReason, Refused};
use pocketcard_protocol::time::Timestamp;

use super::applet::{Context, Progress, Refusal, SessionId};
use super::deed::Deed;
use super::effect::{Effect, EffectResult, OperationId, Question};
use super::event::{Caller, CardEvent, CommandLine};
use super::pin_entry::Entry;
use super::prompts::Verdict;
use super::{Card, Output};
use crate::traits::KeyHandle;

/// How often a host is told that its request is alive.
pub(super) const PENDING_INTERVAL: Duration = Duration::from_millis(500);

/// How long a host's command may take, the owner's answer included. A host gives up earlier, after 55 s; this is for one that
/// does not, so that neither a question nor an operation stays for ever.
pub(super) const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// How long the owner is asked whether a key may be used. Shorter than the host's 55 s, so that its program still learns that
/// nobody answered, and an answer of the last second still finds time to be used.
pub(super) const APPROVAL_LIMIT: Duration = Duration::from_secs(50);

/// What is to be done.
pub(super) enum Work {
    /// Bytes that are no command.
    Malformed,
    Command(Command),
    Entry(Entry),
}

/// A request under way.
pub(super) struct Running {
    request: u64,
    epoch: u64,
    caller: Caller,
    line: CommandLine,
    started: Timestamp,
    /// How long it may take, if it is a host's.
    limit: Duration,
    /// What it waits for.
    operation: Option<OperationId>,
    /// What the owner is being asked.
    asking: Option<Asking>,
    /// Whether the owner was asked anything.
    asked: bool,
    given_up: bool,
    reason: PendingReason,
    /// Why it is refused.
    refusal: Option<Refusal>,
    pub(super) pending_due: Timestamp,
}

struct Asking {
    question: Question,
    until: Timestamp,
}

impl Running {
    /// What it does, if it does more than read.
    pub(super) const fn deed(&self) -> Option<Deed> {
        self.line.deed
    }

    /// Its id.
    pub(super) const fn request(&self) -> u64 {
        self.request
    }

    /// When it is given up; the owner's own command never is.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.caller.host()?;
        let asking = self.asking.as_ref().map(|asking| asking.until);
        asking.into_iter().chain([self.started + self.limit]).min()
    }
}

impl Card {
    /// Begins a request.
    pub(super) fn begin(
        &mut self,
        id: SessionId,
        request: u64,
        epoch: u64,
        caller: Caller,
        work: Work,
        now: Timestamp,
    ) {
        let (line, limit) = match &work {
            Work::Malformed => (CommandLine::bare("malformed command"), COMMAND_LIMIT),
            Work::Command(command) => (self.dispatcher.describe(id, command), COMMAND_LIMIT),
            Work::Entry(entry) => (entry.describe(), entry.limit),
        };
        let running = Running {
            request,
            epoch,
            caller: caller.clone(),
            line,
            started: now,
            limit,
            operation: None,
            asking: None,
            asked: false,
            given_up: false,
            reason: PendingReason::Busy,
            refusal: None,
            pending_due: now + PENDING_INTERVAL,
        };
        self.running.insert(id, running);
        let progress = match work {
            Work::Malformed => Progress::status(StatusWord::WrongLength),
            // A card that is not there costs nobody a try: it does not look at the command.
            _ if !self.is_present(id) => Progress::status(StatusWord::ConditionsNotSatisfied),
            Work::Command(command) => {
                self.with_context(id, &caller, now, |dispatcher, context| dispatcher.execute(id, &command, context))
            }
            Work::Entry(entry) => self
                .with_context(id, &caller, now, |dispatcher, context| dispatcher.enter_pin(id, entry.purpose, context)),
        };
        self.advance(id, progress, now);
    }

    pub(super) fn with_context(
        &mut self,
        id: SessionId,
        caller: &Caller,
        now: Timestamp,
        work: impl FnOnce(&mut super::Dispatcher, &mut Context<'_>) -> Progress,
    ) -> Progress {
        let mut deletions = Vec::new();
        let refusal = Cell::new(None);
        let permissions = match caller.host() {
            Some(host) => self.permissions.get(&host).unwrap_or(&self.default_permissions),
            None => &self.owner_permissions,
        };
        let mut context = Context {
            store: &*self.store,
            entropy: &*self.entropy,
            probe: &*self.probe,
            now,
            caller,
            permissions,
            deletions: &mut deletions,
            refusal: &refusal,
        };
        let progress = work(&mut self.dispatcher, &mut context);
        if let Some(running) = self.running.get_mut(&id) {
            running.refusal = refusal.take();
        }
        deletions.into_iter().for_each(|handle| self.delete_key(handle));
        progress
    }

    fn advance(&mut self, id: SessionId, progress: Progress, now: Timestamp) {
        let (effect, reason) = match progress {
            Progress::Done(response) => return self.finish(id, response, now),
            Progress::Wait(effect, reason) => (effect, reason),
        };
        let operation = self.next_operation();
        let Some(running) = self.running.get_mut(&id) else { return };
        if let (Some(question), Some(host)) = (effect.question(), running.caller.host()) {
            let refused = match self.prompts.ask(host, question.subject, now) {
                Verdict::Ask => None,
                Verdict::Held => Some((RefusalReason::TooManyDenials, StatusWord::ConditionsNotSatisfied)),
                Verdict::Refused(RefusalReason::Unanswered) => Some((RefusalReason::Unanswered, question.unanswered)),
                Verdict::Refused(reason) => Some((reason, StatusWord::SecurityStatusNotSatisfied)),
            };
            if let Some((reason, status)) = refused {
                running.refusal = Some(Refusal { reason, key: question.key });
                self.dispatcher.cancel(id);
                return self.finish(id, Response::status_only(status), now);
            }
            running.asked = true;
            running.asking = Some(Asking { question, until: now + APPROVAL_LIMIT });
        }
        running.operation = Some(operation);
        running.reason = reason;
        self.operations.insert(operation, id);
        self.outputs.push_back(Output::Effect { operation, effect });
    }

    /// Answers the request of a session. What it changed for this and other hosts is told before, and why it is refused.
    fn finish(&mut self, id: SessionId, response: Response, now: Timestamp) {
        let Some(running) = self.running.remove(&id) else { return };
        self.announce_security();
        let status = response.status();
        if id == SessionId::OWNER {
            self.outputs.push_back(Output::LocalResponse { request: running.request, response });
        } else if let Some(session) = self.sessions.get_mut(&id) {
            // However long it took, the session was in use until now.
            session.last_used = now;
            let bytes = response.into_bytes();
            let refused = running.refusal.filter(|_| !status.is_success()).map(|refusal| Refused {
                session: id.0,
                request_id: running.request,
                reason: refusal.reason.into(),
                key_reference: u32::from(refusal.key),
            });
            if let Some(link) = session.link {
                let envelope = session.response(id.0, running.request, running.epoch, bytes.to_vec());
                let refused = refused.map(Into::into);
                let envelopes = refused.into_iter().chain([envelope]);
                self.outputs.extend(envelopes.map(|envelope| Output::Send { link, envelope }));
            }
            session.store(running.epoch, bytes, refused);
        }
        let duration = now.saturating_since(running.started);
        let refused = running.refusal.map(|refusal| refusal.reason);
        let Running { caller, line: command, given_up, asked, .. } = running;
        self.tell(CardEvent::Command { caller, command, status, refused, given_up, asked, duration });
        if id == SessionId::OWNER {
            self.next_local(now);
        }
    }

    pub(super) fn completed(&mut self, operation: OperationId, result: EffectResult, now: Timestamp) {
        if let Some(id) = self.connection_of(operation) {
            return self.connection_decided(id, result, now);
        }
        let Some(id) = self.operations.remove(&operation) else {
            // Nobody waits for it: a result is wiped with its buffer, a new key is destroyed.
            if let EffectResult::Generated { handle, .. } = result
                && !self.key_handles().contains(&handle)
            {
                self.delete_key(handle);
            }
            return;
        };
        let Some(running) = self.running.get_mut(&id) else { return };
        running.operation = None;
        running.reason = PendingReason::Busy;
        let asking = running.asking.take();
        let caller = running.caller.clone();
        if let (Some(Asking { question, .. }), Some(host)) = (asking, caller.host()) {
            if result.is_denial() {
                self.prompts.refused(host, question.subject, RefusalReason::Denied, now);
                if self.prompts.denied(host, now) {
                    self.tell(CardEvent::PromptsHeld { host, held: true });
                }
            } else if result.is_answer() {
                self.prompts.answered(host);
            } else {
                self.prompts.refused(host, question.subject, RefusalReason::Unanswered, now);
            }
        }
        let progress =
            self.with_context(id, &caller, now, |dispatcher, context| dispatcher.resume(id, result, context));
        self.advance(id, progress, now);
    }

    /// Gives up the request of a session. The host is told, so that it does not wait for the link's limit; the message carries
    /// the old epoch, and nothing is stored.
    pub(super) fn abandon(&mut self, id: SessionId) {
        let Some(running) = self.running.remove(&id) else { return };
        self.dispatcher.cancel(id);
        self.cancel_effect(running.operation);
        let answer = Response::status_only(StatusWord::NoDiagnosis);
        if id == SessionId::OWNER {
            self.outputs.push_back(Output::LocalResponse { request: running.request, response: answer });
        } else if let Some(session) = self.sessions.get(&id)
            && let Some(link) = session.link
        {
            let envelope = session.response(id.0, running.request, running.epoch, answer.as_bytes().to_vec());
            self.outputs.push_back(Output::Send { link, envelope });
        }
        let Running { caller, line: command, asked, .. } = running;
        let link_lost = id != SessionId::OWNER && self.link_of(id).is_none();
        self.tell(CardEvent::Cancelled { caller, command, link_lost, asked });
    }

    /// Ends one request that runs because its host wants no answer any more, without a reset: it is answered, its id is spent.
    pub(super) fn cancel_request(&mut self, id: SessionId, request: u64, now: Timestamp) {
        let Some(running) = self.running.get(&id).filter(|running| running.request == request) else { return };
        let question = running.asking.as_ref().map(|asking| &asking.question);
        let status = question.map_or(StatusWord::NoDiagnosis, |question| question.cancelled);
        self.end(id, status, None, now);
    }

    /// Gives up the requests that have taken too long, or that the owner was asked about for too long.
    pub(super) fn give_up_overdue(&mut self, now: Timestamp) {
        let is_overdue = |running: &Running| running.deadline().is_some_and(|deadline| deadline <= now);
        let overdue: Vec<SessionId> =
            self.running.iter().filter(|(_, running)| is_overdue(running)).map(|(id, _)| *id).collect();
        for id in overdue {
            let asking = self.running.get_mut(&id).and_then(|running| running.asking.take());
            let (status, refusal) = match asking {
                Some(Asking { question, .. }) => {
                    let reason = RefusalReason::Unanswered;
                    if let Some(host) = self.running.get(&id).and_then(|running| running.caller.host()) {
                        self.prompts.refused(host, question.subject, reason, now);
                    }
                    (question.unanswered, Some(Refusal { reason, key: question.key }))
                }
                None => (StatusWord::NoDiagnosis, None),
            };
            self.end(id, status, refusal, now);
        }
    }

    /// Answers a request in place of what it waits for.
    pub(super) fn end(&mut self, id: SessionId, status: StatusWord, refusal: Option<Refusal>, now: Timestamp) {
        let Some(running) = self.running.get_mut(&id) else { return };
        running.given_up = refusal.is_none();
        running.refusal = refusal;
        let operation = running.operation.take();
        self.cancel_effect(operation);
        self.dispatcher.cancel(id);
        self.finish(id, Response::status_only(status), now);
    }

    pub(super) fn cancel_effect(&mut self, operation: Option<OperationId>) {
        if let Some(operation) = operation {
            self.operations.remove(&operation);
            self.outputs.push_back(Output::CancelEffect(operation));
        }
    }

    pub(super) fn local(&mut self, request: u64, command: Command, now: Timestamp) {
        self.waiting.push_back((request, command));
        self.next_local(now);
    }

    fn next_local(&mut self, now: Timestamp) {
        if self.running.contains_key(&SessionId::OWNER) {
            return;
        }
        if let Some((request, command)) = self.waiting.pop_front() {
            self.begin(SessionId::OWNER, request, 0, Caller::Owner, Work::Command(command), now);
        }
    }

    pub(super) fn local_reset(&mut self, now: Timestamp) {
        self.abandon(SessionId::OWNER);
        self.dispatcher.reset(SessionId::OWNER);
        self.next_local(now);
    }

    pub(super) fn enrol(&mut self, request: u64, pin: &[u8; 8], puk: &[u8; 8], now: Timestamp) {
        let owner = SessionId::OWNER;
        let progress = self
            .with_context(owner, &Caller::Owner, now, |dispatcher, context| dispatcher.enrol(pin, puk, context).into());
        self.announce_security();
        if let Progress::Done(response) = progress {
            self.outputs.push_back(Output::LocalResponse { request, response });
        }
    }

    pub(super) fn send_pending(&mut self, now: Timestamp) {
        for (id, running) in &mut self.running {
            let Some(link) = self.sessions.get(id).and_then(|session| session.link) else { continue };
            if running.pending_due <= now {
                running.pending_due = now + PENDING_INTERVAL;
                let pending = Pending { session: id.0, request_id: running.request, reason: running.reason.into() };
                self.outputs.push_back(Output::Send { link, envelope: pending.into() });
            }
        }
    }

    fn delete_key(&mut self, handle: KeyHandle) {
        let operation = self.next_operation();
        self.outputs.push_back(Output::Effect { operation, effect: Effect::DeleteKey(handle) });
    }

    pub(super) fn next_operation(&mut self) -> OperationId {
        self.last_operation += 1;
        OperationId(self.last_operation)
    }
}
