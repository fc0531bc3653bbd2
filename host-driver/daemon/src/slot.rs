//! One reader slot: the front, the link to the phone and the driver, side by side under one lock.

mod core;
mod notice;
mod operations;
mod outbox;
#[cfg(test)]
mod tests;
mod words;

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use pocketcard_front::{Config, Front, PowerAction, Security};
use pocketcard_ipc::control::{DriverState, Event, LinkState, Permissions, PinPlace, Refusal, Transport};
use pocketcard_ipc::driver;
use pocketcard_protocol::link::{self, CloseReason, HostConfig, Link};
use pocketcard_protocol::pairing::PairKeys;
use tokio::sync::{Notify, broadcast};

use self::core::{Core, DriverEnd, LinkUp, PhoneName, send_presence};
use self::notice::Notices;
pub(crate) use self::operations::Operations;
pub(crate) use outbox::{PhoneOutbox, send_frames};
pub(crate) use words::describe;
use words::{failure_of, pin_entry_of};

use crate::snapshots::SnapshotFile;
use crate::stream::Outbox;
use crate::{Clock, SOFTWARE, locked};

/// A slot. Every step locks it, runs to the end of what can be done now, and unlocks it.
pub(crate) struct Slot {
    pub(crate) number: u32,
    /// Where a PIN is entered.
    pub(crate) pin_place: PinPlace,
    clock: Clock,
    events: broadcast::Sender<Event>,
    operations: Operations,
    /// A deadline came closer than the timer knows.
    earlier: Notify,
    core: Mutex<Core>,
}

/// A slot as the control socket shows it.
pub(crate) struct SlotView {
    pub(crate) driver: DriverState,
    pub(crate) card_present: bool,
    pub(crate) powered: bool,
    pub(crate) security: Security,
    /// How long ago what the card says to everybody was read, if it is held and current.
    pub(crate) snapshot_age: Option<Duration>,
    pub(crate) waiting: Option<&'static str>,
    /// The number of what is waited for.
    pub(crate) operation: Option<u64>,
    pub(crate) last_refusal: Option<Refusal>,
    pub(crate) permissions: Option<Permissions>,
    pub(crate) link: LinkState,
    /// What carries the link, while there is one.
    pub(crate) transport: Option<Transport>,
    pub(crate) software: Option<String>,
    pub(crate) card_name: Option<String>,
}

impl Slot {
    pub(crate) fn new(
        number: u32,
        pin_place: PinPlace,
        clock: Clock,
        events: broadcast::Sender<Event>,
        operations: Operations,
    ) -> Self {
        let config =
            Config { software: SOFTWARE.to_owned(), pin_entry_margin: driver::PIN_ENTRY_MARGIN, ..Config::default() };
        let core = Core {
            front: Front::new(config),
            notices: Notices::default(),
            phone: None,
            snapshots: None,
            snapshot_read: None,
            up: None,
            link_state: LinkState::Disconnected { reason: None },
            command: None,
            listener: None,
            count: 0,
            armed: None,
            frames: Vec::new(),
            card_shown: false,
        };
        Self { number, pin_place, clock, events, operations, earlier: Notify::new(), core: Mutex::new(core) }
    }

    pub(crate) fn view(&self) -> SlotView {
        let core = self.core();
        SlotView {
            driver: match (&core.command, &core.listener) {
                (Some(_), _) => DriverState::Connected,
                (None, Some(_)) => DriverState::Waiting,
                (None, None) => DriverState::Absent,
            },
            card_present: core.front.presence().atr.is_some(),
            powered: core.front.is_powered(),
            security: core.front.security(),
            snapshot_age: core.snapshot_age(),
            waiting: core.notices.waiting(),
            operation: core.notices.operation(),
            last_refusal: core.notices.last_refusal(self.clock.now()),
            permissions: core.notices.permitted(),
            link: core.link_state.clone(),
            transport: core.up.as_ref().map(|up| up.outbox.transport()),
            software: core.front.phone_software().map(str::to_owned),
            card_name: core.front.card_name().map(str::to_owned),
        }
    }

    /// The phone of this slot, or that it has none any more.
    pub(crate) fn set_phone(&self, phone: Option<(String, String)>) {
        let mut core = self.core();
        let phone = phone.map(|(id, name)| PhoneName { id, name });
        if core.phone.as_ref().map(|phone| &phone.id) != phone.as_ref().map(|phone| &phone.id) {
            core.notices = Notices::default();
        }
        core.phone = phone;
        if core.up.is_none() {
            core.link_state = LinkState::Disconnected { reason: None };
        }
    }

    /// Where the snapshot of this slot's phone is kept, or that it is not any more.
    pub(crate) fn set_snapshots(&self, file: Option<SnapshotFile>) {
        let kept = file.as_ref().and_then(SnapshotFile::load);
        let mut core = self.core();
        core.snapshot_read = file.as_ref().and_then(SnapshotFile::written);
        core.snapshots = file;
        core.front.offer_snapshot(kept);
    }

    /// A timer for the link and the front; runs as long as the daemon.
    pub(crate) async fn keep_time(&self) {
        loop {
            let armed = {
                let mut core = self.core();
                core.armed = core.deadline();
                core.armed
            };
            let due = async {
                match armed {
                    Some(moment) => self.clock.sleep_until(moment).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.earlier.notified() => {}
            }
            let now = self.clock.now();
            let mut core = self.core();
            if let Some(up) = &mut core.up {
                up.link.handle_timeout(now);
            }
            core.front.handle_timeout(now);
            core.pump(self, now);
        }
    }

    // The phone's side.

    /// A connection to the phone is up; the handshake begins.
    pub(crate) fn link_up(&self, config: HostConfig, pair: &PairKeys, outbox: PhoneOutbox) -> u64 {
        let now = self.clock.now();
        let mut core = self.core();
        let number = core.next_number();
        core.up = Some(LinkUp { number, link: Link::host_connect(config, pair, now), outbox, announced: false });
        core.link_state = LinkState::Connecting {};
        core.pump(self, now);
        number
    }

    /// A message of the phone. Gives whether the channel is open.
    pub(crate) fn link_message(&self, number: u64, message: &[u8]) -> LinkStep {
        let now = self.clock.now();
        let mut core = self.core();
        let Some(up) = core.up.as_mut().filter(|up| up.number == number) else { return LinkStep::Closed };
        up.link.handle_message(message, now);
        core.pump(self, now);
        match &core.up {
            Some(up) if up.number == number && up.link.is_open() => LinkStep::Open,
            Some(up) if up.number == number => LinkStep::Early,
            _ => LinkStep::Closed,
        }
    }

    /// A part of a message got through on a transport that is slow.
    pub(crate) fn link_progress(&self, number: u64) {
        let mut core = self.core();
        if let Some(up) = core.up.as_mut().filter(|up| up.number == number) {
            up.link.handle_progress(self.clock.now());
        }
    }

    /// The connection to the phone ended, if the link has not ended before.
    pub(crate) fn link_lost(&self, number: u64) {
        let now = self.clock.now();
        let mut core = self.core();
        if core.up.as_ref().is_some_and(|up| up.number == number) {
            core.end_link(self, CloseReason::Lost, now);
            core.pump(self, now);
        }
    }

    /// What the phone sent is no message of a link.
    pub(crate) fn link_broken(&self, number: u64) {
        let now = self.clock.now();
        let mut core = self.core();
        if let Some(up) = core.up.as_mut().filter(|up| up.number == number) {
            up.link.close(CloseReason::Protocol(link::Violation::Frame), now);
            core.pump(self, now);
        }
    }

    /// Asks the phone at once whether it is still there, for a radio that hints that its app is gone. Without an answer
    /// the link ends at the limit of a ping.
    pub(crate) fn suspect(&self) {
        let now = self.clock.now();
        let mut core = self.core();
        if let Some(up) = &mut core.up {
            up.link.ping(now);
        }
        core.pump(self, now);
    }

    /// The phone could not be reached.
    ///
    /// - `gone`: its program is certain not to run, so that a card that waits for it waits for nothing.
    pub(crate) fn link_unreachable(&self, reason: String, gone: bool) {
        let now = self.clock.now();
        let mut core = self.core();
        if core.up.is_some() {
            return;
        }
        core.link_state = LinkState::Disconnected { reason: Some(reason) };
        if gone {
            core.front.handle_link_closed(now);
            core.pump(self, now);
        }
    }

    /// Whether the card is in the slot without a link, and waits for its phone.
    pub(crate) fn waits(&self) -> bool {
        let core = self.core();
        core.up.is_none() && core.front.presence().atr.is_some()
    }

    /// Ends the link and the card session at once and tells the phone why.
    pub(crate) fn close_link(&self, reason: CloseReason) {
        let now = self.clock.now();
        let mut core = self.core();
        if let Some(up) = &mut core.up {
            up.link.close(reason, now);
            core.pump(self, now);
        }
        // A card may have been waiting for its phone.
        core.front.handle_link_closed(now);
        core.pump(self, now);
    }

    // The driver's side.

    /// A command connection of the driver; it replaces one that is there.
    pub(crate) fn command_up(&self, outbox: Outbox) -> u64 {
        let now = self.clock.now();
        let mut core = self.core();
        let number = core.next_number();
        if let Some(old) = core.command.take() {
            old.outbox.close();
            core.front.handle_driver_gone(now);
            core.pump(self, now);
        }
        core.command = Some(DriverEnd { number, outbox, frame: Vec::new() });
        self.announce(Event::Driver { slot: self.number, connected: true });
        number
    }

    /// The driver asks. Gives whether the connection may stay.
    pub(crate) fn command(&self, number: u64, request: &driver::Request<'_>) -> bool {
        let now = self.clock.now();
        let mut core = self.core();
        let Core { front, command, .. } = &mut *core;
        let Some(end) = command.as_mut().filter(|end| end.number == number) else { return false };
        match request {
            driver::Request::Hello { .. } => return false,
            driver::Request::Transmit { apdu } => front.handle_transmit(apdu, now),
            driver::Request::Power { action, generation } => {
                let action = match action {
                    driver::PowerAction::Up => PowerAction::Up,
                    driver::PowerAction::Down => PowerAction::Down,
                    driver::PowerAction::Reset => PowerAction::Reset,
                };
                end.send(&match front.handle_power(action, *generation, now) {
                    Ok(atr) => driver::Reply::Powered { atr },
                    Err(failure) => driver::Reply::Failed { failure: failure_of(failure) },
                });
            }
            driver::Request::PinEntry(entry) if self.pin_place == PinPlace::Phone => {
                front.handle_pin_entry(pin_entry_of(*entry), now);
            }
            driver::Request::PinEntry(_) | driver::Request::Control { .. } => {
                end.send(&driver::Reply::Failed { failure: driver::Failure::Unsupported });
            }
        }
        core.pump(self, now);
        true
    }

    /// Gives up what is under way, for a person. Gives whether anything was.
    pub(crate) fn cancel(&self) -> bool {
        let now = self.clock.now();
        let mut core = self.core();
        let was_busy = core.front.handle_cancel(now);
        core.pump(self, now);
        was_busy
    }

    /// Gives up what is under way if it has this number. Gives whether it had.
    pub(crate) fn cancel_operation(&self, operation: u64) -> bool {
        let now = self.clock.now();
        let mut core = self.core();
        let is_it = core.notices.operation() == Some(operation) && core.front.handle_cancel(now);
        core.pump(self, now);
        is_it
    }

    /// The session at the computer was locked: a verified PIN ends, and what is under way, too.
    pub(crate) fn end_pin(&self) {
        let now = self.clock.now();
        let mut core = self.core();
        core.front.handle_lock(now);
        core.pump(self, now);
    }

    /// Whether a program waits for the card.
    pub(crate) fn is_busy(&self) -> bool {
        self.core().front.is_busy()
    }

    /// The command connection ended.
    pub(crate) fn command_down(&self, number: u64) {
        let now = self.clock.now();
        let mut core = self.core();
        if core.command.as_ref().is_some_and(|end| end.number == number) {
            core.command = None;
            core.front.handle_driver_gone(now);
            core.pump(self, now);
            self.announce(Event::Driver { slot: self.number, connected: false });
        }
    }

    /// An event connection of the driver; it replaces one that is there, and hears at once what is in the slot.
    pub(crate) fn listener_up(&self, outbox: Outbox) -> u64 {
        let mut core = self.core();
        let number = core.next_number();
        let mut end = DriverEnd { number, outbox, frame: Vec::new() };
        send_presence(&mut end, &core.front.presence());
        if let Some(old) = core.listener.replace(end) {
            old.outbox.close();
        }
        number
    }

    /// The event connection ended.
    pub(crate) fn listener_down(&self, number: u64) {
        let mut core = self.core();
        if core.listener.as_ref().is_some_and(|end| end.number == number) {
            core.listener = None;
        }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        locked(&self.core)
    }

    fn announce(&self, event: Event) {
        // Nobody may be watching.
        let _ = self.events.send(event);
    }
}

/// What a message of the phone led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkStep {
    /// The handshake is under way.
    Early,
    /// The channel is open.
    Open,
    /// The link has ended.
    Closed,
}
