use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use async_channel::Receiver;
use pocketcard_phone::card::{CardConfig, NoProbe};
use pocketcard_phone::runtime::{self, Parts, PhoneConfig};
use pocketcard_phone::store::RedbStore;
use pocketcard_phone::{HostId, KeyStore as _};
use pocketcard_protocol::apdu::Command;
use pocketcard_protocol::link::VersionRange;
use zeroize::Zeroizing;

use crate::advertising::{Advertisements, epoch};
use crate::approver::{Approver, ForeignApprover};
use crate::clock::DeviceClock;
use crate::entropy::SystemEntropy;
use crate::error::{PhoneError, ScanError, StartError};
use crate::event::Events;
use crate::host::Host;
use crate::keystore::{ForeignKeyStore, KeyStore};
use crate::link::{ForeignTransport, Link, Transport};
use crate::log::LogEntry;
use crate::permissions::Permissions;
use crate::sealing::{ForeignSealingKey, SealingKey};

/// What a phone is told when it starts.
#[derive(Clone, Debug, uniffi::Record)]
pub struct PhoneSettings {
    /// The phone's name as computers see it when they pair.
    pub name: String,
    /// Name and version of the app, for the computers' logs.
    pub software: String,
    /// Folder of the phone's state: the app's own, closed to others.
    pub state_folder: String,
    /// A card for tests, with the well-known PIN, PUK and management key. Never true in an app that people use.
    pub test_card: bool,
}

/// A running phone. It stops with [`Phone::stop`] or when the last reference to it and to its links is gone.
#[derive(uniffi::Object)]
pub struct Phone {
    pub(crate) phone: runtime::Phone,
    /// Closes when the phone's thread has let everything go, its state included.
    ended: Receiver<Infallible>,
}

#[uniffi::export]
impl Phone {
    /// Starts the phone on a thread of its own. A phone whose folder is empty makes an identity.
    #[uniffi::constructor]
    pub async fn start(
        settings: PhoneSettings,
        key_store: Arc<dyn KeyStore>,
        sealing_key: Arc<dyn SealingKey>,
        approver: Arc<dyn Approver>,
    ) -> Result<Arc<Self>, StartError> {
        let PhoneSettings { name, software, state_folder, test_card } = settings;
        let keystore = ForeignKeyStore(key_store);
        let algorithms = keystore.algorithms();
        let card = CardConfig {
            test_card,
            name: name.clone(),
            software: software.clone(),
            algorithms,
            ..CardConfig::default()
        };
        let parts = Parts {
            store: Arc::new(RedbStore::open(Path::new(&state_folder))?),
            keystore: Arc::new(keystore),
            sealing: Arc::new(ForeignSealingKey(sealing_key)),
            approver: Arc::new(ForeignApprover(approver)),
            clock: Arc::new(DeviceClock),
            entropy: Arc::new(SystemEntropy),
            probe: Arc::new(NoProbe),
        };
        let config = PhoneConfig { name, software, versions: VersionRange::SUPPORTED, card };
        let executor =
            tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(|_| StartError::Thread)?;
        let (phone, running) = runtime::phone(config, parts).await?;
        let (ends, ended) = async_channel::bounded(1);
        let run = move || {
            executor.block_on(running);
            drop(ends);
        };
        let thread = std::thread::Builder::new().name("pocketcard-phone".to_owned());
        thread.spawn(run).map_err(|_| StartError::Thread)?;
        Ok(Arc::new(Self { phone, ended }))
    }

    /// Hands over a new link to some computer. The phone speaks first.
    pub fn link_up(&self, transport: Arc<dyn Transport>) -> Arc<Link> {
        Arc::new(Link::new(self.phone.link_up(Box::new(ForeignTransport(transport)))))
    }

    /// The owner scanned (or pasted) the code that a computer shows. Returns the computer's name for itself; the digits follow
    /// as an event.
    pub async fn scan(&self, qr_text: String) -> Result<String, ScanError> {
        Ok(self.phone.scan(&Zeroizing::new(qr_text)).await?)
    }

    /// Pair without a camera: for two minutes any computer that is near may ask, and the digits alone tell who it is.
    pub async fn compare(&self) -> Result<(), ScanError> {
        Ok(self.phone.compare().await?)
    }

    /// The owner compared the digits.
    pub async fn confirm_pairing(&self, agree: bool) -> Result<(), PhoneError> {
        Ok(self.phone.confirm_pairing(agree).await?)
    }

    /// Gives up a pairing in whatever state it is.
    pub fn cancel_pairing(&self) {
        self.phone.cancel_pairing();
    }

    /// The paired hosts.
    pub async fn hosts(&self) -> Result<Vec<Host>, PhoneError> {
        Ok(self.phone.hosts().await?.into_iter().map(Host::from).collect())
    }

    /// Forgets a host: its links close at once, its keys are deleted.
    pub async fn forget(&self, host_id: String) -> Result<(), PhoneError> {
        Ok(self.phone.forget(host(&host_id)?).await?)
    }

    /// Gives a host another name.
    pub async fn rename(&self, host_id: String, name: String) -> Result<(), PhoneError> {
        Ok(self.phone.rename(host(&host_id)?, &name).await?)
    }

    /// Changes what a host may do, at once: also what waits for a permission that is taken back is refused.
    pub async fn set_permissions(&self, host_id: String, permissions: Permissions) -> Result<(), PhoneError> {
        Ok(self.phone.set_permissions(host(&host_id)?, permissions.try_into()?).await?)
    }

    /// The owner lets a host have the card for this connection, after it was refused or while that is being asked.
    pub async fn allow_connection(&self, host_id: String) -> Result<(), PhoneError> {
        Ok(self.phone.allow_connection(host(&host_id)?).await?)
    }

    /// The owner has opened the app: hosts that were denied too often may ask again.
    pub fn owner_present(&self) {
        self.phone.owner_present();
    }

    /// The log, oldest entry first.
    pub async fn log(&self) -> Result<Vec<LogEntry>, PhoneError> {
        Ok(self.phone.log().await?.into_iter().map(LogEntry::from).collect())
    }

    /// Takes the card out of every reader until [`Phone::unlock`].
    pub fn lock(&self) {
        self.phone.lock_card();
    }

    /// Puts the card back.
    pub fn unlock(&self) {
        self.phone.unlock_card();
    }

    /// The owner chooses PIN and PUK; the app has made sure that it is the owner. A PIN has 6 to 8 digits, a PUK 8 octets.
    pub async fn choose_pin(&self, pin: String, puk: String) -> Result<(), PhoneError> {
        let (pin, puk) = (Zeroizing::new(pin), Zeroizing::new(puk));
        Ok(self.phone.choose_pin(padded(&pin)?, puk_octets(&puk)?).await?)
    }

    /// Changes the PIN; a wrong one costs a try.
    pub async fn change_pin(&self, current: String, new: String) -> Result<(), PhoneError> {
        let (current, new) = (Zeroizing::new(current), Zeroizing::new(new));
        Ok(self.phone.change_pin(padded(&current)?, padded(&new)?).await?)
    }

    /// Changes the PUK; a wrong one costs a try.
    pub async fn change_puk(&self, current: String, new: String) -> Result<(), PhoneError> {
        let (current, new) = (Zeroizing::new(current), Zeroizing::new(new));
        Ok(self.phone.change_puk(padded(&current)?, puk_octets(&new)?).await?)
    }

    /// Makes the phone as good as new: keys, certificates, PIN and PUK are gone, every host is forgotten. The log stays.
    pub async fn factory_reset(&self) -> Result<(), PhoneError> {
        Ok(self.phone.factory_reset().await?)
    }

    /// Gives the card a command of the owner's own session, which may administer, and returns the response APDU.
    pub async fn local_transmit(&self, command: Vec<u8>) -> Result<Vec<u8>, PhoneError> {
        let command = Zeroizing::new(command);
        let command = Command::parse(&command).map_err(|_| PhoneError::NotACommand)?;
        Ok(self.phone.local_transmit(command).await?.to_bytes().to_vec())
    }

    /// What to advertise on a radio, by the wall clock. Ask again at the latest every 15 minutes, at the full quarters of an
    /// hour: the identifiers change then. Only the last call is told of changes.
    pub fn advertise(&self, seconds_since_1970: u64) -> Arc<Advertisements> {
        Arc::new(Advertisements(self.phone.advertise(epoch(seconds_since_1970))))
    }

    /// What happens from now on. A subscriber that does not keep up loses the oldest events.
    pub fn events(&self) -> Arc<Events> {
        Arc::new(Events(self.phone.events()))
    }

    /// Closes every link and ends the phone. Returns when that has happened; its folder may be opened again then.
    pub async fn stop(&self) {
        self.phone.stop().await;
        // Nothing is ever sent: this ends when the thread does.
        let _ = self.ended.recv().await;
    }
}

fn host(id: &str) -> Result<HostId, PhoneError> {
    HostId::from_hex(id).ok_or(PhoneError::UnknownHost)
}

/// Eight octets, filled up with `FF`. Spec: SP 800-73-4 part 2, section 2.4.3
fn padded(text: &str) -> Result<Zeroizing<[u8; 8]>, PhoneError> {
    let mut padded = Zeroizing::new([0xFF; 8]);
    padded.get_mut(..text.len()).ok_or(PhoneError::PinRefused)?.copy_from_slice(text.as_bytes());
    Ok(padded)
}

/// A new PUK: eight characters of ASCII, since no other could be entered on the phone.
fn puk_octets(text: &str) -> Result<Zeroizing<[u8; 8]>, PhoneError> {
    if text.len() == 8 && text.is_ascii() { padded(text) } else { Err(PhoneError::PinRefused) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_puk_can_be_entered() {
        assert_eq!(*puk_octets("12345678").unwrap(), *b"12345678");
        for puk in ["", "1234567", "123456789", "1234567é", "123456é"] {
            assert!(matches!(puk_octets(puk), Err(PhoneError::PinRefused)), "{puk}");
        }
    }
}
