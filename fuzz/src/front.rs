//! The host's half of a card between a program that does anything and a phone that does anything.

use std::sync::Arc;
use std::time::Duration;

use pocketcard_front::{Config, Front, Output, PinEntry, PowerAction, Presence, Reply};
use pocketcard_protocol::Timestamp;
use pocketcard_protocol::messages::{
    Body, CardState, Envelope, Fetch, Opened, Pending, PinOperation, Response, SecurityState, SnapshotPage, Unsupported,
};
use pocketcard_protocol::snapshot::{Object, Profile, Snapshot};

use crate::Input;

struct World {
    front: Front,
    now: Timestamp,
    link: bool,
    presence: Presence,
    /// Commands of programs, and what they got.
    commands: u64,
    replies: u64,
    /// Session, id and epoch of the last request that reached the phone.
    request: Option<(u64, u64, u64)>,
    session: Option<u64>,
    /// The last session that was open on a link that was lost and not closed: the one that may go on.
    lost: Option<u64>,
    /// What the phone was asked to go on with.
    resumes: Option<u64>,
    last_id: Option<u64>,
    /// The session has just gone on: the request of before may come once more, with its id.
    repeats: bool,
    epoch: u64,
    /// Data of the last answer that belonged to a request under way, or that the front gave by itself.
    answer: Vec<u8>,
    answers: u8,
    /// The last command, and whether it went to the phone.
    command: Vec<u8>,
    relayed: bool,
    /// What went to the phone is a PIN entry, and nobody has answered yet.
    entering: bool,
    /// What the phone may have to say to everybody.
    snapshots: [Arc<Snapshot>; 2],
    said: Said,
    /// The page that the front asked for last.
    fetch: Option<Fetch>,
}

/// What the phone has said last about what holds on its card.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    version: u64,
    /// The front has heard of that version, too.
    known: bool,
    /// Which snapshot; `None` also if it said nothing at all.
    snapshot: Option<usize>,
    /// The PIN is verified, and no reset came since.
    verified: bool,
}

/// A list of operations.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let front = Front::new(Config::default());
    let mut world = World {
        presence: front.presence(),
        front,
        now: Timestamp::ZERO,
        link: false,
        commands: 0,
        replies: 0,
        request: None,
        session: None,
        lost: None,
        resumes: None,
        last_id: None,
        repeats: false,
        epoch: 0,
        answer: Vec::new(),
        answers: 0,
        command: Vec::new(),
        relayed: false,
        entering: false,
        snapshots: [snapshot(20), snapshot(9000)],
        said: Said::default(),
        fetch: None,
    };
    while !input.is_empty() {
        world.operate(&mut input);
        world.check();
    }
    // Whatever happened: nobody waits longer than the limit.
    world.now += Config::default().transmit_limit;
    world.front.handle_timeout(world.now);
    world.check();
    assert!(world.session.is_some() || world.presence.atr.is_none(), "no card outlives its link for ever");
    assert_eq!(world.commands, world.replies, "each command has its one reply");
    assert_eq!(world.front.poll_timeout(), None);
}

impl World {
    fn operate(&mut self, input: &mut Input<'_>) {
        let now = self.now;
        match input.byte() % 18 {
            0 => {
                self.lose();
                self.front.handle_link_up(now);
                self.link = true;
            }
            1 => {
                self.lose();
                self.front.handle_link_down(now);
            }
            12 => {
                self.lose();
                self.lost = None;
                self.front.handle_link_closed(now);
                assert!(self.front.presence().atr.is_none(), "a card that is kept");
            }
            2 => {
                let action = match input.byte() % 3 {
                    0 => PowerAction::Up,
                    1 => PowerAction::Down,
                    _ => PowerAction::Reset,
                };
                let powered = self.front.is_powered();
                let present = self.presence.atr.is_some();
                let generation = self.presence.generation.wrapping_add(u64::from(input.byte() / 200));
                let is_this = generation == self.presence.generation;
                let result = self.front.handle_power(action, generation, now).map(<[u8]>::to_vec);
                match action {
                    PowerAction::Down => assert_eq!(result, Ok(vec![])),
                    _ if present && is_this => assert_eq!(result.ok(), self.presence.atr),
                    _ => assert!(result.is_err(), "a card that is not there has no power"),
                }
                self.said.verified &= !powered || (action != PowerAction::Down && !is_this);
                if present && is_this {
                    assert_eq!(self.front.is_powered(), action != PowerAction::Down);
                }
            }
            3 => {
                self.said.verified &= !self.front.is_powered();
                self.front.handle_driver_gone(now);
                assert!(!self.front.is_powered());
            }
            4 | 5 => {
                self.commands += 1;
                self.command = input.chunk().to_vec();
                self.relayed = false;
                self.front.handle_transmit(&self.command, now);
            }
            6 => self.answer(input),
            7 => {
                let session = u64::from(input.byte() % 4);
                let shape = input.byte();
                let last_request_id = u64::from(input.byte() % 4);
                let resumed = shape & 1 != 0;
                let known = if resumed { self.resumes == Some(session) } else { true };
                let asked = self.link && self.session.is_none() && known;
                let opened = Opened {
                    session,
                    token: vec![7; 32],
                    resumed,
                    last_request_id,
                    card_state: (shape & 2 == 0).then(|| card_state(shape, input.byte())),
                    security_state: (shape & 32 != 0).then(|| self.state(input, false)),
                    software: "phone".into(),
                };
                if asked {
                    match &opened.security_state {
                        Some(state) => self.say(state),
                        None if resumed => self.said.known = false,
                        None => self.said = Said { version: self.said.version, ..Said::default() },
                    }
                    (self.session, self.last_id) = (Some(session), Some(last_request_id));
                    (self.lost, self.repeats) = (None, resumed);
                }
                self.phone(opened.into());
            }
            8 => {
                let message = match input.byte() % 4 {
                    0 => card_state(input.byte(), input.byte()).into(),
                    1 => {
                        let state = self.state(input, true);
                        if self.link && self.session.is_some() {
                            self.say(&state);
                        }
                        state.into()
                    }
                    2 => {
                        let (session, request_id) = (u64::from(input.byte() % 4), u64::from(input.byte() % 8));
                        Pending { session, request_id, reason: i32::from(input.byte() % 8) }.into()
                    }
                    // An answer that may belong to nothing.
                    _ => {
                        let (session, request_id) = (u64::from(input.byte() % 4), u64::from(input.byte() % 8));
                        let epoch = u64::from(input.byte() % 8);
                        self.response((session, request_id, epoch), vec![0xEE, 0x90, 0x00])
                    }
                };
                self.phone(message);
            }
            9 => {
                if let Ok(message) = Envelope::from_bytes(input.chunk()) {
                    // What a session is opened with is kept track of above.
                    if !matches!(
                        message.body,
                        Some(Body::Opened(_) | Body::Response(_) | Body::SecurityState(_) | Body::Unsupported(_))
                    ) {
                        self.phone(message);
                    }
                }
            }
            10 => {
                self.now += Duration::from_secs(u64::from(input.byte()));
                self.front.handle_timeout(self.now);
                assert!(self.front.poll_timeout().is_none_or(|due| due > self.now));
            }
            13 => self.page(input),
            14 => {
                let offered = self.snapshots.get(usize::from(input.byte() % 4)).cloned();
                self.front.offer_snapshot(offered);
            }
            15 => {
                self.commands += 1;
                self.command.clear();
                self.relayed = false;
                let time_limit = Duration::from_secs(u64::from(input.byte() % 26));
                let operation = PinOperation::try_from(1 + i32::from(input.byte() % 3)).expect("an operation");
                let entry = PinEntry { operation, key_reference: input.byte(), time_limit };
                self.front.handle_pin_entry(entry, now);
            }
            16 => {
                let busy = self.front.handle_cancel(now);
                assert_eq!(busy, self.commands > self.replies, "whoever waits can be given up");
                self.said.verified &= !busy;
            }
            17 => {
                if self.link && self.session.is_some() && std::mem::take(&mut self.entering) {
                    // It has not counted what it does not know.
                    self.last_id = self.last_id.map(|id| id - 1);
                    self.request = None;
                }
                self.phone(Unsupported::default().into());
            }
            _ => self.front.handle_timeout(now),
        }
    }

    /// What the phone may say about its card: something new, or what is older than what it said before in the session.
    fn state(&self, input: &mut Input<'_>, within: bool) -> SecurityState {
        let shape = input.byte();
        let Said { version, known, .. } = self.said;
        let version = if shape & 1 != 0 && known && within { version - 1 } else { version + 1 };
        let snapshot = self.snapshots.get(usize::from(shape >> 1 & 3));
        let snapshot_digest = snapshot.map(|snapshot| snapshot.digest().to_field()).unwrap_or_default();
        let epoch = self.epoch.saturating_sub(u64::from(shape >> 3 & 1));
        let pin_tries_left = u32::from(input.byte() % 20);
        SecurityState { version, pin_verified: shape & 16 != 0, pin_tries_left, epoch, snapshot_digest }
    }

    /// The phone has said it.
    fn say(&mut self, state: &SecurityState) {
        if state.version <= self.said.version {
            return;
        }
        let is_it = |snapshot: &Arc<Snapshot>| state.snapshot_digest == snapshot.digest().as_bytes();
        let snapshot = self.snapshots.iter().position(is_it);
        self.said = Said { version: state.version, known: true, snapshot, verified: state.pin_verified };
    }

    /// The phone shows the page that it was asked for, or another one, or a part of it.
    fn page(&mut self, input: &mut Input<'_>) {
        let Some(fetch) = self.fetch.clone() else { return };
        let is_it = |snapshot: &&Arc<Snapshot>| fetch.digest == snapshot.digest().as_bytes();
        let Some(snapshot) = self.snapshots.iter().find(is_it) else { return };
        let mut page = SnapshotPage {
            digest: fetch.digest.clone(),
            offset: fetch.offset,
            length: snapshot.as_bytes().len() as u32,
            page: snapshot.page(fetch.offset as usize).to_vec(),
        };
        match input.byte() % 16 {
            0 => page.length = input.u16().into(),
            1 => page.page.truncate(input.byte().into()),
            2 => page.page = input.chunk().to_vec(),
            3 => page.offset = input.u16().into(),
            4 => page.digest = self.snapshots[0].digest().to_field(),
            _ => {}
        }
        self.phone(page.into());
    }

    /// An answer that did not come from the phone just now: the rest of one, or what the phone says to everybody.
    fn by_itself(&mut self, data: &[u8], status: [u8; 2]) {
        if self.command == [0, 0x20, 0, 0x80] && status == [0x90, 0] {
            assert!(self.said.verified, "the phone has not said that the PIN is verified");
        }
        if data.is_empty() || self.answer.windows(data.len()).any(|part| part == data) {
            return;
        }
        let said = self.said.snapshot.and_then(|snapshot| self.snapshots.get(snapshot));
        let said = said.expect("an answer although the phone has said nothing");
        let objects = OBJECTS.iter().filter_map(|tag| match said.object(*tag) {
            Some(Object::Always(content)) => Some(content),
            _ => None,
        });
        let mut contents = objects.chain([said.template(), said.version(), said.serial()]);
        self.answer = contents.find(|content| content.starts_with(data)).expect("what the phone said last").to_vec();
    }

    /// The link is gone; what was open on it may go on.
    fn lose(&mut self) {
        self.link = false;
        self.lost = self.session.take().or(self.lost);
    }

    /// A message of the phone; without a link there is nobody to send one.
    fn phone(&mut self, message: Envelope) {
        if self.link {
            self.front.handle_envelope(message, self.now);
        }
    }

    /// The phone answers the last request that it got.
    fn answer(&mut self, input: &mut Input<'_>) {
        let Some(request) = self.request.take() else { return };
        self.answers = self.answers.wrapping_add(1);
        let mark = self.answers;
        let length = usize::from(input.u16() % 1024);
        let mut bytes: Vec<u8> = (0..length).map(|at| (at as u8).wrapping_mul(mark) ^ mark).collect();
        self.answer = bytes.clone();
        bytes.extend_from_slice(&[0x90, input.byte()]);
        let message = self.response(request, bytes);
        self.phone(message);
    }

    fn response(&self, (session, request_id, epoch): (u64, u64, u64), response: Vec<u8>) -> Envelope {
        let said = self.said.snapshot.and_then(|snapshot| self.snapshots.get(snapshot));
        let snapshot_digest = said.map(|snapshot| snapshot.digest().to_field()).unwrap_or_default();
        let security_version = self.said.version;
        Response { session, request_id, epoch, response, security_version, snapshot_digest }.into()
    }

    fn check(&mut self) {
        while let Some(output) = self.front.poll_output() {
            match output {
                Output::Send(message) => {
                    assert!(self.link, "nothing is sent without a link");
                    self.sent(message);
                }
                Output::Reply(reply) => {
                    self.replies += 1;
                    // One that came while another is under way is answered first.
                    self.entering &= self.commands > self.replies;
                    assert!(self.replies <= self.commands, "a reply that nobody waits for");
                    if let Reply::Response(response) = reply {
                        let (data, status) = response.split_last_chunk::<2>().expect("a status word");
                        if !self.relayed {
                            self.by_itself(data, *status);
                        }
                        let known = data == [0xEE] || self.answer.windows(data.len().max(1)).any(|part| part == data);
                        assert!(data.is_empty() || known, "data that the phone did not answer to this");
                    }
                }
                Output::Presence(presence) => {
                    let insertion = presence.atr.is_some();
                    assert!(insertion != self.presence.atr.is_some(), "cards come and go in turn");
                    let expected = self.presence.generation + u64::from(insertion);
                    assert_eq!(presence.generation, expected, "each insertion has a number of its own");
                    self.presence = presence;
                }
                Output::Close(_) => {
                    assert!(self.link);
                    self.link = false;
                    (self.session, self.lost) = (None, None);
                }
                Output::Snapshot(snapshot) => {
                    let said = self.said.snapshot.and_then(|snapshot| self.snapshots.get(snapshot));
                    assert_eq!(Some(&snapshot), said, "a snapshot that the phone has not announced");
                }
                Output::Pending(_) => assert!(self.commands > self.replies, "a command that waits"),
                Output::Granted | Output::Refused { .. } | Output::Permissions(_) => {}
                other => unreachable!("an output without a rule: {other:?}"),
            }
        }
        assert_eq!(self.front.presence(), self.presence);
        assert!(!self.front.is_powered() || self.presence.atr.is_some());
        assert!(self.commands - self.replies <= 1, "one command at a time");
        let kept = self.session.is_none() && self.presence.atr.is_some();
        assert_eq!(self.front.poll_timeout().is_some(), kept || self.commands > self.replies);
    }

    /// A request goes to the phone; gives its epoch.
    fn requested(&mut self, session: u64, request_id: u64, epoch: u64) -> u64 {
        assert_eq!(Some(session), self.session);
        self.relayed = true;
        if let Some(last) = self.last_id {
            let repeated = std::mem::take(&mut self.repeats) && request_id == last;
            assert!(repeated || request_id == last + 1, "ids have no gaps");
        }
        self.last_id = Some(request_id);
        self.request = Some((session, request_id, epoch));
        assert!(self.front.is_powered() || self.commands == self.replies);
        epoch
    }

    fn sent(&mut self, message: Envelope) {
        let epoch = match message.body.as_ref().expect("the front sends what it knows") {
            Body::Open(open) => {
                self.resumes = None;
                if !open.resume_token.is_empty() {
                    assert_eq!(open.resume_token, vec![7; 32]);
                    assert!(self.presence.atr.is_some(), "a session without a card goes on");
                    self.resumes = self.lost;
                    assert!(self.resumes.is_some(), "a session that was closed goes on");
                }
                open.epoch
            }
            Body::Transmit(transmit) => self.requested(transmit.session, transmit.request_id, transmit.epoch),
            Body::PinEntry(entry) => {
                self.entering = true;
                self.requested(entry.session, entry.request_id, entry.epoch)
            }
            Body::Reset(reset) => {
                assert!(reset.epoch > self.epoch, "a reset raises the epoch");
                reset.epoch
            }
            Body::Cancel(_) => self.epoch,
            Body::Fetch(fetch) => {
                assert_eq!(Some(fetch.session), self.session);
                let said = self.said.snapshot.and_then(|snapshot| self.snapshots.get(snapshot));
                let digest = said.map(|snapshot| snapshot.digest().to_field());
                assert_eq!(Some(&fetch.digest), digest.as_ref(), "nobody wants another one");
                self.fetch = Some(fetch.clone());
                self.epoch
            }
            other => panic!("the front has no {other:?} to send"),
        };
        assert!(epoch >= self.epoch, "epochs never go back");
        self.epoch = epoch;
    }
}

/// Tags of the objects in [`snapshot`], and of others.
const OBJECTS: [u32; 4] = [0x7E, 0x5F_C102, 0x5F_C105, 0x5F_C109];

fn snapshot(length: usize) -> Arc<Snapshot> {
    let profile = Profile {
        template: b"template",
        applications: &[&[0xA0, 0, 0, 3, 8, 0, 0, 0x10, 0, 1, 0], &[0xA0, 0, 0, 5, 0x27, 0x47, 0x11, 0x17]],
        instructions: &[0x20, 0x87, 0xCB, 0xDB, 0xFD],
        version: &[5, 7, 4],
        serial: &length.to_be_bytes(),
    };
    let content: Vec<u8> = (0..length).map(|at| (at * length) as u8).collect();
    let objects =
        [(0x7E, Object::Always(&b"discovery"[..])), (0x5F_C102, Object::Always(&content)), (0x5F_C109, Object::Pin)];
    Arc::new(Snapshot::new(&profile, &objects).expect("a snapshot"))
}

fn card_state(shape: u8, length: u8) -> CardState {
    let present = shape & 4 == 0;
    CardState { present, atr: vec![0x3B; usize::from(length % 34)], card_name: "card".into(), serial: 1 }
}
