//! One `pocketcard login` at a time: each writes what it read, and what follows from it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::LoginError;

/// In a folder of root's that the next boot empties, so that nobody else can hold it and none is left.
const FILE: &str = "run/pocketcard-login.lock";

/// How long the one that came first is waited for. It may be asking its person.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Held until it is dropped, or its process ends.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "the kernel unlocks what is closed")] File);

impl Lock {
    /// # Errors
    /// [`LoginError::Busy`] if another holds it for longer than `patience`; [`LoginError::File`] for whoever is not root.
    pub(super) fn take(root: &Path, patience: Duration) -> Result<Self, LoginError> {
        let path = root.join(FILE);
        let failed = |source| LoginError::File { what: "locking", path: path.clone(), source };
        let file = open(&path).map_err(failed)?;
        let (sender, receiver) = mpsc::sync_channel(0);
        // The kernel knows no limit for this wait. A thread that is late finds nobody to hand the file to, and closes it.
        thread::spawn(move || {
            let locked = file.lock().map(|()| file);
            let _ = sender.send(locked);
        });
        match receiver.recv_timeout(patience) {
            Ok(file) => Ok(Self(file.map_err(failed)?)),
            Err(_) => Err(LoginError::Busy),
        }
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_waits_for_the_first_and_gives_up_in_time() {
        let root = tempfile::tempdir().unwrap();
        let first = Lock::take(root.path(), PATIENCE).unwrap();
        let error = Lock::take(root.path(), Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, LoginError::Busy), "{error}");
        let second = thread::spawn({
            let root = root.path().to_owned();
            move || Lock::take(&root, PATIENCE).map(drop)
        });
        drop(first);
        second.join().unwrap().unwrap();
        Lock::take(root.path(), PATIENCE).unwrap();
    }

    #[test]
    fn it_is_no_link_to_a_file_of_somebody_else() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("run")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.path().join(FILE)).unwrap();
        assert!(matches!(Lock::take(root.path(), PATIENCE), Err(LoginError::File { .. })));
    }
}
