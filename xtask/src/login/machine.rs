//! The throw-away machine: a Debian in a folder with all that people sign in to, entered through an overlay in memory, in
//! namespaces of its own. Nothing of the machine it runs on changes, and nothing of it stays.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::problem::Context;
use crate::steps::say;
use crate::workspace::{command, root as workspace, run, scratch, target};
use crate::{Problem, debian};

/// What people sign in with and to.
const PACKAGES: [&str; 52] = [
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

/// Packages of a root start no services.
const POLICY: &str = "#!/bin/sh\nexit 101\n";

/// The programs that the machine gets, copied, so that a build meanwhile changes nothing.
const PROGRAMS: [&str; 5] = ["pocketcard", "pocketcardd", "virtual-phone", "libifd_pocketcard.so", "login-story"];

/// Makes the root, or finds the one of an earlier run.
pub(super) fn make(folder: &Path, release: &str) -> Result<PathBuf, Problem> {
    let root = debian::root(folder, release, "")?;
    let list = PACKAGES.join(" ");
    let installed = root.join("var/cache/apt/pocketcard-login");
    if fs::read_to_string(&installed).is_ok_and(|text| text == list) {
        say("    its packages are there");
    } else {
        let policy = root.join("usr/sbin/policy-rc.d");
        fs::write(&policy, POLICY).context("writing policy-rc.d")?;
        fs::set_permissions(&policy, Permissions::from_mode(0o755)).context("writing policy-rc.d")?;
        let inside = |arguments: &[&str]| {
            let mut chroot = command("chroot", [&root]);
            chroot.args(["apt-get", "--quiet=2", "--yes"]).args(arguments);
            run(chroot.env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive"))
        };
        inside(&["update"])?;
        inside(&[&["install", "--no-install-recommends"], PACKAGES.as_slice()].concat())?;
        inside(&["clean"])?;
        fs::write(&installed, list).context("noting what was installed")?;
    }
    let programs = scratch("login/bin");
    fs::create_dir_all(&programs).context("making a folder for our programs")?;
    for name in PROGRAMS {
        let to = programs.join(name);
        let _ = fs::remove_file(&to);
        fs::copy(target().join("debug").join(name), &to).context(format!("copying {name}"))?;
    }
    Ok(root)
}

/// A command in a fresh copy of the machine, without a network but loopback.
pub(super) fn enter(root: &Path, results: &Path, words: &[&str]) -> Command {
    let upper = scratch("login/upper");
    let _ = fs::create_dir_all(&upper);
    let mut unshare = command(
        "unshare",
        ["--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child", "--propagation", "private"],
    );
    unshare.args(["--", "sh", "xtask/src/login/enter.sh"]).arg(root).arg(upper).arg(scratch("login/bin")).arg(results);
    unshare.arg(workspace().join("docs")).args(words);
    unshare
}
