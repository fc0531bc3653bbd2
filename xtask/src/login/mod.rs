//! `cargo xtask test-login`: people sign in with a phone, in a throw-away Debian, by the programs that people use.

mod machine;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::problem::Context;
use crate::steps::{Outcome, Steps, say};
use crate::workspace::{self, End, cargo, command, output, scratch, target, watch_within};
use crate::{Problem, debian, install};
use machine::Machine;

/// The exit code of a story that could not run.
const SKIPPED: i32 = 77;
/// For one story. The longest takes a minute and a half, and one may have to wait five for the consoles.
const LIMIT: Duration = Duration::from_secs(900);
/// What the machine is told pcscd's user by.
const PCSCD_USER: &str = "POCKETCARD_PCSCD_USER";
/// Stories of [`Arguments::without_desktop`]: each client, module and place of the PIN once.
const WITHOUT_DESKTOP: [&str; 8] =
    ["pam_pkcs11", "pam_pkcs11-twin", "pam_pkcs11-phone", "two-users", "sssd", "ssh", "git", "curl"];
/// Stories of a greeter, each module and place of the PIN once. LightDM switches the machine's consoles meanwhile.
const GREETERS: [&str; 3] = ["greeter", "greeter-phone", "greeter-sssd"];
/// Where their pictures are kept.
const RESULTS: &str = "login/results";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only this story; may be given several times. `--list` prints their names.
    #[arg(long = "story", value_name = "NAME")]
    stories: Vec<String>,
    /// Print the names of the stories.
    #[arg(long)]
    list: bool,
    /// The release of Debian.
    #[arg(long = "debian", value_name = "RELEASE", value_parser = debian::RELEASES, default_value = "bookworm")]
    release: String,
    /// The user that pcscd runs as, such as pcscd, with which pcsc-lite 2.4 comes.
    #[arg(long, value_name = "USER", default_value = "root")]
    pcscd_user: String,
    /// Only stories that need no desktop, in a smaller Debian that is made in half the time.
    #[arg(long, conflicts_with = "stories")]
    without_desktop: bool,
    /// Copy the pictures that were taken into docs/images.
    #[arg(long)]
    keep_pictures: bool,
}

impl Arguments {
    /// What CI runs.
    ///
    /// - `greeters`: also those, which need a desktop, and the machine's consoles for a minute.
    pub(crate) fn quick(greeters: bool) -> Self {
        let stories = WITHOUT_DESKTOP.iter().chain(&GREETERS).filter(|_| greeters);
        Self {
            stories: stories.copied().map(str::to_owned).collect(),
            list: false,
            release: "bookworm".to_owned(),
            pcscd_user: "root".to_owned(),
            without_desktop: !greeters,
            keep_pictures: false,
        }
    }
}

pub(crate) fn run(steps: &mut Steps, arguments: &Arguments) -> Result<(), Problem> {
    let folder = scratch(if arguments.without_desktop { "login-terminal" } else { "login" });
    if !arguments.list
        && unless_lacking(steps, "Login: enter a machine in this one", || machine::can_enter(&folder))?.is_none()
    {
        return Ok(());
    }
    steps.step("Build the daemon, the driver, the phone and the stories", || {
        install::apt(&install::RUN)?;
        let packages =
            ["pocketcard", "pocketcardd", "pocketcard-driver", "pocketcard-examples", "pocketcard-login-tests"];
        let mut build = cargo(["build"]);
        packages.iter().for_each(|package| {
            build.args(["--package", package]);
        });
        workspace::run(&mut build)?;
        Ok(Outcome::Done)
    })?;
    let listed = output(&mut command(&story_program().to_string_lossy(), ["--list"]))?;
    let all: Vec<&str> = listed.lines().collect();
    if arguments.list {
        all.iter().for_each(|name| say(name));
        return Ok(());
    }
    let name = format!("Make a root of Debian {}", arguments.release);
    let make = || Machine::make(&folder, &arguments.release, !arguments.without_desktop);
    let Some(machine) = unless_lacking(steps, &name, make)? else {
        return Ok(());
    };
    let given: Vec<&str> = arguments.stories.iter().map(String::as_str).collect();
    let told = match (arguments.without_desktop, given.is_empty()) {
        (true, _) => WITHOUT_DESKTOP.as_slice(),
        (false, true) => &all,
        (false, false) => &given,
    };
    for name in told {
        let _ = steps.step(format!("Login: {name}"), || tell(&machine, name, &arguments.pcscd_user));
    }
    copy_pictures(&machine.results(), &scratch(RESULTS))?;
    // A story that failed leaves a picture of that.
    steps.all_good()?;
    if arguments.keep_pictures {
        steps.step("Copy the pictures into docs/images", || keep_pictures(&machine.results()))?;
    }
    Ok(())
}

/// A step that is skipped where this machine lacks what it needs.
fn unless_lacking<T>(
    steps: &mut Steps,
    name: &str,
    work: impl FnOnce() -> Result<T, Problem>,
) -> Result<Option<T>, Problem> {
    let mut done = None;
    steps.step(name, || match work() {
        Ok(value) => {
            done = Some(value);
            Ok(Outcome::Done)
        }
        Err(Problem::Needs(what)) => Ok(Outcome::Skipped(what)),
        Err(problem) => Err(problem),
    })?;
    Ok(done)
}

/// The root of the release for a machine of another kind, with what that needs besides. Nobody changes it until the file is
/// closed.
pub(crate) fn root(release: &str, packages: &[&str]) -> Result<(PathBuf, File), Problem> {
    machine::root(&scratch("login"), release, &[("login", &machine::packages(release, true)), ("air", packages)])
}

fn story_program() -> PathBuf {
    target().join("debug/login-story")
}

/// Tells one story in a fresh copy of the machine.
fn tell(machine: &Machine, name: &str, pcscd_user: &str) -> Result<Outcome, Problem> {
    let mut reason = None;
    let variable = format!("{PCSCD_USER}={pcscd_user}");
    let end = watch_within(&mut machine.enter(&["env", &variable, "login-story", name]), LIMIT, |line| {
        say(line);
        if let Some((_, text)) = line.split_once("SKIPPED: ") {
            reason = Some(text.to_owned());
        }
    })?;
    match end {
        End::Code(0) => Ok(Outcome::Done),
        End::Code(SKIPPED) => Ok(Outcome::Skipped(reason.unwrap_or_else(|| "the story does not say why".to_owned()))),
        End::Code(code) => Err(Problem::Failed(format!("login-story {name} (exit code {code})"))),
        End::Killed => Err(Problem::Wrong(format!("login-story {name} did not end within {} s", LIMIT.as_secs()))),
    }
}

/// Copies the pictures in a folder into the docs.
fn keep_pictures(from: &Path) -> Result<Outcome, Problem> {
    copy_pictures(from, &workspace::root().join("docs/images")).map(|()| Outcome::Done)
}

/// The same with those alone that the docs have already.
pub(crate) fn renew_pictures(from: &Path) -> Result<Outcome, Problem> {
    let to = workspace::root().join("docs/images");
    for entry in std::fs::read_dir(&to).context("looking for pictures")?.flatten() {
        let new = from.join(entry.file_name());
        if new.is_file() {
            std::fs::copy(&new, entry.path()).context("copying a picture")?;
            say(&format!("    {}", entry.path().display()));
        }
    }
    Ok(Outcome::Done)
}

fn copy_pictures(from: &Path, to: &Path) -> Result<(), Problem> {
    std::fs::create_dir_all(to).context("making a folder for pictures")?;
    for entry in std::fs::read_dir(from).context("looking for pictures")?.flatten() {
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if path.extension().is_some_and(|extension| extension == "png") {
            std::fs::copy(&path, &copy).context("copying a picture")?;
            say(&format!("    {}", copy.display()));
        }
    }
    Ok(())
}
