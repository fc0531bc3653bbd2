//! A computer's side of the phone's socket.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use pocketcard_phone::SystemEntropy;
use pocketcard_protocol::{
    Timestamp,
    channel::StaticSecret,
    link::{CloseReason, Event, HostConfig, LINK_MESSAGE_LIMIT, Link, VersionRange},
    messages::{Body, Envelope, Open, Transmit},
    pairing::{Attempts, Offer, PairKeys},
    stream::{self, FrameReader},
};
use zeroize::Zeroizing;

pub const LIMIT: Duration = Duration::from_secs(20);

/// The computer's side of one link, over a real socket.
pub struct Host {
    pub stream: UnixStream,
    pub frames: FrameReader,
    pub link: Link,
    pub origin: Instant,
}

pub fn host_config(versions: VersionRange) -> HostConfig {
    let identity = Arc::new(StaticSecret::from_bytes(&[7; 32]));
    let entropy = Arc::new(SystemEntropy);
    HostConfig { identity, name: "Test host".into(), software: "test 1".into(), entropy, versions }
}

impl Host {
    pub fn new(socket: &Path, link: Link, origin: Instant) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        Self { stream, frames: FrameReader::new(LINK_MESSAGE_LIMIT), link, origin }
    }

    pub fn connect(socket: &Path, pair: &PairKeys) -> Self {
        let link = Link::host_connect(host_config(VersionRange::SUPPORTED), pair, Timestamp::ZERO);
        Self::new(socket, link, Instant::now())
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_origin(self.origin.elapsed())
    }

    pub fn flush(&mut self) {
        while let Some(message) = self.link.poll_transmit() {
            // Whoever closed the stream has said why before.
            let _ = self.stream.write_all(&stream::encode(&message).unwrap());
        }
    }

    /// The next event of the link.
    pub fn event(&mut self) -> Event {
        let deadline = Instant::now() + LIMIT;
        loop {
            self.flush();
            if let Some(event) = self.link.poll_event() {
                return event;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nothing happened on the link");
            self.stream.set_read_timeout(Some(left)).unwrap();
            let count = self.stream.read(self.frames.read_buffer()).unwrap();
            if count == 0 {
                return Event::Closed(CloseReason::Lost);
            }
            self.frames.filled(count);
            while let Some(message) = self.frames.next_message().unwrap() {
                let now = Timestamp::from_origin(self.origin.elapsed());
                self.link.handle_message(message, now);
            }
        }
    }

    pub fn send(&mut self, envelope: impl Into<Envelope>) {
        let now = self.now();
        self.link.send(&envelope.into(), now).unwrap();
        self.flush();
    }

    /// Opens a card session; its number.
    pub fn open(&mut self) -> u64 {
        self.ask_to_open();
        self.opened()
    }

    /// Asks for a card session.
    pub fn ask_to_open(&mut self) {
        let event = self.event();
        assert!(matches!(event, Event::Connected { .. }), "{event:?}");
        self.send(Open { resume_token: Vec::new(), epoch: 1, software: "test 1".into() });
    }

    /// Waits for the card session that was asked for; its number.
    pub fn opened(&mut self) -> u64 {
        loop {
            if let Event::Message(Envelope { body: Some(Body::Opened(opened)) }) = self.event() {
                return opened.session;
            }
        }
    }

    pub fn transmit(&mut self, session: u64, request_id: u64, command: &[u8]) -> Vec<u8> {
        self.request(Transmit { session, request_id, epoch: 1, command: command.to_vec() })
    }

    /// Asks for something, and waits for the response.
    pub fn request(&mut self, envelope: impl Into<Envelope>) -> Vec<u8> {
        self.send(envelope);
        loop {
            match self.event() {
                Event::Message(Envelope { body: Some(Body::Response(response)) }) => return response.response.clone(),
                Event::Message(_) => {}
                event => panic!("{event:?}"),
            }
        }
    }
}

/// Begins a pairing as `pocketcard pair` does, with a QR text.
pub fn offer(socket: &Path) -> (Zeroizing<String>, Host) {
    let origin = Instant::now();
    let config = host_config(VersionRange::SUPPORTED);
    let offer =
        Offer::new(&config.identity.public(), &config.name, &SystemEntropy, &Attempts::new(), Timestamp::ZERO).unwrap();
    let qr = offer.qr_text().unwrap();
    let mut host = Host::new(socket, Link::host_pair(config, offer, Timestamp::ZERO), origin);
    host.flush();
    (qr, host)
}

/// The digits that the computer shows.
pub fn digits(host: &mut Host) -> String {
    let Event::PairingDigits { digits, .. } = host.event() else { panic!("no digits") };
    digits.to_string()
}

/// Somebody says at the computer that the digits are the same; the phone's owner says so too.
pub fn confirm(mut host: Host) -> PairKeys {
    host.link.confirm_pairing(true, host.now());
    let pair = loop {
        match host.event() {
            Event::PeerConfirmed => {}
            Event::Paired { pair, .. } => break pair,
            event => panic!("{event:?}"),
        }
    };
    let now = host.now();
    host.link.pair_stored(now);
    while !matches!(host.event(), Event::PairingDone) {}
    host.flush();
    pair
}
