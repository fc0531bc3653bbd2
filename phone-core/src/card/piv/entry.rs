//! A PIN or PUK that the owner enters on the phone. Its commands are built here and nowhere else, and run like those that a
//! host sends, but that every try is the owner's: also the last one, which is kept from hosts.
//!
//! Spec: SPEC.md section 7.8

use pocketcard_protocol::apdu::StatusWord;
use pocketcard_protocol::messages::{PendingReason, RefusalReason};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::PivApplet;
use super::pin::{PIN_LENGTH, is_well_formed};
use super::reference::PinReference;
use super::security::Suspended;
use crate::card::applet::{Context, Progress, SessionId};
use crate::card::effect::Effect;
use crate::card::event::Caller;
use crate::traits::{EnteredPin, NewPin, PinAnswer, PinPurpose, PinRequest};

/// What the owner may not use of the tries: on the phone itself all are the owner's.
const KEPT: u8 = 0;

impl PivApplet {
    pub(super) fn ask_for_pin(
        &mut self,
        session: SessionId,
        purpose: Option<PinPurpose>,
        context: &Context<'_>,
    ) -> Result<Progress, StatusWord> {
        let purpose = purpose.ok_or(StatusWord::ReferenceNotFound)?;
        // The owner's own commands bring their PIN along.
        let Caller::Host { id, name } = context.caller else { return Err(StatusWord::NoDiagnosis) };
        let current = current(purpose);
        let tries_left = self.state.reference(current).tries_left;
        if tries_left == 0 {
            context.refuse(RefusalReason::PinBlocked, current.identifier());
            return Err(StatusWord::AuthenticationMethodBlocked);
        }
        self.security(session).suspended = Some(Suspended::PinEntry(purpose));
        let request = PinRequest { host: *id, host_name: name.clone(), purpose, tries_left };
        Ok(Progress::Wait(Effect::EnterPin(request), PendingReason::PinEntry))
    }

    pub(super) fn pin_entered(
        &mut self,
        session: SessionId,
        purpose: PinPurpose,
        answer: PinAnswer,
        context: &Context<'_>,
    ) -> Result<Progress, StatusWord> {
        let EnteredPin { current: entered, new } = match answer {
            PinAnswer::Entered(entered) => entered,
            PinAnswer::Cancelled => {
                context.refuse(RefusalReason::Cancelled, current(purpose).identifier());
                return Err(StatusWord::EntryCancelled);
            }
            PinAnswer::Unanswered => {
                context.refuse(RefusalReason::Unanswered, current(purpose).identifier());
                return Err(StatusWord::ExecutionError);
            }
        };
        let new = match replaced(purpose) {
            Some(reference) => Some(agreed(reference, new)?),
            None => None,
        };
        let entered = octets(current(purpose), &entered).ok_or(StatusWord::EntryMalformed)?;
        match (purpose, new) {
            (PinPurpose::Verify, _) => self.verify(session, &entered, KEPT, context),
            (PinPurpose::Change | PinPurpose::ChangePuk, Some(new)) => {
                self.change(session, current(purpose), &entered, &new, KEPT, context)
            }
            (PinPurpose::Unblock, Some(new)) => self.reset_retry_counter(session, &entered, &new, KEPT, context),
            (_, None) => Err(StatusWord::EntryMalformed),
        }
    }
}

/// The secret that is asked first.
const fn current(purpose: PinPurpose) -> PinReference {
    match purpose {
        PinPurpose::Verify | PinPurpose::Change => PinReference::Pin,
        PinPurpose::ChangePuk | PinPurpose::Unblock => PinReference::Puk,
    }
}

/// The secret that gets a new value.
const fn replaced(purpose: PinPurpose) -> Option<PinReference> {
    match purpose {
        PinPurpose::Verify => None,
        PinPurpose::Change | PinPurpose::Unblock => Some(PinReference::Pin),
        PinPurpose::ChangePuk => Some(PinReference::Puk),
    }
}

/// The new value, if it was entered twice in the same way and has the form of this reference.
fn agreed(reference: PinReference, new: Option<NewPin>) -> Result<Zeroizing<[u8; PIN_LENGTH]>, StatusWord> {
    let NewPin { value, repeated } = new.ok_or(StatusWord::EntryMalformed)?;
    if !bool::from(value.as_bytes().ct_eq(repeated.as_bytes())) {
        return Err(StatusWord::EntriesDiffer);
    }
    octets(reference, &value).ok_or(StatusWord::EntryMalformed)
}

/// What was entered as a command has it; `None` if it has not the form of this reference.
fn octets(reference: PinReference, entered: &str) -> Option<Zeroizing<[u8; PIN_LENGTH]>> {
    if !entered.is_ascii() || (reference == PinReference::Puk && entered.len() != PIN_LENGTH) {
        return None;
    }
    let mut octets = Zeroizing::new([0xFF; PIN_LENGTH]);
    octets.get_mut(..entered.len())?.copy_from_slice(entered.as_bytes());
    is_well_formed(reference, &octets).then_some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_entered_has_a_form() {
        let form = |reference, entered| octets(reference, entered).map(|octets| *octets);
        for (entered, expected) in [
            ("123456", Some(*b"123456\xFF\xFF")),
            ("1234567", Some(*b"1234567\xFF")),
            ("12345678", Some(*b"12345678")),
            ("", None),
            ("12345", None),
            ("123456789", None),
            ("12345a", None),
            (" 123456", None),
            ("１２３４５６", None),
        ] {
            assert_eq!(form(PinReference::Pin, entered), expected, "{entered}");
        }
        for (entered, expected) in [
            ("12345678", Some(*b"12345678")),
            ("pass:4 7", Some(*b"pass:4 7")),
            ("1234567", None),
            ("123456789", None),
            ("1234éa", None),
        ] {
            assert_eq!(form(PinReference::Puk, entered), expected, "{entered}");
        }
    }
}
