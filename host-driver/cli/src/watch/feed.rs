//! What the daemon says, also across its restarts.

use std::convert::Infallible;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use pocketcard_ipc::control::{Client, ClientError, Event, Reply, Status};

use super::Input;
use crate::failure::Failure;

/// Before the first attempt to reach a daemon that went away, and before the later ones at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// What came of the daemon.
#[derive(Debug)]
pub(super) enum Told {
    /// It is there; this is all of it.
    Status(Status),
    Event(Event),
    /// It went, or cannot be reached; it is tried again.
    Away(Failure),
}

/// Says what the daemon says, as long as anybody hears it.
pub(super) fn run(connect: impl Fn() -> Result<Client, Failure>, inputs: &Sender<Input>) {
    let say = |told| inputs.send(Input::Daemon(told)).map_err(|_| End::Unheard);
    let mut pause = RETRY.0;
    loop {
        let Err(end) = listen(&connect, |told| {
            pause = RETRY.0;
            say(told)
        });
        let said = match end {
            // What is still to come on this connection may be older than a status that is asked for beside it.
            End::Lagged => continue,
            End::Away(failure) => say(Told::Away(failure)),
            End::Unheard => Err(End::Unheard),
        };
        if said.is_err() {
            return;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(RETRY.1);
    }
}

/// One connection, until it ends.
fn listen(
    connect: impl Fn() -> Result<Client, Failure>,
    mut say: impl FnMut(Told) -> Result<(), End>,
) -> Result<Infallible, End> {
    let mut client = connect()?;
    say(Told::Status(client.watch()?))?;
    loop {
        let Reply::Event(event) = client.receive(None)? else { continue };
        let is_lagged = event == Event::Lagged {};
        say(Told::Event(event))?;
        if is_lagged {
            return Err(End::Lagged);
        }
    }
}

/// Why a connection is left.
enum End {
    Away(Failure),
    /// Events were lost.
    Lagged,
    /// The watcher itself ends.
    Unheard,
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Away(failure)
    }
}

impl From<ClientError> for End {
    fn from(error: ClientError) -> Self {
        Self::Away(error.into())
    }
}
