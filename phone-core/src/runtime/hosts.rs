//! The paired hosts: what the phone knows of them, and the keys of the pairs.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use pocketcard_protocol::{
    advertising::{Epoch, Identifier},
    channel::PublicKey,
    link::PairLookup,
    pairing::{PairKeys, UNCONFIRMED_PAIR_LIFETIME},
    time::Timestamp,
};
use prost::Message;
use zeroize::Zeroizing;

use super::{Parts, StartError};
use crate::{
    card::{Permissions, piv::Slot},
    traits::{Batch, HostId, StateStore, StoreError},
};

const NAMESPACE: &str = "host/";
const KEYS: &str = "/keys";
const ABOUT: &str = "/about";

/// A paired host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInfo {
    /// The host.
    pub host: HostId,
    /// The name that the owner sees.
    pub name: String,
    /// When it was paired, by the phone's wall clock.
    pub paired_at: SystemTime,
    /// Whether it has an open channel now.
    pub connected: bool,
    /// What it may do.
    pub permissions: Permissions,
}

/// What is stored about a host besides the keys.
#[derive(Clone, PartialEq, Message)]
struct About {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    paired_at_unix_s: u64,
    /// Whether the host is known to have stored the pair too.
    #[prost(bool, tag = "3")]
    confirmed: bool,
    /// Absent until the owner changes them: what a host of this kind of card may do by default.
    #[prost(message, optional, tag = "4")]
    permissions: Option<StoredPermissions>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredPermissions {
    /// References of the keys. One that this version does not know is no permission.
    #[prost(bytes = "vec", tag = "1")]
    keys: Vec<u8>,
    #[prost(bool, tag = "2")]
    typed_pin: bool,
    #[prost(bool, tag = "3")]
    administer: bool,
    #[prost(bool, tag = "4")]
    connect_unattended: bool,
}

impl From<&Permissions> for StoredPermissions {
    fn from(permissions: &Permissions) -> Self {
        let Permissions { typed_pin, administer, connect_unattended, .. } = *permissions;
        Self { keys: permissions.key_references(), typed_pin, administer, connect_unattended }
    }
}

impl From<&StoredPermissions> for Permissions {
    fn from(stored: &StoredPermissions) -> Self {
        let StoredPermissions { typed_pin, administer, connect_unattended, .. } = *stored;
        let keys = stored.keys.iter().filter_map(|reference| Slot::from_reference(*reference)).collect();
        Self { keys, typed_pin, administer, connect_unattended }
    }
}

type SharedKeys = Arc<RwLock<HashMap<PublicKey, Zeroizing<Vec<u8>>>>>;

pub(super) struct Hosts {
    about: BTreeMap<HostId, About>,
    /// Shared with the links, which look keys up in the middle of a handshake.
    keys: SharedKeys,
    provisional: BTreeMap<HostId, Timestamp>,
    /// What a host may do of which the owner has said nothing.
    default_permissions: Permissions,
    store: Arc<dyn StateStore>,
}

impl Hosts {
    pub(super) async fn open(
        entries: &[(String, Zeroizing<Vec<u8>>)],
        default_permissions: Permissions,
        parts: &Parts,
        now: Timestamp,
    ) -> Result<Self, StartError> {
        let mut about = BTreeMap::new();
        let mut keys = HashMap::new();
        let mut provisional = BTreeMap::new();
        for (name, value) in entries {
            let Some(name) = name.strip_prefix(NAMESPACE) else { continue };
            if let Some(host) = name.strip_suffix(KEYS).and_then(HostId::from_hex) {
                let pair = parts.sealing.unseal(&context(&host), value).await?;
                keys.insert(PublicKey::from(*host.as_bytes()), pair);
            } else if let Some(host) = name.strip_suffix(ABOUT).and_then(HostId::from_hex) {
                let record = About::decode(value.as_slice()).map_err(|_| StartError::DamagedState)?;
                if !record.confirmed {
                    provisional.insert(host, now + UNCONFIRMED_PAIR_LIFETIME);
                }
                about.insert(host, record);
            } else {
                return Err(StartError::DamagedState);
            }
        }
        let complete =
            about.len() == keys.len() && about.keys().all(|host| keys.contains_key(&PublicKey::from(*host.as_bytes())));
        if !complete {
            return Err(StartError::DamagedState);
        }
        let keys = Arc::new(RwLock::new(keys));
        Ok(Self { about, keys, provisional, default_permissions, store: Arc::clone(&parts.store) })
    }

    /// Finds the keys of a pair, for the links.
    pub(super) fn lookup(&self) -> PairLookup {
        let keys = Arc::clone(&self.keys);
        Arc::new(move |peer| {
            let keys = keys.read().unwrap_or_else(PoisonError::into_inner);
            PairKeys::from_bytes(keys.get(peer)?).ok()
        })
    }

    pub(super) fn name(&self, host: &HostId) -> Option<&str> {
        self.about.get(host).map(|about| about.name.as_str())
    }

    /// What a host may do.
    pub(super) fn permissions(&self, host: &HostId) -> Permissions {
        let stored = self.about.get(host).and_then(|about| about.permissions.as_ref());
        stored.map_or_else(|| self.default_permissions.clone(), Permissions::from)
    }

    /// Every host with what it may do.
    pub(super) fn all_permissions(&self) -> Vec<(HostId, Permissions)> {
        self.about.keys().map(|host| (*host, self.permissions(host))).collect()
    }

    /// If the store fails nothing is given, but what is taken back is gone until the next start.
    pub(super) fn set_permissions(&mut self, host: &HostId, permissions: &Permissions) -> Result<bool, StoreError> {
        let left = self.permissions(host).common(permissions);
        let stored = self.change(host, |about| about.permissions = Some(permissions.into()));
        if let (Err(_), Some(about)) = (&stored, self.about.get_mut(host)) {
            about.permissions = Some((&left).into());
        }
        stored
    }

    /// Makes a pair durable. Until [`Hosts::confirm`] it is provisional.
    pub(super) fn store(
        &mut self,
        host: HostId,
        name: String,
        pair: Zeroizing<Vec<u8>>,
        sealed: &[u8],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let paired_at_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        // A host that pairs again starts with the permissions of a new one: it may be another computer with the same keys.
        let about = About { name, paired_at_unix_s, confirmed: false, permissions: None };
        let mut batch = Batch::new();
        batch.put(&entry(&host, KEYS), sealed);
        batch.put(&entry(&host, ABOUT), &about.encode_to_vec());
        self.store.commit(batch)?;
        self.about.insert(host, about);
        self.provisional.insert(host, now + UNCONFIRMED_PAIR_LIFETIME);
        self.with_keys(|keys| keys.insert(PublicKey::from(*host.as_bytes()), pair));
        Ok(())
    }

    /// The host has shown that it has the pair too.
    pub(super) fn confirm(&mut self, host: &HostId) -> Result<(), StoreError> {
        if self.provisional.contains_key(host) {
            self.change(host, |about| about.confirmed = true)?;
            self.provisional.remove(host);
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, host: &HostId, name: String) -> Result<bool, StoreError> {
        self.change(host, |about| about.name = name)
    }

    /// Deletes a host; `Some(name)` if there was one. The keys are gone from memory even if the store fails.
    pub(super) fn forget(&mut self, host: &HostId) -> Result<Option<String>, StoreError> {
        let Some(name) = self.about.get(host).map(|about| about.name.clone()) else { return Ok(None) };
        self.with_keys(|keys| keys.remove(&PublicKey::from(*host.as_bytes())));
        let mut batch = Batch::new();
        batch.delete(&entry(host, KEYS));
        batch.delete(&entry(host, ABOUT));
        self.store.commit(batch)?;
        self.about.remove(host);
        self.provisional.remove(host);
        Ok(Some(name))
    }

    pub(super) fn list(&self, connected: impl Fn(&HostId) -> bool) -> Vec<HostInfo> {
        let info = |(host, about): (&HostId, &About)| HostInfo {
            host: *host,
            name: about.name.clone(),
            paired_at: UNIX_EPOCH + Duration::from_secs(about.paired_at_unix_s),
            connected: connected(host),
            permissions: self.permissions(host),
        };
        self.about.iter().map(info).collect()
    }

    /// What the phone advertises for those of its hosts that `wanted` names.
    pub(super) fn identifiers(&self, epoch: Epoch, wanted: impl Fn(&HostId) -> bool) -> Vec<Identifier> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let hosts = self.about.keys().filter(|host| wanted(host));
        let pairs = hosts.filter_map(|host| PairKeys::from_bytes(keys.get(&PublicKey::from(*host.as_bytes()))?).ok());
        pairs.map(|pair| Identifier::of_pair(&pair, epoch)).collect()
    }

    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.provisional.values().min().copied()
    }

    /// Hosts whose confirmation is overdue.
    pub(super) fn expired(&self, now: Timestamp) -> Vec<HostId> {
        self.provisional.iter().filter(|(_, until)| **until <= now).map(|(host, _)| *host).collect()
    }

    fn change(&mut self, host: &HostId, change: impl FnOnce(&mut About)) -> Result<bool, StoreError> {
        let Some(about) = self.about.get_mut(host) else { return Ok(false) };
        let mut changed = about.clone();
        change(&mut changed);
        let mut batch = Batch::new();
        batch.put(&entry(host, ABOUT), &changed.encode_to_vec());
        self.store.commit(batch)?;
        *about = changed;
        Ok(true)
    }

    fn with_keys<T>(&self, change: impl FnOnce(&mut HashMap<PublicKey, Zeroizing<Vec<u8>>>) -> T) -> T {
        change(&mut self.keys.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Binds sealed keys to their host.
pub(super) fn context(host: &HostId) -> Vec<u8> {
    let mut context = b"pocketcard pair 1".to_vec();
    context.extend_from_slice(host.as_bytes());
    context
}

fn entry(host: &HostId, kind: &str) -> String {
    format!("{NAMESPACE}{host}{kind}")
}
