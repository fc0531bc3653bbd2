//! Processes that the command of `pocketcard dev` left behind, such as a gpg-agent. They hold on to a reader that is
//! gone, and the next program that finds them would wonder why: so they end with the environment.

use std::fs;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, pidfd_open, pidfd_send_signal, set_child_subreaper, waitpid,
};

/// How long they may take to end by themselves after SIGTERM.
const TERMINATE_LIMIT: Duration = Duration::from_secs(2);
/// How long their end may take in all. One that still runs then belongs to another user, and is not ours to end.
const LIMIT: Duration = Duration::from_secs(5);

/// Makes this process the parent of whatever its descendants leave behind, instead of init.
pub(crate) fn inherit() {
    // Without it everything works, and nothing left behind is found.
    let _ = set_child_subreaper(Some(getpid()));
}

/// Ends every child of this process, and the children that they leave behind in turn.
pub(crate) fn end() {
    let begin = Instant::now();
    end_with(Signal::TERM, begin + TERMINATE_LIMIT);
    end_with(Signal::KILL, begin + LIMIT);
}

fn end_with(signal: Signal, deadline: Instant) {
    loop {
        let children = children();
        if children.is_empty() || Instant::now() >= deadline {
            return;
        }
        let running: Vec<_> = children
            .iter()
            .filter_map(|pid| {
                let process = pidfd_open(*pid, PidfdFlags::empty()).ok()?;
                let _ = pidfd_send_signal(&process, signal);
                Some(process)
            })
            .collect();
        for process in running {
            let left = deadline.saturating_duration_since(Instant::now());
            let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], Timespec::try_from(left).ok().as_ref());
        }
        for pid in children {
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

fn children() -> Vec<Pid> {
    let own = getpid().as_raw_nonzero().get().to_string();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(process.path().join("stat")).ok()?;
            // The name may hold anything, also parentheses. Spec: proc_pid_stat(5).
            let (_, rest) = stat.rsplit_once(')')?;
            (rest.split_whitespace().nth(1)? == own).then(|| Pid::from_raw(pid))?
        })
        .collect()
}
