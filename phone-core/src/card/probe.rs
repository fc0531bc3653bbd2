//! Places at which a test may stop the phone.

/// A point that the card passes while it works on a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ProbePoint {
    /// A VERIFY with a PIN has arrived; nothing has happened yet.
    VerifyReceived,
    /// A try is about to be taken from the stored counter.
    VerifyBeforeCommit,
    /// The counter without that try is durable; nothing has been compared yet.
    VerifyAfterCommit,
    /// PIN and reference have been compared.
    VerifyCompared,
    /// VERIFY is done; its answer has not left.
    VerifyBeforeAnswer,
    /// A private-key operation has arrived.
    SignReceived,
    /// The key store is about to be asked for it.
    SignStarted,
    /// The key store is done; the answer has not left.
    SignBeforeAnswer,
    /// A key generation has arrived and is allowed.
    GenerateReceived,
    /// The key store has a new key; no state names it yet.
    GenerateBeforeCommit,
    /// The state that names the new key is durable.
    GenerateAfterCommit,
    /// The generation is done; its answer has not left.
    GenerateBeforeAnswer,
}

impl ProbePoint {
    /// Every point, in the order in which commands pass them.
    pub const ALL: [Self; 12] = [
        Self::VerifyReceived,
        Self::VerifyBeforeCommit,
        Self::VerifyAfterCommit,
        Self::VerifyCompared,
        Self::VerifyBeforeAnswer,
        Self::SignReceived,
        Self::SignStarted,
        Self::SignBeforeAnswer,
        Self::GenerateReceived,
        Self::GenerateBeforeCommit,
        Self::GenerateAfterCommit,
        Self::GenerateBeforeAnswer,
    ];

    /// The name on a command line: `verify-before-commit`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VerifyReceived => "verify-received",
            Self::VerifyBeforeCommit => "verify-before-commit",
            Self::VerifyAfterCommit => "verify-after-commit",
            Self::VerifyCompared => "verify-compared",
            Self::VerifyBeforeAnswer => "verify-before-answer",
            Self::SignReceived => "sign-received",
            Self::SignStarted => "sign-started",
            Self::SignBeforeAnswer => "sign-before-answer",
            Self::GenerateReceived => "generate-received",
            Self::GenerateBeforeCommit => "generate-before-commit",
            Self::GenerateAfterCommit => "generate-after-commit",
            Self::GenerateBeforeAnswer => "generate-before-answer",
        }
    }

    /// The point with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|point| point.name() == name)
    }
}

/// Told whenever the card passes a [`ProbePoint`], before it goes on. The default does nothing.
pub trait Probe: Send + Sync {
    /// The card is at `point`. A test may end the process here.
    fn reached(&self, point: ProbePoint) {
        let _ = point;
    }
}

/// The probe of a phone that nobody tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProbe;

impl Probe for NoProbe {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_points() {
        for point in ProbePoint::ALL {
            assert_eq!(ProbePoint::from_name(point.name()), Some(point));
        }
        assert_eq!(ProbePoint::from_name("nowhere"), None);
    }
}
