//! What the card asks its surroundings to do, and what comes back.

use std::fmt;

use pocketcard_protocol::apdu::StatusWord;
use zeroize::Zeroizing;

use super::piv::BIOMETRIC;
use crate::traits::{
    ApprovalDecision, ApprovalPurpose, ApprovalRequest, KeyAlgorithm, KeyHandle, KeyStoreError, OwnerCheck,
    OwnerDecision, PinAnswer, PinPurpose, PinRequest, PublicKeyData,
};

/// Names one effect. Never used twice by the same card, so that a late result cannot be taken for another one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationId(pub(crate) u64);

impl OperationId {
    /// The number behind the name, for logs.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// Work for the key store or a question to the owner. `Debug` prints lengths, never input.
pub enum Effect {
    /// Make a key. Answer with [`EffectResult::Generated`] once it is durable.
    Generate {
        /// Its algorithm.
        algorithm: KeyAlgorithm,
    },
    /// Sign; see [`KeyStore::sign`](crate::KeyStore::sign).
    Sign {
        /// The key.
        key: KeyHandle,
        /// Its algorithm.
        algorithm: KeyAlgorithm,
        /// A digest as long as the field, or a padded block as long as the modulus.
        input: Zeroizing<Vec<u8>>,
    },
    /// Decrypt; see [`KeyStore::decrypt`](crate::KeyStore::decrypt).
    Decrypt {
        /// The key.
        key: KeyHandle,
        /// Its algorithm.
        algorithm: KeyAlgorithm,
        /// As long as the modulus.
        input: Zeroizing<Vec<u8>>,
    },
    /// Agree on a secret; see [`KeyStore::agree`](crate::KeyStore::agree).
    Agree {
        /// The key.
        key: KeyHandle,
        /// Its algorithm.
        algorithm: KeyAlgorithm,
        /// The peer's point, `04 || X || Y`.
        peer_point: Vec<u8>,
    },
    /// Destroy a key that no state names any more. The card needs no answer.
    DeleteKey(KeyHandle),
    /// Ask the owner.
    Approve(ApprovalRequest),
    /// Let the owner enter a PIN or PUK.
    EnterPin(PinRequest),
    /// Check that it is the owner.
    VerifyOwner(OwnerCheck),
}

/// A question to the owner, and how a request is answered that gets no answer to it.
pub(crate) struct Question {
    /// Key or secret that it is about.
    pub(crate) key: u8,
    /// What exactly is to be approved; `None` where each question stands for itself.
    pub(crate) subject: Option<Subject>,
    /// The answer when nobody decides in time.
    pub(crate) unanswered: StatusWord,
    /// The answer when the host no longer wants one.
    pub(crate) cancelled: StatusWord,
}

/// One use of a key with one input: whoever decided about it has decided about its repetition, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) key: u8,
    pub(crate) purpose: ApprovalPurpose,
    pub(crate) input_digest: [u8; 32],
}

impl Effect {
    /// The question to the owner that this effect is; `None` for work of the key store.
    pub(crate) const fn question(&self) -> Option<Question> {
        let (key, unanswered, cancelled) = match self {
            Self::Approve(request) => (request.key, StatusWord::ConditionsNotSatisfied, StatusWord::NoDiagnosis),
            Self::VerifyOwner(_) => (BIOMETRIC, StatusWord::ConditionsNotSatisfied, StatusWord::NoDiagnosis),
            Self::EnterPin(request) => {
                let key = match request.purpose {
                    PinPurpose::Verify | PinPurpose::Change => 0x80,
                    PinPurpose::ChangePuk | PinPurpose::Unblock => 0x81,
                };
                (key, StatusWord::ExecutionError, StatusWord::EntryCancelled)
            }
            Self::Generate { .. }
            | Self::Sign { .. }
            | Self::Decrypt { .. }
            | Self::Agree { .. }
            | Self::DeleteKey(_) => return None,
        };
        let subject = match self {
            Self::Approve(ApprovalRequest { key, purpose, input_digest, .. })
                if matches!(purpose, ApprovalPurpose::Sign | ApprovalPurpose::Decrypt | ApprovalPurpose::Agree) =>
            {
                Some(Subject { key: *key, purpose: *purpose, input_digest: *input_digest })
            }
            _ => None,
        };
        Some(Question { key, subject, unanswered, cancelled })
    }
}

impl fmt::Debug for Effect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generate { algorithm } => write!(formatter, "Generate({algorithm:?})"),
            Self::Sign { algorithm, input, .. } => write!(formatter, "Sign({algorithm:?}, {} bytes)", input.len()),
            Self::Decrypt { algorithm, input, .. } => {
                write!(formatter, "Decrypt({algorithm:?}, {} bytes)", input.len())
            }
            Self::Agree { algorithm, .. } => write!(formatter, "Agree({algorithm:?})"),
            Self::DeleteKey(handle) => write!(formatter, "DeleteKey({handle:?})"),
            Self::Approve(request) => write!(formatter, "Approve({:02X}, {:?})", request.key, request.purpose),
            Self::EnterPin(request) => write!(formatter, "EnterPin({:?})", request.purpose),
            Self::VerifyOwner(_) => formatter.write_str("VerifyOwner"),
        }
    }
}

/// How an [`Effect`] ended. `Debug` prints lengths, never results.
pub enum EffectResult {
    /// A new key is durable in the key store.
    Generated {
        /// Its handle.
        handle: KeyHandle,
        /// Its public half.
        public: PublicKeyData,
    },
    /// A signature, a plain text or a shared secret.
    Bytes(Zeroizing<Vec<u8>>),
    /// The key is gone.
    Deleted,
    /// What the owner decided.
    Approval(ApprovalDecision),
    /// What the owner entered.
    Pin(PinAnswer),
    /// Whether it is the owner.
    Owner(OwnerDecision),
    /// The key store did not do it.
    Failed(KeyStoreError),
}

impl EffectResult {
    /// Whether the owner said no.
    pub(crate) const fn is_denial(&self) -> bool {
        matches!(
            self,
            Self::Approval(ApprovalDecision::Denied)
                | Self::Pin(PinAnswer::Cancelled)
                | Self::Owner(OwnerDecision::Cancelled)
        )
    }

    /// Whether the owner was there: this is an answer to a question, whichever.
    pub(crate) const fn is_answer(&self) -> bool {
        matches!(
            self,
            Self::Approval(ApprovalDecision::Approved | ApprovalDecision::Denied)
                | Self::Pin(PinAnswer::Entered(_) | PinAnswer::Cancelled)
                | Self::Owner(OwnerDecision::Matched | OwnerDecision::NotMatched | OwnerDecision::Cancelled)
        )
    }
}

impl fmt::Debug for EffectResult {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generated { handle, .. } => write!(formatter, "Generated({handle:?})"),
            Self::Bytes(bytes) => write!(formatter, "Bytes({} bytes)", bytes.len()),
            Self::Deleted => formatter.write_str("Deleted"),
            Self::Approval(decision) => write!(formatter, "Approval({decision:?})"),
            Self::Pin(answer) => write!(formatter, "Pin({answer:?})"),
            Self::Owner(decision) => write!(formatter, "Owner({decision:?})"),
            Self::Failed(error) => write!(formatter, "Failed({error:?})"),
        }
    }
}
