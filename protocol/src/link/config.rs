//! What the two ends of a link are given.

use std::fmt;
use std::sync::Arc;

use super::info::{Readiness, VersionRange};
use crate::channel::{PublicKey, StaticSecret};
use crate::entropy::Entropy;
use crate::pairing::{PairKeys, QrText};

/// What a host's links have in common.
#[derive(Clone)]
pub struct HostConfig {
    /// This host's identity.
    pub identity: Arc<StaticSecret>,
    /// This host's name, as a phone shows it.
    pub name: String,
    /// Name and version of this program.
    pub software: String,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The versions to speak; [`VersionRange::SUPPORTED`] but in a test.
    pub versions: VersionRange,
}

impl fmt::Debug for HostConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostConfig").field("name", &self.name).field("versions", &self.versions).finish_non_exhaustive()
    }
}

/// How a phone's link finds the pair of a host that connects.
pub type PairLookup = Arc<dyn Fn(&PublicKey) -> Option<PairKeys> + Send + Sync>;

/// What a phone's links have in common.
#[derive(Clone)]
pub struct PhoneConfig {
    /// This phone's identity.
    pub identity: Arc<StaticSecret>,
    /// This phone's name, as a host shows it.
    pub name: String,
    /// Name and version of this program.
    pub software: String,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The pairs. A host that is not found here gets the same answer as one with wrong keys.
    pub pairs: PairLookup,
    /// What the owner wants to pair with at the moment.
    pub pairing: PairingMode,
    /// The versions to speak; [`VersionRange::SUPPORTED`] but in a test.
    pub versions: VersionRange,
}

impl fmt::Debug for PhoneConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PhoneConfig")
            .field("name", &self.name)
            .field("versions", &self.versions)
            .field("pairing", &self.pairing)
            .finish_non_exhaustive()
    }
}

/// What the owner of a phone wants to pair with. A host that asks for another way is refused.
#[derive(Clone, Debug, Default)]
pub enum PairingMode {
    /// Nothing.
    #[default]
    Closed,
    /// The host whose code was scanned, until the code's lifetime has passed.
    Scanned(Arc<QrText>),
    /// Any host, by comparing digits.
    Compare,
}

impl PairingMode {
    pub(super) const fn readiness(&self) -> Readiness {
        match self {
            Self::Closed => Readiness { scanned: false, compare: false },
            Self::Scanned(_) => Readiness { scanned: true, compare: false },
            Self::Compare => Readiness { scanned: false, compare: true },
        }
    }
}

impl From<QrText> for PairingMode {
    fn from(qr: QrText) -> Self {
        Self::Scanned(Arc::new(qr))
    }
}
