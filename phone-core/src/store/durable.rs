use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use redb::{
    Builder, CommitError, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition, TableError, TransactionError, backends::FileBackend,
};
use zeroize::Zeroizing;

use crate::traits::{Batch, StateStore, StoreError};

const TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");
const FILE_NAME: &str = "state.redb";
const FORMAT_KEY: &str = "format";
const FORMAT: &[u8] = &[1];
const CACHE_BYTES: usize = 4 << 20;

/// A durable store in one file, which one process at a time can have open.
///
/// A commit is on the disk when it returns, whole or not at all. What is deleted is unlinked, not scrubbed from the disk:
/// secrets belong into it only sealed.
pub struct RedbStore {
    database: Database,
}

impl RedbStore {
    /// Opens the store in `folder`, or makes one: the folder gets mode 0700, the file 0600.
    ///
    /// The file's integrity is checked; a damaged one is refused rather than trusted.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process has it open, [`StoreError::FolderNotPrivate`] if other users may enter an existing
    /// folder that also holds other things, [`StoreError::Damaged`], [`StoreError::Io`].
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        private_folder(folder)?;
        let path = folder.join(FILE_NAME);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::Io)?;
        file.set_permissions(Permissions::from_mode(0o600)).map_err(StoreError::Io)?;
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        let database =
            builder.create_with_backend(FileBackend::new(file).map_err(from_database)?).map_err(from_database)?;
        // The name of a new file must survive a loss of power as well as its content.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::Io)?;
        // So must that of the folder, which may be new as well. Whoever cannot read its parent did not make it just now.
        if let Ok(parent) = File::open(folder.join("..")) {
            parent.sync_all().map_err(StoreError::Io)?;
        }
        let store = Self { database };
        store.check_format()?;
        Ok(store)
    }

    fn check_format(&self) -> Result<(), StoreError> {
        let transaction = self.database.begin_write().map_err(from_transaction)?;
        {
            let mut table = transaction.open_table(TABLE).map_err(from_table)?;
            let known = table.get(FORMAT_KEY).map_err(from_storage)?.map(|value| value.value() == FORMAT);
            match known {
                Some(true) => return Ok(()),
                Some(false) => return Err(StoreError::Damaged),
                None => table.insert(FORMAT_KEY, FORMAT).map_err(from_storage)?,
            };
        }
        transaction.commit().map_err(from_commit)
    }
}

impl StateStore for RedbStore {
    fn load(&self) -> Result<Vec<(String, Zeroizing<Vec<u8>>)>, StoreError> {
        let transaction = self.database.begin_read().map_err(from_transaction)?;
        let table = transaction.open_table(TABLE).map_err(from_table)?;
        let mut entries = Vec::new();
        for entry in table.iter().map_err(from_storage)? {
            let (key, value) = entry.map_err(from_storage)?;
            if key.value() != FORMAT_KEY {
                entries.push((key.value().to_owned(), Zeroizing::new(value.value().to_vec())));
            }
        }
        Ok(entries)
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut transaction = self.database.begin_write().map_err(from_transaction)?;
        transaction.set_durability(Durability::Immediate).map_err(|_| StoreError::Failed)?;
        {
            let mut table = transaction.open_table(TABLE).map_err(from_table)?;
            for entry in batch.entries() {
                match &entry.value {
                    Some(value) => table.insert(entry.key.as_str(), value.as_slice()).map_err(from_storage)?,
                    None => table.remove(entry.key.as_str()).map_err(from_storage)?,
                };
            }
        }
        transaction.commit().map_err(from_commit)
    }
}

fn private_folder(folder: &Path) -> Result<(), StoreError> {
    match DirBuilder::new().recursive(true).mode(0o700).create(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(StoreError::Io(error)),
    }
    let metadata = folder.metadata().map_err(StoreError::Io)?;
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if !metadata.is_dir() || !ours {
        return Err(StoreError::FolderNotPrivate);
    }
    if metadata.mode() & 0o077 != 0 {
        // A folder that holds nothing, or a store, can be closed without harm; somebody's home or /tmp cannot.
        let empty = folder.read_dir().map_err(StoreError::Io)?.next().is_none();
        if !empty && !folder.join(FILE_NAME).exists() {
            return Err(StoreError::FolderNotPrivate);
        }
        fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(StoreError::Io)?;
    }
    Ok(())
}

fn from_storage(error: StorageError) -> StoreError {
    match error {
        StorageError::Io(error) => StoreError::Io(error),
        StorageError::Corrupted(_) => StoreError::Damaged,
        _ => StoreError::Failed,
    }
}

fn from_database(error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => StoreError::InUse,
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            StoreError::Damaged
        }
        DatabaseError::Storage(error) => from_storage(error),
        _ => StoreError::Damaged,
    }
}

fn from_transaction(error: TransactionError) -> StoreError {
    match error {
        TransactionError::Storage(error) => from_storage(error),
        _ => StoreError::Failed,
    }
}

fn from_table(error: TableError) -> StoreError {
    match error {
        TableError::Storage(error) => from_storage(error),
        _ => StoreError::Damaged,
    }
}

fn from_commit(error: CommitError) -> StoreError {
    match error {
        CommitError::Storage(error) => from_storage(error),
        _ => StoreError::Failed,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read},
        process::{Command, Stdio},
    };

    use super::*;

    const CHILD_FOLDER: &str = "POCKETCARD_TEST_STORE_CHILD";

    fn entries(store: &RedbStore) -> Vec<(String, Vec<u8>)> {
        store.load().unwrap().into_iter().map(|(key, value)| (key, value.to_vec())).collect()
    }

    /// A temporary folder of mode 0700 whatever the umask says.
    fn private() -> tempfile::TempDir {
        tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap()
    }

    fn put(store: &RedbStore, pairs: &[(&str, &[u8])]) {
        let mut batch = Batch::new();
        pairs.iter().for_each(|(key, value)| batch.put(key, value));
        store.commit(batch).unwrap();
    }

    #[test]
    fn what_was_committed_is_there_after_reopening() {
        let folder = private();
        let path = folder.path().join("phone");
        let store = RedbStore::open(&path).unwrap();
        put(&store, &[("a/1", b"one"), ("a/2", b"two")]);
        let mut batch = Batch::new();
        batch.put("a/1", b"uno");
        batch.delete("a/2");
        batch.delete("a/3");
        store.commit(batch).unwrap();
        drop(store);
        let store = RedbStore::open(&path).unwrap();
        assert_eq!(entries(&store), [("a/1".to_owned(), b"uno".to_vec())]);
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        assert_eq!(path.join(FILE_NAME).metadata().unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_second_opening_is_told_why() {
        let folder = private();
        let _first = RedbStore::open(folder.path()).unwrap();
        assert!(matches!(RedbStore::open(folder.path()), Err(StoreError::InUse)));
    }

    #[test]
    fn an_open_folder_is_refused() {
        let folder = private();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o750)).unwrap();
        fs::write(folder.path().join("letter"), b"not ours").unwrap();
        assert!(matches!(RedbStore::open(folder.path()), Err(StoreError::FolderNotPrivate)));
    }

    #[test]
    fn an_empty_folder_is_closed_to_others() {
        let folder = private();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        drop(RedbStore::open(folder.path()).unwrap());
        assert_eq!(folder.path().metadata().unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_foreign_file_is_refused() {
        let folder = private();
        fs::write(folder.path().join(FILE_NAME), vec![7_u8; 8192]).unwrap();
        assert!(matches!(RedbStore::open(folder.path()), Err(StoreError::Damaged)));
    }

    #[test]
    fn an_altered_file_is_refused() {
        let folder = private();
        let marker = [0x5A_u8; 64];
        put(&RedbStore::open(folder.path()).unwrap(), &[("piv/x", &marker)]);
        let path = folder.path().join(FILE_NAME);
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(marker.len()).position(|window| window == marker).unwrap();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(RedbStore::open(folder.path()).is_err());
    }

    /// The body of the child process of the test below: commits for ever, and prints a number only when its commit has returned.
    #[test]
    fn child_that_commits_until_it_is_killed() {
        use std::io::Write;

        let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
        let store = RedbStore::open(Path::new(&folder)).unwrap();
        let start = entries(&store).first().map_or(0, |(_, value)| u64::from_be_bytes(value[..8].try_into().unwrap()));
        let mut out = io::stderr();
        writeln!(out, "ready {start}").unwrap();
        for count in start + 1.. {
            let value = [count.to_be_bytes().as_slice(), &[0xEE; 3000]].concat();
            put(&store, &[("left", &value), ("right", &value)]);
            writeln!(out, "done {count}").unwrap();
        }
    }

    #[test]
    fn a_killed_process_loses_nothing_that_was_committed_and_leaves_no_half() {
        let folder = private();
        let mut kills_with_progress = 0;
        for round in 0_u32..12 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "store::durable::tests::child_that_commits_until_it_is_killed", "--nocapture"])
                .env(CHILD_FOLDER, folder.path())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stderr.take().unwrap());
            let mut acknowledged = 0;
            let mut seen = 0;
            // Rounds differ in how many commits pass, so that kills fall at different moments of a commit.
            while seen <= round % 5 {
                let mut line = String::new();
                assert!(lines.read_line(&mut line).unwrap() > 0, "the child ended by itself");
                if let Some(count) = line.strip_prefix("done ") {
                    acknowledged = count.trim().parse().unwrap();
                    seen += 1;
                }
            }
            std::thread::sleep(std::time::Duration::from_micros(u64::from(round) * 137));
            child.kill().unwrap();
            child.wait().unwrap();
            let mut rest = String::new();
            lines.read_to_string(&mut rest).unwrap();
            if let Some(count) = rest.lines().filter_map(|line| line.strip_prefix("done ")).next_back() {
                acknowledged = count.parse().unwrap();
                kills_with_progress += 1;
            }
            let store = RedbStore::open(folder.path()).unwrap();
            let stored = entries(&store);
            assert_eq!(stored.len(), 2);
            assert_eq!(stored[0].1, stored[1].1, "half of a commit");
            let count = u64::from_be_bytes(stored[0].1[..8].try_into().unwrap());
            assert!(count == acknowledged || count == acknowledged + 1, "stored {count}, acknowledged {acknowledged}");
        }
        println!("{kills_with_progress} of 12 kills came after further commits");
    }
}
