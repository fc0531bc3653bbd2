//! What only the owner can do with the card, on the phone itself.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use pocketcard_protocol::apdu::{Command, Response, StatusWord};
use zeroize::Zeroizing;

use super::{LogEntry, Phone, PhoneError, mailbox::Mail};
use crate::{
    card::Permissions,
    traits::{HostId, StoreError},
};

const CHANGE_REFERENCE_DATA: u8 = 0x24;
const RESET: u8 = 0xFB;

/// The owner's card session, for as long as this lives to whoever has it alone. Then it is reset, so that nothing that was
/// verified stays behind, and a command under way ends.
pub(crate) struct OwnerSession {
    phone: Phone,
    busy: Arc<AtomicBool>,
    /// Factory resets before it.
    resets: u64,
}

impl OwnerSession {
    /// Gives the card a command of this session. One that comes after a factory reset is answered `6F 00`: what was begun with
    /// the old card must leave nothing on the new one.
    pub(crate) async fn transmit(&self, command: Command) -> Result<Response, PhoneError> {
        self.phone.transmit_after(Some(self.resets), command).await
    }
}

impl Drop for OwnerSession {
    fn drop(&mut self) {
        self.phone.local_reset();
        self.busy.store(false, Ordering::Release);
    }
}

impl Phone {
    /// The owner's card session; `None` while somebody else has it.
    pub(crate) fn owner_session(&self) -> Option<OwnerSession> {
        let free = self.owner_busy.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
        free.then(|| OwnerSession {
            phone: self.clone(),
            busy: Arc::clone(&self.owner_busy),
            resets: self.factory_resets.load(Ordering::Acquire),
        })
    }

    /// Changes what a host may do. It holds with the host's next command, and at once for what waits: a question about a key
    /// that is no longer permitted goes away, a PIN that was typed is no longer verified, and a host that may no longer connect
    /// unattended has no card until the owner confirms.
    ///
    /// # Errors
    /// [`PhoneError::UnknownHost`], [`PhoneError::Store`], [`PhoneError::Stopped`]
    pub async fn set_permissions(&self, host: HostId, permissions: Permissions) -> Result<(), PhoneError> {
        self.ask(|reply| Mail::SetPermissions { host, permissions, reply }).await.unwrap_or(Err(PhoneError::Stopped))
    }

    /// The owner lets a host have the card for this connection, after it was refused or while it is being asked.
    ///
    /// # Errors
    /// [`PhoneError::UnknownHost`], [`PhoneError::Stopped`]
    pub async fn allow_connection(&self, host: HostId) -> Result<(), PhoneError> {
        self.ask(|reply| Mail::AllowConnection { host, reply }).await.unwrap_or(Err(PhoneError::Stopped))
    }

    /// The owner has opened the app: hosts that were denied too often may ask again.
    pub fn owner_present(&self) {
        self.tell(Mail::OwnerPresent);
    }

    /// The log, oldest entry first.
    ///
    /// # Errors
    /// [`PhoneError::Stopped`]
    pub async fn log(&self) -> Result<Vec<LogEntry>, PhoneError> {
        self.ask(|reply| Mail::Log { reply }).await.ok_or(PhoneError::Stopped)
    }

    /// Takes the card out of every reader until [`Phone::unlock_card`].
    pub fn lock_card(&self) {
        self.tell(Mail::LockCard);
    }

    /// Puts the card back.
    pub fn unlock_card(&self) {
        self.tell(Mail::UnlockCard);
    }

    /// Gives the card a command of the owner's own session, which may administer.
    ///
    /// # Errors
    /// [`PhoneError::Stopped`]
    pub async fn local_transmit(&self, command: Command) -> Result<Response, PhoneError> {
        self.transmit_after(None, command).await
    }

    async fn transmit_after(&self, resets: Option<u64>, command: Command) -> Result<Response, PhoneError> {
        self.ask(|reply| Mail::Local { command, resets, reply }).await.ok_or(PhoneError::Stopped)
    }

    /// The owner chooses PIN and PUK, for the first time or again; whoever calls this has made sure that it is the owner.
    ///
    /// - `pin`: 6 to 8 digits, padded with `0xFF`.
    /// - `puk`: any 8 octets.
    ///
    /// # Errors
    /// [`PhoneError::PinRefused`] if the card does not take the PIN, [`PhoneError::Store`] if it could not be stored,
    /// [`PhoneError::Stopped`].
    pub async fn choose_pin(&self, pin: Zeroizing<[u8; 8]>, puk: Zeroizing<[u8; 8]>) -> Result<(), PhoneError> {
        let response = self.ask(|reply| Mail::ChoosePin { pin, puk, reply }).await.ok_or(PhoneError::Stopped)?;
        match response.status() {
            StatusWord::Success => Ok(()),
            StatusWord::WrongData => Err(PhoneError::PinRefused),
            _ => Err(StoreError::Failed.into()),
        }
    }

    /// Resets the owner's own session.
    pub fn local_reset(&self) {
        self.tell(Mail::LocalReset);
    }

    /// Changes the PIN. Unlike a host the owner may use the last try.
    ///
    /// - `current`, `new`: 6 to 8 digits, padded with `0xFF`.
    ///
    /// # Errors
    /// [`PhoneError::WrongPin`] costs a try; [`PhoneError::PinRefused`] if the new one has not this form;
    /// [`PhoneError::PinBlocked`], [`PhoneError::Busy`], [`PhoneError::Store`], [`PhoneError::Stopped`].
    pub async fn change_pin(&self, current: Zeroizing<[u8; 8]>, new: Zeroizing<[u8; 8]>) -> Result<(), PhoneError> {
        self.change(0x80, &current, &new).await
    }

    /// Changes the PUK; as [`Phone::change_pin`], but a PUK is any 8 octets.
    ///
    /// # Errors
    /// As [`Phone::change_pin`].
    pub async fn change_puk(&self, current: Zeroizing<[u8; 8]>, new: Zeroizing<[u8; 8]>) -> Result<(), PhoneError> {
        self.change(0x81, &current, &new).await
    }

    /// Makes the phone as good as new: keys, certificates, PIN and PUK are gone, every host is forgotten. The log stays, and the
    /// phone keeps its own identity. If it fails halfway it is to be called again. The key store destroys the keys right after;
    /// those that it has not destroyed when the phone ends, it does at the next start.
    ///
    /// # Errors
    /// [`PhoneError::Store`], [`PhoneError::Stopped`]
    pub async fn factory_reset(&self) -> Result<(), PhoneError> {
        self.factory_resets.fetch_add(1, Ordering::Release);
        // Keys that are being made are given up, and the PIV application is selected.
        self.local_reset();
        let response = self.local_transmit(command(RESET, 0, &[])?).await?;
        if !response.status().is_success() {
            return Err(StoreError::Failed.into());
        }
        self.ask(|reply| Mail::ForgetAll { reply }).await.unwrap_or(Err(PhoneError::Stopped))
    }

    /// Tells whoever listens.
    #[cfg(feature = "enrolment")]
    pub(crate) fn announce(&self, event: super::PhoneEvent) {
        self.tell(Mail::Announce(event));
    }

    async fn change(&self, reference: u8, current: &[u8; 8], new: &[u8; 8]) -> Result<(), PhoneError> {
        let session = self.owner_session().ok_or(PhoneError::Busy)?;
        let data = Zeroizing::new([*current, *new].concat());
        let response = session.transmit(command(CHANGE_REFERENCE_DATA, reference, &data)?).await?;
        match response.status() {
            StatusWord::Success => Ok(()),
            StatusWord::RemainingTries(tries_left) => Err(PhoneError::WrongPin { tries_left }),
            StatusWord::AuthenticationMethodBlocked => Err(PhoneError::PinBlocked),
            StatusWord::WrongData => Err(PhoneError::PinRefused),
            _ => Err(StoreError::Failed.into()),
        }
    }
}

/// A command of at most 16 octets, which cannot fail to be built.
fn command(ins: u8, p2: u8, data: &[u8]) -> Result<Command, PhoneError> {
    Command::new(0, ins, 0, p2, data, None).map_err(|_| StoreError::Failed.into())
}
