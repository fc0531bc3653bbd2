//! `cargo xtask test`: everything that can be tested on this machine.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::problem::Context;
use crate::steps::{Outcome, Steps};
use crate::workspace::{TIMED_OUT, cargo, limited, root, target, watch};
use crate::{Problem, install};

/// The exit code by which a script says that it could not run, as automake's tests do.
const SKIPPED: i32 = 77;
/// For one script, which takes a minute once everything is built.
const SCRIPT_LIMIT: Duration = Duration::from_secs(1800);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Install nothing: fail or skip instead.
    #[arg(long)]
    no_install: bool,
}

pub(crate) fn run(steps: &mut Steps, arguments: &Arguments) -> Result<(), Problem> {
    if !arguments.no_install {
        prepare(steps)?;
    }
    suites(steps, &[])?;
    steps.all_good()
}

/// Installs what the tests need.
pub(crate) fn prepare(steps: &mut Steps) -> Result<(), Problem> {
    steps.step("Install what the tests need", || {
        install::apt(&[install::RUN.as_slice(), &install::CLIENTS, &install::LOGINS, &install::bindings()].concat())?;
        Ok(Outcome::Done)
    })?;
    // Without it two tests are skipped, and say so.
    steps.step("Install ykman from PyPI", || {
        Ok(install::ykman().map_or_else(|problem| Outcome::Skipped(problem.to_string()), |_| Outcome::Done))
    })?;
    // Three tests log in by ssh.
    steps.step("Find an sshd to log in at; the machine's own is left alone", || {
        Ok(install::sshd().map_or_else(|problem| Outcome::Skipped(problem.to_string()), |_| Outcome::Done))
    })
}

/// Builds everything and runs every suite; goes on after a failure, which is in the summary then.
pub(crate) fn suites(steps: &mut Steps, environment: &[(&str, &str)]) -> Result<(), Problem> {
    steps.step("Build the workspace and its tests", || {
        // Both at once, so that the binaries that the tests start are never older than the tests.
        crate::workspace::run(&mut cargo(["build", "--workspace"]))?;
        crate::workspace::run(&mut cargo(["test", "--workspace", "--no-run", "--quiet"]))?;
        Ok(Outcome::Done)
    })?;
    let mut seen = Seen::default();
    let _ = steps.step("Tests in Rust", || {
        let mut tests = cargo(["test", "--workspace", "--no-fail-fast", "--", "--show-output"]);
        tests.env("POCKETCARD_YKMAN", ykman_path()).envs(environment.iter().copied());
        let code = watch(&mut tests, |line| seen.line(line))?;
        if code == 0 { Ok(Outcome::Done) } else { Err(Problem::Failed("cargo test --workspace".to_owned())) }
    });
    for script in scripts()? {
        let name = script.strip_prefix(root()).unwrap_or(&script).display().to_string();
        let _ = steps.step(&name, || {
            let mut reason = None;
            let mut run = limited(SCRIPT_LIMIT);
            run.arg("bash").arg(&script).env("POCKETCARD_BIN_DIR", target().join("debug"));
            let code = watch(&mut run, |line| {
                if let Some((_, text)) = line.split_once("SKIPPED: ") {
                    reason = Some(text.to_owned());
                }
            })?;
            match code {
                0 => Ok(Outcome::Done),
                TIMED_OUT => Err(Problem::Wrong(format!("{name} did not end within {} s", SCRIPT_LIMIT.as_secs()))),
                SKIPPED => Ok(Outcome::Skipped(reason.unwrap_or_else(|| "the script does not say why".to_owned()))),
                code => Err(Problem::Failed(format!("{name} (exit code {code})"))),
            }
        });
    }
    seen.notes().into_iter().for_each(|note| steps.note(note));
    Ok(())
}

/// Where the tests look for ykman.
fn ykman_path() -> PathBuf {
    crate::workspace::scratch("ykman").join("bin/ykman")
}

/// What the output of `cargo test` says.
#[derive(Debug, Default)]
struct Seen {
    passed: u64,
    failed: Vec<String>,
    ignored: u64,
    skips: Vec<String>,
    reports: Vec<String>,
}

impl Seen {
    fn line(&mut self, line: &str) {
        if let Some((_, reason)) = line.split_once("SKIPPED: ") {
            self.skips.push(reason.to_owned());
        }
        if let Some(report) = line.strip_prefix("REPORT: ") {
            self.reports.push(report.to_owned());
        }
        let number = |word: &str| {
            let (before, _) = line.split_once(word)?;
            before.rsplit(' ').next()?.parse::<u64>().ok()
        };
        if line.starts_with("test result: ") {
            self.passed += number(" passed").unwrap_or_default();
            self.ignored += number(" ignored").unwrap_or_default();
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failed.push(name.to_owned());
        }
    }

    fn notes(self) -> Vec<String> {
        let Self { passed, failed, ignored, skips, reports } = self;
        let mut notes = vec![format!(
            "tests in Rust: {passed} passed, {} failed, {ignored} ignored, {} skipped a part",
            failed.len(),
            skips.len()
        )];
        notes.extend(failed.into_iter().map(|name| format!("FAILED: {name}")));
        notes.extend(reports);
        notes.extend(skips.into_iter().map(|reason| format!("SKIPPED: {reason}")));
        notes
    }
}

/// The scripts that test the bindings: `bindings/*/test.sh`.
fn scripts() -> Result<Vec<PathBuf>, Problem> {
    let folder = root().join("bindings");
    let mut scripts: Vec<PathBuf> = fs::read_dir(&folder)
        .context("looking for the scripts of the bindings")?
        .flatten()
        .map(|entry| entry.path().join("test.sh"))
        .filter(|script| script.is_file())
        .collect();
    scripts.sort();
    Ok(scripts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_says_is_counted() {
        let mut seen = Seen::default();
        for line in [
            "test a ... ok",
            "test b::c ... FAILED",
            "SKIPPED: ykman is not installed",
            "REPORT: kills: 7",
            "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.1s",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s",
        ] {
            seen.line(line);
        }
        assert_eq!(
            seen.notes(),
            [
                "tests in Rust: 15 passed, 1 failed, 2 ignored, 1 skipped a part",
                "FAILED: b::c",
                "kills: 7",
                "SKIPPED: ykman is not installed"
            ]
        );
    }
}
