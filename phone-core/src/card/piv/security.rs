//! What one card session has proven. All of it is gone after reset, power-off, deselection or the end of the session.

use std::collections::BTreeMap;

use pocketcard_protocol::time::Timestamp;
use zeroize::Zeroizing;

use super::authenticate::KeyOperation;
use super::biometric::TEMPORARY_PIN_LENGTH;
use super::generate::Generation;
use super::management_key::{BLOCK, Challenge};
use super::policy::PinPolicy;
use super::reference::Slot;
use crate::traits::{KeyHandle, PinPurpose};

/// Whether the PIN has been verified, and for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PinProof {
    /// Not verified.
    #[default]
    None,
    /// Verified; a private-key operation has followed.
    Used,
    /// Verified, and no private-key operation has followed: the next one may use a key that asks for the PIN every time.
    Fresh,
}

impl PinProof {
    pub(crate) const fn is_verified(self) -> bool {
        matches!(self, Self::Used | Self::Fresh)
    }

    const fn is_fresh(self) -> bool {
        matches!(self, Self::Fresh)
    }

    const fn after_key_use(self) -> Self {
        match self {
            Self::None => Self::None,
            Self::Used | Self::Fresh => Self::Used,
        }
    }
}

/// A command that waits for an effect.
pub(crate) enum Suspended {
    /// The owner is asked; then this happens.
    Approval(Approved),
    /// The owner enters a PIN or PUK.
    PinEntry(PinPurpose),
    /// The platform checks that it is the owner.
    Match { temporary: bool },
    /// The key store uses a key.
    KeyUse,
    /// The key store makes a key.
    Generation(Generation),
}

/// What happens once the owner agrees.
pub(crate) enum Approved {
    /// A private key is used.
    KeyUse(KeyOperation),
    /// The management key counts as proven, and the host's challenge is answered where it sent one.
    Management(Option<[u8; BLOCK]>),
    /// The key in this slot is deleted, if it is still this one.
    Deletion(Slot, KeyHandle),
    /// The card is made new.
    Reset,
}

/// The security state of one card session.
#[derive(Default)]
pub(crate) struct SecurityStatus {
    pub(crate) pin: PinProof,
    /// It was typed on the host, and not entered on the phone.
    pub(crate) pin_typed: bool,
    /// Whether it was the owner by face or fingerprint. Serves only keys that were made for it.
    pub(crate) matched: PinProof,
    /// Stands for another match in this session.
    pub(crate) temporary_pin: Option<Zeroizing<[u8; TEMPORARY_PIN_LENGTH]>>,
    /// The management key is proven.
    pub(crate) management: bool,
    /// What the card waits for to believe that.
    pub(crate) challenge: Option<Challenge>,
    /// When the owner last confirmed a key of which confirmations last. By the key and not by its slot: another key may be
    /// moved there.
    pub(crate) confirmed: BTreeMap<KeyHandle, Timestamp>,
    pub(crate) suspended: Option<Suspended>,
}

impl SecurityStatus {
    pub(crate) const fn has_proof(&self) -> bool {
        self.pin.is_verified() || self.matched.is_verified() || self.temporary_pin.is_some() || self.management
    }

    /// Whether a key with this policy may be used.
    pub(crate) const fn satisfies(&self, policy: PinPolicy) -> bool {
        match policy {
            PinPolicy::Never => true,
            PinPolicy::Once => self.pin.is_verified(),
            PinPolicy::Always => self.pin.is_fresh(),
            PinPolicy::MatchOnce => self.matched.is_verified() || self.pin.is_verified(),
            PinPolicy::MatchAlways => self.matched.is_fresh() || self.pin.is_fresh(),
        }
    }

    /// A private-key operation happens: whichever key it is of, what was proven is no longer fresh.
    pub(crate) const fn use_key(&mut self) {
        self.pin = self.pin.after_key_use();
        self.matched = self.matched.after_key_use();
    }

    /// Forgets that it was the owner, and what stood for it.
    pub(crate) fn forget_match(&mut self) {
        self.matched = PinProof::None;
        self.temporary_pin = None;
    }

    /// Forgets everything that was proven. A key operation under way goes on and finds that out; what the owner is being asked
    /// about is no longer what it was, so the answer will open nothing.
    pub(crate) fn forget(&mut self) {
        let asks = |suspended: &Suspended| {
            matches!(suspended, Suspended::Approval(_) | Suspended::PinEntry(_) | Suspended::Match { .. })
        };
        let suspended = self.suspended.take().filter(|suspended| !asks(suspended));
        *self = Self { suspended, ..Self::default() };
    }

    /// Forgets what was proven with a management key that is no longer the card's, also where the owner is still being asked
    /// about it.
    pub(crate) fn forget_management(&mut self) {
        self.management = false;
        self.challenge = None;
        if matches!(self.suspended, Some(Suspended::Approval(Approved::Management(_)))) {
            self.suspended = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verification_serves_one_use_of_a_key_that_always_asks() {
        let mut security = SecurityStatus { pin: PinProof::Fresh, ..SecurityStatus::default() };
        assert!(security.satisfies(PinPolicy::Always) && security.satisfies(PinPolicy::Once));
        security.use_key();
        assert!(!security.satisfies(PinPolicy::Always));
        assert!(security.satisfies(PinPolicy::Once), "other keys stay open");
        let mut none = SecurityStatus::default();
        assert!(!none.satisfies(PinPolicy::Once) && none.satisfies(PinPolicy::Never));
        none.use_key();
        assert!(!none.has_proof(), "using an open key proves no PIN");
    }

    #[test]
    fn what_serves_which_policy() {
        use PinProof::{Fresh, None, Used};
        let policies =
            [PinPolicy::Never, PinPolicy::Once, PinPolicy::Always, PinPolicy::MatchOnce, PinPolicy::MatchAlways];
        for (pin, matched, expected) in [
            (None, None, [true, false, false, false, false]),
            (Used, None, [true, true, false, true, false]),
            (Fresh, None, [true, true, true, true, true]),
            (None, Used, [true, false, false, true, false]),
            (None, Fresh, [true, false, false, true, true]),
            (Used, Fresh, [true, true, false, true, true]),
        ] {
            let security = SecurityStatus { pin, matched, ..SecurityStatus::default() };
            assert_eq!(policies.map(|policy| security.satisfies(policy)), expected, "{pin:?} {matched:?}");
        }
    }
}
