//! The log on the phone: who did what with the card, when, and how it ended. Never what was done it with: no PIN, no input, no
//! result, no object.
//!
//! It is durable and does not delay an answer: entries are stored together, [`LOG_DELAY`] after the first of them, between two
//! commands and never inside one. A phone that is killed loses these at most. However many commands a host sends, they cost one
//! commit in that time: a host that is refused must not wear out the phone's storage or keep it from others. It
//! holds [`LOG_LIMIT`] entries. When it is full the oldest entry goes of whoever has most of them, so that a host that makes
//! noise pushes its own entries out and nobody else's.

mod entry;
mod record;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use pocketcard_protocol::time::Timestamp;

pub use self::entry::{LogEntry, LogOperation, LogResult, LoggedHost};
use crate::traits::{Batch, HostId, StateEntry, StateStore};

/// Entries that are kept.
pub const LOG_LIMIT: usize = 1000;

/// How long an entry may wait for its way into the store.
pub const LOG_DELAY: Duration = Duration::from_secs(1);

const NAMESPACE: &str = "log/";

pub(super) struct Log {
    /// By number, ascending.
    entries: VecDeque<(u64, LogEntry)>,
    next: u64,
    /// Entries that are not stored yet.
    unsaved: BTreeSet<u64>,
    /// Entries that are stored and are no longer wanted.
    unwanted: BTreeSet<u64>,
    /// When the pending changes are to be stored. `None` also after the store has failed: the next entry tries again.
    due: Option<Timestamp>,
    store: Arc<dyn StateStore>,
}

impl Log {
    /// The log of the last run. An entry that cannot be read, as one of a newer version, is left out: a log that is damaged
    /// must not keep the card from its owner.
    pub(super) fn open(stored: &[StateEntry], store: Arc<dyn StateStore>) -> Self {
        let mut entries: Vec<(u64, LogEntry)> = Vec::new();
        let mut last = None;
        for (name, value) in stored {
            let Some(number) = name.strip_prefix(NAMESPACE).and_then(|number| u64::from_str_radix(number, 16).ok())
            else {
                continue;
            };
            last = last.max(Some(number));
            entries.extend(record::decode(value).map(|entry| (number, entry)));
        }
        entries.sort_by_key(|(number, _)| *number);
        let next = last.map_or(0, |last| last.saturating_add(1));
        let (unsaved, unwanted) = (BTreeSet::new(), BTreeSet::new());
        Self { entries: entries.into(), next, unsaved, unwanted, due: None, store }
    }

    /// The entries, oldest first.
    pub(super) fn entries(&self) -> Vec<LogEntry> {
        self.entries.iter().map(|(_, entry)| entry.clone()).collect()
    }

    pub(super) fn write(&mut self, entry: LogEntry, now: Timestamp) {
        let number = self.next;
        self.next = self.next.saturating_add(1);
        self.unsaved.insert(number);
        self.entries.push_back((number, entry));
        while self.entries.len() > LOG_LIMIT {
            let removed = self.entries.remove(self.oldest_of_the_noisiest());
            if let Some((number, _)) = removed.filter(|(number, _)| !self.unsaved.remove(number)) {
                self.unwanted.insert(number);
            }
        }
        self.due.get_or_insert(now + LOG_DELAY);
    }

    pub(super) const fn poll_timeout(&self) -> Option<Timestamp> {
        self.due
    }

    pub(super) fn handle_timeout(&mut self, now: Timestamp) {
        if self.due.is_some_and(|due| due <= now) {
            self.flush();
        }
    }

    /// Stores what waits.
    pub(super) fn flush(&mut self) {
        self.due = None;
        let mut batch = Batch::new();
        self.unwanted.iter().for_each(|number| batch.delete(&name(*number)));
        for (number, entry) in self.entries.iter().filter(|(number, _)| self.unsaved.contains(number)) {
            batch.put(&name(*number), &record::encode(entry));
        }
        if !batch.is_empty() && self.store.commit(batch).is_ok() {
            self.unsaved.clear();
            self.unwanted.clear();
        }
    }

    fn oldest_of_the_noisiest(&self) -> usize {
        let mut counts: BTreeMap<Option<HostId>, usize> = BTreeMap::new();
        for (_, entry) in &self.entries {
            *counts.entry(entry.host_id()).or_default() += 1;
        }
        let noisiest = counts.into_iter().max_by_key(|(_, count)| *count).map(|(host, _)| host);
        self.entries.iter().position(|(_, entry)| Some(entry.host_id()) == noisiest).unwrap_or(0)
    }
}

/// Time for people, as the platform's clock tells it; it may be wrong, and go back. In whole milliseconds, as it is stored.
pub(super) fn wall_clock() -> SystemTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs()) + Duration::from_millis(since.subsec_millis().into())
}

fn name(number: u64) -> String {
    format!("{NAMESPACE}{number:016x}")
}
