//! One target, run for a while.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::coverage::Coverage;
use crate::Problem;
use crate::problem::Context;
use crate::workspace::{End, command, root, scratch, watch_within};

/// What a target may take beyond its time, to read its corpus and to finish its last input. It is killed then.
const GRACE: Duration = Duration::from_secs(60);
/// An input that takes longer has failed.
const INPUT_SECONDS: u64 = 20;
/// Lines of a log that are shown when its target failed.
const TAIL: usize = 40;

/// How long a target runs and what it may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) time: Duration,
    pub(super) memory_mib: u64,
}

/// How a target ended.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) target: String,
    pub(super) took: Duration,
    pub(super) coverage: Coverage,
    /// Why it failed, if it did, with the end of its log.
    pub(super) failure: Option<String>,
}

/// Runs a target; what it writes goes to its log.
pub(super) fn run(program: &Path, target: &str, limits: Limits) -> Report {
    let started = Instant::now();
    let mut coverage = Coverage::default();
    let mut tail = VecDeque::new();
    let log = scratch("fuzz").join(format!("{target}.log"));
    let ended = watch(program, target, limits, &log, |line| {
        coverage.see(line);
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line.to_owned());
    });
    let reason = match ended {
        Ok(End::Code(0)) => None,
        Ok(End::Code(code)) => Some(format!("exit code {code}")),
        Ok(End::Killed) => Some(format!("it did not end within {} s of its time and was killed", GRACE.as_secs())),
        Err(problem) => Some(problem.to_string()),
    };
    let failure = reason.map(|reason| {
        let lines: String = tail.iter().map(|line| format!("    | {line}\n")).collect();
        let crash = coverage.crash.as_ref().map(|path| format!("\n    the input: {}", path.display()));
        format!("{reason}\n{lines}    the whole log: {}{}", log.display(), crash.unwrap_or_default())
    });
    Report { target: target.to_owned(), took: started.elapsed(), coverage, failure }
}

fn watch(program: &Path, target: &str, limits: Limits, log: &Path, mut see: impl FnMut(&str)) -> Result<End, Problem> {
    let mut log = File::create(log).context("making the log of a fuzz target")?;
    let artifacts = root().join("fuzz/artifacts").join(target);
    fs::create_dir_all(&artifacts).context("making the folder for what a fuzz target finds")?;
    let mut fuzz = command(&program.to_string_lossy(), corpora(target)?);
    fuzz.arg(format!("-artifact_prefix={}/", artifacts.display()));
    fuzz.arg(format!("-max_total_time={}", limits.time.as_secs()));
    fuzz.arg(format!("-timeout={INPUT_SECONDS}"));
    fuzz.arg(format!("-rss_limit_mb={0}", limits.memory_mib)).arg(format!("-malloc_limit_mb={0}", limits.memory_mib));
    fuzz.arg("-print_final_stats=1");
    watch_within(&mut fuzz, limits.time + GRACE, |line| {
        // A full disk must not end the run; the end of the log is kept in memory, too.
        let _ = writeln!(log, "{line}");
        see(line);
    })
}

/// Where new inputs are kept, and the inputs to begin with, if the target has some.
fn corpora(target: &str) -> Result<Vec<PathBuf>, Problem> {
    let corpus = root().join("fuzz/corpus").join(target);
    fs::create_dir_all(&corpus).context("making the folder for fuzz inputs")?;
    let seeds = root().join("fuzz/seeds").join(target);
    Ok([corpus, seeds].into_iter().filter(|folder| folder.is_dir()).collect())
}
