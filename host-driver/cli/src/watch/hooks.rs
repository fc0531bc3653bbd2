//! The commands of the user that run when a phone leaves or comes. Shell and rights are the user's own.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::Input;
use super::walk_away::Who;

/// For a command that runs when a phone comes: then it is killed, with all that it started. A command that runs when one
/// leaves has no limit, since it may be the screen locker itself: to kill it would open the screen.
pub(super) const ARRIVE_LIMIT: Duration = Duration::from_secs(30);

/// Commands of one kind that run at once: whoever makes a phone come again and again must not keep the screen from being
/// locked. One more leave starts its command all the same while an earlier one still runs, which may
/// hang; a locker that locks already refuses a second one.
pub(super) const MOST_RUNNING: usize = 4;

/// When a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    Leave,
    Arrive,
}

impl Hook {
    /// As the command is told in its environment.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Leave => "leave",
            Self::Arrive => "arrive",
        }
    }

    /// The option that names the command.
    pub(super) fn option(self) -> &'static str {
        match self {
            Self::Leave => "on-leave",
            Self::Arrive => "on-arrive",
        }
    }

    fn limit(self) -> Option<Duration> {
        match self {
            Self::Leave => None,
            Self::Arrive => Some(ARRIVE_LIMIT),
        }
    }
}

/// How a command ended, or that it did not.
#[derive(Debug)]
pub(super) enum Outcome {
    Ended(Hook, ExitStatus),
    Failed(Hook, io::Error),
    Killed(Hook),
}

/// The commands that run now. They go on if this value goes.
#[derive(Debug, Default)]
pub(super) struct Hooks(Vec<Running>);

#[derive(Debug)]
struct Running {
    hook: Hook,
    child: Child,
    group: Pid,
    until: Option<Instant>,
}

impl Hooks {
    /// Starts a command; [`Input::HookEnded`] says when to look for its end. Returns what is worth a word.
    pub(super) fn start(
        &mut self,
        hook: Hook,
        command: &str,
        who: &Who,
        inputs: Sender<Input>,
        now: Instant,
    ) -> Result<(), io::Error> {
        if self.0.iter().filter(|running| running.hook == hook).count() >= MOST_RUNNING {
            return Err(io::Error::other("too many earlier ones still run"));
        }
        // What the command prints belongs to the log: stdout may be read by a program.
        let log = io::stderr().as_fd().try_clone_to_owned()?;
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::from(log));
        // Names are chosen by phones, so no shell gets to read them as a command.
        shell.env("POCKETCARD_EVENT", hook.word()).env("POCKETCARD_PHONE", &who.phone);
        shell.env("POCKETCARD_SLOT", who.slot.to_string());
        // A group of its own: Ctrl-C at the watcher must not end a locker.
        let child = shell.process_group(0).spawn()?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        thread::spawn(move || {
            // Only looked at, so that the number stays this child's until the watcher takes note of its end.
            while let Err(rustix::io::Errno::INTR) =
                waitid(WaitId::Pid(group), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
            {}
            let _ = inputs.send(Input::HookEnded);
        });
        self.0.push(Running { hook, child, group, until: hook.limit().map(|limit| now + limit) });
        Ok(())
    }

    /// When [`Hooks::look`] is due, at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.iter().filter_map(|running| running.until).min()
    }

    /// Takes note of what has ended, and kills what has run for too long.
    pub(super) fn look(&mut self, now: Instant) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        self.0.retain_mut(|running| {
            let outcome = match running.child.try_wait() {
                Ok(None) if running.until.is_some_and(|until| until <= now) => {
                    let _ = kill_process_group(running.group, Signal::KILL);
                    let _ = running.child.wait();
                    Outcome::Killed(running.hook)
                }
                Ok(None) => return true,
                Ok(Some(status)) => Outcome::Ended(running.hook, status),
                Err(error) => Outcome::Failed(running.hook, error),
            };
            outcomes.push(outcome);
            false
        });
        outcomes
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::mpsc::{self, Receiver};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn who() -> Who {
        Who { phone: "$(touch here); `x`".to_owned(), slot: 3 }
    }

    fn start(hooks: &mut Hooks, hook: Hook, command: &str) -> Receiver<Input> {
        let (sender, ended) = mpsc::channel();
        hooks.start(hook, command, &who(), sender, Instant::now()).unwrap();
        ended
    }

    fn end(hooks: &mut Hooks, ended: &Receiver<Input>) -> Outcome {
        assert!(matches!(ended.recv_timeout(SOON).unwrap(), Input::HookEnded));
        let mut outcomes = hooks.look(Instant::now());
        assert_eq!(outcomes.len(), 1);
        outcomes.remove(0)
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_command_is_told_in_its_environment_who_it_is_about() {
        let folder = tempfile::tempdir().unwrap();
        let said = folder.path().join("said");
        let command = format!(
            "cd {} && printf '%s|' \"$POCKETCARD_EVENT\" \"$POCKETCARD_PHONE\" \"$POCKETCARD_SLOT\" >said && ls >>said",
            folder.path().display()
        );
        let mut hooks = Hooks::default();
        let ended = start(&mut hooks, Hook::Leave, &command);
        assert!(matches!(end(&mut hooks, &ended), Outcome::Ended(Hook::Leave, status) if status.success()));
        assert_eq!(text(&said), "leave|$(touch here); `x`|3|said\n", "a name is nothing but text");
    }

    #[test]
    fn a_command_that_fails_is_said_to_and_nothing_else() {
        let mut hooks = Hooks::default();
        for command in ["exit 3", "/nonexistent", "syntax ( error"] {
            let ended = start(&mut hooks, Hook::Arrive, command);
            assert!(matches!(end(&mut hooks, &ended), Outcome::Ended(Hook::Arrive, status) if !status.success()));
        }
        assert_eq!(hooks.deadline(), None);
    }

    #[test]
    fn what_runs_for_too_long_is_killed_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let mut hooks = Hooks::default();
        let began = Instant::now();
        // Its child holds the pipe open for as long as it lives.
        let command = format!("mkfifo {0}; (echo up; exec sleep 1000) >{0}", pipe.display());
        let ended = start(&mut hooks, Hook::Arrive, &command);
        while !pipe.exists() {
            thread::yield_now();
        }
        let mut child = io::BufReader::new(fs::File::open(&pipe).unwrap());
        let mut line = String::new();
        io::BufRead::read_line(&mut child, &mut line).unwrap();
        let until = hooks.deadline().unwrap();
        assert!(until >= began + ARRIVE_LIMIT && until <= Instant::now() + ARRIVE_LIMIT);
        assert!(hooks.look(until - Duration::from_millis(1)).is_empty());
        assert!(matches!(hooks.look(until).as_slice(), [Outcome::Killed(Hook::Arrive)]));
        assert_eq!(io::BufRead::read_line(&mut child, &mut line).unwrap(), 0, "nothing holds the pipe");
        assert!(matches!(ended.recv_timeout(SOON).unwrap(), Input::HookEnded));
        assert!(hooks.look(Instant::now()).is_empty());
    }

    #[test]
    fn a_phone_that_comes_again_and_again_does_not_keep_the_locker_from_starting() {
        let mut hooks = Hooks::default();
        let arrived: Vec<_> = (0..MOST_RUNNING).map(|_| start(&mut hooks, Hook::Arrive, "exec sleep 1000")).collect();
        let (sender, _ended) = mpsc::channel();
        hooks.start(Hook::Arrive, "true", &who(), sender, Instant::now()).unwrap_err();
        let left = start(&mut hooks, Hook::Leave, "exit 0");
        assert!(matches!(end(&mut hooks, &left), Outcome::Ended(Hook::Leave, status) if status.success()));
        assert_eq!(hooks.look(Instant::now() + ARRIVE_LIMIT).len(), MOST_RUNNING);
        drop(arrived);
    }

    #[test]
    fn a_locker_is_never_killed_and_does_not_keep_the_next_from_starting() {
        let mut hooks = Hooks::default();
        let ended: Vec<_> = (0..MOST_RUNNING).map(|_| start(&mut hooks, Hook::Leave, "exec sleep 1000")).collect();
        assert_eq!(hooks.deadline(), None);
        assert!(hooks.look(Instant::now() + ARRIVE_LIMIT * 100).is_empty());
        let (sender, _ended) = mpsc::channel();
        hooks.start(Hook::Leave, "true", &who(), sender, Instant::now()).unwrap_err();
        for running in &mut hooks.0 {
            kill_process_group(running.group, Signal::KILL).unwrap();
        }
        ended.iter().for_each(|ended| drop(ended.recv_timeout(SOON).unwrap()));
        assert_eq!(hooks.look(Instant::now()).len(), MOST_RUNNING);
    }
}
