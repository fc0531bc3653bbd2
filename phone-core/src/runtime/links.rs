//! A link of the protocol together with the transport that carries it.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use async_channel::Receiver;
use pocketcard_protocol::{
    channel::StaticSecret,
    l2cap::Psm,
    link::{Link, PairingMode, PhoneConfig as LinkConfig, VersionRange},
    time::Timestamp,
};

use super::{Parts, SendOutcome, Transport, hosts::Hosts};
use crate::traits::HostId;

/// How long a host may leave messages unread before its link is closed.
const STALL: Duration = Duration::from_secs(10);

/// What every link is made with.
pub(super) struct Setup(LinkConfig);

impl Setup {
    pub(super) fn new(
        identity: StaticSecret,
        name: String,
        software: String,
        versions: VersionRange,
        hosts: &Hosts,
        parts: &Parts,
    ) -> Self {
        Self(LinkConfig {
            identity: Arc::new(identity),
            name,
            software,
            entropy: Arc::clone(&parts.entropy),
            pairs: hosts.lookup(),
            pairing: PairingMode::Closed,
            versions,
        })
    }

    pub(super) fn link(&self, pairing: PairingMode, psm: Option<Psm>, now: Timestamp) -> Link {
        Link::phone_with_channel(LinkConfig { pairing, ..self.0.clone() }, psm, now)
    }
}

pub(super) struct LinkEntry {
    pub(super) link: Link,
    transport: Box<dyn Transport>,
    room: Receiver<()>,
    pub(super) authenticated: Arc<AtomicBool>,
    /// The host, once the channel is open.
    pub(super) host: Option<(HostId, String)>,
    /// A message that the transport did not take, and since when.
    unsent: Option<(Vec<u8>, Timestamp)>,
    /// Messages of the host that wait until it reads ours: it is served no faster than it listens.
    held: VecDeque<Vec<u8>>,
    /// Whether the end of this link was reported.
    pub(super) told_closed: bool,
    gone: bool,
}

impl LinkEntry {
    pub(super) fn new(
        link: Link,
        transport: Box<dyn Transport>,
        room: Receiver<()>,
        authenticated: Arc<AtomicBool>,
    ) -> Self {
        Self {
            link,
            transport,
            room,
            authenticated,
            host: None,
            unsent: None,
            held: VecDeque::new(),
            told_closed: false,
            gone: false,
        }
    }

    /// Gives the host's message to the link, or keeps it while our own messages are stuck.
    pub(super) fn receive(&mut self, message: Vec<u8>, now: Timestamp) {
        if self.unsent.is_some() || !self.held.is_empty() {
            self.held.push_back(message);
        } else {
            self.room.try_recv().ok();
            self.link.handle_message(&message, now);
        }
    }

    /// Sends what the link has to send, as far as the transport takes it.
    pub(super) fn flush(&mut self, now: Timestamp) {
        if self.gone {
            return;
        }
        // Trying again is no progress: the time runs from the first failure after the last message that went out.
        let mut stuck_since = self.unsent.as_ref().map(|(_, since)| *since);
        while let Some(message) = self.unsent.take().map(|(message, _)| message).or_else(|| self.link.poll_transmit()) {
            match self.transport.send(&message) {
                SendOutcome::Sent => stuck_since = None,
                SendOutcome::WouldBlock => {
                    self.unsent = Some((message, stuck_since.unwrap_or(now)));
                    return;
                }
                SendOutcome::Gone => {
                    self.gone = true;
                    return;
                }
            }
        }
    }

    /// The next message that was held back, if the transport is free again.
    pub(super) fn release(&mut self, now: Timestamp) -> bool {
        if self.unsent.is_some() {
            return false;
        }
        let Some(message) = self.held.pop_front() else { return false };
        self.room.try_recv().ok();
        self.link.handle_message(&message, now);
        true
    }

    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        let stalled = self.unsent.as_ref().map(|(_, since)| *since + STALL);
        [self.link.poll_timeout(), stalled].into_iter().flatten().min()
    }

    pub(super) fn handle_timeout(&mut self, now: Timestamp) {
        if self.unsent.as_ref().is_some_and(|(_, since)| *since + STALL <= now) {
            self.gone = true;
        }
        if self.link.poll_timeout().is_some_and(|timeout| timeout <= now) {
            self.link.handle_timeout(now);
        }
    }

    /// Nothing more comes from or goes to the host: the transport failed or stalled, or the link closed and has said so.
    pub(super) fn is_over(&self) -> bool {
        self.gone || self.link.is_closed() && self.unsent.is_none()
    }

    pub(super) fn end(mut self) {
        self.transport.close();
    }
}
