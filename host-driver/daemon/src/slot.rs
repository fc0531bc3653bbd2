//! One reader slot: the front, the link to the phone and the driver, side by side under one lock.

mod words;

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use pocketcard_front::{Config, Front, Output, PowerAction, Presence, Reply, Security};
use pocketcard_ipc::control::{DriverState, Event, LinkState, Transport};
use pocketcard_ipc::driver;
use pocketcard_protocol::Timestamp;
use pocketcard_protocol::link::{self, CloseReason, HostConfig, Link};
use pocketcard_protocol::pairing::PairKeys;
use tokio::sync::{Notify, broadcast};

pub(crate) use words::describe;
use words::{failure_of, link_state_of, pending_words, request_words, short};

use crate::radio::RadioOutbox;
use crate::snapshots::SnapshotFile;
use crate::stream::Outbox;
use crate::{Clock, SOFTWARE, locked};

/// A slot. Every step locks it, runs to the end of what can be done now, and unlocks it.
pub(crate) struct Slot {
    pub(crate) number: u32,
    clock: Clock,
    events: broadcast::Sender<Event>,
    /// A deadline came closer than the timer knows.
    earlier: Notify,
    core: Mutex<Core>,
}

struct Core {
    front: Front,
    phone: Option<PhoneName>,
    snapshots: Option<SnapshotFile>,
    /// When the snapshot that the front holds was read from the phone, by the clock that outlives the daemon.
    snapshot_read: Option<SystemTime>,
    up: Option<LinkUp>,
    link_state: LinkState,
    command: Option<DriverEnd>,
    listener: Option<DriverEnd>,
    /// Numbers connections and links, so that a late end is told from the present one.
    count: u64,
    /// When the timer task looks next.
    armed: Option<Timestamp>,
    frames: Vec<u8>,
    card_shown: bool,
}

#[derive(Debug, Clone)]
struct PhoneName {
    id: String,
    name: String,
}

struct LinkUp {
    number: u64,
    link: Link,
    outbox: PhoneOutbox,
    announced: bool,
}

struct DriverEnd {
    number: u64,
    outbox: Outbox,
    frame: Vec<u8>,
}

impl DriverEnd {
    fn send(&mut self, reply: &driver::Reply<'_>) {
        // The one error is a response that is too long to exist; the driver then runs into its time limit.
        match reply.encode(&mut self.frame) {
            Ok(()) => self.outbox.send(&self.frame),
            Err(_) => self.outbox.close(),
        }
    }
}

/// A slot as the control socket shows it.
pub(crate) struct SlotView {
    pub(crate) driver: DriverState,
    pub(crate) card_present: bool,
    pub(crate) powered: bool,
    pub(crate) security: Security,
    /// How long ago what the card says to everybody was read, if it is held and current.
    pub(crate) snapshot_age: Option<Duration>,
    pub(crate) link: LinkState,
    /// What carries the link, while there is one.
    pub(crate) transport: Option<Transport>,
    pub(crate) software: Option<String>,
    pub(crate) card_name: Option<String>,
}

impl Slot {
    pub(crate) fn new(number: u32, clock: Clock, events: broadcast::Sender<Event>) -> Self {
        let config = Config { software: SOFTWARE.to_owned(), ..Config::default() };
        let core = Core {
            front: Front::new(config),
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
        Self { number, clock, events, earlier: Notify::new(), core: Mutex::new(core) }
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
            link: core.link_state.clone(),
            transport: core.up.as_ref().map(|up| up.outbox.transport()),
            software: core.front.phone_software().map(str::to_owned),
            card_name: core.front.card_name().map(str::to_owned),
        }
    }

    /// The phone of this slot, or that it has none any more.
    pub(crate) fn set_phone(&self, phone: Option<(String, String)>) {
        let mut core = self.core();
        core.phone = phone.map(|(id, name)| PhoneName { id, name });
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
            driver::Request::Control { .. } => {
                end.send(&driver::Reply::Failed { failure: driver::Failure::Unsupported });
            }
        }
        core.pump(self, now);
        true
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

impl Core {
    fn next_number(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    fn snapshot_age(&self) -> Option<Duration> {
        let read = self.snapshot_read.filter(|_| self.front.holds_snapshot())?;
        // A clock that was set back makes it new.
        Some(read.elapsed().unwrap_or_default())
    }

    fn deadline(&self) -> Option<Timestamp> {
        let link = self.up.as_ref().and_then(|up| up.link.poll_timeout());
        let front = self.front.poll_timeout();
        match (link, front) {
            (Some(link), Some(front)) => Some(link.min(front)),
            (link, front) => link.or(front),
        }
    }

    /// Carries everything between front, link and driver until nothing is left, then sends what goes to the phone in
    /// one write.
    fn pump(&mut self, slot: &Slot, now: Timestamp) {
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
        while let Some(output) = self.front.poll_output() {
            moved = true;
            match output {
                Output::Send(envelope) => {
                    tracing::trace!(slot = slot.number, request = request_words(envelope.body.as_ref()), "to the phone");
                    if let Some(up) = &mut self.up
                        && let Err(link::LinkError::TooLong) = up.link.send(&envelope, now)
                    {
                        up.link.close(CloseReason::Failed, now);
                    }
                }
                Output::Reply(reply) => {
                    if let Some(end) = &mut self.command {
                        match &reply {
                            Reply::Response(apdu) => end.send(&driver::Reply::Response { apdu }),
                            Reply::Failed(failure) => {
                                end.send(&driver::Reply::Failed { failure: failure_of(*failure) });
                            }
                        }
                    }
                }
                Output::Presence(presence) => self.show(slot, &presence),
                Output::Pending(reason) => {
                    let reason = pending_words(reason).to_owned();
                    slot.announce(Event::Pending { slot: slot.number, reason });
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
    fn end_link(&mut self, slot: &Slot, reason: CloseReason, now: Timestamp) {
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

/// Where a link's messages go.
#[derive(Debug, Clone)]
pub(crate) enum PhoneOutbox {
    /// To a socket, as frames.
    Stream(Outbox),
    /// To the radio's task, which cuts them into fragments.
    Radio(RadioOutbox),
}

impl PhoneOutbox {
    pub(crate) fn close(&self) {
        match self {
            Self::Stream(outbox) => outbox.close(),
            Self::Radio(outbox) => outbox.close(),
        }
    }

    /// What carries the link, for the status.
    fn transport(&self) -> Transport {
        match self {
            Self::Stream(_) => Transport::Stream {},
            Self::Radio(outbox) => outbox.transport(),
        }
    }
}

/// Sends everything that the link has to send; on a stream in one write.
pub(crate) fn send_frames(link: &mut Link, outbox: &PhoneOutbox, frames: &mut Vec<u8>) {
    let outbox = match outbox {
        PhoneOutbox::Stream(outbox) => outbox,
        PhoneOutbox::Radio(outbox) => {
            while let Some(message) = link.poll_transmit() {
                outbox.send(message);
            }
            return;
        }
    };
    frames.clear();
    while let Some(message) = link.poll_transmit() {
        // A link never makes a message that a stream cannot carry.
        let _ = pocketcard_protocol::stream::encode_into(&message, frames);
    }
    if !frames.is_empty() {
        outbox.send(frames);
    }
}

fn send_presence(end: &mut DriverEnd, presence: &Presence) {
    let atr = presence.atr.as_deref().unwrap_or_default();
    end.send(&driver::Reply::Presence(driver::Presence {
        present: presence.atr.is_some(),
        generation: presence.generation,
        atr,
    }));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pocketcard_protocol::channel::StaticSecret;
    use pocketcard_protocol::link::{PairingMode, PhoneConfig, VersionRange};
    use pocketcard_protocol::stream::{FrameReader, LONGEST_MESSAGE};
    use tokio::net::UnixStream;

    use super::*;
    use crate::SystemEntropy;
    use crate::stream::{Reader, split};

    /// No wait of these tests is longer.
    const LIMIT: Duration = Duration::from_secs(10);

    fn pair_with(peer: &StaticSecret) -> PairKeys {
        let mut bytes = vec![1];
        bytes.extend(peer.public().as_bytes());
        bytes.extend([7; 64]);
        PairKeys::from_bytes(&bytes).unwrap()
    }

    /// Hands the phone what the slot wrote, at least one message.
    async fn deliver(reader: &mut Reader, frames: &mut FrameReader, phone: &mut Link) {
        let read = reader.read(frames.read_buffer());
        let count = tokio::time::timeout(LIMIT, read).await.expect("the slot said nothing").unwrap();
        frames.filled(count);
        while let Some(message) = frames.next_message().unwrap() {
            phone.handle_message(message, Clock.now());
        }
    }

    #[tokio::test]
    async fn a_suspected_phone_is_asked_at_once() {
        let (host, phone) =
            (StaticSecret::generate(&SystemEntropy).unwrap(), StaticSecret::generate(&SystemEntropy).unwrap());
        let (ours, theirs) = (pair_with(&phone), pair_with(&host));
        let config = HostConfig {
            identity: Arc::new(host),
            name: "desk".into(),
            software: SOFTWARE.into(),
            entropy: Arc::new(SystemEntropy),
            versions: VersionRange::SUPPORTED,
        };
        let mut phone = Link::phone(
            PhoneConfig {
                identity: Arc::new(phone),
                name: "phone".into(),
                software: "test".into(),
                entropy: Arc::new(SystemEntropy),
                pairs: Arc::new(move |_| Some(theirs.duplicate())),
                pairing: PairingMode::Closed,
                versions: VersionRange::SUPPORTED,
            },
            Clock.now(),
        );
        let slot = Slot::new(0, Clock, broadcast::channel(16).0);
        slot.suspect();
        let (near, far) = UnixStream::pair().unwrap();
        let (_near_reader, outbox) = split(near).unwrap();
        let (mut reader, _far) = split(far).unwrap();
        let mut frames = FrameReader::new(LONGEST_MESSAGE);
        let number = slot.link_up(config, &ours, PhoneOutbox::Stream(outbox));
        // The handshake, then the front's request to open a session, which this phone leaves without an answer.
        while !phone.is_open() {
            while let Some(message) = phone.poll_transmit() {
                slot.link_message(number, &message);
            }
            deliver(&mut reader, &mut frames, &mut phone).await;
        }
        while let Some(message) = phone.poll_transmit() {
            assert_eq!(slot.link_message(number, &message), LinkStep::Open);
        }
        while phone.poll_event().is_some() {}
        slot.suspect();
        deliver(&mut reader, &mut frames, &mut phone).await;
        assert!(phone.poll_event().is_none(), "the link itself answers a ping");
        let pong = phone.poll_transmit().unwrap();
        assert_eq!(slot.link_message(number, &pong), LinkStep::Open);
    }
}
