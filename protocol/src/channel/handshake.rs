//! The Noise handshakes of Pocketcard.

use std::fmt;
use std::sync::Arc;

use snow::params::NoiseParams;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::resolver::Resolver;
use super::{ChannelError, Psk, PublicKey, StaticSecret, Transport};
use crate::entropy::Entropy;
use crate::time::Timestamp;

/// Longest Noise message of a handshake; the longest that occurs is 96 bytes.
///
/// Spec: SPEC.md section 10
pub const HANDSHAKE_MESSAGE_LIMIT: usize = 256;

/// Which of the three handshakes of suite 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// `IKpsk2`: a paired host connects.
    Connect,
    /// `XXpsk3`: pairing, the phone has scanned the host's QR code.
    PairScanned,
    /// `XX`: pairing without a camera.
    PairCompared,
}

impl Pattern {
    /// The protocol name of Noise revision 34.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "Noise_IKpsk2_25519_AESGCM_SHA256",
            Self::PairScanned => "Noise_XXpsk3_25519_AESGCM_SHA256",
            Self::PairCompared => "Noise_XX_25519_AESGCM_SHA256",
        }
    }

    const fn psk_position(self) -> Option<u8> {
        match self {
            Self::Connect => Some(2),
            Self::PairScanned => Some(3),
            Self::PairCompared => None,
        }
    }
}

/// SHA-256 over all of a finished handshake. Public to an eavesdropper who knows no key: never key material by itself.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct HandshakeHash([u8; 32]);

impl HandshakeHash {
    /// The hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for HandshakeHash {
    fn from(hash: [u8; 32]) -> Self {
        Self(hash)
    }
}

impl fmt::Debug for HandshakeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandshakeHash(<32 bytes>)")
    }
}

/// A handshake in progress. Messages carry no payload in either direction.
///
/// `snow` does not wipe its own copy of the chaining key. Its copy of the pre-shared key is overwritten when the handshake
/// ends, however it does; what it keeps in the primitives of this crate is wiped.
///
/// Spec: SPEC.md section 6.2
pub struct Handshake {
    /// `None` only while [`Handshake::finish`] takes it out.
    noise: Option<Box<snow::HandshakeState>>,
    pattern: Pattern,
}

impl Handshake {
    /// The host's side. `remote` must be given for [`Pattern::Connect`], `psk` for the patterns that have one.
    ///
    /// # Errors
    /// [`ChannelError::State`] if a key is missing.
    pub fn initiator(
        pattern: Pattern,
        prologue: &[u8],
        local: &StaticSecret,
        remote: Option<&PublicKey>,
        psk: Option<&Psk>,
        entropy: &Arc<dyn Entropy>,
    ) -> Result<Self, ChannelError> {
        if psk.is_some() != pattern.psk_position().is_some() {
            return Err(ChannelError::State);
        }
        Self::build(pattern, prologue, local, remote, psk, entropy, true)
    }

    /// The phone's side. For [`Pattern::Connect`] the key follows by [`Handshake::set_psk`], once message 1 has said
    /// who connects.
    ///
    /// # Errors
    /// [`ChannelError::State`] if a key is missing.
    pub fn responder(
        pattern: Pattern,
        prologue: &[u8],
        local: &StaticSecret,
        psk: Option<&Psk>,
        entropy: &Arc<dyn Entropy>,
    ) -> Result<Self, ChannelError> {
        Self::build(pattern, prologue, local, None, psk, entropy, false)
    }

    fn build(
        pattern: Pattern,
        prologue: &[u8],
        local: &StaticSecret,
        remote: Option<&PublicKey>,
        psk: Option<&Psk>,
        entropy: &Arc<dyn Entropy>,
        initiator: bool,
    ) -> Result<Self, ChannelError> {
        let parameters: NoiseParams = pattern.name().parse()?;
        let secret = local.to_bytes();
        let mut builder = snow::Builder::with_resolver(parameters, Box::new(Resolver(Arc::clone(entropy))))
            .prologue(prologue)?
            .local_private_key(secret.as_slice())?;
        if let Some(remote) = remote {
            builder = builder.remote_public_key(remote.as_bytes())?;
        }
        if let (Some(position), Some(psk)) = (pattern.psk_position(), psk) {
            builder = builder.psk(position, psk.as_bytes())?;
        }
        let noise = if initiator { builder.build_initiator()? } else { builder.build_responder()? };
        Ok(Self { noise: Some(Box::new(noise)), pattern })
    }

    /// Sets the key of the pair, after message 1 of [`Pattern::Connect`] has been read.
    ///
    /// # Errors
    /// [`ChannelError::State`] if the pattern has none.
    pub fn set_psk(&mut self, psk: &Psk) -> Result<(), ChannelError> {
        let position = self.pattern.psk_position().ok_or(ChannelError::State)?;
        Ok(self.noise()?.set_psk(usize::from(position), psk.as_bytes())?)
    }

    /// Appends the next handshake message to `out`.
    ///
    /// # Errors
    /// [`ChannelError`] if it is the peer's turn, a key is missing, a Diffie-Hellman result is zero or the random
    /// source failed.
    pub fn write(&mut self, out: &mut Vec<u8>) -> Result<(), ChannelError> {
        let mut message = [0; HANDSHAKE_MESSAGE_LIMIT];
        let length = self.noise()?.write_message(&[], &mut message)?;
        out.extend_from_slice(message.get(..length).ok_or(ChannelError::Length)?);
        Ok(())
    }

    /// Reads the peer's next handshake message.
    ///
    /// # Errors
    /// [`ChannelError::Decrypt`] if it was tampered with or made with other keys, [`ChannelError::Length`] if it is
    /// too short, too long or carries a payload.
    pub fn read(&mut self, message: &[u8]) -> Result<(), ChannelError> {
        if message.len() > HANDSHAKE_MESSAGE_LIMIT {
            return Err(ChannelError::Length);
        }
        let mut payload = Zeroizing::new([0; HANDSHAKE_MESSAGE_LIMIT]);
        match self.noise()?.read_message(message, payload.as_mut_slice())? {
            0 => Ok(()),
            _ => Err(ChannelError::Length),
        }
    }

    /// The peer's static key, once a message has carried it.
    #[must_use]
    pub fn remote(&self) -> Option<PublicKey> {
        self.noise.as_ref()?.get_remote_static().and_then(|key| PublicKey::try_from(key).ok())
    }

    /// Whether all messages have been exchanged.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.noise.as_ref().is_some_and(|noise| noise.is_handshake_finished())
    }

    /// Turns a finished handshake into its transport.
    ///
    /// # Errors
    /// [`ChannelError::State`] if it has not finished.
    pub fn finish(mut self, now: Timestamp) -> Result<(Transport, HandshakeHash), ChannelError> {
        self.forget_psk();
        let noise = self.noise.take().ok_or(ChannelError::State)?;
        let hash = *noise.get_handshake_hash().first_chunk::<32>().ok_or(ChannelError::State)?;
        Ok((Transport::new(noise.into_transport_mode()?, now), HandshakeHash(hash)))
    }

    fn noise(&mut self) -> Result<&mut snow::HandshakeState, ChannelError> {
        self.noise.as_deref_mut().ok_or(ChannelError::State)
    }

    fn forget_psk(&mut self) {
        if let (Some(noise), Some(position)) = (&mut self.noise, self.pattern.psk_position()) {
            // A position of the pattern's own is never refused.
            let _ = noise.set_psk(position.into(), &[0; 32]);
        }
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.forget_psk();
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").field("pattern", &self.pattern).finish_non_exhaustive()
    }
}
