//! `cargo xtask models`: Verifpal over protocol/models, compared to the letter with what its expectations.toml says.

mod manifest;
mod verdict;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{fs, thread};

use clap::Args;

use crate::problem::Context;
use crate::steps::{Outcome, Steps, say, seconds};
use crate::workspace::{command, output, root, scratch, shown};
use crate::{Problem, install};
use manifest::{Manifest, Text};
use verdict::Verdict;

/// The release whose findings the expectations are.
const VERIFPAL: &str = "1.6.7";

/// Which cases to check, and how deep.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only cases whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Sessions of each side, instead of what the case says.
    #[arg(long)]
    sessions: Option<u32>,
    /// Cases at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

impl Arguments {
    /// What CI checks: all cases, as deep as they say.
    pub(crate) const fn quick() -> Self {
        Self { only: None, sessions: None, jobs: 2 }
    }
}

/// Installs Verifpal if it is missing and checks every case.
///
/// # Errors
/// [`Problem::Wrong`] if one finding is not the expected one, attacks that are not found included.
pub(crate) fn run(steps: &mut Steps, arguments: &Arguments) -> Result<(), Problem> {
    steps.step("Verifpal", || install().map(|()| Outcome::Done))?;
    steps.step("Models", || check(arguments).map(|()| Outcome::Done))
}

fn install() -> Result<(), Problem> {
    let there = output(command("verifpal", ["--version"]).stderr(std::process::Stdio::null()));
    if there.is_ok_and(|version| version.split_whitespace().any(|word| word == VERIFPAL)) {
        return Ok(());
    }
    // It asks for a newer compiler than it needs.
    install::cargo_tool(&["false"], &["verifpal", "--version", VERIFPAL, "--force", "--ignore-rust-version"])
}

/// How one case came out.
struct Finding {
    name: String,
    took: Duration,
    sessions: u32,
    held: usize,
    attacks: usize,
    deviations: Vec<String>,
}

fn check(arguments: &Arguments) -> Result<(), Problem> {
    let folder = root().join("protocol/models");
    let path = folder.join("expectations.toml");
    let manifest = Manifest::parse(&fs::read_to_string(&path).context(path.display().to_string())?)?;
    unused_models(&folder, &manifest)?;
    let read = |file: &str| fs::read_to_string(folder.join(file)).context(file.to_owned());
    let texts: Vec<Text<'_>> = manifest.texts(read)?;
    let texts: Vec<Text<'_>> = texts
        .into_iter()
        .filter(|text| arguments.only.as_deref().is_none_or(|only| text.case.name.contains(only)))
        .collect();
    if texts.is_empty() {
        return Err(Problem::Wrong("no case has such a name".to_owned()));
    }
    let out = scratch("models");
    fs::create_dir_all(&out).context(out.display().to_string())?;
    say(&format!("    the text of every case is in {}", out.display()));

    let next = AtomicUsize::new(0);
    let findings = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                while let Some(text) = texts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let finding = check_one(&out, text, arguments.sessions);
                    if let Ok(finding) = &finding {
                        say(&line(finding));
                    }
                    if let Ok(mut findings) = findings.lock() {
                        findings.push(finding);
                    }
                }
            });
        }
    });
    let findings = findings.into_inner().unwrap_or_default();
    let findings = findings.into_iter().collect::<Result<Vec<_>, _>>()?;
    report(&findings)
}

/// A model that no case uses would be checked by nobody.
fn unused_models(folder: &Path, manifest: &Manifest) -> Result<(), Problem> {
    let used: BTreeSet<&str> = manifest.cases.iter().filter_map(|case| case.file.as_deref()).collect();
    for entry in fs::read_dir(folder).context(folder.display().to_string())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".vp") && !used.contains(name.as_str()) {
            return Err(Problem::Wrong(format!("{name} is in no case of expectations.toml")));
        }
    }
    Ok(())
}

fn check_one(out: &Path, text: &Text<'_>, sessions: Option<u32>) -> Result<Finding, Problem> {
    let path: PathBuf = out.join(format!("{}.vp", text.case.name.replace('/', ".")));
    fs::write(&path, &text.model).context(path.display().to_string())?;
    let sessions = sessions.unwrap_or(text.case.sessions);
    let count = sessions.to_string();
    let mut verifpal = command("verifpal", ["verify", "--format", "json", "--sessions", &count]);
    verifpal.arg(&path);
    let started = std::time::Instant::now();
    let json = output(&mut verifpal)?;
    let verdicts = Verdict::parse(&json)
        .map_err(|error| Problem::Wrong(format!("{}: {error} (see: {})", text.case.name, shown(&verifpal))))?;
    Ok(Finding {
        name: text.case.name.clone(),
        took: started.elapsed(),
        sessions,
        held: verdicts.iter().filter(|verdict| !verdict.attacked).count(),
        attacks: verdicts.iter().filter(|verdict| verdict.attacked).count(),
        deviations: verdict::deviations(&verdicts, &text.case.fails, text.case.truncated),
    })
}

fn line(finding: &Finding) -> String {
    let Finding { name, took, sessions, held, attacks, deviations } = finding;
    let words = if deviations.is_empty() { "as expected" } else { "DEVIATES" };
    format!("    {:>9}  {sessions} sessions  {held} hold, {attacks} attacked  {words:<11}  {name}", seconds(*took))
}

fn report(findings: &[Finding]) -> Result<(), Problem> {
    let deviations: Vec<String> = findings
        .iter()
        .flat_map(|finding| finding.deviations.iter().map(|text| format!("{}: {text}", finding.name)))
        .collect();
    if !deviations.is_empty() {
        return Err(Problem::Wrong(deviations.join("\n")));
    }
    let held: usize = findings.iter().map(|finding| finding.held).sum();
    let attacks: usize = findings.iter().map(|finding| finding.attacks).sum();
    say(&format!("    {} cases: {held} queries hold, {attacks} attacks found, all as expected", findings.len()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs no Verifpal: every case's text can be made, and says what the manifest says of it.
    #[test]
    fn the_manifest_fits_the_models() {
        let folder = root().join("protocol/models");
        let manifest = Manifest::parse(&fs::read_to_string(folder.join("expectations.toml")).unwrap()).unwrap();
        unused_models(&folder, &manifest).unwrap();
        let texts = manifest.texts(|file| fs::read_to_string(folder.join(file)).context(file.to_owned())).unwrap();
        for text in &texts {
            let queries = text.model.split("queries[").nth(1).unwrap();
            for query in &text.case.fails {
                assert!(queries.contains(query.as_str()), "{}: {query}", text.case.name);
            }
        }
        let attacks = texts.iter().filter(|text| text.case.without.is_some()).count();
        assert!(attacks >= 15, "{attacks}");
    }
}
