//! One connection to the daemon: found, checked, greeted, with a limit on every wait.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use pocketcard_ipc::accounts::Accounts;
use pocketcard_ipc::driver::{DeviceName, FrameBuffer, FrameError, MessageError, Reply, Request, Role, Trust, Verdict};
use pocketcard_ipc::peer::{Door, Peer};
use pocketcard_ipc::{Side, VERSION, VersionMismatch};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType};
use zeroize::Zeroize;

/// How long the daemon may take to greet. It answers from memory.
pub(crate) const HELLO_LIMIT: Duration = Duration::from_millis(500);

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
    read_limit: Option<Duration>,
}

impl Connection {
    /// Connects to the daemon, checks who it is, and greets it. Takes [`HELLO_LIMIT`] at most.
    pub(crate) fn open(name: &DeviceName, role: Role, slot: u32) -> Result<Self, ConnectionError> {
        let stream = connect(name)?;
        let peer = Peer::of(&stream)?;
        let door = match name.trust() {
            Trust::OwnUser => Door::own_user(),
            Trust::System => Door::system(&Accounts::load(), &[DAEMON_USER], None),
        };
        if !door.admits(&peer) {
            return Err(ConnectionError::Stranger { user: peer.user.0 });
        }
        stream.set_write_timeout(Some(HELLO_LIMIT))?;
        let mut connection = Self { stream, incoming: FrameBuffer::new(), outgoing: Vec::new(), read_limit: None };
        connection.send(&Request::hello(role, slot))?;
        match connection.receive(HELLO_LIMIT)? {
            Reply::Hello { version, .. } if version != VERSION => {
                let mismatch = VersionMismatch { ours: VERSION, theirs: version };
                Err(ConnectionError::Version { ours: VERSION, theirs: version, update: mismatch.update() })
            }
            Reply::Hello { verdict: Verdict::Accepted, .. } => Ok(connection),
            Reply::Hello { verdict: Verdict::NoSuchSlot, .. } => Err(ConnectionError::NoSuchSlot { slot }),
            _ => Err(ConnectionError::Protocol),
        }
    }

    /// Another handle of the same socket, to wait for it or to end it from another thread.
    pub(crate) fn handle(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }

    /// Sends one message in one write.
    pub(crate) fn send(&mut self, request: &Request<'_>) -> Result<(), ConnectionError> {
        request.encode(&mut self.outgoing)?;
        let mut rest = self.outgoing.as_slice();
        while !rest.is_empty() {
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

    /// Waits for one message.
    pub(crate) fn receive(&mut self, limit: Duration) -> Result<Reply<'_>, ConnectionError> {
        if self.read_limit != Some(limit) {
            self.stream.set_read_timeout(Some(limit))?;
            self.read_limit = Some(limit);
        }
        let begin = Instant::now();
        // Polonius would let us return the frame from inside the loop; today it has to be asked for twice.
        while !self.incoming.has_frame()? {
            if begin.elapsed() >= limit {
                return Err(ConnectionError::TimedOut);
            }
            self.fill(RecvFlags::empty())?;
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

    fn fill(&mut self, flags: RecvFlags) -> Result<(), ConnectionError> {
        loop {
            match rustix::net::recv(&self.stream, self.incoming.space(), flags) {
                Ok((_, 0)) => return Err(ConnectionError::Closed),
                Ok((_, count)) => {
                    self.incoming.filled(count);
                    return Ok(());
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Err(ConnectionError::TimedOut),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
const SEND_FLAGS: SendFlags = SendFlags::NOSIGNAL;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SEND_FLAGS: SendFlags = SendFlags::empty();

/// Connects without ever blocking: a daemon whose queue is full counts as away.
fn connect(name: &DeviceName) -> Result<UnixStream, ConnectionError> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    #[cfg(target_vendor = "apple")]
    rustix::net::sockopt::set_socket_nosigpipe(&socket, true)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(name.socket())?)?;
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(UnixStream::from(socket))
}
