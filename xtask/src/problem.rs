//! Why a task could not be done.

use std::io;

use pocketcard_dev::DevError;

/// Why a step failed.
#[derive(Debug)]
pub(crate) enum Problem {
    /// A program ended with an error; what it wrote has been shown.
    Failed(String),
    /// A program could not be started.
    NotStarted(String, io::Error),
    /// Something has to be done by the person first.
    Needs(String),
    /// The private environment failed.
    Environment(DevError),
    /// A file or process failed.
    System(String, io::Error),
    /// A result is not what it should be.
    Wrong(String),
    /// Some of several steps failed; they are in the summary.
    Several(usize),
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(program) => write!(f, "{program} failed"),
            Self::NotStarted(program, error) => write!(f, "{program} could not be started: {error}"),
            Self::Needs(what) => f.write_str(what),
            Self::Environment(error) => write!(f, "{error}"),
            Self::System(what, error) => write!(f, "{what}: {error}"),
            Self::Wrong(what) => f.write_str(what),
            Self::Several(count) => write!(f, "{count} steps failed"),
        }
    }
}

impl From<DevError> for Problem {
    fn from(error: DevError) -> Self {
        Self::Environment(error)
    }
}

/// Says what was tried when the operating system refuses.
pub(crate) trait Context<T> {
    /// Turns the error into a [`Problem::System`].
    fn context(self, what: impl Into<String>) -> Result<T, Problem>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl Into<String>) -> Result<T, Problem> {
        self.map_err(|error| Problem::System(what.into(), error))
    }
}
