//! Connecting to a unix socket without ever waiting for it.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

/// Connects at once or not at all: a program whose queue is full counts as away (`WouldBlock`), where a plain `connect`
/// would wait for it without a limit. The stream itself blocks, is closed on exec, and raises no SIGPIPE on a Mac; send
/// with `MSG_NOSIGNAL` elsewhere.
///
/// # Errors
/// What the kernel says.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let socket = socket()?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    #[cfg(target_vendor = "apple")]
    rustix::net::sockopt::set_socket_nosigpipe(&socket, true)?;
    rustix::net::connect(&socket, &address)?;
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(UnixStream::from(socket))
}

/// Another thread of pcscd may run a program at any moment: no window in which it would inherit the socket.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn socket() -> rustix::io::Result<std::os::fd::OwnedFd> {
    use rustix::net::SocketFlags;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn socket() -> rustix::io::Result<std::os::fd::OwnedFd> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_program_that_takes_no_connections_is_away_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        let listener = UnixListener::bind(&path).unwrap();
        let mut waiting = Vec::new();
        // More than any queue takes; a connect that waits would hang here.
        let error = loop {
            match connect(&path) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
            assert!(waiting.len() < 100_000);
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let flags = rustix::io::fcntl_getfd(waiting.first().unwrap()).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        drop(listener);
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
