use std::time::UNIX_EPOCH;

use pocketcard_phone::runtime::{self, LogResult};

/// Something that was done with the card, or was not. Never what it was done with: no PIN, no input, no result.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct LogEntry {
    /// When it ended, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// The computer that asked for it, or that the owner dealt with; none: the owner, with the card itself.
    pub host_id: Option<String>,
    /// Its name then.
    pub host_name: Option<String>,
    /// What it was. Names do not change between versions: `verify_pin`, `sign`, `pair` and so on.
    pub operation: String,
    /// Reference of the key or secret that it was about.
    pub key: Option<u8>,
    /// How it ended: `done`, `wrong_pin`, `denied`, `key_not_permitted`, `cancelled`, `link_lost`, `failed` and so on.
    pub result: String,
    /// After a wrong PIN: tries that were left to whoever asked.
    pub tries_left: Option<u8>,
    /// Where it failed: the card's status word.
    pub status: Option<u16>,
    /// Whether the owner was asked on the phone.
    pub asked: bool,
}

impl From<runtime::LogEntry> for LogEntry {
    fn from(entry: runtime::LogEntry) -> Self {
        let since = entry.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (tries_left, status) = match entry.result {
            LogResult::WrongPin { tries_left } => (Some(tries_left), None),
            LogResult::Failed { status } => (None, Some(status)),
            _ => (None, None),
        };
        Self {
            at_unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            host_id: entry.host.as_ref().map(|host| host.host.to_string()),
            host_name: entry.host.map(|host| host.name),
            operation: entry.operation.name().to_owned(),
            key: entry.operation.key(),
            result: entry.result.name().to_owned(),
            tries_left,
            status,
            asked: entry.asked,
        }
    }
}
