//! Steps with a heading, a duration each and a summary at the end.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::Problem;

/// How a step ended when it did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It did what it is for.
    Done,
    /// It could not run here, for this reason. Never counted as passed.
    Skipped(String),
}

/// The steps of one task so far.
#[derive(Debug)]
pub(crate) struct Steps {
    started: Instant,
    entries: Vec<(String, Duration, Result<Outcome, String>)>,
    notes: Vec<String>,
    colours: bool,
}

impl Steps {
    pub(crate) fn new() -> Self {
        let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { started: Instant::now(), entries: Vec::new(), notes: Vec::new(), colours }
    }

    /// Runs a step. An error ends the task unless the caller goes on.
    pub(crate) fn step(
        &mut self,
        name: impl Into<String>,
        work: impl FnOnce() -> Result<Outcome, Problem>,
    ) -> Result<(), Problem> {
        self.with(name, |_| work().map(|outcome| (outcome, ())))
    }

    /// Runs a step that gives a value to the next ones.
    pub(crate) fn value<T>(
        &mut self,
        name: impl Into<String>,
        work: impl FnOnce() -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        self.with(name, |_| work().map(|value| (Outcome::Done, value)))
    }

    fn with<T>(
        &mut self,
        name: impl Into<String>,
        work: impl FnOnce(&mut Self) -> Result<(Outcome, T), Problem>,
    ) -> Result<T, Problem> {
        let name = name.into();
        say(&format!("\n{}", self.bold(&format!("==> {name}"))));
        let started = Instant::now();
        let result = work(self);
        let took = started.elapsed();
        let outcome = match &result {
            Ok((outcome, _)) => Ok(outcome.clone()),
            Err(problem) => Err(problem.to_string()),
        };
        let words = match &outcome {
            Ok(Outcome::Done) => "done",
            Ok(Outcome::Skipped(_)) => "SKIPPED",
            Err(_) => "FAILED",
        };
        say(&format!("    {words} after {}", seconds(took)));
        self.entries.push((name, took, outcome));
        result.map(|(_, value)| value)
    }

    /// A line for the end of the summary, such as a skipped test.
    pub(crate) fn note(&mut self, line: String) {
        if !self.notes.contains(&line) {
            self.notes.push(line);
        }
    }

    /// How many steps failed so far.
    pub(crate) fn failed(&self) -> usize {
        self.entries.iter().filter(|(_, _, outcome)| outcome.is_err()).count()
    }

    /// An error if any step failed.
    pub(crate) fn all_good(&self) -> Result<(), Problem> {
        match self.failed() {
            0 => Ok(()),
            count => Err(Problem::Several(count)),
        }
    }

    /// Prints the summary and turns the result into an exit code.
    pub(crate) fn finish(self, result: Result<(), Problem>) -> ExitCode {
        say(&format!("\n{}", self.bold("Summary")));
        for (name, took, outcome) in &self.entries {
            let words = match outcome {
                Ok(Outcome::Done) => String::new(),
                Ok(Outcome::Skipped(reason)) => format!("  SKIPPED: {reason}"),
                Err(problem) => format!("  FAILED: {}", problem.lines().next().unwrap_or_default()),
            };
            say(&format!("{:>9}  {name}{words}", seconds(*took)));
        }
        for note in &self.notes {
            say(&format!("           {note}"));
        }
        say(&format!("{:>9}  in all", seconds(self.started.elapsed())));
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => {
                let _ = writeln!(io::stderr(), "\n{}: {problem}", self.bold("error"));
                ExitCode::FAILURE
            }
        }
    }

    fn bold(&self, text: &str) -> String {
        if self.colours { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Prints a line; who reads it through a pipe may have gone away.
pub(crate) fn say(line: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// A duration as a person reads it.
pub(crate) fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    if whole >= 100 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        format!("{:.2} s", duration.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_and_skips_are_not() {
        let mut steps = Steps::new();
        steps.step("one", || Ok(Outcome::Done)).unwrap();
        steps.step("two", || Ok(Outcome::Skipped("no radio".to_owned()))).unwrap();
        assert!(steps.all_good().is_ok());
        assert!(steps.step("three", || Err(Problem::Failed("x".to_owned()))).is_err());
        assert!(matches!(steps.all_good(), Err(Problem::Several(1))));
    }

    #[test]
    fn durations_are_short() {
        assert_eq!(seconds(Duration::from_millis(1234)), "1.23 s");
        assert_eq!(seconds(Duration::from_secs(125)), "2 min 05 s");
    }
}
