use std::sync::{Arc, Mutex, PoisonError};

use pocketcard_phone::runtime;

use crate::error::LinkError;

/// What became of a message given to a [`Transport`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum SendOutcome {
    /// The transport has taken the message.
    Sent,
    /// Nothing of it was taken; the phone tries again after [`Link::ready_to_send`].
    WouldBlock,
    /// The link is gone.
    Gone,
}

/// The transport failed; counts as [`SendOutcome::Gone`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, uniffi::Error)]
pub enum TransportError {
    /// It did.
    #[error("the transport failed")]
    Failed,
}

impl From<uniffi::UnexpectedUniFFICallbackError> for TransportError {
    fn from(_: uniffi::UnexpectedUniFFICallbackError) -> Self {
        Self::Failed
    }
}

/// Carries whole link messages to the computer.
#[uniffi::export(rust, foreign)]
pub trait Transport: Send + Sync {
    /// Takes `message` at once or not at all; must not block.
    fn send(&self, message: Vec<u8>) -> Result<SendOutcome, TransportError>;

    /// The phone is done with the link. Messages taken before should still reach the computer. (Not `close`: Kotlin's generated
    /// class has a method of that name.)
    fn disconnect(&self) -> Result<(), TransportError>;
}

pub(crate) struct ForeignTransport(pub(crate) Arc<dyn Transport>);

impl runtime::Transport for ForeignTransport {
    fn send(&mut self, message: &[u8]) -> runtime::SendOutcome {
        match self.0.send(message.to_vec()) {
            Ok(SendOutcome::Sent) => runtime::SendOutcome::Sent,
            Ok(SendOutcome::WouldBlock) => runtime::SendOutcome::WouldBlock,
            Ok(SendOutcome::Gone) | Err(TransportError::Failed) => runtime::SendOutcome::Gone,
        }
    }

    fn close(&mut self) {
        // A transport that cannot even be closed is gone already.
        let _ = self.0.disconnect();
    }
}

/// One link to a computer, as its transport sees it.
#[derive(uniffi::Object)]
pub struct Link(Mutex<Option<Arc<runtime::LinkHandle>>>);

impl Link {
    pub(crate) fn new(link: runtime::LinkHandle) -> Self {
        Self(Mutex::new(Some(Arc::new(link))))
    }

    fn handle(&self) -> Result<Arc<runtime::LinkHandle>, LinkError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(LinkError::Closed)
    }
}

#[uniffi::export]
impl Link {
    /// Gives the phone a whole message of the computer; waits while too many wait already.
    pub async fn push_message(&self, message: Vec<u8>) -> Result<(), LinkError> {
        Ok(self.handle()?.push_message(message).await?)
    }

    /// Gives the phone a whole message of the computer without waiting.
    pub fn try_push_message(&self, message: Vec<u8>) -> Result<(), LinkError> {
        Ok(self.handle()?.try_push_message(message).map_err(|(error, _)| error)?)
    }

    /// The transport can send again after it said [`SendOutcome::WouldBlock`].
    pub fn ready_to_send(&self) {
        if let Ok(link) = self.handle() {
            link.ready_to_send();
        }
    }

    /// Whether the computer is authenticated; before, a transport should refuse messages longer than a handshake needs.
    pub fn is_authenticated(&self) -> bool {
        self.handle().is_ok_and(|link| link.is_authenticated())
    }

    /// The transport has lost the link.
    pub fn link_down(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Whether the phone has let the link go, or was told that it is down.
    pub fn is_closed(&self) -> bool {
        self.handle().map_or(true, |link| link.is_closed())
    }
}
