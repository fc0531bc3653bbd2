//! The limits of SPEC.md that the card holds are those of the code: a change of either alone fails here.

use std::time::Duration;

use crate::card::connecting::CONNECTION_LIMIT;
use crate::card::pin_entry::PIN_ENTRY_LIMIT;
use crate::card::prompts::{DENIALS, PROMPT_WINDOW, REFUSAL_LASTS, UNANSWERED_PROMPTS};
use crate::card::running::{APPROVAL_LIMIT, COMMAND_LIMIT, PENDING_INTERVAL};

const SPEC: &str = include_str!("../../../../protocol/SPEC.md");

#[test]
fn section_10() {
    let seconds = |limit: Duration| format!("{} s", limit.as_secs());
    assert_eq!(PROMPT_WINDOW, Duration::from_secs(60));
    for (what, limit) in [
        ("`Pending`", format!("every {} ms", PENDING_INTERVAL.as_millis())),
        ("request that nobody cancels", seconds(COMMAND_LIMIT)),
        ("question whether a key may be used", seconds(APPROVAL_LIMIT)),
        ("question whether a host gets the card", seconds(CONNECTION_LIMIT)),
        ("a refused use of a key is refused again without a question", format!("for {}", seconds(REFUSAL_LASTS))),
        ("entry of a PIN on the phone", format!("{}, or less if the host says so", seconds(PIN_ENTRY_LIMIT))),
        ("denials before a host may not prompt", format!("{DENIALS} in 1 min")),
        ("questions of a host that nobody answers", format!("{UNANSWERED_PROMPTS} in 1 min")),
    ] {
        let row = format!("\n| {what} | {limit} |\n");
        assert!(SPEC.contains(&row), "not in section 10 of SPEC.md:{row}");
    }
}
