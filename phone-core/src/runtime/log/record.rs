//! How an entry is stored. Numbers stay what they are for ever; new ones are added.

use std::time::{Duration, UNIX_EPOCH};

use pocketcard_protocol::messages::RefusalReason;
use prost::Message;

use super::entry::{LogEntry, LogOperation, LogResult, LoggedHost};
use crate::{
    card::{Deed, piv::Slot},
    traits::HostId,
};

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(uint64, tag = "1")]
    at_unix_ms: u64,
    /// Empty: the owner.
    #[prost(bytes = "vec", tag = "2")]
    host: Vec<u8>,
    #[prost(string, tag = "3")]
    host_name: String,
    #[prost(uint32, tag = "4")]
    operation: u32,
    /// Reference of the private key, where the operation is about one.
    #[prost(uint32, tag = "5")]
    slot: u32,
    #[prost(uint32, tag = "6")]
    result: u32,
    /// Tries left, reason of the refusal, or status word.
    #[prost(uint32, tag = "7")]
    detail: u32,
    #[prost(bool, tag = "8")]
    asked: bool,
}

pub(super) fn encode(entry: &LogEntry) -> Vec<u8> {
    let (operation, slot) = operation_number(entry.operation);
    let (result, detail) = match entry.result {
        LogResult::Done => (1, 0),
        LogResult::WrongPin { tries_left } => (2, u32::from(tries_left)),
        LogResult::Refused(reason) => (3, u32::try_from(i32::from(reason)).unwrap_or(0)),
        LogResult::Cancelled => (4, 0),
        LogResult::LinkLost => (5, 0),
        LogResult::Failed { status } => (6, u32::from(status)),
    };
    let since = entry.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (host, host_name) =
        entry.host.as_ref().map(|host| (host.host.as_bytes().to_vec(), host.name.clone())).unwrap_or_default();
    let at_unix_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let slot = slot.map_or(0, |slot| u32::from(slot.reference()));
    Record { at_unix_ms, host, host_name, operation, slot, result, detail, asked: entry.asked }.encode_to_vec()
}

pub(super) fn decode(bytes: &[u8]) -> Option<LogEntry> {
    let record = Record::decode(bytes).ok()?;
    let host = match record.host.as_slice() {
        [] => None,
        key => Some(LoggedHost { host: HostId::new(key.try_into().ok()?), name: record.host_name }),
    };
    let slot = u8::try_from(record.slot).ok().and_then(Slot::from_reference);
    let result = match record.result {
        1 => LogResult::Done,
        2 => LogResult::WrongPin { tries_left: u8::try_from(record.detail).ok()? },
        3 => LogResult::Refused(RefusalReason::try_from(i32::try_from(record.detail).ok()?).ok()?),
        4 => LogResult::Cancelled,
        5 => LogResult::LinkLost,
        6 => LogResult::Failed { status: u16::try_from(record.detail).ok()? },
        _ => return None,
    };
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(record.at_unix_ms))?;
    Some(LogEntry { at, host, operation: operation(record.operation, slot)?, result, asked: record.asked })
}

const fn operation_number(operation: LogOperation) -> (u32, Option<Slot>) {
    match operation {
        LogOperation::Pair => (1, None),
        LogOperation::Forget => (2, None),
        LogOperation::Connect => (3, None),
        LogOperation::Disconnect => (4, None),
        LogOperation::ConfirmConnection => (5, None),
        LogOperation::SetPermissions => (6, None),
        LogOperation::ChoosePin => (7, None),
        LogOperation::Lock => (8, None),
        LogOperation::Unlock => (9, None),
        LogOperation::Card(deed) => match deed {
            Deed::VerifyPin => (32, None),
            Deed::ChangePin => (33, None),
            Deed::ChangePuk => (34, None),
            Deed::UnblockPin => (35, None),
            Deed::VerifyOwner => (36, None),
            Deed::Sign(slot) => (37, Some(slot)),
            Deed::Decrypt(slot) => (38, Some(slot)),
            Deed::Agree(slot) => (39, Some(slot)),
            Deed::ProveManagementKey => (40, None),
            Deed::SetManagementKey => (41, None),
            Deed::WriteObject => (42, None),
            Deed::MakeKey(slot) => (43, Some(slot)),
            Deed::MoveKey(slot) => (44, Some(slot)),
            Deed::DeleteKey(slot) => (45, Some(slot)),
            Deed::SetTries => (46, None),
            Deed::MakeNew => (47, None),
            Deed::AskForWitness => (48, None),
        },
    }
}

fn operation(number: u32, slot: Option<Slot>) -> Option<LogOperation> {
    let deed = match number {
        1 => return Some(LogOperation::Pair),
        2 => return Some(LogOperation::Forget),
        3 => return Some(LogOperation::Connect),
        4 => return Some(LogOperation::Disconnect),
        5 => return Some(LogOperation::ConfirmConnection),
        6 => return Some(LogOperation::SetPermissions),
        7 => return Some(LogOperation::ChoosePin),
        8 => return Some(LogOperation::Lock),
        9 => return Some(LogOperation::Unlock),
        32 => Deed::VerifyPin,
        33 => Deed::ChangePin,
        34 => Deed::ChangePuk,
        35 => Deed::UnblockPin,
        36 => Deed::VerifyOwner,
        37 => Deed::Sign(slot?),
        38 => Deed::Decrypt(slot?),
        39 => Deed::Agree(slot?),
        40 => Deed::ProveManagementKey,
        41 => Deed::SetManagementKey,
        42 => Deed::WriteObject,
        43 => Deed::MakeKey(slot?),
        44 => Deed::MoveKey(slot?),
        45 => Deed::DeleteKey(slot?),
        46 => Deed::SetTries,
        47 => Deed::MakeNew,
        48 => Deed::AskForWitness,
        _ => return None,
    };
    Some(LogOperation::Card(deed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(operation: LogOperation, result: LogResult) -> LogEntry {
        let host = LoggedHost { host: HostId::new([7; 32]), name: "host".to_owned() };
        LogEntry { at: UNIX_EPOCH + Duration::from_millis(1_234_567), host: Some(host), operation, result, asked: true }
    }

    #[test]
    fn every_operation_reads_back() {
        let read = (0..=64).filter_map(|number| operation(number, Some(Slot::Signature)));
        let read: Vec<LogOperation> = read.collect();
        assert_eq!(read.len(), 26, "as many as there are");
        for operation in read {
            let entry = entry(operation, LogResult::Done);
            assert_eq!(decode(&encode(&entry)), Some(entry));
        }
    }

    #[test]
    fn every_result_and_the_owner_read_back() {
        for result in [
            LogResult::Done,
            LogResult::WrongPin { tries_left: 2 },
            LogResult::Refused(RefusalReason::TypedPinNotPermitted),
            LogResult::Cancelled,
            LogResult::LinkLost,
            LogResult::Failed { status: 0x6A80 },
        ] {
            let mut entry = entry(LogOperation::Card(Deed::VerifyPin), result);
            assert_eq!(decode(&encode(&entry)), Some(entry.clone()));
            (entry.host, entry.asked) = (None, false);
            assert_eq!(decode(&encode(&entry)), Some(entry));
        }
    }

    #[test]
    fn what_a_newer_version_wrote_is_left_out() {
        for (operation, slot, result) in [(99, 0, 1), (1, 0, 99), (37, 0, 1), (37, 0x10, 1)] {
            let (host, host_name) = (vec![], String::new());
            let record = Record { at_unix_ms: 0, host, host_name, operation, slot, result, detail: 0, asked: false };
            assert_eq!(decode(&record.encode_to_vec()), None, "{record:?}");
        }
        assert_eq!(decode(&[0xFF]), None);
    }
}
