//! Whoever owns the air: what arrives in place of what, and links that are cut.

use std::time::Duration;

use pocketcard_protocol::link::Side;

use super::time::ConnectionId;
use super::{PhoneNumber, SlotNumber, World};
use crate::random::Random;

/// A GATT value on its way.
#[derive(Debug)]
pub struct Passing<'a> {
    /// Between which two.
    pub slot: SlotNumber,
    /// Who sent it.
    pub from: Side,
    /// How many values of both sides passed before it on this connection.
    pub number: usize,
    /// The fragment or credit.
    pub value: &'a [u8],
}

/// Whoever owns the air: gives for each value what arrives in its place, and how much later.
pub type Interceptor = Box<dyn FnMut(&Passing<'_>, &mut Random) -> Vec<(Duration, Vec<u8>)>>;

/// Whoever owns the air, where the host reads `Info`.
pub type Forger = Box<dyn FnMut(&mut Vec<u8>)>;

/// How a link is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The two are out of range, for so long.
    Silent(Duration),
    /// The system of one side ends the connection at once; the other side hears it in the next event.
    By(Side),
}

pub(super) struct PlannedCut {
    pub(super) slot: SlotNumber,
    pub(super) values_left: usize,
    pub(super) cut: Cut,
}

impl World {
    /// Whoever owns the air from now on.
    pub fn intercept(&mut self, interceptor: Option<Interceptor>) {
        self.interceptor = interceptor;
    }

    /// Changes what the host reads as `Info` from now on.
    pub fn forge_info(&mut self, forger: Option<Forger>) {
        self.forger = forger;
    }

    /// Cuts the link of a slot once so many more values have arrived.
    pub fn cut_after(&mut self, slot: SlotNumber, values: usize, cut: Cut) {
        self.cut = Some(PlannedCut { slot, values_left: values, cut });
        if values == 0 {
            self.cut_if_due();
            self.settle();
        }
    }

    /// Gives up a planned cut.
    pub fn do_not_cut(&mut self) {
        self.cut = None;
    }

    /// Whether a planned cut has not been made.
    #[must_use]
    pub fn cut_is_planned(&self) -> bool {
        self.cut.is_some()
    }

    /// The two of a slot come into each other's range, or leave it.
    pub fn set_in_range(&mut self, slot: SlotNumber, in_range: bool) {
        let now = self.now;
        self.place_mut(slot).in_range = in_range;
        for line in self.lines.values_mut().filter(|line| line.slot == slot) {
            line.connection.set_in_range(in_range, now);
        }
    }

    pub(super) fn count_for_cut(&mut self, slot: SlotNumber) {
        if let Some(planned) = self.cut.as_mut().filter(|planned| planned.slot == slot) {
            planned.values_left = planned.values_left.saturating_sub(1);
            self.cut_if_due();
        }
    }

    fn cut_if_due(&mut self) {
        let Some(planned) = self.cut.take_if(|planned| planned.values_left == 0) else { return };
        let slot = planned.slot;
        // What the two programs have to say to what has just arrived is on its way when the radio goes.
        self.settle();
        match planned.cut {
            Cut::Silent(duration) => {
                self.set_in_range(slot, false);
                self.returns_to_range.push((self.now + duration, slot));
                if duration >= self.parameters.supervision {
                    let lines = &self.lines;
                    let of_slot = |id: &ConnectionId| lines.get(id).is_some_and(|line| line.slot == slot);
                    self.in_flight.retain(|_, flight| !of_slot(&flight.connection));
                }
            }
            Cut::By(side) => {
                let lines = self.lines.iter_mut().filter(|(_, line)| line.slot == slot);
                let ids: Vec<(ConnectionId, PhoneNumber)> = lines
                    .map(|(id, line)| {
                        line.connection.abort(side);
                        (*id, line.phone)
                    })
                    .collect();
                for (id, phone) in ids {
                    self.in_flight.retain(|_, flight| flight.connection != id);
                    self.disconnected(id, slot, phone, side);
                }
            }
        }
    }
}
