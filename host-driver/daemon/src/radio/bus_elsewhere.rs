//! Where there is no BlueZ: the system signals nothing but what btleplug passes on.

use btleplug::api::{Central as _, ScanFilter};
use btleplug::platform::Adapter;
use pocketcard_protocol::l2cap::Psm;
use tokio::sync::broadcast;

use super::RadioError;

/// There is none.
pub(super) type L2capStream = tokio::io::DuplexStream;

/// Something that BlueZ signalled.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(dead_code, reason = "the events of Linux, so that one code listens for them everywhere")]
pub(super) enum BusEvent {
    Service,
    AdapterCame,
    AdapterGone(String),
    ServiceGone(String),
}

/// Nothing to watch.
pub(super) struct Bus(broadcast::Sender<BusEvent>);

impl Bus {
    pub(super) async fn watch() -> Result<Self, RadioError> {
        Ok(Self(broadcast::channel(1).0))
    }

    pub(super) async fn has_bluez(&self) -> Result<bool, RadioError> {
        Ok(true)
    }

    /// Begins or ends listening.
    pub(super) async fn listen(&self, adapter: &Adapter, _: &str, on: bool) -> Result<(), RadioError> {
        let done = if on { adapter.start_scan(ScanFilter::default()).await } else { adapter.stop_scan().await };
        match done {
            Err(error) if on => Err(RadioError::Failed(error.to_string())),
            // It may have ended by itself.
            _ => Ok(()),
        }
    }

    pub(super) async fn forget(&self, _: &str) {}

    pub(super) async fn open_l2cap(&self, _: &str, _: Psm) -> Result<L2capStream, RadioError> {
        Err(RadioError::Failed("no channels of L2CAP on this system".to_owned()))
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<BusEvent> {
        self.0.subscribe()
    }
}
