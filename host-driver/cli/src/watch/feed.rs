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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::Path;
    use std::sync::mpsc;
    use std::time::Instant;

    use pocketcard_ipc::control::{Limits, encode};

    use super::*;
    use crate::fixtures;

    const SOON: Duration = Duration::from_secs(10);

    /// One connection to a daemon that says this, and then nothing.
    fn serve(listener: &UnixListener, said: &[Reply]) -> UnixStream {
        let (mut stream, _) = listener.accept().unwrap();
        let hello = Reply::Hello { version: pocketcard_ipc::VERSION, software: String::new() };
        for reply in [hello, Reply::Status(fixtures::status())].iter().chain(said) {
            stream.write_all(&encode(reply).unwrap()).unwrap();
        }
        stream
    }

    fn connect(path: &Path) -> Result<Client, Failure> {
        Ok(Client::connect(path, "test", Limits { answer: SOON })?)
    }

    #[test]
    fn a_daemon_that_comes_back_is_found_and_lost_events_make_it_begin_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let (sender, inputs) = mpsc::channel();
        let dialled = path.clone();
        thread::spawn(move || run(|| connect(&dialled), &sender));
        let next = || match inputs.recv_timeout(SOON + RETRY.1).unwrap() {
            Input::Daemon(told) => told,
            other => panic!("{other:?}"),
        };
        let begin = Instant::now();
        for _ in 0..3 {
            assert!(matches!(next(), Told::Away(Failure::Control(ClientError::NotRunning { .. }))));
        }
        assert!(begin.elapsed() >= RETRY.0 * 3, "it pauses between two attempts, and longer each time");
        let listener = UnixListener::bind(&path).unwrap();
        // What lies behind the lost events is never read from that connection.
        let old = Reply::Event(Event::CardAbsent { slot: 0 });
        let mut first = serve(&listener, &[Reply::Event(Event::Lagged {}), old]);
        let second = serve(&listener, &[Reply::Event(Event::CardPresent { slot: 0 })]);
        while matches!(inputs.recv_timeout(SOON).unwrap(), Input::Daemon(Told::Away(_))) {}
        assert!(matches!(next(), Told::Event(Event::Lagged {})));
        assert!(matches!(next(), Told::Status(_)));
        assert!(matches!(next(), Told::Event(Event::CardPresent { slot: 0 })));
        first.read_to_end(&mut Vec::new()).unwrap();
        drop(second);
        assert!(matches!(next(), Told::Away(Failure::Control(ClientError::Closed))));
    }
}
