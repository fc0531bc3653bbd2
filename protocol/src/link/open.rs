//! The open channel: messages, liveness, and requests that must not wait for ever.

use super::frame::Frame;
use super::limits::{IDLE_INTERVAL, REQUEST_LIMIT, SILENCE_LIMIT};
use super::reason::{CloseReason, Limit, Side, Violation};
use super::sealed::Sealed;
use super::{Event, LinkError, Outbox, State};
use crate::channel::{ChannelError, PublicKey, Transport};
use crate::messages::{Body, Envelope, Ping};
use crate::time::Timestamp;

/// An open channel of a paired host and phone.
#[derive(Debug)]
pub(super) struct Open {
    side: Side,
    channel: Sealed,
    peer: PublicKey,
    /// Phone: when the host's first record must have come; `None` once it has.
    unproven_until: Option<Timestamp>,
    /// When anything was last received, and when anything was last sent or received.
    heard: Timestamp,
    active: Timestamp,
    /// Host: the latest request without an answer, and until when it may stay so.
    request: Option<(Request, Timestamp)>,
    /// Host: the ping without an answer.
    ping: Option<(u64, Timestamp)>,
    next_ping: u64,
}

/// Which answer the host waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Open,
    Transmit { session: u64, id: u64 },
}

impl Open {
    /// The host's side: the phone's handshake message has proved who it is.
    pub(super) fn host(transport: Transport, peer: PublicKey, now: Timestamp, out: &mut Outbox) -> Self {
        out.events.push_back(Event::Connected { peer });
        Self::new(Side::Host, transport, peer, None, now)
    }

    /// The phone's side: the host has proved nothing until its first record decrypts.
    pub(super) fn phone(transport: Transport, peer: PublicKey, unproven_until: Timestamp) -> Self {
        Self::new(Side::Phone, transport, peer, Some(unproven_until), unproven_until)
    }

    const fn new(
        side: Side,
        transport: Transport,
        peer: PublicKey,
        unproven_until: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        let channel = Sealed::new(transport);
        Self { side, channel, peer, unproven_until, heard: now, active: now, request: None, ping: None, next_ping: 1 }
    }

    pub(super) const fn is_announced(&self) -> bool {
        self.unproven_until.is_none()
    }

    pub(super) fn deadline(&self) -> Timestamp {
        if let Some(until) = self.unproven_until {
            return until;
        }
        match self.side {
            Side::Phone => self.heard + SILENCE_LIMIT,
            Side::Host => {
                let pinging = self.ping.map_or(self.active + IDLE_INTERVAL, |(_, until)| until);
                self.request.map_or(pinging, |(_, until)| until.min(pinging))
            }
        }
    }

    pub(super) fn handle_timeout(mut self: Box<Self>, now: Timestamp, out: &mut Outbox) -> Result<State, CloseReason> {
        let due = |deadline: Option<Timestamp>| deadline.is_some_and(|deadline| now >= deadline);
        let limit = if due(self.unproven_until) {
            Some(Limit::Handshake)
        } else if due(self.request.map(|(_, until)| until)) {
            Some(Limit::Request)
        } else if due(self.ping.map(|(_, until)| until)) {
            Some(Limit::Ping)
        } else if self.side == Side::Phone && self.is_announced() && now >= self.heard + SILENCE_LIMIT {
            Some(Limit::Silence)
        } else {
            None
        };
        if let Some(limit) = limit {
            self.tell(CloseReason::Timeout(limit), now, out);
            return Err(CloseReason::Timeout(limit));
        }
        if self.side == Side::Host && self.ping.is_none() && now >= self.active + IDLE_INTERVAL {
            self.ping(now, out)?;
        }
        Ok(State::Open(self))
    }

    pub(super) fn ping(&mut self, now: Timestamp, out: &mut Outbox) -> Result<(), CloseReason> {
        if self.side == Side::Phone || self.ping.is_some() {
            return Ok(());
        }
        let id = self.next_ping;
        self.next_ping += 1;
        self.ping = Some((id, now + REQUEST_LIMIT));
        Ok(self.seal(&Ping { id }.into(), now, out)?)
    }

    /// A part of a message got through: what is waited for may be on its way, or still have to get there.
    pub(super) fn progressed(&mut self, now: Timestamp) {
        let waiting = [self.request.as_mut().map(|(_, until)| until), self.ping.as_mut().map(|(_, until)| until)];
        for until in waiting.into_iter().flatten() {
            *until = now + REQUEST_LIMIT;
        }
    }

    pub(super) fn send(&mut self, envelope: &Envelope, now: Timestamp, out: &mut Outbox) -> Result<(), LinkError> {
        if !self.is_announced() {
            return Err(LinkError::NotOpen);
        }
        let body = envelope.body.as_ref().ok_or(LinkError::OutOfPlace)?;
        if sender(body) != Sender::Only(self.side) && sender(body) != Sender::Either {
            return Err(LinkError::OutOfPlace);
        }
        match self.seal(envelope, now, out) {
            Ok(()) => {}
            Err(ChannelError::TooLong) => return Err(LinkError::TooLong),
            Err(_) => return Err(LinkError::Seal),
        }
        match body {
            Body::Open(_) => self.request = Some((Request::Open, now + REQUEST_LIMIT)),
            Body::Transmit(transmit) => {
                let request = Request::Transmit { session: transmit.session, id: transmit.request_id };
                self.request = Some((request, now + REQUEST_LIMIT));
            }
            Body::PinEntry(entry) => {
                let request = Request::Transmit { session: entry.session, id: entry.request_id };
                self.request = Some((request, now + REQUEST_LIMIT));
            }
            // A reset ends what runs: nobody waits any more for the answer, which comes under the old epoch.
            Body::Reset(_) => self.request = self.request.filter(|(waiting, _)| *waiting == Request::Open),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn handle_frame(
        mut self: Box<Self>,
        frame: &Frame<'_>,
        now: Timestamp,
        out: &mut Outbox,
    ) -> Result<State, CloseReason> {
        match self.handle_record(frame, now, out) {
            Ok(()) => Ok(State::Open(self)),
            Err(reason) => {
                self.tell(reason, now, out);
                Err(reason)
            }
        }
    }

    fn handle_record(&mut self, frame: &Frame<'_>, now: Timestamp, out: &mut Outbox) -> Result<(), CloseReason> {
        let message = self.channel.receive(frame)?;
        self.heard = now;
        self.active = now;
        if self.unproven_until.take().is_some() {
            out.events.push_back(Event::Connected { peer: self.peer });
        }
        let Some(envelope) = message else { return Ok(()) };
        let Some(body) = self.channel.answer(envelope?, now, out)? else { return Ok(()) };
        self.handle_body(body, now, out)
    }

    fn handle_body(&mut self, body: Body, now: Timestamp, out: &mut Outbox) -> Result<(), CloseReason> {
        match &body {
            Body::Pong(pong) => {
                if self.ping.is_some_and(|(id, _)| id == pong.id) {
                    self.ping = None;
                }
                return Ok(());
            }
            Body::Opened(_) => self.answered(Request::Open),
            Body::Response(response) => {
                self.answered(Request::Transmit { session: response.session, id: response.request_id });
            }
            Body::Pending(pending) => {
                let request = Request::Transmit { session: pending.session, id: pending.request_id };
                if let Some((_, until)) = self.request.as_mut().filter(|(waiting, _)| *waiting == request) {
                    *until = now + REQUEST_LIMIT;
                }
            }
            _ => {}
        }
        match sender(&body) {
            Sender::Either => {}
            Sender::Only(side) if side == self.side.other() => {}
            Sender::Only(_) | Sender::Pairing | Sender::Link => {
                return Err(CloseReason::Protocol(Violation::OutOfPlace));
            }
        }
        out.events.push_back(Event::Message(Envelope { body: Some(body) }));
        Ok(())
    }

    fn answered(&mut self, request: Request) {
        if self.request.is_some_and(|(waiting, _)| waiting == request) {
            self.request = None;
        }
    }

    fn seal(&mut self, envelope: &Envelope, now: Timestamp, out: &mut Outbox) -> Result<(), ChannelError> {
        self.active = now;
        self.channel.send(envelope, now, out)
    }

    /// Sends what [`Open::send`] would refuse.
    #[cfg(test)]
    pub(super) fn seal_for_testing_only(
        &mut self,
        envelope: &Envelope,
        now: Timestamp,
        out: &mut Outbox,
    ) -> Result<(), ChannelError> {
        self.seal(envelope, now, out)
    }

    #[cfg(test)]
    pub(super) fn send_bytes_for_testing_only(&mut self, message: &[u8], now: Timestamp, out: &mut Outbox) {
        self.channel.send_bytes_for_testing_only(message, now, out);
    }

    pub(super) fn tell(mut self: Box<Self>, reason: CloseReason, now: Timestamp, out: &mut Outbox) {
        // A phone says nothing to a host that has proved nothing.
        if self.is_announced() {
            self.channel.tell(reason, now, out);
        }
    }
}

/// Who sends a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    /// One side's caller.
    Only(Side),
    /// Either side's caller.
    Either,
    /// The link itself, on either side.
    Link,
    /// The link itself, while pairing.
    Pairing,
}

const fn sender(body: &Body) -> Sender {
    match body {
        Body::Open(_) | Body::Transmit(_) | Body::PinEntry(_) | Body::Reset(_) | Body::Cancel(_) | Body::Fetch(_) => {
            Sender::Only(Side::Host)
        }
        Body::Opened(_)
        | Body::Response(_)
        | Body::Pending(_)
        | Body::Refused(_)
        | Body::Permissions(_)
        | Body::CardState(_)
        | Body::SecurityState(_)
        | Body::SnapshotPage(_) => Sender::Only(Side::Phone),
        Body::Unsupported(_) => Sender::Either,
        Body::Ping(_) | Body::Pong(_) | Body::Close(_) => Sender::Link,
        Body::PairCommit(_)
        | Body::PairNonce(_)
        | Body::PairOpen(_)
        | Body::PairConfirm(_)
        | Body::PairSecret(_)
        | Body::PairStored(_) => Sender::Pairing,
    }
}
