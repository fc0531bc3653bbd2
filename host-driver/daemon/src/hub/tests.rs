use std::time::Duration;

use super::*;

fn record(peer: u8, slot: u32, name: &str) -> Record {
    let mut keys = vec![1];
    keys.extend([peer; 32]);
    keys.extend([7; 64]);
    let keys = PairKeys::from_bytes(&keys).unwrap();
    Record { keys, name: name.into(), slot, address: None, confirmed: false }
}

fn hub(folder: &std::path::Path) -> Arc<Hub> {
    let config = Config { state_dir: folder.to_owned(), dev: true, ..Config::default() };
    Hub::new(config, VersionRange::SUPPORTED).unwrap()
}

async fn pass(time: Duration) {
    // The task that waits runs before the clock moves, and again after it.
    tokio::task::yield_now().await;
    tokio::time::advance(time).await;
    tokio::task::yield_now().await;
}

#[tokio::test(start_paused = true)]
async fn a_pair_that_the_phone_never_stored_is_dropped_after_ten_minutes() {
    let folder = tempfile::tempdir().unwrap();
    let hub = hub(folder.path());
    for (peer, slot) in [(1, 0), (2, 1), (3, 2)] {
        hub.add(record(peer, slot, "Pixel")).unwrap();
    }
    hub.confirm(&PublicKey::from([2; 32]));
    pass(UNCONFIRMED_PAIR_LIFETIME - Duration::from_secs(1)).await;
    assert_eq!(hub.phones().len(), 3);
    // Paired again in the last moment: its ten minutes begin again.
    hub.add(record(3, 2, "Pixel")).unwrap();
    pass(Duration::from_secs(2)).await;
    assert_eq!(hub.phones().iter().map(|phone| phone.slot).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(hub.store.phones().unwrap().0.len(), 2, "it is gone from the disk, too");
    pass(UNCONFIRMED_PAIR_LIFETIME).await;
    assert_eq!(hub.phones().iter().map(|phone| phone.slot).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn phones_of_one_name_are_told_apart_by_id() {
    let folder = tempfile::tempdir().unwrap();
    let hub = hub(folder.path());
    let (first, second) = (id(&PublicKey::from([1; 32])), id(&PublicKey::from([2; 32])));
    hub.add(record(1, 0, "Pixel")).unwrap();
    hub.add(record(2, 1, "Pixel")).unwrap();
    // A phone that calls itself what another's id begins with.
    hub.add(record(3, 2, "01010101")).unwrap();
    let code = |result: Result<(), Failure>| result.unwrap_err().code;
    assert_eq!(code(hub.forget("Pixel")), ErrorCode::AmbiguousPhone);
    assert_eq!(code(hub.forget("01010101")), ErrorCode::AmbiguousPhone);
    assert_eq!(code(hub.forget("010")), ErrorCode::NoSuchPhone);
    hub.rename(&second[..8], "Old Pixel").unwrap();
    hub.rename("03030303", &first).unwrap();
    hub.forget(&first).unwrap();
    assert_eq!(hub.phones().iter().map(|phone| phone.slot).collect::<Vec<_>>(), [1, 2], "its id is what counts");
    hub.forget("Old Pixel").unwrap();
}

#[tokio::test]
async fn a_damaged_file_is_told_and_leaves_the_other_phones() {
    let folder = tempfile::tempdir().unwrap();
    let hub = hub(folder.path());
    hub.store.save(&record(1, 0, "Pixel")).unwrap();
    std::fs::write(folder.path().join("phones/x.pair"), "?").unwrap();
    hub.start().unwrap();
    assert_eq!(hub.phones().len(), 1);
    let told = crate::doctor::findings(&hub);
    let damaged = told.iter().find(|finding| finding.message.contains("x.pair")).unwrap();
    assert_eq!(damaged.level, pocketcard_ipc::control::Level::Error);
}

#[tokio::test]
async fn a_name_that_cannot_be_stored_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let hub = hub(folder.path());
    hub.add(record(1, 0, "Pixel")).unwrap();
    std::fs::remove_dir_all(folder.path().join("phones")).unwrap();
    assert_eq!(hub.rename("Pixel", "Other").unwrap_err().code, ErrorCode::Storage);
    assert_eq!(hub.phones()[0].name, "Pixel");
}
