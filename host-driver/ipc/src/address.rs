//! Addresses of stream links: where a phone listens and the daemon dials.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where a phone that is reached by a stream listens: `unix:/path` or `tcp:127.0.0.1:port`.
///
/// Only loopback addresses parse as `tcp:`. The link is encrypted end to end, but a port that other machines reach
/// would hand them an oracle for nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A unix stream socket, by absolute path.
    Unix(PathBuf),
    /// TCP on the loopback interface.
    Tcp(SocketAddr),
}

/// Why a text is not an [`Address`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Neither `unix:` nor `tcp:`.
    #[error("an address starts with `unix:` or `tcp:`, for example `unix:/run/phone.sock` or `tcp:127.0.0.1:7816`")]
    Scheme,
    /// The path is relative, empty, or too long for a socket address.
    #[error("the path of a unix address is absolute and at most {} bytes long", Address::MAX_PATH)]
    Path,
    /// Not `IP:PORT`.
    #[error("a tcp address is IP:PORT with a port from 1 to 65535, for example `tcp:127.0.0.1:7816`")]
    Socket,
    /// An address that other machines can reach.
    #[error("a tcp address must be on the loopback interface, for example `tcp:127.0.0.1:7816`")]
    NotLoopback,
}

impl Address {
    /// Longest path that fits into `sockaddr_un` on every platform (macOS has the shortest).
    pub const MAX_PATH: usize = 103;

    /// The path, if this is a unix socket.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Tcp(_) => None,
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let valid = path.starts_with('/') && path.len() <= Self::MAX_PATH && !path.contains('\0');
            return if valid { Ok(Self::Unix(PathBuf::from(path))) } else { Err(AddressError::Path) };
        }
        let Some(socket) = text.strip_prefix("tcp:") else { return Err(AddressError::Scheme) };
        let socket: SocketAddr = socket.parse().map_err(|_| AddressError::Socket)?;
        if socket.port() == 0 {
            return Err(AddressError::Socket);
        }
        let loopback = match socket.ip() {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_loopback(),
        };
        if loopback { Ok(Self::Tcp(socket)) } else { Err(AddressError::NotLoopback) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(socket) => write!(f, "tcp:{socket}"),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_that_are_refused() {
        for (text, error) in [
            ("", AddressError::Scheme),
            ("/run/phone", AddressError::Scheme),
            ("unix:run/phone", AddressError::Path),
            ("unix:", AddressError::Path),
            ("tcp:127.0.0.1", AddressError::Socket),
            ("tcp:127.0.0.1:0", AddressError::Socket),
            ("tcp:localhost:80", AddressError::Socket),
            ("tcp:0.0.0.0:80", AddressError::NotLoopback),
            ("tcp:192.0.2.1:80", AddressError::NotLoopback),
            ("tcp:[::]:80", AddressError::NotLoopback),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
        }
        assert_eq!(format!("unix:/{}", "x".repeat(103)).parse::<Address>(), Err(AddressError::Path));
    }

    #[test]
    fn addresses_that_are_accepted() {
        for text in ["unix:/run/phone.sock", "tcp:127.0.0.1:7816", "tcp:[::1]:7816"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in ".{0,200}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
            }
        }
    }
}
