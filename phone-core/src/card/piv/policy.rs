//! When a private key asks for a PIN or for the owner.
//!
//! Spec: SP 800-73-4 part 1, table 4b; Yubico PIV extensions, tags AA and AB

use super::reference::Slot;

/// When a key asks for the PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinPolicy {
    /// Never.
    Never,
    /// Once until the card is reset or deselected.
    Once,
    /// Before every use: a VERIFY serves the next private-key operation only.
    Always,
    /// Once until the card is reset or deselected: the PIN, or that the owner is who the phone sees.
    MatchOnce,
    /// Before every use: the PIN, or that the owner is who the phone sees.
    MatchAlways,
}

impl PinPolicy {
    /// The policy with this identifier; `Ok(None)` is "the slot's default".
    pub(crate) const fn from_identifier(identifier: u8) -> Result<Option<Self>, UnknownPolicy> {
        match identifier {
            0 => Ok(None),
            1 => Ok(Some(Self::Never)),
            2 => Ok(Some(Self::Once)),
            3 => Ok(Some(Self::Always)),
            4 => Ok(Some(Self::MatchOnce)),
            5 => Ok(Some(Self::MatchAlways)),
            _ => Err(UnknownPolicy),
        }
    }

    /// Whether it asks for a comparison that not every phone can make.
    pub(crate) const fn is_match(self) -> bool {
        matches!(self, Self::MatchOnce | Self::MatchAlways)
    }

    pub(crate) const fn identifier(self) -> u8 {
        match self {
            Self::Never => 1,
            Self::Once => 2,
            Self::Always => 3,
            Self::MatchOnce => 4,
            Self::MatchAlways => 5,
        }
    }
}

/// When a key asks the owner to confirm on the phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TouchPolicy {
    /// Never.
    Never,
    /// Before every use.
    Always,
    /// Unless the owner confirmed the same key for the same host within the last 15 seconds.
    Cached,
}

impl TouchPolicy {
    /// The policy with this identifier; `Ok(None)` is "the card's default".
    pub(crate) const fn from_identifier(identifier: u8) -> Result<Option<Self>, UnknownPolicy> {
        match identifier {
            0 => Ok(None),
            1 => Ok(Some(Self::Never)),
            2 => Ok(Some(Self::Always)),
            3 => Ok(Some(Self::Cached)),
            _ => Err(UnknownPolicy),
        }
    }

    pub(crate) const fn identifier(self) -> u8 {
        match self {
            Self::Never => 1,
            Self::Always => 2,
            Self::Cached => 3,
        }
    }
}

/// A policy that this card does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnknownPolicy;

/// What was asked for when a key was made; `None` is the default of slot and card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestedPolicies {
    /// Tag AA.
    pub pin: Option<PinPolicy>,
    /// Tag AB.
    pub touch: Option<TouchPolicy>,
}

/// The rules of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policies {
    /// When it asks for the PIN.
    pub pin: PinPolicy,
    /// When it asks the owner.
    pub touch: TouchPolicy,
}

impl RequestedPolicies {
    /// Fills in the defaults. `confirm` is the card's default for [`TouchPolicy`]; where it asks the owner at all, a signature
    /// key (9C) asks every time.
    pub(crate) const fn resolve(self, slot: Slot, confirm: TouchPolicy) -> Policies {
        let pin = match self.pin {
            Some(pin) => pin,
            None => slot.default_pin_policy(),
        };
        let touch = match (self.touch, slot, confirm) {
            (Some(touch), _, _) => touch,
            (None, Slot::Signature, TouchPolicy::Cached) => TouchPolicy::Always,
            (None, _, confirm) => confirm,
        };
        Policies { pin, touch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_follow_the_slot() {
        let none = RequestedPolicies::default();
        assert_eq!(none.resolve(Slot::Signature, TouchPolicy::Never).pin, PinPolicy::Always);
        assert_eq!(none.resolve(Slot::CardAuthentication, TouchPolicy::Never).pin, PinPolicy::Never);
        assert_eq!(none.resolve(Slot::Authentication, TouchPolicy::Cached).touch, TouchPolicy::Cached);
        assert_eq!(none.resolve(Slot::Signature, TouchPolicy::Cached).touch, TouchPolicy::Always);
        let asked = RequestedPolicies { pin: Some(PinPolicy::Never), touch: Some(TouchPolicy::Never) };
        let policies = asked.resolve(Slot::Signature, TouchPolicy::Cached);
        assert_eq!(policies, Policies { pin: PinPolicy::Never, touch: TouchPolicy::Never });
    }

    #[test]
    fn identifiers_lead_back_to_their_policies() {
        for identifier in 1..=5 {
            assert_eq!(
                PinPolicy::from_identifier(identifier).map(|policy| policy.unwrap().identifier()),
                Ok(identifier)
            );
        }
        assert_eq!(PinPolicy::from_identifier(6), Err(UnknownPolicy));
        assert_eq!(TouchPolicy::from_identifier(4), Err(UnknownPolicy));
    }
}
