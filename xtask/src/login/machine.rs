//! The throw-away machine: a Debian in a folder with all that people sign in to, entered through an overlay in memory, in
//! namespaces of its own. Nothing of the machine it runs on changes, and nothing of it stays.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::problem::Context;
use crate::steps::say;
use crate::workspace::{command, root as workspace, run, target};
use crate::{Problem, debian, own};

/// What people sign in with and to at a terminal.
const TERMINAL: [&str; 28] = [
    // PC/SC and PAM
    "pcscd",
    "opensc",
    "opensc-pkcs11",
    "libpcsclite1",
    "libpam-pkcs11",
    "libpam-modules",
    "pamtester",
    "sudo",
    "login",
    "util-linux",
    "mount",
    "procps",
    // sssd
    "sssd-common",
    "sssd-proxy",
    "sssd-tools",
    "libpam-sss",
    "libnss-sss",
    "dbus",
    // ssh, git, curl
    "openssl",
    "openssh-client",
    "openssh-server",
    "git",
    "curl",
    "libengine-pkcs11-openssl",
    "ca-certificates",
    // Disks, and sudo by a forwarded agent
    "cryptsetup-bin",
    "systemd",
    "libpam-ssh-agent-auth",
];

/// What they sign in with and to on a screen.
const DESKTOP: [&str; 24] = [
    // X, a browser, greeters
    "xvfb",
    "xdotool",
    "imagemagick",
    "x11-utils",
    "xterm",
    "openbox",
    "dbus-x11",
    "accountsservice",
    "lightdm",
    "lightdm-gtk-greeter",
    "chromium",
    "chromium-sandbox",
    "libnss3-tools",
    "python3-minimal",
    "fonts-dejavu-core",
    "adwaita-icon-theme",
    "i3lock",
    "xss-lock",
    // What these leave to recommendations
    "libpam-runtime",
    "libgdk-pixbuf2.0-bin",
    "librsvg2-common",
    "xauth",
    "x11-xserver-utils",
    "hicolor-icon-theme",
];

/// What has to be named in a release, since others bring it along or have no need of it.
const OF_RELEASE: [(&str, &[&str]); 1] = [("trixie", &["polkitd", "systemd-cryptsetup"])];

/// What is installed in the root of a release.
pub(super) fn packages(release: &str, desktop: bool) -> Vec<&'static str> {
    let more = OF_RELEASE.iter().filter(|(name, _)| *name == release).flat_map(|(_, packages)| *packages);
    let desktop = DESKTOP.iter().filter(|_| desktop);
    TERMINAL.iter().chain(desktop).chain(more).copied().collect()
}

/// Packages of a root start no services.
const POLICY: &str = "#!/bin/sh\nexit 101\n";

/// The programs that the machine gets, copied, so that a build meanwhile changes nothing.
const PROGRAMS: [&str; 5] = ["pocketcard", "pocketcardd", "virtual-phone", "libifd_pocketcard.so", "login-story"];

/// A root with all that people sign in to, and what one run has to itself: its programs and its results.
///
/// Several runs may go on in one checkout. What they share is the root, which nobody changes while one of them is in it.
#[derive(Debug)]
pub(super) struct Machine {
    root: PathBuf,
    own: TempDir,
    /// Held for reading as long as this value lives.
    _lock: File,
}

impl Machine {
    /// Makes the root, or finds the one of an earlier run, and copies our programs.
    pub(super) fn make(folder: &Path, release: &str, desktop: bool) -> Result<Self, Problem> {
        let (root, lock) = root(folder, release, &[("login", &packages(release, desktop))])?;
        fs::create_dir_all(folder.join("upper")).context("making a folder to enter it")?;
        let own = own::folder(folder)?;
        // Users of the machine start the programs, too.
        fs::set_permissions(own.path(), Permissions::from_mode(0o755)).context("making a folder for this run")?;
        let machine = Self { root, own, _lock: lock };
        for folder in [machine.programs(), machine.results()] {
            fs::create_dir(folder).context("making a folder for this run")?;
        }
        for name in PROGRAMS {
            fs::copy(target().join("debug").join(name), machine.programs().join(name))
                .context(format!("copying {name}"))?;
        }
        Ok(machine)
    }

    fn programs(&self) -> PathBuf {
        self.own.path().join("bin")
    }

    /// Where the stories leave pictures. It goes away with this value.
    pub(super) fn results(&self) -> PathBuf {
        self.own.path().join("results")
    }

    /// A command in a fresh copy of the machine, without a network but loopback.
    pub(super) fn enter(&self, words: &[&str]) -> Command {
        enter(&self.root, &self.root.with_file_name("upper"), [&self.programs(), &self.results()], words)
    }
}

/// - `memory`: an empty folder.
/// - `ours`: our programs, and where results go.
fn enter(root: &Path, memory: &Path, ours: [&Path; 2], words: &[&str]) -> Command {
    // It ends with us: unshare itself takes no notice of Ctrl-C.
    let mut unshare = command("setpriv", ["--pdeathsig", "KILL", "--", "unshare", "--fork", "--kill-child"]);
    unshare.args(["--mount", "--pid", "--net", "--uts", "--ipc", "--propagation", "private"]);
    unshare.args(["--", "sh", "xtask/src/login/enter.sh"]).args([root, memory]).args(ours);
    unshare.arg(workspace().join("docs")).args(words);
    unshare
}

/// Whether machines can be entered here: tries it with a copy of this very machine.
///
/// # Errors
/// [`Problem::Needs`] if this user may not make namespaces, mount in them, or lay an overlay over a folder, as in most containers.
pub(super) fn can_enter(folder: &Path) -> Result<(), Problem> {
    if !rustix::process::geteuid().is_root() {
        return Err(Problem::Needs("only root can make a root of Debian and enter it".to_owned()));
    }
    crate::install::apt(&["util-linux", "mount", "iproute2"])?;
    let memory = folder.join("upper");
    fs::create_dir_all(&memory).context("making a folder to enter it")?;
    let empty = own::folder(folder)?;
    let output = enter(Path::new("/"), &memory, [empty.path(), empty.path()], &["true"]).output();
    let output = output.context("entering a machine in this one")?;
    let said = String::from_utf8_lossy(&output.stderr);
    match said.lines().next_back() {
        _ if output.status.success() => Ok(()),
        line => Err(Problem::Needs(format!(
            "no machine can be made in this one: {}",
            line.unwrap_or("it does not say why")
        ))),
    }
}

/// Packages that a root needs, by what needs them.
pub(super) type Needs<'a> = &'a [(&'a str, &'a [&'a str])];

/// Makes the root of a release with packages, or finds the one of an earlier run.
///
/// Nobody changes it until the file is closed.
pub(super) fn root(folder: &Path, release: &str, needs: Needs<'_>) -> Result<(PathBuf, File), Problem> {
    fs::create_dir_all(folder).context("making a folder for a root of Debian")?;
    let root = folder.join(release);
    let lock = File::create(folder.join(format!("{release}.lock"))).context("locking the root")?;
    lock.lock_shared().context("locking the root")?;
    while !is_complete(&root, needs) {
        lock.unlock().context("unlocking the root")?;
        if lock.try_lock().is_err() {
            say("    waiting for other runs to leave the root");
            lock.lock().context("locking the root")?;
        }
        // Another run may have made it meanwhile.
        if !is_complete(&root, needs) {
            debian::root(folder, release, "")?;
            install(&root, needs)?;
        }
        lock.unlock().context("unlocking the root")?;
        lock.lock_shared().context("locking the root")?;
    }
    Ok((root, lock))
}

/// Says which packages were installed in a root.
fn note(root: &Path, what: &str) -> PathBuf {
    root.join("var/cache/apt").join(format!("pocketcard-{what}"))
}

fn is_complete(root: &Path, needs: Needs<'_>) -> bool {
    needs
        .iter()
        .all(|(what, packages)| fs::read_to_string(note(root, what)).is_ok_and(|text| text == packages.join(" ")))
}

fn install(root: &Path, needs: Needs<'_>) -> Result<(), Problem> {
    let policy = root.join("usr/sbin/policy-rc.d");
    fs::write(&policy, POLICY).context("writing policy-rc.d")?;
    fs::set_permissions(&policy, Permissions::from_mode(0o755)).context("writing policy-rc.d")?;
    let chroot = |words: &[&str]| {
        let mut chroot = command("chroot", [root]);
        run(chroot.args(words).env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive"))
    };
    let inside = |arguments: &[&str]| chroot(&[&["apt-get", "--quiet=2", "--yes"], arguments].concat());
    // What an earlier run was in the middle of when it was killed.
    chroot(&["dpkg", "--configure", "-a"])?;
    // An error, also if old lists would do: without a network there are no packages either.
    inside(&["update", "--error-on=any"])
        .map_err(|_| Problem::Needs(format!("the packages of {} cannot be reached from here", debian::MIRROR)))?;
    for (what, packages) in needs {
        inside(&[&["install", "--no-install-recommends"], *packages].concat())?;
        fs::write(note(root, what), packages.join(" ")).context("noting what was installed")?;
    }
    inside(&["clean"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_changes_a_root_that_runs_are_in() {
        let folder = tempfile::tempdir().unwrap();
        let root = || root(folder.path(), "bookworm", &[]).unwrap();
        let (first, second) = (root(), root());
        let another = File::open(folder.path().join("bookworm.lock")).unwrap();
        drop(first);
        assert!(another.try_lock().is_err(), "one is still in it");
        drop(second);
        another.try_lock().unwrap();
    }
}
