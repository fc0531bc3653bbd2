//! Channels of L2CAP, which hosts may open in place of fragments.
//!
//! Spec: SPEC.md section 11.3

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bluer::{
    Adapter, Address, AddressType,
    l2cap::{Socket, SocketAddr, Stream, StreamListener},
};
use pocketcard_phone::{
    Clock,
    runtime::{LinkHandle, Phone, PushError, SendOutcome, Transport},
};
use pocketcard_protocol::{
    l2cap::{CHANNELS_LIMIT, L2capError, L2capLayer, Psm, SDU_LIMIT},
    link::{EARLY_MESSAGE_LIMIT, LINK_MESSAGE_LIMIT},
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
    task::JoinSet,
};

use super::{instance::FAREWELL, limited, server::Departures};
use crate::{clock::BootClock, output::Output};

/// How long nobody is let in after accepting failed: the computer has no file descriptor left, which gives no event when it
/// changes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where hosts open channels.
pub(super) struct Channels {
    listener: StreamListener,
    psm: Psm,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ChannelsError {
    #[error("the adapter does not say its address")]
    Address,
    #[error("the system has no number left for channels")]
    Number,
    #[error(transparent)]
    System(#[from] io::Error),
}

impl Channels {
    /// Listens at a number that the system chooses.
    pub(super) async fn listen(adapter: &Adapter) -> Result<Self, ChannelsError> {
        let address = limited(adapter.address()).await.map_err(|_| ChannelsError::Address)?;
        let kind = limited(adapter.address_type()).await.unwrap_or(AddressType::LePublic);
        let socket = Socket::new_stream()?;
        socket.bind(SocketAddr::new(address, kind, 0))?;
        socket.set_recv_mtu(SDU_LIMIT)?;
        let backlog = u32::try_from(CHANNELS_LIMIT).unwrap_or(u32::MAX);
        let listener = socket.listen(backlog)?;
        let number = listener.as_ref().local_addr()?.psm;
        let psm = Psm::new(number).ok_or(ChannelsError::Number)?;
        Ok(Self { listener, psm })
    }

    pub(super) const fn psm(&self) -> Psm {
        self.psm
    }

    /// Serves hosts until it is dropped.
    pub(super) async fn serve(self, phone: Phone, departures: Departures, output: Output) {
        let mut channels = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) if channels.len() < CHANNELS_LIMIT => {
                        // What this host has read over GATT was the way here.
                        departures.tell(peer.addr);
                        channels.spawn(carry(stream, peer.addr, phone.clone(), output.clone()));
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                },
                Some(_) = channels.join_next() => {}
            }
        }
    }
}

async fn carry(stream: Stream, central: Address, phone: Phone, output: Output) {
    let central = central.to_string();
    output.event(&json!({ "event": "radio_link", "up": true, "central": central, "transport": "l2cap" }));
    let shared = Arc::new(Shared::default());
    let link = phone.link_up(Box::new(ChannelTransport(Arc::clone(&shared))));
    // Why a host's link ended is for the host to say.
    let _ = exchange(stream, &shared, &link).await;
    output.event(&json!({ "event": "radio_link", "up": false, "central": central, "transport": "l2cap" }));
}

/// Why a channel ended before the phone was done with it.
#[derive(Debug, thiserror::Error)]
enum Over {
    #[error(transparent)]
    Rules(#[from] L2capError),
    #[error("the host has gone")]
    Gone,
    #[error(transparent)]
    System(#[from] io::Error),
}

/// What comes next on a channel.
enum Next {
    Read(io::Result<usize>),
    Written(io::Result<usize>),
    Pushed(Result<(), PushError>),
    Stirred,
}

/// A message that the phone has no room for yet.
type Pushing<'a> = Pin<Box<dyn Future<Output = Result<(), PushError>> + Send + 'a>>;

/// Carries the link until either side ends it.
async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Shared, link: &LinkHandle) -> Result<(), Over> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut layer = L2capLayer::new(EARLY_MESSAGE_LIMIT);
    let mut sdu = [0; SDU_LIMIT as usize];
    let mut closed = None;
    // The phone takes no more of a host that does not read. Nothing is read then, but what waits for the host goes on, and
    // its time limits hold.
    let mut pushing: Option<Pushing<'_>> = None;
    loop {
        if layer.waiting().is_empty()
            && let Some(message) = shared.state().message.take()
        {
            layer.push(&message, BootClock.now())?;
            link.ready_to_send();
        }
        if shared.state().closed {
            let until = *closed.get_or_insert(BootClock.now() + FAREWELL);
            if layer.waiting().is_empty() || until <= BootClock.now() {
                return Ok(());
            }
        }
        let (waits, reads) = (!layer.waiting().is_empty(), pushing.is_none());
        let pushed = async {
            match &mut pushing {
                Some(pushing) => pushing.await,
                None => std::future::pending().await,
            }
        };
        let due = async {
            match [layer.poll_timeout(), closed].into_iter().flatten().min() {
                Some(due) => BootClock.sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let next = tokio::select! {
            count = reader.read(&mut sdu), if reads => Next::Read(count),
            count = writer.write(layer.waiting()), if waits => Next::Written(count),
            pushed = pushed => Next::Pushed(pushed),
            () = shared.changed.notified() => Next::Stirred,
            () = due => Next::Stirred,
        };
        match next {
            Next::Read(count) => {
                let bytes = sdu.get(..count?).filter(|bytes| !bytes.is_empty()).ok_or(Over::Gone)?;
                layer.handle_bytes(bytes, BootClock.now());
                pushing = take(&mut layer, link).await?;
            }
            Next::Written(count) => layer.written(count?, BootClock.now()),
            Next::Pushed(pushed) => {
                pushed.map_err(|_| Over::Gone)?;
                layer.handle_bytes(&[], BootClock.now());
                pushing = take(&mut layer, link).await?;
            }
            Next::Stirred => layer.handle_timeout(BootClock.now())?,
        }
    }
}

/// Gives the phone the messages that are whole, until it has no room for one.
async fn take<'a>(layer: &mut L2capLayer, link: &'a LinkHandle) -> Result<Option<Pushing<'a>>, Over> {
    loop {
        let authenticated = link.is_authenticated();
        if authenticated {
            layer.set_limit(LINK_MESSAGE_LIMIT);
        }
        let Some(message) = layer.poll_message()? else { return Ok(None) };
        match link.try_push_message(message) {
            Ok(()) => {}
            Err((PushError::Full, message)) => {
                layer.hold();
                return Ok(Some(Box::pin(link.push_message(message))));
            }
            Err(_) => return Err(Over::Gone),
        }
        if !authenticated {
            // Lets the phone handle the message first: it may be the one that allows longer ones.
            tokio::task::yield_now().await;
        }
    }
}

/// Between the phone and the channel.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    message: Option<Vec<u8>>,
    closed: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct ChannelTransport(Arc<Shared>);

impl Transport for ChannelTransport {
    fn send(&mut self, message: &[u8]) -> SendOutcome {
        let mut state = self.0.state();
        if state.closed {
            return SendOutcome::Gone;
        }
        if state.message.is_some() {
            return SendOutcome::WouldBlock;
        }
        state.message = Some(message.to_vec());
        self.0.changed.notify_one();
        SendOutcome::Sent
    }

    fn close(&mut self) {
        self.0.state().closed = true;
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests;
