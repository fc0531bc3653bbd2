//! A root of another Debian, and so another BlueZ.

use std::path::PathBuf;

use crate::workspace::scratch;
use crate::{Problem, debian};

/// What the guest and its stories use there. polkit, which pcscd wants, asks for a login manager in a way that debootstrap
/// does not understand: libpam-systemd is one.
const PACKAGES: &str = "bluez,bluez-test-tools,busybox,dbus,iproute2,kmod,libdbus-1-3,libpam-systemd,opensc,\
                        openssh-client,openssh-server,openssl,pcscd,procps";
/// sshd of such a root.
pub(super) const SSHD: &str = "/usr/sbin/sshd";

/// Makes a root of this release, or finds the one of an earlier run.
pub(super) fn root(release: &str) -> Result<PathBuf, Problem> {
    debian::root(&scratch("ble"), release, PACKAGES)
}
