//! Where there is no logind: nothing locks a session but the user's own command.

/// Why the sessions cannot be locked or listened to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SessionError {
    #[error("this system has no logind")]
    NoLogind,
}

/// Whether somebody shows that the sessions are locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(dead_code, reason = "as on Linux, so that one code locks everywhere")]
pub(super) enum Shown {
    Locked,
    Unknown,
}

pub(super) fn lock() -> Result<Shown, SessionError> {
    Err(SessionError::NoLogind)
}

pub(super) fn names() -> Result<Vec<String>, SessionError> {
    Err(SessionError::NoLogind)
}

pub(super) fn listen(_: impl FnMut()) -> Result<(), SessionError> {
    Err(SessionError::NoLogind)
}
