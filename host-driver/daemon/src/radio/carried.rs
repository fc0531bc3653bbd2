//! The link of a paired phone on a connection of the radio, between the connection and the slot.

use std::sync::{Arc, Weak};

use pocketcard_protocol::channel::PublicKey;
use pocketcard_protocol::pairing::PairKeys;

use super::connection::{Connection, Recipient};
use super::{Peer, RadioOutbox};
use crate::hub::Hub;
use crate::slot::{LinkStep, PhoneOutbox, Slot};

/// How a connection to a target ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    /// The channel was open; else it was connected to, or not even that, and did not let us in.
    pub(super) open: bool,
    /// Its channels of L2CAP are no good.
    pub(super) doubted: bool,
}

impl Ended {
    pub(super) const REFUSED: Self = Self { open: false, doubted: false };
}

/// Carries the link of a paired phone.
pub(super) async fn link<P: Peer>(
    hub: &Weak<Hub>,
    slot: &Arc<Slot>,
    keys: &PairKeys,
    connection: Connection<P>,
) -> Ended {
    // The phone may have been forgotten, or paired again, while the connection was made.
    let config = hub.upgrade().filter(|hub| hub.is_current(keys)).map(|hub| hub.host_config());
    let (outbox, outgoing) = RadioOutbox::new(connection.transport());
    let Some(config) = config else {
        outbox.close();
        connection.carry(outgoing, &mut Nobody).await;
        return Ended::REFUSED;
    };
    let number = slot.link_up(config, keys, PhoneOutbox::Radio(outbox));
    let mut recipient = SlotEnd { slot, number, hub, peer: keys.peer, was_open: false };
    let carried = connection.carry(outgoing, &mut recipient).await;
    let open = recipient.was_open;
    Ended { open, doubted: carried.doubted || carried.over_l2cap && !open }
}

/// Whoever wants nothing more of the phone.
struct Nobody;

impl Recipient for Nobody {
    fn message(&mut self, _: Vec<u8>) -> LinkStep {
        LinkStep::Closed
    }
}

/// The slot, as the phone's connection sees it. It tells the slot when the connection ends, also by a panic.
struct SlotEnd<'a> {
    slot: &'a Arc<Slot>,
    number: u64,
    hub: &'a Weak<Hub>,
    peer: PublicKey,
    was_open: bool,
}

impl Recipient for SlotEnd<'_> {
    fn message(&mut self, message: Vec<u8>) -> LinkStep {
        let step = self.slot.link_message(self.number, &message);
        if step == LinkStep::Open && !self.was_open {
            self.was_open = true;
            if let Some(hub) = self.hub.upgrade() {
                hub.confirm(&self.peer);
            }
        }
        step
    }

    fn progress(&mut self) {
        self.slot.link_progress(self.number);
    }

    fn suspect(&mut self) {
        self.slot.suspect();
    }
}

impl Drop for SlotEnd<'_> {
    fn drop(&mut self) {
        self.slot.link_lost(self.number);
    }
}
