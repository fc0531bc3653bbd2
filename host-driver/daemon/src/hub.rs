//! Which phone belongs to which slot, and everything that the tasks share.

#[cfg(test)]
mod tests;
mod view;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use pocketcard_ipc::control::{ErrorCode, Event, Failure};
use pocketcard_protocol::channel::{PublicKey, StaticSecret};
use pocketcard_protocol::link::{CloseReason, HostConfig, VersionRange};
use pocketcard_protocol::messages::peer_name;
use pocketcard_protocol::pairing::{Attempts, PairKeys, UNCONFIRMED_PAIR_LIFETIME};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::radio::{Air, RadioPhone};
use crate::slot::{Operations, Slot};
use crate::snapshots::Snapshots;
use crate::store::{Record, Store, StoreError, id};
use crate::{Clock, SOFTWARE, SystemEntropy, locked, phone_link};

/// Events that a slow watcher may be behind before it is told that it lost some.
const EVENTS: usize = 256;

/// How much of an id names a phone.
const SHORTEST_ID: usize = 4;

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
    /// The radio, if the configuration has it on.
    pub(crate) air: Option<Arc<Air>>,
    identity: Arc<StaticSecret>,
    versions: VersionRange,
    store: Store,
    snapshots: Arc<Snapshots>,
    phones: Mutex<HashMap<PublicKey, Entry>>,
    /// Files of the store that cannot be read, in words.
    unusable: Mutex<Vec<String>>,
}

struct Entry {
    record: Record,
    /// The keys once more, if the radio is to find the phone.
    on_air: Option<Arc<PairKeys>>,
    /// Dials the phone; absent for one without an address.
    _dialler: Option<Task>,
    /// Drops the pair if the phone never turns out to have it; absent once it did.
    expiry: Option<Task>,
}

/// A task that ends with whatever holds it.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Hub {
    /// Opens the store and makes the slots; nothing runs yet.
    pub(crate) fn new(config: Config, versions: VersionRange) -> Result<Arc<Self>, StoreError> {
        let store = Store::open(&config.state_dir)?;
        let identity = Arc::new(store.identity(&SystemEntropy)?);
        let snapshots = Snapshots::open(store.folder());
        let (events, _) = broadcast::channel(EVENTS);
        let operations = Operations::new(&SystemEntropy);
        let slots = (0..u32::from(config.reader_slots))
            .map(|number| {
                Arc::new(Slot::new(number, config.pin_place(number), Clock, events.clone(), operations.clone()))
            })
            .collect();
        Ok(Arc::new(Self {
            name: config.shown_name(),
            air: config.uses_bluetooth().then(Air::new),
            config,
            clock: Clock,
            slots,
            events,
            attempts: Attempts::new(),
            pairing: Arc::new(tokio::sync::Semaphore::new(1)),
            identity,
            versions,
            store,
            snapshots,
            phones: Mutex::default(),
            unusable: Mutex::default(),
        }))
    }

    /// Starts the timers and dials every stored phone.
    pub(crate) fn start(self: &Arc<Self>) -> Result<(), StoreError> {
        for slot in &self.slots {
            let slot = Arc::clone(slot);
            tokio::spawn(async move { slot.keep_time().await });
        }
        let (records, unusable) = self.store.phones()?;
        self.snapshots.sweep(records.iter().map(|record| &record.keys.peer));
        for record in records {
            self.adopt(record);
        }
        for error in &unusable {
            tracing::error!("a paired phone cannot be used: {error}");
        }
        *locked(&self.unusable) = unusable.iter().map(StoreError::to_string).collect();
        Ok(())
    }

    /// Says good-bye on every link.
    pub(crate) fn stop(&self) {
        // Before the cards go, so that nobody takes that for phones that left.
        let _ = self.events.send(Event::Stopping {});
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
            Some(slot) if slot >= count => Err(self.no_such_slot(slot)),
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
                advice: Some(
                    "forget one first (`pocketcard phones`, `pocketcard forget NAME`), or raise `reader_slots`".into(),
                ),
            }),
        }
    }

    fn no_such_slot(&self, slot: u32) -> Failure {
        let last = u32::from(self.config.reader_slots).saturating_sub(1);
        Failure {
            code: ErrorCode::SlotTaken,
            message: format!("the reader has no slot {slot}; its slots are 0 to {last}"),
            advice: Some(
                "name one of those, or raise `reader_slots` in the daemon's configuration and in the driver's DEVICENAME"
                    .into(),
            ),
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
            slot.set_snapshots(None);
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
            return;
        }
        entry.expiry = None;
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
                message: "a name has 1 to 64 bytes, no control characters and no space around it".into(),
                advice: Some("choose another name".into()),
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

    /// Gives up what a program waits for: in the slot of a phone, in a slot, or in the only one where one waits.
    pub(crate) fn cancel(&self, phone: Option<&str>, slot: Option<u32>) -> Result<(), Failure> {
        let slot = match (phone, slot) {
            (Some(phone), _) => {
                let peer = self.find(phone)?;
                locked(&self.phones).get(&peer).and_then(|entry| self.slot(entry.record.slot))
            }
            (None, Some(number)) => Some(self.slot(number).ok_or_else(|| self.no_such_slot(number))?),
            (None, None) => {
                let mut busy = self.slots.iter().filter(|slot| slot.is_busy());
                let first = busy.next();
                if busy.next().is_some() {
                    return Err(Failure {
                        code: ErrorCode::AmbiguousPhone,
                        message: "programs wait for several phones".into(),
                        advice: Some("name one: `pocketcard cancel PHONE` or `--slot N`".into()),
                    });
                }
                first
            }
        };
        if slot.is_some_and(|slot| slot.cancel()) { Ok(()) } else { Err(nothing_under_way()) }
    }

    /// Gives up what a program waits for if it is this one still; what came after it goes on.
    pub(crate) fn cancel_operation(&self, operation: u64) -> Result<(), Failure> {
        if self.slots.iter().any(|slot| slot.cancel_operation(operation)) {
            return Ok(());
        }
        Err(Failure {
            code: ErrorCode::NothingUnderWay,
            message: format!("operation {operation} is over; nothing was cancelled"),
            advice: nothing_under_way().advice,
        })
    }

    /// Ends a verified PIN in every slot: programs of all users share them.
    pub(crate) fn end_pin(&self) {
        tracing::info!("a session was locked: verified PINs end");
        self.slots.iter().for_each(|slot| slot.end_pin());
    }

    /// Phones that the radio is to find, and that it keeps a link to.
    pub(crate) fn radio_phones(&self) -> Vec<RadioPhone> {
        let phones = locked(&self.phones);
        let found = phones.values().filter_map(|entry| {
            let keys = Arc::clone(entry.on_air.as_ref()?);
            Some(RadioPhone { keys, slot: Arc::clone(self.slot(entry.record.slot)?) })
        });
        found.collect()
    }

    /// Whether these are the keys that we have with a phone, and not those of an earlier pairing.
    pub(crate) fn is_current(&self, keys: &PairKeys) -> bool {
        let phones = locked(&self.phones);
        phones.get(&keys.peer).is_some_and(|entry| entry.record.keys.advertising_key() == keys.advertising_key())
    }

    /// Files of the store that could not be read at the start, in words.
    pub(crate) fn unusable(&self) -> Vec<String> {
        locked(&self.unusable).clone()
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    fn slot(&self, number: u32) -> Option<&Arc<Slot>> {
        usize::try_from(number).ok().and_then(|number| self.slots.get(number))
    }

    /// Takes a stored pair into service.
    fn adopt(self: &Arc<Self>, record: Record) {
        let peer = record.keys.peer;
        let mut phones = locked(&self.phones);
        let occupied = phones.values().any(|entry| entry.record.slot == record.slot);
        let (mut dialler, mut on_air) = (None, None);
        match self.slot(record.slot).filter(|_| !occupied) {
            Some(slot) => {
                slot.set_phone(Some((id(&peer), record.name.clone())));
                slot.set_snapshots(Some(self.snapshots.of(&peer)));
                on_air = record.address.is_none().then(|| Arc::new(record.keys.duplicate()));
                dialler = record.address.clone().map(|address| {
                    let hub = Arc::downgrade(self);
                    let opened = move || {
                        if let Some(hub) = hub.upgrade() {
                            hub.confirm(&peer);
                        }
                    };
                    let keys: Arc<PairKeys> = Arc::new(record.keys.duplicate());
                    Task(tokio::spawn(phone_link::keep(Arc::clone(slot), self.host_config(), keys, address, opened)))
                });
            }
            None => tracing::error!(phone = ?peer, slot = record.slot, "the slot of a stored phone cannot be used"),
        }
        let expiry = (!record.confirmed).then(|| {
            let hub = Arc::downgrade(self);
            Task(tokio::spawn(async move {
                tokio::time::sleep(UNCONFIRMED_PAIR_LIFETIME).await;
                if let Some(hub) = hub.upgrade() {
                    hub.drop_unconfirmed(&peer);
                }
            }))
        });
        phones.insert(peer, Entry { record, on_air, _dialler: dialler, expiry });
        if let Some(air) = &self.air {
            air.stir();
        }
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
            slot.set_snapshots(None);
        }
        self.snapshots.forget(peer);
        if let Some(air) = &self.air {
            air.stir();
        }
        let _ = self.events.send(Event::PhoneForgotten { phone: id(peer) });
        Ok(())
    }

    /// By id, by the start of an id, or by name. A phone chooses its own name at first: one that looks like another's
    /// id must not stand in for that other.
    fn find(&self, text: &str) -> Result<PublicKey, Failure> {
        let phones = locked(&self.phones);
        let lower = text.to_lowercase();
        let fits = |entry: &&Entry| {
            entry.record.name == text || (text.len() >= SHORTEST_ID && id(&entry.record.keys.peer).starts_with(&lower))
        };
        let found: Vec<&Entry> = phones.values().filter(fits).collect();
        let whole_id = found.iter().find(|entry| id(&entry.record.keys.peer) == lower);
        match (whole_id, found.as_slice()) {
            (_, []) => Err(no_such_phone(text)),
            (Some(entry), _) | (None, [entry]) => Ok(entry.record.keys.peer),
            (None, several) => Err(Failure {
                code: ErrorCode::AmbiguousPhone,
                message: format!("{} phones fit {text:?}", several.len()),
                advice: Some("name one by its id: `pocketcard phones` lists them".into()),
            }),
        }
    }
}

fn nothing_under_way() -> Failure {
    Failure {
        code: ErrorCode::NothingUnderWay,
        message: "no program waits for the phone".into(),
        advice: Some("`pocketcard status` shows what each slot does".into()),
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
