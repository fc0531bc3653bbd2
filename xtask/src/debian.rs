//! Roots of Debian in a folder, by debootstrap: other releases than this machine's, and clean ones.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::problem::Context;
use crate::steps::say;
use crate::workspace::{command, run, works};
use crate::{Problem, install};

/// Where Debian's packages are.
pub(crate) const MIRROR: &str = "http://deb.debian.org/debian";

/// Debian 12 and 13: what people, packages and radios are tried on.
pub(crate) const RELEASES: [&str; 2] = ["bookworm", "trixie"];

/// Makes a root of this release in `folder` by debootstrap, which only root can do, or finds the one of an earlier run.
///
/// - `packages`: what is in it besides the smallest Debian, separated by commas; may be empty.
///
/// # Errors
/// [`Problem::Needs`] without root's rights, or if Debian's packages cannot be fetched from here.
pub(crate) fn root(folder: &Path, release: &str, packages: &str) -> Result<PathBuf, Problem> {
    let root = folder.join(release);
    if root.is_dir() {
        say(&format!("    {release} is there"));
        return Ok(root);
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Problem::Needs(format!("only root can make a root of Debian {release}")));
    }
    install::apt(&["debootstrap"])?;
    fs::create_dir_all(folder).context("making a folder for a root of Debian")?;
    let lock = File::create(root.with_extension("making")).context("locking a root that is made")?;
    lock.lock().context("locking a root that is made")?;
    if root.is_dir() {
        say(&format!("    {release} has been made by another run"));
        return Ok(root);
    }
    // By a rename, so that what was not made to the end is made again.
    let new = root.with_extension("new");
    if new.exists() {
        fs::remove_dir_all(&new).context("removing a root that was not made to the end")?;
    }
    // What it mounts in there goes away with it, also if it is killed.
    let mut debootstrap = command("setpriv", ["--pdeathsig", "KILL", "--", "unshare", "--mount", "--pid", "--fork"]);
    debootstrap.args(["--kill-child", "--propagation", "private", "--", "debootstrap", "--variant=minbase"]);
    if !packages.is_empty() {
        debootstrap.arg(format!("--include={packages}"));
    }
    run(debootstrap.arg(release).arg(&new).arg(MIRROR)).map_err(|problem| match reachable(release) {
        true => problem,
        false => Problem::Needs(format!("Debian {release} cannot be fetched from {MIRROR} here")),
    })?;
    fs::rename(&new, &root).context("making a root of Debian")?;
    Ok(root)
}

/// Whether the mirror can be asked from here, as debootstrap asks it.
fn reachable(release: &str) -> bool {
    let mut wget = command("wget", ["--quiet", "--spider", "--timeout=20", "--tries=2"]);
    works(wget.arg(format!("{MIRROR}/dists/{release}/InRelease")))
}
