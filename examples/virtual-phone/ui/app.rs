//! What the screen shows, and what a key does to it. No input, no output: what is to be done comes out as a [`Wish`].

use std::collections::{HashSet, VecDeque};

use pocketcard_phone::{
    HostId,
    card::CardEvent,
    runtime::{HostInfo, KeyProgress, KeyStage, PhoneEvent},
};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind};

use super::{
    form::{Form, Pressed, Purpose},
    prompt::{Answered, Prompt},
    screen::{CardView, LogView, PermissionList, Screen, Step},
    wish::{Outcome, Wish},
    words,
};
use crate::{approver::Question, arguments::Arguments, events};

const LINES: usize = 500;

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
    pub(super) held: HashSet<HostId>,
    pub(super) selected: usize,
    pub(super) screen: Screen,
    pub(super) form: Option<Form>,
    /// What waits for an answer; the first is shown, the others wait in line.
    pub(super) prompts: VecDeque<Prompt>,
    /// Whether the owner left a form to answer.
    answering: bool,
    pub(super) happened: VecDeque<(Tone, String)>,
    pub(super) progress: Option<KeyProgress>,
    pub(super) notice: String,
    /// Whether the hosts are to be asked for again.
    pub(super) hosts_changed: bool,
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
            held: HashSet::new(),
            selected: 0,
            screen: Screen::Main,
            form: None,
            prompts: VecDeque::new(),
            answering: false,
            happened: VecDeque::new(),
            progress: None,
            notice: String::new(),
            hosts_changed: false,
        }
    }

    pub(super) fn set_hosts(&mut self, hosts: Vec<HostInfo>) {
        (self.hosts, self.hosts_changed) = (hosts, false);
        self.selected = self.selected.min(self.hosts.len().saturating_sub(1));
        let gone = match &self.screen {
            Screen::Permissions(list) => self.host(list.host).is_none(),
            _ => false,
        };
        if gone {
            self.screen = Screen::Main;
        }
    }

    pub(super) fn host(&self, host: HostId) -> Option<&HostInfo> {
        self.hosts.iter().find(|info| info.host == host)
    }

    /// The question that is to be shown and answered. One never covers a form by itself: what is being typed must not become its
    /// answer.
    pub(super) fn prompt(&self) -> Option<&Prompt> {
        self.prompts.front().filter(|_| self.form.is_none() || self.answering)
    }

    /// Whether `q` ends the program rather than going elsewhere.
    pub(super) fn is_at_home(&self) -> bool {
        self.prompts.is_empty() && self.form.is_none() && matches!(self.screen, Screen::Main)
    }

    pub(super) fn question(&mut self, question: Question) {
        match question {
            Question::Asked { id, asked } => self.prompts.push_back(Prompt::new(id, asked)),
            Question::Gone { id } => {
                let shown = self.prompt().filter(|prompt| prompt.id() == Some(id));
                // What is still being typed must become neither the answer to the next question nor a key of the page behind.
                let over = shown.is_some_and(|prompt| prompt.is_being_typed() || self.prompts.len() > 1);
                self.prompts.retain(|prompt| prompt.id() != Some(id));
                if over {
                    self.prompts.push_front(Prompt::Over);
                }
            }
        }
        self.answering &= !self.prompts.is_empty();
    }

    pub(super) fn became(&mut self, outcome: Outcome) -> Option<Wish> {
        match outcome {
            Outcome::Said(text) => self.notice = text,
            Outcome::CardChanged(text) => {
                (self.notice, self.progress) = (text, None);
                return Some(Wish::ReadCard);
            }
            Outcome::Failed(text) => (self.notice, self.progress) = (format!("Not done: {text}."), None),
            Outcome::Log(entries) => self.screen = Screen::Log(LogView::new(entries)),
            Outcome::Card(slots, tries) => {
                self.enrolled = !tries.are_over();
                match &mut self.screen {
                    Screen::Card(view) => (view.slots, view.tries) = (slots, tries),
                    _ => self.screen = Screen::Card(CardView::new(slots, tries)),
                }
            }
        }
        None
    }

    pub(super) fn pressed(&mut self, key: KeyEvent) -> Option<Wish> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        if self.prompt().is_some() {
            return self.answer(key.code);
        }
        if let Some(form) = &mut self.form {
            if key.code == KeyCode::F(2) {
                self.answering = !self.prompts.is_empty();
                return None;
            }
            return match form.pressed(key.code) {
                Pressed::Nothing => None,
                Pressed::Closed => {
                    self.form = None;
                    None
                }
                Pressed::Finished(wish) => {
                    self.form = None;
                    Some(wish)
                }
            };
        }
        self.notice.clear();
        let permissions = match &self.screen {
            Screen::Permissions(list) => self.host(list.host).map(|info| info.permissions.clone()),
            _ => None,
        };
        let step = match (&mut self.screen, permissions) {
            (Screen::Main, _) => self.pressed_at_home(key.code),
            (Screen::Permissions(list), Some(permissions)) => list.pressed(key.code, &permissions),
            (Screen::Permissions(_), None) => Step::Back,
            (Screen::Log(view), _) => view.pressed(key.code),
            (Screen::Card(view), _) => view.pressed(key.code),
        };
        match step {
            Step::Stay => None,
            Step::Back => {
                self.screen = Screen::Main;
                None
            }
            Step::Do(wish) => Some(wish),
            Step::Ask(form) => {
                self.form = Some(form);
                None
            }
        }
    }

    /// Pasted text goes where typed text would; where nothing is typed it is a QR text.
    pub(super) fn pasted(&mut self, text: &str) -> Option<Wish> {
        let covered = self.form.is_some() && !self.answering;
        if let Some(prompt) = self.prompts.front_mut().filter(|_| !covered) {
            prompt.paste(text);
            return None;
        }
        if let Some(form) = &mut self.form {
            form.paste(text);
            return None;
        }
        let mut form = Form::new(Purpose::Scan);
        form.paste(text);
        self.form = Some(form);
        self.pressed(KeyEvent::from(KeyCode::Enter))
    }

    fn answer(&mut self, key: KeyCode) -> Option<Wish> {
        let answered = self.prompts.front_mut()?.pressed(key);
        if !matches!(answered, Answered::NotYet) {
            self.prompts.pop_front();
            self.answering &= !self.prompts.is_empty();
        }
        if let Answered::DoneBy(wish) = answered { Some(wish) } else { None }
    }

    fn pressed_at_home(&mut self, key: KeyCode) -> Step {
        let selected = self.hosts.get(self.selected).map(|info| info.host);
        match (key, selected) {
            (KeyCode::Char('p'), _) => return Step::Ask(Form::new(Purpose::Scan)),
            (KeyCode::Char('c'), _) => return Step::Do(Wish::Compare),
            (KeyCode::Char('x'), _) => return Step::Do(Wish::CancelPairing),
            (KeyCode::Char('l'), _) => return Step::Do(if self.locked { Wish::Unlock } else { Wish::Lock }),
            (KeyCode::Char('o'), _) => return Step::Do(Wish::OwnerPresent),
            (KeyCode::Char('v'), _) => return Step::Do(Wish::ReadLog),
            (KeyCode::Char('e'), _) => return Step::Do(Wish::ReadCard),
            (KeyCode::Up, _) => self.selected = self.selected.saturating_sub(1),
            (KeyCode::Down, _) => self.selected = (self.selected + 1).min(self.hosts.len().saturating_sub(1)),
            (KeyCode::Enter, Some(host)) => self.screen = Screen::Permissions(PermissionList::new(host)),
            (KeyCode::Char('r'), Some(host)) => return Step::Ask(Form::new(Purpose::Rename(host))),
            (KeyCode::Char('F'), Some(host)) => return Step::Do(Wish::Forget(host)),
            _ => {}
        }
        Step::Stay
    }

    pub(super) fn happened(&mut self, event: &PhoneEvent) {
        match event {
            PhoneEvent::Connected { name, .. } => self.host_changed(Tone::Good, format!("{name} connected")),
            PhoneEvent::Disconnected { name, reason, .. } => {
                self.host_changed(Tone::Quiet, format!("{name} disconnected: {reason}"));
            }
            PhoneEvent::LinkRefused { reason } => self.write(Tone::Bad, format!("a connection ended: {reason}")),
            PhoneEvent::PairingDigits { digits, host_name, .. } => {
                self.prompts.push_back(Prompt::Digits { digits: digits.to_string(), host: host_name.clone() });
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
            PhoneEvent::PermissionsChanged { name, .. } => {
                self.host_changed(Tone::Plain, format!("{name}: permissions changed"));
            }
            PhoneEvent::Enrolment(progress) => self.made(*progress),
            PhoneEvent::Card(event) => self.card(event),
            _ => {}
        }
    }

    fn made(&mut self, progress: KeyProgress) {
        let KeyProgress { slot, algorithm, number, of, stage } = progress;
        let key = format!("key {number} of {of}: {}, {}", words::key(slot.reference()), words::algorithm(algorithm));
        match stage {
            KeyStage::Started => self.progress = Some(progress),
            KeyStage::Done => self.write(Tone::Good, format!("made {key}")),
            _ => self.write(Tone::Bad, format!("not made: {key}")),
        }
        if stage != KeyStage::Started && number == of {
            self.progress = None;
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
            CardEvent::ConnectionDecided { host_name, refused: Some(_), .. } => {
                self.write(Tone::Bad, format!("{host_name} does not get the card"));
            }
            CardEvent::PromptsHeld { host, held } => {
                if *held {
                    self.held.insert(*host);
                } else {
                    self.held.remove(host);
                }
            }
            CardEvent::Locked(locked) => self.locked = *locked,
            CardEvent::SessionClosed { .. } => self.write(Tone::Quiet, "card session over".to_owned()),
            _ => {}
        }
    }

    fn write(&mut self, tone: Tone, text: String) {
        if self.happened.len() == LINES {
            self.happened.pop_front();
        }
        self.happened.push_back((tone, text));
    }

    fn host_changed(&mut self, tone: Tone, text: String) {
        self.hosts_changed = true;
        self.write(tone, text);
    }

    fn end_pairing(&mut self) {
        self.prompts.retain(|prompt| !matches!(prompt, Prompt::Digits { .. }));
        self.answering &= !self.prompts.is_empty();
    }
}
