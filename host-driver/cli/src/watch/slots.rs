//! What the watcher knows of the reader: who is in which slot.

use std::collections::BTreeMap;

use pocketcard_ipc::control::{Event, Phone, Status};

/// A phone, as it is called here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) id: String,
    pub(super) name: String,
}

/// The slots, as the daemon said last.
#[derive(Debug, Default)]
pub(super) struct Slots(BTreeMap<u32, Slot>);

#[derive(Debug, Default)]
struct Slot {
    phone: Option<Name>,
    card_present: bool,
}

impl Slots {
    /// Takes over everything that the daemon says.
    pub(super) fn set(&mut self, status: &Status) {
        let slots = status.slots.iter();
        let slots = slots
            .map(|slot| (slot.slot, Slot { phone: slot.phone.as_ref().map(name), card_present: slot.card_present }));
        self.0 = slots.collect();
    }

    /// Takes over one change.
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::CardPresent { slot } => self.slot(*slot).card_present = true,
            Event::CardAbsent { slot } => self.slot(*slot).card_present = false,
            Event::PhoneConnected { phone, name, slot } => {
                self.slot(*slot).phone = Some(Name { id: phone.clone(), name: name.clone() });
            }
            Event::PhonePaired { phone } => self.slot(phone.slot).phone = Some(name(phone)),
            Event::PhoneForgotten { phone } => {
                self.of(phone).for_each(|slot| slot.phone = None);
            }
            Event::PhoneRenamed { phone, name } => {
                self.of(phone).filter_map(|slot| slot.phone.as_mut()).for_each(|phone| phone.name.clone_from(name));
            }
            _ => {}
        }
    }

    /// Nothing is known to be there any more.
    pub(super) fn forget_cards(&mut self) {
        self.0.values_mut().for_each(|slot| slot.card_present = false);
    }

    /// The first card: of this phone, or of any.
    pub(super) fn card(&self, phone: Option<&str>) -> Option<(u32, Option<&Name>)> {
        let mut cards = self.0.iter().filter(|(_, slot)| slot.card_present);
        let found =
            cards.find(|(_, slot)| phone.is_none_or(|id| slot.phone.as_ref().is_some_and(|seen| seen.id == id)));
        found.map(|(number, slot)| (*number, slot.phone.as_ref()))
    }

    /// What the phone in a slot is called.
    pub(super) fn phone(&self, slot: u32) -> Option<&str> {
        Some(self.0.get(&slot)?.phone.as_ref()?.name.as_str())
    }

    fn slot(&mut self, number: u32) -> &mut Slot {
        self.0.entry(number).or_default()
    }

    fn of(&mut self, id: &str) -> impl Iterator<Item = &mut Slot> {
        self.0.values_mut().filter(move |slot| slot.phone.as_ref().is_some_and(|phone| phone.id == id))
    }
}

fn name(phone: &Phone) -> Name {
    Name { id: phone.id.clone(), name: phone.name.clone() }
}
