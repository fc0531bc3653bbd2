//! What the card's numbers are called.

use std::time::{SystemTime, UNIX_EPOCH};

use pocketcard_phone::{
    ApprovalPurpose, ApprovalRequest, KeyAlgorithm, PinPurpose,
    card::Deed,
    runtime::{LogEntry, LogOperation, LogResult},
};
use pocketcard_protocol::messages::RefusalReason;

const DAY: u64 = 86_400;

/// A key reference, and what the key is for.
pub(super) fn key(reference: u8) -> String {
    let purpose = match reference {
        0x9A => "login",
        0x9C => "signature",
        0x9D => "decryption",
        0x9E => "no PIN",
        0x9B => "management",
        0x80 => "PIN",
        0x81 => "PUK",
        0x96 => "face or finger",
        0x82..=0x95 => "older decryption key",
        _ => return format!("{reference:02X}"),
    };
    format!("{reference:02X} ({purpose})")
}

/// What a computer wants to do with a key: "laptop wants to …".
pub(super) fn wish(request: &ApprovalRequest) -> String {
    match request.purpose {
        ApprovalPurpose::Sign => format!("sign with key {}", key(request.key)),
        ApprovalPurpose::Decrypt => format!("decrypt with key {}", key(request.key)),
        ApprovalPurpose::Agree => format!("agree on a secret with key {}", key(request.key)),
        ApprovalPurpose::Administer => "change the card: objects, keys, or all of it".to_owned(),
        ApprovalPurpose::Connect => "have the card in its reader while it is connected".to_owned(),
        _ => format!("use key {}", key(request.key)),
    }
}

/// What a secret is entered for: "laptop wants to …".
pub(super) const fn pin_wish(purpose: PinPurpose) -> &'static str {
    match purpose {
        PinPurpose::Verify => "use keys that ask for the PIN",
        PinPurpose::Change => "change the PIN",
        PinPurpose::ChangePuk => "change the PUK",
        PinPurpose::Unblock => "set a new PIN with the PUK",
        _ => "have a secret entered",
    }
}

pub(super) const fn algorithm(algorithm: KeyAlgorithm) -> &'static str {
    match algorithm {
        KeyAlgorithm::EccP256 => "P-256",
        KeyAlgorithm::EccP384 => "P-384",
        KeyAlgorithm::Rsa2048 => "RSA-2048",
        _ => "other",
    }
}

/// An entry of the log in one line: when, who, what, how it ended.
pub(super) fn log_entry(entry: &LogEntry) -> String {
    let who = entry.host.as_ref().map_or("this phone", |host| host.name.as_str());
    let asked = if entry.asked { ", asked here" } else { "" };
    format!("{}  {who}  {}: {}{asked}", time(entry.at), operation(entry.operation), result(entry.result))
}

fn operation(operation: LogOperation) -> String {
    let text = match operation {
        LogOperation::Card(deed) => return deed_in_words(deed),
        LogOperation::Pair => "pairing",
        LogOperation::Forget => "forgotten",
        LogOperation::Connect => "connected",
        LogOperation::Disconnect => "disconnected",
        LogOperation::ConfirmConnection => "have the card in its reader",
        LogOperation::SetPermissions => "permissions changed",
        LogOperation::ChoosePin => "PIN and PUK chosen",
        LogOperation::Lock => "card locked",
        LogOperation::Unlock => "card unlocked",
        _ => operation.name(),
    };
    text.to_owned()
}

fn deed_in_words(deed: Deed) -> String {
    let text = match deed {
        Deed::Sign(slot) => return format!("sign with {}", key(slot.reference())),
        Deed::Decrypt(slot) => return format!("decrypt with {}", key(slot.reference())),
        Deed::Agree(slot) => return format!("agree with {}", key(slot.reference())),
        Deed::MakeKey(slot) => return format!("make key {}", key(slot.reference())),
        Deed::MoveKey(slot) => return format!("move key {}", key(slot.reference())),
        Deed::DeleteKey(slot) => return format!("delete key {}", key(slot.reference())),
        Deed::VerifyPin => "PIN",
        Deed::ChangePin => "change PIN",
        Deed::ChangePuk => "change PUK",
        Deed::UnblockPin => "new PIN with the PUK",
        Deed::VerifyOwner => "face or finger",
        Deed::ProveManagementKey => "management key",
        Deed::SetManagementKey => "set management key",
        Deed::WriteObject => "write object",
        Deed::SetTries => "set numbers of tries",
        Deed::MakeNew => "make the card new",
        _ => deed.name(),
    };
    text.to_owned()
}

fn result(result: LogResult) -> String {
    match result {
        LogResult::Done => "done".to_owned(),
        LogResult::WrongPin { tries_left } => format!("wrong, {tries_left} tries left"),
        LogResult::Refused(RefusalReason::Denied) => "denied".to_owned(),
        LogResult::Refused(_) => format!("refused ({})", result.name().replace('_', " ")),
        LogResult::Cancelled => "given up".to_owned(),
        LogResult::LinkLost => "connection lost".to_owned(),
        LogResult::Failed { status } => format!("failed, {status:04X}"),
        _ => result.name().replace('_', " "),
    }
}

/// Universal time: the terminal does not say where it is.
fn time(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (day, second) = (seconds / DAY, seconds % DAY);
    let (year, month, day) = date(day);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day since 1970, in the Gregorian calendar. Counted in years from March on, so that a leap day is the
/// last of its year.
const fn date(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * from_march + 2) / 5 + 1;
    let (month, next) = if from_march < 10 { (from_march + 3, 0) } else { (from_march - 9, 1) };
    (era * 400 + year + next, month, of_month)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        // By `date -u -d @N`.
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_868_799, "2000-02-29 23:59:59Z"),
            (951_868_800, "2000-03-01 00:00:00Z"),
            (1_735_689_599, "2024-12-31 23:59:59Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(time(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn every_key_of_the_card_has_a_word() {
        for reference in (0x80..=0x96).chain(0x9A..=0x9E) {
            assert!(key(reference).contains('('), "{reference:02X}");
        }
    }
}
