//! What BlueZ signals on D-Bus and btleplug does not pass on: bluetoothd coming and going, adapters, and services that
//! a connected phone has no more.

use std::sync::Arc;
use std::time::Duration;

use bluer::l2cap::{Socket, SocketAddr, Stream};
use bluer::{Address, AddressType};
use btleplug::platform::Adapter;
use dbus::Path;
use dbus::arg::{PropMap, Variant};
use dbus::message::MatchRule;
use dbus::nonblock::stdintf::org_freedesktop_dbus::{
    ObjectManagerInterfacesAdded, ObjectManagerInterfacesRemoved, Properties,
};
use dbus::nonblock::{MsgMatch, Proxy, SyncConnection};
use futures_lite::StreamExt;
use pocketcard_protocol::l2cap::{Psm, SDU_LIMIT};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use super::RadioError;

const BLUEZ: &str = "org.bluez";
const BUS: &str = "org.freedesktop.DBus";
const OBJECTS: &str = "org.freedesktop.DBus.ObjectManager";
const ADAPTER: &str = "org.bluez.Adapter1";
const DEVICE: &str = "org.bluez.Device1";
const SERVICE: &str = "org.bluez.GattService1";
const PREFIX: &str = "/org/bluez/";

/// For the bus to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// For BlueZ to forget a device, whose connection it ends first.
const FORGET: Duration = Duration::from_secs(5);

/// Events that a slow listener may be behind.
const EVENTS: usize = 64;

/// A channel of L2CAP.
pub(super) type L2capStream = Stream;

/// Something that BlueZ signalled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BusEvent {
    /// bluetoothd came or went; all that was known of it is void.
    Service,
    /// An adapter came.
    AdapterCame,
    /// The adapter of this name is gone.
    AdapterGone(String),
    /// A device, as `hci0/dev_...`, has one service less.
    ServiceGone(String),
}

/// The system bus, watched as long as this exists.
pub(super) struct Bus {
    connection: Arc<SyncConnection>,
    events: broadcast::Sender<BusEvent>,
    _matches: Vec<MsgMatch>,
    _tasks: JoinSet<()>,
}

impl Bus {
    pub(super) async fn watch() -> Result<Self, RadioError> {
        let (resource, connection) = dbus_tokio::connection::new_system_sync().map_err(|error| failed(&error))?;
        let (events, _) = broadcast::channel(EVENTS);
        let mut tasks = JoinSet::new();
        tasks.spawn(async {
            let _lost = resource.await;
        });
        let rule = |name: &'static str| MatchRule::new_signal(OBJECTS, name);
        let matched = |rule| async {
            let matched = tokio::time::timeout(ANSWER, connection.add_match(rule)).await;
            matched.map_err(|_| RadioError::TimedOut("the system bus"))?.map_err(|error| failed(&error))
        };
        let (owner, mut owners) =
            matched(MatchRule::new_signal(BUS, "NameOwnerChanged")).await?.stream::<(String, String, String)>();
        let (added, mut additions) = matched(rule("InterfacesAdded")).await?.stream::<ObjectManagerInterfacesAdded>();
        let (removed, mut removals) =
            matched(rule("InterfacesRemoved")).await?.stream::<ObjectManagerInterfacesRemoved>();
        let sender = events.clone();
        tasks.spawn(async move {
            loop {
                let event = tokio::select! {
                    Some((_, (name, ..))) = owners.next() => (name == BLUEZ).then_some(BusEvent::Service),
                    Some((_, added)) = additions.next() => {
                        added.interfaces.contains_key(ADAPTER).then_some(BusEvent::AdapterCame)
                    }
                    Some((_, removed)) = removals.next() => gone(&removed.object, &removed.interfaces),
                    else => return,
                };
                if let Some(event) = event {
                    // Nobody may be listening.
                    let _ = sender.send(event);
                }
            }
        });
        Ok(Self { connection, events, _matches: vec![owner, added, removed], _tasks: tasks })
    }

    /// Whether bluetoothd is there.
    pub(super) fn has_bluez(&self) -> impl Future<Output = Result<bool, RadioError>> + Send + use<> {
        let bus = Proxy::new(BUS, "/org/freedesktop/DBus", ANSWER, Arc::clone(&self.connection));
        async move {
            let (there,): (bool,) =
                bus.method_call(BUS, "NameHasOwner", (BLUEZ,)).await.map_err(|error| failed(&error))?;
            Ok(there)
        }
    }

    /// Begins or ends listening for LE devices with an adapter that is on. One that is off stays off.
    pub(super) async fn listen(&self, _: &Adapter, adapter: &str, on: bool) -> Result<(), RadioError> {
        let adapter = Proxy::new(BLUEZ, format!("{PREFIX}{adapter}"), ANSWER, Arc::clone(&self.connection));
        let ask = async |method: &str| adapter.method_call::<(), _, _, _>(ADAPTER, method, ()).await;
        if !on {
            // It may have ended by itself.
            let _ = ask("StopDiscovery").await;
            return Ok(());
        }
        let mut filter = PropMap::new();
        filter.insert("Transport".to_owned(), Variant(Box::new("le".to_owned())));
        // Each advertisement of a device is told, not only the first.
        filter.insert("DuplicateData".to_owned(), Variant(Box::new(true)));
        let filtered: Result<(), dbus::Error> = adapter.method_call(ADAPTER, "SetDiscoveryFilter", (filter,)).await;
        filtered.map_err(|error| failed(&error))?;
        match ask("StartDiscovery").await {
            // Over a time in which the adapter was off BlueZ may remember that we listen, without listening itself.
            Err(error) if error.name() == Some("org.bluez.Error.InProgress") => {
                let _ = ask("StopDiscovery").await;
                ask("StartDiscovery").await.map_err(|error| failed(&error))
            }
            started => started.map_err(|error| failed(&error)),
        }
    }

    /// Makes BlueZ forget a device, given as `hci0/dev_...`, unless it is paired with this computer, or trusted by somebody, for
    /// other purposes.
    ///
    /// Once BlueZ has seen the services of a device, it takes no identifiers from its advertisements any more.
    pub(super) fn forget(&self, device: &str) -> impl Future<Output = ()> + Send + use<> {
        let path = format!("{PREFIX}{device}");
        let adapter = path.rsplit_once('/').map(|(adapter, _)| adapter.to_owned()).unwrap_or_default();
        let proxy = |path: String| Proxy::new(BLUEZ, path, FORGET, Arc::clone(&self.connection));
        let (adapter, subject) = (proxy(adapter), proxy(path.clone()));
        let there = self.has_bluez();
        async move {
            // The bus starts whom somebody calls: a bluetoothd that its owner has stopped would run again.
            if !there.await.unwrap_or_default() {
                return;
            }
            // A device that is gone needs no forgetting.
            let Ok(paired) = subject.get::<bool>(DEVICE, "Paired").await else { return };
            if paired || subject.get::<bool>(DEVICE, "Trusted").await.unwrap_or_default() {
                // All that can be done is to end a connection that an earlier daemon left.
                if subject.get::<bool>(DEVICE, "Connected").await.unwrap_or_default() {
                    let _: Result<(), dbus::Error> = subject.method_call(DEVICE, "Disconnect", ()).await;
                }
                return;
            }
            let Ok(path) = Path::new(path) else { return };
            let forgotten: Result<(), dbus::Error> = adapter.method_call(ADAPTER, "RemoveDevice", (path,)).await;
            if let Err(error) = forgotten {
                tracing::debug!(%error, "BlueZ does not forget a device");
            }
        }
    }

    /// Asks a device, given as `hci0/dev_...`, for a channel of L2CAP over the connection that there is. It may still be
    /// refused when this has come back.
    pub(super) fn open_l2cap(
        &self,
        device: &str,
        psm: Psm,
    ) -> impl Future<Output = Result<L2capStream, RadioError>> + Send + use<> {
        let path = format!("{PREFIX}{device}");
        let adapter = path.rsplit_once('/').map(|(adapter, _)| adapter.to_owned()).unwrap_or_default();
        let proxy = |path: String| Proxy::new(BLUEZ, path, ANSWER, Arc::clone(&self.connection));
        let (adapter, device) = (proxy(adapter), proxy(path));
        async move {
            let ours = address(&adapter, ADAPTER, 0).await?;
            let theirs = address(&device, DEVICE, psm.number()).await?;
            let system = |error: std::io::Error| RadioError::Failed(format!("a channel of L2CAP: {error}"));
            let socket = Socket::new_stream().map_err(system)?;
            // By the adapter that has the connection.
            socket.bind(ours).map_err(system)?;
            socket.set_recv_mtu(SDU_LIMIT).map_err(system)?;
            socket.connect(theirs).await.map_err(system)
        }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<BusEvent> {
        self.events.subscribe()
    }
}

/// The radio address of an adapter or a device.
async fn address(object: &Proxy<'_, Arc<SyncConnection>>, interface: &str, psm: u16) -> Result<SocketAddr, RadioError> {
    let text: String = object.get(interface, "Address").await.map_err(|error| failed(&error))?;
    let kind: String = object.get(interface, "AddressType").await.map_err(|error| failed(&error))?;
    let address: Address = text.parse().map_err(|_| RadioError::Failed(format!("no address: {text}")))?;
    let kind = if kind == "random" { AddressType::LeRandom } else { AddressType::LePublic };
    Ok(SocketAddr::new(address, kind, psm))
}

fn gone(object: &Path<'_>, interfaces: &[String]) -> Option<BusEvent> {
    let has = |interface: &str| interfaces.iter().any(|found| found == interface);
    let path = object.strip_prefix(PREFIX)?;
    if has(ADAPTER) {
        Some(BusEvent::AdapterGone(path.to_owned()))
    } else if has(SERVICE) {
        path.rsplit_once('/').map(|(device, _)| BusEvent::ServiceGone(device.to_owned()))
    } else {
        None
    }
}

fn failed(error: &dbus::Error) -> RadioError {
    match error.name() {
        Some("org.freedesktop.DBus.Error.AccessDenied") => RadioError::NoPermission,
        Some("org.freedesktop.DBus.Error.FileNotFound" | "org.freedesktop.DBus.Error.NoServer") => {
            RadioError::NoService
        }
        _ => RadioError::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_told_by_its_path() {
        let gone = |path: &'static str, interface: &str| gone(&Path::from(path), &[interface.to_owned()]);
        assert_eq!(gone("/org/bluez/hci0", ADAPTER), Some(BusEvent::AdapterGone("hci0".into())));
        let service = gone("/org/bluez/hci0/dev_00_11_22_33_44_55/service000a", SERVICE);
        assert_eq!(service, Some(BusEvent::ServiceGone("hci0/dev_00_11_22_33_44_55".into())));
        assert_eq!(gone("/org/bluez/hci0/dev_00_11_22_33_44_55", "org.bluez.Device1"), None);
        assert_eq!(gone("/com/example", ADAPTER), None);
    }
}
