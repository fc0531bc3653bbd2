//! The search and the connections on a radio that is not there, on a virtual clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pocketcard_ipc::control::{BluetoothState, LinkState, Transport};
use pocketcard_protocol::advertising::{Epoch, Identifier};
use pocketcard_protocol::channel::StaticSecret;
use pocketcard_protocol::fragment::{FragmentLayer, FragmentSize};
use pocketcard_protocol::gatt;
use pocketcard_protocol::link::{LINK_MESSAGE_LIMIT, Link, PairingMode, PhoneConfig, VersionRange};
use pocketcard_protocol::pairing::PairKeys;
use tokio::io::DuplexStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

mod l2cap;

use super::*;
use crate::config::Config;
use crate::hub::Hub;
use crate::locked;
use crate::store::Record;
use crate::{Clock, SystemEntropy};

type Heard = Result<Sighting<u8>, RadioError>;

/// A radio with devices in range.
#[derive(Clone, Default)]
struct Sim(Arc<SimState>);

#[derive(Default)]
struct SimState {
    off: Mutex<bool>,
    switched: Notify,
    devices: Mutex<HashMap<u8, Device>>,
    ears: Mutex<Option<mpsc::UnboundedSender<Heard>>>,
    connects: Mutex<Vec<tokio::time::Instant>>,
    breaks: Mutex<u32>,
}

/// What a device in range does.
#[derive(Clone)]
struct Device {
    identifiers: Vec<Identifier>,
    phone: PhoneConfig,
    mtu: usize,
    /// Instances that serve another host.
    taken: u8,
    /// Its service is not where it was found some other time.
    stale: Arc<Mutex<Option<Stale>>>,
    /// What it does with channels of L2CAP, if it offers any.
    l2cap: Option<l2cap::Behaviour>,
    /// How often it was asked for one.
    asked: Arc<Mutex<u32>>,
    /// Ends the connection that is there, or hints that the app is gone.
    hint: Arc<Mutex<Option<mpsc::UnboundedSender<PeerEvent>>>>,
}

impl Sim {
    fn switch(&self, on: bool) {
        *locked(&self.0.off) = !on;
        if !on && let Some(ears) = locked(&self.0.ears).take() {
            let _ = ears.send(Err(RadioError::PoweredOff("sim0".into())));
        }
        self.0.switched.notify_waiters();
    }

    fn put(&self, address: u8, device: Device) {
        locked(&self.0.devices).insert(address, device);
    }
}

impl Radio for Sim {
    type Central = Sim;
    type Ears = SimEars;

    async fn open(&self) -> Result<(Sim, SimEars), RadioError> {
        if *locked(&self.0.off) {
            return Err(RadioError::PoweredOff("sim0".into()));
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        *locked(&self.0.ears) = Some(sender);
        let mut breaks = locked(&self.0.breaks);
        if *breaks > 0 {
            *breaks -= 1;
            panic!("a library breaks");
        }
        Ok((self.clone(), SimEars(receiver)))
    }

    async fn changed(&self) {
        self.0.switched.notified().await;
    }
}

impl Central for Sim {
    type Address = u8;
    type Peer = SimPeer;

    fn name(&self) -> String {
        "sim0".into()
    }

    async fn listen(&self, on: bool) -> Result<(), RadioError> {
        let ears = locked(&self.0.ears);
        if let Some(ears) = ears.as_ref().filter(|_| on) {
            for (address, device) in locked(&self.0.devices).iter() {
                let _ = ears.send(Ok(Sighting { address: *address, identifiers: device.identifiers.clone() }));
            }
        }
        Ok(())
    }

    async fn forget(&self, _: &u8) {}

    async fn connect(&self, address: &u8) -> Result<SimPeer, RadioError> {
        locked(&self.0.connects).push(tokio::time::Instant::now());
        let device = locked(&self.0.devices).get(address).cloned();
        let device = device.ok_or_else(|| RadioError::Failed("out of range".into()))?;
        let (to_phone, from_host) = mpsc::unbounded_channel();
        let (events, to_host) = mpsc::unbounded_channel();
        *locked(&device.hint) = Some(events.clone());
        let link = device.link();
        let phone = SimPhone { link, size: FragmentSize::from_mtu(device.mtu), events };
        Ok(SimPeer {
            device,
            to_phone,
            to_host,
            starting: Some((phone, from_host)),
            task: None,
            channel: None,
            broken: false,
        })
    }
}

impl Device {
    fn link(&self) -> Link {
        let psm = self.l2cap.and(l2cap::PSM);
        Link::phone_with_channel(self.phone.clone(), psm, Clock.now())
    }
}

struct SimEars(mpsc::UnboundedReceiver<Heard>);

impl Ears for SimEars {
    type Address = u8;

    async fn next(&mut self) -> Result<Sighting<u8>, RadioError> {
        self.0.recv().await.unwrap_or(Err(RadioError::NoService))
    }
}

struct SimPhone {
    link: Link,
    size: FragmentSize,
    events: mpsc::UnboundedSender<PeerEvent>,
}

impl SimPhone {
    async fn run(mut self, mut from_host: mpsc::UnboundedReceiver<Vec<u8>>) {
        let mut fragments = FragmentLayer::new(self.size, LINK_MESSAGE_LIMIT);
        loop {
            while let Some(message) = self.link.poll_transmit() {
                fragments.push(message).unwrap();
            }
            while let Some(fragment) = fragments.poll_transmit(Clock.now()) {
                let _ = self.events.send(PeerEvent::Notified(fragment));
            }
            let Some(fragment) = from_host.recv().await else { return };
            fragments.handle_fragment(&fragment, Clock.now()).unwrap();
            while let Some(message) = fragments.poll_message() {
                self.link.handle_message(&message, Clock.now());
            }
        }
    }
}

struct SimPeer {
    device: Device,
    to_phone: mpsc::UnboundedSender<Vec<u8>>,
    to_host: mpsc::UnboundedReceiver<PeerEvent>,
    starting: Option<(SimPhone, mpsc::UnboundedReceiver<Vec<u8>>)>,
    task: Option<JoinHandle<()>>,
    channel: Option<JoinHandle<()>>,
    /// Nothing works any more on this connection.
    broken: bool,
}

/// How it shows that a service is not where it was.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stale {
    ReadsAnother,
    Subscribes,
}

impl Peer for SimPeer {
    type Stream = DuplexStream;

    async fn open_l2cap(&mut self, psm: Psm) -> Result<DuplexStream, RadioError> {
        assert_eq!(Some(psm), l2cap::PSM);
        *locked(&self.device.asked) += 1;
        self.broken = self.device.l2cap == Some(l2cap::Behaviour::BreaksAll);
        let (near, far) = tokio::io::duplex(l2cap::ROOM);
        self.channel = Some(tokio::spawn(l2cap::phone(self.device.clone(), far)));
        Ok(near)
    }

    fn mtu(&self) -> usize {
        self.device.mtu
    }

    fn instances(&self) -> Vec<u8> {
        vec![0, 1]
    }

    async fn read_info(&mut self, instance: u8) -> Result<Vec<u8>, RadioError> {
        if instance < self.device.taken || self.broken {
            return Err(RadioError::Failed("not permitted".into()));
        }
        if *locked(&self.device.stale) == Some(Stale::ReadsAnother) {
            // The declaration of a characteristic.
            return Ok([[2, 4, 0].as_slice(), &gatt::INFO.to_le_bytes()].concat());
        }
        // A second read begins another link.
        let (mut phone, from_host) = match self.starting.take() {
            Some(first) => first,
            None => {
                self.task.take().unwrap().abort();
                let (to_phone, from_host) = mpsc::unbounded_channel();
                self.to_phone = to_phone;
                let events = locked(&self.device.hint).clone().unwrap();
                let size = FragmentSize::from_mtu(self.device.mtu);
                (SimPhone { link: self.device.link(), size, events }, from_host)
            }
        };
        let info = phone.link.poll_transmit().unwrap();
        self.task = Some(tokio::spawn(phone.run(from_host)));
        Ok(gatt::info_value(&info).unwrap().to_vec())
    }

    async fn subscribe(&mut self, instance: u8) -> Result<(), RadioError> {
        assert!(instance >= self.device.taken);
        let stale = *locked(&self.device.stale) == Some(Stale::Subscribes);
        if stale { Err(RadioError::StaleServices) } else { Ok(()) }
    }

    async fn write(&mut self, _: u8, fragment: &[u8]) -> Result<(), RadioError> {
        assert!(fragment.len() <= (self.device.mtu - 3).min(244));
        self.to_phone.send(fragment.to_vec()).map_err(|_| RadioError::Failed("not connected".into()))
    }

    async fn next(&mut self) -> PeerEvent {
        self.to_host.recv().await.unwrap_or(PeerEvent::Gone)
    }

    async fn disconnect(&mut self) {
        for task in [self.task.take(), self.channel.take()].into_iter().flatten() {
            task.abort();
        }
    }
}

/// A daemon with one paired phone, and the radio.
struct World {
    hub: Arc<Hub>,
    sim: Sim,
    device: Device,
    _folder: tempfile::TempDir,
    _task: JoinHandle<()>,
}

fn pair(peer: &StaticSecret, seed: u8) -> PairKeys {
    let mut bytes = vec![1];
    bytes.extend(peer.public().as_bytes());
    bytes.extend([seed; 64]);
    PairKeys::from_bytes(&bytes).unwrap()
}

fn epoch() -> Epoch {
    Epoch::at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap())
}

fn world(mtu: usize, present: bool) -> World {
    world_with(mtu, present, |_| {})
}

fn world_with(mtu: usize, present: bool, configure: impl FnOnce(&mut Config)) -> World {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config { state_dir: folder.path().to_owned(), dev: true, ..Config::default() };
    config.bluetooth.enabled = Some(true);
    configure(&mut config);
    let hub = Hub::new(config, VersionRange::SUPPORTED).unwrap();
    let phone = StaticSecret::generate(&SystemEntropy).unwrap();
    let ours = pair(&phone, 7);
    let mut theirs = vec![1];
    theirs.extend(hub.public_key().as_bytes());
    theirs.extend([7; 64]);
    let identifiers = vec![Identifier::of_pair(&ours, epoch())];
    hub.add(Record { keys: ours, name: "Pixel".into(), slot: 0, address: None, confirmed: false }).unwrap();
    let phone = PhoneConfig {
        identity: Arc::new(phone),
        name: "Pixel".into(),
        software: "test".into(),
        entropy: Arc::new(SystemEntropy),
        pairs: Arc::new(move |_| PairKeys::from_bytes(&theirs).ok()),
        pairing: PairingMode::Closed,
        versions: VersionRange::SUPPORTED,
    };
    let device = Device {
        identifiers,
        phone,
        mtu,
        taken: 0,
        stale: Arc::default(),
        l2cap: None,
        asked: Arc::default(),
        hint: Arc::default(),
    };
    let sim = Sim::default();
    if present {
        sim.put(1, device.clone());
    }
    let air = Arc::clone(hub.air.as_ref().unwrap());
    let task = tokio::spawn(keep(Arc::downgrade(&hub), air, sim.clone()));
    World { hub, sim, device, _folder: folder, _task: task }
}

impl World {
    fn link(&self) -> LinkState {
        self.hub.phones()[0].link.clone()
    }

    async fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        // The clock is virtual: it moves on whenever nothing else can.
        for _ in 0..4000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never: {what}; {:?}", self.link());
    }

    async fn connected(&self) {
        self.until("connected", |world| matches!(world.link(), LinkState::Connected {})).await;
    }

    fn hint(&self, event: PeerEvent) {
        let _ = locked(&self.device.hint).as_ref().unwrap().send(event);
    }
}

#[tokio::test(start_paused = true)]
async fn a_phone_is_recognised_by_its_identifier_at_any_mtu() {
    for mtu in [23, 185, 517] {
        let world = world(mtu, false);
        let stranger = Device { identifiers: vec![Identifier::from([9; 16])], ..world.device.clone() };
        world.sim.put(2, stranger);
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(locked(&world.sim.0.connects).is_empty(), "a stranger was connected to");
        assert_eq!(world.hub.seen_on_air(&world.hub.phones()[0]), Some(false));
        world.sim.put(1, world.device.clone());
        world.connected().await;
        let transport = world.hub.phones()[0].transport;
        assert_eq!(transport, Some(Transport::Gatt { mtu: u32::try_from(mtu).unwrap() }));
        assert_eq!(world.hub.seen_on_air(&world.hub.phones()[0]), Some(true));
    }
}

#[tokio::test(start_paused = true)]
async fn clocks_may_differ_by_one_epoch() {
    let world = world(517, false);
    let ours = world.hub.radio_phones().remove(0).keys;
    let [_, before, _] = epoch().neighbours();
    let identifiers = vec![Identifier::of_pair(&ours, before)];
    world.sim.put(1, Device { identifiers, ..world.device.clone() });
    world.connected().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_hours_off_is_told_and_no_reason_to_connect() {
    let world = world(517, false);
    let ours = world.hub.radio_phones().remove(0).keys;
    // A time zone: eight quarters of an hour.
    let identifiers = vec![Identifier::of_pair(&ours, epoch().shifted(-8))];
    world.sim.put(1, Device { identifiers, ..world.device.clone() });
    let told = async {
        while world.hub.clock_ahead(&world.hub.phones()[0]) != Some(-8) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.expect("it is told");
    assert!(locked(&world.sim.0.connects).is_empty(), "its time is not ours");
    let finding = crate::doctor::findings(&world.hub).into_iter().find(|finding| finding.check == "clock").unwrap();
    assert!(finding.message.contains("2:00 h behind"), "{}", finding.message);
    // Somebody has set it.
    world.sim.put(1, world.device.clone());
    world.connected().await;
    assert_eq!(world.hub.clock_ahead(&world.hub.phones()[0]), None);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_taken_is_passed_over() {
    let world = world(185, false);
    world.sim.put(1, Device { taken: 1, ..world.device.clone() });
    world.connected().await;
}

/// As the system shows a device whose services it keeps.
fn kept() -> Vec<Identifier> {
    vec![Identifier::from(gatt::service(0).unwrap().to_be_bytes())]
}

#[tokio::test(start_paused = true)]
async fn a_bonded_phone_is_found_again_although_its_identifiers_are_not_told() {
    let world = world(185, true);
    world.connected().await;
    world.sim.put(1, Device { identifiers: kept(), ..world.device.clone() });
    world.hint(PeerEvent::Gone);
    world.until("connects again", |world| locked(&world.sim.0.connects).len() == 2).await;
    world.connected().await;
}

#[tokio::test(start_paused = true)]
async fn a_bonded_device_that_is_no_phone_of_ours_is_tried_less_and_less() {
    let world = world(185, false);
    let stranger = PhoneConfig {
        identity: Arc::new(StaticSecret::generate(&SystemEntropy).unwrap()),
        pairs: Arc::new(|_| None),
        ..world.device.phone.clone()
    };
    world.sim.put(2, Device { identifiers: kept(), phone: stranger, ..world.device.clone() });
    tokio::time::sleep(Duration::from_secs(300)).await;
    let tries = locked(&world.sim.0.connects).len();
    assert!((5..=20).contains(&tries), "{tries}");
    // And the phone itself does not wait for it.
    world.sim.put(1, Device { identifiers: kept(), ..world.device.clone() });
    world.connected().await;
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_is_connected_is_not_taken_for_another_that_is_away() {
    let world = world(185, true);
    world.connected().await;
    let other = pair(&StaticSecret::generate(&SystemEntropy).unwrap(), 9);
    world.hub.add(Record { keys: other, name: "Other".into(), slot: 1, address: None, confirmed: true }).unwrap();
    // It advertises for other computers meanwhile, and the search goes on for the other phone.
    world.sim.put(1, Device { identifiers: kept(), ..world.device.clone() });
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(locked(&world.sim.0.connects).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_does_not_let_us_in_is_tried_less_and_less() {
    let world = world(185, false);
    world.sim.put(1, Device { taken: 2, ..world.device.clone() });
    tokio::time::sleep(Duration::from_secs(300)).await;
    let tries = locked(&world.sim.0.connects).clone();
    let gaps: Vec<Duration> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((8..=20).contains(&gaps.len()), "{gaps:?}");
    assert!(gaps.iter().take(3).all(|gap| *gap < Duration::from_secs(8)), "{gaps:?}");
    assert!(gaps.last().unwrap() >= &Duration::from_secs(30), "{gaps:?}");
    // It lets us in again: nothing has to be done here.
    world.sim.put(1, world.device.clone());
    world.connected().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_where_it_was_is_named_until_it_is_found() {
    let world = world(185, true);
    world.connected().await;
    let named = |world: &World| {
        let findings = crate::doctor::findings(&world.hub);
        findings.into_iter().find(|finding| finding.check == "services")
    };
    for stale in [Stale::ReadsAnother, Stale::Subscribes] {
        *locked(&world.device.stale) = Some(stale);
        world.hint(PeerEvent::Gone);
        world.until("it is named", |world| named(world).is_some()).await;
        assert!(named(&world).unwrap().advice.unwrap().contains("Cache=yes"));
        let reason = Some(format!("Bluetooth: {}", RadioError::StaleServices));
        assert_eq!(world.link(), LinkState::Disconnected { reason });
        // What was kept is forgotten.
        *locked(&world.device.stale) = None;
        world.connected().await;
        assert!(named(&world).is_none());
        assert!(!world.hub.is_stale(&world.hub.phones()[0]));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_repeats_an_identifier_does_not_keep_the_phone_waiting() {
    let world = world(185, false);
    for address in 2..5 {
        world.sim.put(address, Device { taken: 2, ..world.device.clone() });
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    world.sim.put(1, world.device.clone());
    let begin = tokio::time::Instant::now();
    world.connected().await;
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_went_away_is_found_again() {
    let world = world(185, true);
    world.connected().await;
    locked(&world.sim.0.devices).clear();
    world.hint(PeerEvent::Gone);
    world.until("gone", |world| matches!(world.link(), LinkState::Disconnected { .. })).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    world.sim.put(1, world.device.clone());
    let begin = tokio::time::Instant::now();
    world.connected().await;
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_is_switched_off_is_told_and_comes_back_by_itself() {
    let world = world(185, true);
    world.connected().await;
    world.sim.switch(false);
    let state = |world: &World| world.hub.status().bluetooth.unwrap().state;
    world.until("off", |world| state(world) == BluetoothState::PoweredOff).await;
    let told = crate::doctor::findings(&world.hub);
    assert!(told.iter().any(|finding| finding.check == "bluetooth" && finding.advice.is_some()));
    world.hint(PeerEvent::Gone);
    tokio::time::sleep(Duration::from_secs(120)).await;
    world.sim.switch(true);
    world.until("on", |world| state(world) == BluetoothState::Working).await;
    world.connected().await;
}

#[tokio::test(start_paused = true)]
async fn a_library_that_breaks_takes_nothing_with_it() {
    let world = world(185, true);
    *locked(&world.sim.0.breaks) = 1;
    world.connected().await;
    assert_eq!(*locked(&world.sim.0.breaks), 0);
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_is_forgotten_is_left_alone() {
    let world = world(185, true);
    world.connected().await;
    world.hub.forget("Pixel").unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(locked(&world.sim.0.connects).len(), 1);
    assert!(world.hub.phones().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_search_finds_whoever_wants_to_pair() {
    let world = world(185, false);
    let air = Arc::clone(world.hub.air.as_ref().unwrap());
    let mut search = air.search(Identifier::COMPARE);
    world.sim.put(3, Device { identifiers: vec![Identifier::COMPARE], ..world.device.clone() });
    let mut wire = tokio::time::timeout(Duration::from_secs(10), search.next()).await.expect("it is not found");
    assert!(gatt::info_value(&wire.incoming.recv().await.unwrap()).is_some());
    // Once it is not searched for any more, it is not connected to.
    drop(search);
    wire.outbox.close();
    assert_eq!(wire.incoming.recv().await, None);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(locked(&world.sim.0.connects).len(), 1);
}
