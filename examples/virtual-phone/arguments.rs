use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use clap::{Parser, ValueEnum};
use pocketcard_phone::card::ProbePoint;
use pocketcard_protocol::link::VersionRange;

/// A phone on the desktop: a PIV card behind a socket or on Bluetooth, for trying Pocketcard out and for tests.
///
/// Pair it with `pocketcard pair --connect ADDRESS`, where ADDRESS is what --listen says, or with `pocketcard pair` over
/// Bluetooth. Its keys are as safe as the files of
/// this computer, not as those in a phone.
#[derive(Parser, Debug)]
#[command(name = "virtual-phone", version)]
pub(crate) struct Arguments {
    /// Folder of the phone's state; it is the same phone after a restart. Made with mode 0700 if it does not exist.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: PathBuf,

    /// Where hosts connect: unix:PATH, or tcp:127.0.0.1:PORT (loopback only; port 0 chooses one).
    #[arg(long, value_name = "ADDRESS", required_unless_present = "ble")]
    pub(crate) listen: Option<Address>,

    /// Be on Bluetooth LE, by this adapter (such as hci0) or the system's first one. Needs BlueZ, and a program that was built with
    /// the feature `ble`.
    #[arg(long, value_name = "ADAPTER", num_args = 0..=1, default_missing_value = "")]
    pub(crate) ble: Option<String>,

    /// A test card with the well-known PIN 123456, PUK 12345678 and management key, with no keys yet, or with P-256 or RSA-2048 keys
    /// and certificates in 9A, 9C, 9D and 9E. Without this option the card is that of a real phone: it has no PIN until its owner
    /// enrols it, here in the terminal or by script, and answers as blocked.
    #[arg(long, value_enum, value_name = "KEYS")]
    pub(crate) test_card: Option<TestCard>,

    /// Approve every use of a key without asking. For tests: only with a test card, never with keys in hardware. Behind a socket,
    /// only for daemons of this very user, so not for the system's; on Bluetooth, for whoever was paired. PINs are asked for all the
    /// same.
    #[arg(long, requires = "test_card")]
    pub(crate) auto_approve: bool,

    /// Have a stand-in for a sensor of faces or fingers: a prompt that says whether it was the owner. Keys may then be made to ask for
    /// it (PIN policies 4 and 5), and computers may have it asked (VERIFY 96).
    #[arg(long)]
    pub(crate) owner_check: bool,

    /// Speak JSON lines: events on standard output, commands on standard input. Ends with the input.
    #[arg(long)]
    pub(crate) script: bool,

    /// In script mode: report no single commands ({"event":"apdu"}), as when measuring.
    #[arg(long, requires = "script")]
    pub(crate) no_apdu_events: bool,

    /// The phone's name as computers show it.
    #[arg(long, default_value = "Virtual phone")]
    pub(crate) name: String,

    /// Append what happens to this file, a line each. No PIN, no key and no data of commands are written.
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,

    /// Speak made-up versions of the protocol, so that a test sees what happens when versions differ.
    #[arg(long, value_name = "MIN-MAX", value_parser = versions)]
    pub(crate) versions_for_testing_only: Option<VersionRange>,

    /// Block for ever at this point of the card's work, at its first or Nth passing, so that a test can kill the phone there.
    #[arg(long, value_name = "POINT[:N]")]
    pub(crate) probe_stop_for_testing_only: Option<ProbeStop>,

    /// Append a line to this file at every point that a probe can stop at.
    #[arg(long, value_name = "FILE")]
    pub(crate) probe_log_for_testing_only: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TestCard {
    Empty,
    Ec,
    Rsa,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("write unix:PATH or tcp:127.0.0.1:PORT")]
    Kind,
    #[error("the path of the socket is missing after unix:")]
    NoPath,
    #[error("write an IP address and a port after tcp:, such as tcp:127.0.0.1:7390")]
    Tcp,
    #[error("the phone listens on loopback only; use 127.0.0.1 or [::1], or a unix socket")]
    NotLoopback,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.split_once(':') {
            Some(("unix", "")) => Err(AddressError::NoPath),
            Some(("unix", path)) => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) => {
                let address: SocketAddr = address.parse().map_err(|_| AddressError::Tcp)?;
                if address.ip().is_loopback() { Ok(Self::Tcp(address)) } else { Err(AddressError::NotLoopback) }
            }
            _ => Err(AddressError::Kind),
        }
    }
}

fn versions(text: &str) -> Result<VersionRange, &'static str> {
    let (min, max) = text.split_once('-').unwrap_or((text, text));
    let range = min.parse().ok().zip(max.parse().ok());
    range.and_then(|(min, max)| VersionRange::new(min, max)).ok_or("write MIN-MAX, two numbers from 1 to 255")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProbeStop {
    pub(crate) point: ProbePoint,
    /// 1 is the first passing.
    pub(crate) passing: u32,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProbeStopError {
    #[error("no such point; the points are {}", ProbePoint::ALL.map(ProbePoint::name).join(", "))]
    Point,
    #[error("the number after the colon counts from 1")]
    Passing,
}

impl FromStr for ProbeStop {
    type Err = ProbeStopError;

    fn from_str(text: &str) -> Result<Self, ProbeStopError> {
        let (name, passing) = text.split_once(':').unwrap_or((text, "1"));
        let point = ProbePoint::from_name(name).ok_or(ProbeStopError::Point)?;
        let passing = passing.parse().ok().filter(|passing| *passing > 0).ok_or(ProbeStopError::Passing)?;
        Ok(Self { point, passing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_local() {
        let table = [
            ("unix:/run/x", Ok(Address::Unix("/run/x".into()))),
            ("unix:", Err(AddressError::NoPath)),
            ("tcp:127.0.0.1:1", Ok(Address::Tcp("127.0.0.1:1".parse().unwrap()))),
            ("tcp:[::1]:0", Ok(Address::Tcp("[::1]:0".parse().unwrap()))),
            ("tcp:0.0.0.0:1", Err(AddressError::NotLoopback)),
            ("tcp:192.168.1.2:1", Err(AddressError::NotLoopback)),
            ("tcp:localhost:1", Err(AddressError::Tcp)),
            ("/run/x", Err(AddressError::Kind)),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<Address>(), expected, "{text}");
        }
    }

    #[test]
    fn a_probe_stops_at_the_first_passing_unless_told() {
        let stop = |passing| ProbeStop { point: ProbePoint::VerifyReceived, passing };
        assert_eq!("verify-received".parse(), Ok(stop(1)));
        assert_eq!("verify-received:7".parse(), Ok(stop(7)));
        assert_eq!("verify-received:0".parse::<ProbeStop>(), Err(ProbeStopError::Passing));
        assert_eq!("nowhere".parse::<ProbeStop>(), Err(ProbeStopError::Point));
    }
}
