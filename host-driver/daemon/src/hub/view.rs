//! What people are shown of the phones and the slots.

use pocketcard_ipc::control::{LinkState, Phone, SlotStatus, Status};
use pocketcard_protocol::channel::PublicKey;

use super::Hub;
use crate::store::{Record, id};
use crate::{SOFTWARE, locked};

impl Hub {
    pub(crate) fn phones(&self) -> Vec<Phone> {
        let mut phones: Vec<Phone> = locked(&self.phones).values().map(|entry| self.phone(&entry.record)).collect();
        phones.sort_by_key(|phone| phone.slot);
        phones
    }

    pub(crate) fn phone_of(&self, peer: &PublicKey) -> Option<Phone> {
        locked(&self.phones).get(peer).map(|entry| self.phone(&entry.record))
    }

    /// Whether a phone is found by the radio, and has been since the daemon began.
    pub(crate) fn seen_on_air(&self, phone: &Phone) -> Option<bool> {
        let air = self.air.as_ref()?;
        let phones = locked(&self.phones);
        let entry = phones.values().find(|entry| entry.on_air.is_some() && id(&entry.record.keys.peer) == phone.id)?;
        Some(air.has_seen(&entry.record.keys.peer))
    }

    /// By how many epochs the clock of a phone on the air is ahead of ours, if that is why it is not recognised.
    pub(crate) fn clock_ahead(&self, phone: &Phone) -> Option<i64> {
        let phones = locked(&self.phones);
        let entry = phones.values().find(|entry| entry.on_air.is_some() && id(&entry.record.keys.peer) == phone.id)?;
        self.air.as_ref()?.clock_ahead(&entry.record.keys.peer)
    }

    /// Whether this computer's Bluetooth looks for the phone's service where it is not.
    pub(crate) fn is_stale(&self, phone: &Phone) -> bool {
        let phones = locked(&self.phones);
        let entry = phones.values().find(|entry| id(&entry.record.keys.peer) == phone.id);
        entry.zip(self.air.as_ref()).is_some_and(|(entry, air)| air.is_stale(&entry.record.keys.peer))
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
                snapshot_age_s: view.snapshot_age.map(|age| age.as_secs()),
                pin_entry: slot.pin_place,
                waiting: view.waiting.map(str::to_owned),
                operation: view.operation,
                last_refusal: view.last_refusal,
                phone,
            }
        });
        Status {
            software: SOFTWARE.to_owned(),
            host_id: id(&self.public_key()),
            host_name: self.name.clone(),
            dev: self.config.dev,
            pairing: self.pairing.available_permits() == 0,
            bluetooth: self.air.as_ref().map(|air| air.status()),
            slots: slots.collect(),
        }
    }

    fn phone(&self, record: &Record) -> Phone {
        let view = self.slot(record.slot).map(|slot| slot.view());
        let (link, transport, software, card_name, permissions) = match view {
            Some(view) => (view.link, view.transport, view.software, view.card_name, view.permissions),
            None => {
                let reason = format!("its slot {} does not exist any more; raise `reader_slots`", record.slot);
                (LinkState::Disconnected { reason: Some(reason) }, None, None, None, None)
            }
        };
        Phone {
            id: id(&record.keys.peer),
            name: record.name.clone(),
            slot: record.slot,
            address: record.address.clone(),
            link,
            transport,
            software,
            card_name,
            permissions,
        }
    }
}
