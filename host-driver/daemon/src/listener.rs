//! The two sockets of the daemon: where they are, and who may come in.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pocketcard_ipc::accounts::Accounts;
use pocketcard_ipc::peer::{Door, Peer};
use rustix::fs::{Gid, chown};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::Config;
use crate::hub::Hub;

/// Before the next attempt to accept when one failed. A connection that waits keeps the socket ready, so without a
/// pause a daemon that is out of file descriptors would spin until another task closes one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often the log tells of refused peers. Every local user can reach the driver's socket, and none may fill the log.
const REFUSAL_INTERVAL: Duration = Duration::from_secs(1);

/// The user that pcscd runs as since 2.4, besides root.
pub(crate) const PCSCD_USER: &str = "pcscd";
/// Whose members may pair, forget and look.
pub(crate) const CONTROL_GROUP: &str = "pocketcard";

/// Which of the two sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Driver,
    Control,
}

impl Gate {
    /// Who may come in. The accounts are read each time: a user who joins the group need not wait for a restart.
    pub(crate) fn door(self, config: &Config) -> Door {
        let users = match self {
            Self::Driver => &config.driver_uids,
            Self::Control => &config.control_uids,
        };
        let door = match (config.dev, self) {
            (true, _) => Door::own_user(),
            (false, Self::Driver) => Door::system(&Accounts::load(), &[PCSCD_USER], None),
            (false, Self::Control) => Door::system(&Accounts::load(), &[], Some(CONTROL_GROUP)),
        };
        door.and_users(users)
    }

    /// The socket's mode. It only keeps honest programs from trying: what decides is who connects.
    fn mode(self, config: &Config) -> u32 {
        match (config.dev, self) {
            (true, _) => 0o600,
            (false, Self::Driver) => 0o666,
            (false, Self::Control) => 0o660,
        }
    }
}

/// A listening socket; its file goes away with it.
#[derive(Debug)]
pub(crate) struct Listener {
    gate: Gate,
    socket: UnixListener,
    path: PathBuf,
    inode: u64,
    refusals: Refusals,
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Another daemon may have put its own socket there.
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Listens. The socket appears under its name only when it is ready, so that whoever waits for it can connect.
    pub(crate) fn bind(gate: Gate, path: &Path, config: &Config) -> io::Result<Self> {
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let fresh = folder.join(format!(".p{}", rustix::process::getpid().as_raw_nonzero()));
        let _ = fs::remove_file(&fresh);
        let socket = StdListener::bind(&fresh).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                io::Error::new(error.kind(), "its folder does not exist; make it, or configure another path")
            }
            _ => error,
        })?;
        let ready = || {
            if gate == Gate::Control && !config.dev {
                let group = Accounts::load().group(CONTROL_GROUP).map(|(group, _)| Gid::from_raw(group.0));
                // Without the group only root may come in, and root needs no mode.
                let _ = chown(&fresh, None, group);
            }
            fs::set_permissions(&fresh, Permissions::from_mode(gate.mode(config)))?;
            may_replace(path)?;
            socket.set_nonblocking(true)?;
            let inode = fs::symlink_metadata(&fresh)?.ino();
            fs::rename(&fresh, path)?;
            Ok(inode)
        };
        match ready() {
            Ok(inode) => {
                let socket = UnixListener::from_std(socket)?;
                Ok(Self { gate, socket, path: path.to_owned(), inode, refusals: Refusals::default() })
            }
            Err(error) => {
                let _ = fs::remove_file(&fresh);
                Err(error)
            }
        }
    }

    /// Serves every peer on a task of its own, `most` at once. Further ones wait outside. Never returns.
    pub(crate) async fn serve<F>(mut self, hub: Arc<Hub>, most: usize, serve_one: impl Fn(Arc<Hub>, UnixStream) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(most));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let stream = self.accept(&hub.config).await;
            let served = serve_one(Arc::clone(&hub), stream);
            tokio::spawn(async move {
                served.await;
                drop(place);
            });
        }
    }

    /// The next peer that may come in. Others are closed without a word.
    async fn accept(&mut self, config: &Config) -> UnixStream {
        loop {
            let stream = match self.socket.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(gate = ?self.gate, %error, "accepting failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let peer = Peer::of(&stream);
            if peer.as_ref().is_ok_and(|peer| self.gate.door(config).admits(peer)) {
                return stream;
            }
            let Some(more) = self.refusals.another() else { continue };
            match peer {
                Ok(peer) => {
                    tracing::warn!(gate = ?self.gate, user = peer.user.0, process = peer.process, more, "refused");
                }
                Err(error) => tracing::warn!(gate = ?self.gate, %error, more, "refused a peer without credentials"),
            }
        }
    }
}

/// Whether a daemon may put its socket there: nothing is there, or a socket that a dead daemon left behind.
fn may_replace(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket is there; move it away"));
    }
    match StdStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another daemon listens there; stop it first")),
    }
}

/// Counts the refused peers that the log does not tell of.
#[derive(Debug, Default)]
struct Refusals {
    told: Option<Instant>,
    untold: u64,
}

impl Refusals {
    /// One more. If it is to be told: how many came since the last that was.
    fn another(&mut self) -> Option<u64> {
        if self.told.is_some_and(|told| told.elapsed() < REFUSAL_INTERVAL) {
            self.untold += 1;
            return None;
        }
        self.told = Some(Instant::now());
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use pocketcard_ipc::accounts::{GroupId, UserId};

    use super::*;

    fn config() -> Config {
        Config { dev: true, ..Config::default() }
    }

    #[test]
    fn the_doors_are_those_of_the_design() {
        let peer = |user| Peer { user: UserId(user), group: GroupId(user), process: 1 };
        let (stranger, guest) = (65_533, 65_532);
        let system = Config { driver_uids: vec![guest], ..Config::default() };
        for gate in [Gate::Driver, Gate::Control] {
            let door = gate.door(&system);
            assert!(door.admits(&peer(0)), "{gate:?}: root");
            assert!(!door.admits(&peer(stranger)), "{gate:?}");
            assert_eq!(door.admits(&peer(guest)), gate == Gate::Driver, "{gate:?}");
            let dev = gate.door(&config());
            assert!(dev.admits(&peer(UserId::own().0)) && !dev.admits(&peer(stranger)), "{gate:?}");
            assert_eq!(gate.mode(&config()), 0o600);
        }
        assert_eq!(Gate::Control.mode(&system) & 0o007, 0, "others cannot even try");
    }

    #[tokio::test]
    async fn a_socket_of_a_living_daemon_or_another_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let left_behind = StdListener::bind(&path).unwrap();
        drop(left_behind);
        let living = Listener::bind(Gate::Driver, &path, &config()).unwrap();
        let second = Listener::bind(Gate::Driver, &path, &config()).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        drop(living);
        assert!(!path.exists());
        fs::write(&path, "a file of somebody's").unwrap();
        let file = Listener::bind(Gate::Driver, &path, &config()).unwrap_err();
        assert_eq!(file.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"a file of somebody's");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the attempts left something behind");
        let nowhere = Listener::bind(Gate::Driver, &folder.path().join("no/socket"), &config()).unwrap_err();
        assert!(nowhere.to_string().contains("make it"), "{nowhere}");
    }

    #[tokio::test(start_paused = true)]
    async fn many_refusals_are_told_once_a_second_with_their_number() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.another(), Some(0));
        for _ in 0..500 {
            assert_eq!(refusals.another(), None);
        }
        tokio::time::advance(REFUSAL_INTERVAL).await;
        assert_eq!(refusals.another(), Some(500));
    }
}
