//! The two sockets of the daemon: where they are, and who may come in.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};

use pocketcard_ipc::accounts::Accounts;
use pocketcard_ipc::peer::{Door, Peer};
use rustix::fs::{Gid, chown};
use tokio::net::{UnixListener, UnixStream};

use crate::config::Config;

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
        let socket = StdListener::bind(&fresh)?;
        let ready = || {
            if gate == Gate::Control && !config.dev {
                let group = Accounts::load().group(CONTROL_GROUP).map(|(group, _)| Gid::from_raw(group.0));
                // Without the group only root may come in, and root needs no mode.
                let _ = chown(&fresh, None, group);
            }
            fs::set_permissions(&fresh, Permissions::from_mode(gate.mode(config)))?;
            socket.set_nonblocking(true)?;
            let inode = fs::symlink_metadata(&fresh)?.ino();
            fs::rename(&fresh, path)?;
            Ok(inode)
        };
        match ready() {
            Ok(inode) => Ok(Self { gate, socket: UnixListener::from_std(socket)?, path: path.to_owned(), inode }),
            Err(error) => {
                let _ = fs::remove_file(&fresh);
                Err(error)
            }
        }
    }

    /// The next peer that may come in. Others are closed without a word.
    pub(crate) async fn accept(&self, config: &Config) -> UnixStream {
        loop {
            let stream = match self.socket.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(gate = ?self.gate, %error, "accepting failed");
                    // Out of file descriptors, most likely: some have to be closed first.
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            match Peer::of(&stream) {
                Ok(peer) if self.gate.door(config).admits(&peer) => return stream,
                Ok(peer) => {
                    tracing::warn!(gate = ?self.gate, user = peer.user.0, process = peer.process, "refused");
                }
                Err(error) => tracing::warn!(gate = ?self.gate, %error, "refused a peer without credentials"),
            }
        }
    }
}
