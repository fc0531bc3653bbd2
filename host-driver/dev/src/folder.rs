//! The folder of one environment: 0700, gone when the environment is gone, however that ends.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::{env, mem};

use tempfile::TempDir;

use crate::DevError;
use crate::error::Context;
use crate::tools::system_program;

/// The longest name of a socket below the folder, with room for two digits.
const LONGEST_SOCKET: &str = "/run/pcscd.comm";
/// What a socket's path may have (`sun_path` without its closing zero).
const MAX_SOCKET_PATH: usize = 107;

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
            .prefix("pocketcard-dev-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent())
            .context("making the environment's folder")?;
        if path.path().as_os_str().len() + LONGEST_SOCKET.len() > MAX_SOCKET_PATH {
            return Err(DevError::PathTooLong { folder: path.path().to_path_buf() });
        }
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

/// The temporary folder, but never below /run: the private mount namespace hides that.
fn parent() -> PathBuf {
    let folder = env::temp_dir();
    let real = fs::canonicalize(&folder).unwrap_or(folder);
    if real.starts_with("/run") { PathBuf::from("/tmp") } else { real }
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
