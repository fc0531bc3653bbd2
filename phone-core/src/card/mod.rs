//! The card as a pure state machine: [`Card::handle`] in, [`Card::poll_output`] out. It reads no clock, no socket, no file and no
//! random source; what takes time is an [`Effect`] with an [`OperationId`], and a result that comes late is dropped by it.
//!
//! - `exchange`: links, messages and sessions. `running`: requests from their admission to their answer.
//! - `session`: one card session per paired host: request ids, reset epochs, tokens.
//! - `permissions`: what a host may do; `permitting`: what follows when that changes; `connecting`: hosts that wait for the owner.
//! - `prompts`: how often a host may have the owner asked. `pin_entry`: the PIN that is entered on the phone.
//! - `dispatcher`, [`applet`]: which application a command is for, and what an application is.
//! - `snapshot`: what everybody may read, in one piece for the hosts.
//! - [`piv`]: the PIV application. `configuration`: what management tools ask before they use it.
//!
//! Spec: SPEC.md sections 7 and 9; SP 800-73-4

mod announce;
pub mod applet;
mod atr;
mod configuration;
mod connecting;
mod deed;
mod dispatcher;
mod effect;
mod event;
mod exchange;
mod permissions;
mod permitting;
mod pin_entry;
pub mod piv;
mod probe;
mod prompts;
mod running;
mod session;
mod snapshot;
#[cfg(any(test, feature = "test-support"))]
pub mod test_support;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pocketcard_protocol::apdu::{Command, Response};
use pocketcard_protocol::link::limits::GRACE_LIMIT;
use pocketcard_protocol::messages::{CloseReason, Envelope};
use pocketcard_protocol::time::Timestamp;
use zeroize::Zeroizing;

use self::applet::SessionId;
use self::configuration::ConfigurationApplet;
use self::connecting::Connecting;
use self::dispatcher::Dispatcher;
use self::piv::{Kind, PivApplet, Profile, TouchPolicy, Version};
use self::prompts::Prompts;
use self::running::Running;
use self::session::CardSession;
use crate::traits::{Entropy, EntropyError, KeyAlgorithm, KeyHandle, StateStore, StoreError};

pub use self::atr::AnswerToReset;
pub use self::deed::Deed;
pub use self::effect::{Effect, EffectResult, OperationId};
pub use self::event::{Caller, CardEvent, CommandLine};
pub use self::permissions::Permissions;
pub use self::probe::{NoProbe, Probe, ProbePoint};
pub use crate::traits::HostId;

/// Names a link between this phone and a host; the runtime chooses it and never uses it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(u64);

impl LinkId {
    /// The link with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// Something that happened to the card.
pub enum Input {
    /// An encrypted channel to a paired host is open.
    LinkUp {
        /// The link.
        link: LinkId,
        /// Who is at its other end.
        host: HostId,
        /// The host's name as stored at pairing.
        host_name: String,
    },
    /// A host sent a message.
    Message {
        /// The link it came on.
        link: LinkId,
        /// The message.
        envelope: Envelope,
    },
    /// A link was lost. Its card session waits for the host to come back; see [`CardConfig::grace`].
    LinkDown {
        /// The link.
        link: LinkId,
    },
    /// A link was closed on purpose, by either side. Its card session ends.
    LinkClosed {
        /// The link.
        link: LinkId,
    },
    /// An effect has a result.
    Completed {
        /// Which.
        operation: OperationId,
        /// How it ended.
        result: EffectResult,
    },
    /// The owner took a host's permission to use the card.
    HostForgotten(HostId),
    /// The owner has opened the app, or come back to it: every host may have questions put again.
    OwnerPresent,
    /// What the owner permits a host. A host of which nothing was said may do what its kind of card permits a new one.
    PermissionsChanged {
        /// The host.
        host: HostId,
        /// What it may do.
        permissions: Permissions,
    },
    /// The owner lets a host that waits for that, or was refused, have the card.
    ConnectionAllowed(HostId),
    /// The owner locked the card: hosts see it removed.
    LockCard,
    /// The owner unlocked the card: hosts see it inserted.
    UnlockCard,
    /// The owner gives a command on the phone itself. Commands of the owner need no management key.
    Local {
        /// Comes back with the answer.
        request: u64,
        /// The command.
        command: Command,
    },
    /// Resets the owner's own session: commands under way end, and what was verified is forgotten.
    LocalReset,
    /// The owner chooses PIN and PUK, for the first time or again, on the phone itself.
    Enrol {
        /// Comes back with the answer: `90 00`, or `6A 80` if the PIN is not 6 to 8 digits padded with FF.
        request: u64,
        /// 8 octets, padded with FF.
        pin: Zeroizing<[u8; 8]>,
        /// Any 8 octets.
        puk: Zeroizing<[u8; 8]>,
    },
}

/// Something that the card wants done.
pub enum Output {
    /// Send a message to a host.
    Send {
        /// On this link.
        link: LinkId,
        /// The message.
        envelope: Envelope,
    },
    /// Close a link.
    Close {
        /// Which.
        link: LinkId,
        /// Why.
        reason: CloseReason,
    },
    /// Begin an operation and report its end with [`Input::Completed`].
    Effect {
        /// Its name.
        operation: OperationId,
        /// What to do.
        effect: Effect,
    },
    /// Nobody waits for this operation any more. A key that it makes all the same must be destroyed; the card asks for that
    /// too, if it hears of it.
    CancelEffect(OperationId),
    /// The answer to [`Input::Local`] or [`Input::Enrol`].
    LocalResponse {
        /// The request it answers.
        request: u64,
        /// The answer.
        response: Response,
    },
    /// For the user interface and the log.
    Event(CardEvent),
}

impl fmt::Debug for Output {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send { link, envelope } => write!(formatter, "Send({link:?}, {} bytes)", envelope.length()),
            Self::Close { link, reason } => write!(formatter, "Close({link:?}, {reason:?})"),
            Self::Effect { operation, effect } => write!(formatter, "Effect({operation:?}, {effect:?})"),
            Self::CancelEffect(operation) => write!(formatter, "CancelEffect({operation:?})"),
            Self::LocalResponse { request, response } => {
                write!(formatter, "LocalResponse({request}, {:?})", response.status())
            }
            Self::Event(event) => write!(formatter, "Event({event:?})"),
        }
    }
}

/// How a card is made.
#[derive(Clone, Debug)]
pub struct CardConfig {
    /// A card for tests: well-known PIN `123456`, PUK `12345678` and management key, no confirmations unless a key asks for
    /// them. Its state is never opened as an owned card, nor the other way round.
    pub test_card: bool,
    /// Serial number to show; `None` shows the one that was made up when the card was new.
    pub serial: Option<u32>,
    /// Compatibility level of the Yubico extension.
    pub version: Version,
    /// Answer to reset.
    pub atr: AnswerToReset,
    /// Name of the card for people, shown by hosts.
    pub name: String,
    /// Name and version of this phone's software, for the hosts' logs.
    pub software: String,
    /// What the key store can make: [`KeyStore::algorithms`](crate::KeyStore::algorithms).
    pub algorithms: Vec<KeyAlgorithm>,
    /// Whether the phone can check that it is its owner: [`Approver::has_owner_verification`](crate::Approver). The runtime
    /// sets it.
    pub owner_verification: bool,
    /// How long a card session waits for its host after the link was lost, at most and by default
    /// [`GRACE_LIMIT`]. Zero: it ends with the link.
    pub grace: Duration,
    /// After this time without a command a session forgets that PIN or management key were proven; `None`: never.
    pub idle_limit: Option<Duration>,
}

impl Default for CardConfig {
    fn default() -> Self {
        Self {
            test_card: false,
            serial: None,
            version: Version::COMPATIBILITY,
            atr: AnswerToReset::POCKETCARD,
            name: "Pocketcard".to_owned(),
            software: concat!("pocketcard-phone ", env!("CARGO_PKG_VERSION")).to_owned(),
            algorithms: vec![KeyAlgorithm::Rsa2048, KeyAlgorithm::EccP256, KeyAlgorithm::EccP384],
            owner_verification: false,
            grace: GRACE_LIMIT,
            idle_limit: Some(Duration::from_secs(15 * 60)),
        }
    }
}

/// Why a card could not be made from its state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CardError {
    /// The state could not be read or written.
    #[error("the card's state could not be read or written")]
    Store(#[source] StoreError),
    /// No randomness for a new card.
    #[error("the random source failed")]
    Entropy(#[source] EntropyError),
    /// An entry of the state cannot be read.
    #[error("the card's state is damaged ({0})")]
    Damaged(&'static str),
    /// The state is of a test card, whose secrets everybody knows.
    #[error("this is the state of a test card; start with --test-card, or use another folder")]
    TestCard,
    /// The state is of an owned card.
    #[error("this is the state of a real card; start without --test-card, or use another folder")]
    OwnedCard,
}

/// A link and who is at its other end.
struct HostLink {
    host: HostId,
    host_name: String,
    session: Option<SessionId>,
}

/// The card.
pub struct Card {
    config: CardConfig,
    store: Arc<dyn StateStore>,
    entropy: Arc<dyn Entropy>,
    probe: Arc<dyn Probe>,
    dispatcher: Dispatcher,
    links: BTreeMap<LinkId, HostLink>,
    sessions: BTreeMap<SessionId, CardSession>,
    /// Commands under way, at most one in each session.
    running: BTreeMap<SessionId, Running>,
    operations: BTreeMap<OperationId, SessionId>,
    prompts: Prompts,
    permissions: BTreeMap<HostId, Permissions>,
    default_permissions: Permissions,
    owner_permissions: Permissions,
    /// Sessions that have no card until the owner confirms.
    connecting: BTreeMap<SessionId, Connecting>,
    /// Commands of the owner that wait for the one before them.
    waiting: VecDeque<(u64, Command)>,
    locked: bool,
    last_session: u64,
    last_operation: u64,
    outputs: VecDeque<Output>,
}

impl Card {
    /// A card with the state in `store`; an empty store gets that of a new card.
    ///
    /// # Errors
    /// [`CardError`]
    pub fn new(
        config: CardConfig,
        store: Arc<dyn StateStore>,
        entropy: Arc<dyn Entropy>,
        probe: Arc<dyn Probe>,
    ) -> Result<Self, CardError> {
        let kind = if config.test_card { Kind::Test } else { Kind::Owned };
        let profile = Profile {
            version: config.version,
            algorithms: config.algorithms.clone(),
            confirm: if config.test_card { TouchPolicy::Never } else { TouchPolicy::Cached },
            kept_tries: u8::from(!config.test_card),
            owner_verification: config.owner_verification,
            serial: config.serial,
        };
        let default_permissions = Permissions::default_of(config.test_card);
        let piv = PivApplet::new(kind, profile, &*store, &*entropy)?;
        let configuration = ConfigurationApplet::new(config.version, piv.serial());
        let dispatcher = Dispatcher::new(piv, vec![Box::new(configuration)]);
        Ok(Self {
            config: CardConfig { grace: config.grace.min(GRACE_LIMIT), ..config },
            store,
            entropy,
            probe,
            dispatcher,
            links: BTreeMap::new(),
            sessions: BTreeMap::new(),
            running: BTreeMap::new(),
            operations: BTreeMap::new(),
            prompts: Prompts::default(),
            permissions: BTreeMap::new(),
            default_permissions,
            owner_permissions: Permissions::test_host(),
            connecting: BTreeMap::new(),
            waiting: VecDeque::new(),
            locked: false,
            last_session: SessionId::OWNER.0,
            last_operation: 0,
            outputs: VecDeque::new(),
        })
    }

    /// Takes in what happened. Whatever follows from it is durable when this returns, and waits in [`Card::poll_output`].
    pub fn handle(&mut self, input: Input, now: Timestamp) {
        // Time comes first: after a sleep of the device the first command must not find what the time since has ended.
        if self.poll_timeout().is_some_and(|due| due <= now) {
            self.handle_timeout(now);
        }
        match input {
            Input::LinkUp { link, host, host_name } => {
                self.links.insert(link, HostLink { host, host_name, session: None });
            }
            Input::Message { link, envelope } => self.message(link, envelope, now),
            Input::LinkDown { link } => self.link_down(link, now),
            Input::LinkClosed { link } => self.link_closed(link),
            Input::Completed { operation, result } => self.completed(operation, result, now),
            Input::HostForgotten(host) => self.host_forgotten(host),
            Input::OwnerPresent => {
                for host in self.prompts.owner_present() {
                    self.tell(CardEvent::PromptsHeld { host, held: false });
                }
            }
            Input::PermissionsChanged { host, permissions } => self.set_permissions(host, permissions, now),
            Input::ConnectionAllowed(host) => self.allow_connection(host),
            Input::LockCard => self.set_locked(true, now),
            Input::UnlockCard => self.set_locked(false, now),
            Input::Local { request, command } => self.local(request, command, now),
            Input::LocalReset => self.local_reset(now),
            Input::Enrol { request, pin, puk } => self.enrol(request, &pin, &puk, now),
        }
    }

    /// The next thing that the card wants done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Card::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let pending =
            self.running.iter().filter(|(id, _)| self.link_of(**id).is_some()).map(|(_, run)| run.pending_due);
        let overdue = self.running.values().filter_map(Running::deadline);
        let sessions = self.sessions.iter().filter_map(|(id, session)| self.session_deadline(*id, session));
        let questions = self.connecting.values().filter_map(Connecting::deadline);
        pending.chain(overdue).chain(sessions).chain(questions).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.give_up_overdue(now);
        self.give_up_questions(now);
        self.send_pending(now);
        self.expire_sessions(now);
    }

    /// Every private key that the card's state names; all others in the key store may be destroyed at the start.
    pub fn key_handles(&self) -> Vec<KeyHandle> {
        self.dispatcher.key_handles()
    }
}

impl fmt::Debug for Card {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Card({} links, {} sessions)", self.links.len(), self.sessions.len())
    }
}
