//! A real pairing without a person: both sides' digits are read, compared and confirmed.

use std::time::{Duration, Instant};

use pocketcard_ipc::control::{Client, ClientError, PairMethod, Reply, Request};

use crate::DevError;
use crate::phone::Phone;

/// How long one pairing may take in all.
const PAIRING_LIMIT: Duration = Duration::from_secs(20);
/// The same over the air, where phone and computer have to find each other first.
const AIR_PAIRING_LIMIT: Duration = Duration::from_secs(90);

/// Pairs a phone into a slot, in the way a person does it: the QR text goes to the phone, or it is told to do without; the
/// digits are compared.
///
/// # Errors
/// [`DevError::DigitsDiffer`] if somebody is in the middle; [`DevError::Control`] with the daemon's reason.
pub(crate) fn pair(control: &mut Client, phone: &mut Phone, slot: u32, method: PairMethod) -> Result<(), DevError> {
    let on_air = phone.is_on_air();
    let deadline = Instant::now() + if on_air { AIR_PAIRING_LIMIT } else { PAIRING_LIMIT };
    let address = phone.address().parse().map_err(|_| DevError::Unexpected {
        process: "the address of the phone".to_owned(),
        what: "pairing",
        answer: phone.address(),
    })?;
    let (qr_text, _) = control.pair_start((!on_air).then_some(address), method, Some(slot))?;
    match method {
        PairMethod::Qr => phone.scan(&qr_text.ok_or(ClientError::Unexpected)?)?,
        PairMethod::Compare => phone.compare()?,
    }
    let mut answered = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match control.receive(Some(left))? {
            Reply::PairDigits { digits, .. } if !answered => {
                let shown = phone.digits(left)?;
                let agree = shown == digits;
                control.send(&Request::PairConfirm { agree })?;
                phone.confirm(agree)?;
                if !agree {
                    return Err(DevError::DigitsDiffer { host: digits, phone: shown });
                }
                answered = true;
            }
            Reply::Paired { .. } => return Ok(()),
            Reply::Error(failure) => return Err(ClientError::Failed(failure).into()),
            _ => {}
        }
    }
}
