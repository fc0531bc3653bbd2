//! Runs the fuzz targets, each for a while, several at a time.

mod coverage;
mod job;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::Problem;
use crate::problem::Context;
use crate::steps::{Outcome, Steps, say, seconds};
use crate::workspace::{cargo, command, output, root, scratch, works};
use job::{Limits, Report};

/// How long, which, and how many at a time.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Seconds for each target.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    #[command(flatten)]
    resources: Resources,
    /// Only these targets; all unless given.
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

/// What fuzzing may take of the machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Resources {
    /// Targets that run at a time; as many as there are processors unless given.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Memory for each target in MiB; one that takes more has failed.
    #[arg(long, value_name = "MIB", default_value_t = Self::MEMORY_MIB)]
    memory: u64,
}

impl Resources {
    /// AddressSanitizer's shadow included.
    const MEMORY_MIB: u64 = 2048;

    fn jobs(&self) -> NonZeroUsize {
        self.jobs.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
    }
}

impl Default for Resources {
    fn default() -> Self {
        Self { jobs: None, memory: Self::MEMORY_MIB }
    }
}

impl Arguments {
    /// Every target for so many seconds.
    pub(crate) fn all(seconds: u64, resources: Resources) -> Self {
        Self { seconds, resources, targets: Vec::new() }
    }
}

/// Builds the targets, then runs each for a while.
pub(crate) fn run(steps: &mut Steps, arguments: &Arguments) -> Result<(), Problem> {
    if !works(&mut command("cargo", ["+nightly", "--version"])) {
        let reason = "no nightly toolchain; install it: rustup toolchain install nightly --profile minimal";
        return steps.step("Fuzz targets", || Ok(Outcome::Skipped(reason.to_owned())));
    }
    steps.step("Install cargo-fuzz", || {
        crate::install::cargo_tool(&["cargo-fuzz", "--version"], &["cargo-fuzz"])?;
        Ok(Outcome::Done)
    })?;
    // The programs are started without cargo: it would hold its lock while one runs, and a killed cargo leaves its child.
    let folder = root().join("fuzz/target");
    let triple = output(&mut command("rustc", ["+nightly", "--print", "host-tuple"]))?.trim().to_owned();
    let targets = steps.value("Build the fuzz targets", || {
        let mut build = cargo(["+nightly", "fuzz", "build", "--target", &triple, "--target-dir"]);
        crate::workspace::run(build.arg(&folder))?;
        let list = output(&mut cargo(["+nightly", "fuzz", "list"]))?;
        select(list.split_whitespace().map(str::to_owned).collect(), &arguments.targets)
    })?;
    let programs = folder.join(triple).join("release");
    let limits = Limits { time: Duration::from_secs(arguments.seconds), memory_mib: arguments.resources.memory };
    let jobs = arguments.resources.jobs().min(NonZeroUsize::new(targets.len()).unwrap_or(NonZeroUsize::MIN));
    let mut reports = Vec::new();
    let name = format!("Fuzz {} targets for {} s each, {jobs} at a time", targets.len(), arguments.seconds);
    let result = steps.step(name, || {
        let logs = scratch("fuzz");
        std::fs::create_dir_all(&logs).context("making the folder for the logs of fuzz targets")?;
        say(&format!("    what they say is in {}/TARGET.log", logs.display()));
        reports = run_all(&targets, jobs, &programs, limits);
        let failed: Vec<&str> =
            reports.iter().filter(|report| report.failure.is_some()).map(|report| report.target.as_str()).collect();
        if failed.is_empty() {
            Ok(Outcome::Done)
        } else {
            Err(Problem::Failed(format!("fuzzing {}", failed.join(", "))))
        }
    });
    table(&reports).into_iter().for_each(|line| steps.note(line));
    result
}

/// The targets that were asked for, all if none.
fn select(all: Vec<String>, wanted: &[String]) -> Result<Vec<String>, Problem> {
    match wanted.iter().find(|name| !all.contains(name)) {
        Some(unknown) => {
            Err(Problem::Needs(format!("there is no fuzz target {unknown}; there are: {}", all.join(", "))))
        }
        None if wanted.is_empty() => Ok(all),
        None => Ok(wanted.to_vec()),
    }
}

/// Runs the targets, `jobs` at a time, and says how each ended as soon as it has.
fn run_all(targets: &[String], jobs: NonZeroUsize, programs: &Path, limits: Limits) -> Vec<Report> {
    let next = AtomicUsize::new(0);
    let (sender, reports) = mpsc::channel();
    let mut reports: Vec<Report> = thread::scope(|scope| {
        for _ in 0..jobs.get() {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let _ = sender.send(job::run(&programs.join(target), target, limits));
                }
            });
        }
        drop(sender);
        reports.into_iter().inspect(|report| say(&progress(report))).collect()
    });
    reports.sort_by(|one, other| one.target.cmp(&other.target));
    reports
}

/// A line for a target that has ended, or several if it failed.
fn progress(report: &Report) -> String {
    let Report { target, took, coverage, failure } = report;
    let line = format!(
        "    {target}: {}, {} inputs, {} edges, {} features, corpus {}",
        seconds(*took),
        coverage.inputs,
        coverage.edges,
        coverage.features,
        coverage.corpus
    );
    match failure {
        None => line,
        Some(reason) => format!("{line}\n    {target} FAILED: {reason}"),
    }
}

/// What all targets reached, for the summary.
fn table(reports: &[Report]) -> Vec<String> {
    if reports.is_empty() {
        return Vec::new();
    }
    let head = format!(
        "{:<18}{:>9}{:>12}{:>11}{:>16}{:>10}{:>8}",
        "fuzz target", "seconds", "inputs", "inputs/s", "edges", "features", "corpus"
    );
    let rows = reports.iter().map(|report| {
        let Report { target, took, coverage, failure } = report;
        let edges = match coverage.instrumented {
            0 => coverage.edges.to_string(),
            all => format!("{} of {all}", coverage.edges),
        };
        let taken = took.as_secs_f64();
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = if taken > 0.0 { coverage.inputs as f64 / taken } else { 0.0 };
        let end = if failure.is_some() { "  FAILED" } else { "" };
        format!(
            "{target:<18}{taken:>9.1}{:>12}{rate:>11.0}{edges:>16}{:>10}{:>8}{end}",
            coverage.inputs, coverage.features, coverage.corpus
        )
    });
    [head].into_iter().chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::coverage::Coverage;
    use super::*;

    /// Programs that stand for fuzz targets.
    fn programs(scripts: &[(&str, &str)]) -> (tempfile::TempDir, Vec<String>) {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let write = |(name, script): &(&str, &str)| {
            // Two runs of this test may go on in one checkout.
            let name = format!("{name}-{}", std::process::id());
            let path = folder.path().join(&name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
            name
        };
        let names = scripts.iter().map(write).collect();
        (folder, names)
    }

    #[test]
    fn an_unknown_target_is_an_error() {
        let all = vec!["apdu".to_owned(), "tlv".to_owned()];
        assert_eq!(select(all.clone(), &[]).unwrap(), all);
        assert_eq!(select(all.clone(), &["tlv".to_owned()]).unwrap(), ["tlv"]);
        assert!(matches!(select(all, &["tvl".to_owned()]), Err(Problem::Needs(_))));
    }

    #[test]
    fn each_target_has_its_report_and_a_failure_shows_its_log() {
        std::fs::create_dir_all(scratch("fuzz")).unwrap();
        let (folder, targets) = programs(&[
            ("test-good", "echo '#7 DONE cov: 3 ft: 4 corp: 2/9b'"),
            ("test-bad", "echo 'Test unit written to /a/crash-1' >&2; exit 77"),
        ]);
        let limits = Limits { time: Duration::from_secs(1), memory_mib: 64 };
        let reports = run_all(&targets, NonZeroUsize::MIN, folder.path(), limits);
        for target in &targets {
            for kind in ["corpus", "artifacts"] {
                let _ = std::fs::remove_dir(root().join("fuzz").join(kind).join(target));
            }
            std::fs::remove_file(scratch("fuzz").join(format!("{target}.log"))).unwrap();
        }
        let [bad, good] = reports.as_slice() else { panic!("{reports:?}") };
        assert_eq!(good.coverage, Coverage { inputs: 7, edges: 3, features: 4, corpus: 2, ..Coverage::default() });
        assert!(good.failure.is_none());
        let failure = bad.failure.as_deref().unwrap();
        assert!(failure.contains("exit code 77") && failure.contains("the input: /a/crash-1"), "{failure}");
        assert!(table(&reports).iter().any(|row| row.starts_with("test-bad") && row.ends_with("FAILED")));
    }
}
