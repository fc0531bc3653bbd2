use pocketcard_phone::{StoreError, runtime};

/// Why the phone did not do what its owner asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, uniffi::Error)]
pub enum PhoneError {
    /// The phone has stopped.
    #[error("the phone has stopped")]
    Stopped,
    /// There is no such host.
    #[error("no host with this name is paired")]
    UnknownHost,
    /// The change could not be stored.
    #[error("the change could not be stored")]
    Store,
    /// A name of nothing but invisible characters.
    #[error("the name is empty")]
    EmptyName,
    /// No pairing waits for a confirmation.
    #[error("no pairing waits for a confirmation")]
    NoPairing,
    /// The card did not take the PIN.
    #[error("a PIN has 6 to 8 digits, a PUK 8 octets")]
    PinRefused,
    /// The PIN or PUK of now is wrong.
    #[error("wrong PIN or PUK; {tries_left} tries left")]
    WrongPin {
        /// Tries that are left to the owner.
        tries_left: u8,
    },
    /// No try is left, or none was ever chosen.
    #[error("the PIN or PUK is blocked or was never chosen; choose new ones")]
    PinBlocked,
    /// Keys are being made, or another change of the card is under way.
    #[error("the card is being changed already; wait until that has ended")]
    Busy,
    /// There is no place for a key with this reference.
    #[error("there is no key with this reference")]
    UnknownKey,
    /// The bytes are no command APDU.
    #[error("the bytes are no command APDU")]
    NotACommand,
    /// A failure that this version cannot name.
    #[error("the phone failed")]
    Failed,
}

impl From<runtime::PhoneError> for PhoneError {
    fn from(error: runtime::PhoneError) -> Self {
        match error {
            runtime::PhoneError::Stopped => Self::Stopped,
            runtime::PhoneError::UnknownHost => Self::UnknownHost,
            runtime::PhoneError::Store(_) => Self::Store,
            runtime::PhoneError::EmptyName => Self::EmptyName,
            runtime::PhoneError::NoPairing => Self::NoPairing,
            runtime::PhoneError::PinRefused => Self::PinRefused,
            runtime::PhoneError::WrongPin { tries_left } => Self::WrongPin { tries_left },
            runtime::PhoneError::PinBlocked => Self::PinBlocked,
            runtime::PhoneError::Busy => Self::Busy,
            _ => Self::Failed,
        }
    }
}

/// Why a scanned text does not start a pairing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, uniffi::Error)]
pub enum ScanError {
    /// The text is not the QR text of a host.
    #[error("this is not the code of a Pocketcard host")]
    Text,
    /// Another pairing is in progress.
    #[error("another pairing is in progress; finish or cancel it first")]
    Busy,
    /// The phone has stopped.
    #[error("the phone has stopped")]
    Stopped,
}

impl From<runtime::ScanError> for ScanError {
    fn from(error: runtime::ScanError) -> Self {
        match error {
            runtime::ScanError::Text(_) => Self::Text,
            runtime::ScanError::Busy => Self::Busy,
            _ => Self::Stopped,
        }
    }
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, uniffi::Error)]
pub enum LinkError {
    /// Too many messages of this link wait already.
    #[error("too many messages of this link are waiting")]
    Full,
    /// The link is closed, or the phone has stopped.
    #[error("the link is closed")]
    Closed,
}

impl From<runtime::PushError> for LinkError {
    fn from(error: runtime::PushError) -> Self {
        match error {
            runtime::PushError::Full => Self::Full,
            _ => Self::Closed,
        }
    }
}

/// Why a phone did not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, uniffi::Error)]
pub enum StartError {
    /// Another process has the state open.
    #[error("the phone's state is in use by another process; end that process first")]
    InUse,
    /// The state's folder is open to other users.
    #[error("the folder of the phone's state is open to other users")]
    FolderNotPrivate,
    /// The state could not be read or written.
    #[error("the phone's state could not be read or written")]
    Store,
    /// The state is damaged or was written by a newer version.
    #[error("the phone's state is damaged or was written by a newer version")]
    DamagedState,
    /// The phone's secrets could not be opened with the device key.
    #[error("the phone's secrets cannot be opened with the device key")]
    Sealing,
    /// The random source failed.
    #[error("the random source failed")]
    Entropy,
    /// The phone's thread could not be started.
    #[error("the phone's thread could not be started")]
    Thread,
    /// The card did not start.
    #[error("the card did not start")]
    Card,
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::InUse => Self::InUse,
            StoreError::FolderNotPrivate => Self::FolderNotPrivate,
            StoreError::Damaged => Self::DamagedState,
            _ => Self::Store,
        }
    }
}

impl From<runtime::StartError> for StartError {
    fn from(error: runtime::StartError) -> Self {
        match error {
            runtime::StartError::Store(error) => error.into(),
            runtime::StartError::Sealing(_) => Self::Sealing,
            runtime::StartError::DamagedState => Self::DamagedState,
            runtime::StartError::Entropy => Self::Entropy,
            _ => Self::Card,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn every_error_of_the_phone_keeps_its_kind() {
        let table = [
            (runtime::PhoneError::Stopped, PhoneError::Stopped),
            (runtime::PhoneError::UnknownHost, PhoneError::UnknownHost),
            (runtime::PhoneError::Store(StoreError::Failed), PhoneError::Store),
            (runtime::PhoneError::EmptyName, PhoneError::EmptyName),
            (runtime::PhoneError::NoPairing, PhoneError::NoPairing),
            (runtime::PhoneError::PinRefused, PhoneError::PinRefused),
            (runtime::PhoneError::WrongPin { tries_left: 2 }, PhoneError::WrongPin { tries_left: 2 }),
            (runtime::PhoneError::PinBlocked, PhoneError::PinBlocked),
            (runtime::PhoneError::Busy, PhoneError::Busy),
        ];
        for (theirs, ours) in table {
            assert_eq!(PhoneError::from(theirs), ours);
        }
        assert_eq!(ScanError::from(runtime::ScanError::Busy), ScanError::Busy);
        assert_eq!(ScanError::from(runtime::ScanError::Stopped), ScanError::Stopped);
        assert_eq!(LinkError::from(runtime::PushError::Full), LinkError::Full);
        assert_eq!(LinkError::from(runtime::PushError::Closed), LinkError::Closed);
    }

    #[test]
    fn every_error_of_the_start_keeps_its_kind() {
        let table = [
            (StoreError::InUse, StartError::InUse),
            (StoreError::FolderNotPrivate, StartError::FolderNotPrivate),
            (StoreError::Io(io::Error::other("x")), StartError::Store),
            (StoreError::Damaged, StartError::DamagedState),
            (StoreError::Failed, StartError::Store),
        ];
        for (theirs, ours) in table {
            assert_eq!(StartError::from(runtime::StartError::Store(theirs)), ours);
        }
        let sealing = pocketcard_phone::SealingError::Rejected;
        assert_eq!(StartError::from(runtime::StartError::Sealing(sealing)), StartError::Sealing);
        assert_eq!(StartError::from(runtime::StartError::DamagedState), StartError::DamagedState);
        assert_eq!(StartError::from(runtime::StartError::Entropy), StartError::Entropy);
    }
}
