//! Where there is no logind: nothing locks a session but the user's own command.

/// Why the sessions cannot be locked or listened to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SessionError {
    #[error("this system has no logind")]
    NoLogind,
}

impl SessionError {
    /// Whether asking again is of no use.
    pub(super) fn is_final(&self) -> bool {
        true
    }
}

/// Whether somebody shows that the sessions are locked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(dead_code, reason = "as on Linux, so that one code locks everywhere")]
pub(super) enum Shown {
    Locked(usize),
    Doubted(Vec<String>),
    Back,
}

#[derive(Debug, Default)]
pub(super) struct Locking;

impl Locking {
    pub(super) fn attempt(&mut self, _: impl Fn() -> bool) -> Result<Shown, SessionError> {
        Err(SessionError::NoLogind)
    }
}

pub(super) fn names() -> Result<Vec<String>, SessionError> {
    Err(SessionError::NoLogind)
}

#[derive(Debug, Default)]
pub(super) struct Listener;

pub(super) fn listen(_: &mut Listener, _: impl FnMut()) -> Result<(), SessionError> {
    Err(SessionError::NoLogind)
}
