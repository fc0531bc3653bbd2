//! The phone on the radio: a GATT server and advertisements, by BlueZ.
//!
//! | Module | Does |
//! |---|---|
//! | `bus` | notices that bluetoothd went away |
//! | `server` | the GATT service, one task for each of its instances |
//! | `channel` | channels of L2CAP, which a host may open in place of fragments |
//! | `instance` | one host's link: fragments in and out |
//! | `advertiser` | what is on the air |

mod advertiser;
mod bus;
mod channel;
mod instance;
mod server;

use std::time::Duration;

use bluer::{Adapter, AdapterEvent, AdapterProperty, Session};
use futures_lite::{Stream, StreamExt};
use pocketcard_phone::{SystemEntropy, runtime::Phone};
use serde_json::json;

use crate::output::Output;
use bus::BluetoothService;
use server::{Places, Server};

/// Between two attempts while Bluetooth is away. Bluetooth's return is noticed by its signals; this is for the causes that
/// nobody signals.
const RETRY: Duration = Duration::from_secs(2);

/// For bluetoothd to answer what needs no radio.
const ANSWER: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
enum RadioError {
    #[error("the D-Bus system bus does not answer: {0}")]
    Bus(#[from] dbus::Error),
    #[error("bluetoothd is away")]
    NoService,
    #[error("there is no Bluetooth adapter {0}")]
    NoAdapter(String),
    #[error("the adapter {0} is off; switch it on, as with bluetoothctl power on")]
    Off(String),
    #[error("bluetoothd: {0}")]
    Bluez(#[from] bluer::Error),
    #[error("bluetoothd gives no answer")]
    TimedOut,
    #[error(transparent)]
    Entropy(#[from] pocketcard_phone::EntropyError),
}

/// Keeps the phone on the air until the task is aborted.
pub(crate) async fn serve(phone: Phone, adapter: Option<String>, output: Output) {
    let mut told = String::new();
    let mut places = None;
    loop {
        let ended = once(&phone, adapter.as_deref(), &mut places, &output, &mut told).await;
        let reason = match ended {
            Ok(never) => match never {},
            Err(error) => error.to_string(),
        };
        if reason != told {
            output.event(&json!({ "event": "radio", "state": "down", "reason": reason }));
            told = reason;
        }
        changed().await;
    }
}

/// Waits for bluetoothd to come or go, at most [`RETRY`].
async fn changed() {
    let signal = async {
        match BluetoothService::watch().await {
            Ok(mut service) => service.changed().await,
            Err(_) => std::future::pending().await,
        }
    };
    let _ = tokio::time::timeout(RETRY, signal).await;
}

/// On the air until something ends it.
async fn once(
    phone: &Phone,
    adapter: Option<&str>,
    places: &mut Option<Places>,
    output: &Output,
    told: &mut String,
) -> Result<std::convert::Infallible, RadioError> {
    // Watched first, so that no restart of bluetoothd is missed.
    let mut service = BluetoothService::watch().await?;
    if !service.is_there().await? {
        return Err(RadioError::NoService);
    }
    let session = limited(Session::new()).await?;
    let adapter = choose(&session, adapter).await?;
    let mut events = Box::pin(limited(adapter.events()).await?);
    is_on(&adapter).await?;
    let name = adapter.name().to_owned();
    let address = limited(adapter.address()).await?.to_string();
    let places = match places {
        Some(places) => places,
        None => places.insert(Places::new(&SystemEntropy)?),
    };
    let mut server = Server::start(&adapter, phone, places, output).await?;
    told.clear();
    output.event(&json!({ "event": "radio", "state": "up", "adapter": name, "address": address }));
    tokio::select! {
        () = advertiser::run(&adapter, phone, output) => {}
        () = service.changed() => return Err(RadioError::NoService),
        () = gone(&mut events) => {}
        () = server.ended() => {}
    }
    Err(RadioError::Off(name))
}

async fn choose(session: &Session, wanted: Option<&str>) -> Result<Adapter, RadioError> {
    let names = limited(session.adapter_names()).await?;
    let missing = || RadioError::NoAdapter(wanted.unwrap_or_default().to_owned());
    match wanted {
        Some(wanted) if names.iter().any(|name| name == wanted) => Ok(session.adapter(wanted)?),
        Some(_) => Err(missing()),
        None => limited(session.default_adapter()).await.map_err(|_| missing()),
    }
}

/// The adapter must be on. Whoever switched it off wants it off, and at its start bluetoothd switches it on by itself.
async fn is_on(adapter: &Adapter) -> Result<(), RadioError> {
    if limited(adapter.is_powered()).await? { Ok(()) } else { Err(RadioError::Off(adapter.name().to_owned())) }
}

/// Comes back when the adapter was switched off or taken away.
async fn gone(events: &mut (impl Stream<Item = AdapterEvent> + Unpin)) {
    while let Some(event) = events.next().await {
        if matches!(event, AdapterEvent::PropertyChanged(AdapterProperty::Powered(false))) {
            return;
        }
    }
}

async fn limited<T>(answer: impl Future<Output = bluer::Result<T>>) -> Result<T, RadioError> {
    Ok(tokio::time::timeout(ANSWER, answer).await.map_err(|_| RadioError::TimedOut)??)
}
