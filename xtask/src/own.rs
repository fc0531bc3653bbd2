//! What one run has to itself, so that several may go on in one checkout.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::Problem;
use crate::problem::Context;

/// How the folders of runs are called; the process's number and something random follow.
const OWN: &str = "run-";

/// A folder of this run in another, which goes away with the value. Those of runs that were killed go away now.
pub(crate) fn folder(within: &Path) -> Result<TempDir, Problem> {
    remove_left_behind(within);
    let prefix = format!("{OWN}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir_in(within).context("making a folder for this run")
}

/// Removes the folders of runs that were killed.
fn remove_left_behind(within: &Path) {
    for entry in fs::read_dir(within).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(OWN)?.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_runs_that_are_over_are_cleaned_up() {
        let folder = tempfile::tempdir().unwrap();
        let running = format!("{OWN}{}-x", std::process::id());
        // No process has this number. Spec: Linux, PID_MAX_LIMIT
        for name in ["bookworm", &running, "run-4194305-x"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        remove_left_behind(folder.path());
        let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["bookworm", running.as_str()]);
    }
}
