//! `cargo xtask test`: everything that can be tested on this machine.

use std::fs;
use std::path::PathBuf;

use crate::problem::Context;
use crate::steps::{Outcome, Steps};
use crate::workspace::{cargo, command, root, target, watch};
use crate::{Problem, install};

/// The exit code by which a script says that it could not run, as automake's tests do.
const SKIPPED: i32 = 77;

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
        install::apt(&[install::RUN.as_slice(), &install::CLIENTS, &install::BINDINGS].concat())?;
        Ok(Outcome::Done)
    })?;
    let ykman = steps.value("Install ykman from PyPI", install::ykman);
    match ykman {
        Ok(_) => Ok(()),
        // Without it two tests are skipped, and say so.
        Err(problem) => {
            steps.note(format!("without ykman: {problem}"));
            Ok(())
        }
    }
}

/// Builds everything and runs every suite; goes on after a failure, which is in the summary then.
pub(crate) fn suites(steps: &mut Steps, environment: &[(&str, &str)]) -> Result<(), Problem> {
    steps.step("Build the workspace and its tests", || {
        // Both at once, so that the binaries that the tests start are never older than the tests.
        crate::workspace::run(&mut cargo(["build", "--workspace"]))?;
        crate::workspace::run(&mut cargo(["test", "--workspace", "--no-run", "--quiet"]))?;
        Ok(Outcome::Done)
    })?;
    let mut skips = Vec::new();
    let _ = steps.step("Tests in Rust", || {
        let mut tests = cargo(["test", "--workspace", "--no-fail-fast", "--", "--show-output"]);
        tests.env("POCKETCARD_YKMAN", ykman_path()).envs(environment.iter().copied());
        let code = watch(&mut tests, |line| collect_skip(line, &mut skips))?;
        if code == 0 { Ok(Outcome::Done) } else { Err(Problem::Failed("cargo test --workspace".to_owned())) }
    });
    for script in scripts()? {
        let name = script.strip_prefix(root()).unwrap_or(&script).display().to_string();
        let _ = steps.step(&name, || {
            let mut reason = None;
            let mut run = command("bash", [&script]);
            run.env("POCKETCARD_BIN_DIR", target().join("debug"));
            let code = watch(&mut run, |line| {
                if let Some((_, text)) = line.split_once("SKIPPED: ") {
                    reason = Some(text.to_owned());
                }
            })?;
            match code {
                0 => Ok(Outcome::Done),
                SKIPPED => Ok(Outcome::Skipped(reason.unwrap_or_else(|| "the script does not say why".to_owned()))),
                code => Err(Problem::Failed(format!("{name} (exit code {code})"))),
            }
        });
    }
    skips.into_iter().for_each(|skip| steps.note(skip));
    Ok(())
}

/// Where the tests look for ykman.
fn ykman_path() -> PathBuf {
    crate::workspace::scratch("ykman").join("bin/ykman")
}

/// Keeps the lines by which tests say that they were skipped.
fn collect_skip(line: &str, skips: &mut Vec<String>) {
    if let Some((_, reason)) = line.split_once("SKIPPED: ") {
        skips.push(format!("a test was SKIPPED: {reason}"));
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
    fn skips_are_collected_with_their_reasons() {
        let mut skips = Vec::new();
        for line in ["test a ... ok", "SKIPPED: ykman is not installed", "x SKIPPED: no radio"] {
            collect_skip(line, &mut skips);
        }
        assert_eq!(skips, ["a test was SKIPPED: ykman is not installed", "a test was SKIPPED: no radio"]);
    }
}
