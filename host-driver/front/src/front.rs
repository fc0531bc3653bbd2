use std::collections::VecDeque;
use std::time::Duration;

use pocketcard_protocol::Timestamp;
use pocketcard_protocol::apdu::{Chaining, Command, Response, Step};
use pocketcard_protocol::messages::{self, Body, CardState, Envelope, Opened, PendingReason};
use zeroize::Zeroizing;

use crate::Presence;
use crate::card_state::may_leave_state;
use crate::knowledge::{Knowledge, Security};
use crate::request::{Match, Requests};

/// What a [`Front`] needs to know from the start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name and version of the host's software, for the phone's log.
    pub software: String,
    /// How long a program waits for the card at most. Below the driver's own limit of 60 s, so that the card is told.
    pub transmit_limit: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { software: String::new(), transmit_limit: Duration::from_secs(55) }
    }
}

/// What the reader does to the card's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerAction {
    /// Power up; a reset if it is up.
    Up,
    /// Power down.
    Down,
    /// Reset.
    Reset,
}

/// Why a program gets no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No card, or not the one that was powered up.
    NotPresent,
    /// The card took too long; it has been reset.
    TimedOut,
}

/// What a program gets for its command.
#[derive(Debug)]
pub enum Reply {
    /// The card's response, or a window of it.
    Response(Zeroizing<Vec<u8>>),
    /// None.
    Failed(Failure),
}

/// What is to be done, in this order.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output {
    /// Send to the phone.
    Send(Envelope),
    /// Answer the program that waits for its command.
    Reply(Reply),
    /// Tell the reader what is in the slot.
    Presence(Presence),
    /// Tell the owner that the phone holds the command back.
    Pending(PendingReason),
    /// Close the link: the phone does not keep to the protocol.
    Close(FrontError),
}

/// How a phone broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrontError {
    /// A session was opened that nobody asked for, or a message came before the session was open.
    #[error("the phone sent a message that does not fit the state of the session")]
    OutOfOrder,
    /// The phone resumed a session that this host does not hold.
    #[error("the phone resumed a session that was not asked for")]
    Resumed,
    /// An answer to a request that was never sent.
    #[error("the phone answered a request that was never sent")]
    UnknownRequest,
    /// A response without a status word, or a card without an answer to reset.
    #[error("the phone sent a response or a card that cannot exist")]
    Malformed,
    /// The phone does not know a message that every version has.
    #[error("the phone does not support card sessions")]
    Unsupported,
}

/// The session with the card in the phone.
enum Session {
    /// No link.
    None,
    /// The phone was asked for a session.
    Opening,
    /// There is one.
    Open { number: u64, requests: Requests, knowledge: Knowledge, software: String },
}

/// One reader slot: the host's half of the card.
pub struct Front {
    config: Config,
    session: Session,
    /// Goes up with every reset and never comes down, not even with a new session.
    epoch: u64,
    /// Something may be verified or selected on the card that a reset has to end.
    state_left: bool,
    insertions: u64,
    /// The card as programs see it.
    card: Option<Card>,
    /// The insertion that the reader powered up.
    powered: Option<u64>,
    chaining: Chaining,
    outputs: VecDeque<Output>,
}

#[derive(PartialEq, Eq)]
struct Card {
    generation: u64,
    atr: Vec<u8>,
    name: String,
}

impl Front {
    /// An empty slot.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            session: Session::None,
            epoch: 0,
            state_left: false,
            insertions: 0,
            card: None,
            powered: None,
            chaining: Chaining::new(),
            outputs: VecDeque::new(),
        }
    }

    /// What is in the slot now.
    pub fn presence(&self) -> Presence {
        match &self.card {
            Some(card) => Presence { generation: card.generation, atr: Some(card.atr.clone()) },
            None => Presence { generation: self.insertions, atr: None },
        }
    }

    /// Whether the card in the slot has power.
    pub fn is_powered(&self) -> bool {
        self.powered.is_some()
    }

    /// Name of the card in the slot.
    pub fn card_name(&self) -> Option<&str> {
        self.card.as_ref().map(|card| card.name.as_str())
    }

    /// Name and version of the phone's software, while there is a session.
    pub fn phone_software(&self) -> Option<&str> {
        match &self.session {
            Session::Open { software, .. } => Some(software),
            Session::None | Session::Opening => None,
        }
    }

    /// What the phone said last about its PIN; nothing without a session.
    pub fn security(&self) -> Security {
        match &self.session {
            Session::Open { knowledge, .. } => knowledge.security(),
            Session::None | Session::Opening => Security::default(),
        }
    }

    /// An encrypted channel to the phone is open: begins a card session.
    pub fn handle_link_up(&mut self, now: Timestamp) {
        self.handle_link_down(now);
        self.session = Session::Opening;
        self.epoch += 1;
        let open =
            messages::Open { resume_token: Vec::new(), epoch: self.epoch, software: self.config.software.clone() };
        self.outputs.push_back(Output::Send(open.into()));
    }

    /// The channel is gone, and with it the card.
    pub fn handle_link_down(&mut self, _now: Timestamp) {
        // First the session, so that nothing more is sent.
        let session = std::mem::replace(&mut self.session, Session::None);
        if let Session::Open { mut requests, .. } = session
            && requests.end().is_some()
        {
            self.reply(Reply::Failed(Failure::NotPresent));
        }
        self.remove_card();
        self.state_left = false;
    }

    /// Takes a message of the phone.
    pub fn handle_envelope(&mut self, envelope: Envelope, now: Timestamp) {
        if let Err(error) = self.take(envelope) {
            self.handle_link_down(now);
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
        if self.card.as_ref().is_none_or(|card| card.generation != generation) {
            return Err(Failure::NotPresent);
        }
        if self.powered.is_some() && self.reset() {
            self.reply(Reply::Failed(Failure::NotPresent));
        }
        self.powered = Some(generation);
        Ok(self.card.as_ref().map(|card| card.atr.as_slice()).unwrap_or_default())
    }

    /// The reader's driver went away. The same as a power-down: whoever comes next must not find a verified PIN.
    pub fn handle_driver_gone(&mut self, _now: Timestamp) {
        self.power_down();
    }

    /// Takes a command of a program. Exactly one [`Output::Reply`] follows, at once or later, whatever happens.
    pub fn handle_transmit(&mut self, command: &[u8], now: Timestamp) {
        let powered = self.powered.is_some();
        let Session::Open { number, requests, knowledge, .. } = &mut self.session else {
            return self.reply(Reply::Failed(Failure::NotPresent));
        };
        if !powered || requests.current().is_some() {
            return self.reply(Reply::Failed(Failure::NotPresent));
        }
        let command = match self.chaining.handle(command) {
            Step::Reply(response) => return self.reply(Reply::Response(response)),
            Step::Execute(command) => command,
        };
        if let Some(response) = knowledge.answer(&command) {
            let window = self.chaining.respond(response);
            return self.reply(Reply::Response(window));
        }
        self.state_left |= may_leave_state(&command);
        let request = requests.begin(self.epoch, now + self.config.transmit_limit);
        let transmit = transmit(*number, request.id, request.epoch, command);
        self.outputs.push_back(Output::Send(transmit));
    }

    /// When [`Front::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        match &self.session {
            Session::Open { requests, .. } => requests.current().map(|request| request.deadline),
            Session::None | Session::Opening => None,
        }
    }

    /// Gives up a command that took too long: the card is told to cancel it and is reset, so that a signature which is
    /// ready too late is destroyed.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let Session::Open { number, requests, .. } = &mut self.session else { return };
        let Some(request) = requests.current().filter(|request| request.deadline <= now) else { return };
        let cancel = messages::Cancel { session: *number, request_id: request.id };
        self.outputs.push_back(Output::Send(cancel.into()));
        self.reset();
        self.reply(Reply::Failed(Failure::TimedOut));
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn take(&mut self, envelope: Envelope) -> Result<(), FrontError> {
        // A message that this version does not know: the link answers it.
        let Some(body) = envelope.body else { return Ok(()) };
        match body {
            Body::Opened(opened) => self.opened(opened),
            Body::Response(response) => self.response(response),
            Body::Pending(pending) => {
                let reason = pending.reason();
                match self.requests(pending.session)?.current() {
                    Some(request) if request.id == pending.request_id => {
                        self.outputs.push_back(Output::Pending(reason));
                        Ok(())
                    }
                    _ => self.stale(pending.session, pending.request_id),
                }
            }
            Body::CardState(state) => match &self.session {
                Session::Open { .. } => self.card_state(state),
                Session::None | Session::Opening => Err(FrontError::OutOfOrder),
            },
            Body::SecurityState(state) => match &mut self.session {
                Session::Open { knowledge, .. } => {
                    knowledge.announce(&state);
                    Ok(())
                }
                Session::None | Session::Opening => Err(FrontError::OutOfOrder),
            },
            Body::Unsupported(_) => match &self.session {
                Session::Opening => Err(FrontError::Unsupported),
                // A reset or a cancel that the phone does not know. Nothing is lost: the epoch rides on each request.
                Session::None | Session::Open { .. } => Ok(()),
            },
            // The link handles these itself.
            Body::Ping(_) | Body::Pong(_) | Body::Close(_) => Ok(()),
            _ => Err(FrontError::OutOfOrder),
        }
    }

    fn opened(&mut self, mut opened: Opened) -> Result<(), FrontError> {
        if !matches!(self.session, Session::Opening) {
            return Err(FrontError::OutOfOrder);
        }
        if opened.resumed {
            return Err(FrontError::Resumed);
        }
        let mut knowledge = Knowledge::default();
        if let Some(state) = &opened.security_state {
            knowledge.announce(state);
        }
        let requests = Requests::new(opened.last_request_id);
        let software = std::mem::take(&mut opened.software);
        self.session = Session::Open { number: opened.session, requests, knowledge, software };
        match opened.card_state.take() {
            Some(state) => self.card_state(state),
            None => Ok(()),
        }
    }

    fn response(&mut self, mut response: messages::Response) -> Result<(), FrontError> {
        let requests = self.requests(response.session)?;
        match requests.find(response.request_id, response.epoch) {
            Match::Current => {}
            Match::Stale => return Ok(()),
            Match::Unknown => return Err(FrontError::UnknownRequest),
        }
        requests.end();
        if let Session::Open { knowledge, .. } = &mut self.session {
            knowledge.response(response.security_version);
        }
        let bytes = Zeroizing::new(std::mem::take(&mut response.response));
        match Response::from_bytes(bytes) {
            Ok(response) => {
                let window = self.chaining.respond(response);
                self.reply(Reply::Response(window));
                Ok(())
            }
            Err(_) => {
                self.reply(Reply::Failed(Failure::NotPresent));
                Err(FrontError::Malformed)
            }
        }
    }

    /// The phone shows or hides its card. A card that looks different is another one.
    fn card_state(&mut self, mut state: CardState) -> Result<(), FrontError> {
        if !state.present {
            self.remove_card();
            return Ok(());
        }
        let atr = std::mem::take(&mut state.atr);
        if atr.len() < 2 {
            return Err(FrontError::Malformed);
        }
        let name = std::mem::take(&mut state.card_name);
        match &mut self.card {
            Some(card) if card.atr == atr => card.name = name,
            _ => {
                self.remove_card();
                self.insertions += 1;
                self.card = Some(Card { generation: self.insertions, atr, name });
                self.outputs.push_back(Output::Presence(self.presence()));
            }
        }
        Ok(())
    }

    fn remove_card(&mut self) {
        self.power_down();
        if self.card.take().is_some() {
            self.outputs.push_back(Output::Presence(self.presence()));
        }
    }

    fn power_down(&mut self) {
        if self.powered.take().is_some() && self.reset() {
            self.reply(Reply::Failed(Failure::NotPresent));
        }
    }

    /// Raises the epoch and forgets everything that belonged to the old one. The phone is told at once if there is
    /// something to end, else by the next request. Returns whether a command was under way.
    fn reset(&mut self) -> bool {
        self.chaining.reset();
        self.epoch += 1;
        let Session::Open { number, requests, knowledge, .. } = &mut self.session else { return false };
        let cancelled = requests.end().is_some();
        knowledge.reset();
        if std::mem::take(&mut self.state_left) || cancelled {
            let reset = messages::Reset { session: *number, epoch: self.epoch };
            self.outputs.push_back(Output::Send(reset.into()));
        }
        cancelled
    }

    fn reply(&mut self, reply: Reply) {
        self.outputs.push_back(Output::Reply(reply));
    }

    fn requests(&mut self, session: u64) -> Result<&mut Requests, FrontError> {
        match &mut self.session {
            Session::Open { number, requests, .. } if *number == session => Ok(requests),
            _ => Err(FrontError::OutOfOrder),
        }
    }

    fn stale(&mut self, session: u64, id: u64) -> Result<(), FrontError> {
        match self.requests(session)?.find(id, 0) {
            Match::Unknown => Err(FrontError::UnknownRequest),
            Match::Current | Match::Stale => Ok(()),
        }
    }
}

fn transmit(session: u64, request_id: u64, epoch: u64, command: Command) -> Envelope {
    let mut bytes = command.into_bytes();
    messages::Transmit { session, request_id, epoch, command: std::mem::take(&mut *bytes) }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATR: [u8; 4] = [0x3B, 0x80, 0x80, 0x01];
    const PIN: [u8; 7] = [0x00, 0x20, 0x00, 0x80, 0x02, 0x31, 0x32];
    const LOOK: [u8; 5] = [0x00, 0xFD, 0x00, 0x00, 0x00];

    fn seconds(seconds: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_secs(seconds))
    }

    fn card_state(present: bool) -> CardState {
        CardState { present, atr: if present { ATR.to_vec() } else { Vec::new() }, card_name: "card".into(), serial: 1 }
    }

    fn opened(session: u64, resumed: bool) -> Opened {
        Opened {
            session,
            token: vec![1; 32],
            resumed,
            last_request_id: 0,
            card_state: Some(card_state(true)),
            security_state: None,
            software: String::new(),
        }
    }

    /// A front with what came out of it.
    struct Bench {
        front: Front,
        now: Timestamp,
    }

    impl Bench {
        /// A powered card in session 7.
        fn powered() -> Self {
            let mut bench = Self { front: Front::new(Config::default()), now: Timestamp::ZERO };
            bench.connect(7);
            assert_eq!(bench.power(PowerAction::Up), Ok(ATR.to_vec()));
            bench
        }

        fn connect(&mut self, session: u64) {
            self.front.handle_link_up(self.now);
            let open = self.sent();
            assert!(matches!(&open[..], [Body::Open(open)] if open.resume_token.is_empty()), "{open:?}");
            self.front.handle_envelope(opened(session, false).into(), self.now);
            let presence = self.front.poll_output();
            assert!(matches!(&presence, Some(Output::Presence(presence)) if presence.atr.as_deref() == Some(&ATR)));
            assert!(self.front.poll_output().is_none());
        }

        fn power(&mut self, action: PowerAction) -> Result<Vec<u8>, Failure> {
            let generation = self.front.presence().generation;
            self.front.handle_power(action, generation, self.now).map(<[u8]>::to_vec)
        }

        fn sent(&mut self) -> Vec<Body> {
            let mut bodies = Vec::new();
            while let Some(output) = self.front.poll_output() {
                let Output::Send(envelope) = output else { panic!("{output:?}") };
                bodies.extend(envelope.body);
            }
            bodies
        }

        /// Sends a command that has to reach the phone, and gives its id and epoch.
        fn relay(&mut self, command: &[u8]) -> (u64, u64) {
            self.front.handle_transmit(command, self.now);
            let sent = self.sent();
            let [Body::Transmit(transmit)] = &sent[..] else { panic!("{sent:?}") };
            (transmit.request_id, transmit.epoch)
        }

        fn respond(&mut self, session: u64, (request_id, epoch): (u64, u64), response: &[u8]) {
            let response = messages::Response {
                session,
                request_id,
                epoch,
                response: response.to_vec(),
                security_version: 0,
                snapshot_digest: Vec::new(),
            };
            self.front.handle_envelope(response.into(), self.now);
        }

        fn reply(&mut self) -> Result<Vec<u8>, Failure> {
            match self.front.poll_output() {
                Some(Output::Reply(Reply::Response(response))) => Ok(response.to_vec()),
                Some(Output::Reply(Reply::Failed(failure))) => Err(failure),
                other => panic!("{other:?}"),
            }
        }

        fn closed(&mut self) -> FrontError {
            loop {
                match self.front.poll_output() {
                    Some(Output::Close(error)) => return error,
                    Some(_) => {}
                    None => panic!("the link stays open"),
                }
            }
        }
    }

    #[test]
    fn a_command_goes_to_the_phone_and_its_answer_comes_back() {
        let mut bench = Bench::powered();
        let request = bench.relay(&LOOK);
        assert_eq!(request.0, 1);
        bench.respond(7, request, &[5, 7, 0, 0x90, 0]);
        assert_eq!(bench.reply(), Ok(vec![5, 7, 0, 0x90, 0]));
        assert_eq!(bench.relay(&LOOK).0, 2);
    }

    #[test]
    fn chains_and_windows_stay_on_the_host() {
        let mut bench = Bench::powered();
        bench.front.handle_transmit(&[0x10, 0x87, 0x11, 0x9A, 0x01, 0xAA], bench.now);
        assert_eq!(bench.reply(), Ok(vec![0x90, 0]));
        bench.front.handle_transmit(&[0x00, 0x87, 0x11, 0x9A, 0x01, 0xBB, 0x00], bench.now);
        let sent = bench.sent();
        let [Body::Transmit(transmit)] = &sent[..] else { panic!() };
        assert_eq!(transmit.command, [0x00, 0x87, 0x11, 0x9A, 0x02, 0xAA, 0xBB, 0x00]);
        let mut whole = vec![0x5A; 300];
        whole.extend([0x90, 0]);
        let request = (transmit.request_id, transmit.epoch);
        bench.respond(7, request, &whole);
        let window = bench.reply().unwrap();
        assert_eq!((window.len(), &window[256..]), (258, &[0x61, 44][..]));
        bench.front.handle_transmit(&[0x00, 0xC0, 0x00, 0x00, 44], bench.now);
        assert_eq!(bench.reply().unwrap().len(), 46);
    }

    #[test]
    fn a_reset_is_sent_only_if_there_is_something_to_end() {
        let mut bench = Bench::powered();
        let look = bench.relay(&LOOK);
        bench.respond(7, look, &[0x90, 0]);
        bench.reply().unwrap();
        bench.power(PowerAction::Reset).unwrap();
        assert!(bench.sent().is_empty(), "a look leaves nothing behind");
        let verify = bench.relay(&PIN);
        assert!(verify.1 > look.1, "the epoch rides on the next request");
        bench.respond(7, verify, &[0x90, 0]);
        bench.reply().unwrap();
        bench.power(PowerAction::Down).unwrap();
        let sent = bench.sent();
        assert!(matches!(&sent[..], [Body::Reset(reset)] if reset.session == 7 && reset.epoch > verify.1), "{sent:?}");
        bench.power(PowerAction::Up).unwrap();
        assert!(bench.sent().is_empty());
    }

    #[test]
    fn a_driver_that_goes_away_is_a_power_down_and_cancels() {
        let mut bench = Bench::powered();
        let request = bench.relay(&LOOK);
        bench.front.handle_driver_gone(bench.now);
        assert!(matches!(bench.front.poll_output(), Some(Output::Send(Envelope { body: Some(Body::Reset(_)) }))));
        assert_eq!(bench.reply(), Err(Failure::NotPresent));
        bench.respond(7, request, &[0x90, 0]);
        assert!(bench.front.poll_output().is_none(), "an answer that comes late is dropped");
        bench.front.handle_transmit(&LOOK, bench.now);
        assert_eq!(bench.reply(), Err(Failure::NotPresent), "the next driver has to power up first");
    }

    #[test]
    fn a_card_that_takes_too_long_is_cancelled_and_reset() {
        let mut bench = Bench::powered();
        let request = bench.relay(&PIN);
        assert_eq!(bench.front.poll_timeout(), Some(seconds(55)));
        bench.front.handle_timeout(seconds(54));
        assert!(bench.front.poll_output().is_none());
        bench.front.handle_timeout(seconds(55));
        for _ in 0..2 {
            match bench.front.poll_output() {
                Some(Output::Send(Envelope { body: Some(Body::Cancel(cancel)) })) => {
                    assert_eq!(cancel.request_id, request.0);
                }
                Some(Output::Send(Envelope { body: Some(Body::Reset(reset)) })) => assert!(reset.epoch > request.1),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(bench.reply(), Err(Failure::TimedOut));
        assert_eq!(bench.front.poll_timeout(), None);
        bench.respond(7, request, &[0x90, 0]);
        assert!(bench.front.poll_output().is_none());
        assert_eq!(bench.relay(&LOOK).0, 2, "the id of the cancelled one stays used");
    }

    #[test]
    fn a_new_session_is_a_new_card_that_needs_power() {
        let mut bench = Bench::powered();
        let first = bench.front.presence().generation;
        let request = bench.relay(&LOOK);
        bench.front.handle_link_down(bench.now);
        assert_eq!(bench.reply(), Err(Failure::NotPresent), "a command under way fails at once");
        assert!(matches!(bench.front.poll_output(), Some(Output::Presence(Presence { atr: None, .. }))));
        assert!(bench.front.poll_output().is_none(), "nothing is sent into a dead link");
        bench.connect(8);
        assert!(bench.front.presence().generation > first);
        bench.front.handle_transmit(&LOOK, bench.now);
        assert_eq!(bench.reply(), Err(Failure::NotPresent));
        assert_eq!(
            bench.front.handle_power(PowerAction::Up, first, bench.now).map(<[u8]>::to_vec),
            Err(Failure::NotPresent),
            "the reader still believes in the old card"
        );
        bench.power(PowerAction::Up).unwrap();
        let next = bench.relay(&LOOK);
        assert_eq!(next.0, 1);
        assert!(next.1 > request.1, "the epoch never comes down");
    }

    #[test]
    fn a_card_that_its_owner_locks_leaves_and_comes_back() {
        let mut bench = Bench::powered();
        let first = bench.front.presence().generation;
        bench.front.handle_envelope(card_state(true).into(), bench.now);
        assert!(bench.front.poll_output().is_none(), "nothing changed");
        bench.relay(&PIN);
        bench.front.handle_envelope(card_state(false).into(), bench.now);
        assert!(matches!(bench.front.poll_output(), Some(Output::Send(Envelope { body: Some(Body::Reset(_)) }))));
        assert_eq!(bench.reply(), Err(Failure::NotPresent));
        assert!(matches!(bench.front.poll_output(), Some(Output::Presence(Presence { atr: None, .. }))));
        bench.front.handle_envelope(card_state(true).into(), bench.now);
        let back = bench.front.poll_output();
        assert!(matches!(back, Some(Output::Presence(Presence { generation, atr: Some(_) })) if generation > first));
    }

    #[test]
    fn a_phone_that_breaks_the_protocol_loses_its_link_and_its_card() {
        type Breach = fn(&mut Bench);
        let breaches: [(Breach, FrontError); 7] = [
            (|bench| bench.respond(7, (9, 1), &[0x90, 0]), FrontError::UnknownRequest),
            (|bench| bench.respond(6, (1, 1), &[0x90, 0]), FrontError::OutOfOrder),
            (
                |bench| {
                    let request = bench.relay(&LOOK);
                    bench.respond(7, request, &[0x90]);
                },
                FrontError::Malformed,
            ),
            (|bench| bench.front.handle_envelope(opened(7, false).into(), bench.now), FrontError::OutOfOrder),
            (|bench| bench.front.handle_envelope(messages::Open::default().into(), bench.now), FrontError::OutOfOrder),
            (
                |bench| {
                    let pending = messages::Pending { session: 7, request_id: 3, reason: 1 };
                    bench.front.handle_envelope(pending.into(), bench.now);
                },
                FrontError::UnknownRequest,
            ),
            (
                |bench| {
                    let bare = CardState { atr: Vec::new(), ..card_state(true) };
                    bench.front.handle_envelope(bare.into(), bench.now);
                },
                FrontError::Malformed,
            ),
        ];
        for (breach, error) in breaches {
            let mut bench = Bench::powered();
            breach(&mut bench);
            assert_eq!(bench.closed(), error);
            assert_eq!(bench.front.presence().atr, None);
        }
    }

    #[test]
    fn a_session_that_claims_to_be_resumed_is_refused() {
        let mut bench = Bench { front: Front::new(Config::default()), now: Timestamp::ZERO };
        bench.front.handle_link_up(bench.now);
        bench.sent();
        bench.front.handle_envelope(opened(7, true).into(), bench.now);
        assert_eq!(bench.closed(), FrontError::Resumed);
    }

    #[test]
    fn an_empty_slot_answers() {
        let mut front = Front::new(Config::default());
        front.handle_transmit(&LOOK, Timestamp::ZERO);
        assert!(matches!(front.poll_output(), Some(Output::Reply(Reply::Failed(Failure::NotPresent)))));
        assert_eq!(front.handle_power(PowerAction::Up, 0, Timestamp::ZERO), Err(Failure::NotPresent));
        assert_eq!(front.handle_power(PowerAction::Down, 0, Timestamp::ZERO), Ok(&[][..]));
        front.handle_driver_gone(Timestamp::ZERO);
        front.handle_timeout(seconds(100));
        assert!(front.poll_output().is_none());
    }
}
