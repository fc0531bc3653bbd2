//! The folder of one environment: 0700, gone when the environment is gone, however that ends.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::{env, mem};

use pocketcard_ipc::Address;
use pocketcard_ipc::driver::{DeviceName, Trust};
use tempfile::TempDir;

use crate::DevError;
use crate::error::Context;
use crate::tools::system_program;

/// The longest name of one of our own sockets below the folder, with room for two digits.
const LONGEST_SOCKET: &str = "/phone-00.sock";
/// pcscd's socket. Its path may be as long as `sun_path` without its closing zero.
const PCSCD_SOCKET: (&str, usize) = ("/run/pcscd.comm", 107);
/// What the folder itself is called.
const PREFIX: &str = "pocketcard-dev-";
/// What tempfile adds to that.
const RANDOM: usize = 6;

/// A 0700 folder that a keeper process removes even if this process is killed.
#[derive(Debug)]
pub(crate) struct Folder {
    path: TempDir,
    logs: PathBuf,
    keeper: Child,
    /// The keeper waits for this pipe to close, which the kernel does whatever happens to us.
    lifeline: Option<ChildStdin>,
}

impl Folder {
    /// Makes the folder, with everything below it that pcscd and the others expect, and starts its keeper.
    ///
    /// - `keep_logs`: where the logs go instead, to stay after the end.
    pub(crate) fn create(keep_logs: Option<&Path>) -> Result<Self, DevError> {
        let path = tempfile::Builder::new()
            .prefix(PREFIX)
            .rand_bytes(RANDOM)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent(env::temp_dir()))
            .context("making the environment's folder")?;
        for name in ["run", "reader.conf.d", "usb-drivers", "daemon"] {
            fs::create_dir(path.path().join(name)).context("making the environment's folder")?;
        }
        let logs = keep_logs.map_or_else(|| path.path().join("logs"), Path::to_path_buf);
        fs::create_dir_all(&logs).context("making the folder for the logs")?;
        let logs = fs::canonicalize(logs).context("making the folder for the logs")?;

        // In a session of its own: Ctrl-C in the terminal must not reach it before its work is done.
        let mut keeper = Command::new(system_program("setsid", "util-linux")?)
            .args(["sh", "-c", "cat >/dev/null; rm -rf -- \"$0\" || { sleep 1; rm -rf -- \"$0\"; }"])
            .arg(path.path())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting the keeper of the environment's folder")?;
        let lifeline = keeper.stdin.take();
        Ok(Self { path, logs, keeper, lifeline })
    }

    /// Lets every user through, who must know what lies there by name.
    pub(crate) fn let_through(&self) -> Result<(), DevError> {
        fs::set_permissions(self.path(), Permissions::from_mode(0o711)).context("opening the environment's folder")
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        self.path.path()
    }

    /// A file's path below it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.path().join(name)
    }

    /// The log of one process.
    pub(crate) fn log(&self, process: &str) -> PathBuf {
        self.logs.join(format!("{process}.log"))
    }

    /// Where the logs lie.
    pub(crate) fn logs(&self) -> &Path {
        &self.logs
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The keeper removes the folder, too: whoever comes second finds nothing, which both accept.
        drop(mem::take(&mut self.lifeline));
        let _ = self.keeper.wait();
    }
}

/// The temporary folder, or /tmp where that cannot be used: the private mount namespace hides /run, a socket's path has
/// a limit, and pcscd's configuration takes few characters.
fn parent(temporary: PathBuf) -> PathBuf {
    let folder = fs::canonicalize(&temporary).unwrap_or(temporary);
    let length = folder.as_os_str().len() + 1 + PREFIX.len() + RANDOM;
    let (pcscd_socket, longest) = PCSCD_SOCKET;
    let fits = length + LONGEST_SOCKET.len() <= Address::MAX_PATH && length + pcscd_socket.len() <= longest;
    let usable = fits && DeviceName::new(&folder, 1, Trust::OwnUser).is_ok() && !folder.starts_with("/run");
    if usable { folder } else { PathBuf::from("/tmp") }
}

/// Writes a file so that a reader sees all of it or nothing: first under a dot-name, then renamed.
///
/// pcscd parses every regular file in its folder that has no dot-name, and ends at a bad one.
pub(crate) fn write_atomically(path: &Path, content: &str, mode: u32) -> Result<(), DevError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder)
        .context("writing a configuration file")?;
    file.write_all(content.as_bytes()).context("writing a configuration file")?;
    file.persist(path).map_err(|error| error.error).context("writing a configuration file")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_private_and_goes_away() {
        let folder = Folder::create(None).unwrap();
        let path = folder.path().to_path_buf();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(folder.join("run/file"), "x").unwrap();
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn the_keeper_removes_the_folder_of_a_process_that_was_killed() {
        let mut folder = Folder::create(None).unwrap();
        let path = folder.path().to_path_buf();
        // What the kernel does when we die: the pipe closes, no destructor runs.
        drop(folder.lifeline.take());
        assert!(folder.keeper.wait().unwrap().success());
        assert!(!path.exists());
    }

    #[test]
    fn a_temporary_folder_that_cannot_be_used_is_replaced() {
        let outer = TempDir::new().unwrap();
        let of_length = |length: usize| {
            let folder = outer.path().join("x".repeat(length - outer.path().as_os_str().len() - 1));
            fs::create_dir(&folder).unwrap();
            folder
        };
        // The longest that leaves room for "/pocketcard-dev-", six characters, and "/phone-00.sock" in 103.
        let longest = of_length(103 - 16 - 6 - 14);
        assert_eq!(parent(longest.clone()), longest);
        let path = format!("unix:{}/{PREFIX}123456{LONGEST_SOCKET}", longest.display());
        assert!(path.parse::<Address>().is_ok());
        let spaces = outer.path().join("my folder");
        fs::create_dir(&spaces).unwrap();
        for unusable in [of_length(103 - 16 - 6 - 13), spaces, "/run".into()] {
            assert_eq!(parent(unusable.clone()), Path::new("/tmp"), "{unusable:?}");
        }
    }

    #[test]
    fn logs_can_be_kept() {
        let kept = TempDir::new().unwrap();
        let folder = Folder::create(Some(&kept.path().join("logs"))).unwrap();
        fs::write(folder.log("daemon"), "line").unwrap();
        drop(folder);
        assert_eq!(fs::read_to_string(kept.path().join("logs/daemon.log")).unwrap(), "line");
    }

    #[test]
    fn files_are_written_whole() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("file");
        write_atomically(&path, "a", 0o600).unwrap();
        write_atomically(&path, "b", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "b");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
