//! A Unix or a TCP stream.

use std::io;

use rustix::net::{Shutdown, shutdown};
use tokio::{
    io::AsyncReadExt,
    net::{TcpStream, UnixStream, tcp, unix},
};

pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    pub(super) fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Unix(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Unix(read), WriteHalf::Unix(write))
            }
            Self::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
        }
    }
}

pub(super) enum ReadHalf {
    Unix(unix::OwnedReadHalf),
    Tcp(tcp::OwnedReadHalf),
}

impl ReadHalf {
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(half) => half.read(buffer).await,
            Self::Tcp(half) => half.read(buffer).await,
        }
    }
}

pub(super) enum WriteHalf {
    Unix(unix::OwnedWriteHalf),
    Tcp(tcp::OwnedWriteHalf),
}

impl WriteHalf {
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(half) => half.try_write(bytes),
            Self::Tcp(half) => half.try_write(bytes),
        }
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Unix(half) => half.writable().await,
            Self::Tcp(half) => half.writable().await,
        }
    }

    /// Ends the stream after what was written.
    pub(super) fn finish(&self) {
        let _ = match self {
            Self::Unix(half) => shutdown(half.as_ref(), Shutdown::Write),
            Self::Tcp(half) => shutdown(half.as_ref(), Shutdown::Write),
        };
    }
}
