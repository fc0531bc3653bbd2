//! GENERAL AUTHENTICATE with a private key: the PIN rule, the owner's confirmation, and then the key store.
//!
//! Spec: SP 800-73-4 part 2, section 3.2.4 and appendices A.2, A.4, A.5; SP 800-78-4, table 6-2

use std::time::Duration;

use pocketcard_protocol::apdu::{Response, StatusWord};
use pocketcard_protocol::messages::{PendingReason, RefusalReason};
use pocketcard_protocol::time::Timestamp;
use pocketcard_protocol::tlv::Writer;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::PivApplet;
use super::administration::MANAGEMENT_KEY;
use super::command::KeyInput;
use super::key_record::KeyRecord;
use super::policy::TouchPolicy;
use super::reference::{Shape, Slot, shape};
use super::security::{Approved, Suspended};
use crate::card::applet::{Context, Progress, SessionId};
use crate::card::effect::Effect;
use crate::card::event::Caller;
use crate::card::probe::ProbePoint;
use crate::traits::{ApprovalDecision, ApprovalPurpose, ApprovalRequest, KeyAlgorithm, KeyHandle};

/// How long the owner's confirmation of a key with cached confirmation lasts.
const CONFIRMATION_LASTS: Duration = Duration::from_secs(15);

/// A private-key operation that is allowed as far as the PIN goes.
pub(crate) struct KeyOperation {
    slot: Slot,
    key: KeyHandle,
    touch: TouchPolicy,
    effect: Effect,
}

impl PivApplet {
    pub(super) fn use_key(
        &mut self,
        session: SessionId,
        slot: Slot,
        algorithm: KeyAlgorithm,
        input: KeyInput<'_>,
        context: &Context<'_>,
    ) -> Result<Progress, StatusWord> {
        context.reached(ProbePoint::SignReceived);
        // An empty slot and a key of another algorithm are 6A80: tools tell "no such key" from "not allowed" by it.
        let record = self.state.key(slot).filter(|record| record.algorithm == algorithm);
        let record = record.ok_or(StatusWord::WrongData)?.clone();
        let security = self.security(session);
        if !security.satisfies(record.policies.pin) {
            return Err(StatusWord::SecurityStatusNotSatisfied);
        }
        security.use_key();
        let (effect, purpose) = key_effect(slot, &record, input);
        let operation = KeyOperation { slot, key: record.handle, touch: record.policies.touch, effect };
        let Some(request) = self.approval(session, &operation, purpose, input, context) else {
            return Ok(self.start(session, operation, context));
        };
        self.security(session).suspended = Some(Suspended::Approval(Approved::KeyUse(operation)));
        Ok(Progress::Wait(Effect::Approve(request), PendingReason::Approval))
    }

    /// The owner has decided about something that waited.
    pub(super) fn approved(
        &mut self,
        session: SessionId,
        approved: Approved,
        decision: ApprovalDecision,
        context: &mut Context<'_>,
    ) -> Result<Progress, StatusWord> {
        let key = match &approved {
            Approved::KeyUse(operation) => operation.slot.reference(),
            Approved::Deletion(slot, _) => slot.reference(),
            Approved::Management(_) | Approved::Reset => MANAGEMENT_KEY,
        };
        match decision {
            ApprovalDecision::Approved => {}
            ApprovalDecision::Denied => {
                context.refuse(RefusalReason::Denied, key);
                return Err(StatusWord::SecurityStatusNotSatisfied);
            }
            ApprovalDecision::Unanswered => {
                context.refuse(RefusalReason::Unanswered, key);
                return Err(StatusWord::ConditionsNotSatisfied);
            }
        }
        match approved {
            Approved::KeyUse(operation) => {
                if operation.touch == TouchPolicy::Cached {
                    let confirmed = &mut self.security(session).confirmed;
                    confirmed.retain(|_, at| lasts(*at, context.now));
                    confirmed.insert(operation.key.clone(), context.now);
                }
                Ok(self.start(session, operation, context))
            }
            // The management key, or the key in the slot, may be another one by now.
            Approved::Deletion(slot, key) => {
                self.require_management(session, context)?;
                if self.state.key(slot).is_none_or(|record| record.handle != key) {
                    return Err(StatusWord::ConditionsNotSatisfied);
                }
                self.remove_key(slot, context)
            }
            Approved::Management(answer) => Ok(self.management_proven(session, answer)),
            // A card that was made new, or got a new PIN from its owner, in the meantime is not the one that was to go.
            Approved::Reset if !self.is_blocked(context) => Err(StatusWord::ConditionsNotSatisfied),
            Approved::Reset => self.make_new(context),
        }
    }

    /// The key store has used the key.
    pub(super) fn key_used(&self, result: &[u8], context: &Context<'_>) -> Progress {
        let mut writer = Writer::new();
        writer.nest(0x7C, |writer| {
            writer.put(0x82, result);
        });
        context.reached(ProbePoint::SignBeforeAnswer);
        Progress::Done(Response::new(&writer.into_bytes(), StatusWord::Success))
    }

    fn start(&mut self, session: SessionId, operation: KeyOperation, context: &Context<'_>) -> Progress {
        context.reached(ProbePoint::SignStarted);
        self.security(session).suspended = Some(Suspended::KeyUse);
        Progress::Wait(operation.effect, PendingReason::Busy)
    }

    /// The question to the owner; `None` if this use needs none.
    fn approval(
        &mut self,
        session: SessionId,
        operation: &KeyOperation,
        purpose: ApprovalPurpose,
        input: KeyInput<'_>,
        context: &Context<'_>,
    ) -> Option<ApprovalRequest> {
        let Caller::Host { id, name } = context.caller else { return None };
        let needed = match operation.touch {
            TouchPolicy::Never => false,
            TouchPolicy::Always => true,
            TouchPolicy::Cached => {
                let confirmed = self.security(session).confirmed.get(&operation.key);
                !confirmed.is_some_and(|at| lasts(*at, context.now))
            }
        };
        let (KeyInput::Digest(bytes) | KeyInput::Block(bytes) | KeyInput::Point(bytes)) = input;
        needed.then(|| ApprovalRequest {
            host: *id,
            host_name: name.clone(),
            key: operation.slot.reference(),
            purpose,
            input_digest: Sha256::digest(bytes).into(),
        })
    }
}

/// Whether a confirmation that the owner gave at that time still holds.
fn lasts(confirmed_at: Timestamp, now: Timestamp) -> bool {
    now.saturating_since(confirmed_at) <= CONFIRMATION_LASTS
}

/// What using a key on this input is.
pub(super) fn purpose(slot: Slot, input: KeyInput<'_>) -> ApprovalPurpose {
    match input {
        KeyInput::Point(_) => ApprovalPurpose::Agree,
        // The operation is the same; the padding of a signature tells them apart where the slot's use does not.
        KeyInput::Block(block) if slot.is_key_management() && !is_signature_padding(block) => ApprovalPurpose::Decrypt,
        KeyInput::Digest(_) | KeyInput::Block(_) => ApprovalPurpose::Sign,
    }
}

/// What the key store is asked for, and what that is called for the owner.
fn key_effect(slot: Slot, record: &KeyRecord, input: KeyInput<'_>) -> (Effect, ApprovalPurpose) {
    let (key, algorithm) = (record.handle.clone(), record.algorithm);
    let purpose = purpose(slot, input);
    let effect = match (input, purpose) {
        (KeyInput::Point(point), _) => Effect::Agree { key, algorithm, peer_point: point.to_vec() },
        (KeyInput::Digest(digest), _) => Effect::Sign { key, algorithm, input: fit(digest, algorithm) },
        (KeyInput::Block(block), ApprovalPurpose::Decrypt) => {
            Effect::Decrypt { key, algorithm, input: Zeroizing::new(block.to_vec()) }
        }
        (KeyInput::Block(block), _) => Effect::Sign { key, algorithm, input: Zeroizing::new(block.to_vec()) },
    };
    (effect, purpose)
}

/// A digest as long as the field: a longer one loses its right end, a shorter one gets zeros on the left.
///
/// Spec: FIPS 186-5, section 6.4.1
fn fit(digest: &[u8], algorithm: KeyAlgorithm) -> Zeroizing<Vec<u8>> {
    let (Shape::Curve(length) | Shape::Modulus(length)) = shape(algorithm);
    let kept = digest.get(..length).unwrap_or(digest);
    let mut fitted = Zeroizing::new(vec![0; length - kept.len()]);
    fitted.extend_from_slice(kept);
    fitted
}

/// Whether a block is padded for a PKCS#1 v1.5 signature.
///
/// Spec: RFC 8017, section 9.2
fn is_signature_padding(block: &[u8]) -> bool {
    block.starts_with(&[0x00, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_padded_on_the_left_and_cut_on_the_right() {
        let digest: Vec<u8> = (1..=64).collect();
        assert_eq!(*fit(&digest[..20], KeyAlgorithm::EccP256), [vec![0; 12], digest[..20].to_vec()].concat());
        assert_eq!(*fit(&digest[..32], KeyAlgorithm::EccP256), digest[..32]);
        assert_eq!(*fit(&digest, KeyAlgorithm::EccP256), digest[..32]);
        assert_eq!(*fit(&digest, KeyAlgorithm::EccP384), digest[..48]);
    }
}
