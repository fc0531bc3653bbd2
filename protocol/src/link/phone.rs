//! The phone's side up to the open channel. Nothing here has an effect outside the link.

use std::sync::Arc;

use super::config::{PairingMode, PhoneConfig};
use super::exchange::{Exchange, Finished};
use super::frame::{self, FirstHandshake, Frame, Refusal};
use super::info::{INFO_NONCE_LENGTH, Info};
use super::limits::{HANDSHAKE_LIMIT, WAIT_LIMIT};
use super::open::Open;
use super::reason::{CloseReason, Limit, Side, Violation};
use super::{Outbox, State};
use crate::channel::{Handshake, Pattern};
use crate::l2cap::Psm;
use crate::pairing::QrText;
use crate::time::Timestamp;

/// Waits for a host's first handshake message.
#[derive(Debug)]
pub(super) struct AwaitHandshake {
    config: PhoneConfig,
    /// What of the link's transport belongs into `Info`.
    psm: Option<Psm>,
    info: Info,
    /// The `Info` before, which the host may have read while the present one was on its way.
    previous: Option<Info>,
    deadline: Timestamp,
    /// When the scanned code's lifetime has passed.
    scan_expires: Option<Timestamp>,
}

impl AwaitHandshake {
    pub(super) fn new(
        mut config: PhoneConfig,
        psm: Option<Psm>,
        now: Timestamp,
        out: &mut Outbox,
    ) -> Result<Self, CloseReason> {
        let mode = std::mem::take(&mut config.pairing);
        let info = new_info(&config, &mode, psm)?;
        out.transmits.push_back(frame::info(&info));
        let scan_expires = scan_expires(&mode, now);
        config.pairing = mode;
        Ok(Self { config, psm, info, previous: None, deadline: now + WAIT_LIMIT, scan_expires })
    }

    pub(super) fn deadline(&self) -> Timestamp {
        self.scan_expires.map_or(self.deadline, |expires| expires.min(self.deadline))
    }

    pub(super) fn handle_timeout(mut self: Box<Self>, now: Timestamp, out: &mut Outbox) -> Result<State, CloseReason> {
        if now >= self.deadline {
            return Err(CloseReason::Timeout(Limit::Wait));
        }
        if self.scan_expires.is_some_and(|expires| now >= expires) {
            self.change_mode(PairingMode::Closed, now, out)?;
        }
        Ok(State::AwaitHandshake(self))
    }

    pub(super) fn set_pairing(
        &mut self,
        mode: PairingMode,
        now: Timestamp,
        out: &mut Outbox,
    ) -> Result<(), CloseReason> {
        // The owner is here and acts: the wait begins anew.
        self.deadline = now + WAIT_LIMIT;
        self.change_mode(mode, now, out)
    }

    fn change_mode(&mut self, mode: PairingMode, now: Timestamp, out: &mut Outbox) -> Result<(), CloseReason> {
        if mode.readiness() != self.info.readiness() {
            let info = new_info(&self.config, &mode, self.psm)?;
            out.transmits.push_back(frame::info(&info));
            self.previous = Some(std::mem::replace(&mut self.info, info));
        }
        self.scan_expires = scan_expires(&mode, now);
        self.config.pairing = mode;
        Ok(())
    }

    pub(super) fn handle_frame(
        self: Box<Self>,
        frame: &Frame<'_>,
        now: Timestamp,
        out: &mut Outbox,
    ) -> Result<State, CloseReason> {
        let Frame::Handshake(body) = frame else { return Err(CloseReason::Protocol(Violation::OutOfPlace)) };
        let versions = self.config.versions;
        self.begin(body, now, out).inspect_err(|&reason| {
            if let Some(refusal) = Refusal::of(reason) {
                out.transmits.push_back(refusal.to_message(versions));
            }
        })
    }

    fn begin(self: Box<Self>, body: &[u8], now: Timestamp, out: &mut Outbox) -> Result<State, CloseReason> {
        let ours = self.config.versions;
        let version = FirstHandshake::version_of(body)?;
        if !ours.contains(version) {
            let theirs = super::VersionRange::new(version, version).ok_or(CloseReason::Protocol(Violation::Frame))?;
            return Err(match ours.negotiate(theirs, Side::Phone) {
                Err(mismatch) => mismatch,
                Ok(_) => CloseReason::Failed,
            });
        }
        let (first, message) = FirstHandshake::parse(body)?;
        let info = [Some(&self.info), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|info| *info.nonce() == first.info_nonce)
            .ok_or(CloseReason::Protocol(Violation::StaleInfo))?;
        match (first.pattern, &self.config.pairing) {
            (Pattern::Connect, _) => self.connect(&first.prologue(info, None), message, now, out),
            (Pattern::PairScanned, PairingMode::Scanned(qr)) if self.scan_expires.is_some_and(|at| now < at) => {
                let prologue = first.prologue(info, Some(qr.hash()));
                let qr = Arc::clone(qr);
                self.pair(first.pattern, &prologue, Some(qr), message, now, out)
            }
            (Pattern::PairCompared, PairingMode::Compare) => {
                let prologue = first.prologue(info, None);
                self.pair(first.pattern, &prologue, None, message, now, out)
            }
            (Pattern::PairScanned | Pattern::PairCompared, _) => Err(CloseReason::NotPairing),
        }
    }

    fn connect(&self, prologue: &[u8], message: &[u8], now: Timestamp, out: &mut Outbox) -> Result<State, CloseReason> {
        let PhoneConfig { identity, entropy, pairs, .. } = &self.config;
        let mut handshake = Handshake::responder(Pattern::Connect, prologue, identity, None, entropy)?;
        handshake.read(message)?;
        let peer = handshake.remote().ok_or(CloseReason::Failed)?;
        let pair = pairs(&peer).ok_or(CloseReason::Unpaired)?;
        handshake.set_psk(pair.session_psk())?;
        let mut answer = frame::handshake();
        handshake.write(&mut answer)?;
        out.transmits.push_back(answer);
        let (transport, _hash) = handshake.finish(now)?;
        Ok(State::Open(Box::new(Open::phone(transport, peer, now + HANDSHAKE_LIMIT))))
    }

    fn pair(
        self: Box<Self>,
        pattern: Pattern,
        prologue: &[u8],
        qr: Option<Arc<QrText>>,
        message: &[u8],
        now: Timestamp,
        out: &mut Outbox,
    ) -> Result<State, CloseReason> {
        let psk = qr.as_ref().map(|qr| qr.secret());
        let mut handshake = Handshake::responder(pattern, prologue, &self.config.identity, psk, &self.config.entropy)?;
        handshake.read(message)?;
        let mut answer = frame::handshake();
        handshake.write(&mut answer)?;
        out.transmits.push_back(answer);
        let config = self.config;
        Ok(State::PhoneHandshake(Box::new(Handshaking { config, handshake, qr, deadline: now + HANDSHAKE_LIMIT })))
    }
}

fn new_info(config: &PhoneConfig, mode: &PairingMode, psm: Option<Psm>) -> Result<Info, CloseReason> {
    let mut nonce = [0; INFO_NONCE_LENGTH];
    config.entropy.fill(&mut nonce)?;
    Ok(Info::new(config.versions, mode.readiness(), nonce, psm))
}

fn scan_expires(mode: &PairingMode, now: Timestamp) -> Option<Timestamp> {
    match mode {
        PairingMode::Scanned(qr) => Some(now + qr.lifetime()),
        PairingMode::Closed | PairingMode::Compare => None,
    }
}

/// Waits for the host's last handshake message of a pairing.
#[derive(Debug)]
pub(super) struct Handshaking {
    config: PhoneConfig,
    handshake: Handshake,
    qr: Option<Arc<QrText>>,
    deadline: Timestamp,
}

impl Handshaking {
    pub(super) const fn deadline(&self) -> Timestamp {
        self.deadline
    }

    pub(super) fn handle_frame(mut self, frame: &Frame<'_>, now: Timestamp) -> Result<State, CloseReason> {
        let Frame::Handshake(message) = frame else { return Err(CloseReason::Protocol(Violation::OutOfPlace)) };
        self.handshake.read(message)?;
        let peer = self.handshake.remote().ok_or(CloseReason::Failed)?;
        if self.qr.as_ref().is_some_and(|qr| *qr.host() != peer) {
            return Err(CloseReason::WrongHost);
        }
        let (transport, hash) = self.handshake.finish(now)?;
        let finished = Finished { transport, hash, peer, deadline: self.deadline };
        let exchange = Exchange::phone(self.config, finished, self.qr);
        Ok(State::Exchange(Box::new(exchange)))
    }
}
