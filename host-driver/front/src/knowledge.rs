//! What the front knows about the card for certain, and the commands it may therefore answer itself.
//!
//! Spec: SPEC.md section 7.7

use pocketcard_protocol::apdu::{Command, Response, StatusWord};
use pocketcard_protocol::messages;
use pocketcard_protocol::snapshot::{Object, Snapshot, SnapshotDigest};

const VERIFY: u8 = 0x20;
const SELECT: u8 = 0xA4;
const GET_RESPONSE: u8 = 0xC0;
const GET_DATA: u8 = 0xCB;
const GET_SERIAL: u8 = 0xF8;
const GET_VERSION: u8 = 0xFD;

/// Names of applications, ISO/IEC 7816-4: a provider's five bytes, and up to eleven of its own.
const NAME_LENGTHS: std::ops::RangeInclusive<usize> = 5..=16;

/// The security state that the phone announced last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Security {
    /// Whether the PIN is verified in this card session.
    pub pin_verified: bool,
    /// Tries left, or `None` if the phone has not said.
    pub pin_tries_left: Option<u32>,
}

/// Everything that is known of one card session; dropped with it.
#[derive(Debug)]
pub(crate) struct Knowledge {
    /// The reset epoch that programs are in; the phone may not have heard of it yet.
    epoch: u64,
    version: u64,
    security: Security,
    /// The snapshot that the phone announced last.
    snapshot: Option<SnapshotDigest>,
    /// A command was given up, and it is not known yet what it did.
    unsettled: bool,
    selected: Selected,
    /// The SELECT under way.
    selecting: Option<Selected>,
}

/// Which application programs talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Selected {
    /// The one that is selected after a reset.
    Default,
    /// The first one whose identifier begins with this.
    Named(Vec<u8>),
    /// It is not known.
    Unknown,
}

impl Knowledge {
    /// A session that was opened in this epoch of the programs.
    pub(crate) fn new(epoch: u64) -> Self {
        Self {
            epoch,
            version: 0,
            security: Security::default(),
            snapshot: None,
            unsettled: true,
            selected: Selected::Default,
            selecting: None,
        }
    }

    /// Takes the phone's announcement; one that is older than what is known changes nothing.
    pub(crate) fn announce(&mut self, state: &messages::SecurityState) {
        if state.version < self.version {
            return;
        }
        // Said after the reset that ended what was given up.
        self.unsettled &= state.epoch != self.epoch;
        self.version = state.version;
        self.snapshot = SnapshotDigest::from_field(&state.snapshot_digest);
        // What was verified before the last reset is not any more, even if the phone has not heard of that yet.
        let pin_verified = state.pin_verified && (state.epoch == self.epoch || state.epoch == 0);
        self.security = Security { pin_verified, pin_tries_left: Some(state.pin_tries_left) };
    }

    /// A command goes to the card.
    pub(crate) fn sent(&mut self, command: &Command) {
        self.selecting = (command.ins() == SELECT).then(|| match select_by_name(command) {
            Some(name) => Selected::Named(name.to_vec()),
            None => Selected::Unknown,
        });
    }

    /// The response to the command under way says what holds after it. If that is newer than what was announced, what is
    /// known is stale until its announcement arrives.
    pub(crate) fn response(&mut self, response: &messages::Response, status: StatusWord) {
        if response.security_version > self.version {
            self.version = response.security_version;
            self.security.pin_tries_left = None;
        }
        self.snapshot = SnapshotDigest::from_field(&response.snapshot_digest);
        self.unsettled = false;
        if let Some(selected) = self.selecting.take() {
            match status {
                StatusWord::Success => self.selected = selected,
                StatusWord::NotFound => {}
                _ => self.selected = Selected::Unknown,
            }
        }
    }

    /// The card was reset: nothing is verified any more.
    ///
    /// - `given_up`: a command was under way.
    pub(crate) fn reset(&mut self, epoch: u64, given_up: bool) {
        self.epoch = epoch;
        self.security.pin_verified = false;
        self.unsettled |= given_up;
        self.selected = Selected::Default;
        self.selecting = None;
    }

    pub(crate) fn security(&self) -> Security {
        self.security
    }

    /// The snapshot that the phone announced last.
    pub(crate) fn snapshot(&self) -> Option<SnapshotDigest> {
        self.snapshot
    }

    /// The card's answer, if it is certain.
    ///
    /// - `snapshot`: the one that the phone announced last, if it is held.
    pub(crate) fn answer(&self, command: &Command, snapshot: Option<&Snapshot>) -> Option<Response> {
        // Without an announced snapshot the phone has promised nothing.
        if self.unsettled || self.snapshot.is_none() || command.cla() != 0 {
            return None;
        }
        if command.ins() == SELECT {
            return self.select(command, snapshot?);
        }
        if !self.is_default_selected(snapshot) {
            return None;
        }
        match (command.ins(), command.p1(), command.p2(), command.data()) {
            (VERIFY, 0x00, 0x80, []) => self.pin_status().map(Response::status_only),
            (GET_DATA, 0x3F, 0xFF, &[0x5C, length, ref tag @ ..]) if usize::from(length) == tag.len() => {
                self.object(tag_number(tag)?, snapshot?)
            }
            (GET_VERSION, 0x00, 0x00, []) => success(snapshot?.version()),
            (GET_SERIAL, 0x00, 0x00, []) => success(snapshot?.serial()),
            (GET_RESPONSE, ..) => None,
            (instruction, ..) => {
                let unknown = !snapshot?.knows(instruction);
                unknown.then(|| Response::status_only(StatusWord::InstructionNotSupported))
            }
        }
    }

    /// Selecting what is selected already, or what the card does not have, changes nothing on it.
    fn select(&self, command: &Command, snapshot: &Snapshot) -> Option<Response> {
        match snapshot.application(select_by_name(command)?) {
            None => Some(Response::status_only(StatusWord::NotFound)),
            Some(0) if self.is_default_selected(Some(snapshot)) => match command.p2() {
                0x00 => success(snapshot.template()),
                _ => Some(Response::status_only(StatusWord::Success)),
            },
            Some(_) => None,
        }
    }

    fn object(&self, tag: u32, snapshot: &Snapshot) -> Option<Response> {
        match snapshot.object(tag) {
            Some(Object::Always(data)) => success(data),
            None => Some(Response::status_only(StatusWord::NotFound)),
            Some(Object::Pin) => {
                let refused = !self.pin_status()?.is_success();
                refused.then(|| Response::status_only(StatusWord::SecurityStatusNotSatisfied))
            }
        }
    }

    /// What VERIFY without data answers.
    fn pin_status(&self) -> Option<StatusWord> {
        let tries = self.security.pin_tries_left?;
        Some(match (self.security.pin_verified, tries) {
            (true, _) => StatusWord::Success,
            (false, 0) => StatusWord::AuthenticationMethodBlocked,
            (false, tries) => StatusWord::RemainingTries(u8::try_from(tries).unwrap_or(u8::MAX).min(15)),
        })
    }

    fn is_default_selected(&self, snapshot: Option<&Snapshot>) -> bool {
        match &self.selected {
            Selected::Default => true,
            Selected::Named(name) => snapshot.is_some_and(|snapshot| snapshot.application(name) == Some(0)),
            Selected::Unknown => false,
        }
    }
}

/// Whether a snapshot could answer such a command.
pub(crate) fn is_worth_a_snapshot(command: &Command) -> bool {
    command.cla() == 0 && matches!(command.ins(), SELECT | GET_DATA)
}

/// The name in a SELECT of an application by its name, the first of that name.
fn select_by_name(command: &Command) -> Option<&[u8]> {
    let by_name = (command.cla(), command.p1()) == (0, 0x04) && matches!(command.p2(), 0x00 | 0x0C);
    Some(command.data()).filter(|name| by_name && NAME_LENGTHS.contains(&name.len()))
}

/// A tag of one to three bytes; one that begins with 0 is none.
fn tag_number(tag: &[u8]) -> Option<u32> {
    let well_formed = (1..=3).contains(&tag.len()) && tag.first() != Some(&0);
    well_formed.then(|| tag.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

/// Data that the card answers with `90 00`; `None` where the snapshot leaves it to the card.
fn success(data: &[u8]) -> Option<Response> {
    (!data.is_empty()).then(|| Response::new(data, StatusWord::Success))
}

#[cfg(test)]
mod tests;
