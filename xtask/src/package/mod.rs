//! `cargo xtask package`: Debian packages of this tree, by cargo-deb.
//!
//! What is in them is said in `[package.metadata.deb]` of the crates, and lies in `packaging/`.

#[cfg(test)]
mod copyright;
#[cfg(test)]
mod macos;
mod trial;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

pub(crate) use trial::{Arguments as TrialArguments, run as trial};

use crate::problem::Context;
use crate::steps::{Outcome, Steps, say};
use crate::workspace::{cargo, command, run as run_shown, scratch, target};
use crate::{Problem, install};

/// The crate of each package; what it holds is built from several.
const PACKAGES: [&str; 3] = ["pocketcard-driver", "pocketcard", "pocketcard-examples"];
const BUILT: [&str; 4] = ["pocketcard", "pocketcardd", "pocketcard-driver", "pocketcard-examples"];
/// What its manual page says first.
const VIRTUAL_PHONE: &str = "phone on the desktop: a PIV card behind a socket or on Bluetooth";
/// Pinned: the profile `dev` is a warning here, and may be an error later.
const CARGO_DEB: &str = "cargo-deb@3.8.0";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Package the debug build, for tests: quick, but slow cryptography is in it and the virtual phone has no Bluetooth.
    #[arg(long)]
    debug: bool,
    /// Where the packages go.
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// Which of cargo's profiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Release,
    Debug,
}

impl Profile {
    fn new(debug: bool) -> Self {
        if debug { Self::Debug } else { Self::Release }
    }

    fn folder(self) -> PathBuf {
        target().join(match self {
            Self::Release => "release",
            Self::Debug => "debug",
        })
    }

    fn build(self) -> &'static [&'static str] {
        match self {
            Self::Release => &["--release", "--features", "pocketcard-examples/ble"],
            Self::Debug => &[],
        }
    }

    fn deb(self) -> &'static [&'static str] {
        match self {
            Self::Release => &[],
            Self::Debug => &["--profile", "dev", "--fast"],
        }
    }
}

pub(crate) fn run(steps: &mut Steps, arguments: &Arguments) -> Result<(), Problem> {
    let profile = Profile::new(arguments.debug);
    let _lock = build(steps, profile)?;
    let output = arguments.output.clone().unwrap_or_else(|| scratch("packages/out"));
    steps.step("Make the packages", || debs(profile, &output, None).map(|()| Outcome::Done))
}

/// Builds what the packages hold: programs, manual pages, completions. No other run replaces them until the file is closed.
fn build(steps: &mut Steps, profile: Profile) -> Result<File, Problem> {
    fs::create_dir_all(scratch("packages")).context("making a folder for the packages")?;
    let lock = File::create(scratch("packages/lock")).context("locking the packages")?;
    if lock.try_lock().is_err() {
        say("    waiting for another run to be done with the packages");
        lock.lock().context("locking the packages")?;
    }
    steps.step("Install cargo-deb and help2man", || {
        install::cargo_tool(&["cargo-deb", "--version"], &[CARGO_DEB])?;
        install::apt(&["dpkg-dev", "help2man"])?;
        Ok(Outcome::Done)
    })?;
    steps.step("Build the programs", || {
        let mut build = cargo(["build"]);
        BUILT.iter().for_each(|package| _ = build.args(["--package", package]));
        run_shown(build.args(profile.build()))?;
        Ok(Outcome::Done)
    })?;
    steps.step("Write manual pages and completions", || documents(profile).map(|()| Outcome::Done))?;
    Ok(lock)
}

/// By the command line itself, so that they cannot say anything else.
fn documents(profile: Profile) -> Result<(), Problem> {
    let folder = profile.folder().join("packaging");
    let pages = folder.join("man");
    if folder.exists() {
        fs::remove_dir_all(&folder).context("removing old manual pages")?;
    }
    fs::create_dir_all(&pages).context("making a folder for the manual pages")?;
    let program = profile.folder().join("pocketcard");
    let program = program.to_string_lossy();
    run_shown(command(&program, ["man"]).arg(&pages))?;
    let page = folder.join("virtual-phone.1");
    let mut help2man = command("help2man", ["--no-info", "--name", VIRTUAL_PHONE, "--output"]);
    run_shown(help2man.arg(&page).arg(profile.folder().join("virtual-phone")))?;
    for page in files(&pages)?.into_iter().chain([page]) {
        // Without name and time, so that the same page gives the same package.
        run_shown(command("gzip", ["--best", "--no-name"]).arg(page))?;
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = folder.join(format!("pocketcard.{shell}"));
        let script = File::create(&script).context(format!("writing {}", script.display()))?;
        run_shown(command(&program, ["completions", shell]).stdout(script))?;
    }
    Ok(())
}

/// Makes the packages of what was built.
///
/// - `version`: another than the workspace's, for tests of an upgrade.
fn debs(profile: Profile, output: &Path, version: Option<&str>) -> Result<(), Problem> {
    if output.exists() {
        fs::remove_dir_all(output).context("removing old packages")?;
    }
    for package in PACKAGES {
        let mut deb = cargo(["deb", "--no-build", "--no-dbgsym", "--package", package]);
        deb.args(profile.deb()).arg("--output").arg(output.join(""));
        if let Some(version) = version {
            deb.args(["--deb-version", version]);
        }
        run_shown(&mut deb)?;
    }
    for package in files(output)? {
        say(&format!("    {}", package.display()));
    }
    Ok(())
}

/// The files of a folder, in the order of their names.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Problem> {
    let entries = fs::read_dir(folder).context(folder.display().to_string())?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use crate::workspace::root;

    use super::*;

    #[test]
    fn debians_changelog_knows_this_version() {
        let text = fs::read_to_string(root().join("packaging/debian/changelog")).unwrap();
        assert!(text.starts_with(&format!("pocketcard ({}-1) ", env!("CARGO_PKG_VERSION"))), "{text}");
    }

    #[test]
    fn the_packages_want_each_other_of_this_release() {
        let version = env!("CARGO_PKG_VERSION");
        let (release, _) = version.rsplit_once('.').unwrap();
        let (major, minor) = release.split_once('.').unwrap();
        let next = format!("{major}.{}~", minor.parse::<u32>().unwrap() + 1);
        for (manifest, other) in [("host-driver/cli", "libifd-pocketcard"), ("examples", "pocketcard")] {
            let text = fs::read_to_string(root().join(manifest).join("Cargo.toml")).unwrap();
            let wanted = format!("{other} (>= {release}), {other} (<< {next})");
            assert!(text.contains(&wanted), "{manifest}/Cargo.toml: depends should have {wanted}");
        }
    }
}
