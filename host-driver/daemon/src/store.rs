//! This computer's identity and its pairs, on disk.
//!
//! A folder that only the daemon's user can enter, with one file for the identity and one for each phone. A file is
//! written beside the old one, flushed, and put in its place in one step, so that a crash leaves the one or the other.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use pocketcard_ipc::Address;
use pocketcard_ipc::accounts::UserId;
use pocketcard_protocol::channel::{PublicKey, StaticSecret};
use pocketcard_protocol::messages::peer_name;
use pocketcard_protocol::pairing::PairKeys;
use pocketcard_protocol::{Entropy, EntropyError};
use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

/// Begins every file of a phone; the digit is the version of the format.
const MAGIC: &[u8] = b"pocketcard pair 1\n";

/// No file of the store is longer.
const MAX_FILE: u64 = 4096;

/// One paired phone.
#[derive(Debug)]
pub struct Record {
    /// What both sides know; secret.
    pub keys: PairKeys,
    /// The phone's name on this computer.
    pub name: String,
    /// Its slot.
    pub slot: u32,
    /// Where it is dialled.
    pub address: Option<Address>,
    /// Whether the phone is known to have stored the pair too.
    pub confirmed: bool,
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Reading or writing failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder belongs to somebody else.
    #[error("{} belongs to user {owner}, not to the user that the daemon runs as", path.display())]
    Owner {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Another daemon uses the folder.
    #[error("another daemon already uses {}", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A file is damaged, or was written by a newer version.
    #[error("{} is damaged or was written by a newer version; move it away and pair that phone again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// No identity could be made.
    #[error("the random source failed")]
    Entropy(#[from] EntropyError),
}

/// The open store. No second daemon can open it.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    _lock: File,
}

impl Store {
    /// Opens the folder, and makes it private if it was not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { path, source }
        };
        let phones = folder.join("phones");
        DirBuilder::new().recursive(true).mode(0o700).create(&phones).map_err(io(&phones))?;
        for path in [folder, &phones] {
            let metadata = fs::symlink_metadata(path).map_err(io(path))?;
            if metadata.uid() != UserId::own().0 {
                return Err(StoreError::Owner { path: path.to_owned(), owner: metadata.uid() });
            }
            if metadata.permissions().mode() & 0o777 != 0o700 {
                fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(io(path))?;
            }
        }
        let lock_path = folder.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(io(&lock_path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StoreError::InUse { path: folder.to_owned() })?;
        let store = Self { folder: folder.to_owned(), _lock: lock };
        // What a crash left half written was never answered for, and has secrets in it.
        for path in store.files("new")? {
            fs::remove_file(&path).map_err(io(&path))?;
        }
        Ok(store)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// This computer's identity; a new one at the first start.
    ///
    /// # Errors
    /// [`StoreError`]. An identity that cannot be read is never replaced: every phone would refuse the new one.
    pub fn identity(&self, entropy: &dyn Entropy) -> Result<StaticSecret, StoreError> {
        let path = self.folder.join("identity");
        match read(&path)? {
            Some(bytes) => {
                let bytes = <&[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| StoreError::Damaged { path })?;
                Ok(StaticSecret::from_bytes(bytes))
            }
            None => {
                let identity = StaticSecret::generate(entropy)?;
                write(&path, identity.to_bytes().as_slice())?;
                Ok(identity)
            }
        }
    }

    /// Every pair, in the order of the slots, and why others cannot be read. One that cannot does not take the rest
    /// away: the computer's login may hang on them.
    ///
    /// # Errors
    /// [`StoreError`] if the folder cannot be listed.
    pub fn phones(&self) -> Result<(Vec<Record>, Vec<StoreError>), StoreError> {
        let (mut records, mut unusable) = (Vec::new(), Vec::new());
        for path in self.files("pair")? {
            let record = match read(&path) {
                Ok(Some(bytes)) => decode(&bytes).ok_or(StoreError::Damaged { path }),
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            match record {
                Ok(record) => records.push(record),
                Err(error) => unusable.push(error),
            }
        }
        records.sort_by_key(|record| record.slot);
        Ok((records, unusable))
    }

    fn files(&self, extension: &str) -> Result<Vec<PathBuf>, StoreError> {
        let folder = self.folder.join("phones");
        let io = |source| StoreError::Io { path: folder.clone(), source };
        let mut paths = Vec::new();
        for entry in fs::read_dir(&folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if path.extension().is_some_and(|found| found == extension) {
                paths.push(path);
            }
        }
        Ok(paths)
    }

    /// Stores a pair, durably on return; one of the same phone is replaced.
    ///
    /// # Errors
    /// [`StoreError`]; what was stored before is then still there.
    pub fn save(&self, record: &Record) -> Result<(), StoreError> {
        write(&self.path(&record.keys.peer), &encode(record))
    }

    /// Deletes a pair, durably on return.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remove(&self, phone: &PublicKey) -> Result<(), StoreError> {
        let path = self.path(phone);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(StoreError::Io { path, source }),
            Ok(()) => flush_folder(&path),
        }
    }

    fn path(&self, phone: &PublicKey) -> PathBuf {
        self.folder.join("phones").join(format!("{}.pair", id(phone)))
    }
}

/// A public key in hexadecimal: what phones are called in files and messages.
pub fn id(key: &PublicKey) -> String {
    key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encode(record: &Record) -> Zeroizing<Vec<u8>> {
    let keys = record.keys.to_bytes();
    let address = record.address.as_ref().map(Address::to_string).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAGIC.len() + keys.len() + record.name.len() + 300));
    bytes.extend_from_slice(MAGIC);
    for field in [
        &record.slot.to_be_bytes()[..],
        &[u8::from(record.confirmed)],
        record.name.as_bytes(),
        address.as_bytes(),
        &keys,
    ] {
        // No field comes near 64 KiB: names have 64 bytes, addresses a socket path.
        bytes.extend_from_slice(&u16::try_from(field.len()).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend_from_slice(field);
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Record> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let mut field = || {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (field, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        rest = after;
        Some(field)
    };
    let slot = u32::from_be_bytes(field()?.try_into().ok()?);
    let confirmed = match field()? {
        [0] => false,
        [1] => true,
        _ => return None,
    };
    let name = peer_name(std::str::from_utf8(field()?).ok()?);
    let address = match std::str::from_utf8(field()?).ok()? {
        "" => None,
        text => Some(text.parse().ok()?),
    };
    let keys = PairKeys::from_bytes(field()?).ok()?;
    rest.is_empty().then_some(Record { keys, name, slot, address, confirmed })
}

fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    let io = |source| StoreError::Io { path: path.to_owned(), source };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(io)?,
    };
    // Room from the start, so that no half-read secret stays behind in memory that grew away.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(MAX_FILE).unwrap_or_default() + 1));
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_FILE { Err(StoreError::Damaged { path: path.to_owned() }) } else { Ok(Some(bytes)) }
}

/// Puts a file in its place in one step, durably on return; only this user can read it.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let io = |source| StoreError::Io { path: path.to_owned(), source };
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).map_err(io)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&fresh, path));
    if let Err(error) = written {
        // A full disk, most likely: what got onto it is of no use, and secret.
        let _ = fs::remove_file(&fresh);
        return Err(io(error));
    }
    flush_folder(path)
}

fn flush_folder(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(path);
    let flush = || File::open(folder)?.sync_all();
    flush().map_err(|source| StoreError::Io { path: folder.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::SystemEntropy;

    fn record(peer: u8, slot: u32) -> Record {
        let mut keys = vec![1];
        keys.extend([peer; 32]);
        keys.extend([7; 64]);
        Record {
            keys: PairKeys::from_bytes(&keys).unwrap(),
            name: "Ann's phone".into(),
            slot,
            address: Some("unix:/run/phone".parse().unwrap()),
            confirmed: false,
        }
    }

    #[test]
    fn identity_and_pairs_survive_and_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let store = Store::open(&path).unwrap();
        let identity = store.identity(&SystemEntropy).unwrap();
        store.save(&record(1, 3)).unwrap();
        store.save(&record(2, 0)).unwrap();
        store.save(&Record { name: "Other name".into(), confirmed: true, ..record(1, 3) }).unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.identity(&SystemEntropy).unwrap().public(), identity.public());
        let phones = store.phones().unwrap().0;
        assert_eq!(phones.iter().map(|phone| phone.slot).collect::<Vec<_>>(), [0, 3]);
        assert_eq!((phones[1].name.as_str(), phones[1].confirmed), ("Other name", true));
        assert_eq!(*phones[1].keys.to_bytes(), *record(1, 3).keys.to_bytes());
        store.remove(&PublicKey::from([1; 32])).unwrap();
        store.remove(&PublicKey::from([1; 32])).unwrap();
        assert_eq!(store.phones().unwrap().0.len(), 1);
        for (file, mode) in [("", 0o700), ("phones", 0o700), ("identity", 0o600)] {
            assert_eq!(fs::metadata(path.join(file)).unwrap().permissions().mode() & 0o777, mode, "{file}");
        }
        for file in fs::read_dir(path.join("phones")).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_folder_that_was_open_is_closed_and_a_second_daemon_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let _store = Store::open(folder.path()).unwrap();
        assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(Store::open(folder.path()), Err(StoreError::InUse { .. })));
    }

    #[test]
    fn damage_is_reported_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        fs::write(folder.path().join("identity"), [1; 31]).unwrap();
        assert!(matches!(store.identity(&SystemEntropy), Err(StoreError::Damaged { .. })));
        assert_eq!(fs::read(folder.path().join("identity")).unwrap(), [1; 31]);
        store.save(&record(1, 1)).unwrap();
        let damaged = folder.path().join("phones/x.pair");
        fs::write(&damaged, b"pocketcard pair 2\n").unwrap();
        let (phones, unusable) = store.phones().unwrap();
        assert_eq!(phones.len(), 1, "one damaged file took another phone away");
        assert!(matches!(unusable.as_slice(), [StoreError::Damaged { path }] if *path == damaged), "{unusable:?}");
        assert_eq!(fs::read(&damaged).unwrap(), b"pocketcard pair 2\n");
    }

    #[test]
    fn a_crash_in_the_middle_of_writing_leaves_the_old_pair() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.save(&record(1, 1)).unwrap();
        let fresh = store.path(&PublicKey::from([1; 32])).with_extension("new");
        fs::write(&fresh, b"half").unwrap();
        assert_eq!(store.phones().unwrap().0.len(), 1);
        store.save(&record(1, 2)).unwrap();
        assert_eq!(store.phones().unwrap().0[0].slot, 2);
        fs::write(&fresh, b"half").unwrap();
        drop(store);
        Store::open(folder.path()).unwrap();
        assert!(!fs::exists(&fresh).unwrap(), "the half-written secrets stay");
    }

    #[test]
    fn a_pair_that_cannot_be_written_leaves_the_old_one_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.save(&record(1, 1)).unwrap();
        let path = store.path(&PublicKey::from([1; 32]));
        fs::remove_file(&path).unwrap();
        // A folder cannot be replaced by a file: the last step fails, as any may on a full disk.
        fs::create_dir(&path).unwrap();
        assert!(matches!(store.save(&record(1, 2)), Err(StoreError::Io { .. })));
        assert_eq!(fs::read_dir(folder.path().join("phones")).unwrap().count(), 1, "half a pair stays");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_pair_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..250) {
            let mut magic = MAGIC.to_vec();
            magic.extend(&bytes);
            let _ = decode(&magic);
            let good = encode(&record(1, 1));
            prop_assert!(decode(&good[..cut.min(good.len() - 1)]).is_none());
        }
    }
}
