//! VERIFY, CHANGE REFERENCE DATA, RESET RETRY COUNTER and SET PIN RETRIES.
//!
//! A malformed value costs a try like a wrong one (`63 CX`): that is one of the two answers the standard allows, and the one
//! that tools which reset a card count on. A value of another length than 8 octets is no attempt and costs nothing.
//!
//! Spec: SP 800-73-4 part 2, sections 3.2.1 to 3.2.3

use pocketcard_protocol::apdu::StatusWord;
use pocketcard_protocol::messages::RefusalReason;

use super::biometric::BiometricTries;
use super::pin::{Candidate, ReferenceData, is_well_formed};
use super::reference::PinReference;
use super::security::PinProof;
use super::state::{Attempt, Kind, RightLeaves, WELL_KNOWN_PIN, WELL_KNOWN_PUK};
use super::{PivApplet, no_entropy};
use crate::card::applet::{Context, Progress, SessionId};
use crate::card::probe::ProbePoint;

impl PivApplet {
    pub(super) fn verify_status(&mut self, session: SessionId, context: &Context<'_>) -> Progress {
        if self.security(session).pin.is_verified() {
            return Progress::status(StatusWord::Success);
        }
        let left = self.state.reference(PinReference::Pin).tries_left.saturating_sub(self.kept_tries(context));
        let status = if left == 0 { Attempt::Blocked } else { Attempt::Wrong(left) };
        Progress::status(status.refusal().unwrap_or(StatusWord::Success))
    }

    pub(super) fn verify_logout(&mut self, session: SessionId) -> Progress {
        self.security(session).pin = PinProof::None;
        Progress::status(StatusWord::Success)
    }

    /// Checks a PIN and, if it is right, opens the PIN-protected keys of this session until it is reset or deselected.
    ///
    /// A wrong PIN costs a try even if the link drops before the answer leaves: the counter is stored before the comparison
    /// starts.
    ///
    /// - `kept`: tries that are not the caller's to use, here and below.
    pub(super) fn verify(
        &mut self,
        session: SessionId,
        pin: Candidate<'_>,
        kept: u8,
        context: &Context<'_>,
    ) -> Result<Progress, StatusWord> {
        context.reached(ProbePoint::VerifyReceived);
        let attempt = self.attempt(PinReference::Pin, pin, RightLeaves::AllTries, kept, context);
        let attempt = self.closing_pin(session, attempt);
        context.reached(ProbePoint::VerifyBeforeAnswer);
        attempt?;
        self.security(session).pin = PinProof::Fresh;
        Ok(Progress::status(StatusWord::Success))
    }

    pub(super) fn change(
        &mut self,
        session: SessionId,
        reference: PinReference,
        old: Candidate<'_>,
        new: Candidate<'_>,
        kept: u8,
        context: &Context<'_>,
    ) -> Result<Progress, StatusWord> {
        let attempt = self.attempt(reference, old, replacing(reference, new), kept, context);
        match reference {
            PinReference::Pin => self.closing_pin(session, attempt)?,
            PinReference::Puk => attempt?,
        }
        self.replace(session, reference, new, context)?;
        if reference == PinReference::Pin {
            self.security(session).pin = PinProof::Fresh;
        }
        Ok(Progress::status(StatusWord::Success))
    }

    /// Gives the PIN a new value and all its tries, for whoever knows the PUK. The PUK is checked first, so that every wrong
    /// one is counted; the PIN's security status stays as it was.
    pub(super) fn reset_retry_counter(
        &mut self,
        session: SessionId,
        puk: Candidate<'_>,
        pin: Candidate<'_>,
        kept: u8,
        context: &Context<'_>,
    ) -> Result<Progress, StatusWord> {
        let attempt = self.attempt(PinReference::Puk, puk, replacing(PinReference::Pin, pin), kept, context);
        self.closing_pin(session, attempt)?;
        self.replace(session, PinReference::Pin, pin, context)?;
        Ok(Progress::status(StatusWord::Success))
    }

    /// Sets how many tries PIN and PUK have. On a test card both get their well-known values, as the tools tell their users;
    /// on an owned card they keep their values, which nobody but the owner knows.
    pub(super) fn set_pin_retries(
        &mut self,
        session: SessionId,
        pin: u8,
        puk: u8,
        context: &Context<'_>,
    ) -> Result<Progress, StatusWord> {
        self.require_management(session, context)?;
        if !self.security(session).pin.is_verified() {
            return Err(StatusWord::SecurityStatusNotSatisfied);
        }
        let (pin, puk) = match self.state.kind {
            Kind::Test => (
                ReferenceData::new(WELL_KNOWN_PIN, context.random().map_err(no_entropy)?, pin, true),
                ReferenceData::new(WELL_KNOWN_PUK, context.random().map_err(no_entropy)?, puk, true),
            ),
            Kind::Owned => {
                // The number is the caller's own: what is kept from it comes on top, or one try would be none.
                let kept = self.kept_tries(context);
                let with_tries = |which, tries: u8| self.state.reference(which).with_tries(tries.saturating_add(kept));
                (with_tries(PinReference::Pin, pin), with_tries(PinReference::Puk, puk))
            }
        };
        self.state.set_references(pin, puk, context)?;
        self.sessions.values_mut().for_each(|security| security.pin = PinProof::None);
        Ok(Progress::status(StatusWord::Success))
    }

    /// Gives the owner's card its first PIN and PUK, or new ones: the owner does this on the phone and need not know the old.
    pub(crate) fn enrol(
        &mut self,
        pin: Candidate<'_>,
        puk: Candidate<'_>,
        context: &Context<'_>,
    ) -> Result<(), StatusWord> {
        if !is_well_formed(PinReference::Pin, pin) {
            return Err(StatusWord::WrongData);
        }
        let pin = self.reference_data(PinReference::Pin, pin, context)?;
        let puk = self.reference_data(PinReference::Puk, puk, context)?;
        self.state.set_references(pin, puk, context)?;
        self.biometric_tries = BiometricTries::ALL;
        for security in self.sessions.values_mut() {
            security.pin = PinProof::None;
            security.forget_match();
        }
        Ok(())
    }

    /// One attempt at a reference. Whoever takes the last try of the PIN ends its verification for everybody.
    fn attempt(
        &mut self,
        reference: PinReference,
        candidate: Candidate<'_>,
        leaves: RightLeaves,
        kept: u8,
        context: &Context<'_>,
    ) -> Result<(), StatusWord> {
        let attempt = self.state.attempt(reference, candidate, kept, leaves, context);
        // On a card of the standard, which has one session, the failure that takes the last try also ends what was verified,
        // so a blocked PIN is never a verified one. With several sessions that holds only if it ends in all of them.
        if self.state.reference(PinReference::Pin).tries_left == 0 {
            self.sessions.values_mut().for_each(|security| security.pin = PinProof::None);
        }
        if attempt == Attempt::Blocked {
            let is_kept = self.state.reference(reference).tries_left > 0;
            let reason = if is_kept { RefusalReason::LastTryKept } else { RefusalReason::PinBlocked };
            context.refuse(reason, reference.identifier());
        }
        if attempt == Attempt::Right && reference == PinReference::Pin {
            self.biometric_tries = BiometricTries::ALL;
        }
        attempt.refusal().map_or(Ok(()), Err)
    }

    /// A failed attempt takes back what an earlier VERIFY had opened; a refused one does not.
    fn closing_pin(&mut self, session: SessionId, attempt: Result<(), StatusWord>) -> Result<(), StatusWord> {
        if let Err(StatusWord::RemainingTries(_)) = attempt {
            self.security(session).pin = PinProof::None;
        }
        attempt
    }

    /// Stores a new value with all its tries. Nobody else's session stays open with the old one.
    fn replace(
        &mut self,
        session: SessionId,
        reference: PinReference,
        value: Candidate<'_>,
        context: &Context<'_>,
    ) -> Result<(), StatusWord> {
        if !is_well_formed(reference, value) {
            return Err(StatusWord::WrongData);
        }
        let data = self.reference_data(reference, value, context)?;
        self.state.set_reference(reference, data, context)?;
        if reference == PinReference::Pin {
            self.forget_elsewhere(session, |security| security.pin = PinProof::None);
        }
        Ok(())
    }

    fn reference_data(
        &self,
        reference: PinReference,
        value: Candidate<'_>,
        context: &Context<'_>,
    ) -> Result<ReferenceData, StatusWord> {
        let well_known = match reference {
            PinReference::Pin => WELL_KNOWN_PIN,
            PinReference::Puk => WELL_KNOWN_PUK,
        };
        let tries = self.state.reference(reference).tries;
        // Everybody may ask whether a value is the well-known one, so on an owner's card that is never said.
        let is_default = self.state.kind == Kind::Test && value == well_known;
        Ok(ReferenceData::new(value, context.random().map_err(no_entropy)?, tries, is_default))
    }
}

/// The right old value with a malformed new one is `6A 80`: it costs no try, and gives none back.
fn replacing(reference: PinReference, new: Candidate<'_>) -> RightLeaves {
    if is_well_formed(reference, new) { RightLeaves::AllTries } else { RightLeaves::SameTries }
}
