//! The state machine of one link between a host and a phone; both ends drive it, over any transport.
//!
//! Bytes, time and decisions go in by the methods that take `now`; after each of them the caller empties
//! [`Link::poll_transmit`] and [`Link::poll_event`] and asks [`Link::poll_timeout`] when to call
//! [`Link::handle_timeout`]. A *link message* is one frame on a stream or one series of fragments on a radio; its
//! bytes are the transport's business only in their length.
//!
//! ```text
//!          host                                 phone
//!            │ <──────────── Info ──────────────── │   versions, nonce, ready to pair or not
//!            │ ──────────── handshake ───────────> │   IKpsk2 to connect, XX or XXpsk3 to pair
//!            │ <─────────── handshake ──────────── │
//!  Connected │ ═══════════ first record ═════════> │ Connected
//! ```
//!
//! The phone does nothing, asks nobody and touches no key before the host's first record decrypts, so the host's
//! caller must send its first message (usually `Open`) within [`limits::HANDSHAKE_LIMIT`] of [`Event::Connected`].
//!
//! Spec: SPEC.md sections 3, 6, 7 and 8

mod config;
mod exchange;
mod frame;
mod host;
mod info;
pub mod limits;
mod open;
mod phone;
mod reason;
mod sealed;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::mem;

pub use config::{HostConfig, PairLookup, PairingMode, PhoneConfig};
pub use frame::{EARLY_MESSAGE_LIMIT, LINK_MESSAGE_LIMIT};
pub use info::{INFO_LIMIT_BYTES, INFO_NONCE_LENGTH, Info, Readiness, VersionRange};
pub use reason::{CloseReason, Limit, Side, Violation};

use crate::channel::PublicKey;
use crate::l2cap::Psm;
use crate::messages::Envelope;
use crate::pairing::{Digits, Offer, PairKeys};
use crate::stream::LONGEST_BEFORE_AUTHENTICATION;
use crate::time::Timestamp;
use frame::{Frame, Refusal};

/// What happened on a link.
#[derive(Debug)]
pub enum Event {
    /// The channel is open, and the peer has proved that it is `peer`.
    Connected {
        /// The other side's identity.
        peer: PublicKey,
    },
    /// A message of the peer. Ping, pong, close and the messages of pairing are handled inside and never seen here.
    Message(Envelope),
    /// Show these digits and ask whether the other screen shows the same; then [`Link::confirm_pairing`].
    PairingDigits {
        /// The digits.
        digits: Digits,
        /// What the other side calls itself, sanitised.
        peer_name: String,
        /// The other side's identity.
        peer: PublicKey,
    },
    /// The person at the other side has confirmed the digits.
    PeerConfirmed,
    /// Both sides confirmed. Store the pair, durably, then [`Link::pair_stored`].
    Paired {
        /// What to store.
        pair: PairKeys,
        /// What the other side calls itself, sanitised.
        peer_name: String,
    },
    /// The other side has stored the pair too. Without this event the pair must be dropped after
    /// [`crate::pairing::UNCONFIRMED_PAIR_LIFETIME`], or once a connection with it succeeds it may be kept.
    PairingDone,
    /// The link has ended, and this is its last event. Whatever is still to be transmitted should be, if it can.
    Closed(CloseReason),
}

/// Why a message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The channel is not open yet, or not any more.
    #[error("the link is not open")]
    NotOpen,
    /// A message that the link sends by itself, or that this side must not send.
    #[error("this side does not send such a message")]
    OutOfPlace,
    /// Longer than [`crate::messages::MESSAGE_LIMIT`].
    #[error("the message is too long")]
    TooLong,
    /// Sealing failed; the link is now closed.
    #[error("the message could not be sealed")]
    Seal,
}

/// What the states put out, and the offer as long as its secret is unused.
#[derive(Default)]
struct Outbox {
    transmits: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
    offer: Option<Offer>,
}

/// Each state is a struct of its own; an input consumes it and gives the next.
#[derive(Debug)]
enum State {
    AwaitInfo(Box<host::AwaitInfo>),
    HostHandshake(Box<host::Handshaking>),
    AwaitHandshake(Box<phone::AwaitHandshake>),
    PhoneHandshake(Box<phone::Handshaking>),
    Exchange(Box<exchange::Exchange>),
    Open(Box<open::Open>),
    Closed,
}

impl State {
    fn handle_frame(self, frame: &Frame<'_>, now: Timestamp, out: &mut Outbox) -> Result<Self, CloseReason> {
        match self {
            Self::AwaitInfo(state) => state.handle_frame(frame, now, out),
            Self::HostHandshake(state) => state.handle_frame(frame, now, out),
            Self::AwaitHandshake(state) => state.handle_frame(frame, now, out),
            Self::PhoneHandshake(state) => state.handle_frame(frame, now),
            Self::Exchange(state) => state.handle_frame(frame, now, out),
            Self::Open(state) => state.handle_frame(frame, now, out),
            Self::Closed => Ok(Self::Closed),
        }
    }

    fn handle_timeout(self, now: Timestamp, out: &mut Outbox) -> Result<Self, CloseReason> {
        match self {
            Self::AwaitInfo(state) => Err(state.expired()),
            Self::HostHandshake(_) | Self::PhoneHandshake(_) => Err(CloseReason::Timeout(Limit::Handshake)),
            Self::AwaitHandshake(state) => state.handle_timeout(now, out),
            Self::Exchange(state) => state.handle_timeout(now, out),
            Self::Open(state) => state.handle_timeout(now, out),
            Self::Closed => Ok(Self::Closed),
        }
    }

    fn deadline(&self) -> Option<Timestamp> {
        match self {
            Self::AwaitInfo(state) => Some(state.deadline()),
            Self::HostHandshake(state) => Some(state.deadline()),
            Self::AwaitHandshake(state) => Some(state.deadline()),
            Self::PhoneHandshake(state) => Some(state.deadline()),
            Self::Exchange(state) => Some(state.deadline()),
            Self::Open(state) => Some(state.deadline()),
            Self::Closed => None,
        }
    }

    /// Tells the peer why this side ends the link, as far as the state has a way to say it.
    fn tell(self, reason: CloseReason, ours: VersionRange, now: Timestamp, out: &mut Outbox) {
        match self {
            Self::Exchange(state) => state.tell(reason, now, out),
            Self::Open(state) => state.tell(reason, now, out),
            Self::AwaitInfo(_) | Self::HostHandshake(_) | Self::AwaitHandshake(_) | Self::PhoneHandshake(_) => {
                if let Some(refusal) = Refusal::of(reason) {
                    out.transmits.push_back(refusal.to_message(ours));
                }
            }
            Self::Closed => {}
        }
    }
}

/// One link, from its first byte to its end.
///
/// Spec: SPEC.md section 3
pub struct Link {
    state: State,
    out: Outbox,
    versions: VersionRange,
    side: Side,
}

impl Link {
    /// A host's link to a phone it is paired with; the transport is already up.
    #[must_use]
    pub fn host_connect(config: HostConfig, pair: &PairKeys, now: Timestamp) -> Self {
        let versions = config.versions;
        let state = host::AwaitInfo::connect(config, pair.duplicate(), now);
        Self { state: State::AwaitInfo(Box::new(state)), out: Outbox::default(), versions, side: Side::Host }
    }

    /// A host's link to pair on. It waits until the phone is ready for this kind of pairing, at most until the offer
    /// expires.
    #[must_use]
    pub fn host_pair(config: HostConfig, offer: Offer, now: Timestamp) -> Self {
        let versions = config.versions;
        let state = State::AwaitInfo(Box::new(host::AwaitInfo::pair(config, &offer, now)));
        let out = Outbox { offer: Some(offer), ..Outbox::default() };
        Self { state, out, versions, side: Side::Host }
    }

    /// A phone's link to whoever connected. The first thing to transmit is its `Info`.
    #[must_use]
    pub fn phone(config: PhoneConfig, now: Timestamp) -> Self {
        Self::phone_with_channel(config, None, now)
    }

    /// The same over GATT, for a phone that also takes channels of L2CAP: its `Info` says where.
    #[must_use]
    pub fn phone_with_channel(config: PhoneConfig, psm: Option<Psm>, now: Timestamp) -> Self {
        let mut link =
            Self { state: State::Closed, out: Outbox::default(), versions: config.versions, side: Side::Phone };
        match phone::AwaitHandshake::new(config, psm, now, &mut link.out) {
            Ok(state) => link.state = State::AwaitHandshake(Box::new(state)),
            Err(reason) => link.out.events.push_back(Event::Closed(reason)),
        }
        link
    }

    /// Phone: sets what the owner wants to pair with, at any time. Sends `Info` again if that changes it; has no
    /// effect on a link whose handshake has begun.
    pub fn set_pairing(&mut self, mode: PairingMode, now: Timestamp) {
        self.expire(now);
        self.advance(|state, out| match state {
            State::AwaitHandshake(mut waiting) => {
                waiting.set_pairing(mode, now, out)?;
                Ok(State::AwaitHandshake(waiting))
            }
            other => Ok(other),
        });
    }

    /// Takes one link message from the transport.
    pub fn handle_message(&mut self, message: &[u8], now: Timestamp) {
        self.expire(now);
        let ours = self.versions;
        let side = self.side;
        self.advance(|state, out| {
            let frame = match Frame::parse(message) {
                Ok(frame) => frame,
                Err(reason) => return Self::fail(state, reason, ours, now, out),
            };
            if let Frame::Refusal(body) = frame {
                // Plaintext: believed before there is a channel, where anybody could end the link anyway.
                return match state {
                    State::Closed => Ok(State::Closed),
                    State::Open(_) | State::Exchange(_) => {
                        Self::fail(state, CloseReason::Protocol(Violation::OutOfPlace), ours, now, out)
                    }
                    _ => Err(Refusal::read(body, ours, side)),
                };
            }
            state.handle_frame(&frame, now, out)
        });
    }

    /// Does what is due at `now`; harmless if called early.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if self.state.deadline().is_some_and(|deadline| now >= deadline) {
            self.advance(|state, out| state.handle_timeout(now, out));
        }
    }

    /// When [`Link::handle_timeout`] is due; `None` once the link has ended. Any input may change it.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.state.deadline()
    }

    /// The next link message to send.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.out.transmits.pop_front()
    }

    /// The next thing that happened.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.out.events.pop_front()
    }

    /// Sends one message to the peer.
    ///
    /// # Errors
    /// [`LinkError`]; only [`LinkError::Seal`] closes the link.
    pub fn send(&mut self, envelope: &Envelope, now: Timestamp) -> Result<(), LinkError> {
        let State::Open(open) = &mut self.state else { return Err(LinkError::NotOpen) };
        match open.send(envelope, now, &mut self.out) {
            Err(LinkError::Seal) => {
                self.close(CloseReason::Failed, now);
                Err(LinkError::Seal)
            }
            result => result,
        }
    }

    /// Asks the peer at once whether it is still there, for when the transport hints that it is not.
    pub fn ping(&mut self, now: Timestamp) {
        self.advance(|state, out| match state {
            State::Open(mut open) => {
                open.ping(now, out)?;
                Ok(State::Open(open))
            }
            other => Ok(other),
        });
    }

    /// Tells the link that a part of a message, in either direction, got through on a transport that is slow enough for
    /// this to matter: a long command takes many seconds at the smallest ATT MTU. What the link waits for gets its time
    /// from now on. The transport must limit how long one message may take.
    pub fn handle_progress(&mut self, now: Timestamp) {
        if let State::Open(open) = &mut self.state {
            open.progressed(now);
        }
    }

    /// Says whether the person at this side sees the same digits as at the other. `false` ends the link.
    pub fn confirm_pairing(&mut self, agree: bool, now: Timestamp) {
        self.expire(now);
        self.advance(|state, out| match state {
            State::Exchange(exchange) => exchange.confirm(agree, now, out),
            other => Ok(other),
        });
    }

    /// Says that the pair of [`Event::Paired`] is on this side's disk.
    pub fn pair_stored(&mut self, now: Timestamp) {
        self.expire(now);
        self.advance(|state, out| match state {
            State::Exchange(exchange) => exchange.stored(now, out),
            other => Ok(other),
        });
    }

    /// Ends the link, and tells the peer why if there is a way to.
    pub fn close(&mut self, reason: CloseReason, now: Timestamp) {
        let ours = self.versions;
        self.advance(|state, out| match state {
            State::Closed => Ok(State::Closed),
            state => Self::fail(state, reason, ours, now, out),
        });
    }

    /// Whether the link has ended.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether messages may be sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(&self.state, State::Open(open) if open.is_announced())
    }

    /// The longest link message that the transport may take at present, in bytes. It grows once the channel is open:
    /// ask again after each [`Link::handle_message`], before the next message is taken from the stream or the radio.
    ///
    /// Spec: SPEC.md sections 4.4 and 5
    #[must_use]
    pub fn message_limit(&self) -> usize {
        if self.is_open() { LINK_MESSAGE_LIMIT } else { LONGEST_BEFORE_AUTHENTICATION }
    }

    /// Takes back the offer of [`Link::host_pair`] if its secret was not used: the same QR code may stay on the screen
    /// for the next link.
    #[must_use]
    pub fn reclaim_offer(&mut self) -> Option<Offer> {
        if self.is_closed() { self.out.offer.take() } else { None }
    }

    /// Does what is due before an input that came while the caller's timer was late (a suspended machine, a busy one).
    /// What protects a handshake or a decision holds to the moment; an open channel forgives a late timer, because the
    /// answer that was waited for may be the very input.
    fn expire(&mut self, now: Timestamp) {
        if !self.is_open() {
            self.handle_timeout(now);
        }
    }

    fn fail(
        state: State,
        reason: CloseReason,
        ours: VersionRange,
        now: Timestamp,
        out: &mut Outbox,
    ) -> Result<State, CloseReason> {
        state.tell(reason, ours, now, out);
        Err(reason)
    }

    /// Runs one step. `Closed` stands in while the state is out, so whatever goes wrong leaves a closed link.
    fn advance(&mut self, step: impl FnOnce(State, &mut Outbox) -> Result<State, CloseReason>) {
        let state = mem::replace(&mut self.state, State::Closed);
        let was_closed = matches!(state, State::Closed);
        match step(state, &mut self.out) {
            Ok(next) => self.state = next,
            Err(reason) if !was_closed => self.out.events.push_back(Event::Closed(reason)),
            Err(_) => {}
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("side", &self.side).field("state", &self.state).finish_non_exhaustive()
    }
}
