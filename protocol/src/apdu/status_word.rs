//! The two bytes that end every response.

use core::fmt;

/// How a command ended: SW1 and SW2 as one value, total over all 65,536 of them.
///
/// Names are those of ISO/IEC 7816-4, or of SP 800-73-4 or PC/SC part 10 where they say something more exact. Every number maps to
/// exactly one value of [`From<u16>`] and back to itself, so relaying a status word never changes it.
///
/// Spec: ISO/IEC 7816-4 section 5.6; SP 800-73-4 part 1, section 5.6; PC/SC part 10, section 2.5
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StatusWord {
    /// `90 00`
    Success,
    /// `61 XX`: this many bytes wait for GET RESPONSE; 0 says 256 or more.
    BytesAvailable(u8),
    /// `62 00`: a warning, nothing changed.
    WarningUnchanged,
    /// `62 81`: part of the returned data may be corrupted.
    DataMayBeCorrupted,
    /// `62 82`: the end of the object came before Le bytes were read.
    EndOfData,
    /// `62 83`: the selected file is deactivated.
    SelectedFileDeactivated,
    /// `63 00`: a warning, the state has changed; without a counter, a failed verification.
    VerificationFailed,
    /// `63 CX`: wrong reference data, with this many tries left (0 to 15).
    RemainingTries(u8),
    /// `64 00`: the execution failed, nothing changed.
    ExecutionError,
    /// `64 01`: whoever was to enter a PIN cancelled.
    EntryCancelled,
    /// `64 02`: the new PIN was entered in two ways.
    EntriesDiffer,
    /// `64 03`: what was entered has not the form of a PIN.
    EntryMalformed,
    /// `65 00`: the execution failed, the state has changed.
    ExecutionErrorChanged,
    /// `65 81`: the memory failed.
    MemoryFailure,
    /// `66 00`: an error that concerns security.
    SecurityIssue,
    /// `67 00`: the length fields are wrong.
    WrongLength,
    /// `68 00`: a function of the class byte is not supported.
    ClassFunctionNotSupported,
    /// `68 81`: the logical channel is not supported.
    LogicalChannelNotSupported,
    /// `68 82`: secure messaging is not supported.
    SecureMessagingNotSupported,
    /// `68 83`: the last command of the chain was expected.
    LastCommandOfChainExpected,
    /// `68 84`: command chaining is not supported.
    ChainingNotSupported,
    /// `69 00`: the command is not allowed.
    CommandNotAllowed,
    /// `69 81`: the command does not fit the structure of the file.
    IncompatibleFileStructure,
    /// `69 82`: what the access rule asks for (a PIN, a key) was not shown.
    SecurityStatusNotSatisfied,
    /// `69 83`: the PIN, the PUK or the key has no tries left.
    AuthenticationMethodBlocked,
    /// `69 84`: the reference data cannot be used.
    ReferenceDataNotUsable,
    /// `69 85`: the conditions of use are not satisfied; nobody approved, or no response waits.
    ConditionsNotSatisfied,
    /// `69 86`: no file is selected.
    NoCurrentFile,
    /// `69 87`: secure messaging objects are missing.
    SecureMessagingObjectsMissing,
    /// `69 88`: secure messaging objects are wrong.
    SecureMessagingObjectsWrong,
    /// `6A 80`: the data field is wrong.
    WrongData,
    /// `6A 81`: the function is not supported.
    FunctionNotSupported,
    /// `6A 82`: no such object, file or application.
    NotFound,
    /// `6A 83`: no such record.
    RecordNotFound,
    /// `6A 84`: not enough memory.
    NotEnoughMemory,
    /// `6A 85`: the length contradicts the structure of the data.
    LengthContradictsData,
    /// `6A 86`: P1 or P2 is wrong.
    WrongParameters,
    /// `6A 87`: the length contradicts P1 and P2.
    LengthContradictsParameters,
    /// `6A 88`: no such reference data: key or PIN.
    ReferenceNotFound,
    /// `6A 89`: the file exists already.
    FileExists,
    /// `6B 00`: P1 and P2 are wrong, or an offset is outside of the object.
    WrongOffset,
    /// `6C XX`: the same command with this Le succeeds; 0 says 256.
    WrongLe(u8),
    /// `6D 00`: no such instruction.
    InstructionNotSupported,
    /// `6E 00`: no such class.
    ClassNotSupported,
    /// `6F 00`: no precise diagnosis.
    NoDiagnosis,
    /// Any other value.
    Unknown(u16),
}

/// Every status word without a parameter, with its value.
const NAMED: [(StatusWord, u16); 42] = [
    (StatusWord::Success, 0x9000),
    (StatusWord::WarningUnchanged, 0x6200),
    (StatusWord::DataMayBeCorrupted, 0x6281),
    (StatusWord::EndOfData, 0x6282),
    (StatusWord::SelectedFileDeactivated, 0x6283),
    (StatusWord::VerificationFailed, 0x6300),
    (StatusWord::ExecutionError, 0x6400),
    (StatusWord::EntryCancelled, 0x6401),
    (StatusWord::EntriesDiffer, 0x6402),
    (StatusWord::EntryMalformed, 0x6403),
    (StatusWord::ExecutionErrorChanged, 0x6500),
    (StatusWord::MemoryFailure, 0x6581),
    (StatusWord::SecurityIssue, 0x6600),
    (StatusWord::WrongLength, 0x6700),
    (StatusWord::ClassFunctionNotSupported, 0x6800),
    (StatusWord::LogicalChannelNotSupported, 0x6881),
    (StatusWord::SecureMessagingNotSupported, 0x6882),
    (StatusWord::LastCommandOfChainExpected, 0x6883),
    (StatusWord::ChainingNotSupported, 0x6884),
    (StatusWord::CommandNotAllowed, 0x6900),
    (StatusWord::IncompatibleFileStructure, 0x6981),
    (StatusWord::SecurityStatusNotSatisfied, 0x6982),
    (StatusWord::AuthenticationMethodBlocked, 0x6983),
    (StatusWord::ReferenceDataNotUsable, 0x6984),
    (StatusWord::ConditionsNotSatisfied, 0x6985),
    (StatusWord::NoCurrentFile, 0x6986),
    (StatusWord::SecureMessagingObjectsMissing, 0x6987),
    (StatusWord::SecureMessagingObjectsWrong, 0x6988),
    (StatusWord::WrongData, 0x6A80),
    (StatusWord::FunctionNotSupported, 0x6A81),
    (StatusWord::NotFound, 0x6A82),
    (StatusWord::RecordNotFound, 0x6A83),
    (StatusWord::NotEnoughMemory, 0x6A84),
    (StatusWord::LengthContradictsData, 0x6A85),
    (StatusWord::WrongParameters, 0x6A86),
    (StatusWord::LengthContradictsParameters, 0x6A87),
    (StatusWord::ReferenceNotFound, 0x6A88),
    (StatusWord::FileExists, 0x6A89),
    (StatusWord::WrongOffset, 0x6B00),
    (StatusWord::InstructionNotSupported, 0x6D00),
    (StatusWord::ClassNotSupported, 0x6E00),
    (StatusWord::NoDiagnosis, 0x6F00),
];

impl StatusWord {
    /// `61 XX` for `waiting` bytes that were not returned yet.
    pub fn bytes_available(waiting: usize) -> Self {
        Self::BytesAvailable(u8::try_from(waiting).unwrap_or(0))
    }

    /// Whether this is `90 00`.
    pub fn is_success(self) -> bool {
        self == Self::Success
    }

    /// SW1 and SW2 as they are sent.
    pub fn to_bytes(self) -> [u8; 2] {
        u16::from(self).to_be_bytes()
    }
}

impl From<u16> for StatusWord {
    fn from(value: u16) -> Self {
        let [sw1, sw2] = value.to_be_bytes();
        match (sw1, sw2) {
            (0x61, _) => Self::BytesAvailable(sw2),
            (0x63, 0xC0..=0xCF) => Self::RemainingTries(sw2 & 0x0F),
            (0x6C, _) => Self::WrongLe(sw2),
            _ => NAMED.iter().find(|(_, named)| *named == value).map_or(Self::Unknown(value), |(status, _)| *status),
        }
    }
}

impl From<StatusWord> for u16 {
    /// More than 15 remaining tries are sent as 15, the most that the word can say.
    fn from(status: StatusWord) -> Self {
        match status {
            StatusWord::BytesAvailable(waiting) => 0x6100 | u16::from(waiting),
            StatusWord::RemainingTries(tries) => 0x63C0 | u16::from(tries.min(0x0F)),
            StatusWord::WrongLe(le) => 0x6C00 | u16::from(le),
            StatusWord::Unknown(value) => value,
            // Every other variant stands in the table; a test goes through all of them.
            named => NAMED.iter().find(|(status, _)| *status == named).map_or(0x6F00, |(_, value)| *value),
        }
    }
}

impl fmt::Display for StatusWord {
    /// Four hexadecimal digits, as every card tool prints them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04X}", u16::from(*self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_comes_back_as_itself() {
        for value in 0..=u16::MAX {
            let status = StatusWord::from(value);
            assert_eq!(u16::from(status), value);
            assert_eq!(StatusWord::from(u16::from(status)), status);
            assert_eq!(status.to_bytes(), value.to_be_bytes());
        }
    }

    #[test]
    fn every_name_has_one_value() {
        let mut values: Vec<_> = NAMED.iter().map(|(_, value)| *value).collect();
        values.sort_unstable();
        values.dedup();
        assert_eq!(values.len(), NAMED.len());
        for (status, value) in NAMED {
            assert_eq!((StatusWord::from(value), u16::from(status)), (status, value));
            // `NoDiagnosis` is also what a variant without a row would become: no other may.
            assert_eq!(value == 0x6F00, status == StatusWord::NoDiagnosis);
        }
    }

    #[test]
    fn agrees_with_iso7816() {
        use iso7816::Status;
        let rows = [
            (Status::Success, StatusWord::Success),
            (Status::MoreAvailable(5), StatusWord::BytesAvailable(5)),
            (Status::VerificationFailed, StatusWord::VerificationFailed),
            (Status::RemainingRetries(3), StatusWord::RemainingTries(3)),
            (Status::UnspecifiedNonpersistentExecutionError, StatusWord::ExecutionError),
            (Status::MemoryFailure, StatusWord::MemoryFailure),
            (Status::WrongLength, StatusWord::WrongLength),
            (Status::LogicalChannelNotSupported, StatusWord::LogicalChannelNotSupported),
            (Status::SecureMessagingNotSupported, StatusWord::SecureMessagingNotSupported),
            (Status::LastCommandOfChainExpected, StatusWord::LastCommandOfChainExpected),
            (Status::CommandChainingNotSupported, StatusWord::ChainingNotSupported),
            (Status::SecurityStatusNotSatisfied, StatusWord::SecurityStatusNotSatisfied),
            (Status::OperationBlocked, StatusWord::AuthenticationMethodBlocked),
            (Status::ConditionsOfUseNotSatisfied, StatusWord::ConditionsNotSatisfied),
            (Status::IncorrectDataParameter, StatusWord::WrongData),
            (Status::FunctionNotSupported, StatusWord::FunctionNotSupported),
            (Status::NotFound, StatusWord::NotFound),
            (Status::NotEnoughMemory, StatusWord::NotEnoughMemory),
            (Status::IncorrectP1OrP2Parameter, StatusWord::WrongParameters),
            (Status::KeyReferenceNotFound, StatusWord::ReferenceNotFound),
            (Status::WrongParameters, StatusWord::WrongOffset),
            (Status::WrongLeField(7), StatusWord::WrongLe(7)),
            (Status::InstructionNotSupportedOrInvalid, StatusWord::InstructionNotSupported),
            (Status::ClassNotSupported, StatusWord::ClassNotSupported),
            (Status::UnspecifiedCheckingError, StatusWord::NoDiagnosis),
        ];
        for (oracle, ours) in rows {
            assert_eq!(u16::from(oracle), u16::from(ours), "{ours:?}");
        }
    }

    #[test]
    fn limits_of_the_parameters() {
        assert_eq!(u16::from(StatusWord::RemainingTries(16)), 0x63CF);
        assert_eq!(StatusWord::bytes_available(255), StatusWord::BytesAvailable(255));
        assert_eq!(StatusWord::bytes_available(256), StatusWord::BytesAvailable(0));
        assert_eq!(StatusWord::from(0x63B0), StatusWord::Unknown(0x63B0));
        assert_eq!(StatusWord::RemainingTries(2).to_string(), "63C2");
    }
}
