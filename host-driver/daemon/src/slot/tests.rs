use std::sync::Arc;

use pocketcard_protocol::channel::StaticSecret;
use pocketcard_protocol::link::{PairingMode, PhoneConfig, VersionRange};
use pocketcard_protocol::stream::{FrameReader, LONGEST_MESSAGE};
use tokio::net::UnixStream;

use super::*;
use crate::SystemEntropy;
use crate::stream::{Reader, split};

/// No wait of these tests is longer.
const LIMIT: Duration = Duration::from_secs(10);

fn pair_with(peer: &StaticSecret) -> PairKeys {
    let mut bytes = vec![1];
    bytes.extend(peer.public().as_bytes());
    bytes.extend([7; 64]);
    PairKeys::from_bytes(&bytes).unwrap()
}

/// Hands the phone what the slot wrote, at least one message.
async fn deliver(reader: &mut Reader, frames: &mut FrameReader, phone: &mut Link) {
    let read = reader.read(frames.read_buffer());
    let count = tokio::time::timeout(LIMIT, read).await.expect("the slot said nothing").unwrap();
    frames.filled(count);
    while let Some(message) = frames.next_message().unwrap() {
        phone.handle_message(message, Clock.now());
    }
}

#[tokio::test]
async fn a_suspected_phone_is_asked_at_once() {
    let (host, phone) =
        (StaticSecret::generate(&SystemEntropy).unwrap(), StaticSecret::generate(&SystemEntropy).unwrap());
    let (ours, theirs) = (pair_with(&phone), pair_with(&host));
    let config = HostConfig {
        identity: Arc::new(host),
        name: "desk".into(),
        software: SOFTWARE.into(),
        entropy: Arc::new(SystemEntropy),
        versions: VersionRange::SUPPORTED,
    };
    let mut phone = Link::phone(
        PhoneConfig {
            identity: Arc::new(phone),
            name: "phone".into(),
            software: "test".into(),
            entropy: Arc::new(SystemEntropy),
            pairs: Arc::new(move |_| Some(theirs.duplicate())),
            pairing: PairingMode::Closed,
            versions: VersionRange::SUPPORTED,
        },
        Clock.now(),
    );
    let slot = Slot::new(0, PinPlace::Keyboard, Clock, broadcast::channel(16).0, Operations::new(&SystemEntropy));
    slot.suspect();
    let (near, far) = UnixStream::pair().unwrap();
    let (_near_reader, outbox) = split(near).unwrap();
    let (mut reader, _far) = split(far).unwrap();
    let mut frames = FrameReader::new(LONGEST_MESSAGE);
    let number = slot.link_up(config, &ours, PhoneOutbox::Stream(outbox));
    // The handshake, then the front's request to open a session, which this phone leaves without an answer.
    while !phone.is_open() {
        while let Some(message) = phone.poll_transmit() {
            slot.link_message(number, &message);
        }
        deliver(&mut reader, &mut frames, &mut phone).await;
    }
    while let Some(message) = phone.poll_transmit() {
        assert_eq!(slot.link_message(number, &message), LinkStep::Open);
    }
    while phone.poll_event().is_some() {}
    slot.suspect();
    deliver(&mut reader, &mut frames, &mut phone).await;
    assert!(phone.poll_event().is_none(), "the link itself answers a ping");
    let pong = phone.poll_transmit().unwrap();
    assert_eq!(slot.link_message(number, &pong), LinkStep::Open);
}
