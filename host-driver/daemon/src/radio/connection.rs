//! One phone's connection: reading `Info`, opening a channel or subscribing, and fragments in both directions.

use std::time::Duration;

use pocketcard_ipc::control::Transport;
use pocketcard_protocol::Timestamp;
use pocketcard_protocol::fragment::{FragmentError, FragmentLayer, FragmentSize};
use pocketcard_protocol::gatt;
use pocketcard_protocol::stream::{LONGEST_BEFORE_AUTHENTICATION, LONGEST_MESSAGE};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::l2cap::{self, L2capBroken, L2capChannel};
use super::{Central, Peer, PeerEvent, RadioError, RadioOutbox};
use crate::Clock;
use crate::slot::LinkStep;

/// For a connection to be made and the services to be found. Spec: protocol/SPEC.md section 11.4
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// For a read, a subscription, a write. Spec: protocol/SPEC.md section 11.4
const OPERATION_LIMIT: Duration = Duration::from_secs(5);

/// For the last fragments of a link that is over. Spec: protocol/SPEC.md section 11.4
pub(super) const FAREWELL: Duration = Duration::from_secs(2);

/// For the system to end a connection and forget the device; BlueZ takes up to three seconds.
const DISCONNECT_LIMIT: Duration = Duration::from_secs(8);

/// Messages that the other end of a [`Wire`] has not taken.
const WIRE: usize = 16;

/// A phone that has let us read its `Info`, and notifies us or has opened a channel of L2CAP.
pub(super) struct Connection<P: Peer> {
    peer: P,
    instance: u8,
    carrier: Carrier<P::Stream>,
    doubted: bool,
}

/// What carries the link.
enum Carrier<S> {
    /// Fragments over GATT, after this `Info`.
    Gatt(Vec<u8>),
    L2cap(L2capChannel<S>),
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) struct Unmade {
    pub(super) error: RadioError,
    /// A channel of L2CAP could not be opened; that may be why.
    pub(super) doubted: bool,
}

impl From<RadioError> for Unmade {
    fn from(error: RadioError) -> Self {
        Self { error, doubted: false }
    }
}

/// How the carrying of a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Carried {
    /// A channel of L2CAP could not be opened, or was not what it should be.
    pub(super) doubted: bool,
    /// A channel of L2CAP carried it.
    pub(super) over_l2cap: bool,
}

/// Who gets the phone's messages.
pub(super) trait Recipient: Send {
    /// A whole link message.
    fn message(&mut self, message: Vec<u8>) -> LinkStep;
    /// A part of one, in either direction, got through.
    fn progress(&mut self) {}
    /// The phone's app may be gone.
    fn suspect(&mut self) {}
}

impl<P: Peer> Connection<P> {
    /// Connects, and takes the first instance of the service that is free.
    ///
    /// - `l2cap`: whether a channel of L2CAP may be opened, if the phone offers it.
    pub(super) async fn make<C: Central<Peer = P>>(
        central: &C,
        address: &C::Address,
        l2cap: bool,
    ) -> Result<Self, Unmade> {
        let begun = Instant::now();
        let peer = match limited(CONNECT_LIMIT, "connecting", central.connect(address)).await {
            Ok(peer) => peer,
            Err(error) => {
                let _ = timeout(DISCONNECT_LIMIT, central.forget(address)).await;
                return Err(error.into());
            }
        };
        let found = begun.elapsed();
        match Self::claim(peer, l2cap).await {
            Ok(connection) => {
                let over = connection.transport();
                tracing::debug!(?found, ready = ?begun.elapsed(), ?over, "connected to a phone");
                Ok(connection)
            }
            Err((mut peer, error)) => {
                end(&mut peer).await;
                Err(error)
            }
        }
    }

    async fn claim(mut peer: P, l2cap: bool) -> Result<Self, (P, Unmade)> {
        let mut refused = RadioError::NoInstance;
        for instance in peer.instances() {
            match read_info(&mut peer, instance).await {
                Ok(info) => {
                    return match Self::choose(&mut peer, instance, info, l2cap).await {
                        Ok((carrier, doubted)) => Ok(Self { peer, instance, carrier, doubted }),
                        Err(error) => Err((peer, error)),
                    };
                }
                Err(error) => refused = error,
            }
        }
        Err((peer, refused.into()))
    }

    /// A channel of L2CAP if the phone offers one and it opens, else fragments.
    async fn choose(
        peer: &mut P,
        instance: u8,
        mut info: Vec<u8>,
        l2cap: bool,
    ) -> Result<(Carrier<P::Stream>, bool), Unmade> {
        let mut doubted = false;
        if let Some(psm) = gatt::psm(&info).filter(|_| l2cap) {
            match l2cap::open(peer, psm).await {
                Ok(channel) => return Ok((Carrier::L2cap(channel), false)),
                Err(error) => {
                    tracing::debug!(%error, "no channel of L2CAP; GATT does as well");
                    doubted = true;
                    // The phone may have given the first link up meanwhile.
                    info = read_info(peer, instance).await.map_err(|error| Unmade { error, doubted })?;
                }
            }
        }
        let subscribed = limited(OPERATION_LIMIT, "subscribing", peer.subscribe(instance)).await;
        subscribed.map_err(|error| Unmade { error, doubted })?;
        Ok((Carrier::Gatt(info), doubted))
    }

    /// What carries the link, for the status.
    pub(super) fn transport(&self) -> Transport {
        match self.carrier {
            Carrier::Gatt(_) => Transport::Gatt { mtu: u32::try_from(self.peer.mtu()).unwrap_or(u32::MAX) },
            Carrier::L2cap(_) => Transport::L2cap {},
        }
    }

    /// Carries the link until the connection or the link ends, then disconnects.
    pub(super) async fn carry(self, outgoing: mpsc::Receiver<Vec<u8>>, recipient: &mut impl Recipient) -> Carried {
        let Self { mut peer, instance, carrier, doubted } = self;
        let (ended, over_l2cap) = match carrier {
            Carrier::Gatt(info) => {
                (Fragments { peer: &mut peer, instance }.exchange(&info, outgoing, recipient).await, false)
            }
            Carrier::L2cap(channel) => (channel.carry(&mut peer, outgoing, recipient).await.map_err(Into::into), true),
        };
        if let Err(error) = &ended {
            tracing::debug!(%error, "a radio link broke");
        }
        end(&mut peer).await;
        // That a channel ends, also in the middle, is what happens to a phone that goes away.
        let broke_rules = matches!(ended, Err(Broken::L2cap(L2capBroken::Rules(_))));
        Carried { doubted: doubted || broke_rules, over_l2cap }
    }
}

async fn read_info(peer: &mut impl Peer, instance: u8) -> Result<Vec<u8>, RadioError> {
    let info = limited(OPERATION_LIMIT, "reading Info", peer.read_info(instance)).await?;
    if gatt::may_be_info(&info) { Ok(info) } else { Err(RadioError::StaleServices) }
}

/// A link that is carried by fragments.
struct Fragments<'a, P> {
    peer: &'a mut P,
    instance: u8,
}

impl<P: Peer> Fragments<'_, P> {
    async fn exchange(
        mut self,
        info: &[u8],
        mut outgoing: mpsc::Receiver<Vec<u8>>,
        recipient: &mut impl Recipient,
    ) -> Result<(), Broken> {
        let clock = Clock;
        let size = FragmentSize::from_mtu(self.peer.mtu());
        let mut fragments = FragmentLayer::new(size, LONGEST_BEFORE_AUTHENTICATION);
        let mut closing: Option<Timestamp> = None;
        let mut step = recipient.message(gatt::info_message(info));
        loop {
            if step == LinkStep::Open {
                fragments.set_limit(LONGEST_MESSAGE);
            } else if step == LinkStep::Closed {
                closing.get_or_insert(clock.now() + FAREWELL);
            }
            self.send(&mut fragments, &mut outgoing, &mut closing).await?;
            if closing.is_some_and(|until| fragments.is_idle() || clock.now() >= until) {
                return Ok(());
            }
            let due = [fragments.poll_timeout(), closing].into_iter().flatten().min();
            let timer = async {
                match due {
                    Some(due) => clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.peer.next() => match event {
                    PeerEvent::Notified(fragment) => {
                        fragments.handle_fragment(&fragment, clock.now())?;
                        recipient.progress();
                        while let Some(message) = fragments.poll_message() {
                            step = recipient.message(message);
                        }
                    }
                    PeerEvent::ServicesChanged => recipient.suspect(),
                    PeerEvent::Gone => return Ok(()),
                },
                message = outgoing.recv(), if fragments.is_idle() && closing.is_none() => match message {
                    Some(message) => fragments.push(message)?,
                    None => closing = Some(clock.now() + FAREWELL),
                },
                () = timer => fragments.handle_timeout(clock.now())?,
            }
        }
    }

    /// Writes what there is, as far as the phone has given credit.
    async fn send(
        &mut self,
        fragments: &mut FragmentLayer,
        outgoing: &mut mpsc::Receiver<Vec<u8>>,
        closing: &mut Option<Timestamp>,
    ) -> Result<(), Broken> {
        loop {
            while let Some(fragment) = fragments.poll_transmit(Clock.now()) {
                limited(OPERATION_LIMIT, "writing", self.peer.write(self.instance, &fragment)).await?;
            }
            if !fragments.is_idle() {
                return Ok(());
            }
            match outgoing.try_recv() {
                Ok(message) => fragments.push(message)?,
                Err(mpsc::error::TryRecvError::Empty) => return Ok(()),
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    closing.get_or_insert(Clock.now() + FAREWELL);
                    return Ok(());
                }
            }
        }
    }
}

/// Why a link that the radio carries cannot go on.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Fragments(#[from] FragmentError),
    #[error(transparent)]
    L2cap(#[from] L2capBroken),
    #[error(transparent)]
    Radio(#[from] RadioError),
}

async fn end(peer: &mut impl Peer) {
    if timeout(DISCONNECT_LIMIT, peer.disconnect()).await.is_err() {
        tracing::debug!("the system does not end a connection");
    }
}

async fn limited<T>(
    limit: Duration,
    what: &'static str,
    work: impl Future<Output = Result<T, RadioError>>,
) -> Result<T, RadioError> {
    timeout(limit, work).await.map_err(|_| RadioError::TimedOut(what))?
}

/// A link over the air for whoever keeps its state elsewhere, such as a pairing.
#[derive(Debug)]
pub(crate) struct Wire {
    /// The phone's messages; the end when the connection is over.
    pub(crate) incoming: mpsc::Receiver<Vec<u8>>,
    /// For messages to the phone.
    pub(crate) outbox: RadioOutbox,
}

/// The far end of a [`Wire`].
pub(super) struct WireEnd {
    incoming: mpsc::Sender<Vec<u8>>,
}

impl Wire {
    /// A wire, its far end, and where the messages to the phone come out.
    pub(super) fn new(transport: Transport) -> (Self, WireEnd, mpsc::Receiver<Vec<u8>>) {
        let (outbox, outgoing) = RadioOutbox::new(transport);
        let (sender, incoming) = mpsc::channel(WIRE);
        (Self { incoming, outbox }, WireEnd { incoming: sender }, outgoing)
    }
}

impl Recipient for WireEnd {
    fn message(&mut self, message: Vec<u8>) -> LinkStep {
        // A pairing has no long messages, and never many that wait.
        match self.incoming.try_send(message) {
            Ok(()) => LinkStep::Early,
            Err(_) => LinkStep::Closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_those_of_section_11_4() {
        let spec = include_str!("../../../../protocol/SPEC.md");
        for (what, limit) in [
            ("last fragments of a link that is over", FAREWELL),
            ("a host waits for the connection and the discovery of services", CONNECT_LIMIT),
            ("a host waits for a read, a subscription, a write", OPERATION_LIMIT),
        ] {
            let row = format!("\n| {what} | {} s |", limit.as_secs_f64());
            assert!(spec.contains(&row), "not in SPEC.md:{row}");
        }
    }
}
