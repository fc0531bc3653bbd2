//! What the rest of the daemon asks of the radio, and what it can be told.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pocketcard_ipc::control::{BluetoothState, BluetoothStatus};
use pocketcard_protocol::advertising::Identifier;
use pocketcard_protocol::channel::PublicKey;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use super::clocks::Stray;
use super::{RadioError, Wire};
use crate::locked;

/// Connections at once; adapters carry about as many.
const CONNECTIONS: u32 = 16;

/// Connections for a pairing that may wait until it looks at them.
const WIRES: usize = 2;

/// The radio as the rest of the daemon sees it.
#[derive(Debug)]
pub(crate) struct Air {
    state: Mutex<State>,
    /// Something that the search should know has changed.
    changed: Notify,
    connections: Arc<Semaphore>,
}

#[derive(Debug)]
struct State {
    status: BluetoothStatus,
    searches: Vec<(u64, Identifier, mpsc::Sender<Wire>)>,
    count: u64,
    /// Phones that were recognised since the daemon began.
    seen: HashMap<PublicKey, ()>,
    /// Phones that advertised by another time than ours and were not recognised since, with the epochs they are ahead.
    strays: HashMap<PublicKey, i64>,
    /// Phones whose service was last looked for where it is not.
    stale: HashSet<PublicKey>,
}

impl Air {
    pub(crate) fn new() -> Arc<Self> {
        let status = BluetoothStatus { state: BluetoothState::Starting, adapter: None, message: None };
        let state = State {
            status,
            searches: Vec::new(),
            count: 0,
            seen: HashMap::new(),
            strays: HashMap::new(),
            stale: HashSet::new(),
        };
        let connections = Arc::new(Semaphore::new(usize::try_from(CONNECTIONS).unwrap_or(usize::MAX)));
        Arc::new(Self { state: Mutex::new(state), changed: Notify::new(), connections })
    }

    /// The state of the radio.
    pub(crate) fn status(&self) -> BluetoothStatus {
        locked(&self.state).status.clone()
    }

    /// Whether this phone was recognised since the daemon began.
    pub(crate) fn has_seen(&self, phone: &PublicKey) -> bool {
        locked(&self.state).seen.contains_key(phone)
    }

    /// By how many epochs the phone's clock is ahead of ours, if that is why it is not recognised.
    pub(crate) fn clock_ahead(&self, phone: &PublicKey) -> Option<i64> {
        locked(&self.state).strays.get(phone).copied()
    }

    /// Whether the phone's service was looked for where it is not, at the last attempt to connect.
    pub(crate) fn is_stale(&self, phone: &PublicKey) -> bool {
        locked(&self.state).stale.contains(phone)
    }

    /// Looks for phones that advertise this, for as long as the search is kept.
    pub(crate) fn search(self: &Arc<Self>, identifier: Identifier) -> Search {
        let (sender, wires) = mpsc::channel(WIRES);
        let mut state = locked(&self.state);
        state.count += 1;
        let number = state.count;
        state.searches.push((number, identifier, sender));
        self.changed.notify_one();
        Search { wires, number, air: Arc::clone(self) }
    }

    /// Phones or their links have changed.
    pub(crate) fn stir(&self) {
        self.changed.notify_one();
    }

    /// Waits until every connection has been ended, at most so long.
    pub(crate) async fn quiet(&self, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.connections.acquire_many(CONNECTIONS)).await;
    }

    pub(super) async fn stirred(&self) {
        self.changed.notified().await;
    }

    /// A place for one more connection; `None` if there is none.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).try_acquire_owned().ok()
    }

    pub(super) fn saw(&self, phone: PublicKey) {
        let mut state = locked(&self.state);
        state.seen.insert(phone, ());
        state.strays.remove(&phone);
    }

    pub(super) fn strayed(&self, stray: Stray) {
        if locked(&self.state).strays.insert(stray.phone, stray.ahead) != Some(stray.ahead) {
            tracing::warn!(quarters_ahead = stray.ahead, "a phone advertises by another time than ours");
        }
    }

    /// How an attempt to connect to a phone went.
    pub(super) fn tried(&self, phone: PublicKey, error: Option<&RadioError>) {
        let mut state = locked(&self.state);
        if error != Some(&RadioError::StaleServices) {
            state.stale.remove(&phone);
        } else if state.stale.insert(phone) {
            tracing::warn!("a phone's service is not where BlueZ looks for it");
        }
    }

    pub(super) fn searches(&self) -> Vec<(u64, Identifier, mpsc::Sender<Wire>)> {
        locked(&self.state).searches.clone()
    }

    pub(super) fn works(&self, adapter: String) {
        locked(&self.state).status =
            BluetoothStatus { state: BluetoothState::Working, adapter: Some(adapter), message: None };
    }

    pub(super) fn fails(&self, error: &RadioError) {
        let (state, adapter) = match error {
            RadioError::NoService => (BluetoothState::NoService, None),
            RadioError::NoPermission => (BluetoothState::NoPermission, None),
            RadioError::NoAdapter(adapter) => (BluetoothState::NoAdapter, adapter.clone()),
            RadioError::PoweredOff(adapter) => (BluetoothState::PoweredOff, Some(adapter.clone())),
            _ => (BluetoothState::Failed, None),
        };
        let status = BluetoothStatus { state, adapter, message: Some(error.to_string()) };
        let before = std::mem::replace(&mut locked(&self.state).status, status.clone());
        if before != status {
            tracing::warn!(%error, "no phone can be reached over Bluetooth");
        }
    }
}

/// A search for a phone to pair with; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Search {
    wires: mpsc::Receiver<Wire>,
    number: u64,
    air: Arc<Air>,
}

impl Search {
    /// The next phone that was found. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Wire {
        match self.wires.recv().await {
            Some(wire) => wire,
            // The search task has ended with the daemon.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        locked(&self.air.state).searches.retain(|(number, ..)| *number != self.number);
        self.air.changed.notify_one();
    }
}
