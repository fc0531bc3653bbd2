//! What the front knows about the card for certain, and the commands it may therefore answer itself.

use pocketcard_protocol::apdu::{Command, Response};
use pocketcard_protocol::messages;

/// The security state that the phone announced last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Security {
    /// Whether the PIN is verified in this card session.
    pub pin_verified: bool,
    /// Tries left, or `None` if the phone has not said.
    pub pin_tries_left: Option<u32>,
}

/// Everything that is known of one card session; dropped with it.
#[derive(Debug, Default)]
pub(crate) struct Knowledge {
    version: u64,
    security: Security,
}

impl Knowledge {
    /// Takes the phone's announcement; one that is older than what is known changes nothing.
    pub(crate) fn announce(&mut self, state: &messages::SecurityState) {
        if state.version >= self.version {
            self.version = state.version;
            self.security = Security { pin_verified: state.pin_verified, pin_tries_left: Some(state.pin_tries_left) };
        }
    }

    /// A response said which version of the security state holds after it. If that is a newer one than was announced,
    /// what is known is stale until its announcement arrives.
    pub(crate) fn response(&mut self, security_version: u64) {
        if security_version > self.version {
            self.version = security_version;
            self.security.pin_tries_left = None;
        }
    }

    /// The card was reset: nothing is verified any more.
    pub(crate) fn reset(&mut self) {
        self.security.pin_verified = false;
    }

    pub(crate) fn security(&self) -> Security {
        self.security
    }

    /// The card's answer, if it is certain. No public objects are held yet, so every command goes to the card.
    pub(crate) fn answer(&self, _command: &Command) -> Option<Response> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(version: u64, pin_verified: bool) -> messages::SecurityState {
        messages::SecurityState { version, pin_verified, pin_tries_left: 3, ..Default::default() }
    }

    #[test]
    fn an_old_announcement_changes_nothing() {
        let mut knowledge = Knowledge::default();
        knowledge.announce(&state(5, true));
        knowledge.announce(&state(4, false));
        assert!(knowledge.security().pin_verified);
        knowledge.announce(&state(6, false));
        assert!(!knowledge.security().pin_verified);
    }

    #[test]
    fn a_response_that_is_ahead_of_the_announcements_makes_them_stale() {
        let mut knowledge = Knowledge::default();
        knowledge.announce(&state(5, true));
        knowledge.response(5);
        assert_eq!(knowledge.security().pin_tries_left, Some(3));
        knowledge.response(7);
        assert_eq!(knowledge.security().pin_tries_left, None);
        knowledge.announce(&state(6, true));
        assert_eq!(knowledge.security().pin_tries_left, None, "still the old one");
        knowledge.announce(&state(7, true));
        assert_eq!(knowledge.security().pin_tries_left, Some(3));
    }
}
