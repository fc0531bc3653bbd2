//! Serves the reader driver.

use std::sync::Arc;
use std::time::Duration;

use pocketcard_ipc::VERSION;
use pocketcard_ipc::control::PinPlace;
use pocketcard_ipc::driver::{FrameBuffer, Reply, Request, Role, Verdict};
use tokio::net::UnixStream;

use crate::hub::Hub;
use crate::listener::Listener;
use crate::slot::Slot;
use crate::stream::{Outbox, Reader, split};

/// Connections at once: two for each slot, and as many again while a restarted pcscd replaces them.
const MOST: usize = 64;

/// For a driver to say hello.
const HELLO_LIMIT: Duration = Duration::from_secs(5);

/// Accepts drivers for ever.
pub(crate) async fn serve(hub: Arc<Hub>, listener: Listener) {
    listener.serve(hub, MOST, |hub, stream| async move { connection(&hub, stream).await }).await;
}

async fn connection(hub: &Hub, stream: UnixStream) {
    let Ok((mut reader, outbox)) = split(stream) else { return };
    let mut buffer = FrameBuffer::new();
    let greeting = tokio::time::timeout(HELLO_LIMIT, fill(&mut reader, &mut buffer)).await;
    if let Ok(true) = greeting
        && let Some((role, slot)) = greet(hub, &mut buffer, &outbox)
    {
        match role {
            Role::Command => {
                let number = slot.command_up(outbox.clone());
                commands(&slot, number, &mut reader, &mut buffer).await;
                slot.command_down(number);
            }
            Role::Events => {
                let number = slot.listener_up(outbox.clone());
                // The driver says nothing more here; whatever it says, or its end, is the end.
                let _ = fill(&mut reader, &mut buffer).await;
                slot.listener_down(number);
            }
        }
    }
    outbox.close();
}

/// Reads until a whole frame is there; `false` at the end of the stream or for a broken frame.
async fn fill(reader: &mut Reader, buffer: &mut FrameBuffer) -> bool {
    loop {
        match buffer.has_frame() {
            Ok(true) => return true,
            Ok(false) => {}
            Err(_) => return false,
        }
        match reader.read(buffer.space()).await {
            Ok(count) if count > 0 => buffer.filled(count),
            _ => return false,
        }
    }
}

fn greet(hub: &Hub, buffer: &mut FrameBuffer, outbox: &Outbox) -> Option<(Role, Arc<Slot>)> {
    let frame = buffer.frame().ok()??;
    let Ok(Request::Hello { version, role, slot }) = Request::parse(frame) else { return None };
    let found = usize::try_from(slot).ok().and_then(|slot| hub.slots.get(slot));
    let verdict = match found {
        _ if version != VERSION => Verdict::Version,
        None => Verdict::NoSuchSlot,
        Some(_) => Verdict::Accepted,
    };
    let mut reply = Vec::new();
    let pin_pad = found.is_some_and(|slot| slot.pin_place == PinPlace::Phone);
    Reply::Hello { version: VERSION, verdict, pin_pad }.encode(&mut reply).ok()?;
    outbox.send(&reply);
    match verdict {
        Verdict::Accepted => found.map(|slot| (role, Arc::clone(slot))),
        Verdict::Version => {
            let update = if version < VERSION { "update the driver and restart pcscd" } else { "update pocketcardd" };
            tracing::error!(driver = version, daemon = VERSION, "driver and daemon differ in version; {update}");
            None
        }
        Verdict::NoSuchSlot => {
            tracing::error!(slot, "the driver's DEVICENAME has more slots than `reader_slots`");
            None
        }
    }
}

async fn commands(slot: &Slot, number: u64, reader: &mut Reader, buffer: &mut FrameBuffer) {
    while fill(reader, buffer).await {
        let Ok(Some(frame)) = buffer.frame() else { return };
        let stays = match Request::parse(frame) {
            Ok(request) => slot.command(number, &request),
            Err(error) => {
                tracing::warn!(slot = slot.number, %error, "closing a driver connection");
                false
            }
        };
        if !stays {
            return;
        }
    }
}
