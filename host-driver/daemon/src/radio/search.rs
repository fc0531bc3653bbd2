//! Looks for phones and connects to them, for as long as the daemon runs.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pocketcard_protocol::advertising::{Epoch, Identifier};
use pocketcard_protocol::channel::PublicKey;
use pocketcard_protocol::gatt;
use pocketcard_protocol::l2cap::DOUBT;
use pocketcard_protocol::pairing::PairKeys;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::carried::{Ended, link};
use super::clocks::Clocks;
use super::connection::{Connection, Unmade, Wire};
use super::{Air, Central, Ears, Radio, RadioError, Sighting};
use crate::hub::Hub;
use crate::slot::Slot;

/// Between attempts to take the adapter into service. Its return is noticed by signals; this is for what nobody signals.
const OPEN_FIRST: Duration = Duration::from_millis(500);
const OPEN_LONGEST: Duration = Duration::from_secs(30);

/// An adapter that worked for so long is tried again at once.
const SETTLED: Duration = Duration::from_secs(60);

/// Between attempts to connect to a phone that is there but does not let us in.
const CONNECT_FIRST: Duration = Duration::from_millis(250);
const CONNECT_LONGEST: Duration = Duration::from_secs(30);

/// One round of listening. Some systems tell of a known device only once in a round, when it is heard first.
const ROUND: Duration = Duration::from_secs(4);

/// Between two rounds, longer from round to round while nothing is found: listening takes power, and air from others.
const REST_FIRST: Duration = Duration::from_millis(100);
const REST_LONGEST: Duration = Duration::from_secs(2);

/// For the adapter to begin or end listening.
const LISTEN_LIMIT: Duration = Duration::from_secs(10);

/// A device that a pairing got nowhere with is tried once more after this.
const PAIR_AGAIN: Duration = Duration::from_secs(2);

/// A phone that is reached by the radio.
pub(crate) struct RadioPhone {
    pub(crate) keys: Arc<PairKeys>,
    pub(crate) slot: Arc<Slot>,
}

/// Runs the radio until the task is aborted or the daemon is gone. A panic in a library costs the present round alone.
pub(crate) async fn keep<R: Radio>(hub: Weak<Hub>, air: Arc<Air>, radio: R) {
    let radio = Arc::new(radio);
    loop {
        let mut tasks = JoinSet::new();
        tasks.spawn(run(Weak::clone(&hub), Arc::clone(&air), Arc::clone(&radio)));
        match tasks.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                tracing::error!("the radio's task broke down and begins again");
                air.fails(&RadioError::Failed("the daemon's radio broke down and begins again".to_owned()));
                tokio::time::sleep(OPEN_FIRST).await;
            }
            _ => return,
        }
    }
}

async fn run<R: Radio>(hub: Weak<Hub>, air: Arc<Air>, radio: Arc<R>) {
    let mut backoff = Backoff::new(OPEN_FIRST, OPEN_LONGEST);
    loop {
        let begun = Instant::now();
        let error = match radio.open().await {
            Ok((central, ears)) => {
                air.works(central.name());
                tracing::info!(adapter = central.name(), "Bluetooth is up");
                match Round::new(&hub, &air, central).run(ears).await {
                    Some(error) => error,
                    None => return,
                }
            }
            Err(error) => error,
        };
        air.fails(&error);
        if begun.elapsed() >= SETTLED {
            backoff.reset();
        }
        tokio::select! {
            () = radio.changed() => {}
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}

/// Which phone, or whose search, an identifier belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Target {
    Phone(PublicKey),
    Search(u64),
}

/// A device that got nowhere, and when it may be tried again.
struct Refused {
    backoff: Backoff,
    not_before: Instant,
}

/// An adapter in service, and what is tried on it.
struct Round<'a, C: Central> {
    hub: &'a Weak<Hub>,
    air: &'a Arc<Air>,
    central: C,
    /// Targets that a task is at, and by which device.
    busy: HashMap<Target, C::Address>,
    /// Which phone a device turned out to be.
    met: HashMap<C::Address, PublicKey>,
    /// Per device, so that one which repeats a phone's identifier does not keep the phone itself waiting.
    refused: HashMap<(Target, C::Address), Refused>,
    /// Whose channels of L2CAP went wrong, and until when they are not used. Per device, so that one which repeats a phone's
    /// identifier does not keep the phone itself from them.
    doubted: HashMap<(PublicKey, C::Address), Instant>,
    clocks: Clocks,
    reports: mpsc::UnboundedReceiver<Reported<C::Address>>,
    reporter: mpsc::UnboundedSender<Reported<C::Address>>,
    /// Adapters make one connection at a time.
    turn: Arc<Mutex<()>>,
}

/// Which connection ended, and how.
type Reported<A> = (Target, A, Ended);

/// Listening goes on and off.
enum Listening {
    Off,
    On { until: Instant },
    Resting { until: Instant },
}

impl<'a, C: Central> Round<'a, C> {
    fn new(hub: &'a Weak<Hub>, air: &'a Arc<Air>, central: C) -> Self {
        let (reporter, reports) = mpsc::unbounded_channel();
        let (busy, met, refused, doubted) = (HashMap::new(), HashMap::new(), HashMap::new(), HashMap::new());
        Self {
            hub,
            air,
            central,
            busy,
            met,
            refused,
            doubted,
            clocks: Clocks::default(),
            reports,
            reporter,
            turn: Arc::default(),
        }
    }

    /// Listens while there is somebody to look for. Gives why that came to an end; nothing if the daemon is gone.
    async fn run(mut self, mut ears: impl Ears<Address = C::Address>) -> Option<RadioError> {
        let mut listening = Listening::Off;
        let mut rest = Backoff::new(REST_FIRST, REST_LONGEST);
        loop {
            let hub = self.hub.upgrade()?;
            let phones = hub.radio_phones();
            drop(hub);
            let wanted = self.wanted(&phones);
            let listened = match (&listening, wanted.is_empty()) {
                (Listening::Off, true) => Ok(None),
                (Listening::On { .. } | Listening::Resting { .. }, true) => {
                    rest.reset();
                    self.listen(false).await.map(|()| Some(Listening::Off))
                }
                (Listening::On { until }, false) if Instant::now() >= *until => {
                    let pause = if self.air.searches().is_empty() { rest.pause() } else { REST_FIRST };
                    let resting = Listening::Resting { until: Instant::now() + pause };
                    self.listen(false).await.map(|()| Some(resting))
                }
                (Listening::Resting { until }, false) if Instant::now() < *until => Ok(None),
                (Listening::Off | Listening::Resting { .. }, false) => {
                    self.listen(true).await.map(|()| Some(Listening::On { until: Instant::now() + ROUND }))
                }
                (Listening::On { .. }, false) => Ok(None),
            };
            match listened {
                Ok(Some(next)) => listening = next,
                Ok(None) => {}
                Err(error) => return Some(error),
            }
            let switch = match &listening {
                Listening::Off => None,
                Listening::On { until } | Listening::Resting { until } => Some(*until),
            };
            let timer = async {
                match switch {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                sighting = ears.next() => match sighting {
                    Ok(sighting) => self.heard(&sighting, &wanted, &phones),
                    Err(error) => return Some(error),
                },
                () = self.air.stirred() => rest.reset(),
                Some((target, address, ended)) = self.reports.recv() => self.ended(target, address, ended),
                () = timer => {}
            }
        }
    }

    async fn listen(&self, on: bool) -> Result<(), RadioError> {
        let done = tokio::time::timeout(LISTEN_LIMIT, self.central.listen(on)).await;
        done.map_err(|_| RadioError::TimedOut("listening"))?
    }

    /// Whoever is to be found now, by what is advertised.
    fn wanted(&mut self, phones: &[RadioPhone]) -> HashMap<Identifier, Target> {
        let searches = self.air.searches();
        let now = Instant::now();
        self.refused.retain(|(target, _), refused| {
            let exists = match target {
                Target::Phone(peer) => phones.iter().any(|phone| phone.keys.peer == *peer),
                Target::Search(number) => searches.iter().any(|(search, ..)| search == number),
            };
            // Devices change their addresses: one that has not come back for long never will.
            exists && now < refused.not_before + CONNECT_LONGEST
        });
        let mut wanted = HashMap::new();
        let epoch = Epoch::at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        self.clocks.prepare(epoch, phones);
        let epochs = epoch.neighbours();
        for phone in phones {
            let target = Target::Phone(phone.keys.peer);
            if !self.busy.contains_key(&target) {
                wanted.extend(epochs.map(|epoch| (Identifier::of_pair(&phone.keys, epoch), target)));
            }
        }
        let searched = searches.iter().map(|(number, identifier, _)| (*identifier, Target::Search(*number)));
        wanted.extend(searched.filter(|(_, target)| !self.busy.contains_key(target)));
        wanted
    }

    fn heard(&mut self, sighting: &Sighting<C::Address>, wanted: &HashMap<Identifier, Target>, phones: &[RadioPhone]) {
        for identifier in &sighting.identifiers {
            let target = wanted.get(identifier).filter(|target| self.may_try(**target, &sighting.address));
            match target {
                Some(Target::Phone(peer)) => {
                    self.air.saw(*peer);
                    let Some(phone) = phones.iter().find(|phone| phone.keys.peer == *peer) else { continue };
                    return self.connect(phone, sighting.address.clone());
                }
                Some(Target::Search(number)) => return self.offer(*number, sighting.address.clone()),
                None => {
                    if let Some(stray) = self.clocks.find(identifier) {
                        self.air.strayed(stray);
                    }
                }
            }
        }
        // The service's UUID is never advertised.
        let service = gatt::service(0).map(|uuid| Identifier::from(uuid.to_be_bytes()));
        if service.is_some_and(|service| sighting.identifiers.contains(&service)) {
            self.heard_of_old(&sighting.address, phones);
        }
    }

    /// A device whose services the system keeps, since it is bonded for other purposes: its identifiers are not told any
    /// more. It may be the phone that it was before; if it was none yet, it may be any, which the handshake tells.
    fn heard_of_old(&mut self, address: &C::Address, phones: &[RadioPhone]) {
        // A phone that we have may advertise for other computers meanwhile.
        if self.busy.values().any(|busy| busy == address) {
            return;
        }
        let met = self.met.get(address).filter(|met| phones.iter().any(|phone| phone.keys.peer == **met));
        let phone = phones.iter().find(|phone| {
            let target = Target::Phone(phone.keys.peer);
            met.is_none_or(|met| *met == phone.keys.peer)
                && !self.busy.contains_key(&target)
                && self.may_try(target, address)
        });
        if let Some(phone) = phone {
            self.connect(phone, address.clone());
        }
    }

    fn may_try(&self, target: Target, address: &C::Address) -> bool {
        let refused = self.refused.get(&(target, address.clone()));
        refused.is_none_or(|refused| Instant::now() >= refused.not_before)
    }

    /// Connects to a paired phone and carries its link, in a task of its own.
    fn connect(&mut self, phone: &RadioPhone, address: C::Address) {
        let target = Target::Phone(phone.keys.peer);
        let Some(place) = self.air.place() else { return };
        self.busy.insert(target, address.clone());
        let (hub, central, turn) = (Weak::clone(self.hub), self.central.clone(), Arc::clone(&self.turn));
        let (slot, keys, reporter) = (Arc::clone(&phone.slot), Arc::clone(&phone.keys), self.reporter.clone());
        let air = Arc::clone(self.air);
        let doubted = self.doubted.get(&(keys.peer, address.clone())).is_some_and(|until| Instant::now() < *until);
        let l2cap = !doubted && hub.upgrade().is_some_and(|hub| hub.config.bluetooth.l2cap.unwrap_or(true));
        tracing::debug!(slot = slot.number, "the phone is there");
        tokio::spawn(async move {
            let _place = place;
            // However the task ends, a panic of a library included, the search is told.
            let mut report = Report { reporter, target, address: address.clone(), ended: Ended::REFUSED };
            let connection = {
                let _turn = turn.lock().await;
                Connection::make(&central, &address, l2cap).await
            };
            air.tried(keys.peer, connection.as_ref().err().map(|unmade| &unmade.error));
            match connection {
                Ok(connection) => report.ended = link(&hub, &slot, &keys, connection).await,
                Err(Unmade { error, doubted }) => {
                    report.ended.doubted = doubted;
                    tracing::debug!(slot = slot.number, %error, "the phone is there but not connected");
                    slot.link_unreachable(format!("Bluetooth: {error}"), false);
                }
            }
        });
    }

    /// Connects to a phone that may be the one that a pairing is for.
    fn offer(&mut self, number: u64, address: C::Address) {
        let Some((.., wires)) = self.air.searches().into_iter().find(|(search, ..)| *search == number) else { return };
        let Some(place) = self.air.place() else { return };
        let target = Target::Search(number);
        self.busy.insert(target, address.clone());
        let (central, turn, reporter) = (self.central.clone(), Arc::clone(&self.turn), self.reporter.clone());
        tokio::spawn(async move {
            let _place = place;
            // A pairing that goes on says so by dropping its search; every other device is a wrong one.
            let _report = Report { reporter, target, address: address.clone(), ended: Ended::REFUSED };
            let connection = {
                let _turn = turn.lock().await;
                // It is short, and rare.
                Connection::make(&central, &address, false).await
            };
            match connection {
                Ok(connection) => {
                    let (wire, mut end, outgoing) = Wire::new(connection.transport());
                    if wires.send(wire).await.is_ok() {
                        connection.carry(outgoing, &mut end).await;
                    }
                }
                Err(Unmade { error, .. }) => {
                    tracing::debug!(%error, "a phone that wants to pair is there but not connected")
                }
            }
        });
    }

    fn ended(&mut self, target: Target, address: C::Address, ended: Ended) {
        self.busy.remove(&target);
        let now = Instant::now();
        if let (true, Target::Phone(peer)) = (ended.doubted, target) {
            self.doubted.retain(|_, until| now < *until);
            self.doubted.insert((peer, address.clone()), now + DOUBT);
        }
        if ended.open {
            if let Target::Phone(peer) = target {
                self.met.retain(|_, met| *met != peer);
                self.met.insert(address.clone(), peer);
            }
            self.refused.remove(&(target, address));
            return;
        }
        let fresh = || match target {
            Target::Phone(_) => Backoff::new(CONNECT_FIRST, CONNECT_LONGEST),
            Target::Search(_) => Backoff::new(PAIR_AGAIN, PAIR_AGAIN),
        };
        let refused = self.refused.entry((target, address));
        let refused = refused.or_insert_with(|| Refused { backoff: fresh(), not_before: now });
        refused.not_before = now + refused.backoff.pause();
    }
}

/// Tells the search how a connection ended, when it is dropped.
struct Report<A: Clone> {
    reporter: mpsc::UnboundedSender<Reported<A>>,
    target: Target,
    address: A,
    ended: Ended,
}

impl<A: Clone> Drop for Report<A> {
    fn drop(&mut self) {
        let _ = self.reporter.send((self.target, self.address.clone(), self.ended));
    }
}
