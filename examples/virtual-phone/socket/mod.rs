//! The phone's socket: link messages as frames on a Unix or TCP stream.

mod connection;
mod stream;

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    net::SocketAddr,
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream as BlockingUnixStream,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use pocketcard_phone::runtime::Phone;
use tokio::net::{TcpListener, UnixListener};

use crate::arguments::Address;
use stream::Stream;

/// How long nobody is let in after accepting failed: the phone, or the computer, has no file descriptor left, which gives no
/// event when it changes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whose programs may connect to a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peers {
    /// This user and root: the system's daemon, too.
    UserAndRoot,
    /// This user alone.
    User,
}

impl Peers {
    const fn admits(self, peer: u32, ours: u32) -> bool {
        peer == ours || matches!(self, Self::UserAndRoot) && peer == 0
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("another program listens on {0} already; end it, or choose another address")]
    InUse(String),
    #[error("{0} is no socket; choose another path")]
    NotASocket(PathBuf),
    #[error("the folder of {0} can be written by other users; put the socket into a folder of your own (mode 0700)")]
    FolderNotPrivate(PathBuf),
    #[error("cannot listen on {address}")]
    Io {
        address: String,
        #[source]
        source: io::Error,
    },
}

enum Socket {
    Unix { listener: UnixListener, path: PathBuf },
    Tcp(TcpListener),
}

/// Listens, and serves every host that connects.
pub(crate) struct Listener {
    socket: Socket,
    address: String,
    peers: Peers,
}

impl Listener {
    /// Makes the socket. One of Unix gets mode 0600 in a folder that nobody else can write; a socket that a killed phone left
    /// behind is replaced.
    pub(crate) async fn bind(address: &Address, peers: Peers) -> Result<Self, ListenError> {
        match address {
            Address::Unix(path) => Self::bind_unix(path, peers),
            Address::Tcp(address) => Self::bind_tcp(*address, peers).await,
        }
    }

    fn bind_unix(path: &Path, peers: Peers) -> Result<Self, ListenError> {
        let address = format!("unix:{}", path.display());
        let failed = |source| ListenError::Io { address: address.clone(), source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
            if folder.metadata().map_err(failed)?.mode() & 0o022 != 0 {
                return Err(ListenError::FolderNotPrivate(path.to_owned()));
            }
        }
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.file_type().is_socket() => {
                if BlockingUnixStream::connect(path).is_ok() {
                    return Err(ListenError::InUse(address));
                }
                fs::remove_file(path).map_err(failed)?;
            }
            Ok(_) => return Err(ListenError::NotASocket(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        // The umask of this process makes the socket 0600 from its first moment; see `main`.
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { socket: Socket::Unix { listener, path: path.to_owned() }, address, peers })
    }

    async fn bind_tcp(address: SocketAddr, peers: Peers) -> Result<Self, ListenError> {
        let wanted = format!("tcp:{address}");
        let listener = TcpListener::bind(address).await.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse(wanted.clone()),
            _ => ListenError::Io { address: wanted.clone(), source },
        })?;
        let address = listener.local_addr().map_err(|source| ListenError::Io { address: wanted, source })?;
        Ok(Self { socket: Socket::Tcp(listener), address: format!("tcp:{address}"), peers })
    }

    /// Where hosts connect, with the port that was chosen.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Serves hosts until it is dropped.
    pub(crate) async fn serve(self, phone: Phone) {
        loop {
            match self.accept().await {
                Ok(Some(stream)) => drop(tokio::spawn(connection::serve(phone.clone(), stream))),
                Ok(None) => {}
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    /// The next host; `None` if the one that came is another user's.
    async fn accept(&self) -> io::Result<Option<Stream>> {
        match &self.socket {
            Socket::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                let peer = stream.peer_cred()?.uid();
                let ours = rustix::process::geteuid().as_raw();
                Ok(self.peers.admits(peer, ours).then(|| Stream::Unix(stream)))
            }
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Some(Stream::Tcp(stream)))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socket::Unix { path, .. } = &self.socket {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn private() -> tempfile::TempDir {
        tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap()
    }

    #[test]
    fn only_a_phone_that_asks_its_owner_lets_root_in() {
        for (peers, peer, admitted) in [
            (Peers::UserAndRoot, 1000, true),
            (Peers::UserAndRoot, 0, true),
            (Peers::UserAndRoot, 1001, false),
            (Peers::User, 1000, true),
            (Peers::User, 0, false),
            (Peers::User, 1001, false),
        ] {
            assert_eq!(peers.admits(peer, 1000), admitted, "{peers:?}, {peer}");
        }
    }

    #[tokio::test]
    async fn a_socket_is_private_and_a_stale_one_is_replaced() {
        let folder = private();
        let path = folder.path().join("phone.sock");
        // A listener that is dropped without removing its socket, as after a kill.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = Listener::bind(&Address::Unix(path.clone()), Peers::User).await.unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        let second = Listener::bind(&Address::Unix(path.clone()), Peers::User).await;
        assert!(matches!(second, Err(ListenError::InUse(_))));
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn other_files_and_open_folders_are_left_alone() {
        let folder = private();
        let path = folder.path().join("letter");
        fs::write(&path, b"x").unwrap();
        assert!(matches!(
            Listener::bind(&Address::Unix(path.clone()), Peers::User).await,
            Err(ListenError::NotASocket(_))
        ));
        assert!(path.exists());
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let open = Listener::bind(&Address::Unix(folder.path().join("x")), Peers::User).await;
        assert!(matches!(open, Err(ListenError::FolderNotPrivate(_))));
    }
}
