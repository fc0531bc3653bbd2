//! One boot of the guest, and what became of it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::image::Image;
use super::radio::{self, Controllers, Radio};
use crate::Problem;
use crate::problem::Context;
use crate::steps::say;
use crate::workspace::{End, command, root, scratch, target, watch_within};

/// What boot and power-off may take. On two idle cores without KVM both take 10 s, and CI's are never idle.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
/// How long a story may run unless it was told otherwise.
pub(super) const STORY_LIMIT: Duration = Duration::from_secs(300);
/// Lines of the console that are shown when a story failed.
const TAIL: usize = 60;
/// The guest's memory. Its root's changes live in it.
const MEMORY: &str = "2048";
/// The exit code of a story that the virtual radio let down; tests/ble/lib.sh calls it LOST.
const LOST: i32 = 75;
/// The exit code of a story that cannot run on this machine, as automake's tests have it.
const SKIPPED: i32 = 77;
/// The exit code of `timeout` when the story took too long.
const TOO_LONG: i32 = 124;
/// What guest.sh writes to the console before and after the story.
const BEGINS: &str = "ble: the story begins";
const ENDED: &str = "ble: the story ended: ";

/// What a guest is for.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// Names the log and the shared folder.
    pub(super) name: String,
    /// The story's text, run by bash in the workspace's folder.
    pub(super) script: String,
    /// What bluetoothd gets as `[GATT] Channels`; its default without it.
    pub(super) channels: Option<u8>,
    /// How many adapters there are, and what is behind them.
    pub(super) adapters: u8,
    pub(super) controllers: Controllers,
    /// Programs that the guest gets in its PATH: copies, so that a build meanwhile does not change them.
    pub(super) programs: Vec<PathBuf>,
    /// The root of another Debian instead of this machine's.
    pub(super) root: Option<PathBuf>,
    /// Whether systemd starts the guest's services, and the story.
    pub(super) systemd: bool,
    pub(super) limit: Duration,
    /// Whether what the story writes is shown while it runs.
    pub(super) shown: bool,
    /// Whether HCI is recorded.
    pub(super) trace: bool,
}

/// How a boot ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    /// The story says that it cannot run here.
    Skipped(String),
    /// The virtual radio or the boot failed before the story could tell anything. Worth one more boot.
    Lost(String),
    Failed(String),
}

impl Job {
    /// Where the console of the last boot is.
    pub(super) fn log(&self) -> PathBuf {
        scratch("ble").join(format!("{}.log", self.name))
    }

    /// Where a story that takes pictures leaves them.
    pub(super) fn pictures(&self) -> PathBuf {
        self.folder().join("results")
    }

    /// The folder that the guest may write to.
    fn folder(&self) -> PathBuf {
        scratch("ble").join("share").join(&self.name)
    }

    /// Boots a guest, runs the story in it and waits for both.
    pub(super) fn boot(&self, image: &Image) -> Result<Verdict, Problem> {
        let share = self.share()?;
        let log = self.log();
        let mut file = File::create(&log).context(log.display().to_string())?;
        let mut console = Console { shown: self.shown, ..Console::default() };
        let radio = match &self.controllers {
            Controllers::Btvirt => None,
            Controllers::Bumble { python, peers } => {
                Some(Radio::start(python, peers.as_deref(), &share, self.adapters)?)
            }
        };
        let end = watch_within(&mut self.qemu(image, &share), BOOT_LIMIT + self.limit, |line| {
            let line = line.trim_end_matches('\r');
            let _ = writeln!(file, "{line}");
            console.line(line);
        })?;
        drop(radio);
        let verdict = console.verdict(end, &share);
        if !matches!(verdict, Verdict::Passed | Verdict::Skipped(_)) {
            say(&console.tail());
        }
        say(&format!("    the whole log: {}", log.display()));
        Ok(verdict)
    }

    /// Makes the folder that the guest may write to, with the story in it.
    fn share(&self) -> Result<PathBuf, Problem> {
        let share = self.folder();
        if share.exists() {
            fs::remove_dir_all(&share).context("clearing the guest's folder")?;
        }
        fs::create_dir_all(&share).context("making the guest's folder")?;
        fs::write(share.join("story"), &self.script).context("writing the story")?;
        let programs = share.join("bin");
        fs::create_dir(&programs).context("making the guest's folder")?;
        for program in &self.programs {
            let copy = programs.join(program.file_name().unwrap_or_default());
            fs::copy(program, copy).context(program.display().to_string())?;
        }
        let channels = self.channels.map(|channels| channels.to_string()).unwrap_or_default();
        let mut environment = String::new();
        for (name, value) in [
            ("BLE_ROOT", root().display().to_string()),
            ("BLE_TARGET", absolute(&target())?.display().to_string()),
            // Through the root, whose pages are cached.
            ("BLE_BIN", absolute(&programs)?.display().to_string()),
            ("BLE_CONTROLLERS", self.controllers.name().to_owned()),
            ("BLE_ADAPTERS", self.adapters.to_string()),
            ("BLE_CHANNELS", channels),
            ("BLE_TRACE", if self.trace { "yes" } else { "" }.to_owned()),
            ("BLE_SYSTEMD", if self.systemd { "yes" } else { "" }.to_owned()),
            ("BLE_LIMIT", self.limit.as_secs().to_string()),
        ] {
            environment.push_str(&format!("export {name}='{value}'\n"));
        }
        fs::write(share.join("environment"), environment).context("writing the guest's environment")?;
        Ok(share)
    }

    /// Emulated: what has KVM has a radio of its own more often than not, and a guest that behaves in one way everywhere
    /// is worth more than its seconds.
    fn qemu(&self, image: &Image, share: &Path) -> Command {
        // A guest outlives nobody.
        let mut qemu = command("setpriv", ["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]);
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-machine", "q35", "-smp", "2", "-m", MEMORY]);
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"]);
        qemu.arg("-kernel").arg(&image.kernel).arg("-initrd").arg(&image.initramfs);
        // The HPET, because a busy host lets the kernel take the TSC for many times as fast as it is. Time then runs away.
        let mut kernel = format!(
            "console=ttyS0 panic=-1 mitigations=off tsc=unstable clocksource=hpet no_timer_check \
             random.trust_cpu=on quiet loglevel=4 ble.root={}",
            root().display()
        );
        if let (Some(_), Ok(target)) = (&self.root, absolute(&target())) {
            kernel.push_str(&format!(" ble.host={}", target.display()));
        }
        qemu.arg("-append").arg(kernel);
        qemu.args(["-device", "virtio-rng-pci"]);
        let folder = |id: &str, path: &Path, options: &str| {
            format!("local,id={id},path={},security_model=none,multidevs=remap{options}", path.display())
        };
        let host = Path::new("/");
        qemu.args(["-fsdev", &folder("root", self.root.as_deref().unwrap_or(host), ",readonly=on")]);
        qemu.args(["-device", "virtio-9p-pci,fsdev=root,mount_tag=root"]);
        if self.root.is_some() {
            qemu.args(["-fsdev", &folder("host", host, ",readonly=on")]);
            qemu.args(["-device", "virtio-9p-pci,fsdev=host,mount_tag=host"]);
        }
        qemu.args(["-fsdev", &folder("share", share, "")]);
        qemu.args(["-device", "virtio-9p-pci,fsdev=share,mount_tag=share"]);
        if self.controllers != Controllers::Btvirt {
            qemu.args(["-device", "virtio-serial-pci"]).args(radio::ports(self.adapters)).current_dir(share);
        }
        qemu
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Problem> {
    std::path::absolute(path).context(path.display().to_string())
}

/// What the guest's console said so far.
#[derive(Debug, Default)]
struct Console {
    shown: bool,
    begun: bool,
    ended: bool,
    reason: Option<String>,
    tail: VecDeque<String>,
}

impl Console {
    fn line(&mut self, line: &str) {
        if line == BEGINS {
            self.begun = true;
        } else if line.starts_with(ENDED) {
            self.ended = true;
        } else if self.shown && self.begun && !self.ended {
            say(line);
        }
        if let Some((_, reason)) = line.split_once("SKIPPED: ").or_else(|| line.split_once("LOST: ")) {
            self.reason = Some(reason.to_owned());
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line.to_owned());
    }

    fn tail(&self) -> String {
        self.tail.iter().map(|line| format!("    | {line}")).collect::<Vec<_>>().join("\n")
    }

    /// Only a code that the guest wrote counts: a boot that says nothing has not passed.
    fn verdict(&self, end: End, share: &Path) -> Verdict {
        let code = fs::read_to_string(share.join("verdict")).ok().and_then(|text| text.trim().parse::<i32>().ok());
        let reason = |default: &str| self.reason.clone().unwrap_or_else(|| default.to_owned());
        match (code, end) {
            (Some(0), _) if self.begun => Verdict::Passed,
            (Some(SKIPPED), _) => Verdict::Skipped(reason("the story does not say why")),
            (Some(LOST), _) => Verdict::Lost(reason("the virtual radio did not come up")),
            (Some(TOO_LONG), _) => Verdict::Failed("the story took longer than it may".to_owned()),
            (Some(code), _) => Verdict::Failed(format!("the story's exit code is {code}")),
            (None, _) if !self.begun => Verdict::Lost(format!("the guest did not come up ({end:?})")),
            (None, End::Killed) => Verdict::Failed("the guest hung and was killed".to_owned()),
            (None, End::Code(code)) => Verdict::Failed(format!("the guest died ({code}) in the story")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(lines: &[&str], code: Option<&str>, end: End) -> Verdict {
        let share = tempfile::tempdir().unwrap();
        if let Some(code) = code {
            fs::write(share.path().join("verdict"), code).unwrap();
        }
        let mut console = Console::default();
        lines.iter().for_each(|line| console.line(line));
        console.verdict(end, share.path())
    }

    #[test]
    fn only_a_story_that_said_so_has_passed() {
        let ended = End::Code(0);
        assert_eq!(verdict(&[BEGINS], Some("0\n"), ended), Verdict::Passed);
        assert!(matches!(verdict(&[BEGINS], Some("1\n"), ended), Verdict::Failed(_)));
        assert!(matches!(verdict(&[BEGINS], Some("124\n"), ended), Verdict::Failed(_)));
        assert!(matches!(verdict(&[BEGINS], Some(""), ended), Verdict::Failed(_)));
        assert!(matches!(verdict(&[BEGINS], None, ended), Verdict::Failed(_)));
        assert!(matches!(verdict(&[BEGINS], None, End::Killed), Verdict::Failed(_)));
        assert!(matches!(verdict(&[], Some("0\n"), ended), Verdict::Failed(_)));
    }

    #[test]
    fn a_boot_without_a_story_is_lost() {
        assert!(matches!(verdict(&["kernel panic"], None, End::Killed), Verdict::Lost(_)));
        assert!(matches!(verdict(&["kernel panic"], None, End::Code(1)), Verdict::Lost(_)));
        let lost = verdict(&[BEGINS, "[1.2] LOST: nothing found"], Some("75\n"), End::Code(0));
        assert_eq!(lost, Verdict::Lost("nothing found".to_owned()));
        let skipped = verdict(&[BEGINS, "SKIPPED: no bumble"], Some("77\n"), End::Code(0));
        assert_eq!(skipped, Verdict::Skipped("no bumble".to_owned()));
    }
}
