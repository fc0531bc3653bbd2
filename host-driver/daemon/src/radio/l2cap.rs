//! A channel of L2CAP in place of fragments: how it is opened, and how it carries a link.
//!
//! Spec: protocol/SPEC.md section 11.3

use std::io;

use pocketcard_protocol::Timestamp;
use pocketcard_protocol::l2cap::{L2capError, L2capLayer, OPEN_LIMIT, Psm, SDU_LIMIT};
use pocketcard_protocol::stream::{LONGEST_BEFORE_AUTHENTICATION, LONGEST_MESSAGE};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::connection::{FAREWELL, Recipient};
use super::{Peer, PeerEvent};
use crate::Clock;
use crate::radio::RadioError;
use crate::slot::LinkStep;

/// A channel on which the phone has spoken.
pub(super) struct L2capChannel<S> {
    stream: S,
    layer: L2capLayer,
    first: Vec<u8>,
}

/// Why a channel cannot be opened, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum L2capBroken {
    #[error(transparent)]
    Rules(#[from] L2capError),
    #[error("the phone ended the channel in the middle of a message")]
    CutOff,
    #[error("the phone closed the channel before it said anything")]
    Refused,
    #[error(transparent)]
    System(#[from] io::Error),
    #[error(transparent)]
    Radio(#[from] RadioError),
}

/// Opens a channel to a phone that is connected, and waits until it speaks.
///
/// A system may say that a channel is open before it is; only the phone's first message shows it.
pub(super) async fn open<P: Peer>(peer: &mut P, psm: Psm) -> Result<L2capChannel<P::Stream>, L2capBroken> {
    let opening = async {
        let mut stream = peer.open_l2cap(psm).await?;
        let mut layer = L2capLayer::new(LONGEST_BEFORE_AUTHENTICATION);
        let mut sdu = [0; SDU_LIMIT as usize];
        loop {
            let count = stream.read(&mut sdu).await?;
            if count == 0 {
                return Err(L2capBroken::Refused);
            }
            layer.handle_bytes(sdu.get(..count).unwrap_or_default(), Clock.now());
            if let Some(first) = layer.poll_message()? {
                return Ok(L2capChannel { stream, layer, first });
            }
        }
    };
    timeout(OPEN_LIMIT, opening).await.map_err(|_| RadioError::TimedOut("opening a channel of L2CAP"))?
}

/// What comes next on a link.
enum Next {
    Read(io::Result<usize>),
    Written(io::Result<usize>),
    Message(Option<Vec<u8>>),
    Peer(PeerEvent),
    Timer,
}

impl<S: AsyncRead + AsyncWrite + Unpin> L2capChannel<S> {
    /// Carries the link until the connection, the channel or the link ends.
    ///
    /// # Errors
    /// [`L2capBroken`] if the phone stalled, broke a rule or stopped in the middle.
    pub(super) async fn carry(
        self,
        peer: &mut impl Peer,
        mut outgoing: mpsc::Receiver<Vec<u8>>,
        recipient: &mut impl Recipient,
    ) -> Result<(), L2capBroken> {
        let Self { stream, mut layer, first } = self;
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut sdu = [0; SDU_LIMIT as usize];
        let mut closing: Option<Timestamp> = None;
        let mut step = recipient.message(first);
        loop {
            loop {
                match step {
                    LinkStep::Early => {}
                    // Before the next message is taken: it may be longer.
                    LinkStep::Open => layer.set_limit(LONGEST_MESSAGE),
                    LinkStep::Closed => drop(closing.get_or_insert(Clock.now() + FAREWELL)),
                }
                match layer.poll_message()? {
                    Some(message) => step = recipient.message(message),
                    None => break,
                }
            }
            loop {
                match outgoing.try_recv() {
                    Ok(message) => layer.push(&message, Clock.now())?,
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => {
                        closing.get_or_insert(Clock.now() + FAREWELL);
                        break;
                    }
                }
            }
            let waits = !layer.waiting().is_empty();
            if closing.is_some_and(|until| !waits || Clock.now() >= until) {
                return Ok(());
            }
            let due = [layer.poll_timeout(), closing].into_iter().flatten().min();
            let timer = async {
                match due {
                    Some(due) => Clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let next = tokio::select! {
                count = reader.read(&mut sdu) => Next::Read(count),
                count = writer.write(layer.waiting()), if waits => Next::Written(count),
                message = outgoing.recv(), if closing.is_none() => Next::Message(message),
                event = peer.next() => Next::Peer(event),
                () = timer => Next::Timer,
            };
            match next {
                Next::Read(count) => {
                    let bytes = sdu.get(..count?).unwrap_or_default();
                    if bytes.is_empty() {
                        return if layer.is_between_messages() { Ok(()) } else { Err(L2capBroken::CutOff) };
                    }
                    layer.handle_bytes(bytes, Clock.now());
                    recipient.progress();
                }
                Next::Written(count) => {
                    layer.written(count?, Clock.now());
                    recipient.progress();
                }
                Next::Message(Some(message)) => layer.push(&message, Clock.now())?,
                Next::Message(None) => closing = Some(Clock.now() + FAREWELL),
                Next::Peer(PeerEvent::Gone) => return Ok(()),
                Next::Peer(PeerEvent::ServicesChanged) => recipient.suspect(),
                Next::Peer(PeerEvent::Notified(_)) => {}
                Next::Timer => layer.handle_timeout(Clock.now())?,
            }
        }
    }
}
