//! A root of another Debian, and so another BlueZ.

use std::fs;
use std::path::PathBuf;

use crate::problem::Context;
use crate::steps::say;
use crate::workspace::{command, run, scratch};
use crate::{Problem, install};

/// What the guest and its stories use there. polkit, which pcscd wants, asks for a login manager in a way that debootstrap
/// does not understand: libpam-systemd is one.
const PACKAGES: &str = "bluez,bluez-test-tools,busybox,dbus,iproute2,kmod,libdbus-1-3,libpam-systemd,opensc,\
                        openssh-client,openssh-server,openssl,pcscd,procps";
const MIRROR: &str = "http://deb.debian.org/debian";
/// sshd of such a root.
pub(super) const SSHD: &str = "/usr/sbin/sshd";

/// Makes a root of this release by debootstrap, which only root can do, or finds the one of an earlier run.
pub(super) fn root(release: &str) -> Result<PathBuf, Problem> {
    let root = scratch("ble").join(release);
    if root.is_dir() {
        say(&format!("    {release} is there"));
        return Ok(root);
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Problem::Needs(format!("only root can make a root of Debian {release}")));
    }
    install::apt(&["debootstrap"])?;
    // By a rename, so that what was not made to the end is made again.
    let new = root.with_extension("new");
    if new.exists() {
        fs::remove_dir_all(&new).context("removing a root that was not made to the end")?;
    }
    let include = format!("--include={PACKAGES}");
    run(command("debootstrap", ["--variant=minbase", &include, release]).arg(&new).arg(MIRROR))?;
    fs::rename(&new, &root).context("making a root of another Debian")?;
    Ok(root)
}
