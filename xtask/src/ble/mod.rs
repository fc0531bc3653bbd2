//! `cargo xtask test-ble`: real BlueZ on a real kernel with virtual controllers, in an emulated machine whose root is this
//! machine's, read-only.
//!
//! What runs in the guest is a *story*: one of tests/src/bin/ble-story, or any command with `--run`.

mod debian;
mod guest;
mod image;
mod people;
mod radio;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::problem::Context;
use crate::steps::{Outcome, Steps, say};
use crate::workspace::{self, cargo, output, scratch, target};
use crate::{Problem, install, login, own};
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
/// What the stories need beside it: a private pcscd, OpenSC, ssh, PAM.
const STORY_NEEDS: [&str; 10] = [
    "gcc",
    "pkg-config",
    "libpcsclite-dev",
    "pcscd",
    "opensc",
    "openssl",
    "openssh-client",
    "mount",
    "pamtester",
    "libpam-pkcs11",
];
/// What is built for the stories, and what of it goes into the guest.
const STORY_PACKAGES: [&str; 12] = [
    "--package",
    "pocketcardd",
    "--package",
    "pocketcard",
    "--package",
    "pocketcard-driver",
    "--package",
    "pocketcard-examples",
    "--package",
    "pocketcard-tests",
    "--features",
    "pocketcard-examples/ble",
];
const STORY_PROGRAMS: [&str; 6] =
    ["pocketcardd", "pocketcard", "virtual-phone", "libifd_pocketcard.so", "ble-story", "pcsc-client"];
/// What is built for a command.
const BRIDGE: [&str; 4] = ["--package", "pocketcard-tests", "--bin", "ble-bridge"];
/// What CI has minutes for.
const CI_STORIES: [&str; 4] = ["login", "return", "two-hosts", "other-phone"];
/// Boots of a story: the second only if the first was lost before the story could fail.
const BOOTS: u32 = 2;

/// Which stories, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only this story, instead of all; may be given several times.
    #[arg(long, value_name = "NAME", conflicts_with = "run")]
    story: Vec<String>,
    /// A shell command to run in the guest instead of a story.
    #[arg(long, value_name = "COMMAND")]
    run: Option<String>,
    /// How many times in a row each must pass.
    #[arg(long, value_name = "N", default_value_t = 1)]
    times: u32,
    /// What bluetoothd gets as `[GATT] Channels`, instead of what the story says or BlueZ's default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    channels: Option<u8>,
    /// How many adapters the guest of `--run` has: hci0, hci1 and so on.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=8))]
    adapters: u8,
    /// What is behind the adapters.
    #[arg(long, value_enum, default_value_t = Kind::Bumble)]
    controllers: Kind,
    /// How long the command of `--run` may take.
    #[arg(long, value_name = "SECONDS", default_value_t = guest::STORY_LIMIT.as_secs())]
    limit: u64,
    /// Run with the programs of this release of Debian instead of this machine's, such as trixie for BlueZ 5.82.
    #[arg(long, value_name = "RELEASE", value_parser = crate::debian::RELEASES)]
    debian: Option<String>,
    /// Put a phone and a computer on bumble on the air of `--run`: tests/ble/phone.py and host.py.
    #[arg(long, requires = "run")]
    peers: bool,
    /// Record what goes over HCI, in btmon.snoop in the guest's folder, for `btmon --read`.
    #[arg(long)]
    trace: bool,
    /// Show what a story writes while it is told.
    #[arg(long, short)]
    verbose: bool,
    /// Draw those pictures in docs/images anew that a story takes.
    #[arg(long)]
    keep_pictures: bool,
    /// Name of the log and of the guest's folder, for several guests at once.
    #[arg(long, value_name = "NAME", default_value = "run", requires = "run")]
    name: String,
}

impl Arguments {
    /// What CI runs: each kind of story once.
    pub(crate) fn quick() -> Self {
        Self {
            story: CI_STORIES.map(str::to_owned).to_vec(),
            run: None,
            times: 1,
            channels: None,
            adapters: 2,
            controllers: Kind::Bumble,
            limit: guest::STORY_LIMIT.as_secs(),
            name: String::new(),
            debian: None,
            peers: false,
            trace: false,
            verbose: false,
            keep_pictures: false,
        }
    }
}

/// Boots a guest for each story.
pub(crate) fn run(steps: &mut Steps, arguments: &Arguments) -> Result<(), Problem> {
    let Some(ready) = prepare(steps, arguments)? else { return Ok(()) };
    for job in jobs(arguments, &ready)? {
        let mut note = None;
        let _ = steps
            .step(format!("In the guest: {}", job.name), || repeat(&job, &ready.image, arguments.times, &mut note));
        note.into_iter().for_each(|note| steps.note(note));
        let pictures = job.pictures();
        if arguments.keep_pictures && pictures.is_dir() {
            steps.step("Draw the pictures in docs/images anew", || login::renew_pictures(&pictures))?;
        }
    }
    steps.all_good()
}

/// What every guest needs.
struct Ready {
    image: Image,
    controllers: Controllers,
    programs: Vec<PathBuf>,
    /// Where they lie: apart, so that every guest of this run gets the same, whatever is built meanwhile.
    folder: TempDir,
    root: Option<PathBuf>,
    /// The Debian that people sign in to, if a story needs it, and what keeps others from changing it.
    people: Option<(PathBuf, File)>,
}

/// Installs and builds what is missing. None, and a skipped step, where that is impossible.
fn prepare(steps: &mut Steps, arguments: &Arguments) -> Result<Option<Ready>, Problem> {
    let mut installed = None;
    steps.step("Install QEMU and BlueZ, and make an image to boot", || {
        if !cfg!(target_arch = "x86_64") {
            return Ok(Outcome::Skipped("the guest is an x86-64".to_owned()));
        }
        let install = || {
            let needs: &[&str] = if arguments.run.is_none() { &STORY_NEEDS } else { &[] };
            install::apt(&[PACKAGES.as_slice(), needs].concat())?;
            let release = arguments.debian.as_deref();
            let root = release.map(debian::root).transpose()?;
            let people = people::any_in(&arguments.story).then(|| people::root(release)).transpose()?;
            Ok((image::prepare()?, Controllers::prepare(arguments.controllers)?, root, people))
        };
        match install() {
            Ok(made) => installed = Some(made),
            Err(Problem::Needs(what)) => return Ok(Outcome::Skipped(what)),
            Err(problem) => return Err(problem),
        }
        Ok(Outcome::Done)
    })?;
    let Some((image, controllers, root, people)) = installed else { return Ok(None) };
    let mut programs = Vec::new();
    if arguments.run.is_none() {
        let more: &[&str] = if people.is_some() { &people::BUILD } else { &[] };
        let packages = [STORY_PACKAGES.as_slice(), more].concat();
        steps.step("Build what the stories are about", || build(&packages).map(|()| Outcome::Done))?;
        programs.extend(STORY_PROGRAMS.map(built));
        programs.extend(people.is_some().then(|| built(people::PROGRAM)));
    } else if controllers != Controllers::Btvirt {
        steps.step("Build what makes adapters of the controllers", || build(&BRIDGE).map(|()| Outcome::Done))?;
    }
    if controllers != Controllers::Btvirt {
        programs.push(built("ble-bridge"));
    }
    let folder = own::folder(&scratch("ble"))?;
    let programs = programs.iter().map(|program| copied(program, folder.path())).collect::<Result<_, _>>()?;
    Ok(Some(Ready { image, controllers, programs, folder, root, people }))
}

fn build(what: &[&str]) -> Result<(), Problem> {
    workspace::run(cargo(["build"]).args(what))
}

fn copied(program: &Path, folder: &Path) -> Result<PathBuf, Problem> {
    let copy = folder.join(program.file_name().unwrap_or_default());
    fs::copy(program, &copy).context(program.display().to_string())?;
    Ok(copy)
}

fn built(program: &str) -> PathBuf {
    target().join("debug").join(program)
}

fn jobs(arguments: &Arguments, ready: &Ready) -> Result<Vec<Job>, Problem> {
    let job = Job {
        name: arguments.name.clone(),
        script: String::new(),
        channels: arguments.channels,
        adapters: arguments.adapters,
        controllers: ready.controllers.clone(),
        programs: ready.programs.clone(),
        root: ready.root.clone(),
        systemd: false,
        limit: Duration::from_secs(arguments.limit),
        shown: true,
        trace: arguments.trace,
    };
    if let Some(command) = &arguments.run {
        let controllers =
            if arguments.peers { job.controllers.with_peers(ready.folder.path())? } else { job.controllers.clone() };
        return Ok(vec![Job { script: command.clone(), controllers, ..job }]);
    }
    let teller = ready.programs.iter().find(|program| program.ends_with("ble-story"));
    let list = output(Command::new(teller.map_or_else(|| built("ble-story"), PathBuf::clone)).arg("--list"))?;
    let stories = list.lines().map(|line| {
        Story::parse(line).ok_or_else(|| Problem::Wrong(format!("ble-story --list: {line:?} is no story")))
    });
    let mut jobs = Vec::new();
    for story in stories {
        let Story { name, adapters, channels, peers, limit } = story?;
        if !arguments.story.is_empty() && !arguments.story.contains(&name) {
            continue;
        }
        // Debian's sshd may lie where PATH does not reach.
        let sshd = match &job.root {
            Some(_) => debian::SSHD.to_owned(),
            None => install::sshd().map(|path| path.display().to_string()).unwrap_or_default(),
        };
        let script = format!("export BLE_SSHD='{sshd}' POCKETCARD_BIN_DIR=\"$BLE_BIN\"\nexec ble-story {name}\n");
        let channels = arguments.channels.or(channels);
        let controllers =
            if peers { ready.controllers.with_peers(ready.folder.path())? } else { ready.controllers.clone() };
        let shown = arguments.verbose;
        jobs.push(Job { name, script, channels, adapters, controllers, limit, shown, ..job.clone() });
    }
    if let Some((root, _)) = &ready.people {
        let job = Job { shown: arguments.verbose, ..job };
        jobs.extend(people::jobs(&arguments.story, root, &job));
    }
    match arguments.story.iter().find(|story| !jobs.iter().any(|job| job.name == **story)) {
        Some(unknown) => Err(Problem::Wrong(format!(
            "no story is called {unknown}; there are:\n{list}{}",
            people::names().collect::<Vec<_>>().join("\n")
        ))),
        None => Ok(jobs),
    }
}

/// A line of `ble-story --list`.
#[derive(Debug, PartialEq, Eq)]
struct Story {
    name: String,
    adapters: u8,
    channels: Option<u8>,
    /// Whether the radio brings a phone and a computer of its own.
    peers: bool,
    limit: Duration,
}

impl Story {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let name = words.next()?.to_owned();
        let adapters = words.next()?.parse().ok()?;
        let channels = words.next()?;
        let channels = if channels == "-" { None } else { Some(channels.parse().ok()?) };
        let peers = match words.next()? {
            "-" => false,
            "peers" => true,
            _ => return None,
        };
        let limit = Duration::from_secs(words.next()?.parse().ok()?);
        words.next().is_none().then_some(Self { name, adapters, channels, peers, limit })
    }
}

/// Boots the job's guest until it has passed `times` times in a row, or failed once.
fn repeat(job: &Job, image: &Image, times: u32, note: &mut Option<String>) -> Result<Outcome, Problem> {
    // Two tasks with one name would share a folder and a log.
    let lock = File::create(scratch("ble").join(format!("{}.lock", job.name))).context("locking the story")?;
    lock.lock().context("locking the story")?;
    let mut lost = 0;
    let mut skipped = None;
    for time in 1..=times {
        match attempt(|| job.boot(image), &mut lost)? {
            Verdict::Passed => say(&format!("    passed, {time} of {times}")),
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
    fn a_story_says_what_it_needs() {
        let limit = Duration::from_secs(300);
        let story = |adapters, channels, peers| Story { name: "login".to_owned(), adapters, channels, peers, limit };
        assert_eq!(Story::parse("login 2 - - 300"), Some(story(2, None, false)));
        assert_eq!(Story::parse("login 3 1 peers 300"), Some(story(3, Some(1), true)));
        for wrong in ["", "login", "login 2 - -", "login x - - 300", "login 2 - yes 300", "login 2 - - 300 more"] {
            assert_eq!(Story::parse(wrong), None);
        }
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
