//! Takes out of a text what must not leave the computer: keys, PINs, pairing codes, names.
//!
//! Errs on the side of taking too much: a report is for finding out what went wrong, not for reading data.

/// The shortest run of hexadecimal digits that could be a key or a card's data.
const HEX_RUN: usize = 12;
/// The shortest run of base64 characters that could be a key.
const BASE64_RUN: usize = 22;
/// PINs have 6 to 8 digits; the digits of a pairing have six.
const DIGIT_RUN: usize = 4;
/// The shortest run of single bytes that could be a PIN; a time of day has three numbers.
const BYTE_RUN: usize = 4;

/// Redacts one line of a log or of a configuration.
///
/// - `names`: words to be taken out wherever they stand, such as host and phone names.
pub(crate) fn line(text: &str, names: &[String]) -> String {
    let mut text = text.to_owned();
    for name in names.iter().filter(|name| name.chars().count() > 1) {
        text = text.replace(name.as_str(), "[name]");
    }
    let redacted = words(&words(&text, is_base64url, redact_base64), |c| c.is_ascii_alphanumeric(), redact_word);
    let lowered = redacted.to_ascii_lowercase();
    match lowered.find("pocketcard:") {
        // A pairing code, whatever its form.
        Some(at) => format!("{}[pairing code]", redacted.get(..at).unwrap_or_default()),
        None => home_folders(&redacted),
    }
}

/// Runs every longest word through `redact`, which also gets what stands before it.
fn words(text: &str, is_word: fn(char) -> bool, redact: fn(&str, &str) -> String) -> String {
    let mut redacted = String::new();
    let mut word = String::new();
    for character in text.chars().chain(['\n']) {
        if is_word(character) {
            word.push(character);
        } else {
            let shown = redact(&word, &redacted);
            redacted.push_str(&shown);
            word.clear();
            redacted.push(character);
        }
    }
    redacted.pop();
    redacted
}

/// Both alphabets of RFC 4648, but for `/`, which would make a word of every path.
fn is_base64url(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '+' | '_' | '-')
}

fn redact_base64(word: &str, _before: &str) -> String {
    let has = |test: fn(&char) -> bool| word.chars().any(|character| test(&character));
    let mixed = has(char::is_ascii_digit) || (has(char::is_ascii_uppercase) && has(char::is_ascii_lowercase));
    if word.len() >= BASE64_RUN && mixed { format!("[{} characters]", word.len()) } else { word.to_owned() }
}

fn redact_word(word: &str, before: &str) -> String {
    let length = word.len();
    if length >= DIGIT_RUN && word.chars().all(|c| c.is_ascii_digit()) && !is_year_or_fraction(word, before) {
        return format!("[{length} digits]");
    }
    let digits = word.strip_prefix("0x").unwrap_or(word);
    if digits.len() >= HEX_RUN && digits.chars().all(|c| c.is_ascii_hexdigit()) {
        return format!("[{} hex digits]", digits.len());
    }
    word.to_owned()
}

/// The year that begins a time stamp, or the fraction of a second that ends one.
fn is_year_or_fraction(word: &str, before: &str) -> bool {
    let year = word.len() == 4 && before.is_empty() && word.starts_with("20");
    let fraction = before
        .strip_suffix('.')
        .and_then(|rest| rest.get(rest.len().checked_sub(3)?..))
        .is_some_and(|second| second.starts_with(':') && second.chars().skip(1).all(|c| c.is_ascii_digit()));
    year || fraction
}

fn home_folders(text: &str) -> String {
    let mut parts = text.split("/home/");
    let mut redacted = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.find(['/', ' ', '"', ',', ':']).and_then(|end| part.get(end..)).unwrap_or_default();
        redacted.push_str("/home/[user]");
        redacted.push_str(rest);
    }
    spaced_bytes(&redacted)
}

/// Takes out bytes that are printed apart, as pcscd does with APDUs: `00 20 00 80 08 31 32`, `[31, 32]`, `31:32:33`.
fn spaced_bytes(text: &str) -> String {
    let mut redacted = String::new();
    // The current run of bytes: its text, and how many there are in it.
    let (mut run, mut count) = (String::new(), 0);
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_alphanumeric()).unwrap_or(after.len());
        let (gap, next) = after.split_at(end);
        rest = next;
        let is_byte = is_byte(word);
        if is_byte {
            run.push_str(word);
            count += 1;
        }
        let goes_on = is_byte && gap.len() <= 2 && gap.chars().all(|c| " ,:-".contains(c)) && !next.is_empty();
        if goes_on {
            run.push_str(gap);
            continue;
        }
        redacted.push_str(&if count >= BYTE_RUN { format!("[{count} bytes]") } else { run });
        if !is_byte {
            redacted.push_str(word);
        }
        redacted.push_str(gap);
        (run, count) = (String::new(), 0);
    }
    redacted
}

/// Whether a word can be one byte, in hexadecimal or decimal.
fn is_byte(word: &str) -> bool {
    let digits = word.strip_prefix("0x").unwrap_or(word);
    (1..=3).contains(&digits.len()) && digits.chars().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(text: &str) -> String {
        line(text, &["Anna's Pixel".to_owned(), "annas-laptop".to_owned()])
    }

    #[test]
    fn secrets_in_every_spelling_are_taken_out() {
        for secret in [
            "123456",
            "12345678",
            "0102030405060708",
            "0x0102030405060708",
            "31:32:33:34:35:36:FF:FF",
            "31 32 33 34 35 36 FF FF",
            "[49, 50, 51, 52, 53, 54, 255, 255]",
            "qwx3yfPZk2Yw0rTQ8b1xS9dUuVvWwXxYyZz0123456=",
            "pocketcard:1:abcDEF",
            "POCKETCARD:1:ABCDEF",
            "Anna's Pixel",
            "annas-laptop",
        ] {
            for text in [secret.to_owned(), format!("pin={secret}, more"), format!("x: \"{secret}\"")] {
                let shown = redacted(&text);
                assert!(!shown.contains(secret), "{text} became {shown}");
            }
        }
    }

    #[test]
    fn what_helps_stays() {
        for text in [
            "2026-11-24T04:06:28.123456Z  INFO pocketcardd::link: connected slot=0",
            "reader_slots = 4",
            "the daemon did not answer in time",
            "INS 20 answered 63C2 in 3 ms",
            "Authorized PC/SC client",
        ] {
            assert_eq!(redacted(text), text);
        }
        assert_eq!(redacted("open /home/anna/x: gone"), "open /home/[user]/x: gone");
    }
}
