//! What the two sides say to pair, once the handshake is done.
//!
//! Spec: SPEC.md section 8.3

use std::mem;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::config::{HostConfig, PhoneConfig};
use super::frame::Frame;
use super::limits::{CLOSE_LIMIT, DECISION_LIMIT, STORE_LIMIT};
use super::reason::{CloseReason, Limit, Side, Violation};
use super::sealed::Sealed;
use super::{Event, Outbox, State};
use crate::channel::{HandshakeHash, PublicKey, Transport};
use crate::entropy::Entropy;
use crate::messages::{Body, Envelope, PairCommit, PairConfirm, PairNonce, PairOpen, PairSecret, PairStored};
use crate::pairing::{Attempt, Digits, NONCE_LENGTH, Offer, PairKeys, QrText, commitment};
use crate::time::Timestamp;

/// Where the secret of the QR code is kept until the pair's keys are derived.
#[derive(Debug)]
enum Scanned {
    Offer(Offer),
    Qr(Arc<QrText>),
    Nothing,
}

/// What the handshake of a pairing leaves.
pub(super) struct Finished {
    pub(super) transport: Transport,
    pub(super) hash: HandshakeHash,
    pub(super) peer: PublicKey,
    /// Until when the digits must be known.
    pub(super) deadline: Timestamp,
}

/// What either side says of itself.
struct Speaker {
    entropy: Arc<dyn Entropy>,
    name: String,
    software: String,
}

/// A pairing after its handshake.
pub(super) struct Exchange {
    side: Side,
    speaker: Speaker,
    channel: Sealed,
    hash: HandshakeHash,
    peer: PublicKey,
    peer_name: String,
    scanned: Scanned,
    /// Host: this pairing in the count of failed ones.
    attempt: Option<Attempt>,
    step: Step,
    deadline: Timestamp,
}

/// How far it is. Each step holds what the next one needs and nothing else.
enum Step {
    /// Host: committed to its nonce.
    Committed { host: [u8; NONCE_LENGTH] },
    /// Phone: waits for the host's commitment.
    AwaitCommit,
    /// Phone: has sent its nonce.
    Answered { commitment: [u8; 32], phone: [u8; NONCE_LENGTH] },
    /// Both: people compare the digits.
    Deciding { ours: bool, theirs: bool },
    /// Both: confirmed on both sides, own secret sent.
    Secret { ours: Zeroizing<[u8; 32]> },
    /// Both: the pair is known; it is being stored.
    Storing { ours: bool, theirs: bool },
    /// Phone: all done, the host closes.
    Done,
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Committed { .. } => "Committed",
            Self::AwaitCommit => "AwaitCommit",
            Self::Answered { .. } => "Answered",
            Self::Deciding { .. } => "Deciding",
            Self::Secret { .. } => "Secret",
            Self::Storing { .. } => "Storing",
            Self::Done => "Done",
        })
    }
}

impl Exchange {
    /// The host's side; commits to its nonce at once.
    pub(super) fn host(
        config: HostConfig,
        finished: Finished,
        offer: Offer,
        attempt: Attempt,
        now: Timestamp,
        out: &mut Outbox,
    ) -> Result<Self, CloseReason> {
        let HostConfig { entropy, name, software, .. } = config;
        let mut nonce = [0; NONCE_LENGTH];
        entropy.fill(&mut nonce)?;
        let commit = PairCommit {
            commitment: commitment(&finished.hash, &nonce).to_vec(),
            host_name: name.clone(),
            software: software.clone(),
        };
        let speaker = Speaker { entropy, name, software };
        let step = Step::Committed { host: nonce };
        let mut exchange = Self::new(Side::Host, speaker, finished, Scanned::Offer(offer), step);
        exchange.attempt = Some(attempt);
        exchange.send(commit, now, out)?;
        Ok(exchange)
    }

    /// The phone's side; waits for the host's commitment.
    pub(super) fn phone(config: PhoneConfig, finished: Finished, qr: Option<Arc<QrText>>) -> Self {
        let PhoneConfig { entropy, name, software, .. } = config;
        let scanned = qr.map_or(Scanned::Nothing, Scanned::Qr);
        Self::new(Side::Phone, Speaker { entropy, name, software }, finished, scanned, Step::AwaitCommit)
    }

    fn new(side: Side, speaker: Speaker, finished: Finished, scanned: Scanned, step: Step) -> Self {
        let Finished { transport, hash, peer, deadline } = finished;
        let channel = Sealed::new(transport);
        Self { side, speaker, channel, hash, peer, peer_name: String::new(), scanned, attempt: None, step, deadline }
    }

    pub(super) const fn deadline(&self) -> Timestamp {
        self.deadline
    }

    pub(super) fn handle_timeout(self: Box<Self>, now: Timestamp, out: &mut Outbox) -> Result<State, CloseReason> {
        let reason = match self.step {
            Step::Committed { .. } | Step::AwaitCommit | Step::Answered { .. } => {
                CloseReason::Timeout(Limit::Handshake)
            }
            Step::Deciding { .. } => CloseReason::Timeout(Limit::Decision),
            Step::Secret { .. } | Step::Storing { .. } => CloseReason::Timeout(Limit::Store),
            Step::Done => CloseReason::Done,
        };
        self.fail(reason, now, out)
    }

    pub(super) fn handle_frame(
        mut self: Box<Self>,
        frame: &Frame<'_>,
        now: Timestamp,
        out: &mut Outbox,
    ) -> Result<State, CloseReason> {
        match self.handle_record(frame, now, out) {
            Ok(()) => self.settle(now, out),
            Err(reason) => self.fail(reason, now, out),
        }
    }

    fn handle_record(&mut self, frame: &Frame<'_>, now: Timestamp, out: &mut Outbox) -> Result<(), CloseReason> {
        let Some(envelope) = self.channel.receive(frame)? else { return Ok(()) };
        match self.channel.answer(envelope?, now, out)? {
            None | Some(Body::Unsupported(_)) => Ok(()),
            Some(body) => self.handle_step(body, now, out),
        }
    }

    fn handle_step(&mut self, body: Body, now: Timestamp, out: &mut Outbox) -> Result<(), CloseReason> {
        // An error below leaves `Done` behind, and ends the link.
        self.step = match (mem::replace(&mut self.step, Step::Done), body) {
            (Step::AwaitCommit, Body::PairCommit(commit)) => {
                let commitment = array(&commit.commitment)?;
                self.peer_name = commit.host_name;
                let mut phone = [0; NONCE_LENGTH];
                self.speaker.entropy.fill(&mut phone)?;
                let (phone_name, software) = (self.speaker.name.clone(), self.speaker.software.clone());
                self.send(PairNonce { nonce: phone.to_vec(), phone_name, software }, now, out)?;
                Step::Answered { commitment, phone }
            }
            (Step::Committed { host }, Body::PairNonce(nonce)) => {
                let phone = array(&nonce.nonce)?;
                self.peer_name = nonce.phone_name;
                self.send(PairOpen { nonce: host.to_vec() }, now, out)?;
                self.show_digits(&host, &phone, now, out)
            }
            (Step::Answered { commitment: committed, phone }, Body::PairOpen(open)) => {
                let host = array(&open.nonce)?;
                if commitment(&self.hash, &host) != committed {
                    return Err(CloseReason::Protocol(Violation::Commitment));
                }
                self.show_digits(&host, &phone, now, out)
            }
            (Step::Deciding { ours, theirs: false }, Body::PairConfirm(_)) => {
                out.events.push_back(Event::PeerConfirmed);
                Step::Deciding { ours, theirs: true }
            }
            (Step::Secret { ours }, Body::PairSecret(mut secret)) => {
                let theirs = Zeroizing::new(array(&secret.take_secret())?);
                let pair = self.derive(&ours, &theirs)?;
                out.events.push_back(Event::Paired { pair, peer_name: self.peer_name.clone() });
                Step::Storing { ours: false, theirs: false }
            }
            (Step::Storing { ours, theirs: false }, Body::PairStored(_)) => Step::Storing { ours, theirs: true },
            _ => return Err(CloseReason::Protocol(Violation::OutOfPlace)),
        };
        Ok(())
    }

    fn show_digits(
        &mut self,
        host: &[u8; NONCE_LENGTH],
        phone: &[u8; NONCE_LENGTH],
        now: Timestamp,
        out: &mut Outbox,
    ) -> Step {
        let digits = Digits::new(&self.hash, host, phone);
        out.events.push_back(Event::PairingDigits { digits, peer_name: self.peer_name.clone(), peer: self.peer });
        self.deadline = now + DECISION_LIMIT;
        Step::Deciding { ours: false, theirs: false }
    }

    /// The person at this side has decided. Too early or twice: nothing happens.
    pub(super) fn confirm(
        mut self: Box<Self>,
        agree: bool,
        now: Timestamp,
        out: &mut Outbox,
    ) -> Result<State, CloseReason> {
        match (&self.step, agree) {
            (Step::Storing { .. } | Step::Done, _) => {}
            // Until the keys are derived, no is always heard.
            (_, false) => return self.fail(CloseReason::Declined, now, out),
            (&Step::Deciding { ours: false, theirs }, true) => {
                self.send(PairConfirm {}, now, out)?;
                self.step = Step::Deciding { ours: true, theirs };
            }
            (_, true) => {}
        }
        self.settle(now, out)
    }

    /// The pair is on this side's disk.
    pub(super) fn stored(mut self: Box<Self>, now: Timestamp, out: &mut Outbox) -> Result<State, CloseReason> {
        if let Step::Storing { ours: false, theirs } = self.step {
            self.send(PairStored {}, now, out)?;
            self.step = Step::Storing { ours: true, theirs };
        }
        self.settle(now, out)
    }

    /// Goes on where both sides have done the same.
    fn settle(mut self: Box<Self>, now: Timestamp, out: &mut Outbox) -> Result<State, CloseReason> {
        match self.step {
            Step::Deciding { ours: true, theirs: true } => {
                let mut ours = Zeroizing::new([0; 32]);
                self.speaker.entropy.fill(ours.as_mut_slice())?;
                self.send(PairSecret { secret: ours.to_vec() }, now, out)?;
                if let Some(attempt) = self.attempt.take() {
                    attempt.succeeded();
                }
                self.step = Step::Secret { ours };
                self.deadline = now + STORE_LIMIT;
            }
            Step::Storing { ours: true, theirs: true } => {
                out.events.push_back(Event::PairingDone);
                if self.side == Side::Host {
                    return self.fail(CloseReason::Done, now, out);
                }
                self.step = Step::Done;
                self.deadline = now + CLOSE_LIMIT;
            }
            _ => {}
        }
        Ok(State::Exchange(self))
    }

    fn derive(&mut self, ours: &[u8; 32], theirs: &[u8; 32]) -> Result<PairKeys, CloseReason> {
        let (host, phone) = if self.side == Side::Host { (ours, theirs) } else { (theirs, ours) };
        let qr = match &self.scanned {
            Scanned::Offer(offer) => offer.secret(),
            Scanned::Qr(qr) => Some(qr.secret()),
            Scanned::Nothing => None,
        };
        let pair = PairKeys::derive(self.peer, &self.hash, host, phone, qr)?;
        // The QR code's secret is wiped where it lies; moving it out would leave a copy.
        self.scanned = Scanned::Nothing;
        Ok(pair)
    }

    fn send(&mut self, message: impl Into<Envelope>, now: Timestamp, out: &mut Outbox) -> Result<(), CloseReason> {
        Ok(self.channel.send(&message.into(), now, out)?)
    }

    fn fail(self: Box<Self>, reason: CloseReason, now: Timestamp, out: &mut Outbox) -> Result<State, CloseReason> {
        self.tell(reason, now, out);
        Err(reason)
    }

    pub(super) fn tell(mut self: Box<Self>, reason: CloseReason, now: Timestamp, out: &mut Outbox) {
        self.channel.tell(reason, now, out);
    }
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("side", &self.side).field("step", &self.step).finish_non_exhaustive()
    }
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], CloseReason> {
    bytes.try_into().map_err(|_| CloseReason::Protocol(Violation::Message))
}
