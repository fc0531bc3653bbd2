//! What an application on the card is, so that others can sit beside PIV.

use std::cell::Cell;

use pocketcard_protocol::apdu::{Command, Response, StatusWord};
use pocketcard_protocol::messages::{PendingReason, RefusalReason};
use pocketcard_protocol::time::Timestamp;
use pocketcard_protocol::{Entropy, EntropyError};

use super::effect::{Effect, EffectResult};
use super::event::{Caller, CommandLine};
use super::permissions::Permissions;
use super::probe::{Probe, ProbePoint};
use crate::traits::{KeyHandle, PinPurpose, StateStore};

/// Names a card session; applets keep their security state by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub(crate) u64);

impl SessionId {
    /// The owner's own session on the phone.
    pub(crate) const OWNER: Self = Self(0);
}

/// What an applet may use while it works on one command.
pub struct Context<'a> {
    /// Durable state.
    pub store: &'a dyn StateStore,
    /// Randomness.
    pub entropy: &'a dyn Entropy,
    /// Where tests may stop the phone.
    pub probe: &'a dyn Probe,
    /// The time now.
    pub now: Timestamp,
    /// Who asks.
    pub caller: &'a Caller,
    /// What the caller may do.
    pub permissions: &'a Permissions,
    /// Keys that no state names any more; the card has them destroyed.
    pub deletions: &'a mut Vec<KeyHandle>,
    /// Why the command is refused, for the person at the computer; see `Context::refuse`.
    pub refusal: &'a Cell<Option<Refusal>>,
}

/// Why a command is refused, where its status word does not tell a person enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: RefusalReason,
    /// Key or secret that it is about; 0 if about none.
    pub key: u8,
}

impl Context<'_> {
    /// Whether the owner asks, on the phone itself.
    pub(crate) const fn is_owner(&self) -> bool {
        matches!(self.caller, Caller::Owner)
    }

    /// Says why the command that is about to be refused is. A command that succeeds has nothing to explain.
    pub(crate) fn refuse(&self, reason: RefusalReason, key: u8) {
        self.refusal.set(Some(Refusal { reason, key }));
    }

    /// `N` random octets.
    pub(crate) fn random<const N: usize>(&self) -> Result<[u8; N], EntropyError> {
        let mut bytes = [0; N];
        self.entropy.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn reached(&self, point: ProbePoint) {
        self.probe.reached(point);
    }
}

/// How far a command has come.
pub enum Progress {
    /// It is answered.
    Done(Response),
    /// It goes on when the effect has a result.
    Wait(Effect, PendingReason),
}

impl Progress {
    pub(crate) fn status(status: StatusWord) -> Self {
        Self::Done(Response::status_only(status))
    }

    pub(crate) fn success(data: &[u8]) -> Self {
        Self::Done(Response::new(data, StatusWord::Success))
    }
}

impl From<StatusWord> for Progress {
    fn from(status: StatusWord) -> Self {
        Self::status(status)
    }
}

/// What a host may know about the PIN of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinStatus {
    /// Verified in this session.
    pub verified: bool,
    /// Tries left for this session.
    pub tries_left: u8,
}

/// An application on the card. It keeps one security state per card session and at most one command of each under way.
pub trait Applet: Send {
    /// The application identifier; a SELECT with its first five octets or more selects the applet.
    fn identifier(&self) -> &'static [u8];

    /// Answers a SELECT. Selecting the applet that is selected already keeps its security state.
    fn select(&mut self, session: SessionId) -> Vec<u8>;

    /// Forgets everything about a session: its security state and a command under way.
    fn clear(&mut self, session: SessionId);

    /// Begins a command other than SELECT.
    fn execute(&mut self, session: SessionId, command: &Command, context: &mut Context<'_>) -> Progress;

    /// Lets the owner enter a PIN or PUK on the phone, for the host of a session; `None` is one that no application has.
    fn enter_pin(&mut self, session: SessionId, purpose: Option<PinPurpose>, context: &mut Context<'_>) -> Progress {
        let _ = (session, purpose, context);
        Progress::status(StatusWord::InstructionNotSupported)
    }

    /// Goes on with the command that waited. Called only after [`Progress::Wait`], once.
    fn resume(&mut self, session: SessionId, result: EffectResult, context: &mut Context<'_>) -> Progress;

    /// Gives up the command that waits. The security state stays, except what an unfinished command had granted.
    fn cancel(&mut self, session: SessionId);

    /// The command in words, without any of its secrets.
    fn describe(&self, command: &Command) -> CommandLine;

    /// Every private key that the applet's state names.
    fn key_handles(&self) -> Vec<KeyHandle> {
        Vec::new()
    }
}
