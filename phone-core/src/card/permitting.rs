//! The owner changes what a host may do, while the host has a session.

use pocketcard_protocol::apdu::StatusWord;
use pocketcard_protocol::time::Timestamp;

use super::applet::{Refusal, SessionId};
use super::deed::Deed;
use super::permissions::Permissions;
use super::{Card, HostId, Output};

impl Card {
    pub(super) fn permissions_of(&self, host: &HostId) -> &Permissions {
        self.permissions.get(host).unwrap_or(&self.default_permissions)
    }

    /// From now on a host may do this and no more. What it is doing that it no longer may is refused; what it had gained by a
    /// permission that it lost, it loses.
    pub(super) fn set_permissions(&mut self, host: HostId, permissions: Permissions, now: Timestamp) {
        let before = self.permissions_of(&host).clone();
        self.permissions.insert(host, permissions.clone());
        if before == permissions {
            return;
        }
        let sessions = self.sessions.iter().filter(|(_, session)| session.host == host);
        let ids: Vec<SessionId> = sessions.map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(refusal) = self.running.get(&id).and_then(|running| lost(running.deed()?, &permissions)) {
                self.end(id, StatusWord::SecurityStatusNotSatisfied, Some(refusal), now);
            }
            self.dispatcher.permissions_changed(id, &permissions);
            if let Some(link) = self.link_of(id) {
                let envelope = permissions.to_message().into();
                self.outputs.push_back(Output::Send { link, envelope });
            }
            if permissions.connect_unattended {
                self.admit_session(id);
            } else if before.connect_unattended {
                self.take_card_from(id, now);
            }
        }
        self.announce_security();
    }
}

/// Why a command under way may not go on. One in which the owner enters a secret on the phone needs no permission.
fn lost(deed: Deed, permissions: &Permissions) -> Option<Refusal> {
    // What is typed is compared at once, so whatever waits with a PIN waits for the phone.
    let reason = permissions.refusal(deed).filter(|_| !deed.compares_pin())?;
    Some(Refusal { reason, key: deed.key_reference().unwrap_or(0) })
}
