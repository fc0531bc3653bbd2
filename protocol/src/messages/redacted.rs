//! Messages that hold APDUs, tokens or secrets: they print lengths, and are wiped when dropped.

use std::fmt;
use std::mem;

use zeroize::{Zeroize, Zeroizing};

use super::{Open, Opened, PairOpen, PairSecret, Response, Transmit};
use crate::wipe::wipe_vec;

/// Prints a number of bytes in place of the bytes.
struct Length(usize);

impl fmt::Debug for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0)
    }
}

impl Transmit {
    /// Takes the command APDU out; an empty one stays behind.
    #[must_use]
    pub fn take_command(&mut self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(mem::take(&mut self.command))
    }
}

impl fmt::Debug for Transmit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transmit")
            .field("session", &self.session)
            .field("request_id", &self.request_id)
            .field("epoch", &self.epoch)
            .field("command", &Length(self.command.len()))
            .finish()
    }
}

impl Drop for Transmit {
    fn drop(&mut self) {
        wipe_vec(&mut self.command);
    }
}

impl Response {
    /// Takes the response APDU out; an empty one stays behind.
    #[must_use]
    pub fn take_response(&mut self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(mem::take(&mut self.response))
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("session", &self.session)
            .field("request_id", &self.request_id)
            .field("epoch", &self.epoch)
            .field("response", &Length(self.response.len()))
            .field("security_version", &self.security_version)
            .finish_non_exhaustive()
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        wipe_vec(&mut self.response);
    }
}

impl Open {
    /// Takes the token of the session to resume out; an empty one stays behind.
    #[must_use]
    pub fn take_resume_token(&mut self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(mem::take(&mut self.resume_token))
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open")
            .field("resume_token", &Length(self.resume_token.len()))
            .field("epoch", &self.epoch)
            .field("software", &self.software)
            .finish()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.resume_token.zeroize();
    }
}

impl Opened {
    /// Takes the session's token out; an empty one stays behind.
    #[must_use]
    pub fn take_token(&mut self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(mem::take(&mut self.token))
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("session", &self.session)
            .field("token", &Length(self.token.len()))
            .field("resumed", &self.resumed)
            .field("last_request_id", &self.last_request_id)
            .field("card_state", &self.card_state)
            .field("security_state", &self.security_state)
            .field("software", &self.software)
            .finish()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.token.zeroize();
    }
}

impl fmt::Debug for PairOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairOpen").field("nonce", &Length(self.nonce.len())).finish()
    }
}

impl PairSecret {
    /// Takes the secret out; an empty one stays behind.
    #[must_use]
    pub fn take_secret(&mut self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(mem::take(&mut self.secret))
    }
}

impl fmt::Debug for PairSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairSecret").field("secret", &Length(self.secret.len())).finish()
    }
}

impl Drop for PairSecret {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::Envelope;

    #[test]
    fn no_secret_is_printed() {
        // Decimal 201, 202, 203 would show in a derived Debug of bytes.
        let bytes = vec![201_u8, 202, 203];
        let messages: Vec<Envelope> = vec![
            Transmit { session: 1, request_id: 1, epoch: 1, command: bytes.clone() }.into(),
            Response {
                session: 1,
                request_id: 1,
                epoch: 1,
                response: bytes.clone(),
                security_version: 1,
                snapshot_digest: Vec::new(),
            }
            .into(),
            Open { resume_token: bytes.clone(), epoch: 1, software: String::new() }.into(),
            Opened {
                session: 1,
                token: bytes.clone(),
                resumed: false,
                last_request_id: 0,
                card_state: None,
                security_state: None,
                software: String::new(),
            }
            .into(),
            PairSecret { secret: bytes.clone() }.into(),
            PairOpen { nonce: bytes }.into(),
        ];
        for message in messages {
            let text = format!("{message:?} {message:#?}");
            assert!(text.contains("<3 bytes>"), "{text}");
            assert!(!text.contains("201") && !text.to_lowercase().contains("c9"), "{text}");
        }
    }

    #[test]
    fn taking_a_field_out_leaves_nothing_behind() {
        let mut transmit = Transmit { session: 1, request_id: 1, epoch: 1, command: vec![1, 2, 3] };
        assert_eq!(transmit.take_command().as_slice(), [1, 2, 3]);
        assert!(transmit.command.is_empty());
    }
}
