//! A card session: what belongs to one paired host, and the rule that a request is executed at most once.
//!
//! Every request carries the session, an id and the reset epoch. Id = last: the stored result again. Id = last + 1: run it.
//! Anything else ends the link. A higher epoch ends what runs, and what was stored.
//!
//! Spec: SPEC.md sections 9.1 to 9.3

use std::fmt;

use pocketcard_protocol::messages::{Envelope, Refused, Response, SecurityState};
use pocketcard_protocol::snapshot::SnapshotDigest;
use pocketcard_protocol::time::Timestamp;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::applet::PinStatus;
use super::{HostId, LinkId};

/// What to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is new: run it.
    Run,
    /// It was executed already: send the stored result.
    Repeat,
    /// It is the one that runs: its answer will come.
    Running,
    /// It breaks the order.
    Refuse,
}

/// The result of the last request, kept until the host shows that it has it.
struct Stored {
    epoch: u64,
    response: Zeroizing<Vec<u8>>,
    refused: Option<Refused>,
}

/// One host's session with the card.
pub(crate) struct CardSession {
    pub(crate) host: HostId,
    pub(crate) host_name: String,
    /// The link it is on; `None` while it waits for the host to come back.
    pub(crate) link: Option<LinkId>,
    /// When it was left by its link.
    pub(crate) detached_at: Option<Timestamp>,
    pub(crate) last_used: Timestamp,
    token: Zeroizing<[u8; 32]>,
    /// The token that the session was resumed with, until the host shows that it has the one of now: the message that brought
    /// it may have been lost with its link.
    previous_token: Option<Zeroizing<[u8; 32]>>,
    epoch: u64,
    last_request: u64,
    stored: Option<Stored>,
    security_version: u64,
    announced: Announced,
}

/// What the host was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) pin: PinStatus,
    pub(crate) snapshot: Option<SnapshotDigest>,
}

impl CardSession {
    pub(crate) fn new(
        host: HostId,
        host_name: String,
        link: LinkId,
        token: [u8; 32],
        epoch: u64,
        announced: Announced,
        now: Timestamp,
    ) -> Self {
        Self {
            host,
            host_name,
            link: Some(link),
            detached_at: None,
            last_used: now,
            token: Zeroizing::new(token),
            previous_token: None,
            epoch,
            last_request: 0,
            stored: None,
            security_version: 1,
            announced,
        }
    }

    pub(crate) fn token(&self) -> Vec<u8> {
        self.token.to_vec()
    }

    /// Whether a host knows this session's token.
    pub(crate) fn is_resumed_by(&self, token: &[u8]) -> bool {
        let is_previous = self.previous_token.as_ref().is_some_and(|previous| previous.as_slice().ct_eq(token).into());
        is_previous | bool::from(self.token.as_slice().ct_eq(token))
    }

    /// Puts the session on a new link, with a new token. That is no use of it: a link that comes and goes keeps no PIN alive.
    ///
    /// - `used`: the token that the host knew.
    pub(crate) fn resume(&mut self, link: LinkId, token: [u8; 32], used: &[u8]) {
        self.link = Some(link);
        self.detached_at = None;
        let last = std::mem::replace(&mut self.token, Zeroizing::new(token));
        if last.as_slice().ct_eq(used).into() {
            self.previous_token = Some(last);
        }
    }

    /// The host speaks in the session, so it has the token of now; the one before is worth nothing any more.
    pub(crate) fn confirm_token(&mut self) {
        self.previous_token = None;
    }

    pub(crate) const fn last_request(&self) -> u64 {
        self.last_request
    }

    pub(crate) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Raises the epoch; `true` if it was lower before. The stored result is wiped then.
    pub(crate) fn raise_epoch(&mut self, epoch: u64) -> bool {
        let raised = epoch > self.epoch;
        if raised {
            self.epoch = epoch;
            self.stored = None;
        }
        raised
    }

    /// Decides about a request of the session's epoch. `running` is the id of the request under way.
    pub(crate) fn admit(&mut self, id: u64, epoch: u64, running: Option<u64>) -> Admission {
        if epoch != self.epoch {
            return Admission::Refuse;
        }
        match running {
            Some(running) if running == id => return Admission::Running,
            Some(_) => return Admission::Refuse,
            None => {}
        }
        if id == self.last_request && self.stored.as_ref().is_some_and(|stored| stored.epoch == epoch) {
            return Admission::Repeat;
        }
        if self.last_request.checked_add(1) == Some(id) {
            self.last_request = id;
            self.stored = None;
            return Admission::Run;
        }
        Admission::Refuse
    }

    /// Keeps the result of the last request.
    pub(crate) fn store(&mut self, epoch: u64, response: Zeroizing<Vec<u8>>, refused: Option<Refused>) {
        // A result of an older epoch is nobody's: the reset that came since wiped what it would have overwritten.
        if epoch == self.epoch {
            self.stored = Some(Stored { epoch, response, refused });
        }
    }

    /// The stored result, and before it why it refuses; nothing if none is stored.
    pub(crate) fn stored_response(&self, session: u64) -> Vec<Envelope> {
        let Some(stored) = &self.stored else { return Vec::new() };
        let response = self.response(session, self.last_request, stored.epoch, stored.response.to_vec());
        stored.refused.map(Into::into).into_iter().chain([response]).collect()
    }

    /// A message with this response APDU.
    pub(crate) fn response(&self, session: u64, request_id: u64, epoch: u64, response: Vec<u8>) -> Envelope {
        let security_version = self.security_version;
        let snapshot_digest = self.snapshot_digest();
        Response { session, request_id, epoch, response, security_version, snapshot_digest }.into()
    }

    /// Takes note of what holds on the card; `true` if the host has to be told.
    pub(crate) fn note(&mut self, announced: Announced) -> bool {
        let changed = announced != self.announced;
        if changed {
            self.announced = announced;
            self.security_version += 1;
        }
        changed
    }

    /// What the host was told last.
    pub(crate) const fn announced(&self) -> Announced {
        self.announced
    }

    /// What the host is told.
    pub(crate) fn security_state(&self) -> SecurityState {
        SecurityState {
            version: self.security_version,
            pin_verified: self.announced.pin.verified,
            pin_tries_left: u32::from(self.announced.pin.tries_left),
            epoch: self.epoch,
            snapshot_digest: self.snapshot_digest(),
        }
    }

    fn snapshot_digest(&self) -> Vec<u8> {
        self.announced.snapshot.map(SnapshotDigest::to_field).unwrap_or_default()
    }
}

impl fmt::Debug for CardSession {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CardSession({:?}, request {}, epoch {})", self.host, self.last_request, self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> CardSession {
        let announced = Announced { pin: PinStatus { verified: false, tries_left: 3 }, snapshot: None };
        CardSession::new(HostId::new([1; 32]), "h".into(), LinkId::new(1), [7; 32], 4, announced, Timestamp::ZERO)
    }

    fn bytes(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(bytes.to_vec())
    }

    #[test]
    fn ids_that_are_neither_last_nor_next_are_refused() {
        let mut session = session();
        assert_eq!(session.admit(0, 4, None), Admission::Refuse, "nothing was executed, so nothing is stored");
        assert_eq!(session.admit(2, 4, None), Admission::Refuse);
        assert_eq!(session.admit(1, 3, None), Admission::Refuse, "an older epoch");
        assert_eq!(session.admit(1, 4, None), Admission::Run);
        session.store(4, bytes(&[0x90, 0x00]), None);
        assert_eq!(session.admit(1, 4, None), Admission::Repeat);
        assert_eq!(session.admit(1, 4, None), Admission::Repeat, "as often as the host asks");
        assert_eq!(session.admit(3, 4, None), Admission::Refuse);
        assert_eq!(session.admit(u64::MAX, 4, None), Admission::Refuse);
        assert_eq!(session.admit(2, 4, None), Admission::Run);
        assert_eq!(session.admit(1, 4, None), Admission::Refuse, "an older result is wiped by the next id");
    }

    #[test]
    fn a_running_request_is_neither_run_again_nor_overtaken() {
        let mut session = session();
        assert_eq!(session.admit(1, 4, None), Admission::Run);
        assert_eq!(session.admit(1, 4, Some(1)), Admission::Running);
        assert_eq!(session.admit(2, 4, Some(1)), Admission::Refuse);
    }

    #[test]
    fn an_epoch_wipes_the_stored_result_and_keeps_the_ids() {
        let mut session = session();
        assert_eq!(session.admit(1, 4, None), Admission::Run);
        session.store(4, bytes(&[1, 2, 0x90, 0x00]), None);
        assert!(!session.raise_epoch(4) && !session.raise_epoch(3));
        assert!(session.raise_epoch(9));
        assert!(session.stored_response(1).is_empty());
        assert_eq!(session.admit(1, 9, None), Admission::Refuse, "never again, under any epoch");
        assert_eq!(session.admit(2, 9, None), Admission::Run);
        session.store(4, bytes(&[0x90, 0x00]), None);
        assert!(session.stored_response(1).is_empty(), "a result of an old epoch is not kept");
    }

    #[test]
    fn only_the_token_of_now_resumes() {
        let mut session = session();
        assert!(session.is_resumed_by(&[7; 32]) && !session.is_resumed_by(&[8; 32]) && !session.is_resumed_by(&[]));
        session.resume(LinkId::new(2), [8; 32], &[7; 32]);
        assert!(session.is_resumed_by(&[8; 32]));
        session.confirm_token();
        assert!(!session.is_resumed_by(&[7; 32]) && session.is_resumed_by(&[8; 32]));
    }

    #[test]
    fn a_token_that_got_lost_on_its_way_is_worth_nothing() {
        let mut session = session();
        for lost in 8..12 {
            session.resume(LinkId::new(2), [lost; 32], &[7; 32]);
            assert!(session.is_resumed_by(&[7; 32]) && session.is_resumed_by(&[lost; 32]));
            assert!(!session.is_resumed_by(&[lost - 1; 32]) || lost == 8, "{lost}");
        }
        // The last one did arrive, but the host had nothing to say; nor did it when the next one got lost.
        session.resume(LinkId::new(2), [12; 32], &[11; 32]);
        assert!(
            !session.is_resumed_by(&[7; 32]) && session.is_resumed_by(&[11; 32]) && session.is_resumed_by(&[12; 32])
        );
    }
}
