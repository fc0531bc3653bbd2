use std::sync::Arc;

use async_trait::async_trait;
use pocketcard_phone as core;

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

/// The question could not be asked; counts as [`ApprovalDecision::Unanswered`].
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
                _ => ApprovalPurpose::Other,
            },
            input_digest: request.input_digest.to_vec(),
        }
    }
}
