//! Child processes that cannot outlive this one, with a log whose end can be quoted.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::DevError;
use crate::error::Context;
use crate::lines::{Lines, NoLine};
use crate::tools::system_program;

/// How long a child may take to end after SIGTERM before it is killed.
pub(crate) const TERMINATE_LIMIT: Duration = Duration::from_secs(5);
/// How much of a log an error quotes.
const TAIL: u64 = 2048;

/// One child: killed when dropped, and by the kernel when this process dies.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pidfd: OwnedFd,
    log: PathBuf,
    lines: Option<Arc<Lines>>,
    stdin: Option<ChildStdin>,
    ended: Option<ExitStatus>,
}

/// What to start and how.
#[derive(Debug)]
pub(crate) struct Spec<'a> {
    pub(crate) name: String,
    pub(crate) program: &'a Path,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(&'a str, OsString)>,
    pub(crate) log: PathBuf,
    /// Whether stdin and stdout are lines to talk through; else stdout goes to the log, too.
    pub(crate) talks: bool,
}

impl Process {
    /// Starts the child in a process group of its own, so that Ctrl-C reaches the user's command first.
    pub(crate) fn start(spec: Spec<'_>) -> Result<Self, DevError> {
        let log = OpenOptions::new().create(true).append(true).open(&spec.log).context("opening a log")?;
        let mut command = dying_with_parent(spec.program)?;
        command.args(&spec.arguments).envs(spec.environment).current_dir("/").process_group(0);
        if spec.talks {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        } else {
            command.stdin(Stdio::null()).stdout(log.try_clone().context("opening a log")?);
        }
        command.stderr(log);
        let mut child = spawn(command).context("starting a process")?;
        let pidfd = pidfd_open(pid_of(&child), PidfdFlags::empty()).context("watching a process")?;
        let lines = child.stdout.take().map(|stdout| {
            let lines = Arc::new(Lines::default());
            let written = Arc::clone(&lines);
            thread::spawn(move || {
                BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| written.push(line));
                written.end();
            });
            lines
        });
        let stdin = child.stdin.take();
        Ok(Self { name: spec.name, child, pidfd, log: spec.log, lines, stdin, ended: None })
    }

    /// The process id, for tests that send signals of their own.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the process is called in errors.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The next line that the child wrote to stdout.
    ///
    /// # Errors
    /// [`DevError::TimedOut`] after `limit`, [`DevError::ChildEnded`] if it ended instead.
    pub(crate) fn line(&mut self, what: &'static str, limit: Duration) -> Result<String, DevError> {
        match self.lines.as_ref().map(|lines| lines.next(limit)) {
            Some(Ok(line)) => Ok(line),
            Some(Err(NoLine::TimedOut)) => Err(self.timed_out(what, limit)),
            Some(Err(NoLine::Ended)) | None => Err(self.ended_early()),
        }
    }

    /// The pipe to the child's stdin.
    pub(crate) fn stdin(&mut self) -> Option<&mut ChildStdin> {
        self.stdin.as_mut()
    }

    /// A descriptor that becomes readable when the child ends.
    pub(crate) fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Sends SIGKILL and waits for the end: afterwards nothing of it runs any more.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            self.ended = self.child.wait().ok();
        }
        self.stdin = None;
    }

    /// Asks the child to end, then kills it if it does not within five seconds.
    pub(crate) fn terminate(&mut self) {
        self.stdin = None;
        let _ = self.signal(Signal::TERM);
        if self.wait(TERMINATE_LIMIT).is_none() {
            self.kill();
        }
    }

    /// Stops the child where it stands (SIGSTOP), until [`Self::resume`].
    ///
    /// # Errors
    /// [`DevError::System`] if it is gone.
    pub fn suspend(&mut self) -> Result<(), DevError> {
        self.signal(Signal::STOP)
    }

    /// Lets a suspended child go on.
    ///
    /// # Errors
    /// [`DevError::System`] if it is gone.
    pub fn resume(&mut self) -> Result<(), DevError> {
        self.signal(Signal::CONT)
    }

    fn signal(&mut self, signal: Signal) -> Result<(), DevError> {
        if self.ended.is_some() {
            return Err(self.ended_early());
        }
        kill_process(pid_of(&self.child), signal).context("sending a signal")
    }

    /// Waits for the child's end; `None` if it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        if self.ended.is_none() && readable(&[&self.pidfd], Instant::now() + limit) {
            self.ended = self.child.wait().ok();
        }
        self.ended
    }

    /// Whether the child still runs.
    pub fn is_running(&mut self) -> bool {
        self.wait(Duration::ZERO).is_none()
    }

    /// The end of the child's log.
    pub(crate) fn tail(&self) -> String {
        tail(&self.log).unwrap_or_else(|error| format!("({} cannot be read: {error})", self.log.display()))
    }

    pub(crate) fn timed_out(&self, what: &'static str, limit: Duration) -> DevError {
        DevError::TimedOut { process: self.name.clone(), what, limit, tail: self.tail() }
    }

    pub(crate) fn ended_early(&mut self) -> DevError {
        let status = match self.wait(Duration::from_secs(1)) {
            Some(status) => describe(status),
            None => "closed its output".to_owned(),
        };
        DevError::ChildEnded { process: self.name.clone(), status, tail: self.tail() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether one of the descriptors becomes readable before the deadline.
pub(crate) fn readable(descriptors: &[&OwnedFd], deadline: Instant) -> bool {
    let mut polled: Vec<PollFd<'_>> = descriptors.iter().map(|fd| PollFd::new(*fd, PollFlags::IN)).collect();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut polled, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(count) => return count > 0,
            Err(_) => return false,
        }
    }
}

/// A command that the kernel kills when this process dies, even by SIGKILL.
///
/// Three steps, because each alone has a hole: the death signal is set by `setpriv` before the program starts; `sh` then
/// looks whether the parent is still ours, in case it died before that; and the fork happens on a thread that lives as
/// long as the process (see [`spawn`]), because the kernel means the parent's *thread*.
pub(crate) fn dying_with_parent(program: &Path) -> Result<Command, DevError> {
    let mut command = Command::new(system_program("setpriv", "util-linux")?);
    command
        .args(["--pdeathsig", "KILL", "--", "sh", "-c"])
        // The name is for the shell's own complaint about a program that cannot be run.
        .args(["[ \"$PPID\" = \"$1\" ] || exit 125; shift; exec \"$@\"", "pocketcard"])
        .arg(std::process::id().to_string())
        .arg(program);
    Ok(command)
}

struct Job(Command, Sender<io::Result<Child>>);

/// Starts a command from a thread that never ends before the process does.
///
/// # Errors
/// Those of [`Command::spawn`].
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for Job(mut command, answer) in jobs {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (answer, result) = mpsc::channel();
    let gone = |_| io::Error::other("the thread that starts processes is gone");
    spawner.lock().unwrap_or_else(PoisonError::into_inner).send(Job(command, answer)).map_err(|_| gone(()))?;
    result.recv().map_err(|_| gone(()))?
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no status".to_owned(),
    }
}

fn tail(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(folder: &Path, script: &str) -> Process {
        Process::start(Spec {
            name: "the shell".to_owned(),
            program: Path::new("/bin/sh"),
            arguments: vec!["-c".into(), script.into()],
            environment: Vec::new(),
            log: folder.join("shell.log"),
            talks: true,
        })
        .unwrap()
    }

    #[test]
    fn an_early_end_quotes_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell(folder.path(), "echo ready; echo the reason >&2; exit 3");
        assert_eq!(process.line("the greeting", Duration::from_secs(5)).unwrap(), "ready");
        let error = process.line("more", Duration::from_secs(5)).unwrap_err();
        assert_eq!(error.to_string(), "the shell ended early (exit code 3). Its last words:\nthe reason");
    }

    #[test]
    fn a_wait_names_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell(folder.path(), "read line");
        let error = process.line("the greeting", Duration::from_millis(20)).unwrap_err();
        assert!(error.to_string().starts_with("the shell: the greeting did not happen within 20ms"), "{error}");
        assert!(process.is_running());
        process.kill();
        assert!(!process.is_running());
    }

    #[test]
    fn a_child_started_by_a_thread_that_ended_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut process =
            thread::scope(|scope| scope.spawn(|| shell(folder.path(), "echo one; read line")).join().unwrap());
        process.line("one", Duration::from_secs(5)).unwrap();
        assert!(process.wait(Duration::from_millis(100)).is_none(), "the death of the thread killed the child");
    }

    #[test]
    fn a_child_dies_with_a_killed_parent() {
        let folder = tempfile::tempdir().unwrap();
        // This shell stands for us: it starts a child the same way and is then killed.
        let script = "setpriv --pdeathsig KILL -- sh -c '[ \"$PPID\" = \"$0\" ] || exit 125; exec \"$@\"' $$ sleep 60 & \
                      echo $!; wait";
        let mut parent = shell(folder.path(), script);
        let child = parent.line("the child's id", Duration::from_secs(5)).unwrap().parse().unwrap();
        let child = Pid::from_raw(child).unwrap();
        let pidfd = pidfd_open(child, PidfdFlags::empty()).unwrap();
        parent.kill();
        assert!(readable(&[&pidfd], Instant::now() + Duration::from_secs(5)), "the child outlived its parent");
    }
}
