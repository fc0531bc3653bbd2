//! One host's stream. What the host sends goes to the phone's mailbox; what the phone sends is written at once, by the phone
//! itself, in one call. Only what the socket does not take waits here.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pocketcard_phone::runtime::{LinkHandle, Phone, SendOutcome, Transport};
use pocketcard_protocol::{
    link::{EARLY_MESSAGE_LIMIT, LINK_MESSAGE_LIMIT},
    stream::{self, FrameReader},
};
use tokio::sync::Notify;

use super::stream::{ReadHalf, Stream, WriteHalf};

/// How long a host may take to read the last messages of a link that is over.
const FAREWELL: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Waiting {
    /// Written so far: `bytes[..written]`.
    bytes: Vec<u8>,
    written: usize,
    closed: bool,
}

struct Shared {
    write: WriteHalf,
    waiting: Mutex<Waiting>,
    changed: Notify,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what waits. `true` if nothing waits any more.
    fn flush(&self) -> io::Result<bool> {
        let mut waiting = self.waiting();
        while let Some(rest) = waiting.bytes.get(waiting.written..).filter(|rest| !rest.is_empty()) {
            match self.write.try_write(rest) {
                Ok(count) => waiting.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        waiting.bytes.clear();
        waiting.written = 0;
        Ok(true)
    }

    fn has_waiting(&self) -> bool {
        !self.waiting().bytes.is_empty()
    }

    fn is_closed(&self) -> bool {
        self.waiting().closed
    }
}

struct SocketTransport {
    shared: Arc<Shared>,
    frame: Vec<u8>,
}

impl Transport for SocketTransport {
    fn send(&mut self, message: &[u8]) -> SendOutcome {
        if self.shared.has_waiting() {
            return SendOutcome::WouldBlock;
        }
        self.frame.clear();
        if stream::encode_into(message, &mut self.frame).is_err() {
            return SendOutcome::Gone;
        }
        let written = match self.shared.write.try_write(&self.frame) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return SendOutcome::Gone,
        };
        if let Some(rest) = self.frame.get(written..).filter(|rest| !rest.is_empty()) {
            self.shared.waiting().bytes.extend_from_slice(rest);
            self.shared.changed.notify_one();
        }
        SendOutcome::Sent
    }

    fn close(&mut self) {
        self.shared.waiting().closed = true;
        self.shared.changed.notify_one();
    }
}

/// Carries one link until either side ends it.
pub(super) async fn serve(phone: Phone, stream: Stream) {
    let Ok((read, write)) = stream.into_split() else { return };
    let shared = Arc::new(Shared { write, waiting: Mutex::default(), changed: Notify::new() });
    let link = phone.link_up(Box::new(SocketTransport { shared: Arc::clone(&shared), frame: Vec::new() }));
    tokio::select! {
        () = receive(read, &link) => {}
        () = send(&shared, &link) => {}
    }
}

/// Reads messages until the stream ends or breaks the rules.
async fn receive(mut read: ReadHalf, link: &LinkHandle) {
    let mut frames = FrameReader::new(EARLY_MESSAGE_LIMIT);
    let mut authenticated = false;
    loop {
        match read.read(frames.read_buffer()).await {
            Ok(0) | Err(_) => return,
            Ok(count) => frames.filled(count),
        }
        loop {
            if !authenticated && link.is_authenticated() {
                authenticated = true;
                frames.set_limit(LINK_MESSAGE_LIMIT);
            }
            let message = match frames.next_message() {
                Ok(Some(message)) => message.to_vec(),
                Ok(None) => break,
                Err(_) => return,
            };
            if link.push_message(message).await.is_err() {
                return;
            }
            if !authenticated {
                // Lets the phone handle the message first: it may be the one that allows longer ones.
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Writes what the socket did not take at once. Returns when the phone is done with the link and all is written.
async fn send(shared: &Shared, link: &LinkHandle) {
    loop {
        shared.changed.notified().await;
        let closed = shared.is_closed();
        let written = async {
            while !shared.flush()? {
                shared.write.writable().await?;
            }
            io::Result::Ok(())
        };
        if closed {
            let _ = tokio::time::timeout(FAREWELL, written).await;
            shared.write.finish();
            return;
        }
        if written.await.is_err() {
            return;
        }
        link.ready_to_send();
    }
}
