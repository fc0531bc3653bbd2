//! The PIV card application, with the parts of the Yubico extension that provisioning tools need.
//!
//! | Module | Holds |
//! |---|---|
//! | `command` | bytes to typed commands; every check of their form |
//! | `reference`, `policy` | key references, algorithms and rules as types |
//! | `state`, `pin`, `management_key`, `key_record`, `objects` | what is durable |
//! | `security` | what a card session may do, and forgets |
//! | `data`, `verify`, `entry`, `biometric`, `authenticate`, `generate`, `administration`, `metadata` | the handlers, by job |
//!
//! Spec: SP 800-73-4; SP 800-78-4; Yubico PIV extensions at compatibility level 5.7

mod administration;
mod authenticate;
mod biometric;
mod command;
mod data;
mod deeds;
mod entry;
mod generate;
mod key_record;
mod management_key;
mod metadata;
mod objects;
mod pin;
mod policy;
mod profile;
mod reference;
mod security;
mod state;
mod verify;

use std::collections::BTreeMap;

use pocketcard_protocol::EntropyError;
use pocketcard_protocol::apdu::{Command, StatusWord};

use self::biometric::BiometricTries;
use self::command::{PivCommand, instruction_name};
use self::security::{PinProof, SecurityStatus, Suspended};
use self::state::PivState;
use super::CardError;
use super::applet::{Applet, Context, PinStatus, Progress, SessionId};
use super::deed::Deed;
use super::effect::EffectResult;
use super::event::CommandLine;
use super::permissions::Permissions;
use crate::traits::{Entropy, KeyHandle, KeyStoreError, PinPurpose, StateStore};

pub use self::objects::ObjectTag;
pub use self::policy::{PinPolicy, Policies, RequestedPolicies, TouchPolicy};
pub use self::profile::Version;
pub use self::reference::{ManagementAlgorithm, MetadataReference, PinReference, RetiredIndex, Slot};

pub(crate) use self::biometric::BIOMETRIC;
pub(crate) use self::profile::Profile;
pub(crate) use self::state::Kind;

/// The PIV application: durable state, and a security state for every card session.
pub(crate) struct PivApplet {
    profile: Profile,
    state: PivState,
    sessions: BTreeMap<SessionId, SecurityStatus>,
    biometric_tries: BiometricTries,
}

impl PivApplet {
    pub(crate) fn new(
        kind: Kind,
        profile: Profile,
        store: &dyn StateStore,
        entropy: &dyn Entropy,
    ) -> Result<Self, CardError> {
        let state = PivState::load(kind, store, entropy)?;
        Ok(Self { profile, state, sessions: BTreeMap::new(), biometric_tries: BiometricTries::ALL })
    }

    pub(crate) const fn serial(&self) -> u32 {
        match self.profile.serial {
            Some(serial) => serial,
            None => self.state.identity.serial,
        }
    }

    /// Goes up with every change of the objects.
    pub(crate) const fn revision(&self) -> u64 {
        self.state.revision()
    }

    /// The answer to SELECT.
    pub(crate) fn template(&self) -> Vec<u8> {
        self.profile.application_property_template()
    }

    /// The answer to GET VERSION.
    pub(crate) const fn version(&self) -> [u8; 3] {
        self.profile.version.to_bytes()
    }

    /// Every instruction that is not refused as unknown, ascending.
    pub(crate) fn instructions(&self) -> Vec<u8> {
        (0..=u8::MAX).filter(|ins| instruction_name(*ins).is_some()).collect()
    }

    /// What a session may know about its PIN.
    pub(crate) fn pin_status(&self, session: SessionId) -> PinStatus {
        let kept = if session == SessionId::OWNER { 0 } else { self.profile.kept_tries };
        let tries_left = self.state.reference(PinReference::Pin).tries_left.saturating_sub(kept);
        let verified = self.sessions.get(&session).is_some_and(|security| security.pin.is_verified());
        PinStatus { verified, tries_left }
    }

    /// Whether a session has proven anything: the PIN, its owner's presence, the management key.
    pub(crate) fn has_proof(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(SecurityStatus::has_proof)
    }

    fn security(&mut self, session: SessionId) -> &mut SecurityStatus {
        self.sessions.entry(session).or_default()
    }

    /// Takes from every session but this one what it had proven with a secret that has just changed.
    fn forget_elsewhere(&mut self, session: SessionId, forget: impl Fn(&mut SecurityStatus)) {
        self.sessions.iter_mut().filter(|(other, _)| **other != session).for_each(|(_, security)| forget(security));
    }

    /// Tries of PIN and PUK that the caller may not use.
    const fn kept_tries(&self, context: &Context<'_>) -> u8 {
        if context.is_owner() { 0 } else { self.profile.kept_tries }
    }

    /// Refuses a session that has not authenticated with the management key. The owner, on the phone, need not.
    fn require_management(&mut self, session: SessionId, context: &Context<'_>) -> Result<(), StatusWord> {
        let allowed = context.is_owner() || self.security(session).management;
        if allowed { Ok(()) } else { Err(StatusWord::SecurityStatusNotSatisfied) }
    }

    fn run(
        &mut self,
        session: SessionId,
        command: PivCommand<'_>,
        context: &mut Context<'_>,
    ) -> Result<Progress, StatusWord> {
        let deed = command.deed();
        if let Some(deed) = deed
            && let Some(reason) = context.permissions.refusal(deed)
        {
            context.refuse(reason, deed.key_reference().unwrap_or(0));
            return Err(StatusWord::SecurityStatusNotSatisfied);
        }
        let kept = self.kept_tries(context);
        let progress = match command {
            PivCommand::GetData(tag) => self.get_data(session, tag),
            PivCommand::PutData { tag, content } => self.put_data(session, tag, content, context),
            PivCommand::VerifyStatus => Ok(self.verify_status(session, context)),
            PivCommand::VerifyLogout => Ok(self.verify_logout(session)),
            PivCommand::Verify { pin } => self.verify(session, pin, kept, context),
            PivCommand::Biometric(command) => self.biometric(session, command, context),
            PivCommand::Change { reference, old, new } => self.change(session, reference, old, new, kept, context),
            PivCommand::ResetRetryCounter { puk, pin } => self.reset_retry_counter(session, puk, pin, kept, context),
            PivCommand::SetPinRetries { pin, puk } => self.set_pin_retries(session, pin, puk, context),
            PivCommand::ManagementChallenge { algorithm } => self.management_challenge(session, algorithm, context),
            PivCommand::ManagementResponse { algorithm, response } => {
                self.management_response(session, algorithm, response, context)
            }
            PivCommand::ManagementWitness { algorithm } => self.management_witness(session, algorithm, context),
            PivCommand::ManagementMutual { algorithm, witness, challenge } => {
                self.management_mutual(session, algorithm, witness, challenge, context)
            }
            PivCommand::SetManagementKey { algorithm, touch, key } => {
                self.set_management_key(session, algorithm, touch, key, context)
            }
            PivCommand::UseKey { slot, algorithm, input } => self.use_key(session, slot, algorithm, input, context),
            PivCommand::Generate { slot, algorithm, policies } => {
                self.generate(session, slot, algorithm, policies, context)
            }
            PivCommand::GetVersion => Ok(Progress::success(&self.version())),
            PivCommand::GetSerial => Ok(Progress::success(&self.serial().to_be_bytes())),
            PivCommand::GetMetadata(reference) => self.metadata(session, reference, context),
            PivCommand::MoveKey { from, to } => self.move_key(session, from, to, context),
            PivCommand::DeleteKey { slot } => self.delete_key(session, slot, context),
            PivCommand::Reset => self.reset(session, context),
        }?;
        if matches!(deed, Some(Deed::VerifyPin | Deed::ChangePin)) {
            self.security(session).pin_typed = true;
        }
        Ok(progress)
    }

    /// Takes from a session what it had gained by a permission that it no longer has.
    pub(crate) fn permissions_changed(&mut self, session: SessionId, permissions: &Permissions) {
        let usable = self.state.key_handles_in(|slot| permissions.allows_key(slot));
        let security = self.security(session);
        if security.pin_typed && !permissions.typed_pin {
            security.pin = PinProof::None;
        }
        if !permissions.administer {
            security.forget_management();
        }
        // Given again, a key is confirmed again.
        security.confirmed.retain(|key, _| usable.contains(key));
    }

    fn go_on(
        &mut self,
        session: SessionId,
        result: EffectResult,
        context: &mut Context<'_>,
    ) -> Result<Progress, StatusWord> {
        match (self.security(session).suspended.take(), result) {
            (Some(Suspended::Approval(approved)), EffectResult::Approval(decision)) => {
                self.approved(session, approved, decision, context)
            }
            (Some(Suspended::PinEntry(purpose)), EffectResult::Pin(answer)) => {
                let progress = self.pin_entered(session, purpose, answer, context)?;
                self.security(session).pin_typed &= purpose != PinPurpose::Verify && purpose != PinPurpose::Change;
                Ok(progress)
            }
            (Some(Suspended::Match { temporary }), EffectResult::Owner(decision)) => {
                self.compared(session, temporary, decision, context)
            }
            (Some(Suspended::KeyUse), EffectResult::Bytes(bytes)) => Ok(self.key_used(&bytes, context)),
            (Some(Suspended::Generation(generation)), EffectResult::Generated { handle, public }) => {
                self.generated(session, generation, handle, &public, context)
            }
            // What the owner was asked about has lost its ground in the meantime.
            (None, EffectResult::Approval(_)) => Err(StatusWord::SecurityStatusNotSatisfied),
            (None, EffectResult::Pin(_) | EffectResult::Owner(_)) => Err(StatusWord::ConditionsNotSatisfied),
            (_, EffectResult::Failed(error)) => Err(refusal(error)),
            // A key that nobody waits for any more.
            (_, EffectResult::Generated { handle, .. }) => {
                context.deletions.push(handle);
                Err(StatusWord::NoDiagnosis)
            }
            _ => Err(StatusWord::NoDiagnosis),
        }
    }
}

/// How a failure of the key store is answered.
const fn refusal(error: KeyStoreError) -> StatusWord {
    match error {
        KeyStoreError::UnsupportedAlgorithm | KeyStoreError::InvalidInput => StatusWord::WrongData,
        KeyStoreError::UnknownKey | KeyStoreError::Unusable => StatusWord::ReferenceDataNotUsable,
        KeyStoreError::Refused => StatusWord::ConditionsNotSatisfied,
        KeyStoreError::Failed => StatusWord::NoDiagnosis,
    }
}

fn no_entropy(_: EntropyError) -> StatusWord {
    StatusWord::NoDiagnosis
}

impl Applet for PivApplet {
    fn identifier(&self) -> &'static [u8] {
        &objects::PIV_AID
    }

    fn select(&mut self, _session: SessionId) -> Vec<u8> {
        self.template()
    }

    fn clear(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }

    fn execute(&mut self, session: SessionId, command: &Command, context: &mut Context<'_>) -> Progress {
        let progress = PivCommand::parse(command).and_then(|command| self.run(session, command, context));
        progress.unwrap_or_else(Progress::status)
    }

    fn enter_pin(&mut self, session: SessionId, purpose: Option<PinPurpose>, context: &mut Context<'_>) -> Progress {
        self.ask_for_pin(session, purpose, context).unwrap_or_else(Progress::status)
    }

    fn resume(&mut self, session: SessionId, result: EffectResult, context: &mut Context<'_>) -> Progress {
        self.go_on(session, result, context).unwrap_or_else(Progress::status)
    }

    fn cancel(&mut self, session: SessionId) {
        self.security(session).suspended = None;
    }

    fn describe(&self, command: &Command) -> CommandLine {
        match PivCommand::parse(command) {
            Ok(command) => command.describe().doing(command.deed()),
            Err(_) => match instruction_name(command.ins()) {
                Some(name) => CommandLine::bare(name),
                None => CommandLine::new("INS", format!("{:02X}", command.ins())),
            },
        }
    }

    fn key_handles(&self) -> Vec<KeyHandle> {
        self.state.key_handles()
    }
}
