//! Whether bluetoothd is there. bluer does not tell, and what was registered with it is gone when it comes back.

use std::{sync::Arc, time::Duration};

use dbus::{
    message::MatchRule,
    nonblock::{MsgMatch, Proxy, SyncConnection},
};
use futures_lite::StreamExt;
use tokio::task::JoinHandle;

const BLUEZ: &str = "org.bluez";
const BUS: &str = "org.freedesktop.DBus";

/// For the bus to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The owner of the name `org.bluez`.
pub(super) struct BluetoothService {
    connection: Arc<SyncConnection>,
    changes: futures_lite::stream::Boxed<()>,
    _matched: MsgMatch,
    carrying: JoinHandle<()>,
}

impl BluetoothService {
    pub(super) async fn watch() -> Result<Self, dbus::Error> {
        let (resource, connection) = dbus_tokio::connection::new_system_sync()?;
        let carrying = tokio::spawn(async {
            let _lost = resource.await;
        });
        let rule = MatchRule::new_signal(BUS, "NameOwnerChanged");
        let (matched, owners) = connection.add_match(rule).await?.stream::<(String, String, String)>();
        let changes = owners.filter_map(|(_, (name, ..))| (name == BLUEZ).then_some(())).boxed();
        Ok(Self { connection, changes, _matched: matched, carrying })
    }

    pub(super) fn is_there(&self) -> impl Future<Output = Result<bool, dbus::Error>> + use<> {
        let bus = Proxy::new(BUS, "/org/freedesktop/DBus", ANSWER, Arc::clone(&self.connection));
        async move {
            let (there,): (bool,) = bus.method_call(BUS, "NameHasOwner", (BLUEZ,)).await?;
            Ok(there)
        }
    }

    /// Comes back when bluetoothd came or went.
    pub(super) async fn changed(&mut self) {
        if self.changes.next().await.is_none() {
            // The bus itself is gone; whoever asks it next is told so.
            std::future::pending().await
        }
    }
}

impl Drop for BluetoothService {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}
