//! A pcscd of our own, in a mount namespace of its own, so that it never meets the machine's.

use std::ffi::{CStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pocketcard_ipc::accounts::Accounts;
use rustix::fs::inotify;

use crate::DevError;
use crate::error::Context;
use crate::folder::{Folder, write_atomically};
use crate::process::{Process, Spec, readable};
use crate::tools::{knows_disable_polkit, system_program};

/// What the reader is called. PC/SC adds " 00 00", " 00 01" for the slots.
pub const READER: &str = "Pocketcard dev";
/// How long pcscd may take to listen.
const LISTEN_LIMIT: Duration = Duration::from_secs(10);

/// Runs inside the new mount namespace. pcscd's socket path is compiled in, so what lies there is replaced.
const ENTER: &str = "mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir /run/pcscd \
                     && mount --bind \"$0\" /run/pcscd && exec \"$@\"";
/// The same for a system's own pcscd, which has to find the system's bus, and polkit there.
const ENTER_SYSTEM: &str =
    "mount --make-rprivate / && mkdir -p /run/pcscd && mount --bind \"$0\" /run/pcscd && exec \"$@\"";
/// The death signal is set again at the very end: the kernel forgets it when the namespace grants capabilities, and when the
/// user changes.
const TIED: [&str; 4] = ["setpriv", "--pdeathsig", "KILL", "--"];
/// Beside its user, what pcscd's unit takes from it.
const UNPRIVILEGED: [&str; 4] = ["--init-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"];

/// The private pcscd, with handles to kill and restart it.
#[derive(Debug)]
pub struct Pcscd {
    process: Option<Process>,
    socket: PathBuf,
    log: PathBuf,
    program: PathBuf,
    unshare: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    folder: PathBuf,
    /// Whom it runs as, if it runs as a system's own does.
    user: Option<String>,
}

impl Pcscd {
    /// Writes the reader's configuration and starts pcscd with it.
    ///
    /// - `user`: whom it runs as, as a system's own, which asks polkit if it can; only root may say so. Else it is this
    ///   process's user, and everybody who gets through to its socket is let in.
    pub(crate) fn start(
        folder: &Folder,
        driver: &Path,
        device: &str,
        level: &str,
        user: Option<&str>,
    ) -> Result<Self, DevError> {
        // Under a name that pcscd's configuration can hold, wherever the workspace lies.
        let link = folder.join("libifd_pocketcard.so");
        symlink(driver, &link).context("naming the driver")?;
        let configuration = reader_configuration(device, &link);
        write_atomically(&folder.join("reader.conf.d/pocketcard-dev"), &configuration, 0o644)?;
        Self::start_as_configured(folder, level, user)
    }

    /// Starts pcscd with whatever readers the folder's configuration names.
    fn start_as_configured(folder: &Folder, level: &str, user: Option<&str>) -> Result<Self, DevError> {
        let program = system_program("pcscd", "pcscd")?;
        let unshare = system_program("unshare", "util-linux")?;
        system_program("mount", "mount")?;
        let mut arguments = vec!["--foreground".into(), "--info".into(), "--config".into()];
        arguments.push(folder.join("reader.conf.d").into());
        if user.is_none() && knows_disable_polkit(&program) {
            arguments.push("--disable-polkit".into());
        }
        let mut pcscd = Self {
            process: None,
            socket: folder.join("run/pcscd.comm"),
            log: folder.log("pcscd"),
            program,
            unshare,
            arguments,
            environment: vec![
                // No USB drivers: the readers that are plugged in belong to the machine's own pcscd.
                ("PCSCLITE_HP_DROPDIR", folder.join("usb-drivers").into()),
                ("RUST_LOG", level.into()),
            ],
            folder: folder.path().to_path_buf(),
            user: None,
        };
        match user {
            Some(user) => pcscd.restart_as(user)?,
            None => pcscd.restart()?,
        }
        Ok(pcscd)
    }

    /// Starts pcscd as another user, in a folder that is this user's. Only root can.
    ///
    /// # Errors
    /// Those of [`Self::restart`]; [`DevError::NoSuchUser`].
    pub fn restart_as(&mut self, user: &str) -> Result<(), DevError> {
        let number = Accounts::load().user(user).ok_or_else(|| DevError::NoSuchUser { name: user.to_owned() })?;
        self.kill();
        chown(self.folder.join("run"), Some(number.0), None).context("giving pcscd its folder")?;
        self.user = Some(user.to_owned());
        self.restart()
    }

    /// The socket that clients are to use, by `PCSCLITE_CSOCK_NAME`.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Starts pcscd (again) and returns when it listens. One that still runs is killed first.
    ///
    /// # Errors
    /// [`DevError::ChildEnded`] with pcscd's last words if it does not like its configuration or the namespace is
    /// forbidden; [`DevError::TimedOut`] after 10 s.
    pub fn restart(&mut self) -> Result<(), DevError> {
        self.kill();
        let as_root = rustix::process::geteuid().is_root();
        let mut arguments: Vec<OsString> = vec![if as_root { "-m" } else { "-Urm" }.into(), "--".into()];
        let enter = if self.user.is_some() { ENTER_SYSTEM } else { ENTER };
        arguments.extend(["sh", "-c", enter].map(OsString::from));
        arguments.push(self.folder.join("run").into());
        if let Some(user) = self.user.as_deref().filter(|user| *user != "root") {
            arguments.extend(["setpriv", "--reuid", user, "--regid", user].map(OsString::from));
            arguments.extend(UNPRIVILEGED.map(OsString::from));
            arguments.push("--".into());
        }
        arguments.extend(TIED.map(OsString::from));
        arguments.push(self.program.clone().into());
        arguments.extend(self.arguments.iter().cloned());
        let watch = Watch::new(&self.folder.join("run"))?;
        let mut process = Process::start(Spec {
            name: "pcscd".to_owned(),
            program: &self.unshare,
            arguments,
            environment: self.environment.clone(),
            log: self.log.clone(),
            talks: false,
        })?;
        watch.until_listening(&self.socket, &mut process).map_err(namespace_forbidden)?;
        self.process = Some(process);
        Ok(())
    }

    /// Kills pcscd with SIGKILL and clears its socket away, as a boot would. Does nothing if it does not run.
    pub fn kill(&mut self) {
        self.process = None;
        for left in ["run/pcscd.comm", "run/pcscd.pid"] {
            let _ = std::fs::remove_file(self.folder.join(left));
        }
    }

    /// Ends pcscd as the system does when it shuts down: SIGTERM, then SIGKILL after five seconds.
    pub fn terminate(&mut self) {
        if let Some(process) = &mut self.process {
            process.terminate();
        }
        self.kill();
    }

    /// The process, to signal it; `None` between kill and restart.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }
}

/// Tells a pcscd that ended from a namespace that was never made.
fn namespace_forbidden(error: DevError) -> DevError {
    let last = match &error {
        DevError::ChildEnded { tail, .. } => tail.lines().last().unwrap_or_default(),
        _ => "",
    };
    if last.starts_with("unshare:") || last.starts_with("mount:") {
        return DevError::NamespaceForbidden { reason: last.to_owned() };
    }
    error
}

/// The file that makes pcscd load our driver. Spec: reader.conf(5).
fn reader_configuration(device: &str, driver: &Path) -> String {
    format!("FRIENDLYNAME \"{READER}\"\nDEVICENAME {device}\nLIBPATH {}\n", driver.display())
}

/// Waits for a socket to appear, by inotify.
struct Watch(OwnedFd);

impl Watch {
    fn new(folder: &Path) -> Result<Self, DevError> {
        let inotify = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)
            .context("watching a folder")?;
        let flags = inotify::WatchFlags::CREATE | inotify::WatchFlags::ATTRIB;
        inotify::add_watch(&inotify, folder, flags).context("watching a folder")?;
        Ok(Self(inotify))
    }

    /// Returns when somebody accepts connections at `socket`.
    fn until_listening(self, socket: &Path, process: &mut Process) -> Result<(), DevError> {
        let deadline = Instant::now() + LISTEN_LIMIT;
        // pcscd binds (an event), listens, and changes the mode (another event): after the last one a connection works.
        while UnixStream::connect(socket).is_err() {
            if !process.is_running() {
                return Err(process.ended_early());
            }
            if !readable(&[&self.0, process.pidfd()], deadline) {
                return Err(process.timed_out("listening on its socket", LISTEN_LIMIT));
            }
            self.drain();
        }
        Ok(())
    }

    fn drain(&self) {
        let mut buffer = [MaybeUninit::uninit(); 1024];
        let mut events = inotify::Reader::new(&self.0, &mut buffer);
        while events.next().is_ok_and(|event| event.file_name().map(CStr::to_bytes).is_some()) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_has_only_what_pcscd_parses() {
        let text = reader_configuration("/tmp/x/driver.sock:1", Path::new("/opt/libifd_pocketcard.so"));
        assert_eq!(
            text,
            "FRIENDLYNAME \"Pocketcard dev\"\nDEVICENAME /tmp/x/driver.sock:1\nLIBPATH /opt/libifd_pocketcard.so\n"
        );
    }

    #[test]
    fn pcscd_starts_and_restarts_apart_from_the_machines() {
        if system_program("pcscd", "pcscd").is_err() {
            println!("SKIPPED: pcscd is not installed");
            return;
        }
        let folder = Folder::create(None).unwrap();
        // pcscd leaves when a LIBPATH does not exist, and says so.
        match Pcscd::start(&folder, Path::new("/nonexistent/driver.so"), "/dev/null", "info", None) {
            Err(DevError::ChildEnded { process, tail, .. }) => {
                assert_eq!(process, "pcscd");
                assert!(tail.contains("libifd_pocketcard.so"), "{tail}");
            }
            Err(DevError::NamespaceForbidden { reason }) => {
                println!("SKIPPED: {reason}");
                return;
            }
            other => panic!("{other:?}"),
        }
        std::fs::remove_file(folder.join("reader.conf.d/pocketcard-dev")).unwrap();
        let mut pcscd = Pcscd::start_as_configured(&folder, "info", None).unwrap();
        assert!(UnixStream::connect(pcscd.socket()).is_ok());
        pcscd.kill();
        assert!(UnixStream::connect(pcscd.socket()).is_err());
        pcscd.restart().unwrap();
        assert!(UnixStream::connect(pcscd.socket()).is_ok());
    }
}
