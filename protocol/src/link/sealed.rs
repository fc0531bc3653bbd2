//! What every state with a channel does alike: envelopes into records and back, the answers that need no state, and
//! the last word.

use super::Outbox;
use super::frame::{Frame, RECORD};
use super::limits::QUEUE_LIMIT;
use super::reason::{CloseReason, Violation};
use crate::channel::{ChannelError, Transport};
use crate::messages::{Body, Close, Envelope, MessageError, Pong, Unsupported, first_field};
use crate::time::Timestamp;
use prost::Message as _;

/// The channel of a link, for whole messages.
#[derive(Debug)]
pub(super) struct Sealed {
    transport: Transport,
    /// Of the last message: what to call it if it is not known.
    first_field: u32,
}

impl Sealed {
    pub(super) const fn new(transport: Transport) -> Self {
        Self { transport, first_field: 0 }
    }

    /// Opens one record. `Ok` proves the peer, also where what it said is no message; `None` until the record that
    /// ends one.
    pub(super) fn receive(&mut self, frame: &Frame<'_>) -> Result<Option<Result<Envelope, MessageError>>, CloseReason> {
        let Frame::Record(record) = frame else { return Err(CloseReason::Protocol(Violation::OutOfPlace)) };
        let Some(message) = self.transport.open(record)? else { return Ok(None) };
        self.first_field = first_field(&message);
        Ok(Some(Envelope::from_message(message)))
    }

    /// Answers what needs no state: a ping, a message that nobody knows, the peer's close. Gives back anything else.
    pub(super) fn answer(
        &mut self,
        envelope: Envelope,
        now: Timestamp,
        out: &mut Outbox,
    ) -> Result<Option<Body>, CloseReason> {
        match envelope.body {
            None => self.reply(&Unsupported { message: self.first_field }.into(), now, out)?,
            Some(Body::Ping(ping)) => self.reply(&Pong { id: ping.id }.into(), now, out)?,
            Some(Body::Close(close)) => return Err(CloseReason::Peer(close.reason())),
            Some(body) => return Ok(Some(body)),
        }
        Ok(None)
    }

    /// Answers the peer unasked by this side's caller, unless the peer asks without reading the answers.
    fn reply(&mut self, envelope: &Envelope, now: Timestamp, out: &mut Outbox) -> Result<(), CloseReason> {
        if out.transmits.len() >= QUEUE_LIMIT {
            return Err(CloseReason::Protocol(Violation::Flood));
        }
        Ok(self.send(envelope, now, out)?)
    }

    /// Seals one message and queues its records.
    pub(super) fn send(&mut self, envelope: &Envelope, now: Timestamp, out: &mut Outbox) -> Result<(), ChannelError> {
        // The buffer of the transport has the room, so encoding does not fail; if it did, `seal` would see the length.
        let write = |buffer: &mut Vec<u8>| {
            let _ = envelope.encode(buffer);
        };
        self.transport.seal(envelope.length(), write, &[RECORD], now, |record| out.transmits.push_back(record))
    }

    /// Sends what this version does not know.
    #[cfg(test)]
    pub(super) fn send_bytes_for_testing_only(&mut self, message: &[u8], now: Timestamp, out: &mut Outbox) {
        let write = |buffer: &mut Vec<u8>| buffer.extend(message);
        let sealed =
            self.transport.seal(message.len(), write, &[RECORD], now, |record| out.transmits.push_back(record));
        assert_eq!(sealed, Ok(()));
    }

    /// Says why the link ends, if the peer is to know.
    pub(super) fn tell(&mut self, reason: CloseReason, now: Timestamp, out: &mut Outbox) {
        if let Some(told) = reason.to_peer() {
            // If this cannot be sealed there is nobody left to tell.
            let _ = self.send(&Close { reason: told.into() }.into(), now, out);
        }
    }
}
