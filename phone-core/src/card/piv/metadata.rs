//! GET METADATA. Programs that see it succeed expect every field, so it is whole or refused.
//!
//! Spec: Yubico PIV extensions, "Get metadata"

use pocketcard_protocol::apdu::StatusWord;
use pocketcard_protocol::tlv::Writer;

use super::PivApplet;
use super::reference::{MetadataReference, PinReference, key_identifier};
use crate::card::applet::{Context, Progress, SessionId};

const ALGORITHM: u32 = 0x01;
const POLICY: u32 = 0x02;
const ORIGIN: u32 = 0x03;
const PUBLIC_KEY: u32 = 0x04;
const IS_DEFAULT: u32 = 0x05;
const TRIES: u32 = 0x06;
const BIOMETRIC_CONFIGURED: u32 = 0x07;
const TEMPORARY_PIN: u32 = 0x08;

/// The "algorithm" of a PIN.
const PIN_ALGORITHM: u8 = 0xFF;

impl PivApplet {
    pub(super) fn metadata(
        &self,
        session: SessionId,
        reference: MetadataReference,
        context: &Context<'_>,
    ) -> Result<Progress, StatusWord> {
        let mut writer = Writer::new();
        match reference {
            MetadataReference::Slot(slot) => {
                let record = self.state.key(slot).ok_or(StatusWord::ReferenceNotFound)?;
                let policies = record.policies;
                writer.put(ALGORITHM, &[key_identifier(record.algorithm)]);
                writer.put(POLICY, &[policies.pin.identifier(), policies.touch.identifier()]);
                writer.put(ORIGIN, &[record.origin.identifier()]);
                writer.put(PUBLIC_KEY, &record.public);
            }
            MetadataReference::Pin(reference) => {
                let data = self.state.reference(reference);
                let kept = self.kept_tries(context);
                writer.put(ALGORITHM, &[PIN_ALGORITHM]);
                writer.put(IS_DEFAULT, &[u8::from(data.is_default)]);
                writer.put(TRIES, &[data.tries.saturating_sub(kept), data.tries_left.saturating_sub(kept)]);
            }
            MetadataReference::Biometric => {
                if !self.has_biometric() {
                    return Err(StatusWord::ReferenceNotFound);
                }
                let security = self.sessions.get(&session);
                let temporary = security.is_some_and(|security| security.temporary_pin.is_some());
                writer.put(TRIES, &[self.biometric_tries.left()]);
                writer.put(BIOMETRIC_CONFIGURED, &[1]);
                writer.put(TEMPORARY_PIN, &[u8::from(temporary)]);
            }
            MetadataReference::Management => {
                let key = self.state.management();
                writer.put(ALGORITHM, &[key.algorithm.identifier()]);
                writer.put(POLICY, &[0x00, key.touch.identifier()]);
                writer.put(IS_DEFAULT, &[u8::from(key.is_default())]);
            }
        }
        Ok(Progress::success(&writer.into_bytes()))
    }

    /// Whether no try is left to the caller, for PIN and PUK both.
    pub(super) fn is_blocked(&self, context: &Context<'_>) -> bool {
        let kept = self.kept_tries(context);
        [PinReference::Pin, PinReference::Puk].into_iter().all(|which| self.state.reference(which).tries_left <= kept)
    }
}
