//! A Unix or a TCP stream in two halves.

use std::{io, os::fd::OwnedFd};

use rustix::net::{SendFlags, Shutdown, send, shutdown};
use tokio::{
    io::AsyncReadExt,
    net::{TcpStream, UnixStream, unix::pipe},
};

pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    /// # Errors
    /// If the system has no descriptor left for the second half.
    pub(super) fn into_split(self) -> io::Result<(ReadHalf, WriteHalf)> {
        let socket: OwnedFd = match self {
            Self::Unix(stream) => stream.into_std()?.into(),
            Self::Tcp(stream) => stream.into_std()?.into(),
        };
        let write = WriteHalf(socket.try_clone()?);
        Ok((ReadHalf(pipe::Receiver::from_owned_fd_unchecked(socket)?), write))
    }
}

/// The half that reads.
///
/// tokio's sockets are told of both directions, and "writable again" comes each time the host takes a message out of the
/// socket: a second wake-up for every APDU. The reading end of a pipe, which tokio takes any descriptor for, is told of
/// what can be read alone.
pub(super) struct ReadHalf(pipe::Receiver);

impl ReadHalf {
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).await
    }
}

/// The half that writes.
pub(super) struct WriteHalf(OwnedFd);

impl WriteHalf {
    /// Writes what the socket takes at once.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match send(&self.0, bytes, SEND_FLAGS) {
                Err(rustix::io::Errno::INTR) => {}
                other => return other.map_err(Into::into),
            }
        }
    }

    /// Comes back when the socket takes more. It is watched only while somebody waits here.
    pub(super) async fn writable(&self) -> io::Result<()> {
        pipe::Sender::from_owned_fd_unchecked(self.0.try_clone()?)?.writable().await
    }

    /// Ends the stream after what was written.
    pub(super) fn finish(&self) {
        let _ = shutdown(&self.0, Shutdown::Write);
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
const SEND_FLAGS: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT;
