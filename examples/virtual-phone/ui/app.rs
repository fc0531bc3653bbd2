//! What the screen shows.

use std::collections::VecDeque;

use async_channel::Sender;
use pocketcard_phone::{
    ApprovalDecision,
    card::CardEvent,
    runtime::{HostInfo, PhoneEvent},
};
use zeroize::Zeroizing;

use crate::{
    approver::{Asked, Question},
    arguments::Arguments,
    events,
};

const LOG_LINES: usize = 500;

/// Something that the owner must answer.
pub(super) enum Prompt {
    Digits { digits: String, host: String },
    Approval { id: u64, host: String, text: String, answer: Sender<ApprovalDecision> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Bad,
    Quiet,
}

pub(super) struct App {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) address: String,
    pub(super) enrolled: bool,
    pub(super) auto_approve: bool,
    pub(super) locked: bool,
    pub(super) hosts: Vec<HostInfo>,
    pub(super) selected: usize,
    pub(super) prompts: VecDeque<Prompt>,
    /// The QR text that is being typed; it is a secret, so only its length is shown.
    pub(super) typing: Option<Zeroizing<String>>,
    pub(super) log: VecDeque<(Tone, String)>,
    pub(super) notice: String,
    hosts_changed: bool,
}

impl App {
    pub(super) fn new(arguments: &Arguments, address: &str, enrolled: bool) -> Self {
        Self {
            name: arguments.name.clone(),
            state: arguments.state.display().to_string(),
            address: address.to_owned(),
            enrolled,
            auto_approve: arguments.auto_approve,
            locked: false,
            hosts: Vec::new(),
            selected: 0,
            prompts: VecDeque::new(),
            typing: None,
            log: VecDeque::new(),
            notice: String::new(),
            hosts_changed: false,
        }
    }

    pub(super) fn set_hosts(&mut self, hosts: Vec<HostInfo>) {
        self.hosts = hosts;
        self.selected = self.selected.min(self.hosts.len().saturating_sub(1));
    }

    pub(super) fn take_hosts_changed(&mut self) -> bool {
        std::mem::take(&mut self.hosts_changed)
    }

    pub(super) fn selected_host(&self) -> Option<&HostInfo> {
        self.hosts.get(self.selected)
    }

    pub(super) fn write(&mut self, tone: Tone, text: String) {
        if self.log.len() == LOG_LINES {
            self.log.pop_front();
        }
        self.log.push_back((tone, text));
    }

    pub(super) fn question(&mut self, question: Question) {
        match question {
            Question::Asked { id, asked: Asked::Approval(request, answer) } => {
                let text = match events::purpose(&request) {
                    "sign" => format!("sign with key {:02X}", request.key),
                    "decrypt" => format!("decrypt with key {:02X}", request.key),
                    "agree" => format!("agree on a secret with key {:02X}", request.key),
                    "administer" => format!("change the card (key {:02X})", request.key),
                    other => format!("{other} key {:02X}", request.key),
                };
                self.prompts.push_back(Prompt::Approval { id, host: request.host_name, text, answer });
            }
            // Asked and gone: nobody answers.
            Question::Asked { .. } => {}
            Question::Gone { id: gone } => {
                self.prompts.retain(|prompt| !matches!(prompt, Prompt::Approval { id, .. } if *id == gone));
            }
        }
    }

    pub(super) fn happened(&mut self, event: &PhoneEvent) {
        match event {
            PhoneEvent::Connected { name, .. } => self.host_changed(Tone::Good, format!("{name} connected")),
            PhoneEvent::Disconnected { name, reason, .. } => {
                self.host_changed(Tone::Quiet, format!("{name} disconnected: {reason}"));
            }
            PhoneEvent::LinkRefused { reason } => self.write(Tone::Bad, format!("a connection ended: {reason}")),
            PhoneEvent::PairingDigits { digits, host_name, .. } => {
                self.prompts.push_front(Prompt::Digits { digits: digits.to_string(), host: host_name.clone() });
            }
            PhoneEvent::PairingPeerConfirmed => self.write(Tone::Plain, "the computer confirmed the digits".to_owned()),
            PhoneEvent::Paired { name, .. } => {
                self.end_pairing();
                self.host_changed(Tone::Good, format!("paired with {name}"));
            }
            PhoneEvent::PairingFailed { reason } => {
                self.end_pairing();
                self.write(Tone::Bad, format!("not paired: {}", events::pairing_failure(reason)));
            }
            PhoneEvent::Forgotten { name, .. } => self.host_changed(Tone::Plain, format!("{name} forgotten")),
            PhoneEvent::Card(event) => self.card(event),
            _ => {}
        }
    }

    fn card(&mut self, event: &CardEvent) {
        match event {
            CardEvent::Command { caller, command, status, duration, .. } => {
                let tone = if status.is_success() { Tone::Plain } else { Tone::Bad };
                let milliseconds = duration.as_secs_f64() * 1000.0;
                let status = u16::from(*status);
                self.write(tone, format!("{}  {command}  {status:04X}  {milliseconds:.1} ms", caller.name()));
            }
            CardEvent::Cancelled { caller, command, .. } => {
                self.write(Tone::Quiet, format!("{}  {command}  cancelled", caller.name()));
            }
            CardEvent::SessionOpened { host_name, software, resumed, .. } => {
                let how = if *resumed { "resumed" } else { "began" };
                self.write(Tone::Quiet, format!("{host_name} {how} a card session ({software})"));
            }
            CardEvent::SecurityChanged { pin_verified, pin_tries_left, .. } => {
                let state = if *pin_verified { "PIN verified" } else { "PIN not verified" };
                self.write(Tone::Quiet, format!("{state}, {pin_tries_left} tries left"));
            }
            CardEvent::Locked(locked) => self.locked = *locked,
            CardEvent::SessionClosed { .. } => self.write(Tone::Quiet, "card session over".to_owned()),
            _ => {}
        }
    }

    fn host_changed(&mut self, tone: Tone, text: String) {
        self.hosts_changed = true;
        self.write(tone, text);
    }

    fn end_pairing(&mut self) {
        self.prompts.retain(|prompt| !matches!(prompt, Prompt::Digits { .. }));
    }
}
