//! Starts and ends the daemon.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pocketcard_protocol::link::VersionRange;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::config::{Config, ConfigError};
use crate::hub::Hub;
use crate::listener::{Gate, Listener};
use crate::store::StoreError;
use crate::{control_socket, driver_socket};

/// For the last words on the radio, and for the system to end its connections.
const GOOD_BYE: Duration = Duration::from_secs(4);

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A socket cannot be made.
    #[error("cannot listen at {}: {source}", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The signals that end the daemon cannot be caught.
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] io::Error),
}

/// SIGTERM, SIGINT and SIGHUP, none of which kills the process any more once this exists. To be made before the daemon,
/// so that none finds its sockets there and their removal not yet arranged.
#[derive(Debug)]
pub struct EndSignals([Signal; 3]);

impl EndSignals {
    /// Catches the signals from now on. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`DaemonError::Signals`].
    pub fn catch() -> Result<Self, DaemonError> {
        let catch = |kind| signal(kind).map_err(DaemonError::Signals);
        let [terminate, interrupt, hangup] = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        Ok(Self([catch(terminate)?, catch(interrupt)?, catch(hangup)?]))
    }

    async fn next(&mut self) {
        let Self([terminate, interrupt, hangup]) = self;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// A daemon that listens. It must be made and used within one tokio runtime.
pub struct Daemon {
    hub: Arc<Hub>,
    doors: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daemon").field("slots", &self.hub.slots.len()).finish_non_exhaustive()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Daemon {
    /// Opens the store, listens on both sockets, and begins to dial.
    ///
    /// # Errors
    /// [`DaemonError`]; nothing runs then.
    pub fn start(config: Config) -> Result<Self, DaemonError> {
        Self::start_with_versions(config, VersionRange::SUPPORTED)
    }

    /// A daemon that claims to speak other versions of the link protocol.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    #[doc(hidden)]
    pub fn start_with_versions_for_testing_only(config: Config, versions: VersionRange) -> Result<Self, DaemonError> {
        Self::start_with_versions(config, versions)
    }

    fn start_with_versions(config: Config, versions: VersionRange) -> Result<Self, DaemonError> {
        config.check()?;
        let hub = Hub::new(config, versions)?;
        let config = &hub.config;
        let bind = |gate, path: &PathBuf| {
            Listener::bind(gate, path, config).map_err(|source| DaemonError::Listen { path: path.clone(), source })
        };
        let driver = bind(Gate::Driver, &config.driver_socket)?;
        let control = bind(Gate::Control, &config.control_socket)?;
        hub.start()?;
        #[cfg_attr(not(feature = "ble"), expect(unused_mut))]
        let mut doors = vec![
            tokio::spawn(driver_socket::serve(Arc::clone(&hub), driver)),
            tokio::spawn(control_socket::serve(Arc::clone(&hub), control)),
        ];
        #[cfg(feature = "ble")]
        if let Some(air) = &hub.air {
            let radio = crate::radio::Bluez::new(hub.config.bluetooth.adapter.clone());
            doors.push(tokio::spawn(crate::radio::keep(Arc::downgrade(&hub), Arc::clone(air), radio)));
        }
        Ok(Self { hub, doors })
    }

    /// Runs until one of the signals comes, then says good-bye to the phones.
    pub async fn until(mut self, mut signals: EndSignals) {
        signals.next().await;
        tracing::info!("ending");
        self.stop();
        if let Some(air) = &self.hub.air {
            air.quiet(GOOD_BYE).await;
        }
        // The sockets' files go away with the tasks that hold them.
        for door in self.doors.drain(..) {
            let _ = door.await;
        }
    }

    fn stop(&mut self) {
        for door in &self.doors {
            door.abort();
        }
        self.hub.stop();
    }
}
