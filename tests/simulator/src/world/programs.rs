//! What programs do with the card of a slot.

use std::time::Duration;

use pocketcard_front::{Failure, PinEntry, PowerAction, Reply};

use super::{SlotNumber, World};

/// How long anything may take that a program or a person waits for: beyond every limit of the protocol.
const PATIENCE: Duration = Duration::from_secs(180);

impl World {
    /// The host of a slot goes for its phone.
    pub fn connect(&mut self, slot: SlotNumber) {
        let at = self.now + self.connect_time;
        self.place_mut(slot).slot.returns_at = Some(at);
    }

    /// The card of a slot is in its reader and has power.
    ///
    /// # Panics
    /// If that does not come about.
    pub fn insert(&mut self, slot: SlotNumber) {
        if self.place(slot).slot.up.is_none() {
            self.connect(slot);
        }
        assert!(self.run_until(PATIENCE, |world| world.has_card(slot)), "no card: {:?}", self.take_closed(slot));
        self.power(slot, PowerAction::Up).expect("the card that is there");
    }

    /// Powers the card of a slot, as the reader last heard of it.
    ///
    /// # Errors
    /// As [`pocketcard_front::Front::handle_power`].
    pub fn power(&mut self, slot: SlotNumber, action: PowerAction) -> Result<Vec<u8>, Failure> {
        let now = self.now;
        let front = &mut self.place_mut(slot).slot.front;
        let generation = front.presence().generation;
        let atr = front.handle_power(action, generation, now).map(<[u8]>::to_vec);
        self.settle();
        atr
    }

    /// A program gives the card of a slot a command; [`World::reply`] has its answer later.
    pub fn begin(&mut self, slot: SlotNumber, command: &[u8]) {
        let now = self.now;
        self.place_mut(slot).slot.front.handle_transmit(command, now);
        self.settle();
    }

    /// A program has the owner enter a PIN, and waits for the outcome.
    ///
    /// # Errors
    /// What the program gets instead of a status word.
    ///
    /// # Panics
    /// If there is neither.
    pub fn enter_pin(&mut self, slot: SlotNumber, entry: PinEntry) -> Result<Vec<u8>, Failure> {
        let now = self.now;
        self.place_mut(slot).slot.front.handle_pin_entry(entry, now);
        self.settle();
        self.finish(slot)
    }

    /// The answer to [`World::begin`], if it is there.
    pub fn reply(&mut self, slot: SlotNumber) -> Option<Result<Vec<u8>, Failure>> {
        self.place_mut(slot).slot.replies.pop_front().map(|reply| match reply {
            Reply::Response(response) => Ok(response.to_vec()),
            Reply::Failed(failure) => Err(failure),
        })
    }

    /// A program gives the card of a slot a command and waits for its answer.
    ///
    /// # Errors
    /// What the program gets instead of an answer.
    ///
    /// # Panics
    /// If there is neither.
    pub fn transmit(&mut self, slot: SlotNumber, command: &[u8]) -> Result<Vec<u8>, Failure> {
        self.begin(slot, command);
        self.finish(slot)
    }

    /// Waits for the answer to [`World::begin`].
    ///
    /// # Errors
    /// What the program gets instead of an answer.
    ///
    /// # Panics
    /// If there is neither.
    pub fn finish(&mut self, slot: SlotNumber) -> Result<Vec<u8>, Failure> {
        self.run_until(PATIENCE, |world| !world.place(slot).slot.replies.is_empty());
        self.reply(slot).expect("every command has an answer, at once or later")
    }
}
