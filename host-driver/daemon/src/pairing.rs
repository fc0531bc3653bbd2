//! The conversation of a pairing: the person at the computer, this daemon, and the phone.

use std::sync::Arc;
use std::time::Duration;

use pocketcard_ipc::Address;
use pocketcard_ipc::control::{
    BluetoothState, ErrorCode, Event, Failure, LineError, PairMethod, Phone, Reply, Request,
};
use pocketcard_protocol::advertising::Identifier;
use pocketcard_protocol::channel::PublicKey;
use pocketcard_protocol::link::{self, CloseReason, Link, Side};
use pocketcard_protocol::pairing::{Offer, OfferError};
use pocketcard_protocol::stream::{FrameReader, LONGEST_BEFORE_AUTHENTICATION};

use crate::SystemEntropy;
use crate::control_socket::Conversation;
use crate::doctor;
use crate::hub::{Hub, storage};
use crate::pause::Pause;
use crate::radio::{Search, Wire};
use crate::slot::{PhoneOutbox, describe, send_frames};
use crate::store::Record;
use crate::stream::{Reader, dial};

/// Leads one pairing from the offer to the stored pair. The outer error is a client that went away.
pub(crate) async fn run(
    hub: &Arc<Hub>,
    client: &mut Conversation,
    connect: Option<Address>,
    method: PairMethod,
    slot: Option<u32>,
) -> Result<Result<Phone, Failure>, LineError> {
    let Ok(_permit) = Arc::clone(&hub.pairing).try_acquire_owned() else {
        return Ok(Err(failure(ErrorCode::PairingBusy, "another pairing is under way", Some("wait for it to end"))));
    };
    let begun = begin(hub, connect, method, slot).await;
    let (place, offer, carrier) = match begun {
        Ok(begun) => begun,
        Err(failure) => return Ok(Err(failure)),
    };
    let left = offer.expires().saturating_since(hub.clock.now());
    let qr_text = offer.qr_text().map(|text| text.as_str().to_owned());
    client.reply(&Reply::PairOffer { qr_text, expires_in_s: left.as_secs() }).await?;
    let mut pairing = Pairing { hub, client, place, slot, stored: None };
    pairing.offer(offer, carrier).await
}

/// Where the phone is looked for.
enum Place {
    /// It listens there.
    Address(Address),
    /// It advertises that it wants to pair.
    Air(Search),
}

/// A connection to a phone that may want to pair.
enum Carrier {
    Stream { reader: Reader, outbox: PhoneOutbox, frames: FrameReader },
    Radio { incoming: tokio::sync::mpsc::Receiver<Vec<u8>>, outbox: PhoneOutbox },
}

impl Carrier {
    async fn dial(address: &Address) -> std::io::Result<Self> {
        let (reader, outbox) = dial(address).await?;
        let frames = FrameReader::new(LONGEST_BEFORE_AUTHENTICATION);
        Ok(Self::Stream { reader, outbox: PhoneOutbox::Stream(outbox), frames })
    }

    fn over(wire: Wire) -> Self {
        Self::Radio { incoming: wire.incoming, outbox: PhoneOutbox::Radio(wire.outbox) }
    }

    fn outbox(&self) -> &PhoneOutbox {
        match self {
            Self::Stream { outbox, .. } | Self::Radio { outbox, .. } => outbox,
        }
    }

    /// The next message of the phone, or why there are no more. May be dropped and called again.
    async fn next(&mut self) -> Result<Vec<u8>, CloseReason> {
        match self {
            Self::Radio { incoming, .. } => incoming.recv().await.ok_or(CloseReason::Lost),
            Self::Stream { reader, frames, .. } => loop {
                match frames.next_message() {
                    Ok(Some(message)) => return Ok(message.to_vec()),
                    Ok(None) => {}
                    Err(_) => return Err(CloseReason::Protocol(link::Violation::Frame)),
                }
                match reader.read(frames.read_buffer()).await {
                    Ok(count) if count > 0 => frames.filled(count),
                    _ => return Err(CloseReason::Lost),
                }
            },
        }
    }
}

/// Everything that can be known to fail before a code is shown.
async fn begin(
    hub: &Hub,
    connect: Option<Address>,
    method: PairMethod,
    slot: Option<u32>,
) -> Result<(Place, Offer, Option<Carrier>), Failure> {
    hub.free_slot(slot)?;
    let address = if connect.is_none() && hub.air.is_some() { None } else { Some(address(hub, connect)?) };
    if let Some(air) = &hub.air
        && address.is_none()
        && !matches!(air.status().state, BluetoothState::Working | BluetoothState::Starting)
    {
        let finding = doctor::bluetooth(&air.status());
        return Err(failure(ErrorCode::Unreachable, &finding.message, finding.advice.as_deref()));
    }
    let now = hub.clock.now();
    let offer = match method {
        PairMethod::Qr => Offer::new(&hub.public_key(), &hub.name, &SystemEntropy, &hub.attempts, now),
        PairMethod::Compare => Offer::compare(&hub.attempts, now),
    };
    let offer = offer.map_err(|error| match error {
        OfferError::TooManyTries(tries) => too_many(tries.until.saturating_since(now)),
        error => failure(ErrorCode::PairingFailed, &error.to_string(), None),
    })?;
    let Some(address) = address else {
        let identifier = offer.advertising_seed().map_or(Identifier::COMPARE, Identifier::of_offer);
        let search = hub.air.as_ref().map(|air| air.search(identifier));
        let search = search.ok_or_else(|| failure(ErrorCode::AddressRefused, "Bluetooth is off", None))?;
        return Ok((Place::Air(search), offer, None));
    };
    let carrier = Carrier::dial(&address).await.map_err(|error| {
        failure(
            ErrorCode::Unreachable,
            &format!("no phone answers at {address}: {error}"),
            Some("start the phone first, then pair again"),
        )
    })?;
    Ok((Place::Address(address), offer, Some(carrier)))
}

fn address(hub: &Hub, connect: Option<Address>) -> Result<Address, Failure> {
    match (connect, hub.config.link.as_slice()) {
        (Some(address), _) if hub.config.allows(&address) => Ok(address),
        (Some(address), _) => Err(failure(
            ErrorCode::AddressRefused,
            &format!("the daemon's configuration does not list the link {address}"),
            Some("add a [[link]] entry with this address, or set `allow_connect = true`"),
        )),
        (None, [link]) => Ok(link.address.clone()),
        (None, []) => Err(failure(
            ErrorCode::AddressRefused,
            "the daemon has no link to look for a phone on",
            Some("name the phone's address: `pocketcard pair --connect ADDRESS`"),
        )),
        (None, _) => Err(failure(
            ErrorCode::AddressRefused,
            "the daemon's configuration lists several links",
            Some("name the phone's address: `pocketcard pair --connect ADDRESS`"),
        )),
    }
}

struct Pairing<'a> {
    hub: &'a Arc<Hub>,
    client: &'a mut Conversation,
    place: Place,
    slot: Option<u32>,
    /// The phone, once its pair is stored here.
    stored: Option<PublicKey>,
}

/// What ended one link of a pairing.
enum Ended {
    Paired,
    Link(CloseReason),
    Cancelled,
    Failed(Failure),
}

impl Pairing<'_> {
    /// Uses link after link until the offer is used up, has expired, or led to a pair.
    async fn offer(
        &mut self,
        mut offer: Offer,
        mut carrier: Option<Carrier>,
    ) -> Result<Result<Phone, Failure>, LineError> {
        let mut pause = Pause::new();
        pause.watch(self.path());
        loop {
            let expires = offer.expires();
            if let Some(carrier) = carrier.take() {
                let (ended, reclaimed) = self.link(offer, carrier).await?;
                let reason = match ended {
                    Ended::Paired => return Ok(self.phone()),
                    Ended::Cancelled => return Ok(Err(cancelled())),
                    Ended::Failed(failure) => return Ok(Err(failure)),
                    Ended::Link(reason) => reason,
                };
                // A phone that merely was not there yet, or restarted, may still scan the code that is on the screen. On
                // the air, whoever answers may be another's phone, or no phone at all.
                let again = matches!(reason, CloseReason::Lost | CloseReason::Timeout(_) | CloseReason::Busy)
                    || matches!(self.place, Place::Air(_));
                let Some(same_offer) = reclaimed.filter(|_| again) else { return Ok(Err(self.explain(reason))) };
                offer = same_offer;
            }
            if self.hub.clock.now() >= expires {
                return Ok(Err(self.explain(CloseReason::Expired)));
            }
            let found = async {
                match &mut self.place {
                    Place::Air(search) => Some(Carrier::over(search.next().await)),
                    Place::Address(address) => {
                        pause.wait(Duration::ZERO).await;
                        pause.watch(address.path());
                        Carrier::dial(address).await.ok()
                    }
                }
            };
            tokio::select! {
                found = found => carrier = found,
                () = self.hub.clock.sleep_until(expires) => {}
                // Whatever the client says now, and its end, is the end of the pairing.
                request = self.client.next() => {
                    request?;
                    return Ok(Err(cancelled()));
                }
            }
        }
    }

    fn path(&self) -> Option<&std::path::Path> {
        match &self.place {
            Place::Address(address) => address.path(),
            Place::Air(_) => None,
        }
    }

    async fn link(&mut self, offer: Offer, mut carrier: Carrier) -> Result<(Ended, Option<Offer>), LineError> {
        let clock = self.hub.clock;
        let mut link = Link::host_pair(self.hub.host_config(), offer, clock.now());
        let outbox = carrier.outbox().clone();
        let outbox = &outbox;
        let mut out = Vec::new();
        let ended = loop {
            let ended = match self.events(&mut link).await {
                Ok(ended) => ended,
                // The client is gone: nobody is left to compare the digits.
                Err(error) => {
                    link.close(CloseReason::Declined, clock.now());
                    send_frames(&mut link, outbox, &mut out);
                    outbox.close();
                    return Err(error);
                }
            };
            send_frames(&mut link, outbox, &mut out);
            if let Some(ended) = ended {
                break ended;
            }
            let due = link.poll_timeout();
            let timer = async {
                match due {
                    Some(due) => clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = carrier.next() => match message {
                    Ok(message) => link.handle_message(&message, clock.now()),
                    Err(reason) => link.close(reason, clock.now()),
                },
                request = self.client.next() => match request {
                    Ok(Request::PairConfirm { agree }) => link.confirm_pairing(agree, clock.now()),
                    Ok(Request::PairCancel {}) => {
                        link.close(CloseReason::Declined, clock.now());
                        send_frames(&mut link, outbox, &mut out);
                        break Ended::Cancelled;
                    }
                    Ok(_) | Err(LineError::Malformed) => {
                        let message = "a pairing is under way; confirm or cancel it";
                        self.client.reply(&Reply::Error(failure(ErrorCode::BadRequest, message, None))).await?;
                    }
                    Err(error) => {
                        link.close(CloseReason::Declined, clock.now());
                        send_frames(&mut link, outbox, &mut out);
                        outbox.close();
                        return Err(error);
                    }
                },
                () = timer => link.handle_timeout(clock.now()),
            }
        };
        if matches!(ended, Ended::Failed(_)) {
            link.close(CloseReason::Failed, clock.now());
        }
        send_frames(&mut link, outbox, &mut out);
        outbox.close();
        Ok((ended, link.reclaim_offer()))
    }

    /// Deals with everything that happened on the link.
    async fn events(&mut self, link: &mut Link) -> Result<Option<Ended>, LineError> {
        while let Some(event) = link.poll_event() {
            match event {
                link::Event::PairingDigits { digits, peer_name, .. } => {
                    let reply = Reply::PairDigits { digits: digits.to_string(), phone_name: peer_name };
                    self.client.reply(&reply).await?;
                }
                link::Event::PeerConfirmed => self.client.reply(&Reply::PairPhoneConfirmed {}).await?,
                link::Event::Paired { pair, peer_name } => {
                    let peer = pair.peer;
                    let slot = match self.slot_for(&peer) {
                        Ok(slot) => slot,
                        Err(failure) => return Ok(Some(Ended::Failed(failure))),
                    };
                    let address = match &self.place {
                        Place::Address(address) => Some(address.clone()),
                        Place::Air(_) => None,
                    };
                    let name = if peer_name.is_empty() { "phone".to_owned() } else { peer_name };
                    let record = Record { keys: pair, name, slot, address, confirmed: false };
                    if let Err(error) = self.hub.add(record) {
                        return Ok(Some(Ended::Failed(storage(error))));
                    }
                    self.stored = Some(peer);
                    link.pair_stored(self.hub.clock.now());
                }
                link::Event::PairingDone => {
                    if let Some(peer) = &self.stored {
                        self.hub.confirm(peer);
                    }
                    link.close(CloseReason::Done, self.hub.clock.now());
                    return Ok(Some(Ended::Paired));
                }
                link::Event::Closed(reason) => return Ok(Some(Ended::Link(reason))),
                link::Event::Connected { .. } | link::Event::Message(_) => {}
            }
        }
        Ok(None)
    }

    /// The slot of the new pair: the wanted one, the one that this very phone had, or the first free one.
    fn slot_for(&self, peer: &PublicKey) -> Result<u32, Failure> {
        let had = self.hub.phone_of(peer).map(|phone| phone.slot);
        match (self.slot, had) {
            (None, Some(had)) => Ok(had),
            (Some(wanted), Some(had)) if wanted == had => Ok(had),
            (wanted, _) => self.hub.free_slot(wanted),
        }
    }

    fn phone(&self) -> Result<Phone, Failure> {
        let phone = self.stored.as_ref().and_then(|peer| self.hub.phone_of(peer));
        match phone {
            Some(phone) => {
                tracing::info!(slot = phone.slot, "phone paired");
                let _ = self.hub.events.send(Event::PhonePaired { phone: phone.clone() });
                Ok(phone)
            }
            None => Err(failure(ErrorCode::PairingFailed, "the pair was forgotten at once", None)),
        }
    }

    fn explain(&self, reason: CloseReason) -> Failure {
        let words = describe(reason);
        match reason {
            CloseReason::VersionMismatch { update, .. } => {
                let advice = match update {
                    Side::Host => "update Pocketcard on this computer, then pair again",
                    Side::Phone => "update Pocketcard on the phone, then pair again",
                };
                failure(ErrorCode::PhoneVersion, &words, Some(advice))
            }
            CloseReason::NotPairing => {
                let advice = "scan the code with the phone (or choose comparing digits there), then pair again";
                failure(ErrorCode::PhoneNotPairing, &words, Some(advice))
            }
            CloseReason::TooManyTries { until } => too_many(until.saturating_since(self.hub.clock.now())),
            _ if self.stored.is_some() => failure(
                ErrorCode::PairingFailed,
                &format!("this computer stored the pair, but the phone did not say that it did: {words}"),
                Some("if the phone lists this computer, it works; else pair again"),
            ),
            _ => failure(ErrorCode::PairingFailed, &words, Some("pair again")),
        }
    }
}

fn cancelled() -> Failure {
    failure(ErrorCode::PairingCancelled, "the pairing was cancelled", None)
}

fn too_many(wait: Duration) -> Failure {
    let minutes = wait.as_secs().div_ceil(60).max(1);
    failure(
        ErrorCode::TooManyTries,
        "three pairings failed within ten minutes",
        Some(&format!("wait {minutes} minutes; if that was not you, somebody near tries to pair")),
    )
}

fn failure(code: ErrorCode, message: &str, advice: Option<&str>) -> Failure {
    Failure { code, message: message.to_owned(), advice: advice.map(str::to_owned) }
}
