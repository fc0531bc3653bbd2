//! Which phone belongs to which slot, and everything that the tasks share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use pocketcard_ipc::control::{ErrorCode, Event, Failure, LinkState, Phone, SlotStatus, Status};
use pocketcard_protocol::channel::{PublicKey, StaticSecret};
use pocketcard_protocol::link::{CloseReason, HostConfig, VersionRange};
use pocketcard_protocol::messages::peer_name;
use pocketcard_protocol::pairing::{Attempts, PairKeys, UNCONFIRMED_PAIR_LIFETIME};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::slot::Slot;
use crate::store::{Record, Store, StoreError, id};
use crate::{Clock, SOFTWARE, SystemEntropy, locked, phone_link};

/// Events that a slow watcher may be behind before it is told that it lost some.
const EVENTS: usize = 256;

/// What all tasks share.
pub(crate) struct Hub {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) slots: Vec<Arc<Slot>>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) attempts: Attempts,
    /// Held by the one pairing that may be under way.
    pub(crate) pairing: Arc<tokio::sync::Semaphore>,
    pub(crate) name: String,
    identity: Arc<StaticSecret>,
    versions: VersionRange,
    store: Store,
    phones: Mutex<HashMap<PublicKey, Entry>>,
}

struct Entry {
    record: Record,
    /// Dials the phone; absent for one without an address.
    task: Option<JoinHandle<()>>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Hub {
    /// Opens the store and makes the slots; nothing runs yet.
    pub(crate) fn new(config: Config, versions: VersionRange) -> Result<Arc<Self>, StoreError> {
        let store = Store::open(&config.state_dir)?;
        let identity = Arc::new(store.identity(&SystemEntropy)?);
        let (events, _) = broadcast::channel(EVENTS);
        let slots = (0..u32::from(config.reader_slots))
            .map(|number| Arc::new(Slot::new(number, Clock, events.clone())))
            .collect();
        Ok(Arc::new(Self {
            name: config.shown_name(),
            config,
            clock: Clock,
            slots,
            events,
            attempts: Attempts::new(),
            pairing: Arc::new(tokio::sync::Semaphore::new(1)),
            identity,
            versions,
            store,
            phones: Mutex::default(),
        }))
    }

    /// Starts the timers and dials every stored phone.
    pub(crate) fn start(self: &Arc<Self>) -> Result<(), StoreError> {
        for slot in &self.slots {
            let slot = Arc::clone(slot);
            tokio::spawn(async move { slot.keep_time().await });
        }
        for record in self.store.phones()? {
            self.adopt(record);
        }
        Ok(())
    }

    /// Says good-bye on every link.
    pub(crate) fn stop(&self) {
        locked(&self.phones).clear();
        for slot in &self.slots {
            slot.close_link(CloseReason::Done);
        }
    }

    pub(crate) fn host_config(&self) -> HostConfig {
        HostConfig {
            identity: Arc::clone(&self.identity),
            name: self.name.clone(),
            software: SOFTWARE.to_owned(),
            entropy: Arc::new(SystemEntropy),
            versions: self.versions,
        }
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        self.identity.public()
    }

    /// The slot that a new phone would get.
    pub(crate) fn free_slot(&self, wanted: Option<u32>) -> Result<u32, Failure> {
        let phones = locked(&self.phones);
        let taken_by = |slot: u32| phones.values().find(|entry| entry.record.slot == slot);
        let count = u32::from(self.config.reader_slots);
        match wanted {
            Some(slot) if slot >= count => Err(Failure {
                code: ErrorCode::SlotTaken,
                message: format!("the reader has no slot {slot}; its slots are 0 to {}", count - 1),
                advice: Some("name one of those, or raise `reader_slots` in the daemon's configuration and in the driver's DEVICENAME".into()),
            }),
            Some(slot) => match taken_by(slot) {
                Some(entry) => Err(Failure {
                    code: ErrorCode::SlotTaken,
                    message: format!("slot {slot} belongs to the phone {:?}", entry.record.name),
                    advice: Some("take another slot, or forget that phone first: `pocketcard forget`".into()),
                }),
                None => Ok(slot),
            },
            None => (0..count).find(|slot| taken_by(*slot).is_none()).ok_or_else(|| Failure {
                code: ErrorCode::TableFull,
                message: format!("every one of the {count} slots has a phone"),
                advice: Some("forget one first (`pocketcard phones`, `pocketcard forget NAME`), or raise `reader_slots`".into()),
            }),
        }
    }

    /// Stores a new pair and dials the phone. A pair of the same phone is replaced.
    pub(crate) fn add(self: &Arc<Self>, record: Record) -> Result<(), StoreError> {
        self.store.save(&record)?;
        let peer = record.keys.peer;
        let old = locked(&self.phones).remove(&peer);
        if let Some(old) = old
            && let Some(slot) = self.slot(old.record.slot)
        {
            slot.close_link(CloseReason::Replaced);
            slot.set_phone(None);
        }
        self.adopt(record);
        Ok(())
    }

    /// The phone has the pair too: its channel opened, or it said so.
    pub(crate) fn confirm(&self, peer: &PublicKey) {
        let mut phones = locked(&self.phones);
        let Some(entry) = phones.get_mut(peer).filter(|entry| !entry.record.confirmed) else { return };
        entry.record.confirmed = true;
        if let Err(error) = self.store.save(&entry.record) {
            entry.record.confirmed = false;
            tracing::error!(%error, "the confirmation of a pair could not be stored");
        }
    }

    /// Deletes a pair; its link is closed when this returns.
    pub(crate) fn forget(&self, name: &str) -> Result<(), Failure> {
        let peer = self.find(name)?;
        self.remove(&peer).map_err(storage)
    }

    pub(crate) fn rename(&self, phone: &str, name: &str) -> Result<(), Failure> {
        let peer = self.find(phone)?;
        let clean = peer_name(name);
        if clean.is_empty() || clean != name {
            return Err(Failure {
                code: ErrorCode::BadName,
                message: "a name has 1 to 64 bytes and no control characters".into(),
                advice: None,
            });
        }
        let mut phones = locked(&self.phones);
        let Some(entry) = phones.get_mut(&peer) else { return Err(no_such_phone(phone)) };
        let old = std::mem::replace(&mut entry.record.name, clean.clone());
        if let Err(error) = self.store.save(&entry.record) {
            entry.record.name = old;
            return Err(storage(error));
        }
        if let Some(slot) = self.slot(entry.record.slot) {
            slot.set_phone(Some((id(&peer), clean.clone())));
        }
        let _ = self.events.send(Event::PhoneRenamed { phone: id(&peer), name: clean });
        Ok(())
    }

    pub(crate) fn phones(&self) -> Vec<Phone> {
        let mut phones: Vec<Phone> = locked(&self.phones).values().map(|entry| self.phone(&entry.record)).collect();
        phones.sort_by_key(|phone| phone.slot);
        phones
    }

    pub(crate) fn phone_of(&self, peer: &PublicKey) -> Option<Phone> {
        locked(&self.phones).get(peer).map(|entry| self.phone(&entry.record))
    }

    pub(crate) fn status(&self) -> Status {
        let mut phones = self.phones();
        let slots = self.slots.iter().map(|slot| {
            let view = slot.view();
            let phone = phones.iter().position(|phone| phone.slot == slot.number).map(|at| phones.swap_remove(at));
            SlotStatus {
                slot: slot.number,
                driver: view.driver,
                card_present: view.card_present,
                powered: view.powered,
                pin_verified: view.security.pin_verified,
                pin_tries_left: view.security.pin_tries_left,
                phone,
            }
        });
        Status {
            software: SOFTWARE.to_owned(),
            host_id: id(&self.public_key()),
            host_name: self.name.clone(),
            dev: self.config.dev,
            pairing: self.pairing.available_permits() == 0,
            slots: slots.collect(),
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    fn phone(&self, record: &Record) -> Phone {
        let view = self.slot(record.slot).map(|slot| slot.view());
        let (link, software, card_name) = match view {
            Some(view) => (view.link, view.software, view.card_name),
            None => {
                let reason = format!("its slot {} does not exist any more; raise `reader_slots`", record.slot);
                (LinkState::Disconnected { reason: Some(reason) }, None, None)
            }
        };
        Phone {
            id: id(&record.keys.peer),
            name: record.name.clone(),
            slot: record.slot,
            address: record.address.clone(),
            link,
            software,
            card_name,
        }
    }

    fn slot(&self, number: u32) -> Option<&Arc<Slot>> {
        usize::try_from(number).ok().and_then(|number| self.slots.get(number))
    }

    /// Takes a stored pair into service.
    fn adopt(self: &Arc<Self>, record: Record) {
        let peer = record.keys.peer;
        let mut phones = locked(&self.phones);
        let occupied = phones.values().any(|entry| entry.record.slot == record.slot);
        let mut task = None;
        match self.slot(record.slot).filter(|_| !occupied) {
            Some(slot) => {
                slot.set_phone(Some((id(&peer), record.name.clone())));
                task = record.address.clone().map(|address| {
                    let hub = Arc::downgrade(self);
                    let opened = move || {
                        if let Some(hub) = hub.upgrade() {
                            hub.confirm(&peer);
                        }
                    };
                    let keys: Arc<PairKeys> = Arc::new(record.keys.duplicate());
                    tokio::spawn(phone_link::keep(Arc::clone(slot), self.host_config(), keys, address, opened))
                });
            }
            None => tracing::error!(phone = ?peer, slot = record.slot, "the slot of a stored phone cannot be used"),
        }
        if !record.confirmed {
            let hub = Arc::downgrade(self);
            tokio::spawn(async move {
                tokio::time::sleep(UNCONFIRMED_PAIR_LIFETIME).await;
                if let Some(hub) = hub.upgrade() {
                    hub.drop_unconfirmed(&peer);
                }
            });
        }
        phones.insert(peer, Entry { record, task });
    }

    fn drop_unconfirmed(&self, peer: &PublicKey) {
        let unconfirmed = locked(&self.phones).get(peer).is_some_and(|entry| !entry.record.confirmed);
        if unconfirmed {
            tracing::warn!(phone = ?peer, "the phone never stored its half of the pair; dropping ours");
            if let Err(error) = self.remove(peer) {
                tracing::error!(%error, "a half-finished pair could not be deleted");
            }
        }
    }

    fn remove(&self, peer: &PublicKey) -> Result<(), StoreError> {
        self.store.remove(peer)?;
        let entry = locked(&self.phones).remove(peer);
        if let Some(entry) = entry
            && let Some(slot) = self.slot(entry.record.slot)
        {
            slot.close_link(CloseReason::Revoked);
            slot.set_phone(None);
        }
        let _ = self.events.send(Event::PhoneForgotten { phone: id(peer) });
        Ok(())
    }

    /// By id, by the unambiguous start of an id, or by name.
    fn find(&self, text: &str) -> Result<PublicKey, Failure> {
        let phones = locked(&self.phones);
        let by_name = |entry: &&Entry| entry.record.name == text;
        let by_id = |entry: &&Entry| text.len() >= 4 && id(&entry.record.keys.peer).starts_with(&text.to_lowercase());
        let mut found: Vec<&Entry> = phones.values().filter(by_name).collect();
        if found.is_empty() {
            found = phones.values().filter(by_id).collect();
        }
        match found.as_slice() {
            [] => Err(no_such_phone(text)),
            [entry] => Ok(entry.record.keys.peer),
            several => Err(Failure {
                code: ErrorCode::AmbiguousPhone,
                message: format!("{} phones fit {text:?}", several.len()),
                advice: Some("name one by its id: `pocketcard phones` lists them".into()),
            }),
        }
    }
}

fn no_such_phone(text: &str) -> Failure {
    Failure {
        code: ErrorCode::NoSuchPhone,
        message: format!("no paired phone is called {text:?}"),
        advice: Some("`pocketcard phones` lists them".into()),
    }
}

pub(crate) fn storage(error: StoreError) -> Failure {
    Failure {
        code: ErrorCode::Storage,
        message: format!("the pairing store could not be written: {error}"),
        advice: Some("check the disk and the owner of the daemon's state folder".into()),
    }
}
