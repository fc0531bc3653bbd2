//! Byte streams to phones and drivers, written directly and read by one task.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pocketcard_ipc::Address;
use rustix::net::{SendFlags, Shutdown};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::net::{TcpStream, UnixStream};
use zeroize::Zeroize;

use crate::locked;

/// Most bytes that may wait for a peer that does not read.
const QUEUE_LIMIT: usize = 1024 * 1024;

/// For a connection to a phone to be made. Both kinds of address are on this computer, but a listener whose queue is
/// full keeps a TCP connection waiting for minutes.
const DIAL_LIMIT: Duration = Duration::from_secs(5);

/// The half that reads.
///
/// tokio's sockets ask the kernel for news of both directions, and each message that the peer takes out of its socket
/// is news: "writable again". That wakes the daemon once more for every APDU, for nothing. So the socket is given to
/// tokio as the reading end of a pipe, which it takes any descriptor for, and is asked for that direction alone.
#[derive(Debug)]
pub(crate) struct Reader(pipe::Receiver);

/// Connects to a phone, within [`DIAL_LIMIT`].
pub(crate) async fn dial(address: &Address) -> io::Result<(Reader, Outbox)> {
    tokio::time::timeout(DIAL_LIMIT, connect(address)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn connect(address: &Address) -> io::Result<(Reader, Outbox)> {
    match address {
        Address::Unix(path) => split(UnixStream::connect(path).await?),
        Address::Tcp(socket) => {
            let stream = TcpStream::connect(socket).await?;
            stream.set_nodelay(true)?;
            halves(stream.into_std()?.into())
        }
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// The two halves of an accepted connection.
pub(crate) fn split(stream: UnixStream) -> io::Result<(Reader, Outbox)> {
    halves(stream.into_std()?.into())
}

fn halves(socket: OwnedFd) -> io::Result<(Reader, Outbox)> {
    let writer = socket.try_clone()?;
    Ok((Reader(pipe::Receiver::from_owned_fd_unchecked(socket)?), Outbox::new(writer)))
}

impl Reader {
    /// Reads what has arrived; 0 at the end of the stream.
    pub(crate) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).await
    }
}

/// Sends without waiting.
fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match rustix::net::send(socket, bytes, SEND_FLAGS) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map_err(Into::into),
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
const SEND_FLAGS: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT;

/// The half that writes, from any task. A message leaves in one system call as long as the peer reads; only what the
/// socket does not take waits in a queue.
#[derive(Debug, Clone)]
pub(crate) struct Outbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    socket: OwnedFd,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    sent: usize,
    /// A task is waiting for the socket.
    flushing: bool,
    /// Close the socket when the queue is empty.
    ending: bool,
    dead: bool,
}

impl Queue {
    fn waiting(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    fn take(&mut self, count: usize) {
        self.sent += count;
        if self.sent >= self.bytes.len() {
            self.wipe();
        }
    }

    fn wipe(&mut self) {
        self.bytes.as_mut_slice().zeroize();
        self.bytes.clear();
        self.sent = 0;
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl Outbox {
    fn new(socket: OwnedFd) -> Self {
        Self(Arc::new(Shared { socket, queue: Mutex::default() }))
    }

    /// Sends a whole message. A peer that is gone, or that reads nothing while a megabyte waits, is cut off; its
    /// reader then comes to the end of the stream.
    pub(crate) fn send(&self, mut bytes: &[u8]) {
        let mut queue = locked(&self.0.queue);
        if queue.dead || queue.ending {
            return;
        }
        if queue.waiting().is_empty() {
            match send(&self.0.socket, bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return self.kill(&mut queue),
            }
        }
        if bytes.is_empty() {
            return;
        }
        if queue.waiting().len() + bytes.len() > QUEUE_LIMIT {
            return self.kill(&mut queue);
        }
        queue.bytes.extend_from_slice(bytes);
        if !queue.flushing {
            queue.flushing = true;
            tokio::spawn(self.clone().flush());
        }
    }

    /// Ends the connection in both directions, after what still waits was sent.
    pub(crate) fn close(&self) {
        let mut queue = locked(&self.0.queue);
        queue.ending = true;
        if queue.waiting().is_empty() {
            self.kill(&mut queue);
        }
    }

    fn kill(&self, queue: &mut Queue) {
        queue.dead = true;
        queue.wipe();
        let _ = rustix::net::shutdown(&self.0.socket, Shutdown::Both);
    }

    async fn flush(self) {
        // The writing direction is watched only while something waits.
        let writable = self.0.socket.try_clone().and_then(pipe::Sender::from_owned_fd_unchecked);
        loop {
            let ready = match &writable {
                Ok(writable) => writable.writable().await.ok().map(|()| writable),
                Err(_) => None,
            };
            let mut queue = locked(&self.0.queue);
            match ready.filter(|_| !queue.dead) {
                None => self.kill(&mut queue),
                Some(writable) => match writable.try_write(queue.waiting()) {
                    Ok(count) => queue.take(count),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => self.kill(&mut queue),
                },
            }
            if queue.waiting().is_empty() {
                queue.flushing = false;
                if queue.ending {
                    self.kill(&mut queue);
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_to_a_slow_reader_arrive_whole_and_in_order() {
        let (near, far) = UnixStream::pair().unwrap();
        let (_reader, outbox) = split(near).unwrap();
        let message: Vec<u8> = (0..700_000u32).map(|number| number.to_le_bytes()[0]).collect();
        for part in message.chunks(70_000) {
            outbox.send(part);
        }
        outbox.close();
        let (mut reader, _far) = split(far).unwrap();
        let mut seen = Vec::new();
        let mut buffer = vec![0; 9000];
        loop {
            match reader.read(&mut buffer).await.unwrap() {
                0 => break,
                count => seen.extend_from_slice(&buffer[..count]),
            }
        }
        assert!(seen == message);
    }

    #[tokio::test]
    async fn a_peer_that_never_reads_is_cut_off() {
        let (near, _far) = UnixStream::pair().unwrap();
        let (mut reader, outbox) = split(near).unwrap();
        for _ in 0..40 {
            outbox.send(&[7; 60_000]);
        }
        assert_eq!(reader.read(&mut [0; 16]).await.unwrap(), 0, "our own reader comes to the end");
    }

    #[tokio::test]
    async fn a_phone_that_accepts_nobody_is_given_up() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        // The queue takes one.
        let _first = dial(&address).await.unwrap();
        tokio::time::pause();
        let begin = tokio::time::Instant::now();
        assert_eq!(dial(&address).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(begin.elapsed().as_secs(), DIAL_LIMIT.as_secs());
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_does_no_harm() {
        let (near, far) = UnixStream::pair().unwrap();
        let (mut reader, outbox) = split(near).unwrap();
        drop(far);
        outbox.send(&[1]);
        outbox.send(&[2]);
        outbox.close();
        assert_eq!(reader.read(&mut [0; 16]).await.unwrap(), 0);
    }
}
