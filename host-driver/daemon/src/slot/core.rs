//! What a slot holds under its lock, and how the parts of it are carried forward: front, link and driver.

use std::time::{Duration, SystemTime};

use pocketcard_front::{Failure, Front, Output, Presence, Reply};
use pocketcard_ipc::control::{Event, LinkState};
use pocketcard_ipc::driver;
use pocketcard_protocol::Timestamp;
use pocketcard_protocol::link::{self, CloseReason, Link};

use super::Slot;
use super::notice::Notices;
use super::outbox::{PhoneOutbox, send_frames};
use super::words::{describe, failure_of, link_state_of, request_words, short};
use crate::snapshots::SnapshotFile;
use crate::stream::Outbox;

/// What the lock of a slot guards.
pub(super) struct Core {
    pub(super) front: Front,
    /// What people at the computer are told of what the phone does.
    pub(super) notices: Notices,
    pub(super) phone: Option<PhoneName>,
    pub(super) snapshots: Option<SnapshotFile>,
    /// When the snapshot that the front holds was read from the phone, by the clock that outlives the daemon.
    pub(super) snapshot_read: Option<SystemTime>,
    pub(super) up: Option<LinkUp>,
    pub(super) link_state: LinkState,
    pub(super) command: Option<DriverEnd>,
    pub(super) listener: Option<DriverEnd>,
    /// Numbers connections and links, so that a late end is told from the present one.
    pub(super) count: u64,
    /// When the timer task looks next.
    pub(super) armed: Option<Timestamp>,
    pub(super) frames: Vec<u8>,
    pub(super) card_shown: bool,
}

#[derive(Debug, Clone)]
pub(super) struct PhoneName {
    pub(super) id: String,
    pub(super) name: String,
}

pub(super) struct LinkUp {
    pub(super) number: u64,
    pub(super) link: Link,
    pub(super) outbox: PhoneOutbox,
    pub(super) announced: bool,
}

pub(super) struct DriverEnd {
    pub(super) number: u64,
    pub(super) outbox: Outbox,
    pub(super) frame: Vec<u8>,
}

impl DriverEnd {
    pub(super) fn send(&mut self, reply: &driver::Reply<'_>) {
        // The one error is a response that is too long to exist; the driver then runs into its time limit.
        match reply.encode(&mut self.frame) {
            Ok(()) => self.outbox.send(&self.frame),
            Err(_) => self.outbox.close(),
        }
    }
}

impl Core {
    pub(super) fn next_number(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    pub(super) fn snapshot_age(&self) -> Option<Duration> {
        let read = self.snapshot_read.filter(|_| self.front.holds_snapshot())?;
        // A clock that was set back makes it new.
        Some(read.elapsed().unwrap_or_default())
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let link = self.up.as_ref().and_then(|up| up.link.poll_timeout());
        let front = self.front.poll_timeout();
        match (link, front) {
            (Some(link), Some(front)) => Some(link.min(front)),
            (link, front) => link.or(front),
        }
    }

    /// Carries everything between front, link and driver until nothing is left, then sends what goes to the phone in
    /// one write.
    pub(super) fn pump(&mut self, slot: &Slot, now: Timestamp) {
        loop {
            let link_moved = self.pump_link(slot, now);
            let front_moved = self.pump_front(slot, now);
            if !link_moved && !front_moved {
                break;
            }
        }
        self.flush();
        if let Some(deadline) = self.deadline()
            && self.armed.is_none_or(|armed| deadline < armed)
        {
            self.armed = Some(deadline);
            slot.earlier.notify_one();
        }
    }

    fn pump_link(&mut self, slot: &Slot, now: Timestamp) -> bool {
        let mut moved = false;
        while let Some(up) = &mut self.up {
            let Some(event) = up.link.poll_event() else { break };
            moved = true;
            match event {
                link::Event::Connected { .. } => {
                    up.announced = true;
                    self.link_state = LinkState::Connected {};
                    self.front.handle_link_up(now);
                    if let Some(PhoneName { id, name }) = self.phone.clone() {
                        tracing::info!(slot = slot.number, phone = short(&id), "phone connected");
                        slot.announce(Event::PhoneConnected { phone: id, name, slot: slot.number });
                    }
                }
                link::Event::Message(envelope) => self.front.handle_envelope(envelope, now),
                link::Event::Closed(reason) => self.end_link(slot, reason, now),
                // Pairing has links of its own.
                _ => {}
            }
        }
        moved
    }

    fn pump_front(&mut self, slot: &Slot, now: Timestamp) -> bool {
        let mut moved = false;
        self.notices.tries(self.front.security().pin_tries_left);
        while let Some(output) = self.front.poll_output() {
            moved = true;
            match output {
                Output::Send(envelope) => {
                    tracing::trace!(
                        slot = slot.number,
                        request = request_words(envelope.body.as_ref()),
                        "to the phone"
                    );
                    if let Some(up) = &mut self.up
                        && let Err(link::LinkError::TooLong) = up.link.send(&envelope, now)
                    {
                        up.link.close(CloseReason::Failed, now);
                    }
                }
                Output::Reply(reply) => {
                    self.notices.answered(slot);
                    if let Some(end) = &mut self.command {
                        match &reply {
                            Reply::Response(apdu) => end.send(&driver::Reply::Response { apdu }),
                            Reply::Failed(failure) => {
                                if *failure == Failure::Unsupported {
                                    tracing::warn!(
                                        slot = slot.number,
                                        "the phone knows no PIN entry; update Pocketcard there, or set `pin_entry = \"keyboard\"`"
                                    );
                                }
                                end.send(&driver::Reply::Failed { failure: failure_of(*failure) });
                            }
                        }
                    }
                }
                Output::Presence(presence) => self.show(slot, &presence),
                Output::Pending(reason) => self.notices.pending(slot, reason),
                Output::Refused { reason, key_reference } => self.notices.refused(slot, reason, key_reference),
                Output::Granted => self.notices.granted(),
                Output::Permissions(permissions) => {
                    self.notices.permissions(slot, self.phone.as_ref().map(|phone| phone.id.as_str()), &permissions);
                }
                Output::Snapshot(snapshot) => {
                    self.snapshot_read = Some(SystemTime::now());
                    if let Some(file) = &self.snapshots {
                        file.keep(snapshot);
                    }
                }
                Output::Close(error) => {
                    tracing::warn!(slot = slot.number, %error, "closing the link");
                    if let Some(up) = &mut self.up {
                        up.link.close(CloseReason::Protocol(link::Violation::OutOfPlace), now);
                    }
                }
                _ => {}
            }
        }
        moved
    }

    fn show(&mut self, slot: &Slot, presence: &Presence) {
        if let Some(end) = &mut self.listener {
            send_presence(end, presence);
        }
        let shown = presence.atr.is_some();
        if self.card_shown != shown {
            self.card_shown = shown;
            tracing::debug!(slot = slot.number, shown, "card in the reader");
            slot.announce(match shown {
                true => Event::CardPresent { slot: slot.number },
                false => Event::CardAbsent { slot: slot.number },
            });
        }
    }

    fn flush(&mut self) {
        let Some(up) = &mut self.up else { return };
        send_frames(&mut up.link, &up.outbox, &mut self.frames);
    }

    /// The link is over: last words, then the card waits or goes.
    pub(super) fn end_link(&mut self, slot: &Slot, reason: CloseReason, now: Timestamp) {
        self.flush();
        let Some(up) = self.up.take() else { return };
        up.outbox.close();
        if leaves_a_card(reason, &up.outbox) {
            self.front.handle_link_down(now);
        } else {
            self.front.handle_link_closed(now);
        }
        self.link_state = link_state_of(reason);
        let Some(PhoneName { id, name }) = self.phone.clone() else { return };
        match reason {
            CloseReason::VersionMismatch { .. } => {
                tracing::warn!(slot = slot.number, phone = short(&id), reason = describe(reason), "no link");
            }
            _ => tracing::info!(slot = slot.number, phone = short(&id), reason = describe(reason), "link ended"),
        }
        if up.announced {
            let reason = describe(reason);
            slot.announce(Event::PhoneDisconnected { phone: id, name, slot: slot.number, reason });
        }
    }
}

/// Whether the card waits for its phone after a link that ended like this.
fn leaves_a_card(reason: CloseReason, outbox: &PhoneOutbox) -> bool {
    match reason {
        // A stream loses nothing on its way: a phone that says nothing on it in time hangs, and programs have waited
        // for it long enough. On the air the phone may be out of range.
        CloseReason::Timeout(_) => matches!(outbox, PhoneOutbox::Radio(_)),
        // It has no room for another link before it notices that the last one is gone.
        CloseReason::Busy => true,
        reason => reason.is_loss(),
    }
}

pub(super) fn send_presence(end: &mut DriverEnd, presence: &Presence) {
    let atr = presence.atr.as_deref().unwrap_or_default();
    end.send(&driver::Reply::Presence(driver::Presence {
        present: presence.atr.is_some(),
        generation: presence.generation,
        atr,
    }));
}
