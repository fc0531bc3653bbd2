//! The host's side of one pair: the front, the link and the GATT client, joined as the daemon joins them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use pocketcard_front::{Config, Front, Output, Presence, Reply};
use pocketcard_protocol::Timestamp;
use pocketcard_protocol::fragment::{FragmentLayer, FragmentSize};
use pocketcard_protocol::gatt;
use pocketcard_protocol::link::{CloseReason, Event, HostConfig, Link};
use pocketcard_protocol::messages::Body;
use pocketcard_protocol::pairing::PairKeys;
use pocketcard_protocol::snapshot::Snapshot;

use crate::radio::{Att, Parameters, Request};
use crate::traffic::Traffic;
use crate::world::ConnectionId;

/// Steps of discovery that a system needs when it does not know the handles: one service, three characteristics, one
/// descriptor, the end of each list.
const DISCOVERY: usize = 6;

/// A host's side of the pair with one phone: what the daemon calls a slot.
pub(crate) struct Slot {
    pub(crate) config: HostConfig,
    pub(crate) pair: Option<PairKeys>,
    pub(crate) front: Front,
    pub(crate) up: Option<HostLink>,
    /// How long after a lost link the host looks for the phone again; `None`: never.
    pub(crate) returns_after: Option<Duration>,
    pub(crate) returns_at: Option<Timestamp>,
    pub(crate) replies: VecDeque<Reply>,
    /// What the reader was told since somebody looked.
    pub(crate) presences: Vec<Presence>,
    pub(crate) closed: Vec<CloseReason>,
    pub(crate) pairing: PairingView,
    pub(crate) traffic: Traffic,
    pub(crate) knows_handles: bool,
    /// What the front has loaded, as the daemon keeps it on its disk.
    pub(crate) kept: Option<Arc<Snapshot>>,
}

/// What a person at the host sees of a pairing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PairingView {
    /// The digits on the host's screen.
    pub digits: Option<String>,
    /// What the phone calls itself.
    pub peer_name: String,
    /// Both sides have stored the pair.
    pub done: bool,
}

pub(crate) struct HostLink {
    pub(crate) connection: ConnectionId,
    pub(crate) link: Link,
    pub(crate) fragments: FragmentLayer,
    procedures: VecDeque<Request>,
    info: Vec<u8>,
    mtu: usize,
    failed: bool,
}

impl Slot {
    pub(crate) fn new(config: HostConfig) -> Self {
        let front = Self::front(&config);
        Self {
            config,
            pair: None,
            front,
            up: None,
            returns_after: None,
            returns_at: None,
            replies: VecDeque::new(),
            presences: Vec::new(),
            closed: Vec::new(),
            pairing: PairingView::default(),
            traffic: Traffic::default(),
            knows_handles: false,
            kept: None,
        }
    }

    fn front(config: &HostConfig) -> Front {
        Front::new(Config { software: config.software.clone(), ..Config::default() })
    }

    /// The daemon ends and starts again: what is not on its disk is gone.
    ///
    /// - `with_disk`: whether the disk still has what the phone says to everybody.
    pub(crate) fn restart(&mut self, with_disk: bool) {
        self.front = Self::front(&self.config);
        self.kept.take_if(|_| !with_disk);
        self.front.offer_snapshot(self.kept.clone());
        self.up = None;
        self.replies.clear();
    }

    /// The radio has a connection; the GATT client begins. Gives its first PDU.
    pub(crate) fn connected(&mut self, connection: ConnectionId, link: Link, parameters: &Parameters) -> Option<Att> {
        let discovery = if self.knows_handles { 0 } else { DISCOVERY };
        let mut procedures = VecDeque::from([Request::ExchangeMtu]);
        procedures.extend(std::iter::repeat_n(Request::Discover, discovery));
        procedures.extend([Request::Subscribe, Request::ReadInfo { offset: 0 }]);
        let fragments = FragmentLayer::new(FragmentSize::from_mtu(parameters.mtu), link.message_limit());
        let first = procedures.pop_front();
        self.up = Some(HostLink {
            connection,
            link,
            fragments,
            procedures,
            info: Vec::new(),
            mtu: parameters.mtu,
            failed: false,
        });
        self.traffic.procedures += 1;
        first.map(Att::Request)
    }

    /// The phone's system answers the GATT client. Gives the next PDU.
    pub(crate) fn answered(&mut self, request: Request, value: &[u8], now: Timestamp) -> Option<Att> {
        let up = self.up.as_mut()?;
        if let Request::ReadInfo { .. } = request {
            up.info.extend_from_slice(value);
            if value.len() < up.mtu - Att::READ_HEADER {
                self.knows_handles = true;
                up.link.handle_message(&gatt::info_message(&up.info), now);
            } else {
                up.procedures.push_front(Request::ReadInfo { offset: up.info.len() });
            }
        }
        let next = up.procedures.pop_front()?;
        self.traffic.procedures += 1;
        Some(Att::Request(next))
    }

    /// A notification of the phone.
    pub(crate) fn notified(&mut self, value: &[u8], now: Timestamp) {
        let Some(up) = &mut self.up else { return };
        match up.fragments.handle_fragment(value, now) {
            Ok(()) => up.link.handle_progress(now),
            Err(_) => up.failed = true,
        }
        while let Some(message) = up.fragments.poll_message() {
            up.link.handle_message(&message, now);
            up.fragments.set_limit(up.link.message_limit());
        }
    }

    /// The radio's connection is gone.
    pub(crate) fn disconnected(&mut self, now: Timestamp) {
        if self.up.take().is_some_and(|up| !up.link.is_closed()) {
            self.link_ended(CloseReason::Lost, now);
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        let link = self.up.as_ref().and_then(|up| up.link.poll_timeout());
        let fragments = self.up.as_ref().and_then(|up| up.fragments.poll_timeout());
        [link, fragments, self.front.poll_timeout(), self.returns_at].into_iter().flatten().min()
    }

    pub(crate) fn handle_timeouts(&mut self, now: Timestamp) {
        if let Some(up) = &mut self.up {
            up.link.handle_timeout(now);
            up.failed |= up.fragments.handle_timeout(now).is_err();
        }
        self.front.handle_timeout(now);
    }

    /// Carries everything between front and link, and gives what goes on the air. `true`: the connection is to end.
    pub(crate) fn pump(&mut self, now: Timestamp) -> (Option<ConnectionId>, Vec<Vec<u8>>, bool) {
        while self.pump_link(now) | self.pump_front(now) {}
        let Some(up) = &mut self.up else { return (None, Vec::new(), false) };
        while let Some(message) = up.link.poll_transmit() {
            up.failed |= up.fragments.push(message).is_err();
        }
        let connection = up.connection;
        let fragments = std::iter::from_fn(|| up.fragments.poll_transmit(now)).collect();
        let ended = up.failed || (up.link.is_closed() && up.fragments.is_idle());
        if ended {
            let reason = if up.link.is_closed() { None } else { Some(CloseReason::Lost) };
            self.up = None;
            if let Some(reason) = reason {
                self.link_ended(reason, now);
                while self.pump_front(now) {}
            }
        }
        (Some(connection), fragments, ended)
    }

    fn pump_link(&mut self, now: Timestamp) -> bool {
        let mut moved = false;
        while let Some(event) = self.up.as_mut().and_then(|up| up.link.poll_event()) {
            moved = true;
            match event {
                Event::Connected { .. } => {
                    self.traffic.links += 1;
                    self.front.handle_link_up(now);
                }
                Event::Message(envelope) => {
                    if matches!(envelope.body, Some(Body::Response(_))) {
                        self.traffic.answers += 1;
                    }
                    self.front.handle_envelope(envelope, now);
                }
                Event::PairingDigits { digits, peer_name, .. } => {
                    self.pairing.digits = Some(digits.to_string());
                    self.pairing.peer_name = peer_name;
                }
                Event::PeerConfirmed => {}
                Event::Paired { pair, .. } => {
                    self.pair = Some(pair);
                    if let Some(up) = &mut self.up {
                        up.link.pair_stored(now);
                    }
                }
                Event::PairingDone => self.pairing.done = true,
                Event::Closed(reason) => self.link_ended(reason, now),
            }
        }
        moved
    }

    fn pump_front(&mut self, now: Timestamp) -> bool {
        let mut moved = false;
        while let Some(output) = self.front.poll_output() {
            moved = true;
            match output {
                Output::Send(envelope) => {
                    self.traffic.sent(envelope.body.as_ref());
                    if let Some(up) = &mut self.up {
                        // A link that is not open any more says so by its last event.
                        let _ = up.link.send(&envelope, now);
                    }
                }
                Output::Reply(reply) => self.replies.push_back(reply),
                Output::Presence(presence) => self.presences.push(presence),
                Output::Snapshot(snapshot) => self.kept = Some(snapshot),
                Output::Close(_) => {
                    if let Some(up) = &mut self.up {
                        up.link.close(CloseReason::Failed, now);
                    }
                }
                _ => {}
            }
        }
        moved
    }

    fn link_ended(&mut self, reason: CloseReason, now: Timestamp) {
        if reason.is_loss() {
            self.front.handle_link_down(now);
        } else {
            self.front.handle_link_closed(now);
        }
        self.closed.push(reason);
        self.returns_at = self.returns_after.map(|pause| now + pause);
    }
}
