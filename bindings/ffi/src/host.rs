use std::time::UNIX_EPOCH;

use pocketcard_phone::runtime::HostInfo;

use crate::permissions::Permissions;

/// A paired computer.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Host {
    /// Names the host: 64 hexadecimal digits.
    pub id: String,
    /// The name that the owner sees.
    pub name: String,
    /// When it was paired, in seconds since 1970.
    pub paired_at_unix_s: u64,
    /// Whether it is connected now.
    pub connected: bool,
    /// What it may do.
    pub permissions: Permissions,
}

impl From<HostInfo> for Host {
    fn from(info: HostInfo) -> Self {
        Self {
            id: info.host.to_string(),
            name: info.name,
            paired_at_unix_s: info.paired_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            connected: info.connected,
            permissions: info.permissions.into(),
        }
    }
}
