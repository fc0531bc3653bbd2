//! One connection to the daemon: found, checked, greeted, with a limit on every wait.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use pocketcard_ipc::accounts::Accounts;
use pocketcard_ipc::driver::{DeviceName, FrameBuffer, FrameError, MessageError, Reply, Request, Role, Trust, Verdict};
use pocketcard_ipc::peer::{Door, Peer};
use pocketcard_ipc::{Side, VERSION, VersionMismatch, socket};
use rustix::net::{RecvFlags, SendFlags};
use zeroize::Zeroize;

/// How long the daemon may take to greet. It answers from memory.
pub(crate) const HELLO_LIMIT: Duration = Duration::from_millis(500);

/// How long the daemon may take to take one message in. It always reads, and the longest message fits into the socket.
pub(crate) const SEND_LIMIT: Duration = Duration::from_secs(1);

/// The user that the daemon runs as, besides root.
const DAEMON_USER: &str = "pocketcard";

/// Why there is no connection, or no longer one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the program that listens there runs as user {user}, which is neither root nor `{DAEMON_USER}`")]
    Stranger { user: u32 },
    #[error("driver and daemon come from different releases (version {ours} and {theirs}); update {}",
        match update { Side::Ours => "the driver, then restart pcscd", Side::Theirs => "the daemon" })]
    Version { ours: u16, theirs: u16, update: Side },
    #[error("the daemon has no slot {slot}; make `reader_slots` of its configuration fit the driver's DEVICENAME")]
    NoSuchSlot { slot: u32 },
    #[error("the daemon closed the connection")]
    Closed,
    #[error("the daemon did not answer in time")]
    TimedOut,
    #[error("the daemon sent something that does not belong here")]
    Protocol,
    #[error("the daemon sends faster than the driver reads")]
    Flood,
}

impl From<FrameError> for ConnectionError {
    fn from(_: FrameError) -> Self {
        Self::Protocol
    }
}

impl From<MessageError> for ConnectionError {
    fn from(_: MessageError) -> Self {
        Self::Protocol
    }
}

impl From<rustix::io::Errno> for ConnectionError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Io(error.into())
    }
}

/// A greeted connection with the buffers it uses again and again.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    incoming: FrameBuffer,
    outgoing: Vec<u8>,
    pin_pad: bool,
    /// What the kernel was told last; a command and its answer need not tell it anew.
    read_limit: Option<Duration>,
}

impl Connection {
    /// Connects to the daemon, checks who it is, and greets it. Takes [`HELLO_LIMIT`] at most, if the daemon reads.
    pub(crate) fn open(name: &DeviceName, role: Role, slot: u32) -> Result<Self, ConnectionError> {
        let stream = socket::connect(name.socket())?;
        let peer = Peer::of(&stream)?;
        let door = match name.trust() {
            Trust::OwnUser => Door::own_user(),
            Trust::System => Door::system(&Accounts::load(), &[DAEMON_USER], None),
            Trust::User(user) => Door::system(&Accounts::load(), &[], None).and_users(&[user.0]),
        };
        if !door.admits(&peer) {
            return Err(ConnectionError::Stranger { user: peer.user.0 });
        }
        stream.set_write_timeout(Some(SEND_LIMIT))?;
        let mut connection =
            Self { stream, incoming: FrameBuffer::new(), outgoing: Vec::new(), pin_pad: false, read_limit: None };
        connection.send(&Request::hello(role, slot))?;
        match connection.receive(HELLO_LIMIT)? {
            Reply::Hello { version, .. } if version != VERSION => {
                let mismatch = VersionMismatch { ours: VERSION, theirs: version };
                Err(ConnectionError::Version { ours: VERSION, theirs: version, update: mismatch.update() })
            }
            Reply::Hello { verdict: Verdict::Accepted, pin_pad, .. } => {
                connection.pin_pad = pin_pad;
                Ok(connection)
            }
            Reply::Hello { verdict: Verdict::NoSuchSlot, .. } => Err(ConnectionError::NoSuchSlot { slot }),
            _ => Err(ConnectionError::Protocol),
        }
    }

    /// Whether the daemon has the slot's PINs entered on the phone.
    pub(crate) fn has_pin_pad(&self) -> bool {
        self.pin_pad
    }

    /// Another handle of the same socket, to wait for it or to end it from another thread.
    pub(crate) fn handle(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }

    /// Sends one message in one write. A daemon that takes it in crumbs gets [`SEND_LIMIT`] for all of them, and that
    /// once more for the last.
    pub(crate) fn send(&mut self, request: &Request<'_>) -> Result<(), ConnectionError> {
        request.encode(&mut self.outgoing)?;
        let begin = Instant::now();
        let mut rest = self.outgoing.as_slice();
        while !rest.is_empty() {
            if begin.elapsed() >= SEND_LIMIT {
                return Err(ConnectionError::TimedOut);
            }
            // Not `Write`: a daemon that is gone must not raise SIGPIPE in pcscd.
            match rustix::net::send(&self.stream, rest, SEND_FLAGS) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Err(ConnectionError::TimedOut),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits for one message, `limit` at most, however the daemon cuts its bytes.
    pub(crate) fn receive(&mut self, limit: Duration) -> Result<Reply<'_>, ConnectionError> {
        let begin = Instant::now();
        let mut left = limit;
        // Polonius would let us return the frame from inside the loop; today it has to be asked for twice.
        while !self.incoming.has_frame()? {
            if self.read_limit != Some(left) {
                self.stream.set_read_timeout(Some(left))?;
                self.read_limit = Some(left);
            }
            self.fill(RecvFlags::empty())?;
            left = limit.saturating_sub(begin.elapsed());
            if left.is_zero() && !self.incoming.has_frame()? {
                return Err(ConnectionError::TimedOut);
            }
        }
        let frame = self.incoming.frame()?.ok_or(ConnectionError::Protocol)?;
        Ok(Reply::parse(frame)?)
    }

    /// The next message that has already arrived. Never blocks.
    pub(crate) fn try_receive(&mut self) -> Result<Option<Reply<'_>>, ConnectionError> {
        while !self.incoming.has_frame()? {
            match self.fill(RecvFlags::DONTWAIT) {
                Ok(()) => {}
                Err(ConnectionError::TimedOut) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let frame = self.incoming.frame()?.ok_or(ConnectionError::Protocol)?;
        Ok(Some(Reply::parse(frame)?))
    }

    /// Wipes the last message of either direction.
    pub(crate) fn forget(&mut self) {
        self.outgoing.as_mut_slice().zeroize();
        self.outgoing.clear();
        let _ = self.incoming.space();
    }

    /// Takes in what has arrived. A signal may end it early, with nothing.
    fn fill(&mut self, flags: RecvFlags) -> Result<(), ConnectionError> {
        match rustix::net::recv(&self.stream, self.incoming.space(), flags) {
            Ok((_, 0)) => Err(ConnectionError::Closed),
            Ok((_, count)) => {
                self.incoming.filled(count);
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(rustix::io::Errno::AGAIN) => Err(ConnectionError::TimedOut),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
const SEND_FLAGS: SendFlags = SendFlags::NOSIGNAL;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SEND_FLAGS: SendFlags = SendFlags::empty();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_daemon::{FakeConnection, FakeDaemon};

    const LIMIT: Duration = Duration::from_millis(200);

    /// A daemon that greets and then runs the script.
    fn connected(script: impl Fn(&mut FakeConnection) + Send + 'static) -> (FakeDaemon, Connection) {
        let daemon = FakeDaemon::serve(move |connection| {
            connection.hello();
            script(connection);
        });
        let connection = Connection::open(daemon.name(), Role::Command, 0).unwrap();
        (daemon, connection)
    }

    #[test]
    fn a_daemon_that_drips_bytes_cannot_stretch_a_limit() {
        let (_daemon, mut connection) = connected(|connection| {
            // The head of a long message, then a byte a little before each wait for one would end.
            connection.push_bytes(&[0, 0, 1, 0]);
            while connection.push_bytes(&[0]) {
                std::thread::sleep(LIMIT * 3 / 4);
            }
        });
        let begin = Instant::now();
        assert!(matches!(connection.receive(LIMIT), Err(ConnectionError::TimedOut)));
        let elapsed = begin.elapsed();
        assert!(elapsed >= LIMIT && elapsed < LIMIT * 3 / 2, "{elapsed:?}");
    }

    /// Only root can listen as another user; elsewhere nothing is tested here.
    #[cfg(target_os = "linux")]
    #[test]
    fn another_users_process_in_the_daemons_place_is_a_stranger() {
        use std::os::unix::net::UnixListener;

        use pocketcard_ipc::accounts::UserId;

        const NOBODY: u32 = 65_534;
        if UserId::own() != UserId::ROOT {
            eprintln!("skipped: needs root, to listen as another user");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        for trust in [Trust::OwnUser, Trust::System] {
            let path = folder.path().join(format!("{trust:?}"));
            let listener = UnixListener::bind(&path).unwrap();
            // The kernel records who listens; a thread of Linux has a user of its own.
            let listener = std::thread::spawn(move || {
                rustix::thread::set_thread_uid(rustix::fs::Uid::from_raw(NOBODY)).unwrap();
                rustix::net::listen(&listener, 1).unwrap();
                listener
            });
            let _listener = listener.join().unwrap();
            let name = DeviceName::new(&path, 1, trust).unwrap();
            let answer = Connection::open(&name, Role::Command, 0).map(|_| ());
            assert!(matches!(answer, Err(ConnectionError::Stranger { user: NOBODY })), "{answer:?}");
        }
    }

    #[test]
    fn a_daemon_that_greets_slowly_is_given_up() {
        let daemon = FakeDaemon::serve(|connection| {
            connection.request();
            connection.step();
        });
        let begin = Instant::now();
        assert!(matches!(Connection::open(daemon.name(), Role::Events, 0), Err(ConnectionError::TimedOut)));
        let elapsed = begin.elapsed();
        assert!(elapsed >= HELLO_LIMIT && elapsed < HELLO_LIMIT * 3, "{elapsed:?}");
    }

    #[test]
    fn a_daemon_that_does_not_read_cannot_hold_a_sender() {
        let (_daemon, mut connection) = connected(FakeConnection::step);
        let command = vec![0; pocketcard_ipc::driver::MAX_APDU];
        let begin = Instant::now();
        while connection.send(&Request::Transmit { apdu: &command }).is_ok() {
            assert!(begin.elapsed() < Duration::from_secs(10));
        }
        assert!(begin.elapsed() < SEND_LIMIT * 4);
    }

    #[test]
    fn a_length_that_no_message_has_ends_the_connection_at_once() {
        for head in [[0xFF; 4], [0, 1, 0x7F, 0xFF], [0; 4]] {
            let (_daemon, mut connection) = connected(move |connection| {
                connection.push_bytes(&head);
                connection.step();
            });
            let begin = Instant::now();
            assert!(matches!(connection.receive(Duration::from_secs(10)), Err(ConnectionError::Protocol)));
            assert!(begin.elapsed() < Duration::from_secs(5));
        }
    }

    #[test]
    fn a_daemon_that_closes_in_the_middle_of_a_message_is_gone() {
        let (daemon, mut connection) = connected(|connection| {
            connection.push_bytes(&[0, 0, 0, 9, 0x83]);
        });
        assert!(matches!(connection.receive(Duration::from_secs(10)), Err(ConnectionError::Closed)));
        daemon.wait_closed(1);
        // Twice, since the first may still reach the socket's buffer: neither raises SIGPIPE.
        let answers = [(); 2].map(|()| connection.send(&Request::hello(Role::Command, 0)).is_err());
        assert!(answers.contains(&true));
    }
}
