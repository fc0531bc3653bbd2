//! The card session with a phone: its number, the reset epoch, the request under way, and what is known of the card.

use std::sync::Arc;

use pocketcard_protocol::Timestamp;
use pocketcard_protocol::apdu::{Command, Response};
use pocketcard_protocol::messages::{
    self, Body, Envelope, Opened, Pending, PendingReason, RefusalReason, Refused, SecurityState, SnapshotPage,
};
use pocketcard_protocol::snapshot::Snapshot;
use zeroize::Zeroizing;

use crate::card_state::may_leave_state;
use crate::knowledge::{Knowledge, Security};
use crate::output::FrontError;
use crate::request::{Match, PinEntry, Request, Requests};
use crate::snapshot::{Cache, Loaded};

/// The session of a slot, with the epoch that outlives it.
///
/// Every message of the phone passes through here, so what is learnt from it is learnt in one place.
///
/// Spec: SPEC.md section 9
pub(crate) struct Session {
    state: State,
    /// Goes up with every reset and never comes down, not even with a new session.
    epoch: u64,
    /// The epoch that the phone was told last.
    told: u64,
    /// Something may be verified or selected on the card that a reset has to end.
    state_left: bool,
    cache: Cache,
}

enum State {
    /// No link, and nothing to come back to.
    None,
    /// No link; the phone may come back and go on.
    Away(Kept),
    /// There is a link, and the phone was asked for a session.
    Opening {
        /// Number of the session that it was asked to go on with.
        resumes: Option<u64>,
        /// That session, as long as its grace lasts.
        kept: Option<Kept>,
    },
    Open(Open),
}

/// A session whose link is gone.
struct Kept {
    open: Open,
    /// When it is given up.
    until: Timestamp,
}

struct Open {
    number: u64,
    token: ResumeToken,
    requests: Requests,
    knowledge: Knowledge,
    software: String,
}

/// What lets this host, and nobody else, go on with the session: a verified PIN is worth as much. Never leaves memory.
struct ResumeToken(Zeroizing<Vec<u8>>);

/// What a reset did.
pub(crate) struct Reset {
    /// A command was under way; it has no answer any more.
    pub(crate) cancelled: bool,
    /// What the phone has to be told at once. Without it, the next request tells it.
    pub(crate) message: Option<Envelope>,
}

/// Which session the phone has opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// The one that the link was lost of; [`Session::go_on`] takes it up.
    Same,
    /// Another one. Whatever is in the slot belongs to one that is gone.
    New {
        /// A command was under way there; it has no answer any more.
        cancelled: bool,
    },
}

/// A status word alone, in bytes.
const STATUS_WORD: usize = 2;

/// The phone's answer to what was under way.
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// No window of a response, but what a PIN pad says.
    pub(crate) to_pin_entry: bool,
    /// Something succeeded that the owner could have refused.
    pub(crate) granted: bool,
}

impl Session {
    pub(crate) fn new() -> Self {
        Self { state: State::None, epoch: 0, told: 0, state_left: false, cache: Cache::default() }
    }

    /// Asks a phone to go on with the session that waits for it, or else for a new one.
    pub(crate) fn begin(&mut self, software: &str) -> Envelope {
        let kept = match std::mem::replace(&mut self.state, State::None) {
            State::Away(kept) => Some(kept),
            State::None | State::Opening { .. } | State::Open(_) => None,
        };
        let resume_token = kept.as_ref().map(|kept| kept.open.token.0.to_vec()).unwrap_or_default();
        if kept.is_none() {
            self.epoch += 1;
        }
        // A higher epoch than it knows ends what it has, and so does a new session.
        self.state_left &= self.epoch == self.told;
        self.state = State::Opening { resumes: kept.as_ref().map(|kept| kept.open.number), kept };
        self.told = self.epoch;
        self.cache.begin();
        messages::Open { resume_token, epoch: self.epoch, software: software.to_owned() }.into()
    }

    /// The link is gone, and the phone may come back. Returns whether there is anything to come back to.
    ///
    /// - `until`: how long the session is kept. One that waits already is kept no longer by this.
    pub(crate) fn lose_link(&mut self, until: Timestamp) -> bool {
        self.state = match std::mem::replace(&mut self.state, State::None) {
            State::Open(open) if !open.token.0.is_empty() => State::Away(Kept { open, until }),
            State::Away(kept) | State::Opening { kept: Some(kept), .. } => State::Away(kept),
            State::Open(_) | State::None | State::Opening { kept: None, .. } => State::None,
        };
        matches!(self.state, State::Away(_))
    }

    /// The link is gone, and so is the session. Returns whether a command was under way.
    pub(crate) fn end(&mut self) -> bool {
        self.state_left = false;
        match std::mem::replace(&mut self.state, State::None) {
            State::Open(mut open) | State::Away(Kept { mut open, .. }) => open.requests.end(),
            State::Opening { kept, .. } => kept.is_some_and(|mut kept| kept.open.requests.end()),
            State::None => false,
        }
    }

    /// When a session that waits for its phone is given up.
    pub(crate) fn grace(&self) -> Option<Timestamp> {
        match &self.state {
            State::Away(kept) | State::Opening { kept: Some(kept), .. } => Some(kept.until),
            State::None | State::Opening { kept: None, .. } | State::Open(_) => None,
        }
    }

    /// The grace is over: gives up the session that waits, whether its phone is still away or about to answer. Returns
    /// whether a command was under way.
    pub(crate) fn give_up(&mut self) -> bool {
        let State::Opening { kept, .. } = &mut self.state else { return self.end() };
        let cancelled = kept.take().is_some_and(|mut kept| kept.open.requests.end());
        // Should the phone still go on with it, it has to hear of the reset that takes the card out of the slot.
        self.state_left |= cancelled;
        cancelled
    }

    /// The phone opened a session.
    pub(crate) fn opened(&mut self, opened: &mut Opened) -> Result<Opening, FrontError> {
        let State::Opening { resumes, kept } = &mut self.state else { return Err(FrontError::OutOfOrder) };
        if opened.resumed && *resumes != Some(opened.session) {
            return Err(FrontError::Resumed);
        }
        let token = ResumeToken(opened.take_token());
        let software = std::mem::take(&mut opened.software);
        if opened.resumed
            && let Some(Kept { open, .. }) = kept
        {
            open.requests.resume(opened.last_request_id)?;
            (open.token, open.software) = (token, software);
            if let Some(state) = &opened.security_state {
                open.knowledge.announce(state);
            }
            if let State::Opening { kept: Some(kept), .. } = std::mem::replace(&mut self.state, State::None) {
                self.state = State::Open(kept.open);
            }
            return Ok(Opening::Same);
        }
        let state_left = self.state_left && opened.resumed;
        let cancelled = self.end();
        self.state_left = state_left;
        let mut knowledge = Knowledge::new(self.epoch);
        if let Some(state) = &opened.security_state {
            knowledge.announce(state);
        }
        let requests = Requests::new(opened.last_request_id);
        self.state = State::Open(Open { number: opened.session, token, requests, knowledge, software });
        Ok(Opening::New { cancelled })
    }

    /// What the phone has to be told now that the session goes on: a reset that it has not heard of, and the command
    /// that was under way or came meanwhile.
    pub(crate) fn go_on(&mut self) -> impl Iterator<Item = Envelope> + use<> {
        let reset = self.tell_reset();
        let command = match &mut self.state {
            State::Open(open) => open.requests.send(open.number),
            State::None | State::Away(_) | State::Opening { .. } => None,
        };
        if command.is_some() {
            // It tells the epoch, and may leave what the next reset has to end: that before it has just been told.
            self.told = self.epoch;
            self.state_left = true;
        }
        reset.into_iter().chain(command)
    }

    /// Whether a command can be taken: there is a session, and none is under way.
    pub(crate) fn is_ready(&self) -> bool {
        self.known().is_some_and(|open| open.requests.current().is_none())
    }

    /// The card's answer, if it is known for certain.
    pub(crate) fn known_answer(&self, command: &Command) -> Option<Response> {
        let knowledge = &self.known()?.knowledge;
        knowledge.answer(command, self.cache.current(knowledge.snapshot()))
    }

    pub(crate) fn holds_snapshot(&self) -> bool {
        self.known().is_some_and(|open| self.cache.current(open.knowledge.snapshot()).is_some())
    }

    /// Asks the phone for what it announces to everybody, if that is not held or on its way.
    pub(crate) fn fetch(&mut self, now: Timestamp) -> Option<Envelope> {
        let State::Open(open) = &self.state else { return None };
        self.cache.fetch(open.number, open.knowledge.snapshot(), now)
    }

    /// A page of that.
    pub(crate) fn page(&mut self, page: &SnapshotPage, now: Timestamp) -> Result<Loaded, FrontError> {
        let State::Open(open) = &self.state else { return Err(FrontError::OutOfOrder) };
        Ok(self.cache.page(open.number, page, open.knowledge.snapshot(), now))
    }

    /// Takes a snapshot that was kept elsewhere, or none.
    pub(crate) fn offer(&mut self, snapshot: Option<Arc<Snapshot>>) {
        self.cache.offer(snapshot);
    }

    /// Takes a command under way, and gives the message that carries it to the card; without a link it waits for one.
    pub(crate) fn transmit(&mut self, command: Command, deadline: Timestamp) -> Option<Envelope> {
        self.state_left |= may_leave_state(&command);
        let epoch = self.epoch;
        let open = self.known_mut()?;
        open.knowledge.sent(&command);
        open.requests.begin(command, epoch, deadline);
        let State::Open(open) = &mut self.state else { return None };
        self.told = epoch;
        open.requests.send(open.number)
    }

    /// Takes a PIN entry under way, and gives the message that carries it to the phone; without a link it waits for one.
    pub(crate) fn enter_pin(&mut self, entry: PinEntry, deadline: Timestamp) -> Option<Envelope> {
        self.state_left = true;
        let epoch = self.epoch;
        self.known_mut()?.requests.begin_pin_entry(entry, epoch, deadline);
        let State::Open(open) = &mut self.state else { return None };
        self.told = epoch;
        open.requests.send(open.number)
    }

    /// Whether the owner is asked for a PIN.
    pub(crate) fn is_entering_pin(&self) -> bool {
        self.known().and_then(|open| open.requests.current()).is_some_and(Request::is_pin_entry)
    }

    /// Whether anything is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.known().is_some_and(|open| open.requests.current().is_some())
    }

    /// The card's response to the command under way; `None` if it belongs to one that was given up.
    ///
    /// A response that cannot exist leaves the command under way: the end of the link ends it.
    pub(crate) fn response(&mut self, response: &mut messages::Response) -> Result<Option<Answer>, FrontError> {
        let open = self.numbered(response.session)?;
        match open.requests.find(response.request_id, response.epoch) {
            Match::Current => {}
            Match::Stale => return Ok(None),
            Match::Unknown => return Err(FrontError::UnknownRequest),
        }
        let bytes = Zeroizing::new(std::mem::take(&mut response.response));
        let request = open.requests.current();
        let to_pin_entry = request.is_some_and(Request::is_pin_entry);
        let is_guarded = request.is_some_and(|request| request.is_guarded);
        if to_pin_entry && bytes.len() != STATUS_WORD {
            return Err(FrontError::Malformed);
        }
        let answer = Response::from_bytes(bytes).map_err(|_| FrontError::Malformed)?;
        open.knowledge.response(response, answer.status());
        open.requests.end();
        let granted = is_guarded && answer.status().is_success();
        Ok(Some(Answer { response: answer, to_pin_entry, granted }))
    }

    /// Why the phone is about to refuse the command under way, or refuses the connection as such (request id 0); `None` if
    /// it speaks of a command that was given up.
    pub(crate) fn refused(&mut self, refused: &Refused) -> Result<Option<RefusalReason>, FrontError> {
        let current = match refused.request_id {
            0 => self.numbered(refused.session).map(|_| true)?,
            request_id => self.speaks_of_current(refused.session, request_id)?,
        };
        Ok(current.then(|| refused.reason()))
    }

    /// Why the phone holds the command under way back; `None` if it speaks of one that was given up.
    pub(crate) fn pending(&mut self, pending: &Pending) -> Result<Option<PendingReason>, FrontError> {
        let current = self.speaks_of_current(pending.session, pending.request_id)?;
        Ok(current.then(|| pending.reason()))
    }

    /// Whether a message without an epoch is about the request under way, and not about one that was given up.
    fn speaks_of_current(&mut self, session: u64, request_id: u64) -> Result<bool, FrontError> {
        let open = self.numbered(session)?;
        match open.requests.current() {
            Some(request) if request.id == request_id => Ok(true),
            // Any epoch will do: the message has none.
            _ => match open.requests.find(request_id, 0) {
                Match::Unknown => Err(FrontError::UnknownRequest),
                Match::Current | Match::Stale => Ok(false),
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

    /// The phone did not understand a message. The one that asks for a session is needed; a reset or a cancel that is
    /// lost costs nothing, since the epoch rides on each request. Returns whether it was the PIN entry under way, which
    /// nobody can make on that phone.
    ///
    /// - `message`: which one, or 0 from a phone that does not say.
    pub(crate) fn unsupported(&mut self, message: u32) -> Result<bool, FrontError> {
        let may_be = |body: Body| message == 0 || message == body.number();
        match &mut self.state {
            State::Opening { .. } if may_be(Body::Open(messages::Open::default())) => Err(FrontError::Unsupported),
            State::Open(open) if may_be(Body::PinEntry(messages::PinEntry::default())) => {
                Ok(open.requests.take_back_pin_entry())
            }
            _ => Ok(false),
        }
    }

    /// Raises the epoch and forgets everything that belonged to the old one. The phone is told at once if there is
    /// something to end, else by the next request; one that is away, when it comes back.
    pub(crate) fn reset(&mut self) -> Reset {
        self.epoch += 1;
        let epoch = self.epoch;
        let Some(open) = self.known_mut() else { return Reset { cancelled: false, message: None } };
        let cancelled = open.requests.end();
        open.knowledge.reset(epoch, cancelled);
        self.state_left |= cancelled;
        let message = self.tell_reset();
        Reset { cancelled, message }
    }

    /// Whether the time of the command under way is over. It stays under way until the reset that follows.
    pub(crate) fn is_overdue(&self, now: Timestamp) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// The cancellation of the command under way, if the phone can be told.
    pub(crate) fn cancel(&self) -> Option<Envelope> {
        let open = self.open()?;
        let request = open.requests.current()?;
        Some(messages::Cancel { session: open.number, request_id: request.id }.into())
    }

    /// When the command under way has taken too long.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.known()?.requests.current().map(|request| request.deadline)
    }

    pub(crate) fn software(&self) -> Option<&str> {
        self.known().map(|open| open.software.as_str())
    }

    pub(crate) fn security(&self) -> Security {
        self.known().map(|open| open.knowledge.security()).unwrap_or_default()
    }

    /// The message of a reset that the phone has not heard of, if there is anything to end and the phone is there.
    fn tell_reset(&mut self) -> Option<Envelope> {
        let session = self.open()?.number;
        if self.epoch == self.told || !std::mem::take(&mut self.state_left) {
            return None;
        }
        self.told = self.epoch;
        Some(messages::Reset { session, epoch: self.epoch }.into())
    }

    /// The session, if the phone is there.
    fn open(&self) -> Option<&Open> {
        if let State::Open(open) = &self.state { Some(open) } else { None }
    }

    /// The session, also while its phone is away.
    fn known(&self) -> Option<&Open> {
        match &self.state {
            State::Open(open) | State::Away(Kept { open, .. }) => Some(open),
            State::Opening { kept, .. } => kept.as_ref().map(|kept| &kept.open),
            State::None => None,
        }
    }

    fn known_mut(&mut self) -> Option<&mut Open> {
        match &mut self.state {
            State::Open(open) | State::Away(Kept { open, .. }) => Some(open),
            State::Opening { kept, .. } => kept.as_mut().map(|kept| &mut kept.open),
            State::None => None,
        }
    }

    fn numbered(&mut self, session: u64) -> Result<&mut Open, FrontError> {
        match &mut self.state {
            State::Open(open) if open.number == session => Ok(open),
            _ => Err(FrontError::OutOfOrder),
        }
    }
}
