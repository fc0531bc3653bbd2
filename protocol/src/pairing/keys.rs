//! What a pair shares.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::channel::{ChannelError, HandshakeHash, Psk, PublicKey, expand};

/// First byte of a stored pair.
const FORMAT: u8 = 1;
const LENGTH: usize = 1 + 32 + 32 + 32;

const SESSION_LABEL: &[u8] = b"pocketcard v1 session psk";
const ADVERTISING_LABEL: &[u8] = b"pocketcard v1 advertising key";

/// The peer and the secrets that one side keeps about a pair. Wiped on drop.
///
/// Deleting it is all it takes to revoke the peer: no handshake succeeds without the session key.
///
/// Spec: SPEC.md section 8.6
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct PairKeys {
    /// The other side's identity.
    #[zeroize(skip)]
    pub peer: PublicKey,
    session: Psk,
    advertising: [u8; 32],
}

impl PairKeys {
    /// Derives the secrets of a pair from the two fresh secrets, and from the QR code's if one was scanned.
    ///
    /// # Errors
    /// None that can occur; see [`ChannelError::State`].
    pub(crate) fn derive(
        peer: PublicKey,
        hash: &HandshakeHash,
        host_secret: &[u8; 32],
        phone_secret: &[u8; 32],
        qr_secret: Option<&Psk>,
    ) -> Result<Self, ChannelError> {
        let scanned: &[u8] = qr_secret.map_or(&[], |secret| secret.as_bytes());
        let [session, advertising] =
            expand(hash.as_bytes(), &[host_secret, phone_secret, scanned], [SESSION_LABEL, ADVERTISING_LABEL])?;
        Ok(Self { peer, session: Psk::from_bytes(&session), advertising: *advertising })
    }

    /// The pre-shared key of every connection of this pair.
    #[must_use]
    pub const fn session_psk(&self) -> &Psk {
        &self.session
    }

    /// The key from which the phone's changing radio address tags are derived.
    #[must_use]
    pub const fn advertising_key(&self) -> &[u8; 32] {
        &self.advertising
    }

    /// The pair for a store. The store must keep it as secret as a private key.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(LENGTH));
        bytes.push(FORMAT);
        bytes.extend_from_slice(self.peer.as_bytes());
        bytes.extend_from_slice(self.session.as_bytes());
        bytes.extend_from_slice(&self.advertising);
        bytes
    }

    /// Reads what [`PairKeys::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`PairKeysError`] if the bytes are of another format or cut.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PairKeysError> {
        let (&format, rest) = bytes.split_first().ok_or(PairKeysError::Length)?;
        if format != FORMAT {
            return Err(PairKeysError::Format(format));
        }
        let (peer, rest) = rest.split_first_chunk::<32>().ok_or(PairKeysError::Length)?;
        let (session, rest) = rest.split_first_chunk::<32>().ok_or(PairKeysError::Length)?;
        let advertising: &[u8; 32] = rest.try_into().map_err(|_| PairKeysError::Length)?;
        Ok(Self { peer: PublicKey::from(*peer), session: Psk::from_bytes(session), advertising: *advertising })
    }

    /// A second copy in memory.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self { peer: self.peer, session: self.session.duplicate(), advertising: self.advertising }
    }
}

impl fmt::Debug for PairKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairKeys").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Why bytes are not a stored pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PairKeysError {
    /// A format that this program does not know: stored by a newer one.
    #[error("a pair stored in the unknown format {0}")]
    Format(u8),
    /// Too short or too long.
    #[error("a stored pair of the wrong length")]
    Length,
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    fn keys(qr: Option<&Psk>) -> PairKeys {
        PairKeys::derive(PublicKey::from([9; 32]), &HandshakeHash::from([1; 32]), &[2; 32], &[3; 32], qr)
            .expect("one block each")
    }

    #[test]
    fn keys_are_what_the_specification_says() {
        // Computed apart from this program, by HMAC of Python's standard library.
        assert_eq!(
            keys(None).session_psk().as_bytes(),
            &hex!("3b1ab175089b5c0aad2a8cf9c38aa4db2b6986ad75c2e0d7d6187f59632a83ad")
        );
        assert_eq!(
            keys(None).advertising_key(),
            &hex!("fdb4eedb4ef7d9a7fe35d42baaa2a7ac391e0845e06b44e420f4bdf1f4e28725")
        );
        let scanned = keys(Some(&Psk::from_bytes(&[4; 32])));
        assert_eq!(
            scanned.session_psk().as_bytes(),
            &hex!("676e920509e91fe9a4f26940bad31ba86126c9adb5acbfa3dd49c3cb6e2313e5")
        );
        assert_eq!(
            scanned.advertising_key(),
            &hex!("0f6ae6f5adca74fe556e22a4cfb2697c81deef7bc9749ca2742d3ed48f38f0b6")
        );
    }

    #[test]
    fn a_pair_survives_its_store() {
        let pair = keys(None);
        let stored = pair.to_bytes();
        let read = PairKeys::from_bytes(&stored).expect("just written");
        assert_eq!(read.peer, pair.peer);
        assert_eq!(read.to_bytes(), stored);
        assert_eq!(pair.duplicate().to_bytes(), stored);
    }

    #[test]
    fn other_bytes_are_refused() {
        let stored = keys(None).to_bytes();
        for length in 0..stored.len() {
            assert_eq!(PairKeys::from_bytes(&stored[..length]).err(), Some(PairKeysError::Length));
        }
        assert_eq!(PairKeys::from_bytes(&[stored.as_slice(), &[0]].concat()).err(), Some(PairKeysError::Length));
        let mut newer = stored.to_vec();
        newer[0] = 2;
        assert_eq!(PairKeys::from_bytes(&newer).err(), Some(PairKeysError::Format(2)));
    }

    #[test]
    fn nothing_secret_is_printed() {
        assert_eq!(format!("{:?}", keys(None)), "PairKeys { peer: PublicKey(09090909..), .. }");
    }
}
