use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::Address;
use crate::accounts::UserId;

/// The `DEVICENAME` line of the driver's `reader.conf`: `SOCKET:SLOTS`, `SOCKET:SLOTS:dev` or `SOCKET:SLOTS:user=NUMBER`.
///
/// - `SOCKET`: absolute path of the daemon's driver socket, of the characters that pcscd's parser takes,
///   `[A-Za-z0-9=/-._@]`.
/// - `SLOTS`: slots of the reader, 1 to 16. The daemon's `reader_slots` should be the same.
/// - `dev`: a private test environment; the daemon must then run as the driver's own user.
/// - `user`: the number of the user who runs the daemon, where it is no service of the system: on a Mac, whoever is logged in.
///
/// It is the only place that tells the driver where the daemon is: never the environment of a process.
///
/// ```
/// # use pocketcard_ipc::driver::{DeviceName, Trust};
/// let name: DeviceName = "/run/pocketcard/driver.sock:4".parse()?;
/// assert_eq!((name.slots(), name.trust()), (4, Trust::System));
/// # Ok::<(), pocketcard_ipc::driver::DeviceNameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceName {
    socket: PathBuf,
    slots: u8,
    trust: Trust,
}

/// Which user's daemon the driver believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Root or the user `pocketcard`.
    System,
    /// The driver's own user, as in a private test environment.
    OwnUser,
    /// Root or this user, whom root named in the driver's configuration.
    User(UserId),
}

/// Why a text is not a [`DeviceName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceNameError {
    /// Not two or three parts.
    #[error("the device name is SOCKET:SLOTS, for example /run/pocketcard/driver.sock:4")]
    Parts,
    /// The path is relative, too long, or has characters that pcscd's parser does not take.
    #[error("the socket is an absolute path of at most {} characters from A-Z a-z 0-9 = / - . _ @", Address::MAX_PATH)]
    Socket,
    /// Not a number from 1 to 16.
    #[error("the number of slots is 1 to {}", DeviceName::MAX_SLOTS)]
    Slots,
    /// The third part is neither `dev` nor a user.
    #[error("the third part of the device name, if there is one, is `dev` or, for example, `user=501`")]
    Trust,
}

impl DeviceName {
    /// Most slots of one reader: pcscd had at most 16 readers until 2.5.0, and each slot counts as one.
    pub const MAX_SLOTS: u8 = 16;

    /// Puts a device name together.
    ///
    /// # Errors
    /// [`DeviceNameError::Socket`] or [`DeviceNameError::Slots`].
    pub fn new(socket: &Path, slots: u8, trust: Trust) -> Result<Self, DeviceNameError> {
        let text = socket.to_str().ok_or(DeviceNameError::Socket)?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"=/-._@".contains(&byte);
        if !text.starts_with('/') || text.len() > Address::MAX_PATH || !text.bytes().all(allowed) {
            return Err(DeviceNameError::Socket);
        }
        if slots == 0 || slots > Self::MAX_SLOTS {
            return Err(DeviceNameError::Slots);
        }
        Ok(Self { socket: socket.to_owned(), slots, trust })
    }

    /// Path of the daemon's driver socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Slots of the reader.
    pub fn slots(&self) -> u8 {
        self.slots
    }

    /// Which user's daemon to believe.
    pub fn trust(&self) -> Trust {
        self.trust
    }
}

impl FromStr for DeviceName {
    type Err = DeviceNameError;

    fn from_str(text: &str) -> Result<Self, DeviceNameError> {
        let mut parts = text.split(':');
        let (Some(socket), Some(slots), trust, None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(DeviceNameError::Parts);
        };
        let trust = match trust {
            None => Trust::System,
            Some("dev") => Trust::OwnUser,
            Some(other) => {
                let user = other.strip_prefix("user=").and_then(|number| number.parse().ok());
                Trust::User(UserId(user.ok_or(DeviceNameError::Trust)?))
            }
        };
        Self::new(Path::new(socket), slots.parse().map_err(|_| DeviceNameError::Slots)?, trust)
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.socket.display(), self.slots)?;
        match self.trust {
            Trust::System => Ok(()),
            Trust::OwnUser => f.write_str(":dev"),
            Trust::User(UserId(number)) => write!(f, ":user={number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn device_names_that_are_refused() {
        for (text, error) in [
            ("", DeviceNameError::Parts),
            ("/run/driver.sock", DeviceNameError::Parts),
            ("/a:1:dev:x", DeviceNameError::Parts),
            ("run/driver.sock:1", DeviceNameError::Socket),
            ("/run/dri ver.sock:1", DeviceNameError::Socket),
            ("/run/d\"r:1", DeviceNameError::Socket),
            ("/a:0", DeviceNameError::Slots),
            ("/a:17", DeviceNameError::Slots),
            ("/a:", DeviceNameError::Slots),
            ("/a:1:prod", DeviceNameError::Trust),
            ("/a:1:user=", DeviceNameError::Trust),
            ("/a:1:user=ann", DeviceNameError::Trust),
            ("/a:1:user=-1", DeviceNameError::Trust),
        ] {
            assert_eq!(text.parse::<DeviceName>(), Err(error), "{text}");
        }
    }

    #[test]
    fn device_names_that_are_accepted() {
        for text in ["/run/pocketcard/driver.sock:4", "/tmp/x-1.2_3@y=z/d:16:dev", "/a:1:user=501"] {
            assert_eq!(text.parse::<DeviceName>().unwrap().to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "[/:a-z0-9 dev]{0,40}") {
            if let Ok(name) = text.parse::<DeviceName>() {
                prop_assert_eq!(name.to_string().parse::<DeviceName>(), Ok(name));
            }
        }
    }
}
