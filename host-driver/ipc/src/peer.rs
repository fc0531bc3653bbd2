//! Who is at the other end of a unix socket, and who may be.

use std::io;
use std::os::fd::AsFd;

use crate::accounts::{Accounts, GroupId, UserId};

/// The process at the other end, as the kernel recorded it when it connected or listened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user.
    pub user: UserId,
    /// Its effective group.
    pub group: GroupId,
    /// Its process number; for logs only, since numbers are used again.
    pub process: i32,
}

impl Peer {
    /// Asks the kernel (`SO_PEERCRED`).
    ///
    /// # Errors
    /// What the kernel says; `Unsupported` on a system without that question. Refuse the peer then.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        let credentials = rustix::net::sockopt::socket_peercred(socket)?;
        Ok(Self {
            user: UserId(credentials.uid.as_raw()),
            group: GroupId(credentials.gid.as_raw()),
            process: credentials.pid.as_raw_nonzero().get(),
        })
    }

    /// Asks the kernel (`LOCAL_PEERCRED` by `getpeereid`, and `LOCAL_PEERPID`).
    ///
    /// # Errors
    /// What the kernel says; `Unsupported` on a system without that question. Refuse the peer then.
    #[cfg(target_vendor = "apple")]
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        use nix::sys::socket::{getsockopt, sockopt};

        let (user, group) = nix::unistd::getpeereid(socket)?;
        let process = getsockopt(socket, sockopt::LocalPeerPid)?;
        Ok(Self { user: UserId(user.as_raw()), group: GroupId(group.as_raw()), process })
    }

    /// Asks the kernel.
    ///
    /// # Errors
    /// Always `Unsupported` here. Refuse the peer then.
    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    pub fn of(_socket: &impl AsFd) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Which peers one door lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    users: Vec<UserId>,
    group: Option<(GroupId, Vec<UserId>)>,
}

impl Door {
    /// Only this process's own user, and root if root runs it.
    pub fn own_user() -> Self {
        Self { users: vec![UserId::own()], group: None }
    }

    /// Root, the named users as far as they exist, and members of the named group.
    pub fn system(accounts: &Accounts, users: &[&str], group: Option<&str>) -> Self {
        let named = users.iter().filter_map(|name| accounts.user(name));
        let users = std::iter::once(UserId::ROOT).chain(named).collect();
        Self { users, group: group.and_then(|name| accounts.group(name)) }
    }

    /// The same door, open for further users.
    pub fn and_users(mut self, users: &[u32]) -> Self {
        self.users.extend(users.iter().copied().map(UserId));
        self
    }

    /// Whether the peer may come in.
    pub fn admits(&self, peer: &Peer) -> bool {
        let member = |(group, members): &(GroupId, Vec<UserId>)| peer.group == *group || members.contains(&peer.user);
        self.users.contains(&peer.user) || self.group.as_ref().is_some_and(member)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn peer(user: u32, group: u32) -> Peer {
        Peer { user: UserId(user), group: GroupId(group), process: 1 }
    }

    #[test]
    fn the_system_door_lets_in_root_named_users_and_the_group() {
        let accounts = Accounts::parse(
            "root:x:0:0::/:/bin/sh\npcscd:x:104:110::/:\nann:x:1000:1000::/:\nbob:x:1001:1001::/:\n",
            "root:x:0:\npocketcard:x:200:ann,ghost\n",
        );
        let door = Door::system(&accounts, &["pcscd", "missing"], Some("pocketcard"));
        assert!(door.admits(&peer(0, 0)));
        assert!(door.admits(&peer(104, 110)));
        assert!(door.admits(&peer(1000, 1000)), "a member");
        assert!(door.admits(&peer(1001, 200)), "it is the effective group");
        assert!(!door.admits(&peer(1001, 1001)));
        assert!(!door.admits(&peer(65534, 65534)));
        assert!(Door::system(&accounts, &[], None).and_users(&[1001]).admits(&peer(1001, 1001)));
    }

    #[test]
    fn a_door_without_group_does_not_open_for_group_zero_members() {
        let door = Door::system(&Accounts::parse("", ""), &[], Some("pocketcard"));
        assert!(!door.admits(&peer(1000, 0)));
    }

    #[test]
    fn the_own_door_lets_in_this_process_and_nobody_else() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer_of_pair = Peer::of(&one).unwrap();
        assert!(Door::own_user().admits(&peer_of_pair));
        assert!(!Door::own_user().admits(&peer(UserId::own().0.wrapping_add(1), 0)));
    }
}
