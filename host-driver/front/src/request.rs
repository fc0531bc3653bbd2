//! The one request that a slot may have under way.

use std::fmt;

use pocketcard_protocol::Timestamp;
use pocketcard_protocol::apdu::Command;
use pocketcard_protocol::messages::{self, Envelope, PinOperation, Transmit};
use zeroize::Zeroizing;

use crate::card_state::is_guarded;
use crate::output::FrontError;

/// What the owner is to do on the phone in a command's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinEntry {
    /// Verify, change or unblock.
    pub operation: PinOperation,
    /// P2 of the command.
    pub key_reference: u8,
    /// How long the owner has, in whole seconds; the phone may have less patience.
    pub time_limit: std::time::Duration,
}

/// What a program waits for.
pub(crate) enum Asked {
    /// The response to a command. It is kept, and wiped, until then: the link may have to carry it twice.
    Command(Zeroizing<Vec<u8>>),
    /// A PIN, from the owner.
    Pin(PinEntry),
}

/// What a program asked, and waits for.
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) epoch: u64,
    pub(crate) deadline: Timestamp,
    asked: Asked,
    /// Whether its success is one that the owner could have refused.
    pub(crate) is_guarded: bool,
    /// Whether it ever went to the phone. Until then its id is only what it would have.
    sent: bool,
}

impl Request {
    pub(crate) fn is_pin_entry(&self) -> bool {
        matches!(self.asked, Asked::Pin(_))
    }

    fn message(&self, session: u64) -> Envelope {
        let (request_id, epoch) = (self.id, self.epoch);
        match &self.asked {
            Asked::Command(command) => Transmit { session, request_id, epoch, command: command.to_vec() }.into(),
            Asked::Pin(entry) => messages::PinEntry {
                session,
                request_id,
                epoch,
                operation: entry.operation.into(),
                key_reference: entry.key_reference.into(),
                time_limit_s: u32::try_from(entry.time_limit.as_secs()).unwrap_or(u32::MAX),
            }
            .into(),
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.asked {
            Asked::Command(command) => {
                write!(formatter, "Request({}, epoch {}, {} bytes)", self.id, self.epoch, command.len())
            }
            Asked::Pin(entry) => write!(formatter, "Request({}, epoch {}, {entry:?})", self.id, self.epoch),
        }
    }
}

/// Where a message of the phone belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Match {
    /// To the request under way.
    Current,
    /// To one that was given up: nobody waits for it any more.
    Stale,
    /// To one that was never sent: the phone is broken.
    Unknown,
}

/// Numbers requests and tells their answers apart.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// Id of the last request of this session that was sent, under way or not.
    last_id: u64,
    current: Option<Request>,
}

impl Requests {
    /// Begins with what the phone counted so far in the session.
    pub(crate) fn new(last_id: u64) -> Self {
        Self { last_id, current: None }
    }

    /// Takes a command in; [`Requests::send`] sends it.
    pub(crate) fn begin(&mut self, command: Command, epoch: u64, deadline: Timestamp) {
        let is_guarded = is_guarded(&command);
        self.take(Asked::Command(command.into_bytes()), is_guarded, epoch, deadline);
    }

    /// Takes a PIN entry in; [`Requests::send`] sends it.
    pub(crate) fn begin_pin_entry(&mut self, entry: PinEntry, epoch: u64, deadline: Timestamp) {
        self.take(Asked::Pin(entry), true, epoch, deadline);
    }

    fn take(&mut self, asked: Asked, is_guarded: bool, epoch: u64, deadline: Timestamp) {
        let id = self.last_id.saturating_add(1);
        self.current = Some(Request { id, epoch, deadline, asked, is_guarded, sent: false });
    }

    /// The phone does not know PIN entries, so it has not counted the one under way. Returns whether there was one.
    pub(crate) fn take_back_pin_entry(&mut self) -> bool {
        let Some(request) = self.current.take_if(|request| request.is_pin_entry() && request.sent) else {
            return false;
        };
        self.last_id = request.id.saturating_sub(1);
        true
    }

    /// The message that carries the request under way, for the first time or once more.
    pub(crate) fn send(&mut self, session: u64) -> Option<Envelope> {
        let request = self.current.as_mut()?;
        request.sent = true;
        self.last_id = request.id;
        Some(request.message(session))
    }

    /// The phone goes on with the session, and has executed or begun everything up to `last_id`. A request that it has
    /// not got yet takes the next id; one that it has got keeps its own.
    pub(crate) fn resume(&mut self, last_id: u64) -> Result<(), FrontError> {
        if last_id > self.last_id {
            return Err(FrontError::UnknownRequest);
        }
        self.last_id = last_id;
        if let Some(request) = self.current.as_mut().filter(|request| !request.sent || request.id != last_id) {
            request.id = last_id.saturating_add(1);
        }
        Ok(())
    }

    pub(crate) fn current(&self) -> Option<&Request> {
        self.current.as_ref()
    }

    /// The request under way is over, answered or given up; its id stays used. Returns whether there was one.
    pub(crate) fn end(&mut self) -> bool {
        self.current.take().is_some()
    }

    pub(crate) fn find(&self, id: u64, epoch: u64) -> Match {
        match &self.current {
            Some(request) if request.id == id && request.epoch == epoch => Match::Current,
            _ if id >= 1 && id <= self.last_id => Match::Stale,
            _ => Match::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use pocketcard_protocol::messages::Body;

    use super::*;

    fn command() -> Command {
        Command::parse(&[0x00, 0x20, 0x00, 0x80, 0x02, 0x31, 0x32]).unwrap()
    }

    /// Sends a command, and gives the id that it went with.
    fn send(requests: &mut Requests) -> u64 {
        requests.begin(command(), 1, Timestamp::ZERO);
        repeat(requests).unwrap()
    }

    fn repeat(requests: &mut Requests) -> Option<u64> {
        match requests.send(9)?.body {
            Some(Body::Transmit(transmit)) => {
                assert_eq!((transmit.session, &transmit.command[..]), (9, command().as_bytes()));
                Some(transmit.request_id)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ids_go_up_by_one_and_answers_find_their_request() {
        let mut requests = Requests::new(7);
        assert_eq!(requests.find(8, 1), Match::Unknown);
        assert_eq!(send(&mut requests), 8);
        assert_eq!(requests.find(8, 1), Match::Current);
        assert_eq!(requests.find(8, 2), Match::Stale, "another epoch");
        assert_eq!(requests.find(9, 1), Match::Unknown);
        assert_eq!(requests.find(0, 1), Match::Unknown);
        assert!(requests.end() && !requests.end());
        assert_eq!(requests.find(8, 1), Match::Stale);
        assert_eq!(send(&mut requests), 9, "a cancelled id is not used again");
    }

    #[test]
    fn a_request_that_the_phone_has_keeps_its_id_and_another_takes_the_next() {
        for (phone_has, id) in [(8, 8), (7, 8), (6, 7)] {
            let mut requests = Requests::new(6);
            send(&mut requests);
            requests.end();
            assert_eq!(send(&mut requests), 8);
            requests.resume(phone_has).unwrap();
            assert_eq!(repeat(&mut requests), Some(id), "the phone got as far as {phone_has}");
            assert_eq!(requests.find(id, 1), Match::Current);
        }
    }

    #[test]
    fn a_request_that_waited_for_the_link_is_numbered_when_it_goes() {
        for (phone_has, id) in [(8, 9), (7, 8)] {
            let mut requests = Requests::new(7);
            send(&mut requests);
            requests.end();
            requests.begin(command(), 2, Timestamp::ZERO);
            assert_eq!(requests.find(9, 2), Match::Current);
            requests.resume(phone_has).unwrap();
            assert_eq!(repeat(&mut requests), Some(id));
        }
        // One that was given up before it went has used no id.
        let mut requests = Requests::new(7);
        requests.begin(command(), 1, Timestamp::ZERO);
        requests.end();
        assert_eq!(requests.find(8, 1), Match::Unknown);
        requests.resume(7).unwrap();
        assert_eq!((repeat(&mut requests), send(&mut requests)), (None, 8));
    }

    #[test]
    fn a_phone_cannot_have_more_than_was_sent() {
        let mut requests = Requests::new(7);
        send(&mut requests);
        assert_eq!(requests.resume(9), Err(FrontError::UnknownRequest));
        requests.begin(command(), 1, Timestamp::ZERO);
        assert_eq!(requests.resume(9), Err(FrontError::UnknownRequest), "it waits, it was not sent");
    }

    #[test]
    fn no_command_is_printed() {
        let mut requests = Requests::new(0);
        send(&mut requests);
        let text = format!("{requests:?} {requests:#?}");
        assert!(text.contains("7 bytes") && !text.contains("49") && !text.contains("31"), "{text}");
    }

    fn entry() -> PinEntry {
        let time_limit = std::time::Duration::from_secs(7);
        PinEntry { operation: PinOperation::Change, key_reference: 0x81, time_limit }
    }

    #[test]
    fn a_pin_entry_is_a_request_like_any_other() {
        let mut requests = Requests::new(7);
        requests.begin_pin_entry(entry(), 3, Timestamp::ZERO);
        let expected = messages::PinEntry {
            session: 9,
            request_id: 8,
            epoch: 3,
            operation: PinOperation::Change.into(),
            key_reference: 0x81,
            time_limit_s: 7,
        };
        for _ in 0..2 {
            assert_eq!(requests.send(9), Some(expected.into()));
        }
        requests.resume(7).unwrap();
        assert_eq!(requests.find(8, 3), Match::Current);
        requests.end();
        assert_eq!(send(&mut requests), 8, "the phone had not got it");
    }

    #[test]
    fn a_pin_entry_that_the_phone_does_not_know_has_used_no_id() {
        let mut requests = Requests::new(7);
        assert!(!requests.take_back_pin_entry());
        requests.begin_pin_entry(entry(), 3, Timestamp::ZERO);
        assert!(!requests.take_back_pin_entry(), "it was not sent");
        requests.send(9);
        assert!(requests.take_back_pin_entry() && requests.current().is_none());
        assert_eq!(send(&mut requests), 8);
        assert!(!requests.take_back_pin_entry(), "a command every phone knows");
    }
}
