//! `cargo xtask soak`: the full counts. Its output is the report.

use crate::steps::Steps;
use crate::{Problem, fuzz, test};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Minutes for each fuzz target.
    #[arg(long, value_name = "N", default_value_t = 10)]
    fuzz_minutes: u64,
    /// Only the tests, no fuzzing.
    #[arg(long)]
    no_fuzz: bool,
    #[command(flatten)]
    resources: fuzz::Resources,
}

pub(crate) fn run(steps: &mut Steps, arguments: Arguments) -> Result<(), Problem> {
    test::prepare(steps)?;
    // The tests look for this variable and use their full counts: 500 kills in VERIFY, 200 at random moments.
    let _ = test::suites(steps, &[("POCKETCARD_SOAK", "1")]);
    if !arguments.no_fuzz {
        let _ = fuzz::run(steps, &fuzz::Arguments::all(60 * arguments.fuzz_minutes, arguments.resources));
    }
    steps.all_good()
}
