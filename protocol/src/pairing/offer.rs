//! A host's offer to pair.

use std::fmt;

use super::{Attempt, Attempts, OFFER_LIFETIME, QrText, TooManyTries};
use crate::channel::{Psk, PublicKey};
use crate::entropy::{Entropy, EntropyError};
use crate::time::Timestamp;
use zeroize::Zeroizing;

/// A host's offer to pair with one phone, once, for two minutes.
///
/// A link that ends before it has used the offer's secret gives it back: [`crate::link::Link::reclaim_offer`].
///
/// Spec: SPEC.md section 8.1 and 8.5
pub struct Offer {
    qr: Option<QrText>,
    expires: Timestamp,
    attempts: Attempts,
}

/// Why no offer can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// Too many pairings have failed.
    #[error(transparent)]
    TooManyTries(#[from] TooManyTries),
    /// The random source failed.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

impl Offer {
    /// Offers to pair with the phone that scans [`Offer::qr_text`].
    ///
    /// - `host`: this host's identity.
    /// - `name`: this host's name as the phone shows it; sanitised as any peer's.
    ///
    /// # Errors
    /// [`OfferError`] if the random source fails or too many pairings have failed.
    pub fn new(
        host: &PublicKey,
        name: &str,
        entropy: &dyn Entropy,
        attempts: &Attempts,
        now: Timestamp,
    ) -> Result<Self, OfferError> {
        attempts.check(now)?;
        let mut secret = Zeroizing::new([0; 32]);
        let mut seed = [0; 16];
        entropy.fill(secret.as_mut_slice())?;
        entropy.fill(&mut seed)?;
        let qr = QrText::new(*host, &secret, seed, name);
        Ok(Self { qr: Some(qr), expires: now + OFFER_LIFETIME, attempts: attempts.clone() })
    }

    /// Offers to pair without a camera: the digits alone tell the people which two machines pair.
    ///
    /// # Errors
    /// [`OfferError::TooManyTries`] if too many pairings have failed.
    pub fn compare(attempts: &Attempts, now: Timestamp) -> Result<Self, OfferError> {
        attempts.check(now)?;
        Ok(Self { qr: None, expires: now + OFFER_LIFETIME, attempts: attempts.clone() })
    }

    /// The text of the QR code; `None` without a camera. Whoever reads it can pose as the phone's owner until the
    /// digits are compared: show it, and keep it out of logs.
    #[must_use]
    pub fn qr_text(&self) -> Option<Zeroizing<String>> {
        self.qr.as_ref().map(QrText::to_text)
    }

    /// When the offer ends.
    #[must_use]
    pub const fn expires(&self) -> Timestamp {
        self.expires
    }

    /// By what the phone advertises that it wants to answer this offer; `None` without a camera.
    #[must_use]
    pub fn advertising_seed(&self) -> Option<&[u8; 16]> {
        self.qr.as_ref().map(QrText::advertising_seed)
    }

    pub(crate) const fn qr(&self) -> Option<&QrText> {
        self.qr.as_ref()
    }

    pub(crate) fn secret(&self) -> Option<&Psk> {
        self.qr.as_ref().map(QrText::secret)
    }

    pub(crate) fn begin(&self, now: Timestamp) -> Result<Attempt, TooManyTries> {
        self.attempts.begin(now)
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer").field("qr", &self.qr).field("expires", &self.expires).finish_non_exhaustive()
    }
}
