//! The loop: mail, finished operations and time go in; messages, effects and events come out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use async_channel::{Receiver, Sender};
use futures_lite::Stream;
use pocketcard_protocol::{
    apdu::Response,
    link::{CloseReason, Event, PairingMode},
    time::Timestamp,
};

use super::{
    Parts, PhoneEvent, Transport,
    advertising::Advertising,
    effects::{Done, Effects},
    hosts::Hosts,
    links::{LinkEntry, Setup},
    log::{Log, LogOperation, LogResult},
    mailbox::{Mail, Reply},
    pairing::Pairing,
};
use crate::{
    card::{Card, Input, LinkId, Output},
    traits::{Clock, HostId},
};

/// Mail handled before effects and time get their turn.
const BATCH: usize = 64;

/// Rounds without giving the executor a chance to do something else.
const ROUNDS: usize = 8;

/// Links at once, and how many of them may be unauthenticated.
const LINKS: usize = 16;
const STRANGERS: usize = 8;

/// Links of one host at once: its last one, which it may have lost without our knowing, and its new one.
const LINKS_PER_HOST: usize = 2;

struct Sleep {
    until: Timestamp,
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
}

pub(super) struct Runtime {
    mailbox: Pin<Box<Receiver<Mail>>>,
    pub(super) setup: Setup,
    pub(super) hosts: Hosts,
    pub(super) card: Card,
    pub(super) effects: Effects,
    pub(super) links: BTreeMap<LinkId, LinkEntry>,
    /// Links that may have events or messages for us.
    pub(super) touched: Vec<LinkId>,
    pub(super) pairing: Pairing,
    pub(super) advertising: Advertising,
    pub(super) log: Log,
    pub(super) locals: HashMap<u64, Reply<Response>>,
    /// Those of [`Self::locals`] with which the owner chooses a PIN.
    pub(super) choosing: BTreeSet<u64>,
    pub(super) next_local: u64,
    pub(super) factory_resets: Arc<AtomicU64>,
    pub(super) subscribers: Vec<Sender<PhoneEvent>>,
    pub(super) stopping: Option<Reply<()>>,
    clock: Arc<dyn Clock>,
    sleep: Option<Sleep>,
}

impl Runtime {
    pub(super) fn new(
        mailbox: Receiver<Mail>,
        factory_resets: Arc<AtomicU64>,
        setup: Setup,
        hosts: Hosts,
        card: Card,
        log: Log,
        parts: Parts,
    ) -> Self {
        Self {
            mailbox: Box::pin(mailbox),
            setup,
            hosts,
            card,
            effects: Effects::new(parts.keystore, parts.approver, parts.sealing),
            links: BTreeMap::new(),
            touched: Vec::new(),
            pairing: Pairing::Closed,
            advertising: Advertising::default(),
            log,
            locals: HashMap::new(),
            choosing: BTreeSet::new(),
            next_local: 0,
            factory_resets,
            subscribers: Vec::new(),
            stopping: None,
            clock: parts.clock,
            sleep: None,
        }
    }

    pub(super) async fn run(mut self) {
        poll_fn(|context| self.poll(context)).await;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        for _ in 0..ROUNDS {
            let mail = self.poll_mailbox(context);
            while let Some(done) = self.effects.poll(context) {
                let now = self.clock.now();
                self.finish(done, now);
                self.settle(now);
            }
            if matches!(mail, MailLeft::Closed) || self.stopping.is_some() {
                self.end();
                return Poll::Ready(());
            }
            if !self.poll_timers(context) && matches!(mail, MailLeft::None) {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_mailbox(&mut self, context: &mut Context<'_>) -> MailLeft {
        for _ in 0..BATCH {
            match self.mailbox.as_mut().poll_next(context) {
                Poll::Ready(Some(mail)) => {
                    let now = self.clock.now();
                    // Mail comes before timers, also after a sleep of the device: a pairing must not outlive its time by that.
                    self.expire_pairing(now);
                    self.receive(mail, now);
                    self.settle(now);
                }
                Poll::Ready(None) => return MailLeft::Closed,
                Poll::Pending => return MailLeft::None,
            }
        }
        MailLeft::Some
    }

    /// Handles what is due and arms the clock for what is next. `true` if something was due.
    fn poll_timers(&mut self, context: &mut Context<'_>) -> bool {
        let Some(deadline) = self.next_deadline() else { return false };
        let now = self.clock.now();
        if deadline <= now {
            self.handle_timeouts(now);
            self.settle(now);
            return true;
        }
        // Deadlines mostly move away (every message puts the idle ping off), so a sleep that ends too early is kept: one
        // needless wake-up a minute instead of a new timer for every APDU.
        let sleep = match &mut self.sleep {
            Some(sleep) if sleep.until <= deadline => sleep,
            sleep => {
                let clock = Arc::clone(&self.clock);
                sleep.insert(Sleep {
                    until: deadline,
                    future: Box::pin(async move { clock.sleep_until(deadline).await }),
                })
            }
        };
        if sleep.future.as_mut().poll(context).is_ready() {
            self.sleep = None;
            return true;
        }
        false
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        let links = self.links.values().filter_map(LinkEntry::poll_timeout);
        let others =
            [self.card.poll_timeout(), self.hosts.poll_timeout(), self.pairing.poll_timeout(), self.log.poll_timeout()];
        links.chain(others.into_iter().flatten()).min()
    }

    fn handle_timeouts(&mut self, now: Timestamp) {
        if self.card.poll_timeout().is_some_and(|timeout| timeout <= now) {
            self.card.handle_timeout(now);
        }
        for (link, entry) in &mut self.links {
            if entry.poll_timeout().is_some_and(|timeout| timeout <= now) {
                entry.handle_timeout(now);
                self.touched.push(*link);
            }
        }
        self.expire_pairing(now);
        for host in self.hosts.expired(now) {
            // If the store fails the record is found, and dropped, after the next start.
            self.forget(&host, now).ok();
        }
        self.log.handle_timeout(now);
    }

    /// Lets the card and the links speak until nobody has anything to say.
    fn settle(&mut self, now: Timestamp) {
        loop {
            while let Some(output) = self.card.poll_output() {
                self.card_output(output, now);
            }
            let Some(link) = self.touched.pop() else { break };
            while let Some(event) = self.links.get_mut(&link).and_then(|entry| entry.link.poll_event()) {
                self.link_event(link, event, now);
            }
            let Some(entry) = self.links.get_mut(&link) else { continue };
            entry.flush(now);
            if entry.release(now) {
                self.touched.push(link);
            } else if entry.is_over() {
                self.link_gone(link, None, now);
            }
        }
        self.tell_advertising();
    }

    fn card_output(&mut self, output: Output, now: Timestamp) {
        match output {
            Output::Send { link, envelope } => {
                if let Some(entry) = self.links.get_mut(&link) {
                    if entry.link.send(&envelope, now).is_err() {
                        entry.link.close(CloseReason::Failed, now);
                    }
                    self.touched.push(link);
                }
            }
            Output::Close { link, reason } => {
                if let Some(entry) = self.links.get_mut(&link) {
                    entry.link.close(reason.into(), now);
                    self.touched.push(link);
                }
            }
            Output::Effect { operation, effect } => self.effects.start(operation, effect),
            Output::CancelEffect(operation) => self.effects.cancel(operation),
            Output::LocalResponse { request, response } => {
                if self.choosing.remove(&request) {
                    self.log_of_owner(LogOperation::ChoosePin, LogResult::of_command(response.status(), None), now);
                }
                if let Some(reply) = self.locals.remove(&request) {
                    reply.try_send(response).ok();
                }
            }
            Output::Event(event) => {
                self.log_card_event(&event, now);
                self.tell(|| PhoneEvent::Card(event));
            }
        }
    }

    fn link_event(&mut self, link: LinkId, event: Event, now: Timestamp) {
        match event {
            Event::Message(envelope) => self.card.handle(Input::Message { link, envelope }, now),
            Event::Connected { peer } => self.connected(link, HostId::new(*peer.as_bytes()), now),
            Event::PairingDigits { digits, peer_name, peer } => {
                self.pairing_digits(link, digits, peer_name, HostId::new(*peer.as_bytes()), now);
            }
            Event::PeerConfirmed => self.tell(|| PhoneEvent::PairingPeerConfirmed),
            Event::Paired { pair, peer_name } => {
                let host = HostId::new(*pair.peer.as_bytes());
                self.effects.seal_pair(link, host, peer_name, pair.to_bytes());
            }
            Event::PairingDone => self.pairing_done(link, now),
            Event::Closed(reason) => self.link_gone(link, Some(reason), now),
        }
    }

    fn connected(&mut self, link: LinkId, host: HostId, now: Timestamp) {
        // Whoever opens a channel has stored the pair. If that cannot be noted now, it will be at the next connection.
        self.hosts.confirm(&host).ok();
        let name = self.hosts.name(&host).unwrap_or_default().to_owned();
        self.make_room(&host, now);
        let Some(entry) = self.links.get_mut(&link) else { return };
        entry.host = Some((host, name.clone()));
        entry.authenticated.store(true, Ordering::Relaxed);
        self.advertising.changed();
        self.card.handle(Input::LinkUp { link, host, host_name: name.clone() }, now);
        self.log_of_host(host, &name, LogOperation::Connect, LogResult::Done, now);
        self.tell(|| PhoneEvent::Connected { host, name });
    }

    /// Closes the oldest links of a host that comes once more, so that one host cannot take the places of the others.
    fn make_room(&mut self, host: &HostId, now: Timestamp) {
        let is_its = |entry: &LinkEntry| entry.host.as_ref().is_some_and(|(connected, _)| connected == host);
        let links: Vec<LinkId> = self.links.iter().filter(|(_, entry)| is_its(entry)).map(|(link, _)| *link).collect();
        let kept = links.len().min(LINKS_PER_HOST - 1);
        for link in links.into_iter().rev().skip(kept) {
            if let Some(entry) = self.links.get_mut(&link) {
                entry.link.close(CloseReason::Replaced, now);
                self.touched.push(link);
            }
        }
    }

    fn finish(&mut self, done: Done, now: Timestamp) {
        match done {
            Done::Operation(operation, result) => self.card.handle(Input::Completed { operation, result }, now),
            Done::Pair(sealed) => self.pair_sealed(sealed, now),
            Done::Housekeeping => {}
        }
    }

    pub(super) fn link_up(
        &mut self,
        link: LinkId,
        transport: Box<dyn Transport>,
        room: Receiver<()>,
        authenticated: Arc<AtomicBool>,
        now: Timestamp,
    ) {
        let strangers = self.links.values().filter(|entry| entry.host.is_none()).count();
        if self.links.len() >= LINKS || strangers >= STRANGERS {
            let mut refused =
                LinkEntry::new(self.setup.link(PairingMode::Closed, None, now), transport, room, authenticated);
            refused.link.close(CloseReason::Busy, now);
            refused.flush(now);
            refused.end();
            return;
        }
        let protocol_link = self.setup.link(self.pairing.mode(), transport.psm(), now);
        self.links.insert(link, LinkEntry::new(protocol_link, transport, room, authenticated));
        self.touched.push(link);
    }

    /// The link's part in everything ends. Its entry goes once its last messages are out, or at once if the transport is lost.
    pub(super) fn link_gone(&mut self, link: LinkId, reason: Option<CloseReason>, now: Timestamp) {
        let Some(entry) = self.links.get_mut(&link) else { return };
        if reason.is_some() {
            // The link's last message says why.
            entry.flush(now);
        }
        let host = entry.host.take();
        let told = std::mem::replace(&mut entry.told_closed, true);
        if reason.is_none() || entry.is_over() {
            if let Some(entry) = self.links.remove(&link) {
                entry.end();
            }
        } else {
            self.touched.push(link);
        }
        let reason = reason.unwrap_or(CloseReason::Lost);
        if let Some((host, name)) = host {
            self.advertising.changed();
            // A link that made room for a newer one of its host may still have the session on it, and the host has not seen it
            // close: it had lost it before.
            let lost = reason.is_loss() || reason == CloseReason::Replaced;
            let input = if lost { Input::LinkDown { link } } else { Input::LinkClosed { link } };
            self.card.handle(input, now);
            self.log_of_host(host, &name, LogOperation::Disconnect, LogResult::of_link(reason), now);
            self.tell(|| PhoneEvent::Disconnected { host, name, reason });
        } else if !told && !self.pairing_link_gone(link, reason, now) {
            self.tell(|| PhoneEvent::LinkRefused { reason });
        }
    }

    pub(super) fn tell(&mut self, event: impl FnOnce() -> PhoneEvent) {
        if self.subscribers.is_empty() {
            return;
        }
        let event = event();
        self.subscribers.retain(|subscriber| subscriber.force_send(event.clone()).is_ok());
    }

    fn end(&mut self) {
        let now = self.clock.now();
        for (_, mut entry) in std::mem::take(&mut self.links) {
            entry.link.close(CloseReason::Done, now);
            entry.flush(now);
            entry.end();
        }
        self.log.flush();
        if let Some(reply) = self.stopping.take() {
            reply.try_send(()).ok();
        }
    }
}

enum MailLeft {
    None,
    Some,
    Closed,
}
