//! `cargo xtask test-ble`: real BlueZ on a real kernel with virtual controllers, in an emulated machine whose root is this
//! machine's, read-only.
//!
//! What runs in the guest is a *story*: a script in tests/ble/stories, or any command with `--run`.

mod guest;
mod image;
mod radio;

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use crate::problem::Context;
use crate::steps::{Outcome, Steps, say};
use crate::workspace::{self, cargo, root, scratch, target};
use crate::{Problem, install};
use guest::{Job, Verdict};
use image::Image;
use radio::{Controllers, Kind};

/// What boots the guest and what runs in it.
const PACKAGES: [&str; 9] = [
    "qemu-system-x86",
    "busybox-static",
    "kmod",
    "xz-utils",
    "bluez",
    "bluez-test-tools",
    "dbus",
    "libdbus-1-dev",
    "util-linux",
];
/// Boots of a story: the second only if the first was lost before the story could fail.
const BOOTS: u32 = 2;

/// Which stories, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only this story of tests/ble/stories, instead of all.
    #[arg(long, value_name = "NAME", conflicts_with = "run")]
    story: Option<String>,
    /// A shell command to run in the guest instead of a story.
    #[arg(long, value_name = "COMMAND")]
    run: Option<String>,
    /// How many times in a row each must pass.
    #[arg(long, value_name = "N", default_value_t = 1)]
    times: u32,
    /// What bluetoothd gets as `[GATT] Channels`; its default without it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    channels: Option<u8>,
    /// How many adapters the guest has: hci0, hci1 and so on.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=8))]
    adapters: u8,
    /// What is behind the adapters.
    #[arg(long, value_enum, default_value_t = Kind::Bumble)]
    controllers: Kind,
    /// How long the story may run.
    #[arg(long, value_name = "SECONDS", default_value_t = guest::STORY_LIMIT.as_secs())]
    limit: u64,
    /// Name of the log and of the guest's folder, for several guests at once.
    #[arg(long, value_name = "NAME", default_value = "run", requires = "run")]
    name: String,
}

/// Boots a guest for each story.
pub(crate) fn run(steps: &mut Steps, arguments: &Arguments) -> Result<(), Problem> {
    let Some(ready) = prepare(steps, arguments)? else { return Ok(()) };
    for job in jobs(arguments, &ready)? {
        let mut note = None;
        let _ = steps
            .step(format!("In the guest: {}", job.name), || repeat(&job, &ready.image, arguments.times, &mut note));
        note.into_iter().for_each(|note| steps.note(note));
    }
    steps.all_good()
}

/// What every guest needs.
struct Ready {
    image: Image,
    controllers: Controllers,
    programs: Vec<PathBuf>,
}

/// Installs and builds what is missing. None, and a skipped step, where that is impossible.
fn prepare(steps: &mut Steps, arguments: &Arguments) -> Result<Option<Ready>, Problem> {
    let mut installed = None;
    steps.step("Install QEMU and BlueZ, and make an image to boot", || {
        if !cfg!(target_arch = "x86_64") {
            return Ok(Outcome::Skipped("the guest is an x86-64".to_owned()));
        }
        let install = || {
            install::apt(&PACKAGES)?;
            Ok((image::prepare()?, Controllers::prepare(arguments.controllers)?))
        };
        match install() {
            Ok(made) => installed = Some(made),
            Err(Problem::Needs(what)) => return Ok(Outcome::Skipped(what)),
            Err(problem) => return Err(problem),
        }
        Ok(Outcome::Done)
    })?;
    let Some((image, controllers)) = installed else { return Ok(None) };
    let mut programs = Vec::new();
    if controllers != Controllers::Btvirt {
        steps.step("Build what makes adapters of the controllers", || {
            workspace::run(&mut cargo(["build", "--package", "pocketcard-tests", "--bin", "ble-bridge"]))?;
            Ok(Outcome::Done)
        })?;
        programs.push(target().join("debug/ble-bridge"));
    }
    Ok(Some(Ready { image, controllers, programs }))
}

fn jobs(arguments: &Arguments, ready: &Ready) -> Result<Vec<Job>, Problem> {
    let job = |name: &str, script: String, shown| Job {
        name: name.to_owned(),
        script,
        channels: arguments.channels,
        adapters: arguments.adapters,
        controllers: ready.controllers.clone(),
        programs: ready.programs.clone(),
        limit: Duration::from_secs(arguments.limit),
        shown,
    };
    if let Some(command) = &arguments.run {
        return Ok(vec![job(&arguments.name, command.clone(), true)]);
    }
    let mut jobs = Vec::new();
    for name in stories()? {
        if arguments.story.as_ref().is_none_or(|story| *story == name) {
            jobs.push(job(&name, format!(". \"$BLE_ROOT/tests/ble/stories/{name}.sh\"\n"), false));
        }
    }
    match (&arguments.story, jobs.is_empty()) {
        (Some(story), true) => Err(Problem::Wrong(format!("there is no tests/ble/stories/{story}.sh"))),
        _ => Ok(jobs),
    }
}

fn stories() -> Result<Vec<String>, Problem> {
    let folder = root().join("tests/ble/stories");
    let files = fs::read_dir(&folder).context(folder.display().to_string())?.flatten();
    let mut names: Vec<String> = files
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "sh"))
        .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Boots the job's guest until it has passed `times` times in a row, or failed once.
fn repeat(job: &Job, image: &Image, times: u32, note: &mut Option<String>) -> Result<Outcome, Problem> {
    // Two tasks with one name would share a folder and a log.
    let lock = File::create(scratch("ble").join(format!("{}.lock", job.name))).context("locking the story")?;
    lock.lock().context("locking the story")?;
    let mut lost = 0;
    let mut skipped = None;
    for _ in 0..times {
        match attempt(|| job.boot(image), &mut lost)? {
            Verdict::Passed => {}
            Verdict::Skipped(reason) => skipped = Some(reason),
            Verdict::Lost(reason) => return Err(Problem::Wrong(format!("lost {BOOTS} times in a row: {reason}"))),
            Verdict::Failed(reason) => return Err(Problem::Wrong(reason)),
        }
    }
    *note = Some(format!("{}: {times} in a row, {lost} of them at the second boot", job.name));
    Ok(skipped.map_or(Outcome::Done, Outcome::Skipped))
}

/// Boots once more if the first boot was lost, and counts that.
fn attempt(mut boot: impl FnMut() -> Result<Verdict, Problem>, lost: &mut u32) -> Result<Verdict, Problem> {
    let mut boots = 1;
    loop {
        match boot()? {
            Verdict::Lost(reason) if boots < BOOTS => {
                say(&format!("    lost, once more: {reason}"));
                boots += 1;
                *lost += 1;
            }
            verdict => return Ok(verdict),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempted(verdicts: impl IntoIterator<Item = Verdict>) -> (Verdict, u32) {
        let mut verdicts = verdicts.into_iter();
        let mut lost = 0;
        (attempt(|| Ok(verdicts.next().unwrap()), &mut lost).unwrap(), lost)
    }

    #[test]
    fn only_a_lost_boot_is_tried_again_and_only_once() {
        let lost = || Verdict::Lost("x".to_owned());
        let failed = || Verdict::Failed("y".to_owned());
        assert_eq!(attempted([Verdict::Passed]), (Verdict::Passed, 0));
        assert_eq!(attempted([failed()]), (failed(), 0));
        assert_eq!(attempted([lost(), Verdict::Passed]), (Verdict::Passed, 1));
        assert_eq!(attempted([lost(), failed()]), (failed(), 1));
        assert_eq!(attempted([lost(), lost()]), (lost(), 1));
    }
}
