//! What the phone advertises on a radio, as its hosts come and go and its owner pairs.

use async_channel::Sender;
use pocketcard_protocol::advertising::{Epoch, Identifier};

use super::{pairing::Pairing, run::Runtime};

/// Whoever advertises for the phone; one at a time.
#[derive(Default)]
pub(super) struct Advertising {
    watcher: Option<Watcher>,
    /// Something that counts here has changed since the watcher was told.
    changed: bool,
}

struct Watcher {
    epoch: Epoch,
    identifiers: Sender<Vec<Identifier>>,
}

impl Advertising {
    pub(super) fn changed(&mut self) {
        self.changed = true;
    }
}

impl Runtime {
    pub(super) fn watch_advertising(&mut self, epoch: Epoch, identifiers: Sender<Vec<Identifier>>) {
        self.advertising = Advertising { watcher: Some(Watcher { epoch, identifiers }), changed: true };
    }

    pub(super) fn tell_advertising(&mut self) {
        if !std::mem::take(&mut self.advertising.changed) {
            return;
        }
        let Some(Watcher { epoch, identifiers }) = &self.advertising.watcher else { return };
        // Only the present set counts: one that nobody took yet is replaced.
        if identifiers.force_send(self.identifiers(*epoch)).is_err() {
            self.advertising.watcher = None;
        }
    }

    /// The pairing first, since somebody is waiting for it.
    fn identifiers(&self, epoch: Epoch) -> Vec<Identifier> {
        let pairing = match &self.pairing {
            Pairing::Scanned { qr, .. } => Some(Identifier::of_scan(qr)),
            Pairing::Compare { .. } => Some(Identifier::COMPARE),
            Pairing::Closed | Pairing::Deciding { .. } => None,
        };
        let away = self.hosts.identifiers(epoch, |host| !self.is_connected(host));
        pairing.into_iter().chain(away).collect()
    }
}
