//! The machine's virtual consoles. LightDM starts each of its screens on one and goes by which is in front, also if the screen is
//! a virtual one, so that a lock without them opens at once. They are the only thing here that is not the throw-away machine's.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use rustix::fs::OFlags;

use crate::failure::{Context, Failure};
use crate::world::{eventually, ok};

/// For a few other runs, of half a minute each.
const TURN_LIMIT: Duration = Duration::from_secs(300);
const CONSOLES: &str = "/dev/tty0";
/// The name of the one that is in front.
const ACTIVE: &str = "/sys/class/tty/tty0/active";
/// Puts one in front: VT_ACTIVATE. Spec: ioctl_console(2)
const ACTIVATE: &str = "import fcntl, os, sys
fcntl.ioctl(os.open('/dev/tty0', os.O_RDONLY | os.O_NOCTTY), 0x5606, int(sys.argv[1]))";

/// The consoles, which are this story's until they are as they were.
pub(super) struct Consoles {
    active: String,
    _lock: File,
}

impl Consoles {
    /// Waits until no other run uses them.
    pub(super) fn take() -> Result<Self, Failure> {
        let lock = File::options().read(true).custom_flags(OFlags::NOCTTY.bits().cast_signed()).open(CONSOLES);
        let Ok(lock) = lock else {
            return Err(Failure::CannotRun("without virtual consoles LightDM cannot lock a session".to_owned()));
        };
        eventually("other runs to be done with the consoles", TURN_LIMIT, || lock.try_lock().is_ok())?;
        let active = fs::read_to_string(ACTIVE).context("looking at the consoles")?;
        Ok(Self { active: active.trim().trim_start_matches("tty").to_owned(), _lock: lock })
    }
}

impl Drop for Consoles {
    fn drop(&mut self) {
        let _ = ok("python3", ["-c", ACTIVATE, &self.active]);
    }
}
