//! Waiting for a socket to appear without asking for it again and again.

use std::io;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// Tells when a file of one name appears in its folder.
///
/// Only a hint that makes reconnecting quick: the folder may be missing, and other systems than Linux have none, so
/// whoever waits also tries again after a while.
#[derive(Debug)]
pub struct Appearance {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    events: std::os::fd::OwnedFd,
    #[cfg(any(target_os = "linux", target_os = "android"))]
    name: std::ffi::CString,
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    never: std::convert::Infallible,
}

/// What an [`Appearance`] saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Nothing that concerns the file.
    Nothing,
    /// The file appeared.
    File,
    /// The folder itself is gone; make a new [`Appearance`].
    FolderGone,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Appearance {
    /// Watches for `path`.
    ///
    /// # Errors
    /// What the kernel says, for example that the folder does not exist.
    pub fn of(path: &Path) -> io::Result<Self> {
        use std::os::unix::ffi::OsStrExt;

        use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};

        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let events = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        add_watch(&events, folder, flags)?;
        Ok(Self { events, name: std::ffi::CString::new(name.as_bytes())? })
    }

    /// Readable when there is something to [`Appearance::look`] at.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Takes out everything that happened since the last look. Never blocks.
    pub fn look(&self) -> Seen {
        use rustix::fs::inotify::{ReadFlags, Reader};

        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.events, &mut buffer);
        let mut seen = Seen::Nothing;
        while let Ok(event) = reader.next() {
            if event.events().intersects(ReadFlags::IGNORED | ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF) {
                return Seen::FolderGone;
            }
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) || event.file_name() == Some(self.name.as_c_str()) {
                seen = Seen::File;
            }
        }
        seen
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Appearance {
    /// Watches for `path`.
    ///
    /// # Errors
    /// Always `Unsupported` here.
    pub fn of(_path: &Path) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Readable when there is something to [`Appearance::look`] at.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        match self.never {}
    }

    /// Takes out everything that happened since the last look.
    pub fn look(&self) -> Seen {
        match self.never {}
    }
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_the_file_itself_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let appearance = Appearance::of(&path).unwrap();
        assert_eq!(appearance.look(), Seen::Nothing);
        fs::write(folder.path().join("other"), "").unwrap();
        assert_eq!(appearance.look(), Seen::Nothing);
        fs::rename(folder.path().join("other"), &path).unwrap();
        assert_eq!(appearance.look(), Seen::File);
        assert_eq!(appearance.look(), Seen::Nothing);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert_eq!(appearance.look(), Seen::File);
    }

    #[test]
    fn a_folder_that_goes_away_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        assert!(Appearance::of(&inner.join("socket")).is_err());
        fs::create_dir(&inner).unwrap();
        let appearance = Appearance::of(&inner.join("socket")).unwrap();
        fs::remove_dir(&inner).unwrap();
        assert_eq!(appearance.look(), Seen::FolderGone);
    }
}
