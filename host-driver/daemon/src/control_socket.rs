//! Serves `pocketcard` and other tools.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pocketcard_ipc::VERSION;
use pocketcard_ipc::control::{ErrorCode, Event, Failure, LineError, LineReader, Reply, Request, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::broadcast::error::RecvError;

use crate::hub::Hub;
use crate::listener::Listener;
use crate::{SOFTWARE, doctor, pairing};

/// Connections at once.
const MOST: usize = 32;

/// For a client to say hello, and to take an answer.
const LIMIT: Duration = Duration::from_secs(5);

/// For a client that neither asks nor watches: it would keep its place from others.
const IDLE_LIMIT: Duration = Duration::from_secs(10 * 60);

/// Accepts clients for ever.
pub(crate) async fn serve(hub: Arc<Hub>, listener: Listener) {
    let one = |hub, stream| async move {
        // The one thing to do about a broken connection is to end it.
        let _ = Conversation { stream, lines: LineReader::new() }.run(&hub).await;
    };
    listener.serve(hub, MOST, one).await;
}

/// One client.
#[derive(Debug)]
pub(crate) struct Conversation {
    stream: UnixStream,
    lines: LineReader,
}

impl Conversation {
    async fn run(mut self, hub: &Arc<Hub>) -> Result<(), LineError> {
        if !self.greet().await? {
            return Ok(());
        }
        loop {
            let reply = match self.request().await? {
                Request::Hello { .. } => bad_request("a second hello"),
                Request::Status {} => Reply::Status(hub.status()),
                Request::Phones {} => Reply::Phones { phones: hub.phones() },
                Request::Doctor {} => Reply::Doctor { findings: doctor::findings(hub) },
                Request::Forget { phone } => done(hub.forget(&phone)),
                Request::Rename { phone, name } => done(hub.rename(&phone, &name)),
                Request::Cancel { operation: Some(operation), phone: None, slot: None } => {
                    done(hub.cancel_operation(operation))
                }
                Request::Cancel { operation: Some(_), .. } => bad_request("an operation needs neither phone nor slot"),
                Request::Cancel { phone, slot, operation: None } => done(hub.cancel(phone.as_deref(), slot)),
                Request::EndPin {} => {
                    hub.end_pin();
                    Reply::Done {}
                }
                Request::PairStart { connect, method, slot } => {
                    match pairing::run(hub, &mut self, connect, method, slot).await? {
                        Ok(phone) => Reply::Paired { phone },
                        Err(failure) => Reply::Error(failure),
                    }
                }
                Request::PairConfirm { .. } | Request::PairCancel {} => bad_request("no pairing is under way"),
                Request::Watch {} => return self.watch(hub).await,
                _ => bad_request("unknown request"),
            };
            self.reply(&reply).await?;
        }
    }

    async fn greet(&mut self) -> Result<bool, LineError> {
        let hello = tokio::time::timeout(LIMIT, self.next()).await.map_err(|_| timed_out())?;
        // Both sides learn the other's version, whatever follows.
        self.reply(&Reply::Hello { version: VERSION, software: SOFTWARE.to_owned() }).await?;
        match hello {
            Ok(Request::Hello { version, software }) => {
                tracing::debug!(version, software = software.escape_debug().to_string(), "control client");
                Ok(version == VERSION)
            }
            Ok(_) => {
                self.reply(&bad_request("the first line is a hello")).await?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The next request that is one; others are answered here.
    async fn request(&mut self) -> Result<Request, LineError> {
        loop {
            match tokio::time::timeout(IDLE_LIMIT, self.next()).await.map_err(|_| timed_out())? {
                Err(LineError::Malformed) => self.reply(&bad_request("not a request of this version")).await?,
                other => return other,
            }
        }
    }

    /// The next line. May be dropped and called again: nothing that was read is lost.
    pub(crate) async fn next(&mut self) -> Result<Request, LineError> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(request) = self.lines.next_message()? {
                return Ok(request);
            }
            let count = self.stream.read(&mut chunk).await?;
            if count == 0 {
                return Err(LineError::Closed);
            }
            self.lines.push(chunk.get(..count).unwrap_or_default())?;
        }
    }

    pub(crate) async fn reply(&mut self, reply: &Reply) -> Result<(), LineError> {
        let line = encode(reply)?;
        tokio::time::timeout(LIMIT, self.stream.write_all(&line)).await.map_err(|_| timed_out())??;
        Ok(())
    }

    async fn watch(mut self, hub: &Hub) -> Result<(), LineError> {
        // Subscribed before the status is taken: an event may be told twice, but none is lost.
        let mut events = hub.events.subscribe();
        self.reply(&Reply::Status(hub.status())).await?;
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                // A watcher says nothing more; its end, or whatever it says, is the end.
                _ = self.next() => return Ok(()),
            };
            match event {
                Ok(event) => self.reply(&Reply::Event(event)).await?,
                Err(RecvError::Lagged(_)) => self.reply(&Reply::Event(Event::Lagged {})).await?,
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    }
}

fn timed_out() -> LineError {
    LineError::Io(io::ErrorKind::TimedOut.into())
}

fn done(result: Result<(), Failure>) -> Reply {
    match result {
        Ok(()) => Reply::Done {},
        Err(failure) => Reply::Error(failure),
    }
}

fn bad_request(message: &str) -> Reply {
    Reply::Error(Failure { code: ErrorCode::BadRequest, message: message.to_owned(), advice: None })
}

#[cfg(test)]
mod tests {
    use pocketcard_protocol::link::VersionRange;

    use super::*;
    use crate::config::Config;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_closed_at_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { state_dir: folder.path().to_owned(), ..Config::default() };
        let hub = Hub::new(config, VersionRange::SUPPORTED).unwrap();
        let hello = encode(&Request::Hello { version: VERSION, software: "test".into() }).unwrap();
        for (first, limit) in [(&b""[..], LIMIT), (&hello, IDLE_LIMIT)] {
            let (near, mut far) = UnixStream::pair().unwrap();
            far.write_all(first).await.unwrap();
            let begin = tokio::time::Instant::now();
            let serving = Conversation { stream: near, lines: LineReader::new() }.run(&hub);
            let ended = tokio::time::timeout(limit * 2, serving).await.expect("it is served for ever");
            assert!(matches!(ended, Err(LineError::Io(_))), "{ended:?}");
            assert_eq!(begin.elapsed().as_secs(), limit.as_secs());
        }
    }
}
