use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use zeroize::Zeroizing;

use crate::traits::{Batch, StateStore, StoreError};

type Entries = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// A store in memory, for tests and for cards that are meant to be forgotten. Clones share their entries, so that a "restarted"
/// phone finds what the first one stored.
#[derive(Clone, Default)]
pub struct MemoryStore {
    entries: Arc<Mutex<Entries>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // Every change is a single insert or remove, so a panic elsewhere cannot have left the map half changed.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for MemoryStore {
    fn load(&self) -> Result<Vec<(String, Zeroizing<Vec<u8>>)>, StoreError> {
        Ok(self.entries().iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut entries = self.entries();
        for entry in batch.entries() {
            match &entry.value {
                Some(value) => entries.insert(entry.key.clone(), value.clone()),
                None => entries.remove(&entry.key),
            };
        }
        Ok(())
    }
}
