//! A card in a box: instant keys, a store that can fail, and a host that sends APDUs. For tests, fuzzing and the harness that
//! compares the host's half of the card with this one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pocketcard_protocol::apdu::{Chaining, Command, Response, Step};
use pocketcard_protocol::messages::{self, Body, Envelope, PinOperation, RefusalReason};
use pocketcard_protocol::time::Timestamp;
use pocketcard_protocol::{Entropy, EntropyError};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{
    Card, CardConfig, CardEvent, Effect, EffectResult, HostId, Input, LinkId, OperationId, Output, Permissions, Probe,
    ProbePoint,
};
use crate::traits::{
    ApprovalDecision, Batch, KeyAlgorithm, KeyHandle, KeyStoreError, OwnerDecision, PinAnswer, PublicKeyData,
    StateStore, StoreError,
};

/// Numbers that look random and are the same in every run.
#[derive(Debug, Default)]
pub struct CountingEntropy(AtomicU64);

impl Entropy for CountingEntropy {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        for chunk in buffer.chunks_mut(32) {
            let block = Sha256::digest(self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes());
            chunk.iter_mut().zip(block).for_each(|(byte, random)| *byte = random);
        }
        Ok(())
    }
}

/// A store in memory that can be told to fail. Clones share their entries.
#[derive(Clone, Default)]
pub struct TestStore {
    inner: Arc<Mutex<TestStoreState>>,
}

#[derive(Default)]
struct TestStoreState {
    entries: BTreeMap<String, Zeroizing<Vec<u8>>>,
    commits: u64,
    /// Commits that still succeed; `None`: all.
    fails_after: Option<u64>,
}

impl TestStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether commits fail from now on.
    pub fn set_failing(&self, fails: bool) {
        self.state().fails_after = fails.then_some(0);
    }

    /// So many commits succeed from now on, then all fail.
    pub fn fail_after(&self, commits: u64) {
        self.state().fails_after = Some(commits);
    }

    /// Commits that succeeded.
    pub fn commits(&self) -> u64 {
        self.state().commits
    }

    /// The bytes of an entry.
    pub fn entry(&self, name: &str) -> Option<Vec<u8>> {
        self.state().entries.get(name).map(|value| value.to_vec())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, TestStoreState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for TestStore {
    fn load(&self) -> Result<Vec<(String, Zeroizing<Vec<u8>>)>, StoreError> {
        Ok(self.state().entries.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut state = self.state();
        match &mut state.fails_after {
            Some(0) => return Err(StoreError::Failed),
            Some(left) => *left -= 1,
            None => {}
        }
        for entry in batch.entries() {
            match &entry.value {
                Some(value) => state.entries.insert(entry.key.clone(), value.clone()),
                None => state.entries.remove(&entry.key),
            };
        }
        state.commits += 1;
        Ok(())
    }
}

/// Remembers the points that the card passed.
#[derive(Debug, Default)]
pub struct RecordingProbe(Mutex<Vec<ProbePoint>>);

impl RecordingProbe {
    /// The points since the last call.
    pub fn take(&self) -> Vec<ProbePoint> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Probe for RecordingProbe {
    fn reached(&self, point: ProbePoint) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(point);
    }
}

/// A key store whose keys are made at once and do no arithmetic: results have the right form and depend on key and input.
#[derive(Debug, Default)]
pub struct InstantKeys {
    made: u64,
    keys: BTreeMap<KeyHandle, KeyAlgorithm>,
}

impl InstantKeys {
    /// The keys there are.
    pub fn handles(&self) -> Vec<KeyHandle> {
        self.keys.keys().cloned().collect()
    }

    /// Does an effect.
    pub fn perform(&mut self, effect: Effect) -> EffectResult {
        match effect {
            Effect::Generate { algorithm } => {
                self.made += 1;
                let handle = KeyHandle::new(self.made.to_be_bytes().to_vec());
                let public = public_key(&handle, algorithm);
                self.keys.insert(handle.clone(), algorithm);
                EffectResult::Generated { handle, public }
            }
            Effect::Sign { key, algorithm, input } => self.apply(&key, algorithm, &input, true),
            Effect::Decrypt { key, algorithm, input } => self.apply(&key, algorithm, &input, false),
            Effect::Agree { key, algorithm, peer_point } => self.apply(&key, algorithm, &peer_point, false),
            Effect::DeleteKey(key) => {
                self.keys.remove(&key);
                EffectResult::Deleted
            }
            Effect::Approve(_) => EffectResult::Approval(ApprovalDecision::Approved),
            Effect::EnterPin(_) => EffectResult::Pin(PinAnswer::Unanswered),
            Effect::VerifyOwner(_) => EffectResult::Owner(OwnerDecision::Unavailable),
        }
    }

    fn apply(&self, key: &KeyHandle, algorithm: KeyAlgorithm, input: &[u8], signs: bool) -> EffectResult {
        if self.keys.get(key) != Some(&algorithm) {
            return EffectResult::Failed(KeyStoreError::UnknownKey);
        }
        let (field, curve) = match algorithm {
            KeyAlgorithm::EccP256 => (32, true),
            KeyAlgorithm::EccP384 => (48, true),
            KeyAlgorithm::Rsa2048 => (256, false),
        };
        let seed = [key.as_bytes(), input].concat();
        let bytes = match (curve, signs) {
            // A signature in DER whose numbers are positive and as long as they can be.
            (true, true) => {
                let number = positive(&seed, field);
                let mut integers = Vec::new();
                for _ in 0..2 {
                    integers.extend([0x02, u8::try_from(field).unwrap_or(0)]);
                    integers.extend_from_slice(&number);
                }
                [vec![0x30, u8::try_from(integers.len()).unwrap_or(0)], integers].concat()
            }
            _ => stretch(&seed, field),
        };
        EffectResult::Bytes(Zeroizing::new(bytes))
    }
}

fn positive(seed: &[u8], length: usize) -> Vec<u8> {
    let mut number = stretch(seed, length);
    if let Some(first) = number.first_mut() {
        *first = *first & 0x7F | 0x40;
    }
    number
}

fn stretch(seed: &[u8], length: usize) -> Vec<u8> {
    let blocks = (0_u32..).flat_map(|block| Sha256::digest([seed, block.to_be_bytes().as_slice()].concat()));
    blocks.take(length).collect()
}

fn public_key(handle: &KeyHandle, algorithm: KeyAlgorithm) -> PublicKeyData {
    match algorithm {
        KeyAlgorithm::EccP256 => PublicKeyData::Ecc { point: [vec![4], stretch(handle.as_bytes(), 64)].concat() },
        KeyAlgorithm::EccP384 => PublicKeyData::Ecc { point: [vec![4], stretch(handle.as_bytes(), 96)].concat() },
        KeyAlgorithm::Rsa2048 => {
            let mut modulus = stretch(handle.as_bytes(), 256);
            if let Some(first) = modulus.first_mut() {
                *first |= 0x80;
            }
            PublicKeyData::Rsa { modulus, exponent: vec![1, 0, 1] }
        }
    }
}

/// What a [`TestBox`] has collected from its card.
#[derive(Default)]
pub struct Collected {
    /// Messages to hosts, in order.
    pub sent: Vec<(LinkId, Envelope)>,
    /// Links that the card closed.
    pub closed: Vec<(LinkId, messages::CloseReason)>,
    /// Effects that were held back; see [`TestBox::hold`].
    pub held: Vec<(OperationId, Effect)>,
    /// Effects that were given up.
    pub cancelled: Vec<OperationId>,
    /// Answers to the owner.
    pub local: Vec<(u64, Response)>,
    /// Events for the user interface.
    pub events: Vec<CardEvent>,
}

/// A card with all it needs, driven by hand.
pub struct TestBox {
    /// The card.
    pub card: Card,
    /// Its keys.
    pub keys: InstantKeys,
    /// Its state.
    pub store: TestStore,
    /// Where it has been.
    pub probe: Arc<RecordingProbe>,
    /// The time.
    pub now: Timestamp,
    /// Whether effects are held back in [`Collected::held`] instead of done at once. Keys are always deleted at once.
    pub hold: bool,
    /// What came out.
    pub out: Collected,
    last_link: u64,
    last_local: u64,
}

impl TestBox {
    /// A new test card; see [`CardConfig::test_card`].
    pub fn test_card() -> Self {
        Self::with(CardConfig { test_card: true, ..CardConfig::default() }, TestStore::new())
    }

    /// A card with this configuration and state.
    ///
    /// # Panics
    /// If the state does not fit the configuration.
    #[allow(clippy::expect_used)] // a test without its card cannot go on
    pub fn with(config: CardConfig, store: TestStore) -> Self {
        let probe = Arc::new(RecordingProbe::default());
        let entropy = Arc::new(CountingEntropy::default());
        let card = Card::new(config, Arc::new(store.clone()), entropy, probe.clone()).expect("a card");
        Self {
            card,
            keys: InstantKeys::default(),
            store,
            probe,
            now: Timestamp::ZERO,
            hold: false,
            out: Collected::default(),
            last_link: 0,
            last_local: 0,
        }
    }

    /// Gives the card an input and does what follows from it.
    pub fn handle(&mut self, input: Input) {
        self.card.handle(input, self.now);
        self.settle();
    }

    /// Lets time pass, with every timeout on the way.
    pub fn advance(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(due) = self.card.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.card.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
    }

    /// Collects the card's outputs, and does its effects unless they are held.
    pub fn settle(&mut self) {
        while let Some(output) = self.card.poll_output() {
            match output {
                Output::Send { link, envelope } => self.out.sent.push((link, envelope)),
                Output::Close { link, reason } => self.out.closed.push((link, reason)),
                Output::Effect { operation, effect } if self.hold && !matches!(effect, Effect::DeleteKey(_)) => {
                    self.out.held.push((operation, effect));
                }
                Output::Effect { operation, effect } => {
                    let result = self.keys.perform(effect);
                    self.card.handle(Input::Completed { operation, result }, self.now);
                }
                Output::CancelEffect(operation) => {
                    self.out.cancelled.push(operation);
                    self.out.held.retain(|(held, _)| *held != operation);
                }
                Output::LocalResponse { request, response } => self.out.local.push((request, response)),
                Output::Event(event) => self.out.events.push(event),
            }
        }
    }

    /// Does the oldest held effect; `false` if there is none.
    pub fn release(&mut self) -> bool {
        if self.out.held.is_empty() {
            return false;
        }
        let (operation, effect) = self.out.held.remove(0);
        let result = self.keys.perform(effect);
        self.handle(Input::Completed { operation, result });
        true
    }

    /// Ends the oldest held effect in this way; `false` if there is none.
    pub fn complete(&mut self, result: EffectResult) -> bool {
        if self.out.held.is_empty() {
            return false;
        }
        let (operation, _) = self.out.held.remove(0);
        self.handle(Input::Completed { operation, result });
        true
    }

    /// The owner permits a host this.
    pub fn permit(&mut self, number: u8, permissions: Permissions) {
        self.handle(Input::PermissionsChanged { host: HostId::new([number; 32]), permissions });
    }

    /// A host with a card session of its own.
    pub fn host(&mut self, number: u8) -> TestHost {
        self.last_link += 1;
        let link = LinkId::new(self.last_link);
        let host = HostId::new([number; 32]);
        self.handle(Input::LinkUp { link, host, host_name: format!("host {number}") });
        let mut host = TestHost {
            link,
            session: 0,
            epoch: 1,
            last_request: 0,
            token: Vec::new(),
            resumed: false,
            is_present: false,
            permissions: None,
            number,
            chaining: Chaining::default(),
        };
        host.open(self, Vec::new());
        host
    }

    /// A command of the owner, on the phone itself.
    pub fn local(&mut self, command: &[u8]) -> Vec<u8> {
        let Ok(command) = Command::parse(command) else { return vec![0x67, 0x00] };
        self.last_local += 1;
        let request = self.last_local;
        self.handle(Input::Local { request, command });
        let position = self.out.local.iter().position(|(answered, _)| *answered == request);
        position.map_or_else(Vec::new, |index| self.out.local.remove(index).1.to_bytes().to_vec())
    }
}

/// A host of a [`TestBox`].
pub struct TestHost {
    /// Its link.
    pub link: LinkId,
    /// Number of its card session.
    pub session: u64,
    /// Its reset epoch.
    pub epoch: u64,
    /// Id of its last request.
    pub last_request: u64,
    /// Token of its session.
    pub token: Vec<u8>,
    /// Whether its session was resumed.
    pub resumed: bool,
    /// Whether the card was there when the session was opened.
    pub is_present: bool,
    /// What it was told that it may do when the session was opened.
    pub permissions: Option<messages::Permissions>,
    number: u8,
    chaining: Chaining,
}

impl TestHost {
    /// Opens a session, or resumes the one with this token.
    pub fn open(&mut self, card: &mut TestBox, resume_token: Vec<u8>) {
        let open = messages::Open { resume_token, epoch: self.epoch, software: "test 1".to_owned() };
        card.handle(Input::Message { link: self.link, envelope: open.into() });
        let sent = std::mem::take(&mut card.out.sent);
        for (link, envelope) in sent {
            match envelope.body {
                Some(Body::Opened(mut opened)) if link == self.link => {
                    self.session = opened.session;
                    self.token = opened.take_token().to_vec();
                    self.last_request = opened.last_request_id;
                    self.resumed = opened.resumed;
                    self.is_present = opened.card_state.as_ref().is_some_and(|state| state.present);
                }
                Some(Body::Permissions(permissions)) if link == self.link => self.permissions = Some(permissions),
                body => card.out.sent.push((link, Envelope { body })),
            }
        }
    }

    /// Sends a command and gives its whole answer; empty if there is none yet.
    pub fn transmit(&mut self, card: &mut TestBox, command: &[u8]) -> Vec<u8> {
        self.last_request += 1;
        self.send(card, self.last_request, command);
        self.answer(card).unwrap_or_default()
    }

    /// Sends a command as a program would, through chaining and response windows.
    pub fn raw(&mut self, card: &mut TestBox, command: &[u8]) -> Vec<u8> {
        match self.chaining.handle(command) {
            Step::Reply(reply) => reply.to_vec(),
            Step::Execute(command) => {
                let response = self.transmit(card, command.as_bytes());
                match Response::parse(&response) {
                    Ok(response) => self.chaining.respond(response).to_vec(),
                    Err(_) => Vec::new(),
                }
            }
        }
    }

    /// Sends a request with this id.
    pub fn send(&self, card: &mut TestBox, request_id: u64, command: &[u8]) {
        let (session, epoch) = (self.session, self.epoch);
        let transmit = messages::Transmit { session, request_id, epoch, command: command.to_vec() };
        card.handle(Input::Message { link: self.link, envelope: transmit.into() });
    }

    /// Asks for the entry of a PIN and gives the answer; empty if there is none yet.
    pub fn enter_pin(&mut self, card: &mut TestBox, operation: PinOperation, key_reference: u32) -> Vec<u8> {
        self.chaining.reset();
        self.last_request += 1;
        self.send_pin_entry(card, self.last_request, operation, key_reference, 0);
        self.answer(card).unwrap_or_default()
    }

    /// Asks for the entry of a PIN with this id.
    pub fn send_pin_entry(
        &self,
        card: &mut TestBox,
        request_id: u64,
        operation: PinOperation,
        key_reference: u32,
        time_limit_s: u32,
    ) {
        let (session, epoch, operation) = (self.session, self.epoch, operation.into());
        let entry = messages::PinEntry { session, request_id, epoch, operation, key_reference, time_limit_s };
        card.handle(Input::Message { link: self.link, envelope: entry.into() });
    }

    /// Takes out why requests of this host were refused, each with the key that it was about.
    pub fn refusals(&self, card: &mut TestBox) -> Vec<(RefusalReason, u32)> {
        let sent = std::mem::take(&mut card.out.sent);
        let mut refusals = Vec::new();
        for (link, envelope) in sent {
            match envelope.body {
                Some(Body::Refused(refused)) if link == self.link => {
                    refusals.push((refused.reason(), refused.key_reference));
                }
                body => card.out.sent.push((link, Envelope { body })),
            }
        }
        refusals
    }

    /// Takes the answer to the last request out of what the card sent.
    pub fn answer(&self, card: &mut TestBox) -> Option<Vec<u8>> {
        let is_answer = |(link, envelope): &(LinkId, Envelope)| {
            let this = *link == self.link;
            matches!(&envelope.body, Some(Body::Response(response)) if this && response.request_id == self.last_request)
        };
        let index = card.out.sent.iter().position(is_answer)?;
        match card.out.sent.remove(index).1.body {
            Some(Body::Response(mut response)) => Some(response.take_response().to_vec()),
            _ => None,
        }
    }

    /// Resets the card: raises the epoch and says so.
    pub fn reset(&mut self, card: &mut TestBox) {
        self.epoch += 1;
        self.chaining.reset();
        let reset = messages::Reset { session: self.session, epoch: self.epoch };
        card.handle(Input::Message { link: self.link, envelope: reset.into() });
    }

    /// Gives up the last request.
    pub fn cancel(&self, card: &mut TestBox) {
        let cancel = messages::Cancel { session: self.session, request_id: self.last_request };
        card.handle(Input::Message { link: self.link, envelope: cancel.into() });
    }

    /// Comes back on another link, with the token of the session.
    pub fn come_back(&mut self, card: &mut TestBox) {
        card.last_link += 1;
        self.link = LinkId::new(card.last_link);
        let (host, host_name) = (HostId::new([self.number; 32]), format!("host {}", self.number));
        card.handle(Input::LinkUp { link: self.link, host, host_name });
        self.open(card, self.token.clone());
    }

    /// The link goes away.
    pub fn disconnect(&self, card: &mut TestBox) {
        card.handle(Input::LinkDown { link: self.link });
    }
}
