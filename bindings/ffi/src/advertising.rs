use std::time::Duration;

use async_channel::Receiver;
use pocketcard_protocol::advertising::{Epoch, Identifier};

/// What to advertise on a radio, from [`crate::Phone::advertise`].
#[derive(uniffi::Object)]
pub struct Advertisements(pub(crate) Receiver<Vec<Identifier>>);

#[uniffi::export]
impl Advertisements {
    /// The next set of service UUIDs, one connectable advertisement each; the present one at the first call. `None` when the
    /// phone has stopped or was asked for another moment.
    pub async fn next(&self) -> Option<Vec<String>> {
        let identifiers = self.0.recv().await.ok()?;
        Some(identifiers.iter().map(ToString::to_string).collect())
    }
}

pub(crate) fn epoch(seconds_since_1970: u64) -> Epoch {
    Epoch::at(Duration::from_secs(seconds_since_1970))
}
