use std::time::UNIX_EPOCH;

use pocketcard_protocol::messages::RefusalReason;

use super::*;
use crate::{
    card::{Deed, piv::Slot, test_support::TestStore},
    traits::Batch,
};

fn entry(host: Option<u8>, tries_left: u8) -> LogEntry {
    let host = host.map(|number| LoggedHost { host: HostId::new([number; 32]), name: format!("host {number}") });
    let result = LogResult::WrongPin { tries_left };
    let operation = LogOperation::Card(Deed::VerifyPin);
    LogEntry { at: UNIX_EPOCH, host, operation, result, asked: false }
}

fn open(store: &TestStore) -> Log {
    Log::open(&store.load().unwrap(), Arc::new(store.clone()))
}

fn at(milliseconds: u64) -> Timestamp {
    Timestamp::ZERO + Duration::from_millis(milliseconds)
}

#[test]
fn entries_are_stored_together_and_not_at_once() {
    let store = TestStore::new();
    let mut log = open(&store);
    assert_eq!(log.poll_timeout(), None);
    log.write(entry(Some(1), 2), at(0));
    log.write(entry(Some(1), 1), at(900));
    assert_eq!(log.poll_timeout(), Some(at(0) + LOG_DELAY), "the first entry keeps the time");
    log.handle_timeout(at(999));
    assert_eq!(store.commits(), 0);
    log.handle_timeout(at(1000));
    assert_eq!(store.commits(), 1);
    assert_eq!(log.poll_timeout(), None, "nothing to wake up for");
    assert_eq!(open(&store).entries(), [entry(Some(1), 2), entry(Some(1), 1)]);
}

#[test]
fn a_host_that_makes_noise_costs_one_commit_a_second() {
    let store = TestStore::new();
    let mut log = open(&store);
    log.write(entry(Some(2), 5), at(0));
    for millisecond in 0..3000 {
        log.write(entry(Some(1), 3), at(millisecond));
        log.handle_timeout(at(millisecond));
    }
    assert_eq!(store.commits(), 2, "at 1000 and 2001 ms");
    let kept = open(&store).entries();
    assert_eq!(kept.len(), LOG_LIMIT, "a kill now would lose less than a second");
    assert_eq!(kept[0], entry(Some(2), 5), "and nothing of another host");
}

#[test]
fn numbers_go_on_after_a_start_and_the_order_stays() {
    let store = TestStore::new();
    for round in 0..5 {
        let mut log = open(&store);
        log.write(entry(None, round), at(0));
        log.flush();
    }
    let expected: Vec<LogEntry> = (0..5).map(|round| entry(None, round)).collect();
    assert_eq!(open(&store).entries(), expected);
}

#[test]
fn a_full_log_loses_its_oldest_entries_also_in_the_store() {
    let store = TestStore::new();
    let mut log = open(&store);
    for number in 0..LOG_LIMIT + 100 {
        log.write(entry(Some(1), u8::try_from(number % 16).unwrap()), at(0));
        log.handle_timeout(at(0));
    }
    log.flush();
    assert_eq!(log.entries().len(), LOG_LIMIT);
    let stored = store.load().unwrap();
    assert_eq!(stored.len(), LOG_LIMIT);
    assert_eq!(open(&store).entries(), log.entries());
    assert_eq!(log.entries().first(), Some(&entry(Some(1), (100 % 16) as u8)));
}

#[test]
fn a_host_that_makes_noise_pushes_out_its_own_entries() {
    let store = TestStore::new();
    let mut log = open(&store);
    log.write(entry(None, 7), at(0));
    log.write(entry(Some(2), 3), at(0));
    for _ in 0..3 * LOG_LIMIT {
        log.write(entry(Some(1), 0), at(0));
    }
    assert_eq!(log.entries().len(), LOG_LIMIT);
    assert_eq!(log.entries().first(), Some(&entry(None, 7)));
    assert_eq!(log.entries().get(1), Some(&entry(Some(2), 3)));
}

#[test]
fn a_store_that_fails_neither_loses_entries_nor_is_asked_without_end() {
    let store = TestStore::new();
    let mut log = open(&store);
    store.set_failing(true);
    log.write(entry(Some(1), 1), at(0));
    log.handle_timeout(at(1000));
    assert_eq!(log.poll_timeout(), None);
    store.set_failing(false);
    log.write(entry(Some(1), 0), at(5000));
    log.handle_timeout(at(6000));
    assert_eq!(open(&store).entries(), [entry(Some(1), 1), entry(Some(1), 0)]);
}

#[test]
fn an_entry_that_cannot_be_read_is_left_out_and_its_number_not_used_again() {
    let store = TestStore::new();
    let mut batch = Batch::new();
    batch.put("log/0000000000000009", &[0xFF]);
    batch.put("log/nonsense", &[0xFF]);
    batch.put("logbook/0", &[0xFF]);
    store.commit(batch).unwrap();
    let mut log = open(&store);
    assert_eq!(log.entries(), []);
    log.write(entry(None, 1), at(0));
    log.flush();
    assert!(store.entry("log/000000000000000a").is_some());
}

#[test]
fn results_follow_from_status_word_and_reason() {
    use pocketcard_protocol::apdu::StatusWord;
    for (status, refused, expected) in [
        (StatusWord::Success, Some(RefusalReason::Denied), LogResult::Done),
        (StatusWord::RemainingTries(2), None, LogResult::WrongPin { tries_left: 2 }),
        (
            StatusWord::SecurityStatusNotSatisfied,
            Some(RefusalReason::Denied),
            LogResult::Refused(RefusalReason::Denied),
        ),
        (StatusWord::SecurityStatusNotSatisfied, None, LogResult::Failed { status: 0x6982 }),
        (StatusWord::AuthenticationMethodBlocked, None, LogResult::Refused(RefusalReason::PinBlocked)),
        (
            StatusWord::AuthenticationMethodBlocked,
            Some(RefusalReason::LastTryKept),
            LogResult::Refused(RefusalReason::LastTryKept),
        ),
    ] {
        assert_eq!(LogResult::of_command(status, refused), expected);
    }
    assert_eq!(LogOperation::Card(Deed::Sign(Slot::Signature)).key(), Some(0x9C));
}

/// A phone is killed while it writes, again and again: what was stored is there, in order and without a gap, and never more
/// than [`LOG_LIMIT`] entries.
#[cfg(feature = "redb")]
#[test]
fn a_kill_in_the_middle_of_writing_leaves_a_log_without_gaps() {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Command, Stdio},
    };

    use crate::store::RedbStore;

    const FOLDER: &str = "POCKETCARD_LOG_TEST_FOLDER";
    let number = |entry: &LogEntry| entry.at.duration_since(UNIX_EPOCH).unwrap().as_millis() as usize;
    if let Ok(folder) = std::env::var(FOLDER) {
        let store = Arc::new(RedbStore::open(folder.as_ref()).unwrap());
        let mut log = Log::open(&store.load().unwrap(), store);
        let first = log.entries().last().map_or(0, |entry| number(entry) + 1);
        for at in first.. {
            log.write(
                LogEntry { at: UNIX_EPOCH + Duration::from_millis(at as u64), ..entry(Some(1), 1) },
                Timestamp::ZERO,
            );
            if (at + 1 - first).is_multiple_of(32) {
                log.flush();
                println!("stored {at}");
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    for kill in 1..=5_usize {
        let mut phone = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", std::thread::current().name().unwrap()])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(phone.stdout.take().unwrap()).lines().map(Result::unwrap);
        let stored = lines.filter_map(|line| line.strip_prefix("stored ").and_then(|at| at.parse::<usize>().ok()));
        let last = stored.take(kill * 12).last().unwrap();
        phone.kill().unwrap();
        phone.wait().unwrap();
        let store = Arc::new(RedbStore::open(folder.path()).unwrap());
        let entries = Log::open(&store.load().unwrap(), store).entries();
        let numbers: Vec<usize> = entries.iter().map(number).collect();
        assert!(numbers.last().is_some_and(|found| *found >= last), "{last} was stored, and {numbers:?} found");
        assert!(numbers.is_sorted_by(|a, b| a + 1 == *b), "{numbers:?}");
        assert!(numbers.len() <= LOG_LIMIT);
    }
}
