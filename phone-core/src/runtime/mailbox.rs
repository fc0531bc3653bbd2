use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use async_channel::{Receiver, Sender};
use pocketcard_protocol::{
    advertising::{Epoch, Identifier},
    apdu::{Command, Response},
    pairing::QrError,
};
use zeroize::Zeroizing;

use super::{HostInfo, LogEntry, PhoneEvent, Transport};
use crate::{
    card::{LinkId, Permissions},
    traits::{HostId, StoreError},
};

/// Messages of one link that may wait for the runtime. A sender that is faster waits; a peer that floods a transport that cannot
/// wait loses its link.
const ROOM: usize = 64;

/// Events that may wait for a slow subscriber; older ones are dropped first.
const EVENTS: usize = 1024;

/// Why the phone did not do what its owner asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PhoneError {
    /// The phone's future has ended.
    #[error("the phone has stopped")]
    Stopped,
    /// There is no such host.
    #[error("no host with this name is paired")]
    UnknownHost,
    /// The change could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A name of nothing but invisible characters.
    #[error("the name is empty")]
    EmptyName,
    /// No pairing waits for a confirmation.
    #[error("no pairing waits for a confirmation")]
    NoPairing,
    /// The card did not take the PIN.
    #[error("a PIN has 6 to 8 digits")]
    PinRefused,
    /// The PIN or PUK of now is wrong, and a try is spent.
    #[error("wrong PIN or PUK; {tries_left} tries left")]
    WrongPin {
        /// Tries that are left to the owner.
        tries_left: u8,
    },
    /// No try is left, or none was ever chosen.
    #[error("the PIN or PUK is blocked or was never chosen; choose new ones")]
    PinBlocked,
    /// Keys are being made, or another change of the card is under way.
    #[error("the card is being changed already; wait until that has ended")]
    Busy,
}

/// Why a scanned text does not start a pairing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// The text is not the QR text of a host.
    #[error(transparent)]
    Text(#[from] QrError),
    /// Another pairing is in progress.
    #[error("another pairing is in progress; finish or cancel it first")]
    Busy,
    /// The phone's future has ended.
    #[error("the phone has stopped")]
    Stopped,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// Too many messages of this link wait already.
    #[error("too many messages of this link are waiting")]
    Full,
    /// The phone has closed the link or has stopped.
    #[error("the link is closed")]
    Closed,
}

pub(super) type Reply<T> = Sender<T>;

pub(super) enum Mail {
    LinkUp {
        link: LinkId,
        transport: Box<dyn Transport>,
        room: Receiver<()>,
        authenticated: Arc<AtomicBool>,
    },
    Message {
        link: LinkId,
        message: Vec<u8>,
    },
    ReadyToSend(LinkId),
    LinkDown(LinkId),
    Scan {
        text: Zeroizing<String>,
        reply: Reply<Result<String, ScanError>>,
    },
    Compare {
        reply: Reply<Result<(), ScanError>>,
    },
    ConfirmPairing {
        agree: bool,
        reply: Reply<Result<(), PhoneError>>,
    },
    CancelPairing,
    Hosts {
        reply: Reply<Vec<HostInfo>>,
    },
    Forget {
        host: HostId,
        reply: Reply<Result<(), PhoneError>>,
    },
    Rename {
        host: HostId,
        name: String,
        reply: Reply<Result<(), PhoneError>>,
    },
    SetPermissions {
        host: HostId,
        permissions: Permissions,
        reply: Reply<Result<(), PhoneError>>,
    },
    AllowConnection {
        host: HostId,
        reply: Reply<Result<(), PhoneError>>,
    },
    OwnerPresent,
    Log {
        reply: Reply<Vec<LogEntry>>,
    },
    #[cfg(feature = "enrolment")]
    Announce(PhoneEvent),
    LockCard,
    UnlockCard,
    Local {
        command: Command,
        /// Factory resets before the session that it belongs to; `None` if it belongs to none.
        resets: Option<u64>,
        reply: Reply<Response>,
    },
    ChoosePin {
        pin: Zeroizing<[u8; 8]>,
        puk: Zeroizing<[u8; 8]>,
        reply: Reply<Response>,
    },
    LocalReset,
    ForgetAll {
        reply: Reply<Result<(), PhoneError>>,
    },
    Advertise {
        epoch: Epoch,
        identifiers: Sender<Vec<Identifier>>,
    },
    Subscribe(Sender<PhoneEvent>),
    Stop {
        reply: Reply<()>,
    },
}

pub(super) fn mailbox() -> (Phone, Receiver<Mail>) {
    let (mail, mailbox) = async_channel::unbounded();
    let next_link = Arc::new(AtomicU64::new(1));
    let (owner_busy, factory_resets) = (Arc::default(), Arc::default());
    (Phone { mail, next_link, owner_busy, factory_resets }, mailbox)
}

/// The handle of a running phone. Cheap to clone; works from any thread; needs no executor.
#[derive(Clone)]
pub struct Phone {
    mail: Sender<Mail>,
    next_link: Arc<AtomicU64>,
    /// Whether somebody has the owner's card session to themselves.
    pub(super) owner_busy: Arc<AtomicBool>,
    /// Factory resets since the start, each counted before the card hears of it.
    pub(super) factory_resets: Arc<AtomicU64>,
}

impl Phone {
    /// Hands over a new link to some host. The phone speaks first.
    pub fn link_up(&self, transport: Box<dyn Transport>) -> LinkHandle {
        let link = LinkId::new(self.next_link.fetch_add(1, Ordering::Relaxed));
        let (slots, room) = async_channel::bounded(ROOM);
        // A phone that has stopped drops the transport.
        let authenticated = Arc::new(AtomicBool::new(false));
        let _ = self.mail.try_send(Mail::LinkUp { link, transport, room, authenticated: Arc::clone(&authenticated) });
        LinkHandle { link, slots, authenticated, mail: self.mail.clone() }
    }

    /// The owner scanned (or pasted) the QR text that a host shows: pair with this host, on a link that is up or comes up within
    /// two minutes. Returns the host's name. The digits follow as [`PhoneEvent::PairingDigits`].
    ///
    /// # Errors
    /// [`ScanError`]
    pub async fn scan(&self, qr_text: &str) -> Result<String, ScanError> {
        let text = Zeroizing::new(qr_text.to_owned());
        self.ask(|reply| Mail::Scan { text, reply }).await.unwrap_or(Err(ScanError::Stopped))
    }

    /// Pair without a camera: for two minutes any host that is near may ask, and the digits alone tell who it is.
    ///
    /// # Errors
    /// [`ScanError`]
    pub async fn compare(&self) -> Result<(), ScanError> {
        self.ask(|reply| Mail::Compare { reply }).await.unwrap_or(Err(ScanError::Stopped))
    }

    /// The owner compared the digits.
    ///
    /// # Errors
    /// [`PhoneError::NoPairing`], [`PhoneError::Stopped`]
    pub async fn confirm_pairing(&self, agree: bool) -> Result<(), PhoneError> {
        self.ask(|reply| Mail::ConfirmPairing { agree, reply }).await.unwrap_or(Err(PhoneError::Stopped))
    }

    /// Gives up a pairing in whatever state it is.
    pub fn cancel_pairing(&self) {
        self.tell(Mail::CancelPairing);
    }

    /// The paired hosts.
    ///
    /// # Errors
    /// [`PhoneError::Stopped`]
    pub async fn hosts(&self) -> Result<Vec<HostInfo>, PhoneError> {
        self.ask(|reply| Mail::Hosts { reply }).await.ok_or(PhoneError::Stopped)
    }

    /// Forgets a host: its links close at once, its keys are deleted.
    ///
    /// # Errors
    /// [`PhoneError`]
    pub async fn forget(&self, host: HostId) -> Result<(), PhoneError> {
        self.ask(|reply| Mail::Forget { host, reply }).await.unwrap_or(Err(PhoneError::Stopped))
    }

    /// Gives a host another name.
    ///
    /// # Errors
    /// [`PhoneError`]
    pub async fn rename(&self, host: HostId, name: &str) -> Result<(), PhoneError> {
        let name = name.to_owned();
        self.ask(|reply| Mail::Rename { host, name, reply }).await.unwrap_or(Err(PhoneError::Stopped))
    }

    /// What to advertise on a radio in this epoch: the present set at once, then each one that replaces it. Ask again when the
    /// epoch ends; the receiver of the last call alone is told.
    pub fn advertise(&self, epoch: Epoch) -> Receiver<Vec<Identifier>> {
        let (identifiers, receiver) = async_channel::bounded(1);
        self.tell(Mail::Advertise { epoch, identifiers });
        receiver
    }

    /// What happens from now on. A subscriber that does not keep up loses the oldest events.
    pub fn events(&self) -> Receiver<PhoneEvent> {
        let (sender, receiver) = async_channel::bounded(EVENTS);
        self.tell(Mail::Subscribe(sender));
        receiver
    }

    /// Closes every link and ends the phone's future. Returns when that has happened.
    pub async fn stop(&self) {
        self.ask(|reply| Mail::Stop { reply }).await;
    }

    pub(super) fn tell(&self, mail: Mail) {
        // The mailbox is unbounded: this fails only for a phone that has stopped, and then there is nothing to do.
        let _ = self.mail.try_send(mail);
    }

    pub(super) async fn ask<T>(&self, mail: impl FnOnce(Reply<T>) -> Mail) -> Option<T> {
        let (reply, answer) = async_channel::bounded(1);
        self.mail.try_send(mail(reply)).ok()?;
        answer.recv().await.ok()
    }
}

/// One link as its transport sees it. Dropping it tells the phone that the link is down.
pub struct LinkHandle {
    link: LinkId,
    slots: Sender<()>,
    authenticated: Arc<AtomicBool>,
    mail: Sender<Mail>,
}

impl LinkHandle {
    /// The link's number, new for every link.
    pub fn id(&self) -> LinkId {
        self.link
    }

    /// Gives the phone a whole message of the host; waits while too many wait already.
    ///
    /// # Errors
    /// [`PushError::Closed`]
    pub async fn push_message(&self, message: Vec<u8>) -> Result<(), PushError> {
        match self.try_push_message(message) {
            Err((PushError::Full, message)) => {
                self.slots.send(()).await.map_err(|_| PushError::Closed)?;
                self.deliver(message).map_err(|(error, _)| error)
            }
            result => result.map_err(|(error, _)| error),
        }
    }

    /// Gives the phone a whole message of the host without waiting.
    ///
    /// # Errors
    /// [`PushError`] and the message.
    pub fn try_push_message(&self, message: Vec<u8>) -> Result<(), (PushError, Vec<u8>)> {
        match self.slots.try_send(()) {
            Ok(()) => self.deliver(message),
            Err(async_channel::TrySendError::Full(())) => Err((PushError::Full, message)),
            Err(async_channel::TrySendError::Closed(())) => Err((PushError::Closed, message)),
        }
    }

    /// The transport can send again after it said [`super::SendOutcome::WouldBlock`].
    pub fn ready_to_send(&self) {
        let _ = self.mail.try_send(Mail::ReadyToSend(self.link));
    }

    /// Whether the host is authenticated; before, a transport should refuse messages that are longer than a handshake needs.
    pub fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::Relaxed)
    }

    /// Whether the phone has let the link go; its transport has then been closed too.
    pub fn is_closed(&self) -> bool {
        self.slots.is_closed()
    }

    fn deliver(&self, message: Vec<u8>) -> Result<(), (PushError, Vec<u8>)> {
        self.mail.try_send(Mail::Message { link: self.link, message }).map_err(|error| match error.into_inner() {
            Mail::Message { message, .. } => (PushError::Closed, message),
            _ => (PushError::Closed, Vec::new()),
        })
    }
}

impl Drop for LinkHandle {
    fn drop(&mut self) {
        let _ = self.mail.try_send(Mail::LinkDown(self.link));
    }
}
