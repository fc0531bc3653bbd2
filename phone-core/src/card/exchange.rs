//! How links, sessions, commands and effects come together in the [`Card`].
//!
//! Spec: SPEC.md sections 7.3 to 7.5 and 9

use std::time::Duration;

use pocketcard_protocol::apdu::{Command, Response, StatusWord};
use pocketcard_protocol::messages::{
    Body, Cancel, CardState, CloseReason, Envelope, Open, Opened, Pending, PendingReason, Reset, Transmit, Unsupported,
};
use pocketcard_protocol::time::Timestamp;

use super::applet::{Context, Progress, SessionId};
use super::effect::{Effect, EffectResult, OperationId};
use super::event::{Caller, CardEvent, CommandLine};
use super::session::{Admission, CardSession};
use super::{Card, HostId, LinkId, Output};
use crate::traits::KeyHandle;

/// How often a host is told that its request is alive.
const PENDING_INTERVAL: Duration = Duration::from_millis(500);

/// How long a host's command may take, the owner's answer included. A host gives up earlier, after 55 s; this is for one that
/// does not, so that neither a question nor an operation stays for ever.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// A command under way.
pub(super) struct Running {
    request: u64,
    epoch: u64,
    caller: Caller,
    line: CommandLine,
    started: Timestamp,
    /// What it waits for.
    operation: Option<OperationId>,
    reason: PendingReason,
    pub(super) pending_due: Timestamp,
}

impl Running {
    /// When it is given up; the owner's own command never is.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.caller.host().map(|_| self.started + COMMAND_LIMIT)
    }
}

impl Card {
    pub(super) fn message(&mut self, link: LinkId, envelope: Envelope, now: Timestamp) {
        // Messages of a link that has just been closed may still come in.
        let Some(entry) = self.links.get(&link) else { return };
        let current = entry.session;
        let of_session =
            matches!(envelope.body, Some(Body::Transmit(_) | Body::Reset(_) | Body::Cancel(_) | Body::Fetch(_)));
        if of_session && let Some(session) = current.and_then(|id| self.sessions.get_mut(&id)) {
            session.confirm_token();
        }
        match (envelope.body, current) {
            (Some(Body::Open(open)), None) => self.open(link, open, now),
            (Some(Body::Transmit(transmit)), Some(session)) if transmit.session == session.0 => {
                self.transmit(link, session, transmit, now);
            }
            (Some(Body::Reset(Reset { session: number, epoch })), Some(session)) if number == session.0 => {
                self.epoch(session, epoch);
                self.announce_security();
            }
            (Some(Body::Cancel(Cancel { session: number, request_id })), Some(session)) if number == session.0 => {
                self.cancel_request(session, request_id, now);
            }
            (Some(Body::Fetch(fetch)), Some(session)) if fetch.session == session.0 => self.fetch(link, &fetch),
            (Some(Body::Open(_) | Body::Transmit(_) | Body::Reset(_) | Body::Cancel(_) | Body::Fetch(_)), _) => {
                self.close(link, CloseReason::Protocol);
            }
            // The link itself answers these; nothing of the card depends on them.
            (Some(Body::Ping(_) | Body::Pong(_) | Body::Close(_) | Body::Unsupported(_)), _) => {}
            _ => self.outputs.push_back(Output::Send { link, envelope: Unsupported {}.into() }),
        }
    }

    /// Begins a session, or lets an earlier one go on for the host that knows its token.
    fn open(&mut self, link: LinkId, mut open: Open, now: Timestamp) {
        let Some(entry) = self.links.get(&link) else { return };
        let (host, host_name) = (entry.host, entry.host_name.clone());
        let mut token = [0; 32];
        if self.entropy.fill(&mut token).is_err() {
            return self.close(link, CloseReason::Failed);
        }
        let earlier = self.sessions.iter().find(|(_, session)| session.host == host).map(|(id, _)| *id);
        let resume_token = open.take_resume_token();
        let resumable = earlier.filter(|id| {
            let session = self.sessions.get(id);
            session.is_some_and(|session| session.is_resumed_by(&resume_token) && open.epoch >= session.epoch())
        });
        let resumed = resumable.is_some();
        let id = match (resumable, earlier) {
            (Some(id), _) => {
                self.leave_link(id);
                // While it has no link, so that nothing is sent before `Opened`: the host hears of it there, the owner here.
                if self.epoch(id, open.epoch) {
                    self.announce_security();
                }
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.resume(link, token, &resume_token);
                }
                id
            }
            (None, earlier) => {
                // One session per host: what an earlier link left behind ends here.
                if let Some(earlier) = earlier {
                    self.leave_link(earlier);
                    self.end_session(earlier);
                }
                self.last_session += 1;
                let id = SessionId(self.last_session);
                let announced = self.holds(id);
                let session = CardSession::new(host, host_name.clone(), link, token, open.epoch, announced, now);
                self.sessions.insert(id, session);
                id
            }
        };
        if let Some(entry) = self.links.get_mut(&link) {
            entry.session = Some(id);
        }
        let announced = self.holds(id);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.note(announced);
        let opened = Opened {
            session: id.0,
            token: session.token(),
            resumed,
            last_request_id: session.last_request(),
            security_state: Some(session.security_state()),
            card_state: Some(self.card_state()),
            software: self.config.software.clone(),
        };
        self.outputs.push_back(Output::Send { link, envelope: opened.into() });
        let software = std::mem::take(&mut open.software);
        self.tell(CardEvent::SessionOpened { host, host_name, software, resumed });
    }

    /// Takes a session off the link it is still on, because its host has come on another one.
    fn leave_link(&mut self, id: SessionId) {
        if let Some(old) = self.link_of(id) {
            if let Some(entry) = self.links.get_mut(&old) {
                entry.session = None;
            }
            if let Some(session) = self.sessions.get_mut(&id) {
                session.link = None;
            }
            self.close(old, CloseReason::Replaced);
        }
    }

    fn transmit(&mut self, link: LinkId, id: SessionId, mut transmit: Transmit, now: Timestamp) {
        if self.epoch(id, transmit.epoch) {
            // Apart from what the command does: a PIN that it verifies again would else look as if nothing had changed.
            self.announce_security();
        }
        let running = self.running.get(&id).map(|running| running.request);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.last_used = now;
        match session.admit(transmit.request_id, transmit.epoch, running) {
            Admission::Run => {}
            Admission::Running => return,
            Admission::Repeat => {
                let stored = session.stored_response(id.0);
                self.outputs.extend(stored.map(|envelope| Output::Send { link, envelope }));
                return;
            }
            Admission::Refuse => return self.close(link, CloseReason::Protocol),
        }
        let caller = Caller::Host { id: session.host, name: session.host_name.clone() };
        let command = Command::from_bytes(transmit.take_command());
        self.begin(id, transmit.request_id, transmit.epoch, caller, command.ok(), now);
    }

    /// Begins a command; `None` is one that could not be read.
    fn begin(
        &mut self,
        id: SessionId,
        request: u64,
        epoch: u64,
        caller: Caller,
        command: Option<Command>,
        now: Timestamp,
    ) {
        let line = match &command {
            Some(command) => self.dispatcher.describe(id, command),
            None => CommandLine::bare("malformed command"),
        };
        let running = Running {
            request,
            epoch,
            caller: caller.clone(),
            line,
            started: now,
            operation: None,
            reason: PendingReason::Busy,
            pending_due: now + PENDING_INTERVAL,
        };
        self.running.insert(id, running);
        let progress = match command {
            None => Progress::status(StatusWord::WrongLength),
            // A locked card costs nobody a try: it does not look at the command.
            Some(_) if self.locked && id != SessionId::OWNER => Progress::status(StatusWord::ConditionsNotSatisfied),
            Some(command) => {
                self.with_context(&caller, now, |dispatcher, context| dispatcher.execute(id, &command, context))
            }
        };
        self.advance(id, progress, now);
    }

    fn with_context(
        &mut self,
        caller: &Caller,
        now: Timestamp,
        work: impl FnOnce(&mut super::Dispatcher, &mut Context<'_>) -> Progress,
    ) -> Progress {
        let mut deletions = Vec::new();
        let mut context = Context {
            store: &*self.store,
            entropy: &*self.entropy,
            probe: &*self.probe,
            now,
            caller,
            deletions: &mut deletions,
        };
        let progress = work(&mut self.dispatcher, &mut context);
        deletions.into_iter().for_each(|handle| self.delete_key(handle));
        progress
    }

    fn advance(&mut self, id: SessionId, progress: Progress, now: Timestamp) {
        match progress {
            Progress::Done(response) => self.finish(id, response, now),
            Progress::Wait(effect, reason) => {
                let operation = self.next_operation();
                if let Some(running) = self.running.get_mut(&id) {
                    running.operation = Some(operation);
                    running.reason = reason;
                }
                self.operations.insert(operation, id);
                self.outputs.push_back(Output::Effect { operation, effect });
            }
        }
    }

    /// Answers the command of a session. What it changed for this and other hosts is told before.
    fn finish(&mut self, id: SessionId, response: Response, now: Timestamp) {
        let Some(running) = self.running.remove(&id) else { return };
        self.announce_security();
        let status = response.status();
        if id == SessionId::OWNER {
            self.outputs.push_back(Output::LocalResponse { request: running.request, response });
        } else if let Some(session) = self.sessions.get_mut(&id) {
            let bytes = response.into_bytes();
            if let Some(link) = session.link {
                let envelope = session.response(id.0, running.request, running.epoch, bytes.to_vec());
                self.outputs.push_back(Output::Send { link, envelope });
            }
            session.store(running.epoch, bytes);
        }
        let duration = now.saturating_since(running.started);
        self.tell(CardEvent::Command { caller: running.caller, command: running.line, status, duration });
        if id == SessionId::OWNER {
            self.next_local(now);
        }
    }

    pub(super) fn completed(&mut self, operation: OperationId, result: EffectResult, now: Timestamp) {
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
        let caller = running.caller.clone();
        let progress = self.with_context(&caller, now, |dispatcher, context| dispatcher.resume(id, result, context));
        self.advance(id, progress, now);
    }

    /// Raises a session's epoch: what runs ends, and nothing of what was verified stays. Gives whether it was lower.
    fn epoch(&mut self, id: SessionId, epoch: u64) -> bool {
        let raised = self.sessions.get_mut(&id).is_some_and(|session| session.raise_epoch(epoch));
        if raised {
            self.abandon(id);
            self.dispatcher.reset(id);
        }
        raised
    }

    /// Gives up the command of a session. The host is told, so that it does not wait for the link's limit; the message carries
    /// the old epoch, and nothing is stored.
    fn abandon(&mut self, id: SessionId) {
        let Some(running) = self.running.remove(&id) else { return };
        self.dispatcher.cancel(id);
        if let Some(operation) = running.operation {
            self.operations.remove(&operation);
            self.outputs.push_back(Output::CancelEffect(operation));
        }
        let answer = Response::status_only(StatusWord::NoDiagnosis);
        if id == SessionId::OWNER {
            self.outputs.push_back(Output::LocalResponse { request: running.request, response: answer });
        } else if let Some(session) = self.sessions.get(&id)
            && let Some(link) = session.link
        {
            let envelope = session.response(id.0, running.request, running.epoch, answer.as_bytes().to_vec());
            self.outputs.push_back(Output::Send { link, envelope });
        }
        self.tell(CardEvent::Cancelled { caller: running.caller, command: running.line });
    }

    /// Ends one request that runs, without a reset: it is answered, and its id is spent.
    fn cancel_request(&mut self, id: SessionId, request: u64, now: Timestamp) {
        let Some(running) = self.running.get(&id).filter(|running| running.request == request) else { return };
        if let Some(operation) = running.operation {
            self.operations.remove(&operation);
            self.outputs.push_back(Output::CancelEffect(operation));
        }
        self.dispatcher.cancel(id);
        self.finish(id, Response::status_only(StatusWord::NoDiagnosis), now);
    }

    pub(super) fn link_down(&mut self, link: LinkId, now: Timestamp) {
        let Some(id) = self.links.remove(&link).and_then(|entry| entry.session) else { return };
        if let Some(session) = self.sessions.get_mut(&id) {
            session.link = None;
            session.detached_at = Some(now);
        }
        // The host of a locked card has none in its reader that could stay there.
        if self.config.grace.is_zero() || self.locked {
            self.end_session(id);
        }
    }

    pub(super) fn link_closed(&mut self, link: LinkId) {
        if let Some(id) = self.links.remove(&link).and_then(|entry| entry.session) {
            self.end_session(id);
        }
    }

    fn end_session(&mut self, id: SessionId) {
        self.abandon(id);
        self.dispatcher.reset(id);
        if let Some(session) = self.sessions.remove(&id) {
            self.tell(CardEvent::SessionClosed { host: session.host });
        }
    }

    pub(super) fn host_forgotten(&mut self, host: HostId) {
        let links: Vec<LinkId> =
            self.links.iter().filter(|(_, entry)| entry.host == host).map(|(link, _)| *link).collect();
        let sessions: Vec<SessionId> =
            self.sessions.iter().filter(|(_, session)| session.host == host).map(|(id, _)| *id).collect();
        sessions.into_iter().for_each(|id| self.end_session(id));
        links.into_iter().for_each(|link| self.close(link, CloseReason::Revoked));
    }

    /// Closes a link. Its session ends, unless it has moved to another link.
    fn close(&mut self, link: LinkId, reason: CloseReason) {
        let Some(entry) = self.links.remove(&link) else { return };
        if let Some(id) = entry.session {
            self.end_session(id);
        }
        self.outputs.push_back(Output::Close { link, reason });
    }

    pub(super) fn set_locked(&mut self, locked: bool, _now: Timestamp) {
        if self.locked == locked {
            return;
        }
        self.locked = locked;
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            let Some(link) = self.link_of(id) else {
                // Its host has to see the card leave, and cannot be told now.
                self.end_session(id);
                continue;
            };
            self.abandon(id);
            self.dispatcher.reset(id);
            let envelope = self.card_state().into();
            self.outputs.push_back(Output::Send { link, envelope });
        }
        self.announce_security();
        self.tell(CardEvent::Locked(locked));
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
            self.begin(SessionId::OWNER, request, 0, Caller::Owner, Some(command), now);
        }
    }

    pub(super) fn local_reset(&mut self, now: Timestamp) {
        self.abandon(SessionId::OWNER);
        self.dispatcher.reset(SessionId::OWNER);
        self.next_local(now);
    }

    pub(super) fn enrol(&mut self, request: u64, pin: &[u8; 8], puk: &[u8; 8], now: Timestamp) {
        let progress =
            self.with_context(&Caller::Owner, now, |dispatcher, context| dispatcher.enrol(pin, puk, context).into());
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

    /// Gives up the commands that have taken too long, as if their hosts had cancelled them.
    pub(super) fn give_up_overdue(&mut self, now: Timestamp) {
        let is_overdue = |running: &Running| running.deadline().is_some_and(|deadline| deadline <= now);
        let overdue: Vec<(SessionId, u64)> = self
            .running
            .iter()
            .filter(|(_, running)| is_overdue(running))
            .map(|(id, running)| (*id, running.request))
            .collect();
        for (id, request) in overdue {
            self.cancel_request(id, request, now);
        }
    }

    /// Ends the sessions whose host did not come back, and forgets what those had proven that were idle for long.
    pub(super) fn expire_sessions(&mut self, now: Timestamp) {
        let is_due = |id, session| self.session_deadline(id, session).is_some_and(|deadline| deadline <= now);
        let due: Vec<SessionId> =
            self.sessions.iter().filter(|(id, session)| is_due(**id, session)).map(|(id, _)| *id).collect();
        for id in due {
            if self.sessions.get(&id).and_then(|session| self.grace_of(session)).is_some_and(|end| end <= now) {
                self.end_session(id);
            } else {
                self.dispatcher.reset_security(id);
            }
        }
        self.announce_security();
    }

    pub(super) fn session_deadline(&self, id: SessionId, session: &CardSession) -> Option<Timestamp> {
        let idle = self.config.idle_limit.filter(|_| self.dispatcher.has_proof(id));
        let idle = idle.map(|limit| session.last_used + limit);
        self.grace_of(session).into_iter().chain(idle).min()
    }

    /// Until when a session waits for its host.
    fn grace_of(&self, session: &CardSession) -> Option<Timestamp> {
        session.detached_at.map(|since| since + self.config.grace)
    }

    pub(super) fn link_of(&self, id: SessionId) -> Option<LinkId> {
        self.sessions.get(&id).and_then(|session| session.link)
    }

    fn card_state(&self) -> CardState {
        CardState {
            present: !self.locked,
            atr: self.config.atr.as_bytes().to_vec(),
            card_name: self.config.name.clone(),
            serial: self.dispatcher.serial(),
        }
    }

    fn delete_key(&mut self, handle: KeyHandle) {
        let operation = self.next_operation();
        self.outputs.push_back(Output::Effect { operation, effect: Effect::DeleteKey(handle) });
    }

    fn next_operation(&mut self) -> OperationId {
        self.last_operation += 1;
        OperationId(self.last_operation)
    }

    pub(super) fn tell(&mut self, event: CardEvent) {
        self.outputs.push_back(Output::Event(event));
    }
}
