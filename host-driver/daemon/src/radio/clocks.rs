//! Phones whose clocks are far from ours: what they advertise is of another time, so they are not recognised. That is told,
//! and nothing else follows from it: somebody may repeat what a phone advertised hours ago.

use std::collections::HashMap;

use pocketcard_protocol::advertising::{Epoch, Identifier};
use pocketcard_protocol::channel::PublicKey;

use super::search::RadioPhone;

/// How far clocks are looked for, in epochs of a quarter of an hour: a day, which finds a wrong time zone.
const FARTHEST: i64 = 96;

/// What phones would advertise by wrong clocks.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    made_for: Option<(Epoch, Vec<PublicKey>)>,
    strays: HashMap<Identifier, Stray>,
}

/// A phone with a wrong clock, or a computer with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stray {
    pub(super) phone: PublicKey,
    /// By how many epochs the phone is ahead.
    pub(super) ahead: i64,
}

impl Clocks {
    /// Gets ready to find these phones at this time.
    pub(super) fn prepare(&mut self, now: Epoch, phones: &[RadioPhone]) {
        let made_for = (now, phones.iter().map(|phone| phone.keys.peer).collect());
        if self.made_for.as_ref() == Some(&made_for) {
            return;
        }
        self.made_for = Some(made_for);
        self.strays.clear();
        for phone in phones {
            let far = (-FARTHEST..=FARTHEST).filter(|ahead| ahead.abs() > 1);
            self.strays.extend(far.map(|ahead| {
                let stray = Stray { phone: phone.keys.peer, ahead };
                (Identifier::of_pair(&phone.keys, now.shifted(ahead)), stray)
            }));
        }
    }

    /// Whose this is.
    pub(super) fn find(&self, identifier: &Identifier) -> Option<Stray> {
        self.strays.get(identifier).copied()
    }
}
