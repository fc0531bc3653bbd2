//! GENERATE ASYMMETRIC KEY PAIR.
//!
//! Spec: SP 800-73-4 part 2, section 3.3.2

use pocketcard_protocol::apdu::StatusWord;
use pocketcard_protocol::messages::PendingReason;
use pocketcard_protocol::tlv::Writer;

use super::PivApplet;
use super::key_record::{KeyRecord, Origin, public_key_objects};
use super::policy::{PinPolicy, Policies, RequestedPolicies};
use super::reference::Slot;
use super::security::Suspended;
use crate::card::applet::{Context, Progress, SessionId};
use crate::card::effect::Effect;
use crate::card::probe::ProbePoint;
use crate::traits::{KeyAlgorithm, KeyHandle, PublicKeyData};

/// A key that is being made.
pub(crate) struct Generation {
    slot: Slot,
    algorithm: KeyAlgorithm,
    policies: Policies,
}

impl PivApplet {
    pub(super) fn generate(
        &mut self,
        session: SessionId,
        slot: Slot,
        algorithm: KeyAlgorithm,
        policies: RequestedPolicies,
        context: &Context<'_>,
    ) -> Result<Progress, StatusWord> {
        self.require_management(session, context)?;
        let asks_for_match = policies.pin.is_some_and(PinPolicy::is_match);
        if !self.profile.algorithms.contains(&algorithm) || (asks_for_match && !self.profile.owner_verification) {
            return Err(StatusWord::WrongData);
        }
        context.reached(ProbePoint::GenerateReceived);
        let policies = policies.resolve(slot, self.profile.confirm);
        self.security(session).suspended = Some(Suspended::Generation(Generation { slot, algorithm, policies }));
        Ok(Progress::Wait(Effect::Generate { algorithm }, PendingReason::KeyGeneration))
    }

    /// The key store has a new key. It is named in the state before anything says so; the key it replaces is destroyed after.
    pub(super) fn generated(
        &mut self,
        session: SessionId,
        generation: Generation,
        handle: KeyHandle,
        public: &PublicKeyData,
        context: &mut Context<'_>,
    ) -> Result<Progress, StatusWord> {
        let Generation { slot, algorithm, policies } = generation;
        // The management key may have changed, or the card been made new, while the key store worked.
        let allowed = self.require_management(session, context);
        let objects = public_key_objects(algorithm, public).ok_or(StatusWord::NoDiagnosis);
        let public = match allowed.and(objects) {
            Ok(objects) => objects,
            Err(status) => {
                context.deletions.push(handle);
                return Err(status);
            }
        };
        context.reached(ProbePoint::GenerateBeforeCommit);
        let record = KeyRecord { algorithm, policies, origin: Origin::Generated, handle, public };
        let answer = public_key_template(&record);
        // If this fails, the state may or may not name the key after the next start: the sweep at start decides, not we.
        let replaced = self.state.put_key(slot, record, context)?;
        context.reached(ProbePoint::GenerateAfterCommit);
        context.deletions.extend(replaced.map(|record| record.handle));
        context.reached(ProbePoint::GenerateBeforeAnswer);
        Ok(Progress::success(&answer))
    }
}

/// A public key as GENERATE answers it.
fn public_key_template(record: &KeyRecord) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.put(0x7F49, &record.public);
    writer.into_bytes().to_vec()
}
