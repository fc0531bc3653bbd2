use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::line::{LineError, LineReader, encode};
use super::{Failure, Finding, PairMethod, Phone, Reply, Request, Status};
use crate::{Address, Side, VERSION, VersionMismatch, socket};

/// Time limits of a [`Client`].
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For the daemon's answer to one request.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { answer: Duration::from_secs(5) }
    }
}

/// Why a request got no answer, or not the one that was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nothing listens at the path.
    #[error("no daemon listens at {}", path.display())]
    NotRunning {
        /// The path of the control socket.
        path: PathBuf,
    },
    /// The daemon, or the socket's mode, refuses this user.
    #[error("this user may not use {}", path.display())]
    Refused {
        /// The path of the control socket.
        path: PathBuf,
    },
    /// The programs come from different releases.
    #[error("this program speaks version {ours} of the control protocol and the daemon version {theirs}; update {}",
        match update { Side::Ours => "this program", Side::Theirs => "the daemon" })]
    Version {
        /// Version of this program.
        ours: u16,
        /// Version of the daemon.
        theirs: u16,
        /// [`Side::Theirs`] is the daemon.
        update: Side,
    },
    /// No answer within the limit.
    #[error("the daemon did not answer in time")]
    TimedOut,
    /// The daemon went away.
    #[error("the daemon closed the connection")]
    Closed,
    /// The daemon answered something else.
    #[error("the daemon's answer does not fit the request")]
    Unexpected,
    /// The daemon refused the request.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// Reading or writing failed.
    #[error("the control socket failed")]
    Io(#[source] io::Error),
}

impl From<LineError> for ClientError {
    fn from(error: LineError) -> Self {
        match error {
            LineError::Closed => Self::Closed,
            LineError::TooLong | LineError::Malformed => Self::Unexpected,
            LineError::Io(error) => error.into(),
        }
    }
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

/// A blocking connection to the daemon's control socket.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    lines: LineReader,
    limits: Limits,
    software: String,
}

impl Client {
    /// Connects and exchanges versions. `software` is this program's name and version, for the daemon's log.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`], [`ClientError::Refused`], [`ClientError::Version`], or a broken connection.
    pub fn connect(path: &Path, software: &str, limits: Limits) -> Result<Self, ClientError> {
        let stream = socket::connect(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning { path: path.to_owned() }
            }
            io::ErrorKind::PermissionDenied => ClientError::Refused { path: path.to_owned() },
            _ => error.into(),
        })?;
        stream.set_write_timeout(Some(limits.answer))?;
        let mut client = Self { stream, lines: LineReader::new(), limits, software: String::new() };
        let hello = Request::Hello { version: VERSION, software: software.to_owned() };
        // A daemon that refuses this user closes without a word, perhaps before our line is written.
        let refused = |error| match error {
            ClientError::Closed => ClientError::Refused { path: path.to_owned() },
            other => other,
        };
        client.send(&hello).map_err(refused)?;
        match client.receive(Some(limits.answer)).map_err(refused)? {
            Reply::Hello { version, software } => {
                VersionMismatch::check(VERSION, version).map_err(|mismatch| ClientError::Version {
                    ours: mismatch.ours,
                    theirs: mismatch.theirs,
                    update: mismatch.update(),
                })?;
                client.software = software;
                Ok(client)
            }
            Reply::Error(failure) => Err(failure.into()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Name and version of the daemon.
    pub fn daemon_software(&self) -> &str {
        &self.software
    }

    /// Sends one request without waiting for its reply.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`] or [`ClientError::Closed`].
    pub fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        Ok(self.stream.write_all(&encode(request)?)?)
    }

    /// Waits for the next reply; without a limit, until the daemon says something or goes away.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`] or [`ClientError::Closed`]. A [`Reply::Error`] is a reply here.
    pub fn receive(&mut self, limit: Option<Duration>) -> Result<Reply, ClientError> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        let mut source = Deadline { stream: &self.stream, deadline };
        Ok(self.lines.read_from(&mut source)?)
    }

    /// Sends one request and waits for its reply, within [`Limits::answer`].
    ///
    /// # Errors
    /// [`ClientError::Failed`] if the daemon refuses, or a broken connection.
    pub fn request(&mut self, request: &Request) -> Result<Reply, ClientError> {
        self.send(request)?;
        match self.receive(Some(self.limits.answer))? {
            Reply::Error(failure) => Err(failure.into()),
            reply => Ok(reply),
        }
    }

    /// The daemon as a whole.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn status(&mut self) -> Result<Status, ClientError> {
        match self.request(&Request::Status {})? {
            Reply::Status(status) => Ok(status),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Every paired phone.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn phones(&mut self) -> Result<Vec<Phone>, ClientError> {
        match self.request(&Request::Phones {})? {
            Reply::Phones { phones } => Ok(phones),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// What the daemon finds about its own installation.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn doctor(&mut self) -> Result<Vec<Finding>, ClientError> {
        match self.request(&Request::Doctor {})? {
            Reply::Doctor { findings } => Ok(findings),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Deletes a pairing; its link is closed when this returns.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn forget(&mut self, phone: &str) -> Result<(), ClientError> {
        self.done(&Request::Forget { phone: phone.to_owned() })
    }

    /// Gives a phone another name on this computer.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn rename(&mut self, phone: &str, name: &str) -> Result<(), ClientError> {
        self.done(&Request::Rename { phone: phone.to_owned(), name: name.to_owned() })
    }

    /// Gives up what a program waits for.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn cancel(&mut self, phone: Option<String>, slot: Option<u32>) -> Result<(), ClientError> {
        self.done(&Request::Cancel { phone, slot, operation: None })
    }

    /// Gives up what a program waits for if it is this one still.
    ///
    /// - `operation`: as [`super::SlotStatus::operation`].
    ///
    /// # Errors
    /// As [`Client::request`]; [`super::ErrorCode::NothingUnderWay`] if it is over, whatever came after it.
    pub fn cancel_operation(&mut self, operation: u64) -> Result<(), ClientError> {
        self.done(&Request::Cancel { phone: None, slot: None, operation: Some(operation) })
    }

    /// Ends verified PINs, in every slot, and gives up what programs wait for.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn end_pin(&mut self) -> Result<(), ClientError> {
        self.done(&Request::EndPin {})
    }

    /// Begins a pairing and returns the text for the QR code (none with [`PairMethod::Compare`]) and how long it is
    /// valid. Then call [`Client::receive`] for [`Reply::PairDigits`], answer with [`Client::send`] of
    /// [`Request::PairConfirm`], and receive until [`Reply::Paired`] or [`Reply::Error`].
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn pair_start(
        &mut self,
        connect: Option<Address>,
        method: PairMethod,
        slot: Option<u32>,
    ) -> Result<(Option<String>, Duration), ClientError> {
        match self.request(&Request::PairStart { connect, method, slot })? {
            Reply::PairOffer { qr_text, expires_in_s } => Ok((qr_text, Duration::from_secs(expires_in_s))),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Turns the connection into a stream of events; the daemon's status comes first, the events by
    /// [`Client::receive`] without a limit.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn watch(&mut self) -> Result<Status, ClientError> {
        match self.request(&Request::Watch {})? {
            Reply::Status(status) => Ok(status),
            _ => Err(ClientError::Unexpected),
        }
    }

    fn done(&mut self, request: &Request) -> Result<(), ClientError> {
        match self.request(request)? {
            Reply::Done {} => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }
}

/// Reads that all end at one moment, however the peer cuts its bytes.
struct Deadline<'a> {
    stream: &'a UnixStream,
    deadline: Option<Instant>,
}

impl Read for Deadline<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = match self.deadline {
            None => None,
            Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => Some(left),
                _ => return Err(io::ErrorKind::TimedOut.into()),
            },
        };
        self.stream.set_read_timeout(left)?;
        let mut stream = self.stream;
        stream.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;
    use crate::control::ErrorCode;

    fn serve(answer: impl FnOnce(UnixStream) + Send + 'static) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || answer(listener.accept().unwrap().0));
        (folder, path)
    }

    fn limits() -> Limits {
        Limits { answer: Duration::from_millis(200) }
    }

    fn hello(version: u16) -> Vec<u8> {
        encode(&Reply::Hello { version, software: "pocketcardd test".into() }).unwrap()
    }

    #[test]
    fn a_missing_daemon_is_named() {
        let error = Client::connect(Path::new("/nonexistent/control"), "test", limits()).unwrap_err();
        assert!(matches!(error, ClientError::NotRunning { .. }));
        assert!(error.to_string().contains("/nonexistent/control"));
    }

    #[test]
    fn a_daemon_that_closes_at_once_refused_this_user() {
        let (_folder, path) = serve(drop);
        assert!(matches!(Client::connect(&path, "test", limits()), Err(ClientError::Refused { .. })));
    }

    #[test]
    fn a_daemon_that_takes_no_connections_cannot_hold_a_client() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let _listener = UnixListener::bind(&path).unwrap();
        let mut queue = Vec::new();
        while let Ok(stream) = socket::connect(&path) {
            queue.push(stream);
        }
        assert!(matches!(Client::connect(&path, "test", limits()), Err(ClientError::TimedOut)));
    }

    #[test]
    fn a_newer_or_older_daemon_is_told_apart() {
        for (version, update, words) in
            [(VERSION + 1, Side::Ours, "update this program"), (VERSION - 1, Side::Theirs, "update the daemon")]
        {
            let (_folder, path) = serve(move |mut stream| stream.write_all(&hello(version)).unwrap());
            let error = Client::connect(&path, "test", limits()).unwrap_err();
            assert!(error.to_string().ends_with(words), "{error}");
            assert!(matches!(error, ClientError::Version { update: found, .. } if found == update));
        }
    }

    #[test]
    fn a_daemon_that_drips_bytes_cannot_hold_a_client() {
        let (_folder, path) = serve(|mut stream| {
            while stream.write_all(b" ").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        });
        let begin = Instant::now();
        assert!(matches!(Client::connect(&path, "test", limits()), Err(ClientError::TimedOut)));
        assert!(begin.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn a_refused_request_keeps_the_connection() {
        let (_folder, path) = serve(|mut stream| {
            let failure =
                Failure { code: ErrorCode::NoSuchPhone, message: "no phone `x`".into(), advice: Some("list".into()) };
            stream.write_all(&hello(VERSION)).unwrap();
            stream.write_all(&encode(&Reply::Error(failure)).unwrap()).unwrap();
            stream.write_all(&encode(&Reply::Done {}).unwrap()).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let mut client = Client::connect(&path, "test", limits()).unwrap();
        assert_eq!(client.daemon_software(), "pocketcardd test");
        assert!(matches!(client.forget("x"), Err(ClientError::Failed(f)) if f.code == ErrorCode::NoSuchPhone));
        client.rename("a", "b").unwrap();
    }
}
