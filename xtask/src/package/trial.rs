//! `cargo xtask test-packages`: installs, upgrades, removes and purges the packages in clean Debian roots.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::problem::Context;
use crate::steps::{Outcome, Steps, say};
use crate::workspace::{TIMED_OUT, command, limited, root, run as run_shown, scratch};
use crate::{Problem, debian};

use super::{Profile, build, debs};

/// What the packages depend on and the trial uses, so that it runs without a network the second time.
const DOWNLOADED: [&str; 10] = [
    "pcscd",
    "opensc",
    "bluez",
    "dbus",
    "dbus-tests",
    "polkitd",
    "systemd",
    "adduser",
    "libpam-systemd",
    "dbus-user-session",
];
/// A version that is newer than the one before it.
const UPGRADE: &str = "0.1.0-1+upgrade";

/// For one trial, which takes half a minute.
const LIMIT: Duration = Duration::from_secs(600);

/// Enters a root without leaving a trace in it: what is written goes to memory, and away with the namespaces.
const ENTER: &str = include_str!("enter.sh");

/// Whether systemd is the first process, as on nearly every Debian, or nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Init {
    Systemd,
    None,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Packages of the debug build, which is quick.
    #[arg(long)]
    debug: bool,
    /// A release of Debian; bookworm and trixie unless given. May be given several times.
    #[arg(long = "debian", value_name = "RELEASE", value_parser = debian::RELEASES)]
    releases: Vec<String>,
}

impl Arguments {
    /// What CI runs.
    pub(crate) fn quick() -> Self {
        Self { debug: true, releases: vec!["bookworm".to_owned()] }
    }
}

pub(crate) fn run(steps: &mut Steps, arguments: &Arguments) -> Result<(), Problem> {
    if !rustix::process::geteuid().is_root() {
        let reason = "only root can make a root of Debian and enter it".to_owned();
        return steps.step("Packages", || Ok(Outcome::Skipped(reason)));
    }
    let profile = Profile::new(arguments.debug);
    let _lock = build(steps, profile)?;
    let packages = scratch("packages/trial");
    fs::create_dir_all(&packages).context("making a folder for the packages")?;
    steps.step("Make the packages, and the same once more with a newer version", || {
        debs(profile, &packages.join("first"), None)?;
        debs(profile, &packages.join("second"), Some(UPGRADE)).map(|()| Outcome::Done)
    })?;
    let given: Vec<&str> = arguments.releases.iter().map(String::as_str).collect();
    for release in if given.is_empty() { debian::RELEASES.as_slice() } else { &given } {
        for (init, words) in [(Init::Systemd, "with systemd"), (Init::None, "without systemd")] {
            let _ = steps.step(format!("Install, upgrade, remove, purge: {release} {words}"), || {
                let folder = match prepare(release) {
                    Ok(folder) => folder,
                    Err(Problem::Needs(what)) => return Ok(Outcome::Skipped(what)),
                    Err(problem) => return Err(problem),
                };
                enter(&folder, &packages, init)
            });
        }
    }
    steps.all_good()
}

/// A clean root, with the packages of others that will be installed in it at hand.
fn prepare(release: &str) -> Result<PathBuf, Problem> {
    let root = debian::root(&scratch("packages"), release, "")?;
    let downloaded = root.join("var/cache/apt/pocketcard");
    let list = DOWNLOADED.join(" ");
    if fs::read_to_string(&downloaded).is_ok_and(|text| text == list) {
        return Ok(root);
    }
    let inside = |arguments: &[&str]| {
        let mut chroot = command("chroot", [&root]);
        chroot.args(["apt-get", "--quiet=2", "--yes"]).args(arguments);
        run_shown(chroot.env("LC_ALL", "C.UTF-8"))
    };
    inside(&["update"])?;
    inside(&[&["install", "--no-install-recommends", "--download-only"], DOWNLOADED.as_slice()].concat())?;
    fs::write(downloaded, list).context("noting what was downloaded")?;
    Ok(root)
}

/// Runs the trial in a root.
fn enter(debian: &Path, packages: &Path, init: Init) -> Result<Outcome, Problem> {
    let upper = scratch("packages/upper");
    fs::create_dir_all(&upper).context("making a folder for the trial")?;
    let mut shell = limited(LIMIT);
    shell.args(["bash", "-c", ENTER, "enter"]).args([
        debian,
        &upper,
        packages,
        &root().join("packaging/debian/test/trial"),
    ]);
    match init {
        Init::None => shell.arg(""),
        Init::Systemd => match control_groups() {
            Some(folder) => shell.arg(folder),
            None => return Ok(Outcome::Skipped("systemd needs control groups of version 2 here".to_owned())),
        },
    };
    say("    $ unshare … chroot … packaging/debian/test/trial");
    // Not `watch`, which shows the command, and this one is a script.
    let status = shell.status().context("starting bash")?;
    match status.code() {
        Some(0) => Ok(Outcome::Done),
        Some(TIMED_OUT) => Err(Problem::Wrong(format!("the trial did not end within {} s", LIMIT.as_secs()))),
        _ => Err(Problem::Failed(format!("packaging/debian/test/trial ({status})"))),
    }
}

/// Where the hierarchy of control groups of version 2 is, which systemd wants.
fn control_groups() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    mounts.find_map(|fields| match fields.as_slice() {
        [_, place, "cgroup2", ..] => Some(PathBuf::from(place)),
        _ => None,
    })
}
