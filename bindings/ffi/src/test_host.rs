use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pocketcard_protocol::channel::StaticSecret;
use pocketcard_protocol::link::{Event, HostConfig, Link, VersionRange};
use pocketcard_protocol::messages::{Body, Envelope, Open, PinEntry, PinOperation, Reset, Transmit};
use pocketcard_protocol::pairing::{Attempts, Offer, PairKeys};
use pocketcard_protocol::time::Timestamp;

use crate::entropy::SystemEntropy;
use crate::permissions::Permissions;

/// Why the test's computer did not do what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, uniffi::Error)]
pub enum TestHostError {
    /// There is no pair, no link or no card session.
    #[error("not now")]
    NotNow,
}

/// What happened on the computer's side.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs)] // As the events of `pocketcard_protocol::link`.
pub enum TestHostEvent {
    Connected,
    Digits { digits: String, phone_name: String },
    PeerConfirmed,
    Paired { phone_name: String },
    PairingDone,
    Opened { atr: Vec<u8>, resumed: bool },
    CardState { present: bool },
    Response { request_id: u64, response: Vec<u8> },
    Pending { request_id: u64 },
    Refused { request_id: u64, reason: String },
    Permitted { permissions: Permissions },
    Closed { reason: String },
}

/// A computer inside the library. The test carries its messages: whatever is taken from [`TestHost::next_message`] goes to the
/// phone, whatever the phone's transport sends goes to [`TestHost::receive`].
#[derive(uniffi::Object)]
pub struct TestHost {
    config: HostConfig,
    origin: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    link: Option<Link>,
    pair: Option<PairKeys>,
    session: u64,
    epoch: u64,
    last_request: u64,
}

impl TestHost {
    fn now(&self) -> Timestamp {
        Timestamp::from_origin(self.origin.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_pairing(&self, offer: Offer) {
        let link = Link::host_pair(self.config.clone(), offer, self.now());
        self.state().link = Some(link);
    }

    fn send(&self, state: &mut State, envelope: Envelope) -> Result<(), TestHostError> {
        let link = state.link.as_mut().ok_or(TestHostError::NotNow)?;
        link.send(&envelope, self.now()).map_err(|_| TestHostError::NotNow)
    }

    /// What a real daemon does by itself, and what the test sees of it.
    fn digest(&self, state: &mut State, event: Event) -> Option<TestHostEvent> {
        Some(match event {
            Event::Connected { .. } => {
                let open = Open { resume_token: Vec::new(), epoch: state.epoch, software: "test-host 1".to_owned() };
                self.send(state, open.into()).ok()?;
                TestHostEvent::Connected
            }
            Event::PairingDigits { digits, peer_name, .. } => {
                TestHostEvent::Digits { digits: digits.to_string(), phone_name: peer_name }
            }
            Event::PeerConfirmed => TestHostEvent::PeerConfirmed,
            Event::Paired { pair, peer_name } => {
                state.pair = Some(pair);
                state.link.as_mut()?.pair_stored(self.now());
                TestHostEvent::Paired { phone_name: peer_name }
            }
            Event::PairingDone => TestHostEvent::PairingDone,
            Event::Closed(reason) => TestHostEvent::Closed { reason: reason.to_string() },
            Event::Message(mut envelope) => match envelope.body.take()? {
                Body::Opened(opened) => {
                    state.session = opened.session;
                    state.last_request = opened.last_request_id;
                    let atr = opened.card_state.as_ref().map(|card| card.atr.clone()).unwrap_or_default();
                    TestHostEvent::Opened { atr, resumed: opened.resumed }
                }
                Body::Response(response) => {
                    TestHostEvent::Response { request_id: response.request_id, response: response.response.clone() }
                }
                Body::Pending(pending) => TestHostEvent::Pending { request_id: pending.request_id },
                Body::Refused(refused) => TestHostEvent::Refused {
                    request_id: refused.request_id,
                    reason: refused.reason().as_str_name().trim_start_matches("REFUSAL_REASON_").to_owned(),
                },
                Body::Permissions(told) => {
                    let (typed_pin, administer, connect_unattended) =
                        (told.typed_pin, told.administer, told.connect_unattended);
                    let permissions = Permissions { keys: told.keys, typed_pin, administer, connect_unattended };
                    TestHostEvent::Permitted { permissions }
                }
                Body::CardState(card) => TestHostEvent::CardState { present: card.present },
                _ => return None,
            },
        })
    }
}

#[uniffi::export]
impl TestHost {
    /// A computer with a new identity.
    #[uniffi::constructor]
    pub fn new(name: String) -> Result<Arc<Self>, TestHostError> {
        let entropy = Arc::new(SystemEntropy);
        let identity = StaticSecret::generate(&*entropy).map_err(|_| TestHostError::NotNow)?;
        let config = HostConfig {
            identity: Arc::new(identity),
            name,
            software: "test-host 1".to_owned(),
            entropy,
            versions: VersionRange::SUPPORTED,
        };
        Ok(Arc::new(Self { config, origin: Instant::now(), state: Mutex::default() }))
    }

    /// Begins a link that pairs, and returns the text of its QR code.
    pub fn offer(&self) -> Result<String, TestHostError> {
        let (identity, name) = (self.config.identity.public(), &self.config.name);
        let offer = Offer::new(&identity, name, &*self.config.entropy, &Attempts::new(), self.now())
            .map_err(|_| TestHostError::NotNow)?;
        let text = offer.qr_text().ok_or(TestHostError::NotNow)?.to_string();
        self.begin_pairing(offer);
        Ok(text)
    }

    /// Begins a link that pairs by comparing digits.
    pub fn compare(&self) -> Result<(), TestHostError> {
        let offer = Offer::compare(&Attempts::new(), self.now()).map_err(|_| TestHostError::NotNow)?;
        self.begin_pairing(offer);
        Ok(())
    }

    /// The person at the computer compared the digits.
    pub fn confirm(&self, agree: bool) {
        let now = self.now();
        if let Some(link) = self.state().link.as_mut() {
            link.confirm_pairing(agree, now);
        }
    }

    /// Begins a link of the stored pair; a card session is opened as soon as it stands.
    pub fn connect(&self) -> Result<(), TestHostError> {
        let mut state = self.state();
        let link =
            Link::host_connect(self.config.clone(), state.pair.as_ref().ok_or(TestHostError::NotNow)?, self.now());
        (state.link, state.epoch) = (Some(link), 1);
        Ok(())
    }

    /// Sends a command to the card, and returns the number of the request.
    pub fn transmit(&self, command: Vec<u8>) -> Result<u64, TestHostError> {
        let mut state = self.state();
        state.last_request += 1;
        let (session, request_id, epoch) = (state.session, state.last_request, state.epoch);
        self.send(&mut state, Transmit { session, request_id, epoch, command }.into())?;
        Ok(request_id)
    }

    /// Asks for the entry of the PIN on the phone, and returns the number of the request.
    pub fn enter_pin(&self) -> Result<u64, TestHostError> {
        let mut state = self.state();
        state.last_request += 1;
        let (session, request_id, epoch) = (state.session, state.last_request, state.epoch);
        let (operation, key_reference, time_limit_s) = (PinOperation::Verify.into(), 0x80, 0);
        let entry = PinEntry { session, request_id, epoch, operation, key_reference, time_limit_s };
        self.send(&mut state, entry.into())?;
        Ok(request_id)
    }

    /// Resets the card: whatever runs is cancelled.
    pub fn reset(&self) -> Result<(), TestHostError> {
        let mut state = self.state();
        state.epoch += 1;
        let (session, epoch) = (state.session, state.epoch);
        self.send(&mut state, Reset { session, epoch }.into())
    }

    /// A message of the phone.
    pub fn receive(&self, message: Vec<u8>) {
        let now = self.now();
        if let Some(link) = self.state().link.as_mut() {
            link.handle_message(&message, now);
        }
    }

    /// The next message for the phone.
    pub fn next_message(&self) -> Option<Vec<u8>> {
        self.state().link.as_mut()?.poll_transmit()
    }

    /// What happened next, if anything.
    pub fn next_event(&self) -> Option<TestHostEvent> {
        let mut state = self.state();
        loop {
            let event = state.link.as_mut()?.poll_event()?;
            if let Some(event) = self.digest(&mut state, event) {
                return Some(event);
            }
        }
    }
}
