//! Durations and what is said of them.

use serde::{Deserialize, Serialize};

/// Many durations in microseconds, sorted when asked.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Samples(Vec<f64>);

/// What is reported of many durations, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    pub(crate) count: usize,
    pub(crate) p10: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    /// How many fit into a second, one after the other.
    pub(crate) rate: f64,
}

impl Samples {
    pub(crate) fn push(&mut self, microseconds: f64) {
        self.0.push(microseconds);
    }

    pub(crate) fn summary(&self) -> Summary {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = (share * sorted.len() as f64).ceil() as usize;
            sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
        };
        let total: f64 = sorted.iter().sum();
        Summary {
            count: sorted.len(),
            p10: at(0.10),
            p50: at(0.50),
            p90: at(0.90),
            p99: at(0.99),
            max: at(1.0),
            rate: sorted.len() as f64 * 1e6 / total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_nearest() {
        let mut samples = Samples::default();
        for value in (1..=100).rev() {
            samples.push(f64::from(value));
        }
        let summary = samples.summary();
        assert_eq!((summary.p10, summary.p50, summary.p90, summary.p99), (10.0, 50.0, 90.0, 99.0));
        assert_eq!((summary.max, summary.count), (100.0, 100));
        assert_eq!(summary.rate, 100.0 * 1e6 / 5050.0);
    }

    #[test]
    fn one_is_every_rank_and_none_is_none() {
        let mut samples = Samples::default();
        assert!(samples.summary().p50.is_nan());
        samples.push(7.0);
        assert_eq!((samples.summary().p10, samples.summary().p99), (7.0, 7.0));
    }
}
