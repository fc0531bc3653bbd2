//! What BlueZ is told by its own configuration, as far as the speed and the life of a link hang on it.
//!
//! A computer chooses the connection interval, and no program can ask BlueZ for another one. Linux's own choice is slow
//! (30 to 50 ms) and gives a link up after 420 ms of silence.

use std::collections::HashMap;

/// Where BlueZ looks.
pub(crate) const PATH: &str = "/etc/bluetooth/main.conf";

/// Longest interval that feels quick: 15 ms, in units of 1.25 ms. Also the shortest that Apple allows.
const INTERVAL: u32 = 12;
/// Shortest supervision time-out that a person walking through a room does not break: 2 s, in units of 10 ms.
const SUPERVISION: u32 = 200;

/// What should be changed in the file, in its own words; nothing if it is well as it is.
pub(crate) fn advice(text: &str) -> Option<String> {
    let values = le_section(text);
    let number = |key: &str| values.get(key).and_then(|value| value.parse::<u32>().ok());
    let mut lines = Vec::new();
    for key in ["MinConnectionInterval", "MaxConnectionInterval"] {
        if number(key).is_none_or(|interval| interval > INTERVAL) {
            lines.push(format!("{key}={INTERVAL}"));
        }
    }
    if number("ConnectionSupervisionTimeout").is_none_or(|time| time < SUPERVISION) {
        lines.push(format!("ConnectionSupervisionTimeout={SUPERVISION}"));
    }
    (!lines.is_empty()).then(|| lines.join(", "))
}

/// The keys of the section `[LE]`.
fn le_section(text: &str) -> HashMap<&str, &str> {
    let mut inside = false;
    let mut values = HashMap::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[LE]";
        } else if let Some((key, value)) = line.split_once('=').filter(|_| inside && !line.starts_with('#')) {
            values.insert(key.trim(), value.trim());
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_slow_is_complained_about() {
        let all = "MinConnectionInterval=12, MaxConnectionInterval=12, ConnectionSupervisionTimeout=200";
        let good =
            "[LE]\nMinConnectionInterval = 6\nMaxConnectionInterval=12\nConnectionSupervisionTimeout=400\n[GATT]\n";
        for (text, expected) in [
            ("", Some(all)),
            ("[General]\nMinConnectionInterval=6\n[LE]\n#MinConnectionInterval=6\n", Some(all)),
            (good, None),
            (&good.replace("=12", "=40"), Some("MaxConnectionInterval=12")),
            (&good.replace("=400", "=42"), Some("ConnectionSupervisionTimeout=200")),
            (&good.replace("=400", "=long"), Some("ConnectionSupervisionTimeout=200")),
        ] {
            assert_eq!(advice(text).as_deref(), expected, "{text}");
        }
    }
}
