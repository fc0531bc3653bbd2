//! What each command does, for permissions and for the log.

use super::authenticate;
use super::biometric::BiometricCommand;
use super::command::PivCommand;
use super::reference::PinReference;
use crate::card::deed::Deed;
use crate::traits::ApprovalPurpose;

impl PivCommand<'_> {
    /// What the command does; `None` if it changes nothing and uses no secret.
    pub(crate) fn deed(&self) -> Option<Deed> {
        Some(match self {
            Self::Verify { .. } => Deed::VerifyPin,
            Self::Biometric(Ok(BiometricCommand::Match { .. } | BiometricCommand::TemporaryPin(_))) => {
                Deed::VerifyOwner
            }
            Self::Change { reference: PinReference::Pin, .. } => Deed::ChangePin,
            Self::Change { reference: PinReference::Puk, .. } => Deed::ChangePuk,
            Self::ResetRetryCounter { .. } => Deed::UnblockPin,
            Self::ManagementWitness { .. } => Deed::AskForWitness,
            Self::ManagementResponse { .. } | Self::ManagementMutual { .. } => Deed::ProveManagementKey,
            Self::UseKey { slot, input, .. } => match authenticate::purpose(*slot, *input) {
                ApprovalPurpose::Decrypt => Deed::Decrypt(*slot),
                ApprovalPurpose::Agree => Deed::Agree(*slot),
                _ => Deed::Sign(*slot),
            },
            Self::SetManagementKey { .. } => Deed::SetManagementKey,
            Self::PutData { .. } => Deed::WriteObject,
            Self::Generate { slot, .. } => Deed::MakeKey(*slot),
            Self::MoveKey { from, .. } => Deed::MoveKey(*from),
            Self::DeleteKey { slot } => Deed::DeleteKey(*slot),
            Self::SetPinRetries { .. } => Deed::SetTries,
            Self::Reset => Deed::MakeNew,
            // A challenge is a random number, for which programs ask that will never prove anything.
            Self::GetData(_) | Self::VerifyStatus | Self::VerifyLogout | Self::ManagementChallenge { .. } => {
                return None;
            }
            Self::Biometric(_) | Self::GetVersion | Self::GetSerial | Self::GetMetadata(_) => return None,
        })
    }
}
