//! Runs the fuzz targets, each for a while.

use std::path::PathBuf;

use crate::Problem;
use crate::problem::Context;
use crate::steps::{Outcome, Steps};
use crate::workspace::{cargo, command, output, root, watch, works};

/// What one target reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Coverage {
    /// Edges of the program that were reached.
    pub(crate) edges: u64,
    /// Edges together with how often, in classes.
    pub(crate) features: u64,
    /// Inputs that were run.
    pub(crate) runs: u64,
}

/// How long, and which.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Seconds for each target.
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub(crate) seconds: u64,
    /// Only these targets; all unless given.
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
}

impl Arguments {
    /// Every target for so many seconds.
    pub(crate) fn all(seconds: u64) -> Self {
        Self { seconds, targets: Vec::new() }
    }
}

/// Builds the targets, then runs each for a while, one step a target.
pub(crate) fn run(steps: &mut Steps, arguments: &Arguments) -> Result<(), Problem> {
    if !root().join("fuzz/Cargo.toml").is_file() {
        return steps.step("Fuzz targets", || Ok(Outcome::Skipped("there are none".to_owned())));
    }
    if !works(&mut nightly(&["--version"])) {
        let reason = "no nightly toolchain; install it: rustup toolchain install nightly --profile minimal";
        return steps.step("Fuzz targets", || Ok(Outcome::Skipped(reason.to_owned())));
    }
    let _ = steps.step("Install cargo-fuzz", || {
        crate::install::cargo_tool(&["cargo-fuzz", "--version"], &["cargo-fuzz"])?;
        Ok(Outcome::Done)
    });
    let targets = steps.value("Build the fuzz targets", || {
        crate::workspace::run(&mut nightly(&["fuzz", "build"]))?;
        let list = output(&mut nightly(&["fuzz", "list"]))?;
        Ok(list.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect::<Vec<_>>())
    })?;
    for target in targets.into_iter().filter(|name| arguments.targets.is_empty() || arguments.targets.contains(name)) {
        let mut coverage = Coverage::default();
        let _ = steps.step(format!("Fuzz {target} for {} s", arguments.seconds), || {
            let limit = format!("-max_total_time={}", arguments.seconds);
            let mut fuzz = nightly(&["fuzz", "run", &target]);
            fuzz.args(corpora(&target)?).args(["--", &limit, "-print_final_stats=1", "-timeout=20"]);
            let code = watch(&mut fuzz, |line| see(line, &mut coverage))?;
            if code == 0 { Ok(Outcome::Done) } else { Err(Problem::Failed(format!("fuzz target {target}"))) }
        });
        let Coverage { edges, features, runs } = coverage;
        steps.note(format!("fuzz {target}: {runs} inputs, {edges} edges, {features} features"));
    }
    Ok(())
}

/// Where new inputs are kept, and the inputs to begin with, if the target has some.
fn corpora(target: &str) -> Result<Vec<PathBuf>, Problem> {
    let corpus = root().join("fuzz/corpus").join(target);
    std::fs::create_dir_all(&corpus).context("making the folder for fuzz inputs")?;
    let seeds = root().join("fuzz/seeds").join(target);
    Ok([corpus, seeds].into_iter().filter(|folder| folder.is_dir()).collect())
}

/// Reads libFuzzer's progress: `#123 DONE cov: 45 ft: 67 corp: ...`.
fn see(line: &str, coverage: &mut Coverage) {
    let Some(rest) = line.strip_prefix('#') else { return };
    let words: Vec<&str> = rest.split_whitespace().collect();
    let number = |key: &str| {
        let at = words.iter().position(|word| *word == key)?;
        words.get(at + 1)?.parse().ok()
    };
    if let (Some(edges), Some(features)) = (number("cov:"), number("ft:")) {
        let runs = words.first().and_then(|word| word.parse().ok()).unwrap_or_default();
        *coverage = Coverage { edges, features, runs };
    }
}

fn nightly(arguments: &[&str]) -> std::process::Command {
    let mut nightly = if arguments == ["--version"] { command("cargo", ["+nightly"]) } else { cargo(["+nightly"]) };
    nightly.args(arguments);
    nightly
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libfuzzers_numbers_are_read() {
        let mut coverage = Coverage::default();
        see("INFO: seed corpus: files: 1", &mut coverage);
        see("#2097152\tpulse  cov: 33 ft: 77 corp: 9/52b lim: 4096 exec/s: 1048576 rss: 41Mb", &mut coverage);
        see("#3000000\tDONE   cov: 34 ft: 78 corp: 9/52b lim: 4096 exec/s: 1000000 rss: 41Mb", &mut coverage);
        assert_eq!(coverage, Coverage { edges: 34, features: 78, runs: 3_000_000 });
    }
}
