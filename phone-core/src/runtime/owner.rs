//! What the owner asks for, and what transports report.

use std::sync::atomic::Ordering;

use pocketcard_protocol::{
    apdu::{Response, StatusWord},
    link::CloseReason,
    messages::peer_name,
    time::Timestamp,
};

use super::{
    LogOperation, LogResult, PhoneEvent,
    mailbox::{Mail, PhoneError, Reply},
    run::Runtime,
};
use crate::{
    card::{Input, Permissions},
    traits::HostId,
};

impl Runtime {
    pub(super) fn receive(&mut self, mail: Mail, now: Timestamp) {
        match mail {
            Mail::Message { link, message } => {
                if let Some(entry) = self.links.get_mut(&link) {
                    entry.receive(message, now);
                    self.touched.push(link);
                }
            }
            Mail::ReadyToSend(link) => self.touched.push(link),
            Mail::LinkUp { link, transport, room, authenticated } => {
                self.link_up(link, transport, room, authenticated, now);
            }
            Mail::LinkDown(link) => self.link_gone(link, None, now),
            Mail::Scan { text, reply } => drop(reply.try_send(self.scan(&text, now))),
            Mail::Compare { reply } => drop(reply.try_send(self.compare(now))),
            Mail::ConfirmPairing { agree, reply } => drop(reply.try_send(self.confirm_pairing(agree, now))),
            Mail::CancelPairing => self.cancel_pairing(now),
            Mail::Hosts { reply } => drop(reply.try_send(self.hosts.list(|host| self.is_connected(host)))),
            Mail::Forget { host, reply } => drop(reply.try_send(self.forget(&host, now))),
            Mail::Rename { host, name, reply } => drop(reply.try_send(self.rename(&host, &name))),
            Mail::SetPermissions { host, permissions, reply } => {
                drop(reply.try_send(self.set_permissions(host, permissions, now)));
            }
            Mail::AllowConnection { host, reply } => drop(reply.try_send(self.allow_connection(host, now))),
            Mail::OwnerPresent => self.card.handle(Input::OwnerPresent, now),
            Mail::Log { reply } => drop(reply.try_send(self.log.entries())),
            #[cfg(feature = "enrolment")]
            Mail::Announce(event) => self.tell(|| event),
            Mail::LockCard => self.lock(true, now),
            Mail::UnlockCard => self.lock(false, now),
            Mail::Local { resets: Some(before), reply, .. }
                if before != self.factory_resets.load(Ordering::Acquire) =>
            {
                drop(reply.try_send(Response::status_only(StatusWord::NoDiagnosis)));
            }
            Mail::Local { command, reply, .. } => {
                let request = self.local_request(reply);
                self.card.handle(Input::Local { request, command }, now);
            }
            Mail::ChoosePin { pin, puk, reply } => {
                let request = self.local_request(reply);
                self.choosing.insert(request);
                self.card.handle(Input::Enrol { request, pin, puk }, now);
            }
            Mail::ForgetAll { reply } => drop(reply.try_send(self.forget_all(now))),
            Mail::LocalReset => self.card.handle(Input::LocalReset, now),
            Mail::Advertise { epoch, identifiers } => self.watch_advertising(epoch, identifiers),
            Mail::Subscribe(subscriber) => self.subscribers.push(subscriber),
            Mail::Stop { reply } => self.stopping = Some(reply),
        }
    }

    fn local_request(&mut self, reply: Reply<Response>) -> u64 {
        let request = self.next_local;
        self.next_local += 1;
        self.locals.insert(request, reply);
        request
    }

    /// Deletes a host and closes its links.
    pub(super) fn forget(&mut self, host: &HostId, now: Timestamp) -> Result<(), PhoneError> {
        let forgotten = self.hosts.forget(host);
        self.advertising.changed();
        // Even if the store failed, the host is out until the next start.
        self.close_links_of(host, now);
        match forgotten? {
            Some(name) => {
                let host = *host;
                self.log_of_host(host, &name, LogOperation::Forget, LogResult::Done, now);
                self.tell(|| PhoneEvent::Forgotten { host, name });
                Ok(())
            }
            None => Err(PhoneError::UnknownHost),
        }
    }

    fn forget_all(&mut self, now: Timestamp) -> Result<(), PhoneError> {
        // Else the host of a pairing that is under way would be the first of the new phone.
        self.abort_pairing(now);
        let hosts: Vec<HostId> = self.hosts.all_permissions().into_iter().map(|(host, _)| host).collect();
        // All of them, whatever becomes of one: each is out until the next start even if the store fails.
        let forgotten: Vec<_> = hosts.iter().map(|host| self.forget(host, now)).collect();
        forgotten.into_iter().collect()
    }

    fn set_permissions(&mut self, host: HostId, permissions: Permissions, now: Timestamp) -> Result<(), PhoneError> {
        // Stored first: what is taken back must not come back with the next start.
        let stored = self.hosts.set_permissions(&host, &permissions);
        if !matches!(stored, Ok(false)) {
            let permissions = self.hosts.permissions(&host);
            self.card.handle(Input::PermissionsChanged { host, permissions }, now);
        }
        if !stored? {
            return Err(PhoneError::UnknownHost);
        }
        let name = self.hosts.name(&host).unwrap_or_default().to_owned();
        self.log_of_host(host, &name, LogOperation::SetPermissions, LogResult::Done, now);
        self.tell(|| PhoneEvent::PermissionsChanged { host, name, permissions });
        Ok(())
    }

    fn allow_connection(&mut self, host: HostId, now: Timestamp) -> Result<(), PhoneError> {
        if self.hosts.name(&host).is_none() {
            return Err(PhoneError::UnknownHost);
        }
        self.card.handle(Input::ConnectionAllowed(host), now);
        Ok(())
    }

    /// Ends everything that a host has open.
    pub(super) fn close_links_of(&mut self, host: &HostId, now: Timestamp) {
        self.card.handle(Input::HostForgotten(*host), now);
        for (link, entry) in &mut self.links {
            if entry.host.as_ref().is_some_and(|(connected, _)| connected == host) {
                entry.link.close(CloseReason::Revoked, now);
                self.touched.push(*link);
            }
        }
    }

    fn rename(&mut self, host: &HostId, name: &str) -> Result<(), PhoneError> {
        let name = peer_name(name);
        if name.is_empty() {
            return Err(PhoneError::EmptyName);
        }
        if self.hosts.rename(host, name)? { Ok(()) } else { Err(PhoneError::UnknownHost) }
    }

    fn lock(&mut self, lock: bool, now: Timestamp) {
        self.card.handle(if lock { Input::LockCard } else { Input::UnlockCard }, now);
    }

    pub(super) fn is_connected(&self, host: &HostId) -> bool {
        self.links.values().any(|entry| entry.host.as_ref().is_some_and(|(connected, _)| connected == host))
    }
}
