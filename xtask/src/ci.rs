//! `cargo xtask ci`: what has to hold before a change lands. At most 40 minutes on two cores, from nothing.

use crate::steps::{Outcome, Steps};
use crate::workspace::{self, cargo, root, watch};
use crate::{Problem, ble, fuzz, install, login, models, package, test};

/// How long each fuzz target runs here; `cargo xtask soak` gives them ten minutes.
const FUZZ_SECONDS: u64 = 10;

fn lints(steps: &mut Steps) {
    let _ = steps.step("Format", || done(workspace::run(&mut cargo(["fmt", "--all", "--check"]))));
    let _ = steps.step("Lints", || {
        done(workspace::run(&mut cargo([
            "clippy",
            "--workspace",
            "--all-targets",
            "--keep-going",
            "--",
            "--deny",
            "warnings",
        ])))
    });
    let _ = steps.step("Documentation", || {
        let mut doc = cargo(["doc", "--workspace", "--no-deps", "--document-private-items", "--keep-going"]);
        done(workspace::run(doc.env("RUSTDOCFLAGS", "--deny warnings")))
    });
    dependencies(steps);
}

pub(crate) fn run(steps: &mut Steps) -> Result<(), Problem> {
    test::prepare(steps)?;
    lints(steps);
    let _ = test::suites(steps, &[]);
    let _ = ble::run(steps, &ble::Arguments::quick());
    let _ = package::trial(steps, &package::TrialArguments::quick());
    let nobody_sits_here = std::env::var_os("CI").is_some_and(|value| value == "true");
    let _ = login::run(steps, &login::Arguments::quick(nobody_sits_here));
    if !nobody_sits_here {
        let reason = "they switch the consoles of whoever sits here; with CI=true they are told".to_owned();
        let _ = steps.step("Login: greeters", || Ok(Outcome::Skipped(reason)));
    }
    let _ = fuzz::run(steps, &fuzz::Arguments::all(FUZZ_SECONDS, fuzz::Resources::default()));
    let _ = models::run(steps, &models::Arguments::quick());
    steps.all_good()
}

/// Licences, sources, duplicates, and known holes where the database of them can be reached.
fn dependencies(steps: &mut Steps) {
    let _ = steps.step("Dependencies: licences, bans, sources", || {
        install::cargo_tool(&["cargo-deny", "--version"], &["cargo-deny"])?;
        done(workspace::run(&mut cargo(["deny", "--all-features", "check", "licenses", "bans", "sources"])))
    });
    let _ = steps.step("Dependencies: advisories", || {
        if !root().join("deny.toml").is_file() {
            return Ok(Outcome::Skipped("there is no deny.toml".to_owned()));
        }
        let mut unreachable = false;
        let code = watch(&mut cargo(["deny", "check", "advisories"]), |line| {
            unreachable |= line.contains("failed to fetch") || line.contains("failed to load advisory database");
        })?;
        match code {
            0 => Ok(Outcome::Done),
            _ if unreachable => Ok(Outcome::Skipped("the advisory database cannot be reached from here".to_owned())),
            _ => Err(Problem::Failed("cargo deny check advisories".to_owned())),
        }
    });
}

fn done(result: Result<(), Problem>) -> Result<Outcome, Problem> {
    result.map(|()| Outcome::Done)
}
