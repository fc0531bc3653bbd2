//! The applet's durable state. Every change is committed before memory follows, so that no answer tells of a change that a
//! crash could undo.

use std::collections::{BTreeMap, BTreeSet};

use pocketcard_protocol::EntropyError;
use pocketcard_protocol::apdu::StatusWord;
use zeroize::Zeroizing;

use super::key_record::KeyRecord;
use super::management_key::{self, ManagementKey};
use super::objects::{self, OBJECT_COUNT_LIMIT, OBJECT_LIMIT, ObjectTag, TOTAL_LIMIT};
use super::pin::{Candidate, DEFAULT_TRIES, ReferenceData, is_well_formed};
use super::policy::TouchPolicy;
use super::reference::{ManagementAlgorithm, PinReference, Slot};
use crate::card::CardError;
use crate::card::applet::Context;
use crate::card::probe::ProbePoint;
use crate::traits::{Batch, Entropy, KeyHandle, StateStore};

/// Every entry of the applet begins with this.
const NAMESPACE: &str = "piv/";
const MARK: &str = "piv/mark";
const IDENTITY: &str = "piv/identity";
const PIN: &str = "piv/pin";
const PUK: &str = "piv/puk";
const MANAGEMENT: &str = "piv/management";
const KEY_PREFIX: &str = "piv/key/";
const OBJECT_PREFIX: &str = "piv/object/";

/// The well-known PIN and PUK of a test card.
pub(crate) const WELL_KNOWN_PIN: Candidate<'static> = b"123456\xFF\xFF";
pub(crate) const WELL_KNOWN_PUK: Candidate<'static> = b"12345678";

/// Whose card it is. A state of one kind is never opened as the other: a test card's secrets are known to everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Made with the well-known PIN, PUK and management key.
    Test,
    /// Nothing matches until the owner has chosen a PIN.
    Owned,
}

impl Kind {
    const fn mark(self) -> &'static [u8] {
        match self {
            Self::Test => b"test 1",
            Self::Owned => b"owned 1",
        }
    }
}

/// What tells this card from every other.
pub(crate) struct Identity {
    pub(crate) serial: u32,
}

/// How one attempt at a PIN or PUK ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// It matched, and its try is back.
    Right,
    /// It did not; this many tries are left to the caller.
    Wrong(u8),
    /// No try was left, and nothing was compared.
    Blocked,
    /// The counter could not be stored; if that was before the comparison, nothing was compared.
    NotStored,
}

/// How many tries a right value leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RightLeaves {
    /// All: the command succeeds.
    AllTries,
    /// As many as before: the command is refused for something else.
    SameTries,
}

impl Attempt {
    /// The answer to a command that needed [`Attempt::Right`].
    pub(crate) const fn refusal(self) -> Option<StatusWord> {
        match self {
            Self::Right => None,
            Self::Wrong(0x0F..) => Some(StatusWord::RemainingTries(0x0F)),
            Self::Wrong(left) => Some(StatusWord::RemainingTries(left)),
            Self::Blocked => Some(StatusWord::AuthenticationMethodBlocked),
            Self::NotStored => Some(StatusWord::MemoryFailure),
        }
    }
}

/// The durable state of the PIV applet.
pub(crate) struct PivState {
    pub(crate) kind: Kind,
    pub(crate) identity: Identity,
    pin: ReferenceData,
    puk: ReferenceData,
    management: ManagementKey,
    keys: BTreeMap<Slot, KeyRecord>,
    objects: BTreeMap<ObjectTag, Zeroizing<Vec<u8>>>,
    /// Counts the changes of `objects` since the start.
    revision: u64,
}

impl PivState {
    /// Reads the state, or makes and stores that of a new card.
    pub(crate) fn load(kind: Kind, store: &dyn StateStore, entropy: &dyn Entropy) -> Result<Self, CardError> {
        let entries = store.load().map_err(CardError::Store)?;
        let entries: BTreeMap<_, _> = entries.into_iter().filter(|(name, _)| name.starts_with(NAMESPACE)).collect();
        let Some(mark) = entries.get(MARK) else {
            if !entries.is_empty() {
                return Err(CardError::Damaged("mark"));
            }
            let (state, batch) = Self::new_card(kind, entropy).map_err(CardError::Entropy)?;
            store.commit(batch).map_err(CardError::Store)?;
            return Ok(state);
        };
        match mark.as_slice() {
            mark if mark == kind.mark() => Self::read(kind, &entries),
            mark if mark == Kind::Test.mark() => Err(CardError::TestCard),
            mark if mark == Kind::Owned.mark() => Err(CardError::OwnedCard),
            _ => Err(CardError::Damaged("mark")),
        }
    }

    fn read(kind: Kind, entries: &BTreeMap<String, Zeroizing<Vec<u8>>>) -> Result<Self, CardError> {
        fn entry<T>(
            entries: &BTreeMap<String, Zeroizing<Vec<u8>>>,
            name: &'static str,
            read: impl FnOnce(&[u8]) -> Option<T>,
        ) -> Result<T, CardError> {
            entries.get(name).and_then(|bytes| read(bytes)).ok_or(CardError::Damaged(name))
        }
        let serial = entry(entries, IDENTITY, |bytes| Some(u32::from_be_bytes(bytes.try_into().ok()?)))?;
        let mut state = Self {
            kind,
            identity: Identity { serial },
            pin: entry(entries, PIN, ReferenceData::from_bytes)?,
            puk: entry(entries, PUK, ReferenceData::from_bytes)?,
            management: entry(entries, MANAGEMENT, ManagementKey::from_bytes)?,
            keys: BTreeMap::new(),
            objects: BTreeMap::new(),
            revision: 0,
        };
        for (name, bytes) in entries {
            if let Some(reference) = name.strip_prefix(KEY_PREFIX) {
                let slot = u8::from_str_radix(reference, 16).ok().and_then(Slot::from_reference);
                let record = KeyRecord::from_bytes(bytes);
                let (Some(slot), Some(record)) = (slot, record) else { return Err(CardError::Damaged("key")) };
                state.keys.insert(slot, record);
            } else if let Some(tag) = name.strip_prefix(OBJECT_PREFIX) {
                let tag = u32::from_str_radix(tag, 16).ok().and_then(tag_from_number);
                let Some(tag) = tag else { return Err(CardError::Damaged("object")) };
                state.objects.insert(tag, bytes.clone());
            }
        }
        Ok(state)
    }

    /// The state of a card that nobody has used, and the changes that make it durable. Its GUID and serial are new.
    fn new_card(kind: Kind, entropy: &dyn Entropy) -> Result<(Self, Batch), EntropyError> {
        fn random<const N: usize>(entropy: &dyn Entropy) -> Result<[u8; N], EntropyError> {
            let mut bytes = [0; N];
            entropy.fill(&mut bytes)?;
            Ok(bytes)
        }
        let guid = uuid_version_4(random(entropy)?);
        // Positive and printed with eight digits at most, as owners of security keys know it.
        let serial = u32::from_be_bytes(random(entropy)?) % 90_000_000 + 10_000_000;
        let (pin, puk) = match kind {
            Kind::Test => (
                ReferenceData::new(WELL_KNOWN_PIN, random(entropy)?, DEFAULT_TRIES, true),
                ReferenceData::new(WELL_KNOWN_PUK, random(entropy)?, DEFAULT_TRIES, true),
            ),
            Kind::Owned => (ReferenceData::unset(DEFAULT_TRIES), ReferenceData::unset(DEFAULT_TRIES)),
        };
        let key = match kind {
            Kind::Test => Zeroizing::new(management_key::WELL_KNOWN),
            Kind::Owned => Zeroizing::new(random(entropy)?),
        };
        let management = ManagementKey::new(ManagementAlgorithm::Aes192, TouchPolicy::Never, key.as_slice());
        // A key of 24 octets is one of AES-192.
        let management = management.ok_or(EntropyError)?;
        let objects = BTreeMap::from([
            (ObjectTag::CHUID, Zeroizing::new(objects::chuid(&guid))),
            (ObjectTag::CAPABILITY, Zeroizing::new(objects::capability_container(&random(entropy)?))),
        ]);
        let mut batch = Batch::new();
        batch.put(MARK, kind.mark());
        batch.put(IDENTITY, &serial.to_be_bytes());
        batch.put(PIN, &pin.to_bytes());
        batch.put(PUK, &puk.to_bytes());
        batch.put(MANAGEMENT, &management.to_bytes());
        for (tag, content) in &objects {
            batch.put(&object_entry(*tag), content);
        }
        let state = Self {
            kind,
            identity: Identity { serial },
            pin,
            puk,
            management,
            keys: BTreeMap::new(),
            objects,
            revision: 0,
        };
        Ok((state, batch))
    }

    pub(crate) const fn reference(&self, reference: PinReference) -> &ReferenceData {
        match reference {
            PinReference::Pin => &self.pin,
            PinReference::Puk => &self.puk,
        }
    }

    pub(crate) const fn management(&self) -> &ManagementKey {
        &self.management
    }

    pub(crate) fn key(&self, slot: Slot) -> Option<&KeyRecord> {
        self.keys.get(&slot)
    }

    pub(crate) fn key_handles(&self) -> Vec<KeyHandle> {
        self.keys.values().map(|record| record.handle.clone()).collect()
    }

    /// The keys in the slots that fit.
    pub(crate) fn key_handles_in(&self, fits: impl Fn(Slot) -> bool) -> BTreeSet<KeyHandle> {
        let keys = self.keys.iter().filter(|(slot, _)| fits(**slot));
        keys.map(|(_, record)| record.handle.clone()).collect()
    }

    /// Content of an object that somebody wrote.
    pub(crate) fn object(&self, tag: ObjectTag) -> Option<&[u8]> {
        self.objects.get(&tag).map(|content| content.as_slice())
    }

    /// The objects that somebody wrote.
    pub(crate) fn object_tags(&self) -> impl Iterator<Item = ObjectTag> {
        self.objects.keys().copied()
    }

    /// Another number after every change of an object.
    pub(crate) const fn revision(&self) -> u64 {
        self.revision
    }

    /// The highest retired slot that has a certificate, 0 without any.
    pub(crate) fn highest_retired_certificate(&self) -> u8 {
        let slots = self.objects.keys().filter_map(|tag| objects::retired_slot(*tag));
        slots.map(|index| index.number()).max().unwrap_or(0)
    }

    /// Compares `candidate` with a reference. The try is durably spent first; `kept` tries are not the caller's to use.
    pub(crate) fn attempt(
        &mut self,
        which: PinReference,
        candidate: Candidate<'_>,
        kept: u8,
        leaves: RightLeaves,
        context: &Context<'_>,
    ) -> Attempt {
        let left = self.reference(which).tries_left;
        let Some(remaining) = left.checked_sub(1).filter(|remaining| *remaining >= kept) else {
            return Attempt::Blocked;
        };
        context.reached(ProbePoint::VerifyBeforeCommit);
        if self.set_reference(which, self.reference(which).with_tries_left(remaining), context).is_err() {
            return Attempt::NotStored;
        }
        context.reached(ProbePoint::VerifyAfterCommit);
        let right = is_well_formed(which, candidate) && self.reference(which).matches(candidate);
        context.reached(ProbePoint::VerifyCompared);
        if !right {
            return Attempt::Wrong(remaining - kept);
        }
        let tries = match leaves {
            RightLeaves::AllTries => self.reference(which).tries,
            RightLeaves::SameTries => left,
        };
        match self.set_reference(which, self.reference(which).with_tries_left(tries), context) {
            Ok(()) => Attempt::Right,
            Err(_) => Attempt::NotStored,
        }
    }

    /// Replaces a PIN or PUK, its tries or what is left of them.
    pub(crate) fn set_reference(
        &mut self,
        which: PinReference,
        data: ReferenceData,
        context: &Context<'_>,
    ) -> Result<(), StatusWord> {
        let mut batch = Batch::new();
        let (entry, place) = match which {
            PinReference::Pin => (PIN, &mut self.pin),
            PinReference::Puk => (PUK, &mut self.puk),
        };
        batch.put(entry, &data.to_bytes());
        commit(context, batch)?;
        *place = data;
        Ok(())
    }

    /// Replaces PIN and PUK together.
    pub(crate) fn set_references(
        &mut self,
        pin: ReferenceData,
        puk: ReferenceData,
        context: &Context<'_>,
    ) -> Result<(), StatusWord> {
        let mut batch = Batch::new();
        batch.put(PIN, &pin.to_bytes());
        batch.put(PUK, &puk.to_bytes());
        commit(context, batch)?;
        self.pin = pin;
        self.puk = puk;
        Ok(())
    }

    pub(crate) fn set_management(&mut self, key: ManagementKey, context: &Context<'_>) -> Result<(), StatusWord> {
        let mut batch = Batch::new();
        batch.put(MANAGEMENT, &key.to_bytes());
        commit(context, batch)?;
        self.management = key;
        Ok(())
    }

    /// Writes an object; empty content deletes it.
    pub(crate) fn put_object(
        &mut self,
        tag: ObjectTag,
        content: &[u8],
        context: &Context<'_>,
    ) -> Result<(), StatusWord> {
        let mut batch = Batch::new();
        if content.is_empty() {
            batch.delete(&object_entry(tag));
            commit(context, batch)?;
            self.objects.remove(&tag);
            self.revision += 1;
            return Ok(());
        }
        let others = self.objects.iter().filter(|(other, _)| **other != tag);
        let (count, total) = others.fold((0, 0), |(count, total), (_, content)| (count + 1, total + content.len()));
        if content.len() > OBJECT_LIMIT || count >= OBJECT_COUNT_LIMIT || total + content.len() > TOTAL_LIMIT {
            return Err(StatusWord::NotEnoughMemory);
        }
        batch.put(&object_entry(tag), content);
        commit(context, batch)?;
        self.objects.insert(tag, Zeroizing::new(content.to_vec()));
        self.revision += 1;
        Ok(())
    }

    /// Names a key that the key store holds already; gives back the one that it replaces.
    pub(crate) fn put_key(
        &mut self,
        slot: Slot,
        record: KeyRecord,
        context: &Context<'_>,
    ) -> Result<Option<KeyRecord>, StatusWord> {
        let mut batch = Batch::new();
        batch.put(&key_entry(slot), &record.to_bytes());
        commit(context, batch)?;
        Ok(self.keys.insert(slot, record))
    }

    /// Moves a key to an empty slot.
    pub(crate) fn move_key(&mut self, from: Slot, to: Slot, context: &Context<'_>) -> Result<(), StatusWord> {
        let record = self.keys.get(&from).ok_or(StatusWord::ReferenceNotFound)?.clone();
        if self.keys.contains_key(&to) {
            return Err(StatusWord::WrongData);
        }
        let mut batch = Batch::new();
        batch.delete(&key_entry(from));
        batch.put(&key_entry(to), &record.to_bytes());
        commit(context, batch)?;
        self.keys.remove(&from);
        self.keys.insert(to, record);
        Ok(())
    }

    /// Forgets a key; the caller has it destroyed.
    pub(crate) fn remove_key(&mut self, slot: Slot, context: &Context<'_>) -> Result<KeyRecord, StatusWord> {
        let record = self.keys.get(&slot).ok_or(StatusWord::ReferenceNotFound)?.clone();
        let mut batch = Batch::new();
        batch.delete(&key_entry(slot));
        commit(context, batch)?;
        self.keys.remove(&slot);
        Ok(record)
    }

    /// Makes the card new: no keys, no objects of others, new GUID and serial, initial PIN, PUK and management key.
    pub(crate) fn factory_reset(&mut self, context: &Context<'_>) -> Result<Vec<KeyHandle>, StatusWord> {
        let (mut state, created) = Self::new_card(self.kind, context.entropy).map_err(|_| StatusWord::NoDiagnosis)?;
        let mut batch = Batch::new();
        for slot in self.keys.keys() {
            batch.delete(&key_entry(*slot));
        }
        for tag in self.objects.keys() {
            batch.delete(&object_entry(*tag));
        }
        for entry in created.entries() {
            if let (Some(value), true) = (&entry.value, entry.key != IDENTITY) {
                batch.put(&entry.key, value);
            }
        }
        // The serial number is the phone's: people have written it down.
        state.identity = Identity { serial: self.identity.serial };
        state.revision = self.revision + 1;
        commit(context, batch)?;
        let handles = self.key_handles();
        *self = state;
        Ok(handles)
    }
}

fn commit(context: &Context<'_>, batch: Batch) -> Result<(), StatusWord> {
    context.store.commit(batch).map_err(|_| StatusWord::MemoryFailure)
}

fn key_entry(slot: Slot) -> String {
    format!("{KEY_PREFIX}{slot}")
}

fn object_entry(tag: ObjectTag) -> String {
    format!("{OBJECT_PREFIX}{:06X}", tag.number())
}

fn tag_from_number(number: u32) -> Option<ObjectTag> {
    let bytes = number.to_be_bytes();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    ObjectTag::from_bytes(bytes.get(zeros..)?)
}

/// Spec: RFC 9562, section 5.4
const fn uuid_version_4(mut random: [u8; 16]) -> [u8; 16] {
    random[6] = random[6] & 0x0F | 0x40;
    random[8] = random[8] & 0x3F | 0x80;
    random
}
