use std::io;
use std::path::PathBuf;

use super::SessionError;

/// Why nothing can be watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum WatchError {
    #[error("no paired phone is called {0:?}")]
    NoSuchPhone(String),
    #[error("several phones fit {0:?}")]
    SeveralPhones(String),
    #[error("the session could not be locked: {0}")]
    Session(#[from] SessionError),
    #[error("reading {}: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is not understood: {message}", .path.display())]
    Malformed { path: PathBuf, message: String },
}

impl WatchError {
    /// What to do next.
    pub(crate) fn advice(&self) -> Option<String> {
        let advice = match self {
            Self::NoSuchPhone(_) => "`pocketcard phones` lists them",
            Self::SeveralPhones(_) => "name it by its id, which `pocketcard phones` shows",
            Self::Malformed { .. } => "`pocketcard watch --help` shows what the file may hold",
            Self::Session(_) => "lock it by a command of your own: --on-leave 'i3lock'",
            Self::File { .. } => return None,
        };
        Some(advice.to_owned())
    }
}
