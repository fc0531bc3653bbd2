//! The card session with a phone: its number, the reset epoch, the request under way, and what is known of the card.

use pocketcard_protocol::Timestamp;
use pocketcard_protocol::apdu::{Command, Response};
use pocketcard_protocol::messages::{self, Envelope, Opened, Pending, PendingReason, SecurityState};
use zeroize::Zeroizing;

use crate::card_state::may_leave_state;
use crate::knowledge::{Knowledge, Security};
use crate::output::FrontError;
use crate::request::{Match, Requests};

/// The session of a slot, with the epoch that outlives it.
///
/// Every message of the phone passes through here, so what is learnt from it is learnt in one place.
///
/// Spec: SPEC.md section 9
pub(crate) struct Session {
    state: State,
    /// Goes up with every reset and never comes down, not even with a new session.
    epoch: u64,
    /// Something may be verified or selected on the card that a reset has to end.
    state_left: bool,
}

enum State {
    /// No link.
    None,
    /// The phone was asked for a session.
    Opening,
    Open(Open),
}

struct Open {
    number: u64,
    requests: Requests,
    knowledge: Knowledge,
    software: String,
}

/// What a reset did.
pub(crate) struct Reset {
    /// A command was under way; it has no answer any more.
    pub(crate) cancelled: bool,
    /// What the phone has to be told at once. Without it, the next request tells it.
    pub(crate) message: Option<Envelope>,
}

impl Session {
    pub(crate) fn new() -> Self {
        Self { state: State::None, epoch: 0, state_left: false }
    }

    /// Asks a phone for a session; the old one is over.
    pub(crate) fn begin(&mut self, software: &str) -> Envelope {
        self.end();
        self.state = State::Opening;
        self.epoch += 1;
        messages::Open { resume_token: Vec::new(), epoch: self.epoch, software: software.to_owned() }.into()
    }

    /// The link is gone. Returns whether a command was under way.
    pub(crate) fn end(&mut self) -> bool {
        self.state_left = false;
        match std::mem::replace(&mut self.state, State::None) {
            State::Open(mut open) => open.requests.end().is_some(),
            State::None | State::Opening => false,
        }
    }

    /// The phone opened the session.
    pub(crate) fn opened(&mut self, opened: &mut Opened) -> Result<(), FrontError> {
        if !matches!(self.state, State::Opening) {
            return Err(FrontError::OutOfOrder);
        }
        if opened.resumed {
            return Err(FrontError::Resumed);
        }
        let mut knowledge = Knowledge::default();
        if let Some(state) = &opened.security_state {
            knowledge.announce(state);
        }
        let requests = Requests::new(opened.last_request_id);
        let software = std::mem::take(&mut opened.software);
        self.state = State::Open(Open { number: opened.session, requests, knowledge, software });
        Ok(())
    }

    /// Whether a command can be sent: there is a session, and none is under way.
    pub(crate) fn is_ready(&self) -> bool {
        self.open().is_some_and(|open| open.requests.current().is_none())
    }

    /// The card's answer, if it is known for certain.
    pub(crate) fn known_answer(&self, command: &Command) -> Option<Response> {
        self.open()?.knowledge.answer(command)
    }

    /// The request that carries `command` to the card; `None` without a session.
    pub(crate) fn transmit(&mut self, command: Command, deadline: Timestamp) -> Option<Envelope> {
        let State::Open(open) = &mut self.state else { return None };
        self.state_left |= may_leave_state(&command);
        let request = open.requests.begin(self.epoch, deadline);
        let (session, request_id, epoch) = (open.number, request.id, request.epoch);
        let mut bytes = command.into_bytes();
        Some(messages::Transmit { session, request_id, epoch, command: std::mem::take(&mut *bytes) }.into())
    }

    /// The card's response to the command under way; `None` if it belongs to one that was given up.
    ///
    /// A response that cannot exist leaves the command under way: the end of the link ends it.
    pub(crate) fn response(&mut self, response: &mut messages::Response) -> Result<Option<Response>, FrontError> {
        let open = self.numbered(response.session)?;
        match open.requests.find(response.request_id, response.epoch) {
            Match::Current => {}
            Match::Stale => return Ok(None),
            Match::Unknown => return Err(FrontError::UnknownRequest),
        }
        let bytes = Zeroizing::new(std::mem::take(&mut response.response));
        let answer = Response::from_bytes(bytes).map_err(|_| FrontError::Malformed)?;
        open.knowledge.response(response.security_version);
        open.requests.end();
        Ok(Some(answer))
    }

    /// Why the phone holds the command under way back; `None` if it speaks of one that was given up.
    pub(crate) fn pending(&mut self, pending: &Pending) -> Result<Option<PendingReason>, FrontError> {
        let open = self.numbered(pending.session)?;
        match open.requests.current() {
            Some(request) if request.id == pending.request_id => Ok(Some(pending.reason())),
            // Any epoch will do: the message has none.
            _ => match open.requests.find(pending.request_id, 0) {
                Match::Unknown => Err(FrontError::UnknownRequest),
                Match::Current | Match::Stale => Ok(None),
            },
        }
    }

    pub(crate) fn security_state(&mut self, state: &SecurityState) -> Result<(), FrontError> {
        let State::Open(open) = &mut self.state else { return Err(FrontError::OutOfOrder) };
        open.knowledge.announce(state);
        Ok(())
    }

    /// The phone may speak of its card.
    pub(crate) fn check_open(&self) -> Result<(), FrontError> {
        if self.open().is_some() { Ok(()) } else { Err(FrontError::OutOfOrder) }
    }

    /// The phone did not understand a message. Only the one that asks for a session is needed: a reset or a cancel that
    /// is lost costs nothing, since the epoch rides on each request.
    pub(crate) fn unsupported(&self) -> Result<(), FrontError> {
        if matches!(self.state, State::Opening) { Err(FrontError::Unsupported) } else { Ok(()) }
    }

    /// Raises the epoch and forgets everything that belonged to the old one. The phone is told at once if there is
    /// something to end, else by the next request.
    pub(crate) fn reset(&mut self) -> Reset {
        self.epoch += 1;
        let State::Open(open) = &mut self.state else { return Reset { cancelled: false, message: None } };
        let cancelled = open.requests.end().is_some();
        open.knowledge.reset();
        let tell = std::mem::take(&mut self.state_left) || cancelled;
        let message = tell.then(|| messages::Reset { session: open.number, epoch: self.epoch }.into());
        Reset { cancelled, message }
    }

    /// The cancellation of the command under way, if its time is over. It stays under way until the reset that follows.
    pub(crate) fn overdue(&self, now: Timestamp) -> Option<Envelope> {
        let open = self.open()?;
        let request = open.requests.current().filter(|request| request.deadline <= now)?;
        Some(messages::Cancel { session: open.number, request_id: request.id }.into())
    }

    /// When the command under way has taken too long.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.open()?.requests.current().map(|request| request.deadline)
    }

    pub(crate) fn software(&self) -> Option<&str> {
        self.open().map(|open| open.software.as_str())
    }

    pub(crate) fn security(&self) -> Security {
        self.open().map(|open| open.knowledge.security()).unwrap_or_default()
    }

    fn open(&self) -> Option<&Open> {
        match &self.state {
            State::Open(open) => Some(open),
            State::None | State::Opening => None,
        }
    }

    fn numbered(&mut self, session: u64) -> Result<&mut Open, FrontError> {
        match &mut self.state {
            State::Open(open) if open.number == session => Ok(open),
            _ => Err(FrontError::OutOfOrder),
        }
    }
}
