//! The owner's side of pairing: one at a time, two minutes each.

use std::{sync::Arc, time::Duration};

use pocketcard_protocol::{
    link::{CloseReason, PairingMode},
    pairing::{Digits, OFFER_LIFETIME, QrText},
    time::Timestamp,
};

use super::{
    LogOperation, LogResult, PairingFailure, PhoneEvent,
    effects::SealedPair,
    mailbox::{PhoneError, ScanError},
    run::Runtime,
};
use crate::{card::LinkId, traits::HostId};

/// How long the phone waits for the host after the owner scanned.
const LIMIT: Duration = OFFER_LIFETIME;

#[derive(Default)]
pub(super) enum Pairing {
    #[default]
    Closed,
    Scanned {
        qr: Arc<QrText>,
        until: Timestamp,
    },
    Compare {
        until: Timestamp,
    },
    /// A host has come; the digits are shown, or the pair is being stored. The link keeps the time.
    Deciding {
        link: LinkId,
        host: HostId,
        name: String,
    },
}

impl Pairing {
    /// What a link that is not authenticated yet may do.
    pub(super) fn mode(&self) -> PairingMode {
        match self {
            Self::Scanned { qr, .. } => PairingMode::Scanned(Arc::clone(qr)),
            Self::Compare { .. } => PairingMode::Compare,
            Self::Closed | Self::Deciding { .. } => PairingMode::Closed,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        match self {
            Self::Scanned { until, .. } | Self::Compare { until } => Some(*until),
            Self::Closed | Self::Deciding { .. } => None,
        }
    }
}

impl Runtime {
    pub(super) fn scan(&mut self, text: &str, now: Timestamp) -> Result<String, ScanError> {
        let qr = Arc::new(QrText::parse(text)?);
        let until = now + qr.lifetime().min(LIMIT);
        self.open_pairing(Pairing::Scanned { qr: Arc::clone(&qr), until }, now)?;
        Ok(qr.name().to_owned())
    }

    pub(super) fn compare(&mut self, now: Timestamp) -> Result<(), ScanError> {
        self.open_pairing(Pairing::Compare { until: now + LIMIT }, now)
    }

    pub(super) fn confirm_pairing(&mut self, agree: bool, now: Timestamp) -> Result<(), PhoneError> {
        let Pairing::Deciding { link, .. } = &self.pairing else { return Err(PhoneError::NoPairing) };
        let entry = self.links.get_mut(link).ok_or(PhoneError::NoPairing)?;
        entry.link.confirm_pairing(agree, now);
        self.touched.push(*link);
        Ok(())
    }

    pub(super) fn cancel_pairing(&mut self, now: Timestamp) {
        match &self.pairing {
            Pairing::Closed => {}
            Pairing::Deciding { .. } => drop(self.confirm_pairing(false, now)),
            Pairing::Scanned { .. } | Pairing::Compare { .. } => self.pairing_failed(PairingFailure::Cancelled, now),
        }
    }

    /// Ends a pairing whatever has been confirmed: no host is paired by it any more.
    pub(super) fn abort_pairing(&mut self, now: Timestamp) {
        let deciding = match &self.pairing {
            Pairing::Closed => return,
            Pairing::Scanned { .. } | Pairing::Compare { .. } => None,
            Pairing::Deciding { link, .. } => Some(*link),
        };
        self.pairing_failed(PairingFailure::Cancelled, now);
        if let Some((link, entry)) = deciding.and_then(|link| Some((link, self.links.get_mut(&link)?))) {
            entry.told_closed = true;
            entry.link.close(CloseReason::Declined, now);
            self.touched.push(link);
        }
    }

    /// Ends a pairing for which no host has come in time. A link knows only since when it has been there itself, so a code that
    /// was scanned before it came up must be ended here.
    pub(super) fn expire_pairing(&mut self, now: Timestamp) {
        if self.pairing.poll_timeout().is_some_and(|until| until <= now) {
            self.pairing_failed(PairingFailure::Expired, now);
        }
    }

    pub(super) fn pairing_digits(&mut self, link: LinkId, digits: Digits, name: String, host: HostId, now: Timestamp) {
        if matches!(self.pairing, Pairing::Closed | Pairing::Deciding { .. }) {
            // Another host was faster, or the owner gave up in the meantime.
            if let Some(entry) = self.links.get_mut(&link) {
                entry.link.close(CloseReason::NotPairing, now);
                self.touched.push(link);
            }
            return;
        }
        self.set_pairing(Pairing::Deciding { link, host, name: name.clone() }, now);
        self.tell(|| PhoneEvent::PairingDigits { digits, host_name: name, host });
    }

    /// The keys are sealed: store them, and only then tell the host.
    pub(super) fn pair_sealed(&mut self, sealed: SealedPair, now: Timestamp) {
        let SealedPair { link, host, name, pair, sealed } = sealed;
        let current = matches!(&self.pairing, Pairing::Deciding { link: deciding, .. } if *deciding == link);
        if !current {
            return;
        }
        match sealed.ok().map(|sealed| self.hosts.store(host, name, pair, &sealed, now)) {
            Some(Ok(())) => {
                // A host that pairs again has new keys, and the permissions of a new one; what it had open under the old ones ends.
                self.close_links_of(&host, now);
                if let Some(entry) = self.links.get_mut(&link) {
                    entry.link.pair_stored(now);
                    self.touched.push(link);
                }
            }
            Some(Err(_)) | None => self.pairing_unstored(link, now),
        }
    }

    pub(super) fn pairing_done(&mut self, link: LinkId, now: Timestamp) {
        self.advertising.changed();
        match std::mem::take(&mut self.pairing) {
            Pairing::Deciding { link: deciding, host, name } if deciding == link => {
                // If this cannot be noted now, it will be when the host connects.
                self.hosts.confirm(&host).ok();
                if let Some(entry) = self.links.get_mut(&link) {
                    entry.told_closed = true;
                }
                self.log_of_host(host, &name, LogOperation::Pair, LogResult::Done, now);
                self.tell(|| PhoneEvent::Paired { host, name });
            }
            other => self.set_pairing(other, now),
        }
    }

    /// Whether the link belonged to the pairing, which then has failed.
    pub(super) fn pairing_link_gone(&mut self, link: LinkId, reason: CloseReason, now: Timestamp) -> bool {
        let ours = matches!(&self.pairing, Pairing::Deciding { link: deciding, .. } if *deciding == link);
        if ours {
            self.pairing_failed(PairingFailure::Closed(reason), now);
        }
        ours
    }

    fn pairing_unstored(&mut self, link: LinkId, now: Timestamp) {
        self.pairing_failed(PairingFailure::Store, now);
        if let Some(entry) = self.links.get_mut(&link) {
            entry.told_closed = true;
            entry.link.close(CloseReason::Failed, now);
            self.touched.push(link);
        }
    }

    fn pairing_failed(&mut self, reason: PairingFailure, now: Timestamp) {
        self.set_pairing(Pairing::Closed, now);
        self.tell(|| PhoneEvent::PairingFailed { reason });
    }

    fn open_pairing(&mut self, pairing: Pairing, now: Timestamp) -> Result<(), ScanError> {
        if matches!(self.pairing, Pairing::Deciding { .. }) {
            return Err(ScanError::Busy);
        }
        self.set_pairing(pairing, now);
        Ok(())
    }

    fn set_pairing(&mut self, pairing: Pairing, now: Timestamp) {
        self.pairing = pairing;
        self.advertising.changed();
        let deciding = match &self.pairing {
            Pairing::Deciding { link, .. } => Some(*link),
            _ => None,
        };
        for (link, entry) in &mut self.links {
            if entry.host.is_none() && Some(*link) != deciding {
                entry.link.set_pairing(self.pairing.mode(), now);
                self.touched.push(*link);
            }
        }
    }
}
