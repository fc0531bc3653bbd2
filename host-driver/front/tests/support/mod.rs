//! A front with a phone that the test plays.
#![allow(dead_code, reason = "each test uses its part")]

use std::time::Duration;

use pocketcard_front::{Config, Failure, Front, FrontError, Output, PinEntry, PowerAction, Presence, Reply};
use pocketcard_protocol::Timestamp;
use pocketcard_protocol::messages::{self, Body, CardState, Opened};

pub(crate) const ATR: [u8; 4] = [0x3B, 0x80, 0x80, 0x01];
pub(crate) const PIN: [u8; 7] = [0x00, 0x20, 0x00, 0x80, 0x02, 0x31, 0x32];
pub(crate) const LOOK: [u8; 5] = [0x00, 0xFD, 0x00, 0x00, 0x00];

pub(crate) fn seconds(seconds: u64) -> Timestamp {
    Timestamp::from_origin(Duration::from_secs(seconds))
}

pub(crate) fn card_state(present: bool) -> CardState {
    CardState { present, atr: if present { ATR.to_vec() } else { Vec::new() }, card_name: "card".into(), serial: 1 }
}

pub(crate) fn opened(session: u64, resumed: bool) -> Opened {
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
pub(crate) struct Bench {
    pub(crate) front: Front,
    pub(crate) now: Timestamp,
}

impl Bench {
    /// A powered card in session 7.
    pub(crate) fn powered() -> Self {
        let mut bench = Self { front: Front::new(Config::default()), now: Timestamp::ZERO };
        bench.connect(7);
        assert_eq!(bench.power(PowerAction::Up), Ok(ATR.to_vec()));
        bench
    }

    /// Opens a new session, and gives the epoch that it was asked for with.
    pub(crate) fn connect(&mut self, session: u64) -> u64 {
        self.front.handle_link_closed(self.now);
        self.front.handle_link_up(self.now);
        let mut sent = Vec::new();
        while let Some(output) = self.front.poll_output() {
            match output {
                Output::Send(envelope) => sent.extend(envelope.body),
                Output::Presence(Presence { atr: None, .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        let [Body::Open(open)] = &sent[..] else { panic!("{sent:?}") };
        assert!(open.resume_token.is_empty());
        let epoch = open.epoch;
        self.front.handle_envelope(opened(session, false).into(), self.now);
        let presence = self.front.poll_output();
        assert!(matches!(&presence, Some(Output::Presence(presence)) if presence.atr.as_deref() == Some(&ATR)));
        assert!(self.front.poll_output().is_none());
        epoch
    }

    pub(crate) fn power(&mut self, action: PowerAction) -> Result<Vec<u8>, Failure> {
        let generation = self.front.presence().generation;
        self.front.handle_power(action, generation, self.now).map(<[u8]>::to_vec)
    }

    pub(crate) fn sent(&mut self) -> Vec<Body> {
        let mut bodies = Vec::new();
        while let Some(output) = self.front.poll_output() {
            let Output::Send(envelope) = output else { panic!("{output:?}") };
            bodies.extend(envelope.body);
        }
        bodies
    }

    /// Sends a command that has to reach the phone, and gives its id and epoch.
    pub(crate) fn relay(&mut self, command: &[u8]) -> (u64, u64) {
        self.front.handle_transmit(command, self.now);
        let sent = self.sent();
        let [Body::Transmit(transmit)] = &sent[..] else { panic!("{sent:?}") };
        (transmit.request_id, transmit.epoch)
    }

    pub(crate) fn respond(&mut self, session: u64, (request_id, epoch): (u64, u64), response: &[u8]) {
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

    pub(crate) fn reply(&mut self) -> Result<Vec<u8>, Failure> {
        match self.front.poll_output() {
            Some(Output::Reply(Reply::Response(response))) => Ok(response.to_vec()),
            Some(Output::Reply(Reply::Failed(failure))) => Err(failure),
            // For a person.
            Some(Output::Granted) => self.reply(),
            other => panic!("{other:?}"),
        }
    }

    /// Asks for a PIN, which has to reach the phone, and gives what was sent.
    pub(crate) fn enter_pin(&mut self, entry: PinEntry) -> messages::PinEntry {
        self.front.handle_pin_entry(entry, self.now);
        let sent = self.sent();
        let [Body::PinEntry(sent)] = &sent[..] else { panic!("{sent:?}") };
        *sent
    }

    pub(crate) fn closed(&mut self) -> FrontError {
        loop {
            match self.front.poll_output() {
                Some(Output::Close(error)) => return error,
                Some(_) => {}
                None => panic!("the link stays open"),
            }
        }
    }
}
