//! The encrypted channel: Noise handshakes that become a transport of records.
//!
//! Keys are types: a [`Handshake`] that has finished turns into a [`Transport`] and a [`HandshakeHash`], and there is
//! no other way to either. The primitives under `snow` are aes-gcm, x25519-dalek and sha2.
//!
//! Spec: SPEC.md section 6

mod handshake;
mod key;
mod resolver;
mod transport;
mod x25519;

pub use handshake::{HANDSHAKE_MESSAGE_LIMIT, Handshake, HandshakeHash, Pattern};
pub use key::{Psk, PublicKey, StaticSecret};
pub use transport::{
    PADDING_BLOCK, RECORD_LIMIT, RECORD_OVERHEAD, RECORD_PAYLOAD_LIMIT, REKEY_INTERVAL, REKEY_RECORDS, Transport,
};

pub(crate) use key::expand;

/// Why a handshake or a record failed. The channel it came from is then of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// A handshake message or record that does not decrypt, or a Diffie-Hellman result of zero.
    #[error("decryption failed")]
    Decrypt,
    /// A handshake message or record of impossible length.
    #[error("a handshake message or record of impossible length")]
    Length,
    /// A record whose plaintext is not one: unknown flags or wrong padding.
    #[error("a record with unknown flags or wrong padding")]
    Record,
    /// The peer used one key for too many records.
    #[error("the peer did not change its key in time")]
    RekeyOverdue,
    /// A message longer than the limit, over several records.
    #[error("a message longer than the limit")]
    TooLong,
    /// The random source failed.
    #[error("the random source failed")]
    Entropy,
    /// A handshake step out of turn, or keys of the wrong kind: an error of this program.
    #[error("a handshake step out of turn")]
    State,
}

impl From<snow::Error> for ChannelError {
    fn from(error: snow::Error) -> Self {
        match error {
            snow::Error::Decrypt | snow::Error::Dh => Self::Decrypt,
            snow::Error::Input => Self::Length,
            snow::Error::Rng => Self::Entropy,
            _ => Self::State,
        }
    }
}

#[cfg(test)]
mod vectors;
