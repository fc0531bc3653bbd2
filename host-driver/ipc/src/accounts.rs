//! Users and groups of this computer, by name.
//!
//! Read from `/etc/passwd` and `/etc/group`, where the package creates its own. Users from a directory service are not
//! seen; name them by number in the daemon's configuration.

use std::fs;

/// Number of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UserId(pub u32);

/// Number of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupId(pub u32);

impl UserId {
    /// The superuser.
    pub const ROOT: Self = Self(0);

    /// The effective user of this process.
    pub fn own() -> Self {
        Self(rustix::process::geteuid().as_raw())
    }
}

#[derive(Debug)]
struct User {
    name: String,
    id: UserId,
    group: GroupId,
}

#[derive(Debug)]
struct Group {
    name: String,
    id: GroupId,
    members: Vec<String>,
}

/// A snapshot of the account files.
#[derive(Debug)]
pub struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

impl Accounts {
    /// Reads the files. A missing file has no accounts: nobody is let in by name then.
    pub fn load() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/etc/passwd"), &read("/etc/group"))
    }

    /// Reads texts in the format of passwd(5) and group(5); lines that do not fit are skipped.
    pub fn parse(passwd: &str, group: &str) -> Self {
        let user = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let id = UserId(fields.nth(1)?.parse().ok()?);
            let group = GroupId(fields.next()?.parse().ok()?);
            Some(User { name, id, group })
        };
        let group_entry = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let id = GroupId(fields.nth(1)?.parse().ok()?);
            let members = fields.next()?.split(',').map(|name| name.trim().to_owned()).collect();
            Some(Group { name, id, members })
        };
        Self {
            users: passwd.lines().filter_map(user).collect(),
            groups: group.lines().filter_map(group_entry).collect(),
        }
    }

    /// The user of that name.
    pub fn user(&self, name: &str) -> Option<UserId> {
        self.users.iter().find(|user| user.name == name).map(|user| user.id)
    }

    /// The group of that name with everybody in it, primary members included.
    pub fn group(&self, name: &str) -> Option<(GroupId, Vec<UserId>)> {
        let group = self.groups.iter().find(|group| group.name == name)?;
        let member = |user: &&User| user.group == group.id || group.members.contains(&user.name);
        Some((group.id, self.users.iter().filter(member).map(|user| user.id).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_name() {
        let accounts = Accounts::parse(
            "root:x:0:0:root:/root:/bin/bash\n# comment\nbroken:x:notanumber:0\nann:x:1000:50::/home/ann:/bin/sh\n\
             bob:x:1001:1001::/home/bob:/bin/sh\n",
            "root:x:0:\nstaff:x:50:bob, root\nempty:x:60:\nbroken\n",
        );
        assert_eq!(accounts.user("ann"), Some(UserId(1000)));
        assert_eq!(accounts.user("broken"), None);
        let (id, members) = accounts.group("staff").unwrap();
        assert_eq!(id, GroupId(50));
        assert_eq!(members, [UserId(0), UserId(1000), UserId(1001)]);
        assert_eq!(accounts.group("empty"), Some((GroupId(60), Vec::new())));
        assert_eq!(accounts.group("missing"), None);
    }

    #[test]
    fn this_computer_has_root() {
        assert_eq!(Accounts::load().user("root"), Some(UserId::ROOT));
    }
}
