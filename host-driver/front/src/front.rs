use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use pocketcard_protocol::Timestamp;
use pocketcard_protocol::apdu::{Chaining, Step};
use pocketcard_protocol::link::limits::GRACE_LIMIT;
use pocketcard_protocol::messages::{self, Body, CardState, Envelope, Opened, SnapshotPage};
use pocketcard_protocol::snapshot::Snapshot;
use zeroize::Zeroizing;

use crate::Presence;
use crate::knowledge::{Security, is_worth_a_snapshot};
use crate::output::{Failure, FrontError, Output, PowerAction, Reply};
use crate::request::PinEntry;
use crate::session::{Answer, Opening, Session};
use crate::slot::{self, Slot};
use crate::snapshot::Loaded;

/// The status word of a PIN entry that nobody made in time.
const TIMED_OUT: [u8; 2] = [0x64, 0x00];
/// The status word of a PIN entry that was given up.
const CANCELLED: [u8; 2] = [0x64, 0x01];

/// What a [`Front`] needs to know from the start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name and version of the host's software, for the phone's log.
    pub software: String,
    /// How long a program waits for the card at most. Below the driver's own limit of 60 s, so that the card is told.
    pub transmit_limit: Duration,
    /// How much longer a program waits for a PIN than the owner has: for the phone's own answer, which says that nobody
    /// entered one.
    pub pin_entry_margin: Duration,
    /// How long the card stays in the slot after its link was lost.
    pub grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            software: String::new(),
            transmit_limit: Duration::from_secs(55),
            pin_entry_margin: Duration::from_millis(1500),
            grace: GRACE_LIMIT,
        }
    }
}

/// One reader slot: the host's half of the card.
///
/// It joins four parts, none of which knows another: what programs see in the slot, the session with the phone, the
/// chains and windows that stay on this side, and the outputs that wait to be taken.
pub struct Front {
    config: Config,
    slot: Slot,
    session: Session,
    chaining: Chaining,
    outputs: VecDeque<Output>,
}

impl Front {
    /// An empty slot.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            slot: Slot::default(),
            session: Session::new(),
            chaining: Chaining::new(),
            outputs: VecDeque::new(),
        }
    }

    /// What is in the slot now.
    pub fn presence(&self) -> Presence {
        self.slot.presence()
    }

    /// Whether the card in the slot has power.
    pub fn is_powered(&self) -> bool {
        self.slot.is_powered()
    }

    /// Name of the card in the slot.
    pub fn card_name(&self) -> Option<&str> {
        self.slot.card_name()
    }

    /// Name and version of the phone's software, while there is a session.
    pub fn phone_software(&self) -> Option<&str> {
        self.session.software()
    }

    /// Whether a program waits for the card.
    pub fn is_busy(&self) -> bool {
        self.session.is_busy()
    }

    /// What the phone said last about its PIN; nothing without a session.
    pub fn security(&self) -> Security {
        self.session.security()
    }

    /// Whether what the phone says to everybody is held, so that nobody need ask it.
    pub fn holds_snapshot(&self) -> bool {
        self.session.holds_snapshot()
    }

    /// Hands in what an earlier front loaded ([`Output::Snapshot`]), or takes away what this one holds. It is used as soon
    /// as the phone announces the same, and outlives links and sessions.
    pub fn offer_snapshot(&mut self, snapshot: Option<Arc<Snapshot>>) {
        self.session.offer(snapshot);
    }

    /// An encrypted channel to the phone is open: begins a card session, or goes on with the one whose link was lost.
    pub fn handle_link_up(&mut self, now: Timestamp) {
        self.handle_link_down(now);
        let open = self.session.begin(&self.config.software);
        self.outputs.push_back(Output::Send(open));
    }

    /// The channel was lost. The card stays in the slot for the grace, and a command under way stays under way: the
    /// phone may come back and go on.
    pub fn handle_link_down(&mut self, now: Timestamp) {
        if !self.slot.has_card() || !self.session.lose_link(now + self.config.grace) {
            self.handle_link_closed(now);
        }
    }

    /// The channel was closed on purpose by either side, or the phone is certain to be gone, now or while its card was
    /// kept: the card is gone, too.
    pub fn handle_link_closed(&mut self, _now: Timestamp) {
        // First the session, so that nothing more is sent.
        if self.session.end() {
            self.reply(Reply::Failed(Failure::NotPresent));
        }
        self.remove_card();
    }

    /// Takes a message of the phone.
    pub fn handle_envelope(&mut self, envelope: Envelope, now: Timestamp) {
        if let Err(error) = self.take(envelope, now) {
            self.handle_link_closed(now);
            self.outputs.push_back(Output::Close(error));
        }
    }

    /// Powers the card up or down or resets it. Answered at once with the answer to reset (empty after a power-down);
    /// the card learns of it as soon as it matters.
    ///
    /// - `generation`: the insertion that the reader believes in.
    ///
    /// # Errors
    /// [`Failure::NotPresent`] if that card is not there any more. A power-down never fails.
    pub fn handle_power(&mut self, action: PowerAction, generation: u64, _now: Timestamp) -> Result<&[u8], Failure> {
        if action == PowerAction::Down {
            self.power_down();
            return Ok(&[]);
        }
        if self.slot.power_up(generation)? {
            self.reset();
        }
        Ok(self.slot.atr())
    }

    /// The reader's driver went away. The same as a power-down: whoever comes next must not find a verified PIN.
    pub fn handle_driver_gone(&mut self, _now: Timestamp) {
        self.power_down();
    }

    /// Takes a command of a program. Exactly one [`Output::Reply`] follows, at once or later, whatever happens.
    pub fn handle_transmit(&mut self, command: &[u8], now: Timestamp) {
        if !self.slot.is_powered() || !self.session.is_ready() {
            return self.reply(Reply::Failed(Failure::NotPresent));
        }
        let command = match self.chaining.handle(command) {
            Step::Reply(response) => return self.reply(Reply::Response(response)),
            Step::Execute(command) => command,
        };
        if let Some(response) = self.session.known_answer(&command) {
            let window = self.chaining.respond(response);
            return self.reply(Reply::Response(window));
        }
        // Ahead of the command, so that the next one need not go to the phone, too.
        let fetch = is_worth_a_snapshot(&command).then(|| self.session.fetch(now)).flatten();
        self.outputs.extend(fetch.map(Output::Send));
        let transmit = self.session.transmit(command, now + self.config.transmit_limit);
        self.outputs.extend(transmit.map(Output::Send));
    }

    /// Has the owner enter a PIN on the phone. Exactly one [`Output::Reply`] follows, at once or later, whatever happens: a
    /// status word, or a failure if the card left or its phone cannot do that.
    pub fn handle_pin_entry(&mut self, entry: PinEntry, now: Timestamp) {
        if !self.slot.is_powered() || !self.session.is_ready() {
            return self.reply(Reply::Failed(Failure::NotPresent));
        }
        // As a card does before every command that is no GET RESPONSE.
        self.chaining.reset();
        let deadline = now + entry.time_limit + self.config.pin_entry_margin;
        let message = self.session.enter_pin(entry, deadline);
        self.outputs.extend(message.map(Output::Send));
    }

    /// Gives up what is under way, for a person who does not want to wait for the phone: a PIN entry is answered as one
    /// that was cancelled on the pad. The card is told, and reset. Returns whether anything was under way.
    pub fn handle_cancel(&mut self, _now: Timestamp) -> bool {
        let is_busy = self.session.is_busy();
        if is_busy {
            self.give_up(CANCELLED, Failure::Cancelled);
        }
        is_busy
    }

    /// The session at the computer was locked: what was verified has to be verified again, and what is under way is given
    /// up, since whoever began it has left. The card stays.
    pub fn handle_lock(&mut self, _now: Timestamp) {
        self.give_up(CANCELLED, Failure::Cancelled);
    }

    /// When [`Front::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        [self.session.deadline(), self.session.grace()].into_iter().flatten().min()
    }

    /// Gives up a command that took too long: the card is told to cancel it and is reset, so that a signature which is
    /// ready too late is destroyed. Gives up a card whose phone did not come back.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if self.session.is_overdue(now) {
            self.give_up(TIMED_OUT, Failure::TimedOut);
        }
        if self.session.grace().is_some_and(|until| until <= now) {
            if self.session.give_up() {
                self.reply(Reply::Failed(Failure::NotPresent));
            }
            self.remove_card();
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn take(&mut self, envelope: Envelope, now: Timestamp) -> Result<(), FrontError> {
        // A message that this version does not know: the link answers it.
        let Some(body) = envelope.body else { return Ok(()) };
        match body {
            Body::Opened(opened) => self.opened(opened, now),
            Body::Response(response) => self.response(response),
            Body::Pending(pending) => {
                if let Some(reason) = self.session.pending(&pending)? {
                    self.outputs.push_back(Output::Pending(reason));
                }
                Ok(())
            }
            Body::CardState(state) => {
                self.session.check_open()?;
                self.card_state(state)
            }
            Body::SecurityState(state) => self.session.security_state(&state),
            Body::SnapshotPage(page) => self.page(&page, now),
            Body::Unsupported(unsupported) => {
                if self.session.unsupported(unsupported.message)? {
                    self.reply(Reply::Failed(Failure::Unsupported));
                }
                Ok(())
            }
            // For the person at the computer; no program learns of them.
            Body::Refused(refused) => {
                if let Some(reason) = self.session.refused(&refused)? {
                    let key_reference = u8::try_from(refused.key_reference).map_err(|_| FrontError::Malformed)?;
                    self.outputs.push_back(Output::Refused { reason, key_reference });
                }
                Ok(())
            }
            Body::Permissions(permissions) => {
                self.session.check_open()?;
                self.outputs.push_back(Output::Permissions(permissions));
                Ok(())
            }
            // The link handles these itself.
            Body::Ping(_) | Body::Pong(_) | Body::Close(_) => Ok(()),
            _ => Err(FrontError::OutOfOrder),
        }
    }

    fn opened(&mut self, mut opened: Opened, now: Timestamp) -> Result<(), FrontError> {
        if let Opening::New { cancelled } = self.session.opened(&mut opened)? {
            if cancelled {
                self.reply(Reply::Failed(Failure::NotPresent));
            }
            self.remove_card();
        }
        if let Some(state) = opened.card_state.take() {
            self.card_state(state)?;
        }
        self.outputs.extend(self.session.go_on().map(Output::Send));
        // Now, while nobody waits for anything.
        self.outputs.extend(self.session.fetch(now).map(Output::Send));
        Ok(())
    }

    fn page(&mut self, page: &SnapshotPage, now: Timestamp) -> Result<(), FrontError> {
        match self.session.page(page, now)? {
            Loaded::Nothing => {}
            Loaded::Next(fetch) => self.outputs.push_back(Output::Send(fetch)),
            Loaded::Snapshot(snapshot) => self.outputs.push_back(Output::Snapshot(snapshot)),
        }
        Ok(())
    }

    fn response(&mut self, mut response: messages::Response) -> Result<(), FrontError> {
        let Some(Answer { response, to_pin_entry, granted }) = self.session.response(&mut response)? else {
            return Ok(());
        };
        if granted {
            self.outputs.push_back(Output::Granted);
        }
        let answer = if to_pin_entry { response.into_bytes() } else { self.chaining.respond(response) };
        self.reply(Reply::Response(answer));
        Ok(())
    }

    /// The phone shows or hides its card. A card that looks different is another one.
    fn card_state(&mut self, mut state: CardState) -> Result<(), FrontError> {
        if !state.present {
            self.remove_card();
            return Ok(());
        }
        slot::check_atr(&state.atr)?;
        let (atr, name) = (std::mem::take(&mut state.atr), std::mem::take(&mut state.card_name));
        if !self.slot.is_same(&atr, &name) {
            self.remove_card();
            self.slot.insert(atr, name);
            self.outputs.push_back(Output::Presence(self.presence()));
        }
        Ok(())
    }

    fn remove_card(&mut self) {
        self.power_down();
        if self.slot.remove() {
            self.outputs.push_back(Output::Presence(self.presence()));
        }
    }

    fn power_down(&mut self) {
        if self.slot.power_down() {
            self.reset();
        }
    }

    fn reset(&mut self) {
        self.reset_with(|| Reply::Failed(Failure::NotPresent));
    }

    /// Cancels what is under way, and resets the card, so that whatever is ready too late is destroyed.
    ///
    /// - `status`: what a PIN entry is answered with.
    /// - `failure`: what any other command ends with.
    fn give_up(&mut self, status: [u8; 2], failure: Failure) {
        let entering_pin = self.session.is_entering_pin();
        self.outputs.extend(self.session.cancel().map(Output::Send));
        self.reset_with(|| match entering_pin {
            true => Reply::Response(Zeroizing::new(status.to_vec())),
            false => Reply::Failed(failure),
        });
    }

    /// Ends what belongs to the programs until now, on this side and on the card; a command under way ends with `reply`.
    fn reset_with(&mut self, reply: impl FnOnce() -> Reply) {
        self.chaining.reset();
        let reset = self.session.reset();
        self.outputs.extend(reset.message.map(Output::Send));
        if reset.cancelled {
            self.reply(reply());
        }
    }

    fn reply(&mut self, reply: Reply) {
        self.outputs.push_back(Output::Reply(reply));
    }
}
