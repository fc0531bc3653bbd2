use std::sync::Arc;

use async_trait::async_trait;
use pocketcard_phone as core;
use zeroize::Zeroizing;

/// What the owner is asked to approve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum ApprovalPurpose {
    /// A signature, or an authentication by one.
    Sign,
    /// A decryption.
    Decrypt,
    /// A key agreement.
    Agree,
    /// Management of the card: writing objects, making and deleting keys, or making the whole card new.
    Administer,
    /// To have the card in the computer's reader, as long as it stays connected. `key` is 0.
    Connect,
    /// Something that this version of the app cannot name; better denied.
    Other,
}

/// A question to the owner. Nothing in it but the host's name comes from the computer.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct ApprovalRequest {
    /// The host that asks.
    pub host_id: String,
    /// Its name as stored when it was paired.
    pub host_name: String,
    /// The key reference that would be used, such as `0x9A`.
    pub key: u8,
    /// What for.
    pub purpose: ApprovalPurpose,
    /// SHA-256 of the input of the operation.
    pub input_digest: Vec<u8>,
}

/// The owner's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum ApprovalDecision {
    /// Do it, this once.
    Approved,
    /// Do not.
    Denied,
    /// Nobody answered, or the question could not be shown.
    Unanswered,
}

/// What a secret is entered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum PinPurpose {
    /// The PIN.
    Verify,
    /// The PIN, and a new one twice.
    Change,
    /// The PUK, and a new one twice.
    ChangePuk,
    /// The PUK, and a new PIN twice.
    Unblock,
    /// Something that this version of the app cannot name; better cancelled.
    Other,
}

/// Asks the owner to enter a secret. Nothing in it but the host's name comes from the computer.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct PinRequest {
    /// The host that asks.
    pub host_id: String,
    /// Its name as stored when it was paired.
    pub host_name: String,
    /// What for.
    pub purpose: PinPurpose,
    /// Tries left of the secret that is asked first.
    pub tries_left: u8,
}

/// How the entry ended. Has no `Debug`, so that no log can hold it.
#[derive(uniffi::Enum)]
pub enum PinAnswer {
    /// The owner entered it.
    Entered {
        /// The PIN or PUK of now.
        current: String,
        /// The new one, where the purpose asks for one.
        new: Option<NewPin>,
    },
    /// The owner does not want to.
    Cancelled,
    /// Nobody answered, or the prompt could not be shown.
    Unanswered,
}

/// A new PIN or PUK, entered twice. Has no `Debug`.
#[derive(uniffi::Record)]
pub struct NewPin {
    /// As entered first.
    pub value: String,
    /// As entered again.
    pub repeated: String,
}

/// Asks whether the person at the phone is its owner.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct OwnerCheck {
    /// The host that asks.
    pub host_id: String,
    /// Its name as stored when it was paired.
    pub host_name: String,
}

/// How an [`OwnerCheck`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum OwnerDecision {
    /// It is the owner.
    Matched,
    /// It is somebody else, or the sensor was not sure.
    NotMatched,
    /// The owner does not want to.
    Cancelled,
    /// Nobody answered, or the platform cannot check now.
    Unavailable,
}

/// The question could not be asked; counts as one that nobody answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, uniffi::Error)]
pub enum ApproverError {
    /// It could not.
    #[error("the owner could not be asked")]
    Failed,
}

impl From<uniffi::UnexpectedUniFFICallbackError> for ApproverError {
    fn from(_: uniffi::UnexpectedUniFFICallbackError) -> Self {
        Self::Failed
    }
}

/// Asks the owner.
#[uniffi::export(rust, foreign)]
#[async_trait]
pub trait Approver: Send + Sync {
    /// Shows `request` until the owner decides. When the call is cancelled, the question must go away.
    async fn approve(&self, request: ApprovalRequest) -> Result<ApprovalDecision, ApproverError>;

    /// Lets the owner enter a PIN or PUK. When the call is cancelled, the prompt must go away.
    async fn enter_pin(&self, request: PinRequest) -> Result<PinAnswer, ApproverError>;

    /// Whether the platform can check who its owner is. Asked once, when the phone starts.
    fn has_owner_verification(&self) -> Result<bool, ApproverError>;

    /// Checks that the person at the phone is its owner. When the call is cancelled, the question must go away.
    async fn verify_owner(&self, check: OwnerCheck) -> Result<OwnerDecision, ApproverError>;
}

pub(crate) struct ForeignApprover(pub(crate) Arc<dyn Approver>);

#[async_trait]
impl core::Approver for ForeignApprover {
    async fn approve(&self, request: core::ApprovalRequest) -> core::ApprovalDecision {
        match self.0.approve(request.into()).await {
            Ok(ApprovalDecision::Approved) => core::ApprovalDecision::Approved,
            Ok(ApprovalDecision::Denied) => core::ApprovalDecision::Denied,
            Ok(ApprovalDecision::Unanswered) | Err(ApproverError::Failed) => core::ApprovalDecision::Unanswered,
        }
    }

    async fn enter_pin(&self, request: core::PinRequest) -> core::PinAnswer {
        match self.0.enter_pin(request.into()).await {
            Ok(PinAnswer::Entered { current, new }) => core::PinAnswer::Entered(core::EnteredPin {
                current: Zeroizing::new(current),
                new: new.map(|NewPin { value, repeated }| core::NewPin {
                    value: Zeroizing::new(value),
                    repeated: Zeroizing::new(repeated),
                }),
            }),
            Ok(PinAnswer::Cancelled) => core::PinAnswer::Cancelled,
            Ok(PinAnswer::Unanswered) | Err(ApproverError::Failed) => core::PinAnswer::Unanswered,
        }
    }

    fn has_owner_verification(&self) -> bool {
        self.0.has_owner_verification().unwrap_or(false)
    }

    async fn verify_owner(&self, check: core::OwnerCheck) -> core::OwnerDecision {
        let check = OwnerCheck { host_id: check.host.to_string(), host_name: check.host_name };
        match self.0.verify_owner(check).await {
            Ok(OwnerDecision::Matched) => core::OwnerDecision::Matched,
            Ok(OwnerDecision::NotMatched) => core::OwnerDecision::NotMatched,
            Ok(OwnerDecision::Cancelled) => core::OwnerDecision::Cancelled,
            Ok(OwnerDecision::Unavailable) | Err(ApproverError::Failed) => core::OwnerDecision::Unavailable,
        }
    }
}

impl From<core::PinRequest> for PinRequest {
    fn from(request: core::PinRequest) -> Self {
        Self {
            host_id: request.host.to_string(),
            host_name: request.host_name,
            purpose: match request.purpose {
                core::PinPurpose::Verify => PinPurpose::Verify,
                core::PinPurpose::Change => PinPurpose::Change,
                core::PinPurpose::ChangePuk => PinPurpose::ChangePuk,
                core::PinPurpose::Unblock => PinPurpose::Unblock,
                _ => PinPurpose::Other,
            },
            tries_left: request.tries_left,
        }
    }
}

impl From<core::ApprovalRequest> for ApprovalRequest {
    fn from(request: core::ApprovalRequest) -> Self {
        Self {
            host_id: request.host.to_string(),
            host_name: request.host_name,
            key: request.key,
            purpose: match request.purpose {
                core::ApprovalPurpose::Sign => ApprovalPurpose::Sign,
                core::ApprovalPurpose::Decrypt => ApprovalPurpose::Decrypt,
                core::ApprovalPurpose::Agree => ApprovalPurpose::Agree,
                core::ApprovalPurpose::Administer => ApprovalPurpose::Administer,
                core::ApprovalPurpose::Connect => ApprovalPurpose::Connect,
                _ => ApprovalPurpose::Other,
            },
            input_digest: request.input_digest.to_vec(),
        }
    }
}
