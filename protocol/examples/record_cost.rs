//! Prints what one command and its response cost on both ends of a link, up to the APDU taken out and wiped:
//! `cargo run --release -p pocketcard-protocol --example record_cost`.
#![allow(missing_docs, clippy::print_stdout)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pocketcard_protocol::apdu;
use pocketcard_protocol::link::{Event, HostConfig, Link, PairingMode, PhoneConfig, VersionRange};
use pocketcard_protocol::messages::{Body, Envelope, Response, Transmit};
use pocketcard_protocol::pairing::PairKeys;
use pocketcard_protocol::{Entropy, EntropyError, Timestamp, channel::StaticSecret};

struct Counter(std::sync::atomic::AtomicU8);

impl Entropy for Counter {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        buffer.fill(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        Ok(())
    }
}

fn keys(peer: &StaticSecret) -> Option<PairKeys> {
    PairKeys::from_bytes(&[&[1], peer.public().as_bytes().as_slice(), &[5; 64]].concat()).ok()
}

fn links() -> Option<(Link, Link)> {
    let entropy: Arc<dyn Entropy> = Arc::new(Counter(1.into()));
    let [host, phone] = [7, 8].map(|byte| Arc::new(StaticSecret::from_bytes(&[byte; 32])));
    let (of_host, of_phone) = (keys(&phone)?, keys(&host)?);
    let host = HostConfig {
        identity: host,
        name: "host".into(),
        software: String::new(),
        entropy: Arc::clone(&entropy),
        versions: VersionRange::SUPPORTED,
    };
    let phone = PhoneConfig {
        identity: phone,
        name: "phone".into(),
        software: String::new(),
        entropy,
        pairs: Arc::new(move |_| Some(of_phone.duplicate())),
        pairing: PairingMode::Closed,
        versions: VersionRange::SUPPORTED,
    };
    let mut host = Link::host_connect(host, &of_host, Timestamp::ZERO);
    let mut phone = Link::phone(phone, Timestamp::ZERO);
    for _ in 0..2 {
        pump(&mut phone, &mut host);
        pump(&mut host, &mut phone);
    }
    host.is_open().then_some((host, phone))
}

/// Hands over all that `from` has to send; gives the number of messages that arrived.
fn pump(from: &mut Link, to: &mut Link) -> usize {
    while let Some(message) = from.poll_transmit() {
        to.handle_message(&message, Timestamp::ZERO);
    }
    let mut count = 0;
    while let Some(event) = to.poll_event() {
        let Event::Message(message) = black_box(event) else { continue };
        // As the card and the front take it.
        count += match message.body {
            Some(Body::Transmit(mut message)) => apdu::Command::from_bytes(message.take_command()).map(drop).is_ok(),
            Some(Body::Response(mut message)) => apdu::Response::from_bytes(message.take_response()).map(drop).is_ok(),
            _ => false,
        } as usize;
    }
    count
}

/// A command of `length` bytes: with data if it is longer than 7 bytes, else an extended Le alone.
fn command(length: usize) -> Option<Vec<u8>> {
    let short = (8..=260).contains(&length).then(|| length - 5);
    let (data, le) = (short.unwrap_or(length.saturating_sub(7)), (length == 7).then_some(0x1_0000));
    let command = apdu::Command::new(0, 0xCB, 0x3F, 0xFF, &vec![1; data], le).ok()?;
    (command.as_bytes().len() == length).then(|| command.as_bytes().to_vec())
}

fn main() {
    let Some((mut host, mut phone)) = links() else {
        println!("the links did not open");
        return;
    };
    const ROUNDS: u32 = 20_000;
    for (to_phone, to_host) in [(10_usize, 2_usize), (7, 4098), (260, 2), (4103, 2)] {
        let Some(command) = command(to_phone) else { continue };
        let command = Envelope::from(Transmit { session: 1, request_id: 1, epoch: 1, command });
        let response = Envelope::from(Response {
            session: 1,
            request_id: 1,
            epoch: 1,
            response: vec![2; to_host],
            security_version: 1,
            snapshot_digest: Vec::new(),
        });
        let mut spent = Vec::new();
        for _ in 0..5 {
            let start = Instant::now();
            let mut arrived = 0;
            for _ in 0..ROUNDS {
                let _ = host.send(black_box(&command), Timestamp::ZERO);
                arrived += pump(&mut host, &mut phone);
                let _ = phone.send(black_box(&response), Timestamp::ZERO);
                arrived += pump(&mut phone, &mut host);
            }
            assert_eq!(arrived, 2 * ROUNDS as usize);
            spent.push(start.elapsed() / ROUNDS);
        }
        let best = spent.iter().min().copied().unwrap_or(Duration::MAX);
        println!("command {to_phone:5} B, response {to_host:5} B: {best:?} for two seals and two opens");
    }
}
