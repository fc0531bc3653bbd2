//! What can go wrong while a private environment is built, said so that the reader knows what to do next.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Where namespaces are switched off, and how they are switched on.
const NAMESPACE_ADVICE: &str = "In a container, start it with --privileged (or --cap-add SYS_ADMIN --security-opt \
    apparmor=unconfined --security-opt seccomp=unconfined). As an ordinary user, allow user namespaces: sysctl \
    kernel.apparmor_restrict_unprivileged_userns=0, on older Debian kernel.unprivileged_userns_clone=1, and \
    user.max_user_namespaces above 0.";

/// Why an environment could not be started, or one of its processes did not do what was asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevError {
    /// A program of the system is missing.
    #[error("{program} is not installed. Install it: apt-get install {package}")]
    ProgramMissing {
        /// What was looked for in PATH.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A file that the workspace builds is missing.
    #[error("{} is not built (looked in {}). Build it: cargo build --workspace; or install the package pocketcard-virtual-phone; or name its folder in POCKETCARD_BIN_DIR", name, folders(.searched))]
    NotBuilt {
        /// The file's name.
        name: &'static str,
        /// Where it was looked for.
        searched: Vec<PathBuf>,
    },
    /// A child process ended when it should have gone on.
    #[error("{process} ended early ({status}). Its last words:\n{tail}")]
    ChildEnded {
        /// Which one.
        process: String,
        /// Exit code or signal.
        status: String,
        /// The end of what it wrote to its log.
        tail: String,
    },
    /// The system does not let this user make a mount namespace, without which pcscd would meet the machine's own.
    #[error("no private mount namespace can be made here: {reason}\n{NAMESPACE_ADVICE}")]
    NamespaceForbidden {
        /// What unshare or mount said.
        reason: String,
    },
    /// Something did not happen within its limit.
    #[error("{process}: {what} did not happen within {limit:?}. Its last words:\n{tail}")]
    TimedOut {
        /// Which process was waited for.
        process: String,
        /// What was waited for.
        what: &'static str,
        /// The limit that passed.
        limit: Duration,
        /// The end of what it wrote to its log.
        tail: String,
    },
    /// A process said something else than was expected.
    #[error("{process} answered unexpectedly while {what}: {answer}")]
    Unexpected {
        /// Which process.
        process: String,
        /// What was being done.
        what: &'static str,
        /// What it said.
        answer: String,
    },
    /// The six digits on the two sides differ. Nothing was stored.
    #[error("the digits differ: {host} on the computer, {phone} on the phone. Nothing was paired")]
    DigitsDiffer {
        /// What the daemon showed.
        host: String,
        /// What the phone showed.
        phone: String,
    },
    /// The folder's path has characters that pcscd's configuration cannot hold.
    #[error("{} cannot stand in pcscd's configuration. Set TMPDIR to a folder of the characters A-Z a-z 0-9 = / - . _ @", .folder.display())]
    FolderName {
        /// The path.
        folder: PathBuf,
    },
    /// The computer has no such user.
    #[error("there is no user {name} on this computer")]
    NoSuchUser {
        /// Who pcscd was to run as.
        name: String,
    },
    /// No phone or slot has this number.
    #[error("there is no {what} {index}; this environment has {count}")]
    NoSuch {
        /// "phone" or "slot".
        what: &'static str,
        /// What was asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The daemon's control socket failed.
    #[error("the daemon's control socket: {0}")]
    Control(#[from] pocketcard_ipc::control::ClientError),
}

fn folders(searched: &[PathBuf]) -> String {
    searched.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Names what was tried when the operating system refuses.
pub(crate) trait Context<T> {
    /// Turns the error into a [`DevError::System`] that says what was tried.
    fn context(self, what: &'static str) -> Result<T, DevError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, what: &'static str) -> Result<T, DevError> {
        self.map_err(|error| DevError::System { what, source: error.into() })
    }
}
