//! The host's side up to the open channel.

use super::config::HostConfig;
use super::exchange::{Exchange, Finished};
use super::frame::{self, FirstHandshake, Frame, Refusal};
use super::info::Info;
use super::limits::{HANDSHAKE_LIMIT, INFO_LIMIT};
use super::open::Open;
use super::reason::{CloseReason, Limit, Side, Violation};
use super::{Outbox, State};
use crate::channel::{Handshake, Pattern, PublicKey};
use crate::pairing::{Offer, PairKeys};
use crate::time::Timestamp;

/// What the host wants of the phone.
#[derive(Debug)]
enum Goal {
    Connect(PairKeys),
    Pair { pattern: Pattern, expires: Timestamp },
}

/// Waits for the phone's `Info`, and if the goal is to pair, for one that says the phone is ready.
#[derive(Debug)]
pub(super) struct AwaitInfo {
    config: HostConfig,
    goal: Goal,
    deadline: Timestamp,
}

impl AwaitInfo {
    pub(super) fn connect(config: HostConfig, pair: PairKeys, now: Timestamp) -> Self {
        Self { config, goal: Goal::Connect(pair), deadline: now + INFO_LIMIT }
    }

    pub(super) fn pair(config: HostConfig, offer: &Offer, now: Timestamp) -> Self {
        let pattern = if offer.qr().is_some() { Pattern::PairScanned } else { Pattern::PairCompared };
        let goal = Goal::Pair { pattern, expires: offer.expires() };
        Self { config, goal, deadline: (now + INFO_LIMIT).min(offer.expires()) }
    }

    pub(super) const fn deadline(&self) -> Timestamp {
        self.deadline
    }

    pub(super) fn expired(&self) -> CloseReason {
        match self.goal {
            Goal::Pair { expires, .. } if self.deadline == expires => CloseReason::Expired,
            _ => CloseReason::Timeout(Limit::Info),
        }
    }

    pub(super) fn handle_frame(
        mut self: Box<Self>,
        frame: &Frame<'_>,
        now: Timestamp,
        out: &mut Outbox,
    ) -> Result<State, CloseReason> {
        let Frame::Info(bytes) = frame else { return Err(CloseReason::Protocol(Violation::OutOfPlace)) };
        let version = match self.config.versions.negotiate(Info::versions_of(bytes)?, Side::Host) {
            Ok(version) => version,
            Err(reason) => {
                out.transmits.push_back(Refusal::Version.to_message(self.config.versions));
                return Err(reason);
            }
        };
        let info = Info::parse(bytes)?;
        if let Goal::Pair { pattern, expires } = self.goal {
            if now >= expires {
                return Err(CloseReason::Expired);
            }
            let ready = match pattern {
                Pattern::PairScanned => info.readiness().scanned,
                _ => info.readiness().compare,
            };
            if !ready {
                self.deadline = expires;
                return Ok(State::AwaitInfo(self));
            }
        }
        self.begin(version, &info, now, out)
    }

    fn begin(self, version: u8, info: &Info, now: Timestamp, out: &mut Outbox) -> Result<State, CloseReason> {
        let Self { config, goal, .. } = self;
        let pattern = match goal {
            Goal::Connect(_) => Pattern::Connect,
            Goal::Pair { pattern, .. } => pattern,
        };
        let first = FirstHandshake { version, pattern, info_nonce: *info.nonce() };
        let offer = out.offer.as_ref();
        let qr_hash = offer.and_then(Offer::qr).map(crate::pairing::QrText::hash);
        let (remote, psk) = match &goal {
            Goal::Connect(pair) => (Some(&pair.peer), Some(pair.session_psk())),
            Goal::Pair { .. } => (None, offer.and_then(Offer::secret)),
        };
        let mut handshake = Handshake::initiator(
            pattern,
            &first.prologue(info, qr_hash),
            &config.identity,
            remote,
            psk,
            &config.entropy,
        )?;
        let mut message = frame::handshake();
        first.write(&mut message);
        handshake.write(&mut message)?;
        out.transmits.push_back(message);
        Ok(State::HostHandshake(Box::new(Handshaking { config, goal, handshake, deadline: now + HANDSHAKE_LIMIT })))
    }
}

/// Waits for the phone's handshake message.
#[derive(Debug)]
pub(super) struct Handshaking {
    config: HostConfig,
    goal: Goal,
    handshake: Handshake,
    deadline: Timestamp,
}

impl Handshaking {
    pub(super) const fn deadline(&self) -> Timestamp {
        self.deadline
    }

    pub(super) fn handle_frame(
        mut self: Box<Self>,
        frame: &Frame<'_>,
        now: Timestamp,
        out: &mut Outbox,
    ) -> Result<State, CloseReason> {
        let message = match frame {
            Frame::Handshake(message) => message,
            // Sent by the phone before our first message arrived; ours says which one we read.
            Frame::Info(_) => return Ok(State::HostHandshake(self)),
            _ => return Err(CloseReason::Protocol(Violation::OutOfPlace)),
        };
        self.handshake.read(message)?;
        let peer = self.handshake.remote().ok_or(CloseReason::Failed)?;
        match self.goal {
            Goal::Connect(_) => {
                let (transport, _hash) = self.handshake.finish(now)?;
                Ok(State::Open(Box::new(Open::host(transport, peer, now, out))))
            }
            Goal::Pair { expires, .. } => self.pair(peer, expires, now, out),
        }
    }

    /// Sends the last handshake message, which uses up the offer.
    fn pair(
        mut self: Box<Self>,
        peer: PublicKey,
        expires: Timestamp,
        now: Timestamp,
        out: &mut Outbox,
    ) -> Result<State, CloseReason> {
        if now >= expires {
            return Err(CloseReason::Expired);
        }
        let attempt = out.offer.as_ref().ok_or(CloseReason::Failed)?.begin(now)?;
        let offer = out.offer.take().ok_or(CloseReason::Failed)?;
        let mut message = frame::handshake();
        self.handshake.write(&mut message)?;
        out.transmits.push_back(message);
        let (transport, hash) = self.handshake.finish(now)?;
        let finished = Finished { transport, hash, peer, deadline: self.deadline };
        let exchange = Exchange::host(self.config, finished, offer, attempt, now, out)?;
        Ok(State::Exchange(Box::new(exchange)))
    }
}
