//! What is on the air: an advertisement for each identifier.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bluer::{
    Adapter, Uuid,
    adv::{Advertisement, AdvertisementHandle},
};
use pocketcard_phone::runtime::Phone;
use pocketcard_protocol::advertising::{Epoch, Identifier};
use serde_json::json;
use tokio::time::Instant;

use super::limited;
use crate::output::Output;

/// How often a waiting computer may hear the phone. BlueZ's own default is ten times slower, which a person notices.
const INTERVAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(150));

/// How long each identifier is on the air if there are more than the adapter can advertise, and how soon a refused one is tried
/// again.
const TURN: Duration = Duration::from_secs(5);

/// Advertises until it is dropped. Ends only with the phone.
pub(super) async fn run(adapter: &Adapter, phone: &Phone, output: &Output) {
    let places = limited(adapter.supported_advertising_instances()).await.unwrap_or(1);
    let mut air =
        Air { adapter, places: usize::from(places).max(1), active: HashMap::new(), wanted: Vec::new(), first: 0 };
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let sets = phone.advertise(Epoch::at(now));
        let epoch_ends = Instant::now() + Epoch::remaining(now);
        loop {
            tokio::select! {
                set = sets.recv() => match set {
                    Ok(set) => air.change(set, output).await,
                    Err(_) => return,
                },
                () = tokio::time::sleep_until(epoch_ends) => break,
                () = tokio::time::sleep(TURN), if !air.is_complete() => air.turn().await,
            }
        }
    }
}

struct Air<'a> {
    adapter: &'a Adapter,
    places: usize,
    active: HashMap<Identifier, AdvertisementHandle>,
    wanted: Vec<Identifier>,
    /// Whose turn it is, if not all can be on the air at once.
    first: usize,
}

impl Air<'_> {
    async fn change(&mut self, wanted: Vec<Identifier>, output: &Output) {
        self.wanted = wanted;
        self.first = 0;
        self.apply().await;
        let identifiers: Vec<String> = self.wanted.iter().map(Identifier::to_string).collect();
        output.event(&json!({ "event": "advertising", "identifiers": identifiers }));
    }

    fn is_complete(&self) -> bool {
        self.active.len() == self.wanted.len()
    }

    async fn turn(&mut self) {
        self.first = (self.first + self.places) % self.wanted.len().max(1);
        self.apply().await;
    }

    /// Makes the air as it should be. What BlueZ refuses is tried again at the next turn.
    async fn apply(&mut self) {
        let round = self.wanted.iter().cycle().skip(self.first).take(self.wanted.len().min(self.places));
        let now: Vec<Identifier> = round.copied().collect();
        self.active.retain(|identifier, _| now.contains(identifier));
        for identifier in now {
            if self.active.contains_key(&identifier) {
                continue;
            }
            if let Some(handle) = self.advertise(identifier).await {
                self.active.insert(identifier, handle);
            }
        }
    }

    async fn advertise(&self, identifier: Identifier) -> Option<AdvertisementHandle> {
        let plain = Advertisement {
            service_uuids: [Uuid::from_bytes(identifier.to_bytes())].into(),
            // Hosts do not see others.
            discoverable: Some(true),
            ..Advertisement::default()
        };
        let (min, max) = INTERVAL;
        let quick = Advertisement { min_interval: Some(min), max_interval: Some(max), ..plain.clone() };
        // Some versions take an interval only with their experimental interfaces.
        match limited(self.adapter.advertise(quick)).await {
            Ok(handle) => Some(handle),
            Err(_) => limited(self.adapter.advertise(plain)).await.ok(),
        }
    }
}
