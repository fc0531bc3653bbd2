//! `cargo xtask bench`: how fast the reader is, beside Debian's vpcd in the same pcscd.

use std::fs;

use clap::Args;

use crate::problem::Context;
use crate::steps::{Outcome, Steps, say};
use crate::workspace::{cargo, command, run as run_command, scratch, target};
use crate::{Problem, install};

/// The peer.
const VPCD: [&str; 1] = ["vsmartcard-vpcd"];
/// What is measured, and what measures it.
const PACKAGES: [&str; 5] =
    ["pocketcard", "pocketcardd", "pocketcard-driver", "pocketcard-examples", "pocketcard-tests"];

/// How long to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A fifth of everything: a minute instead of five.
    #[arg(long)]
    quick: bool,
    /// Only exchanges: no presence, resets and power-off.
    #[arg(long)]
    exchanges_only: bool,
}

pub(crate) fn run(steps: &mut Steps, arguments: &Arguments) -> Result<(), Problem> {
    steps.step("What is missing", || {
        install::apt(&install::RUN)?;
        install::apt(&VPCD).map(|()| Outcome::Done)
    })?;
    steps.step("Build for release", || {
        let packages = PACKAGES.iter().flat_map(|package| ["--package", package]);
        run_command(cargo(["build", "--release"]).args(packages)).map(|()| Outcome::Done)
    })?;
    let out = scratch("bench");
    steps.step("Measure", || {
        fs::create_dir_all(&out).context(out.display().to_string())?;
        let release = target().join("release");
        let mut bench = command(&release.join("reader-bench").to_string_lossy(), ["run"]);
        bench.arg("--json").arg(out.join("bench.json")).arg("--markdown").arg(out.join("bench.md"));
        if arguments.quick {
            bench.arg("--quick");
        }
        if arguments.exchanges_only {
            bench.arg("--exchanges-only");
        }
        run_command(bench.env("POCKETCARD_BIN_DIR", &release))?;
        say(&format!("    written to {}", out.join("bench.{md,json}").display()));
        Ok(Outcome::Done)
    })
}
