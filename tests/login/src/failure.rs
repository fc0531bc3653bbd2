//! Why a story did not go as it should.

use std::io;
use std::time::Duration;

use pocketcard_dev::DevError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Environment(#[from] DevError),
    #[error("{0}: {1}")]
    System(String, io::Error),
    #[error("{wanted:?} did not come within {limit:?}; what came:\n{seen}")]
    Silent { wanted: String, limit: Duration, seen: String },
    #[error("{program} did not end within {limit:?}; what came:\n{seen}")]
    Hangs { program: String, limit: Duration, seen: String },
    #[error("{0}")]
    Wrong(String),
    #[error("cannot run here: {0}")]
    CannotRun(String),
}

/// Says what was tried when the operating system refuses.
pub(crate) trait Context<T> {
    /// Turns the error into a [`Failure::System`].
    fn context(self, what: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, what: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Failure::System(what.into(), error.into()))
    }
}

/// Fails with a message unless something holds.
pub(crate) fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::Wrong(otherwise())) }
}
