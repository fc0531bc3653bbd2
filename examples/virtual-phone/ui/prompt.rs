//! What the owner is asked, one at a time.

use async_channel::Sender;
use pocketcard_phone::{ApprovalDecision, EnteredPin, NewPin, OwnerDecision, PinAnswer, PinPurpose, PinRequest};
use ratatui::crossterm::event::KeyCode;
use zeroize::Zeroizing;

use super::{field::Field, wish::Wish, words};
use crate::approver::Asked;

/// Something that the owner must answer.
pub(super) enum Prompt {
    Digits {
        digits: String,
        host: String,
    },
    Approval {
        id: u64,
        host: String,
        text: String,
        answer: Sender<ApprovalDecision>,
    },
    Pin {
        id: u64,
        entry: PinEntry,
        answer: Sender<PinAnswer>,
    },
    Owner {
        id: u64,
        host: String,
        answer: Sender<OwnerDecision>,
    },
    /// The question that was here is over, and its owner may not have seen that yet.
    Over,
}

/// A PIN or PUK that is being typed, and a new one twice where that is asked for.
pub(super) struct PinEntry {
    pub(super) host: String,
    pub(super) purpose: PinPurpose,
    pub(super) tries_left: u8,
    pub(super) fields: Vec<Field>,
    pub(super) at: usize,
}

pub(super) enum Answered {
    NotYet,
    Done,
    DoneBy(Wish),
}

impl Prompt {
    pub(super) fn new(id: u64, asked: Asked) -> Self {
        match asked {
            Asked::Approval(request, answer) => {
                let text = words::wish(&request);
                Self::Approval { id, host: request.host_name, text, answer }
            }
            Asked::Pin(request, answer) => Self::Pin { id, entry: PinEntry::new(request), answer },
            Asked::Owner(check, answer) => Self::Owner { id, host: check.host_name, answer },
        }
    }

    /// The number of the card's question; the digits of a pairing are none.
    pub(super) const fn id(&self) -> Option<u64> {
        match self {
            Self::Digits { .. } | Self::Over => None,
            Self::Approval { id, .. } | Self::Pin { id, .. } | Self::Owner { id, .. } => Some(*id),
        }
    }

    pub(super) fn pressed(&mut self, key: KeyCode) -> Answered {
        let agree = match key {
            KeyCode::Char('y') => Some(true),
            KeyCode::Char('n') => Some(false),
            _ => None,
        };
        match self {
            Self::Digits { .. } => match (agree, key) {
                (Some(agree), _) => return Answered::DoneBy(Wish::Confirm(agree)),
                (None, KeyCode::Esc) => return Answered::DoneBy(Wish::Confirm(false)),
                _ => return Answered::NotYet,
            },
            Self::Approval { answer, .. } => {
                let decision = match (agree, key) {
                    (Some(true), _) => ApprovalDecision::Approved,
                    (Some(false), _) | (None, KeyCode::Esc) => ApprovalDecision::Denied,
                    _ => return Answered::NotYet,
                };
                let _ = answer.try_send(decision);
            }
            Self::Owner { answer, .. } => {
                let decision = match (agree, key) {
                    (Some(true), _) => OwnerDecision::Matched,
                    (Some(false), _) => OwnerDecision::NotMatched,
                    (None, KeyCode::Esc) => OwnerDecision::Cancelled,
                    _ => return Answered::NotYet,
                };
                let _ = answer.try_send(decision);
            }
            Self::Pin { entry, answer, .. } => match entry.pressed(key) {
                Some(entered) => drop(answer.try_send(entered)),
                None => return Answered::NotYet,
            },
            Self::Over => match key {
                KeyCode::Enter | KeyCode::Esc => {}
                _ => return Answered::NotYet,
            },
        }
        Answered::Done
    }

    pub(super) fn paste(&mut self, text: &str) {
        if let Self::Pin { entry, .. } = self
            && let Some(field) = entry.fields.get_mut(entry.at)
        {
            field.paste(text);
        }
    }

    /// Whether something was typed that has not gone out.
    pub(super) fn is_being_typed(&self) -> bool {
        matches!(self, Self::Pin { entry, .. } if entry.fields.iter().any(|field| !field.value().is_empty()))
    }

    pub(super) const fn title(&self) -> &'static str {
        match self {
            Self::Digits { .. } => "Does the computer show the same digits?",
            Self::Approval { .. } => "Approve?",
            Self::Pin { entry, .. } => entry.title(),
            Self::Owner { .. } => "Face or finger (stand-in)",
            Self::Over => "Too late",
        }
    }

    /// The keys that answer it.
    pub(super) const fn help(&self) -> &'static str {
        match self {
            Self::Digits { .. } | Self::Approval { .. } => "y yes    n no",
            Self::Pin { .. } => "Enter goes on    Esc cancel",
            Self::Owner { .. } => "y it is the owner    n it is not    Esc cancel",
            Self::Over => "Esc goes on",
        }
    }
}

impl PinEntry {
    fn new(request: PinRequest) -> Self {
        let PinRequest { host_name: host, purpose, tries_left, .. } = request;
        let labels: &[&'static str] = match purpose {
            PinPurpose::Change => &["PIN", "New PIN", "New PIN again"],
            PinPurpose::ChangePuk => &["PUK", "New PUK", "New PUK again"],
            PinPurpose::Unblock => &["PUK", "New PIN", "New PIN again"],
            _ => &["PIN"],
        };
        let fields = labels.iter().map(|label| Field::secret(label)).collect();
        Self { host, purpose, tries_left, fields, at: 0 }
    }

    const fn title(&self) -> &'static str {
        match self.purpose {
            PinPurpose::ChangePuk | PinPurpose::Unblock => "Enter the PUK",
            _ => "Enter the PIN",
        }
    }

    fn pressed(&mut self, key: KeyCode) -> Option<PinAnswer> {
        let last = self.fields.len().saturating_sub(1);
        match key {
            KeyCode::Esc => return Some(PinAnswer::Cancelled),
            KeyCode::Up | KeyCode::BackTab => self.at = self.at.saturating_sub(1),
            KeyCode::Down | KeyCode::Tab => self.at = (self.at + 1).min(last),
            KeyCode::Enter if self.at < last => self.at += 1,
            KeyCode::Enter => return Some(PinAnswer::Entered(self.entered())),
            key => {
                if let Some(field) = self.fields.get_mut(self.at) {
                    field.pressed(key);
                }
            }
        }
        None
    }

    /// The card checks the form and compares the two new ones.
    fn entered(&self) -> EnteredPin {
        let value = |at: usize| Zeroizing::new(self.fields.get(at).map_or("", Field::value).to_owned());
        let new = self.purpose.asks_for_new().then(|| NewPin { value: value(1), repeated: value(2) });
        EnteredPin { current: value(0), new }
    }
}
