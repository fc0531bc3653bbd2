//! Every host hears of what has changed on the card, before anybody can see it.
//!
//! Spec: SPEC.md section 7.4

use super::applet::SessionId;
use super::event::CardEvent;
use super::session::Announced;
use super::{Card, Output};

impl Card {
    /// Tells every host what has changed about its PIN and about what everybody may read.
    pub(super) fn announce_security(&mut self) {
        if self.sessions.is_empty() {
            return;
        }
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        let snapshots: Vec<_> = ids.into_iter().map(|id| self.snapshot_digest(id)).collect();
        let mut events = Vec::new();
        for ((id, session), snapshot) in self.sessions.iter_mut().zip(snapshots) {
            let before = session.announced().pin;
            let pin = self.dispatcher.pin_status(*id);
            if !session.note(Announced { pin, snapshot }) {
                continue;
            }
            if let Some(link) = session.link {
                self.outputs.push_back(Output::Send { link, envelope: session.security_state().into() });
            }
            if pin != before {
                let (pin_verified, pin_tries_left) = (pin.verified, pin.tries_left);
                events.push(CardEvent::SecurityChanged { host: session.host, pin_verified, pin_tries_left });
            }
        }
        events.into_iter().for_each(|event| self.tell(event));
    }

    /// What holds on the card for a session.
    pub(super) fn holds(&mut self, id: SessionId) -> Announced {
        Announced { pin: self.dispatcher.pin_status(id), snapshot: self.snapshot_digest(id) }
    }
}
