//! What libFuzzer says about a run.

use std::path::PathBuf;

/// What one target reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Coverage {
    /// Inputs that were run.
    pub(super) inputs: u64,
    /// Edges of the program that were reached.
    pub(super) edges: u64,
    /// Edges that the program has, all its libraries included; 0 if libFuzzer did not say.
    pub(super) instrumented: u64,
    /// Edges together with how often, in classes.
    pub(super) features: u64,
    /// Inputs that are kept because each reaches something that no other does.
    pub(super) corpus: u64,
    /// The input that broke an assertion, took too long or too much memory.
    pub(super) crash: Option<PathBuf>,
}

impl Coverage {
    /// Takes in a line of libFuzzer's output.
    pub(super) fn see(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix('#') {
            self.see_progress(rest);
        } else if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            self.inputs = count.trim().parse().unwrap_or(self.inputs);
        } else if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.crash = Some(PathBuf::from(path.trim()));
        } else if line.starts_with("INFO: Loaded ") && line.contains("inline 8-bit counters") {
            let counters = line.split_once('(').and_then(|(_, rest)| rest.split_once(' '));
            self.instrumented = counters.and_then(|(count, _)| count.parse().ok()).unwrap_or_default();
        }
    }

    /// `123 DONE cov: 45 ft: 67 corp: 8/90b ...`, the number sign already gone.
    fn see_progress(&mut self, rest: &str) {
        let words: Vec<&str> = rest.split_whitespace().collect();
        let number = |key: &str| -> Option<u64> {
            let at = words.iter().position(|word| *word == key)?;
            words.get(at + 1)?.split('/').next()?.parse().ok()
        };
        let inputs = words.first().and_then(|word| word.parse().ok());
        if let (Some(inputs), Some(edges), Some(features)) = (inputs, number("cov:"), number("ft:")) {
            (self.inputs, self.edges, self.features) = (inputs, edges, features);
            self.corpus = number("corp:").unwrap_or(self.corpus);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libfuzzers_numbers_are_read() {
        let mut coverage = Coverage::default();
        for line in [
            "INFO: Loaded 1 modules   (98765 inline 8-bit counters): 98765 [0x55d0c4b9c0f0, 0x55d0c4bb42bd), ",
            "INFO: Loaded 1 PC tables (98765 PCs): 98765 [0x55d0c4bb42c0,0x55d0c4d35f90), ",
            "INFO: seed corpus: files: 1 min: 1b max: 1b total: 1b rss: 41Mb",
            "#2097152\tpulse  cov: 33 ft: 77 corp: 8/50b lim: 4096 exec/s: 1048576 rss: 41Mb",
            "#3000000\tDONE   cov: 34 ft: 78 corp: 9/52b lim: 4096 exec/s: 1000000 rss: 41Mb",
            "stat::number_of_executed_units: 3000001",
        ] {
            coverage.see(line);
        }
        let expected =
            Coverage { inputs: 3_000_001, edges: 34, instrumented: 98_765, features: 78, corpus: 9, crash: None };
        assert_eq!(coverage, expected);
    }

    #[test]
    fn the_file_of_a_crash_is_found() {
        let mut coverage = Coverage::default();
        coverage.see("artifact_prefix='/a/'; Test unit written to /a/crash-0123");
        assert_eq!(coverage.crash, Some(PathBuf::from("/a/crash-0123")));
    }
}
