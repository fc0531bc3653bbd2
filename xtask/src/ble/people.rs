//! Stories in the Debian of `cargo xtask test-login`, which is the guest's root: people sign in with the phone on the air.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::guest::Job;
use crate::{Problem, login};

/// A story and how it is told.
#[derive(Debug)]
struct Story {
    name: &'static str,
    script: &'static str,
    /// Whether systemd is the guest's first process.
    systemd: bool,
}

/// They are told only when they are named: their Debian takes 2 GB and minutes to make.
const STORIES: [Story; 3] = [
    Story { name: "greeter", script: "exec bash tests/ble/people.sh greeter\n", systemd: false },
    Story { name: "unit", script: "exec bash tests/ble/unit.sh\n", systemd: true },
    Story { name: "walk-away", script: "exec bash tests/ble/walk_away.sh\n", systemd: true },
];
/// What is built for them beside what every guest gets.
pub(super) const BUILD: [&str; 2] = ["--package", "pocketcard-login-tests"];
pub(super) const PROGRAM: &str = "login-story";
/// What that Debian lacks for a radio.
const PACKAGES: [&str; 2] = ["bluez", "busybox"];
/// The release that it is made of, unless another is asked for.
const RELEASE: &str = "bookworm";
/// How long one may take: a desktop starts slowly in an emulated machine.
const LIMIT: Duration = Duration::from_secs(900);

/// Their names.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    STORIES.iter().map(|story| story.name)
}

/// Whether one of them is among those that are asked for.
pub(super) fn any_in(names: &[String]) -> bool {
    among(names).next().is_some()
}

fn among(names: &[String]) -> impl Iterator<Item = &'static Story> {
    STORIES.iter().filter(|story| names.iter().any(|name| name == story.name))
}

/// Makes the Debian, or finds the one of an earlier run. Nobody changes it until the file is closed.
pub(super) fn root(release: Option<&str>) -> Result<(PathBuf, File), Problem> {
    login::root(release.unwrap_or(RELEASE), &PACKAGES)
}

/// The guests for those that are asked for.
///
/// - `job`: what they have in common with all others.
pub(super) fn jobs(names: &[String], root: &Path, job: &Job) -> impl Iterator<Item = Job> {
    among(names).map(|story| Job {
        name: story.name.to_owned(),
        script: story.script.to_owned(),
        root: Some(root.to_path_buf()),
        systemd: story.systemd,
        limit: LIMIT,
        ..job.clone()
    })
}
