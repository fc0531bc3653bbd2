//! VERIFY by what the phone knows its owner by (face, fingerprint) in place of the PIN. The comparison is the platform's; the
//! card sees its outcome, and a match opens only keys that were made for it.
//!
//! Spec: Yubico PIV extensions, "Verify UV" (docs.yubico.com); SP 800-73-4 part 2, section 3.2.1, key reference 96

use pocketcard_protocol::apdu::StatusWord;
use pocketcard_protocol::messages::{PendingReason, RefusalReason};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::reference::PinReference;
use super::security::{PinProof, Suspended};
use super::{PivApplet, no_entropy};
use crate::card::applet::{Context, Progress, SessionId};
use crate::card::effect::Effect;
use crate::card::event::Caller;
use crate::traits::{OwnerCheck, OwnerDecision};

/// Key reference of the comparison.
pub(crate) const BIOMETRIC: u8 = 0x96;

/// Octets of a temporary PIN.
pub(crate) const TEMPORARY_PIN_LENGTH: usize = 16;

/// Mismatches in a row before only the PIN helps. The platform has a limit of its own, so this one is forgotten with the
/// phone's program.
const BIOMETRIC_TRIES: u8 = 3;

/// What VERIFY with reference 96 asks for.
#[derive(Clone, Copy)]
pub(crate) enum BiometricCommand<'a> {
    Status,
    Logout,
    /// A comparison; `temporary` wants a PIN in return that stands for it in this session.
    Match {
        temporary: bool,
    },
    TemporaryPin(&'a [u8; TEMPORARY_PIN_LENGTH]),
}

impl<'a> BiometricCommand<'a> {
    /// Reads P1 and the data of a VERIFY.
    pub(crate) fn parse(p1: u8, data: &'a [u8]) -> Result<Self, StatusWord> {
        match (p1, data) {
            (0xFF, []) => Ok(Self::Logout),
            (0x00, []) => Ok(Self::Status),
            (0x00, [0x03, 0x00]) => Ok(Self::Match { temporary: false }),
            (0x00, [0x02, 0x00]) => Ok(Self::Match { temporary: true }),
            (0x00, [0x01, 0x10, pin @ ..]) => pin.try_into().map(Self::TemporaryPin).map_err(|_| StatusWord::WrongData),
            _ => Err(StatusWord::WrongData),
        }
    }
}

/// Mismatches that are left, for all sessions together.
pub(crate) struct BiometricTries(u8);

impl BiometricTries {
    pub(crate) const ALL: Self = Self(BIOMETRIC_TRIES);

    pub(crate) const fn left(&self) -> u8 {
        self.0
    }

    const fn refusal(&self) -> StatusWord {
        match self.0 {
            0 => StatusWord::AuthenticationMethodBlocked,
            left => StatusWord::RemainingTries(left),
        }
    }
}

impl PivApplet {
    /// Whether the phone can compare, and has an owner with a PIN for when it does not match.
    pub(super) const fn has_biometric(&self) -> bool {
        self.profile.owner_verification && self.state.reference(PinReference::Pin).is_set()
    }

    pub(super) fn biometric(
        &mut self,
        session: SessionId,
        command: Result<BiometricCommand<'_>, StatusWord>,
        context: &Context<'_>,
    ) -> Result<Progress, StatusWord> {
        if !self.has_biometric() {
            return Err(StatusWord::ReferenceNotFound);
        }
        match command? {
            BiometricCommand::Status if self.security(session).matched.is_verified() => {}
            BiometricCommand::Status => return Err(self.biometric_tries.refusal()),
            BiometricCommand::Logout => self.security(session).matched = PinProof::None,
            BiometricCommand::Match { temporary } => return self.ask_for_match(session, temporary, context),
            BiometricCommand::TemporaryPin(pin) => {
                // A wrong one is the last: nobody may try.
                let security = self.security(session);
                security.matched = PinProof::None;
                let temporary = security.temporary_pin.take();
                let right = temporary.filter(|temporary| temporary.ct_eq(pin).into());
                security.temporary_pin = Some(right.ok_or(StatusWord::RemainingTries(0))?);
                security.matched = PinProof::Fresh;
            }
        }
        Ok(Progress::status(StatusWord::Success))
    }

    fn ask_for_match(
        &mut self,
        session: SessionId,
        temporary: bool,
        context: &Context<'_>,
    ) -> Result<Progress, StatusWord> {
        // Whoever holds the phone in hand has its PIN prompt.
        let Caller::Host { id, name } = context.caller else { return Err(StatusWord::ConditionsNotSatisfied) };
        if self.biometric_tries.left() == 0 {
            context.refuse(RefusalReason::PinBlocked, BIOMETRIC);
            return Err(StatusWord::AuthenticationMethodBlocked);
        }
        self.security(session).suspended = Some(Suspended::Match { temporary });
        let check = OwnerCheck { host: *id, host_name: name.clone() };
        Ok(Progress::Wait(Effect::VerifyOwner(check), PendingReason::Approval))
    }

    pub(super) fn compared(
        &mut self,
        session: SessionId,
        temporary: bool,
        decision: OwnerDecision,
        context: &Context<'_>,
    ) -> Result<Progress, StatusWord> {
        match decision {
            OwnerDecision::Matched => {}
            OwnerDecision::NotMatched => {
                self.biometric_tries.0 = self.biometric_tries.left().saturating_sub(1);
                self.security(session).forget_match();
                return Err(StatusWord::RemainingTries(self.biometric_tries.left()));
            }
            OwnerDecision::Cancelled => {
                context.refuse(RefusalReason::Denied, BIOMETRIC);
                return Err(StatusWord::SecurityStatusNotSatisfied);
            }
            OwnerDecision::Unavailable => {
                context.refuse(RefusalReason::Unanswered, BIOMETRIC);
                return Err(StatusWord::ConditionsNotSatisfied);
            }
        }
        let pin = if temporary { Some(Zeroizing::new(context.random().map_err(no_entropy)?)) } else { None };
        self.biometric_tries = BiometricTries::ALL;
        let security = self.security(session);
        security.matched = PinProof::Fresh;
        let Some(pin) = pin else { return Ok(Progress::status(StatusWord::Success)) };
        let answer = Progress::success(pin.as_slice());
        security.temporary_pin = Some(pin);
        Ok(answer)
    }
}
