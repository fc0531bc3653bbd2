//! The management key: proving it and changing it; and what it opens besides objects and key generation.
//!
//! Spec: SP 800-73-4 part 2, section 3.2.4 and appendix A.1; Yubico PIV extensions

use pocketcard_protocol::apdu::StatusWord;
use pocketcard_protocol::messages::PendingReason;
use pocketcard_protocol::tlv::Writer;
use zeroize::Zeroizing;

use super::management_key::{BLOCK, Challenge, ManagementKey};
use super::policy::TouchPolicy;
use super::reference::{ManagementAlgorithm, Slot};
use super::security::{Approved, SecurityStatus, Suspended};
use super::state::Kind;
use super::{PivApplet, no_entropy};
use crate::card::applet::{Context, Progress, SessionId};
use crate::card::effect::Effect;
use crate::card::event::Caller;
use crate::traits::{ApprovalPurpose, ApprovalRequest};

/// Key reference of the management key, and what an approval about the whole card names.
pub(super) const MANAGEMENT_KEY: u8 = 0x9B;

impl PivApplet {
    /// A challenge for the host to encrypt. Programs also take it as a random number.
    pub(super) fn management_challenge(
        &mut self,
        session: SessionId,
        algorithm: Option<ManagementAlgorithm>,
        context: &Context<'_>,
    ) -> Result<Progress, StatusWord> {
        self.require_algorithm(algorithm)?;
        let challenge: [u8; BLOCK] = context.random().map_err(no_entropy)?;
        self.security(session).challenge = Some(Challenge::Single(challenge));
        Ok(template(0x81, &challenge))
    }

    pub(super) fn management_response(
        &mut self,
        session: SessionId,
        algorithm: Option<ManagementAlgorithm>,
        response: &[u8; BLOCK],
        context: &Context<'_>,
    ) -> Result<Progress, StatusWord> {
        self.require_algorithm(algorithm)?;
        let challenge = self.take_challenge(session);
        let proven = challenge.is_some_and(|challenge| challenge.is_answered_by(response, self.state.management()));
        self.conclude(session, proven, None, context)
    }

    /// A witness, encrypted: the host proves its key by decrypting it.
    pub(super) fn management_witness(
        &mut self,
        session: SessionId,
        algorithm: Option<ManagementAlgorithm>,
        context: &Context<'_>,
    ) -> Result<Progress, StatusWord> {
        self.require_algorithm(algorithm)?;
        let witness: Zeroizing<[u8; BLOCK]> = Zeroizing::new(context.random().map_err(no_entropy)?);
        let encrypted = self.state.management().encrypt(&witness);
        self.security(session).challenge = Some(Challenge::Witness(*witness));
        Ok(template(0x80, &encrypted))
    }

    /// The host has decrypted the witness, and wants its own challenge encrypted in return. It gets nothing encrypted unless
    /// the witness is right.
    pub(super) fn management_mutual(
        &mut self,
        session: SessionId,
        algorithm: Option<ManagementAlgorithm>,
        witness: &[u8; BLOCK],
        challenge: &[u8; BLOCK],
        context: &Context<'_>,
    ) -> Result<Progress, StatusWord> {
        self.require_algorithm(algorithm)?;
        let proven = self.take_challenge(session).is_some_and(|pending| pending.is_witness(witness));
        let answer = proven.then(|| self.state.management().encrypt(challenge));
        self.conclude(session, proven, answer, context)
    }

    /// The management key is proven; answers the host's challenge where it sent one.
    pub(super) fn management_proven(&mut self, session: SessionId, answer: Option<[u8; BLOCK]>) -> Progress {
        self.security(session).management = true;
        answer.map_or_else(|| Progress::status(StatusWord::Success), |answer| template(0x82, &answer))
    }

    pub(super) fn set_management_key(
        &mut self,
        session: SessionId,
        algorithm: ManagementAlgorithm,
        touch: TouchPolicy,
        key: &[u8],
        context: &Context<'_>,
    ) -> Result<Progress, StatusWord> {
        self.require_management(session, context)?;
        let key = ManagementKey::new(algorithm, touch, key).ok_or(StatusWord::WrongData)?;
        self.state.set_management(key, context)?;
        self.security(session).challenge = None;
        self.forget_elsewhere(session, SecurityStatus::forget_management);
        Ok(Progress::status(StatusWord::Success))
    }

    pub(super) fn move_key(
        &mut self,
        session: SessionId,
        from: Slot,
        to: Slot,
        context: &Context<'_>,
    ) -> Result<Progress, StatusWord> {
        self.require_management(session, context)?;
        self.state.move_key(from, to, context)?;
        Ok(Progress::status(StatusWord::Success))
    }

    pub(super) fn delete_key(
        &mut self,
        session: SessionId,
        slot: Slot,
        context: &mut Context<'_>,
    ) -> Result<Progress, StatusWord> {
        self.require_management(session, context)?;
        let key = self.state.key(slot).ok_or(StatusWord::ReferenceNotFound)?.handle.clone();
        match (self.state.kind, administration_request(context)) {
            (Kind::Owned, Some(request)) => {
                self.security(session).suspended = Some(Suspended::Approval(Approved::Deletion(slot, key)));
                let request = ApprovalRequest { key: slot.reference(), ..request };
                Ok(Progress::Wait(Effect::Approve(request), PendingReason::Approval))
            }
            _ => self.remove_key(slot, context),
        }
    }

    /// The owner agrees, or need not be asked.
    pub(super) fn remove_key(&mut self, slot: Slot, context: &mut Context<'_>) -> Result<Progress, StatusWord> {
        let record = self.state.remove_key(slot, context)?;
        context.deletions.push(record.handle);
        Ok(Progress::status(StatusWord::Success))
    }

    /// Makes the card new. A host may ask for it only where PIN and PUK are blocked, and on an owned card the owner confirms:
    /// no program can block both and wipe the card by itself.
    pub(super) fn reset(&mut self, session: SessionId, context: &mut Context<'_>) -> Result<Progress, StatusWord> {
        let Caller::Host { .. } = context.caller else { return self.make_new(context) };
        if !self.is_blocked(context) {
            return Err(StatusWord::ConditionsNotSatisfied);
        }
        match (self.state.kind, administration_request(context)) {
            (Kind::Owned, Some(request)) => {
                self.security(session).suspended = Some(Suspended::Approval(Approved::Reset));
                Ok(Progress::Wait(Effect::Approve(request), PendingReason::Approval))
            }
            _ => self.make_new(context),
        }
    }

    pub(super) fn make_new(&mut self, context: &mut Context<'_>) -> Result<Progress, StatusWord> {
        let handles = self.state.factory_reset(context)?;
        context.deletions.extend(handles);
        self.sessions.values_mut().for_each(SecurityStatus::forget);
        Ok(Progress::status(StatusWord::Success))
    }

    fn require_algorithm(&self, algorithm: Option<ManagementAlgorithm>) -> Result<(), StatusWord> {
        let fits = algorithm.is_none_or(|algorithm| algorithm == self.state.management().algorithm);
        if fits { Ok(()) } else { Err(StatusWord::WrongData) }
    }

    /// The pending challenge, which is spent by this, and whatever an earlier one had proven.
    fn take_challenge(&mut self, session: SessionId) -> Option<Challenge> {
        let security = self.security(session);
        security.management = false;
        security.challenge.take()
    }

    fn conclude(
        &mut self,
        session: SessionId,
        proven: bool,
        answer: Option<[u8; BLOCK]>,
        context: &Context<'_>,
    ) -> Result<Progress, StatusWord> {
        if !proven {
            return Err(StatusWord::SecurityStatusNotSatisfied);
        }
        // An owned card asks its owner whatever the key says: the permission to administer is for good, the confirmation for now.
        let asks = self.state.kind == Kind::Owned || self.state.management().touch != TouchPolicy::Never;
        match administration_request(context).filter(|_| asks) {
            Some(request) => {
                self.security(session).suspended = Some(Suspended::Approval(Approved::Management(answer)));
                Ok(Progress::Wait(Effect::Approve(request), PendingReason::Approval))
            }
            None => Ok(self.management_proven(session, answer)),
        }
    }
}

/// Asks the owner whether a host may administer the card; `None` if the owner asks.
fn administration_request(context: &Context<'_>) -> Option<ApprovalRequest> {
    let Caller::Host { id, name } = context.caller else { return None };
    Some(ApprovalRequest {
        host: *id,
        host_name: name.clone(),
        key: MANAGEMENT_KEY,
        purpose: ApprovalPurpose::Administer,
        input_digest: [0; 32],
    })
}

/// A dynamic authentication template with one object.
fn template(tag: u32, value: &[u8]) -> Progress {
    let mut writer = Writer::new();
    writer.nest(0x7C, |writer| {
        writer.put(tag, value);
    });
    Progress::success(&writer.into_bytes())
}
