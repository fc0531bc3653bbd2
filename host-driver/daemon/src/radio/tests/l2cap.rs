//! Phones that offer channels of L2CAP: good ones, and bad ones, which cost some time and never the card.

use std::time::Duration;

use pocketcard_protocol::fragment::NEXT_FRAGMENT;
use pocketcard_protocol::l2cap::{DOUBT, L2capLayer, OPEN_LIMIT, Psm};
use pocketcard_protocol::link::LINK_MESSAGE_LIMIT;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

pub(super) const PSM: Option<Psm> = Psm::new(0x81);

/// What a channel holds that nobody reads: less than any message, as with few credits.
pub(super) const ROOM: usize = 16;

/// What a phone does with the channels that it offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    Good,
    /// It closes them at once: nobody listens at that PSM.
    Refuses,
    /// It closes them, and GATT with them, as a system may that cannot do both.
    BreaksAll,
    /// It says nothing.
    Silent,
    /// It announces a frame that is too long.
    TooLong,
    /// It closes in the middle of its first message.
    CutsInfo,
    /// It says `Info` and takes nothing: the handshake never gets through.
    NoCredits,
    /// It takes the handshake and closes in the middle of the answer.
    CutsHandshake,
    /// It takes the handshake and answers what is none.
    Nonsense,
    /// It answers the handshake, by which the link is open for the host, and takes nothing afterwards.
    StopsLater,
}

/// The phone's end of a channel.
pub(super) async fn phone(device: Device, mut stream: DuplexStream) {
    let behaviour = device.l2cap.unwrap();
    let mut link = Link::phone(device.phone.clone(), Clock.now());
    let mut layer = L2capLayer::new(LINK_MESSAGE_LIMIT);
    let mut answered = 0;
    loop {
        while let Some(message) = link.poll_transmit() {
            layer.push(&message, Clock.now()).unwrap();
            answered += 1;
        }
        match (behaviour, answered) {
            (Behaviour::Good | Behaviour::StopsLater, _) => {}
            (Behaviour::Refuses | Behaviour::BreaksAll, _) => return,
            (Behaviour::Silent, _) => return std::future::pending().await,
            (Behaviour::TooLong, _) => {
                let _ = stream.write_all(&4097u32.to_be_bytes()).await;
                return std::future::pending().await;
            }
            (Behaviour::CutsInfo, _) | (Behaviour::CutsHandshake, 2..) => {
                let half = layer.waiting().len() / 2;
                let _ = stream.write_all(&layer.waiting()[..half]).await;
                return;
            }
            (Behaviour::NoCredits, _) => {
                let _ = stream.write_all(layer.waiting()).await;
                return std::future::pending().await;
            }
            (Behaviour::Nonsense, 2..) => {
                let _ = stream.write_all(&[0, 0, 0, 2, 1, 1]).await;
                return std::future::pending().await;
            }
            (Behaviour::CutsHandshake | Behaviour::Nonsense, _) => {}
        }
        let count = layer.waiting().len();
        if stream.write_all(layer.waiting()).await.is_err() {
            return;
        }
        layer.written(count, Clock.now());
        if answered >= 2 && behaviour == Behaviour::StopsLater {
            return std::future::pending().await;
        }
        let mut sdu = [0; 100];
        let count = stream.read(&mut sdu).await.unwrap();
        if count == 0 {
            return;
        }
        layer.handle_bytes(&sdu[..count], Clock.now());
        while let Some(message) = layer.poll_message().unwrap() {
            link.handle_message(&message, Clock.now());
        }
    }
}

fn offering(behaviour: Behaviour) -> World {
    let world = world(185, false);
    world.sim.put(1, Device { l2cap: Some(behaviour), ..world.device.clone() });
    world
}

impl World {
    fn carried_by(&self) -> Option<Transport> {
        self.hub.phones()[0].transport
    }

    fn asked(&self) -> u32 {
        *locked(&self.device.asked)
    }
}

const GATT: Option<Transport> = Some(Transport::Gatt { mtu: 185 });

#[tokio::test(start_paused = true)]
async fn a_channel_carries_the_link_where_both_sides_can() {
    let world = offering(Behaviour::Good);
    world.connected().await;
    assert_eq!((world.carried_by(), world.asked()), (Some(Transport::L2cap {}), 1));
    // And again after the phone was away.
    locked(&world.sim.0.devices).clear();
    world.hint(PeerEvent::Gone);
    world.until("gone", |world| matches!(world.link(), LinkState::Disconnected { .. })).await;
    world.sim.put(1, Device { l2cap: Some(Behaviour::Good), ..world.device.clone() });
    world.connected().await;
    assert_eq!((world.carried_by(), world.asked()), (Some(Transport::L2cap {}), 2));
}

#[tokio::test(start_paused = true)]
async fn the_configuration_can_do_without_channels() {
    let world = world_with(185, false, |config| config.bluetooth.l2cap = Some(false));
    world.sim.put(1, Device { l2cap: Some(Behaviour::Good), ..world.device.clone() });
    world.connected().await;
    assert_eq!((world.carried_by(), world.asked()), (GATT, 0));
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_does_not_open_costs_no_more_than_its_limit() {
    for (behaviour, wait) in [
        (Behaviour::Refuses, Duration::ZERO),
        (Behaviour::TooLong, Duration::ZERO),
        (Behaviour::CutsInfo, Duration::ZERO),
        (Behaviour::Silent, OPEN_LIMIT),
    ] {
        let world = offering(behaviour);
        let begin = tokio::time::Instant::now();
        world.connected().await;
        assert!(begin.elapsed() < wait + Duration::from_millis(100), "{behaviour:?}: {:?}", begin.elapsed());
        assert_eq!((world.carried_by(), world.asked()), (GATT, 1), "{behaviour:?}");
        assert_eq!(locked(&world.sim.0.connects).len(), 1, "{behaviour:?}: on the same connection");
    }
}

#[tokio::test(start_paused = true)]
async fn a_phone_on_whose_channel_no_link_opens_is_reached_without() {
    for behaviour in [Behaviour::CutsHandshake, Behaviour::Nonsense, Behaviour::BreaksAll] {
        let world = offering(behaviour);
        let begin = tokio::time::Instant::now();
        world.connected().await;
        assert!(begin.elapsed() < Duration::from_secs(10), "{behaviour:?}: {:?}", begin.elapsed());
        assert_eq!((world.carried_by(), world.asked()), (GATT, 1), "{behaviour:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_repeats_an_identifier_does_not_keep_the_phone_from_its_channel() {
    let world = world(185, false);
    let other = Arc::new(StaticSecret::generate(&SystemEntropy).unwrap());
    let stranger = PhoneConfig { identity: other, pairs: Arc::new(|_| None), ..world.device.phone.clone() };
    let asked = Arc::default();
    let (l2cap, counted) = (Some(Behaviour::Nonsense), Arc::clone(&asked));
    world.sim.put(2, Device { phone: stranger, l2cap, asked: counted, ..world.device.clone() });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(*locked(&asked), 1, "its own channels are doubted");
    world.sim.put(1, Device { l2cap: Some(Behaviour::Good), ..world.device.clone() });
    world.connected().await;
    assert_eq!((world.carried_by(), world.asked()), (Some(Transport::L2cap {}), 1));
}

// The limits of what stalls are on the system's clock, which a test cannot move on.

#[tokio::test]
async fn a_phone_that_takes_no_handshake_is_reached_without_a_channel() {
    let world = offering(Behaviour::NoCredits);
    let begin = tokio::time::Instant::now();
    world.connected().await;
    let took = begin.elapsed();
    assert!(took > NEXT_FRAGMENT && took < Duration::from_secs(10), "{took:?}");
    assert_eq!((world.carried_by(), world.asked()), (GATT, 1));
}

#[tokio::test]
async fn a_channel_that_stalls_later_is_doubted_for_its_time_and_no_longer() {
    let world = offering(Behaviour::StopsLater);
    // The opening of the session finds no room: the link stalls and comes back without a channel.
    world.until("over GATT", |world| world.carried_by() == GATT).await;
    world.connected().await;
    assert_eq!(world.asked(), 1);
    tokio::time::pause();
    world.sim.put(1, Device { l2cap: Some(Behaviour::Good), ..world.device.clone() });
    let again = async || {
        let before = locked(&world.sim.0.connects).len();
        world.hint(PeerEvent::Gone);
        world.until("connects again", |world| locked(&world.sim.0.connects).len() > before).await;
        world.connected().await;
        world.carried_by()
    };
    tokio::time::sleep(DOUBT - Duration::from_secs(60)).await;
    assert_eq!((again().await, world.asked()), (GATT, 1));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((again().await, world.asked()), (Some(Transport::L2cap {}), 2));
}
