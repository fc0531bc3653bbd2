//! The radio of this computer, by btleplug.
//!
//! What is not obvious about it:
//! - on Linux, btleplug switches an adapter on to listen, also one that somebody has switched off a moment ago: the bus
//!   is asked to listen instead;
//! - a filter for service UUIDs loses advertisements on Linux, so everything is listened to;
//! - of a device that is known already, a live advertisement shows as an update of its signal strength, and what is
//!   known of it from before has none;
//! - once the services of a device are known, BlueZ takes no more UUIDs from its advertisements: it has to forget it;
//! - of a device whose radio address stays, BlueZ keeps the services in a file, and where the characteristics were in them. A
//!   service that is the same from the first handle to the last is not looked into again. Forgetting the device removes the
//!   services of one whose address changes, as those of phones do; those of another stay (BlueZ 5.66, 5.82) if its file has
//!   nothing else in it, such as a name that it advertised;
//! - the stream of notifications does not end with the connection, and bluetoothd's end is not told at all;
//! - dropping a stream may panic in a task of bluez-async's own when bluetoothd is gone. Nothing waits for that task.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use btleplug::api::{
    Central as _, CentralEvent, CentralState, Characteristic, Manager as _, Peripheral as _, ValueNotification,
    WriteType,
};
use btleplug::platform::{Adapter, Manager, Peripheral, PeripheralId};
use futures_lite::{Stream, StreamExt};
use pocketcard_protocol::advertising::Identifier;
use pocketcard_protocol::gatt;
use pocketcard_protocol::l2cap::Psm;
use tokio::sync::{Mutex, broadcast};

use super::bus::{Bus, BusEvent, L2capStream};
use super::{Central, Ears, Peer, PeerEvent, Radio, RadioError, Sighting};

/// For the system to answer what needs no radio.
const ANSWER: Duration = Duration::from_secs(10);

/// Ends of connections that a slow task may be behind.
const EVENTS: usize = 64;

/// How BlueZ says that a phone has nothing at a handle. Spec: Bluetooth 5.4, volume 3, part F, section 3.4.1.1
const INVALID_HANDLE: &str = "ATT error: 0x01";

type Events<T> = Pin<Box<dyn Stream<Item = T> + Send>>;

/// The computer's radio.
pub(crate) struct Bluez {
    adapter: Option<String>,
    /// Kept from attempt to attempt: each has a connection to the bus that would otherwise stay open.
    system: Mutex<Option<System>>,
    /// The adapter that could be used if it were on.
    off: Mutex<Option<Adapter>>,
}

struct System {
    manager: Manager,
    bus: Arc<Bus>,
}

impl Bluez {
    /// The adapter of this name, or the first one that is on.
    pub(crate) fn new(adapter: Option<String>) -> Self {
        Self { adapter, system: Mutex::default(), off: Mutex::default() }
    }

    async fn open_with(&self, system: &System) -> Result<(BluezCentral, BluezEars), RadioError> {
        // Listened to before anything is asked, so that no change is missed.
        let bus = system.bus.subscribe();
        if !system.bus.has_bluez().await? {
            return Err(RadioError::NoService);
        }
        let (adapter, name) = self.choose(&system.manager).await?;
        if answer(adapter.adapter_state()).await? != CentralState::PoweredOn {
            *self.off.lock().await = Some(adapter);
            return Err(RadioError::PoweredOff(name));
        }
        let events = answer(adapter.events()).await?;
        let (ends, _) = broadcast::channel(EVENTS);
        let central = BluezCentral { adapter, name, bus: Arc::clone(&system.bus), ends };
        central.forget_what_is_left().await;
        let ears = BluezEars { central: central.clone(), events, bus, heard: None };
        Ok((central, ears))
    }

    async fn choose(&self, manager: &Manager) -> Result<(Adapter, String), RadioError> {
        let mut off = None;
        for adapter in answer(manager.adapters()).await? {
            let Ok(info) = answer(adapter.adapter_info()).await else { continue };
            let name = info.split_whitespace().next().unwrap_or_default().to_owned();
            match &self.adapter {
                Some(wanted) if *wanted == name => return Ok((adapter, name)),
                Some(_) => {}
                None if answer(adapter.adapter_state()).await.ok() == Some(CentralState::PoweredOn) => {
                    return Ok((adapter, name));
                }
                None => drop(off.get_or_insert((adapter, name)).clone()),
            }
        }
        off.ok_or_else(|| RadioError::NoAdapter(self.adapter.clone()))
    }
}

impl Radio for Bluez {
    type Central = BluezCentral;
    type Ears = BluezEars;

    async fn open(&self) -> Result<(BluezCentral, BluezEars), RadioError> {
        let mut kept = self.system.lock().await;
        let system = match kept.take() {
            Some(system) => system,
            None => System { bus: Arc::new(Bus::watch().await?), manager: answer(Manager::new()).await? },
        };
        let opened = self.open_with(&system).await;
        // A bus that does not answer any more has to be connected to again.
        if !matches!(opened, Err(RadioError::Failed(_) | RadioError::TimedOut(_))) {
            *kept = Some(system);
        }
        opened
    }

    async fn changed(&self) {
        let events = self.system.lock().await.as_ref().map(|system| system.bus.subscribe());
        let off = self.off.lock().await.take();
        tokio::select! {
            () = signalled(events) => {}
            () = switched_on(off) => {}
        }
    }
}

/// Comes back when bluetoothd or an adapter came.
async fn signalled(events: Option<broadcast::Receiver<BusEvent>>) {
    let Some(mut events) = events else { return std::future::pending().await };
    loop {
        match events.recv().await {
            Ok(BusEvent::Service | BusEvent::AdapterCame) | Err(broadcast::error::RecvError::Lagged(_)) => return,
            Ok(_) => {}
            Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
        }
    }
}

/// Comes back when the adapter is on.
async fn switched_on(adapter: Option<Adapter>) {
    let Some(adapter) = adapter else { return std::future::pending().await };
    let Ok(mut events) = answer(adapter.events()).await else { return std::future::pending().await };
    // It may have been switched on before we listened.
    if answer(adapter.adapter_state()).await == Ok(CentralState::PoweredOn) {
        return;
    }
    while let Some(event) = events.next().await {
        if matches!(event, CentralEvent::StateUpdate(CentralState::PoweredOn)) {
            return;
        }
    }
    std::future::pending().await
}

/// An adapter that is on.
#[derive(Clone)]
pub(crate) struct BluezCentral {
    adapter: Adapter,
    name: String,
    bus: Arc<Bus>,
    /// Devices whose connection or service ended.
    ends: broadcast::Sender<(PeripheralId, PeerEvent)>,
}

impl BluezCentral {
    /// Forgets phones that an earlier daemon knew: the system keeps its connections, and a phone that it is connected to,
    /// or whose services it knows, says nothing by which it could be recognised.
    async fn forget_what_is_left(&self) {
        let Ok(peripherals) = answer(self.adapter.peripherals()).await else { return };
        for peripheral in peripherals {
            let Ok(Some(properties)) = answer(peripheral.properties()).await else { continue };
            if properties.services.iter().any(|uuid| Some(uuid.as_u128()) == gatt::service(0)) {
                self.bus.forget(&peripheral.id().to_string()).await;
            }
        }
    }

    async fn sighting(&self, id: &PeripheralId) -> Option<Sighting<PeripheralId>> {
        let peripheral = answer(self.adapter.peripheral(id)).await.ok()?;
        let properties = answer(peripheral.properties()).await.ok()??;
        // Without a signal strength it is only remembered.
        properties.rssi?;
        let identifiers = properties.services.iter().map(|uuid| Identifier::from(*uuid.as_bytes())).collect();
        Some(Sighting { address: id.clone(), identifiers })
    }

    async fn service_gone(&self, device: &str) {
        let peripherals = answer(self.adapter.peripherals()).await.unwrap_or_default();
        if let Some(peripheral) = peripherals.iter().find(|peripheral| peripheral.id().to_string() == device) {
            let _ = self.ends.send((peripheral.id(), PeerEvent::ServicesChanged));
        }
    }
}

impl Central for BluezCentral {
    type Address = PeripheralId;
    type Peer = BluezPeer;

    fn name(&self) -> String {
        self.name.clone()
    }

    async fn listen(&self, on: bool) -> Result<(), RadioError> {
        self.bus.listen(&self.adapter, &self.name, on).await
    }

    async fn connect(&self, address: &PeripheralId) -> Result<BluezPeer, RadioError> {
        let ends = self.ends.subscribe();
        let peripheral = self.adapter.peripheral(address).await.map_err(failed)?;
        peripheral.connect().await.map_err(failed)?;
        let found = async {
            peripheral.discover_services().await?;
            peripheral.notifications().await
        };
        match found.await {
            Ok(notifications) => {
                let (id, bus) = (address.clone(), Arc::clone(&self.bus));
                Ok(BluezPeer { id, peripheral, notifications, ends, bus, instance: 0, written: None, doubted: false })
            }
            Err(error) => Err(failed(error)),
        }
    }

    async fn forget(&self, address: &PeripheralId) {
        self.bus.forget(&address.to_string()).await;
    }
}

/// What the adapter hears.
pub(crate) struct BluezEars {
    central: BluezCentral,
    events: Events<CentralEvent>,
    bus: broadcast::Receiver<BusEvent>,
    heard: Option<Heard>,
}

/// An event that has to be looked into.
enum Heard {
    Device(PeripheralId),
    ServiceGone(String),
}

impl BluezEars {
    async fn listen(&mut self) -> Result<Heard, RadioError> {
        loop {
            tokio::select! {
                event = self.events.next() => match event {
                    Some(
                        CentralEvent::DeviceDiscovered(id)
                        | CentralEvent::RssiUpdate { id, .. }
                        | CentralEvent::ServicesAdvertisement { id, .. },
                    ) => return Ok(Heard::Device(id)),
                    Some(CentralEvent::DeviceDisconnected(id)) => {
                        let _ = self.central.ends.send((id, PeerEvent::Gone));
                    }
                    Some(CentralEvent::StateUpdate(CentralState::PoweredOff)) => {
                        return Err(RadioError::PoweredOff(self.central.name.clone()));
                    }
                    Some(_) => {}
                    None => return Err(RadioError::NoService),
                },
                event = self.bus.recv() => match event {
                    Ok(BusEvent::Service) => return Err(RadioError::NoService),
                    Ok(BusEvent::AdapterGone(name)) if name == self.central.name => {
                        return Err(RadioError::NoAdapter(Some(name)));
                    }
                    Ok(BusEvent::ServiceGone(device)) => return Ok(Heard::ServiceGone(device)),
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return Err(RadioError::NoService),
                },
            }
        }
    }
}

impl Ears for BluezEars {
    type Address = PeripheralId;

    async fn next(&mut self) -> Result<Sighting<PeripheralId>, RadioError> {
        loop {
            // Kept until it is looked into, since this may be dropped and called again.
            let heard = match self.heard.take() {
                Some(heard) => heard,
                None => self.listen().await?,
            };
            let sighting = match self.heard.insert(heard) {
                Heard::Device(id) => self.central.sighting(id).await,
                Heard::ServiceGone(device) => {
                    self.central.service_gone(device).await;
                    None
                }
            };
            self.heard = None;
            if let Some(sighting) = sighting {
                return Ok(sighting);
            }
        }
    }
}

/// A connected phone.
pub(crate) struct BluezPeer {
    id: PeripheralId,
    peripheral: Peripheral,
    notifications: Events<ValueNotification>,
    ends: broadcast::Receiver<(PeripheralId, PeerEvent)>,
    bus: Arc<Bus>,
    instance: u8,
    /// `HostToPhone` of that instance; looked up once, since every fragment is written to it.
    written: Option<Characteristic>,
    /// An end was signalled that may be that of an earlier connection.
    doubted: bool,
}

impl BluezPeer {
    fn characteristic(&self, instance: u8, uuid: u128) -> Result<Characteristic, RadioError> {
        let service = gatt::service(instance);
        let found = self.peripheral.characteristics().into_iter().find(|characteristic| {
            Some(characteristic.service_uuid.as_u128()) == service && characteristic.uuid.as_u128() == uuid
        });
        found.ok_or_else(|| RadioError::Failed("the phone's service is incomplete".to_owned()))
    }
}

impl Peer for BluezPeer {
    type Stream = L2capStream;

    fn mtu(&self) -> usize {
        usize::from(self.peripheral.mtu())
    }

    fn instances(&self) -> Vec<u8> {
        let services = self.peripheral.services();
        let has = |uuid: u128| services.iter().any(|service| service.uuid.as_u128() == uuid);
        (0..gatt::INSTANCES).filter(|instance| gatt::service(*instance).is_some_and(has)).collect()
    }

    async fn read_info(&mut self, instance: u8) -> Result<Vec<u8>, RadioError> {
        let info = self.characteristic(instance, gatt::INFO)?;
        self.peripheral.read(&info).await.map_err(|error| not_found(error, &[INVALID_HANDLE]))
    }

    async fn open_l2cap(&mut self, psm: Psm) -> Result<L2capStream, RadioError> {
        self.bus.open_l2cap(&self.id.to_string(), psm).await
    }

    async fn subscribe(&mut self, instance: u8) -> Result<(), RadioError> {
        let notified = self.characteristic(instance, gatt::PHONE_TO_HOST)?;
        self.instance = instance;
        self.written = Some(self.characteristic(instance, gatt::HOST_TO_PHONE)?);
        self.peripheral.subscribe(&notified).await.map_err(|error| {
            // Nothing refuses a subscription but what is none.
            not_found(error, &[INVALID_HANDLE, "Write not permitted"])
        })
    }

    async fn write(&mut self, instance: u8, fragment: &[u8]) -> Result<(), RadioError> {
        let written = self.written.as_ref().filter(|_| instance == self.instance);
        let written = written.ok_or_else(|| RadioError::Failed("not subscribed".to_owned()))?;
        self.peripheral.write(written, fragment, WriteType::WithoutResponse).await.map_err(failed)
    }

    async fn next(&mut self) -> PeerEvent {
        loop {
            // Kept until it is answered, since this may be dropped and called again.
            if self.doubted {
                if !answer(self.peripheral.is_connected()).await.unwrap_or_default() {
                    return PeerEvent::Gone;
                }
                self.doubted = false;
            }
            tokio::select! {
                biased;
                notification = self.notifications.next() => match notification {
                    Some(notification)
                        if notification.uuid.as_u128() == gatt::PHONE_TO_HOST
                            && Some(notification.service_uuid.as_u128()) == gatt::service(self.instance) =>
                    {
                        return PeerEvent::Notified(notification.value);
                    }
                    Some(_) => {}
                    None => return PeerEvent::Gone,
                },
                end = self.ends.recv() => match end {
                    Ok((id, PeerEvent::Gone)) if id == self.id => self.doubted = true,
                    Ok((id, event)) if id == self.id => return event,
                    Ok(_) => {}
                    // The adapter is out of service, or too much happened at once to know.
                    Err(_) => return PeerEvent::Gone,
                },
            }
        }
    }

    async fn disconnect(&mut self) {
        // Not to start a bluetoothd that its owner has stopped, which is why the link has ended then.
        if self.bus.has_bluez().await.unwrap_or_default()
            && let Err(error) = self.peripheral.disconnect().await
        {
            tracing::debug!(%error, "a connection could not be ended");
        }
        self.bus.forget(&self.id.to_string()).await;
    }
}

async fn answer<T>(question: impl Future<Output = btleplug::Result<T>>) -> Result<T, RadioError> {
    tokio::time::timeout(ANSWER, question).await.map_err(|_| RadioError::TimedOut("the system"))?.map_err(failed)
}

/// - `signs`: what BlueZ says when it has asked for something else than it was to.
fn not_found(error: btleplug::Error, signs: &[&str]) -> RadioError {
    match failed(error) {
        RadioError::Failed(text) if signs.iter().any(|sign| text.contains(sign)) => RadioError::StaleServices,
        error => error,
    }
}

fn failed(error: btleplug::Error) -> RadioError {
    let text = error.to_string();
    match error {
        btleplug::Error::PermissionDenied => RadioError::NoPermission,
        btleplug::Error::NoAdapterAvailable => RadioError::NoAdapter(None),
        // D-Bus has a name for it; btleplug leaves only the text.
        _ if text.contains("org.freedesktop.DBus.Error.AccessDenied") => RadioError::NoPermission,
        _ if text.contains("org.freedesktop.DBus.Error.ServiceUnknown") => RadioError::NoService,
        _ => RadioError::Failed(text),
    }
}
