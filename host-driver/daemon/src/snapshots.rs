//! What the phones say to everybody, kept on disk: a phone that comes back after a restart need not say it again.
//!
//! One file for each paired phone, no longer than a snapshot may be. It is no secret and proves nothing: the digest is
//! computed anew when it is loaded, and what it says is used only while the phone itself announces that digest. So a
//! file that is damaged, old, or somebody else's costs a fetch, and a file that cannot be written costs one later.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use pocketcard_protocol::channel::PublicKey;
use pocketcard_protocol::snapshot::{SNAPSHOT_LIMIT, Snapshot};

use crate::locked;
use crate::store::{id, write};

/// The folder of the files, in the store's.
const FOLDER: &str = "snapshots";

/// The files.
#[derive(Debug)]
pub(crate) struct Snapshots {
    folder: PathBuf,
    /// The phones whose snapshots may be kept. Held while a file is written, so that none comes back after its phone
    /// was forgotten.
    phones: Mutex<BTreeSet<String>>,
}

/// The file of one phone.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotFile {
    all: Arc<Snapshots>,
    phone: String,
    unwritten: Arc<Mutex<Unwritten>>,
}

/// What is to be written. Only the last one counts: a phone may change faster than a disk writes.
#[derive(Debug, Default)]
struct Unwritten {
    snapshot: Option<Arc<Snapshot>>,
    /// A thread is at work, and will look here again.
    at_work: bool,
}

impl Snapshots {
    /// Opens the folder in that of the store.
    pub(crate) fn open(store: &Path) -> Arc<Self> {
        let folder = store.join(FOLDER);
        if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(&folder) {
            tracing::warn!(%error, "snapshots will not be kept on disk");
        }
        Arc::new(Self { folder, phones: Mutex::default() })
    }

    /// Deletes what belongs to no phone, and what a crash left half written.
    ///
    /// - `phones`: all that are paired.
    pub(crate) fn sweep<'a>(&self, phones: impl Iterator<Item = &'a PublicKey>) {
        let known: BTreeSet<PathBuf> = phones.map(|phone| self.path(&id(phone))).collect();
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| !known.contains(path)) {
            remove(&path);
        }
    }

    /// The file of a paired phone.
    pub(crate) fn of(self: &Arc<Self>, phone: &PublicKey) -> SnapshotFile {
        let phone = id(phone);
        locked(&self.phones).insert(phone.clone());
        SnapshotFile { all: Arc::clone(self), phone, unwritten: Arc::default() }
    }

    /// Deletes the file of a phone, which is not kept any more.
    pub(crate) fn forget(&self, phone: &PublicKey) {
        let phone = id(phone);
        let mut phones = locked(&self.phones);
        phones.remove(&phone);
        remove(&self.path(&phone));
    }

    fn path(&self, phone: &str) -> PathBuf {
        self.folder.join(format!("{phone}.snapshot"))
    }
}

impl SnapshotFile {
    /// What was kept; nothing if there is none that can be read.
    pub(crate) fn load(&self) -> Option<Arc<Snapshot>> {
        let path = self.all.path(&self.phone);
        match read(&path).map(|bytes| bytes.map(Snapshot::from_bytes)) {
            Ok(None) => None,
            Ok(Some(Ok(snapshot))) => Some(Arc::new(snapshot)),
            Ok(Some(Err(error))) => {
                tracing::warn!(%error, "a kept snapshot is of no use");
                remove(&path);
                None
            }
            Err(error) => {
                tracing::warn!(%error, "a kept snapshot cannot be read");
                None
            }
        }
    }

    /// When it was written.
    pub(crate) fn written(&self) -> Option<SystemTime> {
        fs::metadata(self.all.path(&self.phone)).and_then(|metadata| metadata.modified()).ok()
    }

    /// Keeps a snapshot, on another thread: nobody waits for the disk.
    pub(crate) fn keep(&self, snapshot: Arc<Snapshot>) {
        let mut unwritten = locked(&self.unwritten);
        unwritten.snapshot = Some(snapshot);
        if std::mem::replace(&mut unwritten.at_work, true) {
            return;
        }
        drop(unwritten);
        let file = self.clone();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || file.write_all())),
            Err(_) => file.write_all(),
        }
    }

    fn write_all(&self) {
        while let Some(snapshot) = self.next() {
            self.save(&snapshot);
        }
    }

    /// What is to be written now; without anything this thread's work is done.
    fn next(&self) -> Option<Arc<Snapshot>> {
        let mut unwritten = locked(&self.unwritten);
        let snapshot = unwritten.snapshot.take();
        unwritten.at_work = snapshot.is_some();
        snapshot
    }

    fn save(&self, snapshot: &Snapshot) {
        let phones = locked(&self.all.phones);
        if phones.contains(&self.phone)
            && let Err(error) = write(&self.all.path(&self.phone), snapshot.as_bytes())
        {
            tracing::warn!(%error, "a snapshot was not kept");
        }
    }
}

/// The bytes of a file, no more than may be in it; `None` if there is none.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    // One more than there may be: a longer file is refused for it.
    file.take(SNAPSHOT_LIMIT as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "a kept snapshot could not be deleted");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use pocketcard_protocol::snapshot::{Object, Profile};

    use super::*;

    fn snapshot(content: &[u8]) -> Arc<Snapshot> {
        let profile = Profile {
            template: &[1],
            applications: &[&[0xA0, 0, 0, 3, 8]],
            instructions: &[],
            version: &[],
            serial: &[],
        };
        Arc::new(Snapshot::new(&profile, &[(0x7E, Object::Always(content))]).unwrap())
    }

    fn phone(number: u8) -> PublicKey {
        PublicKey::from([number; 32])
    }

    #[test]
    fn a_snapshot_survives_a_restart_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let file = Snapshots::open(folder.path()).of(&phone(1));
        assert!(file.load().is_none());
        for content in [&[1][..], &[2; 9000]] {
            file.keep(snapshot(content));
            assert_eq!(Snapshots::open(folder.path()).of(&phone(1)).load(), Some(snapshot(content)));
        }
        assert!(Snapshots::open(folder.path()).of(&phone(2)).load().is_none(), "another phone's");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.path().join(FOLDER)), 0o700);
        assert_eq!(mode(&file.all.path(&file.phone)), 0o600);
    }

    #[test]
    fn only_the_last_of_many_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = Snapshots::open(folder.path()).of(&phone(1));
        file.unwritten.lock().unwrap().at_work = true;
        for number in 0..100 {
            file.keep(snapshot(&[number]));
        }
        assert!(file.load().is_none(), "the thread at work does it");
        file.write_all();
        assert_eq!(file.load(), Some(snapshot(&[99])));
        file.keep(snapshot(&[1]));
        assert_eq!(file.load(), Some(snapshot(&[1])), "and the next one has a thread again");
    }

    #[test]
    fn what_cannot_be_a_snapshot_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let file = Snapshots::open(folder.path()).of(&phone(1));
        let path = file.all.path(&file.phone);
        let right = snapshot(&[7; 100]);
        for damaged in [&[][..], b"?", &right.as_bytes()[..50], &vec![1; SNAPSHOT_LIMIT + 1]] {
            fs::write(&path, damaged).unwrap();
            assert!(file.load().is_none());
            assert!(!path.exists(), "{} bytes", damaged.len());
        }
        // A change that leaves it readable is another snapshot: no phone announces it.
        let mut changed = right.as_bytes().to_vec();
        *changed.last_mut().unwrap() ^= 1;
        fs::write(&path, changed).unwrap();
        assert_ne!(file.load().unwrap().digest(), right.digest());
    }

    #[test]
    fn a_phone_that_is_forgotten_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(folder.path());
        let file = snapshots.of(&phone(1));
        file.keep(snapshot(&[1]));
        snapshots.forget(&phone(1));
        snapshots.forget(&phone(1));
        assert!(file.load().is_none());
        file.keep(snapshot(&[2]));
        assert!(file.load().is_none(), "one that was loaded while the phone was forgotten");
        snapshots.of(&phone(1)).keep(snapshot(&[3]));
        assert!(file.load().is_some(), "paired again");
    }

    #[test]
    fn only_paired_phones_have_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(folder.path());
        for number in [1, 2] {
            snapshots.of(&phone(number)).keep(snapshot(&[number]));
        }
        fs::write(folder.path().join(FOLDER).join("x.new"), b"half").unwrap();
        snapshots.sweep([phone(2)].iter());
        let left: Vec<_> =
            fs::read_dir(folder.path().join(FOLDER)).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [snapshots.path(&id(&phone(2)))]);
    }

    #[test]
    fn without_a_folder_nothing_is_kept_and_nothing_fails() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FOLDER), b"in the way").unwrap();
        let snapshots = Snapshots::open(folder.path());
        snapshots.sweep([].iter());
        let file = snapshots.of(&phone(1));
        file.keep(snapshot(&[1]));
        assert!(file.load().is_none());
        snapshots.forget(&phone(1));
    }
}
