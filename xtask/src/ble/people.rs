//! Stories of `cargo xtask test-login` that are told over the air, too: the guest's root is the Debian that people sign in to.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use super::guest::Job;
use crate::{Problem, login};

/// Their names. They are told only when they are named: their Debian takes 2 GB and minutes to make.
pub(super) const STORIES: [&str; 1] = ["greeter"];
/// What is built for them beside what every guest gets.
pub(super) const BUILD: [&str; 2] = ["--package", "pocketcard-login-tests"];
pub(super) const PROGRAM: &str = "login-story";
/// What that Debian lacks for a radio.
const PACKAGES: [&str; 2] = ["bluez", "busybox"];
/// The release that it is made of, unless another is asked for.
const RELEASE: &str = "bookworm";
/// How long one may take: a desktop starts slowly in an emulated machine.
const LIMIT: Duration = Duration::from_secs(900);

/// Which of the stories that are asked for are told here.
pub(super) fn among(stories: &[String]) -> impl Iterator<Item = &str> {
    stories.iter().map(String::as_str).filter(|story| STORIES.contains(story))
}

/// Makes the Debian, or finds the one of an earlier run. Nobody changes it until the file is closed.
pub(super) fn root(release: Option<&str>) -> Result<(PathBuf, File), Problem> {
    login::root(release.unwrap_or(RELEASE), &PACKAGES)
}

/// The guest for a story.
pub(super) fn job(story: &str, root: PathBuf, job: Job) -> Job {
    let script = format!("exec bash tests/ble/people.sh {story}\n");
    Job { name: story.to_owned(), script, root: Some(root), limit: LIMIT, ..job }
}
