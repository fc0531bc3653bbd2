//! What people at the computer are told of what the phone does: that it waits for its owner, why it refused, and what it
//! permits. Programs see status words only.

use pocketcard_ipc::control::{Event, Permissions, Refusal};
use pocketcard_protocol::Timestamp;
use pocketcard_protocol::messages::{self, PendingReason, RefusalReason};

use super::Slot;
use super::words::{key_words, pending_words, refusal_of};

/// Kept for one phone, also while it is away.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// Why the command under way is held back.
    pending: Option<PendingReason>,
    /// Its number.
    operation: Option<u64>,
    refusal: Option<(Timestamp, RefusalReason, u8)>,
    /// PIN tries left, as the phone said last.
    tries: Option<u32>,
    permissions: Option<Permissions>,
}

impl Notices {
    /// The phone says every half second that the command is alive; people hear it once for each reason.
    pub(super) fn pending(&mut self, slot: &Slot, reason: PendingReason) {
        if self.pending.replace(reason) != Some(reason) {
            let operation = Some(*self.operation.get_or_insert_with(|| slot.operations.next()));
            slot.announce(Event::Pending { slot: slot.number, reason: pending_words(reason).to_owned(), operation });
        }
    }

    /// The command under way has its answer, or is given up.
    pub(super) fn answered(&mut self, slot: &Slot) {
        self.operation = None;
        if self.pending.take().is_some() {
            slot.announce(Event::PendingOver { slot: slot.number });
        }
    }

    pub(super) fn refused(&mut self, slot: &Slot, reason: RefusalReason, key_reference: u8) {
        self.refusal = Some((slot.clock.now(), reason, key_reference));
        let (reason, key) = (refusal_of(reason), key_words(key_reference));
        slot.announce(Event::Refused { slot: slot.number, reason, key });
    }

    /// A PIN that was blocked since is what needs attention; an earlier refusal is not the newest any more.
    pub(super) fn tries(&mut self, tries: Option<u32>) {
        let Some(tries) = tries else { return };
        let is_blocked_now = tries == 0 && self.tries.is_some_and(|before| before > 0);
        if is_blocked_now && self.refusal.is_some_and(|(_, reason, _)| reason != RefusalReason::PinBlocked) {
            self.refusal = None;
        }
        self.tries = Some(tries);
    }

    /// The owner let something happen, so what was refused before needs no attention any more.
    pub(super) fn granted(&mut self) {
        self.refusal = None;
    }

    pub(super) fn permissions(&mut self, slot: &Slot, phone: Option<&str>, permissions: &messages::Permissions) {
        let permissions = Permissions {
            keys: permissions.keys.iter().copied().map(|key| format!("{key:02X}")).collect(),
            typed_pin: permissions.typed_pin,
            administer: permissions.administer,
            connect_unattended: permissions.connect_unattended,
        };
        if self.permissions.as_ref() == Some(&permissions) {
            return;
        }
        self.permissions = Some(permissions.clone());
        if let Some(phone) = phone {
            slot.announce(Event::PermissionsChanged { phone: phone.to_owned(), permissions });
        }
    }

    pub(super) fn waiting(&self) -> Option<&'static str> {
        self.pending.map(pending_words)
    }

    /// The number of the command that is held back.
    pub(super) fn operation(&self) -> Option<u64> {
        self.operation
    }

    pub(super) fn last_refusal(&self, now: Timestamp) -> Option<Refusal> {
        let (at, reason, key) = self.refusal?;
        let ago_s = now.saturating_since(at).as_secs();
        Some(Refusal { reason: refusal_of(reason), key: key_words(key), ago_s })
    }

    pub(super) fn permitted(&self) -> Option<Permissions> {
        self.permissions.clone()
    }
}
