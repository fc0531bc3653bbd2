//! The limits of SPEC.md that the host holds are those of the code: a change of either alone fails here.
#![allow(missing_docs)]

use pocketcard_front::Config;

const SPEC: &str = include_str!("../../../protocol/SPEC.md");

#[test]
fn section_10() {
    let Config { transmit_limit, pin_entry_margin, grace, .. } = Config::default();
    for row in [
        format!("| host cancels a `Transmit` after | {} s |", transmit_limit.as_secs_f64()),
        format!(
            "| host cancels a `PinEntry` that has had no answer | {} s after its `time_limit_s` |",
            pin_entry_margin.as_secs_f64()
        ),
        format!("| grace of a session without a link | {} s |", grace.as_secs_f64()),
    ] {
        assert!(SPEC.lines().any(|line| line == row), "not in section 10 of SPEC.md: {row}");
    }
}
