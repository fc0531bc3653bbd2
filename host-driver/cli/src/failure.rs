//! How the program ends when it could not do what was asked: a message, what to do next, and an exit code.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use pocketcard_dev::DevError;
use pocketcard_ipc::Side;
use pocketcard_ipc::control::{ClientError, ErrorCode};

use crate::login::LoginError;
use crate::watch::WatchError;

/// The exit codes, for `--help`. One line per [`Code`].
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  not done; the message says why
  2  the command line is wrong
  3  the daemon is not running
  4  this user may not do that
  5  two programs come from different releases
  6  the pairing was refused, by a person or because the digits differ
  7  doctor found an error

dev ends with the exit code of its command, or
  125  the environment could not be started
  126  the command could not be run
  127  the command was not found
  128 + N  the command was ended by signal N";

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    NotDone = 1,
    DaemonAway = 3,
    Refused = 4,
    Version = 5,
    PairingRefused = 6,
    DoctorFound = 7,
    EnvironmentFailed = 125,
    CommandFailed = 126,
    CommandNotFound = 127,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Control(#[from] ClientError),
    #[error(transparent)]
    Environment(#[from] DevError),
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error("the pairing was refused")]
    PairingRefused,
    #[error("the phone shows other digits than were given: {shown} here")]
    DigitsDiffer { shown: String },
    #[error("{command} could not be run: {source}")]
    Command { command: String, source: io::Error },
    #[error("{what}: {source}")]
    System { what: &'static str, source: io::Error },
    #[error("the report cannot be written to {}: {source}", file.display())]
    Report { file: PathBuf, source: io::Error },
    #[error("PC/SC: {0}")]
    Pcsc(#[from] pcsc::Error),
    #[error("the code for the phone does not fit the terminal's characters")]
    QrCode(#[from] qrcode::types::QrError),
    #[error("no card came or went within {0} ms")]
    NoCardChange(u64),
    #[error("this is not a terminal, so nobody can answer")]
    NobodyToAsk,
}

impl Failure {
    /// What to do next, if there is something to do.
    pub(crate) fn advice(&self) -> Option<String> {
        let advice = match self {
            Self::Control(error) => return control_advice(error),
            Self::Login(error) => return error.advice(),
            Self::Watch(error) => return error.advice(),
            Self::PairingRefused => "nothing was stored; run `pocketcard pair` again when you are ready",
            Self::DigitsDiffer { .. } => {
                "nothing was stored. Somebody may be between the two: pair again where nobody else can see the code"
            }
            Self::NobodyToAsk => "run it in a terminal, or give the phone's digits with --yes-if-digits",
            Self::Pcsc(pcsc::Error::NoService) => "start pcscd, for example: systemctl start pcscd.socket",
            Self::QrCode(_) => "use the text below the code",
            Self::Report { .. } => "name a file in a folder that is there and that you may write",
            Self::Environment(_) | Self::Command { .. } | Self::System { .. } | Self::Pcsc(_) => return None,
            Self::NoCardChange(_) => return None,
        };
        Some(advice.to_owned())
    }

    /// The exit code.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Control(error) => control_code(error),
            Self::Environment(_) => Code::EnvironmentFailed,
            Self::Login(_) | Self::Watch(_) => Code::NotDone,
            Self::PairingRefused | Self::DigitsDiffer { .. } => Code::PairingRefused,
            Self::Command { source, .. } if source.kind() == io::ErrorKind::NotFound => Code::CommandNotFound,
            Self::Command { .. } => Code::CommandFailed,
            Self::System { .. }
            | Self::Report { .. }
            | Self::Pcsc(_)
            | Self::QrCode(_)
            | Self::NoCardChange(_)
            | Self::NobodyToAsk => Code::NotDone,
        }
    }
}

fn control_code(error: &ClientError) -> Code {
    match error {
        ClientError::NotRunning { .. } | ClientError::Closed => Code::DaemonAway,
        ClientError::Refused { .. } => Code::Refused,
        ClientError::Version { .. } => Code::Version,
        ClientError::Failed(failure) => match failure.code {
            ErrorCode::Version | ErrorCode::PhoneVersion => Code::Version,
            ErrorCode::PairingCancelled => Code::PairingRefused,
            _ => Code::NotDone,
        },
        _ => Code::NotDone,
    }
}

fn control_advice(error: &ClientError) -> Option<String> {
    let advice = match error {
        ClientError::Failed(failure) => return failure.advice.clone(),
        ClientError::NotRunning { .. } => {
            "start it: systemctl start pocketcardd, or pocketcardd --config FILE. To try things without installing: \
             pocketcard dev"
        }
        ClientError::Refused { .. } => {
            "join the group: sudo adduser $USER pocketcard, then log out and in again; or run it as root"
        }
        ClientError::Version { update: Side::Ours, .. } => "install the same release of `pocketcard` as the daemon's",
        ClientError::Version { .. } => "install the new daemon and restart it: systemctl restart pocketcardd",
        ClientError::TimedOut => "look at its log: journalctl -u pocketcardd; `pocketcard doctor` looks further",
        ClientError::Closed => "it may be restarting: try again, then look at its log: journalctl -u pocketcardd",
        ClientError::Unexpected | ClientError::Io(_) => "run `pocketcard doctor`",
        _ => return None,
    };
    Some(advice.to_owned())
}

#[cfg(test)]
mod tests {
    use pocketcard_ipc::control;

    use super::*;

    #[test]
    fn every_failure_has_its_code() {
        let io = |kind| io::Error::from(kind);
        let failed = |code| {
            ClientError::Failed(control::Failure { code, message: String::new(), advice: Some("do it".to_owned()) })
        };
        let path = PathBuf::from("/p");
        let version = ClientError::Version { ours: 1, theirs: 2, update: Side::Ours };
        for (failure, code) in [
            (Failure::from(ClientError::NotRunning { path: path.clone() }), 3),
            (ClientError::Closed.into(), 3),
            (ClientError::Refused { path }.into(), 4),
            (version.into(), 5),
            (ClientError::TimedOut.into(), 1),
            (ClientError::Unexpected.into(), 1),
            (failed(ErrorCode::PhoneVersion).into(), 5),
            (failed(ErrorCode::PairingCancelled).into(), 6),
            (failed(ErrorCode::TableFull).into(), 1),
            (Failure::PairingRefused, 6),
            (Failure::DigitsDiffer { shown: "1".to_owned() }, 6),
            (Failure::Command { command: "x".to_owned(), source: io(io::ErrorKind::NotFound) }, 127),
            (Failure::Command { command: "x".to_owned(), source: io(io::ErrorKind::PermissionDenied) }, 126),
            (Failure::System { what: "x", source: io(io::ErrorKind::Other) }, 1),
            (Failure::Report { file: "/r".into(), source: io(io::ErrorKind::Other) }, 1),
            (DevError::ProgramMissing { program: "pcscd", package: "pcscd" }.into(), 125),
            (pcsc::Error::NoService.into(), 1),
            (WatchError::NoSuchPhone("x".to_owned()).into(), 1),
            (Failure::NoCardChange(1), 1),
            (Failure::NobodyToAsk, 1),
        ] {
            assert_eq!(failure.code() as u8, code, "{failure}");
        }
    }

    #[test]
    fn the_daemons_own_advice_is_passed_on() {
        let failure = control::Failure {
            code: ErrorCode::TableFull,
            message: "every slot has a phone".to_owned(),
            advice: Some("forget one".to_owned()),
        };
        let failure = Failure::from(ClientError::Failed(failure));
        assert_eq!(failure.to_string(), "every slot has a phone");
        assert_eq!(failure.advice().as_deref(), Some("forget one"));
    }

    #[test]
    fn what_a_user_meets_first_says_what_to_do() {
        for error in [
            ClientError::NotRunning { path: PathBuf::from("/p") },
            ClientError::Refused { path: PathBuf::from("/p") },
            ClientError::Version { ours: 1, theirs: 2, update: Side::Ours },
            ClientError::Version { ours: 2, theirs: 1, update: Side::Theirs },
            ClientError::TimedOut,
            ClientError::Closed,
        ] {
            assert!(Failure::from(error).advice().is_some());
        }
    }
}
