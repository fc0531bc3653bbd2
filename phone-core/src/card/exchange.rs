//! How links, messages and sessions come together in the [`Card`]. What becomes of a request is in `running`.
//!
//! Spec: SPEC.md sections 7.3 to 7.5 and 9

use pocketcard_protocol::apdu::Command;
use pocketcard_protocol::messages::{
    Body, Cancel, CardState, CloseReason, Envelope, Open, Opened, PinEntry, Reset, Transmit, Unsupported,
};
use pocketcard_protocol::time::Timestamp;

use super::applet::SessionId;
use super::event::{Caller, CardEvent};
use super::pin_entry::Entry;
use super::running::Work;
use super::session::{Admission, CardSession};
use super::{Card, HostId, LinkId, Output};

impl Card {
    pub(super) fn message(&mut self, link: LinkId, envelope: Envelope, now: Timestamp) {
        // Messages of a link that has just been closed may still come in.
        let Some(entry) = self.links.get(&link) else { return };
        let current = entry.session;
        let of_session = matches!(&envelope.body, Some(body) if is_of_session(body));
        if of_session && let Some(session) = current.and_then(|id| self.sessions.get_mut(&id)) {
            session.confirm_token();
        }
        match (envelope.body, current) {
            (Some(Body::Open(open)), None) => self.open(link, open, now),
            (Some(Body::Transmit(transmit)), Some(session)) if transmit.session == session.0 => {
                self.transmit(link, session, transmit, now);
            }
            (Some(Body::PinEntry(entry)), Some(session)) if entry.session == session.0 => {
                self.pin_entry(link, session, &entry, now);
            }
            (Some(Body::Reset(Reset { session: number, epoch })), Some(session)) if number == session.0 => {
                self.epoch(session, epoch);
                self.announce_security();
            }
            (Some(Body::Cancel(Cancel { session: number, request_id })), Some(session)) if number == session.0 => {
                self.cancel_request(session, request_id, now);
            }
            (Some(Body::Fetch(fetch)), Some(session)) if fetch.session == session.0 => {
                self.fetch(link, session, &fetch)
            }
            (Some(body), _) if matches!(body, Body::Open(_)) || is_of_session(&body) => {
                self.close(link, CloseReason::Protocol);
            }
            // The link itself answers these; nothing of the card depends on them.
            (Some(Body::Ping(_) | Body::Pong(_) | Body::Close(_) | Body::Unsupported(_)), _) => {}
            (body, _) => {
                let message = body.map_or(0, |body| body.number());
                self.outputs.push_back(Output::Send { link, envelope: Unsupported { message }.into() });
            }
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
                self.await_confirmation(id);
                id
            }
        };
        if let Some(entry) = self.links.get_mut(&link) {
            entry.session = Some(id);
        }
        let announced = self.holds(id);
        let card_state = self.card_state(id);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.note(announced);
        let opened = Opened {
            session: id.0,
            token: session.token(),
            resumed,
            last_request_id: session.last_request(),
            security_state: Some(session.security_state()),
            card_state: Some(card_state),
            software: self.config.software.clone(),
        };
        self.outputs.push_back(Output::Send { link, envelope: opened.into() });
        let permissions = self.permissions_of(&host).to_message();
        self.outputs.push_back(Output::Send { link, envelope: permissions.into() });
        let software = std::mem::take(&mut open.software);
        self.tell(CardEvent::SessionOpened { host, host_name, software, resumed });
        if !resumed {
            self.ask_for_connection(id, now);
        }
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
        let (request, epoch) = (transmit.request_id, transmit.epoch);
        let Some(caller) = self.admit(link, id, request, epoch, now) else { return };
        let work = Command::from_bytes(transmit.take_command()).map_or(Work::Malformed, Work::Command);
        self.begin(id, request, epoch, caller, work, now);
    }

    fn pin_entry(&mut self, link: LinkId, id: SessionId, entry: &PinEntry, now: Timestamp) {
        let Some(caller) = self.admit(link, id, entry.request_id, entry.epoch, now) else { return };
        self.begin(id, entry.request_id, entry.epoch, caller, Work::Entry(Entry::new(entry)), now);
    }

    /// Whether a request is to be executed, and for whom. Whatever else is to be done about it has been done.
    fn admit(&mut self, link: LinkId, id: SessionId, request: u64, epoch: u64, now: Timestamp) -> Option<Caller> {
        if self.epoch(id, epoch) {
            // Apart from what the command does: a PIN that it verifies again would else look as if nothing had changed.
            self.announce_security();
        }
        let running = self.running.get(&id).map(|running| running.request());
        let session = self.sessions.get_mut(&id)?;
        session.last_used = now;
        match session.admit(request, epoch, running) {
            Admission::Run => return Some(Caller::Host { id: session.host, name: session.host_name.clone() }),
            Admission::Running => {}
            Admission::Repeat => {
                let stored = session.stored_response(id.0);
                self.outputs.extend(stored.into_iter().map(|envelope| Output::Send { link, envelope }));
            }
            Admission::Refuse => self.close(link, CloseReason::Protocol),
        }
        None
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

    pub(super) fn end_session(&mut self, id: SessionId) {
        self.abandon(id);
        self.dispatcher.reset(id);
        self.forget_connection(id);
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
        if self.prompts.forget(host) {
            self.tell(CardEvent::PromptsHeld { host, held: false });
        }
        self.permissions.remove(&host);
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
            let envelope = self.card_state(id).into();
            self.outputs.push_back(Output::Send { link, envelope });
        }
        self.announce_security();
        self.tell(CardEvent::Locked(locked));
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
        // Whoever waits for an answer is not idle: the owner may be typing the PIN.
        let rests = self.dispatcher.has_proof(id) && !self.running.contains_key(&id);
        let idle = self.config.idle_limit.filter(|_| rests);
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

    pub(super) fn card_state(&self, id: SessionId) -> CardState {
        CardState {
            present: self.is_present(id),
            atr: self.config.atr.as_bytes().to_vec(),
            card_name: self.config.name.clone(),
            serial: self.dispatcher.serial(),
        }
    }

    pub(super) fn tell(&mut self, event: CardEvent) {
        self.outputs.push_back(Output::Event(event));
    }
}

/// Whether a message speaks in a session.
const fn is_of_session(body: &Body) -> bool {
    matches!(body, Body::Transmit(_) | Body::PinEntry(_) | Body::Reset(_) | Body::Cancel(_) | Body::Fetch(_))
}
