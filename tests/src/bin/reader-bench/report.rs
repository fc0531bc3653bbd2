//! The numbers beside the goals.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::Exchanged;
use crate::run::{Failure, both, none};
use crate::samples::{Samples, Summary};

/// As fast as vsmartcard's newest vpcd, whose p50 was 0.77 of that of Debian's with QUICKACK where both were measured.
const KNOWN_GOAL: f64 = 0.77;

/// What one set-up measured. Pairs are the peer's and ours.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Pass {
    pub(crate) small: Vec<Samples>,
    pub(crate) large: Vec<Samples>,
    pub(crate) known: Vec<Samples>,
    pub(crate) reset: Vec<Samples>,
    pub(crate) idle: Vec<Samples>,
    pub(crate) peer_inserted: Samples,
    pub(crate) peer_removed: Samples,
    pub(crate) locked: Samples,
    pub(crate) unlocked: Samples,
    pub(crate) killed: Samples,
    pub(crate) connected: Samples,
}

impl Pass {
    pub(crate) fn new(exchanged: Vec<Exchanged>) -> Result<Self, Failure> {
        let [peer, ours] = both(exchanged)?;
        Ok(Self {
            small: vec![peer.small, ours.small],
            large: vec![peer.large, ours.large],
            known: vec![peer.known, ours.known],
            reset: none(),
            idle: none(),
            ..Self::default()
        })
    }
}

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) quick: bool,
    pub(crate) free: Pass,
    pub(crate) one_cpu: Option<Pass>,
}

/// One measurement with its peer and its goal.
struct Row {
    name: &'static str,
    samples: Vec<Summary>,
    goal: Goal,
}

/// What is to be reached.
enum Goal {
    /// p50 at most this many times the peer's.
    Ratio(f64),
    /// p50 and p99 at most this many microseconds.
    Absolute(f64, f64),
    /// Only reported.
    None,
}

impl Report {
    fn rows(&self) -> Vec<Row> {
        let row = |name, samples: &[Samples], goal| Row {
            name,
            samples: samples.iter().map(Samples::summary).collect(),
            goal,
        };
        let pair = |peer: &Samples, ours: &Samples| vec![peer.clone(), ours.clone()];
        let free = &self.free;
        let mut rows = vec![
            row("10 B -> 2 B", &free.small, Goal::Ratio(1.30)),
            row("14 B -> 4098 B", &free.large, Goal::Ratio(1.45)),
            row("9 B -> 22 B, known to the host", &free.known, Goal::Ratio(KNOWN_GOAL)),
        ];
        if let Some(one) = &self.one_cpu {
            rows.push(row("10 B -> 2 B, one CPU", &one.small, Goal::Ratio(1.30)));
            rows.push(row("14 B -> 4098 B, one CPU", &one.large, Goal::Ratio(1.45)));
            rows.push(row("9 B -> 22 B, known to the host, one CPU", &one.known, Goal::Ratio(KNOWN_GOAL)));
        }
        rows.extend([
            row(
                "phone says channel open / vpcd connected -> PRESENT",
                &pair(&free.peer_inserted, &free.connected),
                Goal::Absolute(500.0, 2000.0),
            ),
            row(
                "phone killed / vpcd disconnected -> EMPTY",
                &pair(&free.peer_removed, &free.killed),
                Goal::Absolute(500.0, 2000.0),
            ),
            row("card unlocked on the phone -> PRESENT", &[Samples::default(), free.unlocked.clone()], Goal::None),
            row("card locked on the phone -> EMPTY", &[Samples::default(), free.locked.clone()], Goal::None),
            row("connect and exchange after idle power-off", &free.idle, Goal::Absolute(500.0, f64::INFINITY)),
            row("connect, exchange, disconnect with reset", &free.reset, Goal::Absolute(500.0, f64::INFINITY)),
        ]);
        rows.retain(|row| row.samples.iter().any(|samples| samples.count > 0));
        rows
    }

    /// A table for people.
    pub(crate) fn markdown(&self) -> String {
        let mut text =
            String::from("# Pocketcard beside Debian's vpcd (QUICKACK re-armed), the same pcscd, interleaved\n\n");
        text.push_str(
            "Microseconds. Through real pcscd, release build, ours encrypted from the daemon to the virtual phone.\n",
        );
        if self.quick {
            text.push_str("A quick run: too few samples to quote.\n");
        }
        text.push_str("\n| What | Reader | n | p10 | p50 | p90 | p99 | max | per second | p50 : vpcd | Goal |\n");
        text.push_str("|---|---|---|---|---|---|---|---|---|---|---|\n");
        for row in self.rows() {
            for (reader, samples) in ["vpcd", "Pocketcard"].into_iter().zip(&row.samples) {
                if samples.count == 0 {
                    continue;
                }
                let ours = reader == "Pocketcard";
                let ratio = if ours {
                    row.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}"))
                } else {
                    String::new()
                };
                let goal = if ours { row.judge() } else { String::new() };
                let Summary { count, p10, p50, p90, p99, max, rate } = samples;
                let _ = writeln!(
                    text,
                    "| {} | {reader} | {count} | {p10:.0} | {p50:.0} | {p90:.0} | {p99:.0} | {max:.0} | {rate:.0} | {ratio} | {goal} |",
                    row.name,
                );
            }
        }
        text
    }

    /// The same for machines.
    pub(crate) fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows()
            .iter()
            .map(|row| {
                let side = |index: usize| row.samples.get(index).filter(|samples| samples.count > 0);
                json!({ "name": row.name, "unit": "us", "vpcd": side(0), "pocketcard": side(1), "ratio_p50": row.ratio(), "goal": row.judge() })
            })
            .collect();
        json!({ "quick": self.quick, "rows": rows })
    }
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        match self.samples.as_slice() {
            [peer, ours] if peer.count > 0 && ours.count > 0 => Some(ours.p50 / peer.p50),
            _ => None,
        }
    }

    fn judge(&self) -> String {
        let word = |reached: bool| if reached { "reached" } else { "MISSED" };
        match (&self.goal, self.samples.get(1)) {
            (Goal::Ratio(goal), _) => {
                self.ratio().map_or_else(String::new, |ratio| format!("at most {goal:.2}: {}", word(ratio <= *goal)))
            }
            (Goal::Absolute(p50, p99), Some(ours)) => {
                let reached = word(ours.p50 <= *p50 && ours.p99 <= *p99);
                if p99.is_finite() {
                    format!("p50 {p50:.0}, p99 {p99:.0}: {reached}")
                } else {
                    format!("p50 {p50:.0}: {reached}")
                }
            }
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        let mut samples = Samples::default();
        values.iter().for_each(|&value| samples.push(value));
        samples
    }

    fn report(peer: f64, ours: f64) -> Report {
        let small = vec![samples(&[peer]), samples(&[ours])];
        let free = Pass { small, connected: samples(&[400.0, 2500.0]), ..Pass::default() };
        Report { quick: false, free, one_cpu: None }
    }

    #[test]
    fn goals_are_judged_by_the_ratio_of_the_medians() {
        assert!(report(100.0, 130.0).markdown().contains("| 1.30 | at most 1.30: reached |"));
        assert!(report(100.0, 131.0).markdown().contains("| 1.31 | at most 1.30: MISSED |"));
    }

    #[test]
    fn a_tail_over_the_goal_is_a_miss_and_what_was_not_measured_is_not_shown() {
        let text = report(1.0, 1.0).markdown();
        assert!(text.contains("p50 500, p99 2000: MISSED"), "{text}");
        assert!(!text.contains("4098") && !text.contains("NaN"), "{text}");
        assert_eq!(report(1.0, 1.0).json()["rows"].as_array().unwrap().len(), 2);
    }
}
