//! The commands of a script.

use pocketcard_phone::{
    KeyAlgorithm, OwnerDecision,
    card::{
        Permissions,
        piv::{PinPolicy, RequestedPolicies, Slot, TouchPolicy},
    },
    enrolment::{self, NameError, NewKey, SLOTS},
};
use serde::Deserialize;

use crate::enrolment as owner;

/// A secret is borrowed from the line, which is wiped. One that is written with escapes is refused: it would have to be copied.
type Secret<'a> = &'a str;

#[derive(Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Command<'a> {
    Scan {
        #[serde(borrow)]
        qr: Secret<'a>,
    },
    Compare,
    Confirm {
        agree: bool,
    },
    CancelPairing,
    Approve {
        id: u64,
        agree: bool,
    },
    EnterPin {
        id: u64,
        #[serde(borrow)]
        pin: Secret<'a>,
        #[serde(borrow)]
        new: Option<Secret<'a>>,
        #[serde(borrow)]
        repeated: Option<Secret<'a>>,
    },
    CancelPin {
        id: u64,
    },
    OwnerCheck {
        id: u64,
        result: OwnerCheckResult,
    },
    Hosts,
    Forget {
        id: String,
    },
    Rename {
        id: String,
        name: String,
    },
    /// What is left out stays as it is.
    Permit {
        id: String,
        keys: Option<Vec<SlotName>>,
        typed_pin: Option<bool>,
        administer: Option<bool>,
        connect_unattended: Option<bool>,
    },
    AllowConnection {
        id: String,
    },
    OwnerPresent,
    Log,
    ExportLog {
        path: String,
    },
    /// For the first time, or because the PIN was forgotten.
    ChoosePin {
        #[serde(borrow)]
        pin: Secret<'a>,
        #[serde(borrow)]
        puk: Secret<'a>,
    },
    ChangePin {
        #[serde(borrow)]
        pin: Secret<'a>,
        #[serde(borrow)]
        new: Secret<'a>,
    },
    ChangePuk {
        #[serde(borrow)]
        puk: Secret<'a>,
        #[serde(borrow)]
        new: Secret<'a>,
    },
    /// Keys with certificates of their own; PIN and PUK are chosen first if there is a PUK.
    Enrol {
        #[serde(borrow)]
        pin: Secret<'a>,
        #[serde(borrow)]
        puk: Option<Secret<'a>>,
        names: NameTexts,
        keys: Option<Vec<Key>>,
    },
    MakeKey {
        key: Key,
    },
    RequestCertificate {
        #[serde(borrow)]
        pin: Secret<'a>,
        slot: SlotName,
        names: NameTexts,
    },
    ImportCertificate {
        slot: SlotName,
        certificate: String,
    },
    Slots,
    FactoryReset,
    Lock,
    Unlock,
    Quit,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OwnerCheckResult {
    Matched,
    NotMatched,
    Cancelled,
}

impl From<OwnerCheckResult> for OwnerDecision {
    fn from(result: OwnerCheckResult) -> Self {
        match result {
            OwnerCheckResult::Matched => Self::Matched,
            OwnerCheckResult::NotMatched => Self::NotMatched,
            OwnerCheckResult::Cancelled => Self::Cancelled,
        }
    }
}

/// A slot by its reference, such as `9A`.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct SlotName(pub(super) Slot);

impl TryFrom<String> for SlotName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let reference = u8::from_str_radix(&text, 16).ok();
        reference.and_then(Slot::from_reference).map(Self).ok_or("no slot of a PIV card")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NameTexts {
    common_name: String,
    #[serde(default)]
    organization: String,
    #[serde(default)]
    principal: String,
    #[serde(default)]
    email: String,
}

impl TryFrom<NameTexts> for enrolment::Names {
    type Error = NameError;

    fn try_from(texts: NameTexts) -> Result<Self, NameError> {
        owner::names(&texts.common_name, &texts.organization, &texts.principal, &texts.email)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    slot: SlotName,
    #[serde(default)]
    algorithm: Algorithm,
    pin_policy: Option<PinRule>,
    touch_policy: Option<TouchRule>,
}

impl From<Key> for NewKey {
    fn from(key: Key) -> Self {
        let Key { slot, algorithm, pin_policy, touch_policy } = key;
        let policies = RequestedPolicies { pin: pin_policy.map(Into::into), touch: touch_policy.map(Into::into) };
        Self { policies, ..Self::new(slot.0, algorithm.into()) }
    }
}

/// The keys that `enrol` makes: those that it names, or P-256 in every slot of a PIV card.
pub(super) fn new_keys(keys: Option<Vec<Key>>) -> Vec<NewKey> {
    match keys {
        Some(keys) => keys.into_iter().map(Into::into).collect(),
        None => SLOTS.map(|slot| NewKey::new(slot, KeyAlgorithm::EccP256)).to_vec(),
    }
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Algorithm {
    #[default]
    P256,
    P384,
    Rsa2048,
}

impl From<Algorithm> for KeyAlgorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::P256 => Self::EccP256,
            Algorithm::P384 => Self::EccP384,
            Algorithm::Rsa2048 => Self::Rsa2048,
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PinRule {
    Never,
    Once,
    Always,
    MatchOnce,
    MatchAlways,
}

impl From<PinRule> for PinPolicy {
    fn from(rule: PinRule) -> Self {
        match rule {
            PinRule::Never => Self::Never,
            PinRule::Once => Self::Once,
            PinRule::Always => Self::Always,
            PinRule::MatchOnce => Self::MatchOnce,
            PinRule::MatchAlways => Self::MatchAlways,
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TouchRule {
    Never,
    Always,
    Cached,
}

impl From<TouchRule> for TouchPolicy {
    fn from(rule: TouchRule) -> Self {
        match rule {
            TouchRule::Never => Self::Never,
            TouchRule::Always => Self::Always,
            TouchRule::Cached => Self::Cached,
        }
    }
}

/// Permissions with some of them changed.
pub(super) fn changed(
    mut permissions: Permissions,
    keys: Option<Vec<SlotName>>,
    typed_pin: Option<bool>,
    administer: Option<bool>,
    connect_unattended: Option<bool>,
) -> Permissions {
    if let Some(keys) = keys {
        permissions.keys = keys.into_iter().map(|name| name.0).collect();
    }
    permissions.typed_pin = typed_pin.unwrap_or(permissions.typed_pin);
    permissions.administer = administer.unwrap_or(permissions.administer);
    permissions.connect_unattended = connect_unattended.unwrap_or(permissions.connect_unattended);
    permissions
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DOCUMENTATION: &str = include_str!("../../../docs/virtual-phone.md");

    #[test]
    fn the_documentation_shows_every_command_and_each_is_one() {
        let mut shown = BTreeSet::new();
        for text in DOCUMENTATION.split('`').filter(|text| text.starts_with("{\"command\"")) {
            let json = text.replace(":N", ":1").replace(":ID", ":\"00\"").replace("{...}", "{\"common_name\":\"Ann\"}");
            let error = serde_json::from_str::<Command<'_>>(&json).err();
            assert!(error.is_none(), "{text}: {error:?}");
            let value: serde_json::Value = serde_json::from_str(&json).unwrap();
            shown.insert(value["command"].as_str().unwrap().to_owned());
        }
        // serde names them all when it is asked for one that does not exist.
        let error = serde_json::from_str::<Command<'_>>(r#"{"command":"?"}"#).err().unwrap().to_string();
        let (_, names) = error.split_once("expected one of").unwrap();
        let names: BTreeSet<String> = names.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        assert_eq!(shown, names);
    }

    #[test]
    fn what_is_left_out_of_a_permission_stays() {
        let full = Permissions::test_host();
        assert_eq!(changed(full.clone(), None, None, None, None), full);
        let some = changed(full.clone(), Some(vec![SlotName(Slot::Signature)]), Some(false), None, Some(false));
        assert_eq!(some.keys.into_iter().collect::<Vec<_>>(), [Slot::Signature]);
        assert!(!some.typed_pin && some.administer && !some.connect_unattended);
    }
}
