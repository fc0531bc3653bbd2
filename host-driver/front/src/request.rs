//! The one request that a slot may have under way.

use pocketcard_protocol::Timestamp;

/// A command that went to the phone and has no response yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) epoch: u64,
    pub(crate) deadline: Timestamp,
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
    /// Id of the last request of this session, under way or not.
    last_id: u64,
    current: Option<Request>,
}

impl Requests {
    /// Begins with what the phone counted so far in the session.
    pub(crate) fn new(last_id: u64) -> Self {
        Self { last_id, current: None }
    }

    pub(crate) fn begin(&mut self, epoch: u64, deadline: Timestamp) -> Request {
        self.last_id = self.last_id.saturating_add(1);
        *self.current.insert(Request { id: self.last_id, epoch, deadline })
    }

    pub(crate) fn current(&self) -> Option<Request> {
        self.current
    }

    /// The request under way is over, answered or given up; its id stays used.
    pub(crate) fn end(&mut self) -> Option<Request> {
        self.current.take()
    }

    pub(crate) fn find(&self, id: u64, epoch: u64) -> Match {
        match self.current {
            Some(request) if request.id == id && request.epoch == epoch => Match::Current,
            _ if id >= 1 && id <= self.last_id => Match::Stale,
            _ => Match::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_up_by_one_and_answers_find_their_request() {
        let mut requests = Requests::new(7);
        assert_eq!(requests.find(8, 1), Match::Unknown);
        assert_eq!(requests.begin(1, Timestamp::ZERO).id, 8);
        assert_eq!(requests.find(8, 1), Match::Current);
        assert_eq!(requests.find(8, 2), Match::Stale, "another epoch");
        assert_eq!(requests.find(9, 1), Match::Unknown);
        assert_eq!(requests.find(0, 1), Match::Unknown);
        requests.end();
        assert_eq!(requests.find(8, 1), Match::Stale);
        assert_eq!(requests.begin(1, Timestamp::ZERO).id, 9, "a cancelled id is not used again");
    }
}
