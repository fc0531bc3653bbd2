//! What can be typed into.

use ratatui::crossterm::event::KeyCode;
use zeroize::Zeroizing;

/// Longest text that can be typed, in bytes.
const LIMIT: usize = 1024;

/// A label and what was typed or chosen. No `Debug`: it may be a secret. What was typed is wiped.
pub(super) struct Field {
    pub(super) label: &'static str,
    content: Content,
}

enum Content {
    Text(Zeroizing<String>),
    /// A PIN: shown as dots.
    Secret(Zeroizing<String>),
    /// A long secret: its length alone is shown.
    Hidden(Zeroizing<String>),
    Choice {
        options: &'static [&'static str],
        at: usize,
    },
}

impl Field {
    pub(super) fn text(label: &'static str, value: &str) -> Self {
        let mut field = Self { label, content: Content::Text(room()) };
        field.paste(value);
        field
    }

    pub(super) fn secret(label: &'static str) -> Self {
        Self { label, content: Content::Secret(room()) }
    }

    pub(super) fn hidden(label: &'static str) -> Self {
        Self { label, content: Content::Hidden(room()) }
    }

    pub(super) const fn choice(label: &'static str, options: &'static [&'static str]) -> Self {
        Self { label, content: Content::Choice { options, at: 0 } }
    }

    pub(super) fn pressed(&mut self, key: KeyCode) {
        match &mut self.content {
            Content::Text(text) | Content::Secret(text) | Content::Hidden(text) => match key {
                KeyCode::Char(character) if text.len() + character.len_utf8() <= LIMIT => text.push(character),
                KeyCode::Backspace => drop(text.pop()),
                _ => {}
            },
            Content::Choice { options, at } => match key {
                KeyCode::Left => *at = at.checked_sub(1).unwrap_or(options.len().saturating_sub(1)),
                KeyCode::Right | KeyCode::Char(' ') => *at = if *at + 1 < options.len() { *at + 1 } else { 0 },
                _ => {}
            },
        }
    }

    /// Line ends are left out: a text from a terminal may be wrapped.
    pub(super) fn paste(&mut self, text: &str) {
        text.chars().filter(|character| !character.is_control()).for_each(|it| self.pressed(KeyCode::Char(it)));
    }

    /// What was typed; nothing for a choice.
    pub(super) fn value(&self) -> &str {
        match &self.content {
            Content::Text(text) | Content::Secret(text) | Content::Hidden(text) => text,
            Content::Choice { .. } => "",
        }
    }

    pub(super) const fn chosen(&self) -> usize {
        match self.content {
            Content::Choice { at, .. } => at,
            _ => 0,
        }
    }

    /// What of it may be seen.
    pub(super) fn shown(&self) -> String {
        match &self.content {
            Content::Text(text) => text.to_string(),
            Content::Secret(text) => "•".repeat(text.chars().count()),
            Content::Hidden(text) => format!("{} characters", text.chars().count()),
            Content::Choice { options, at } => format!("‹ {} ›", options.get(*at).copied().unwrap_or_default()),
        }
    }
}

/// All its room at once: a text that grows leaves copies behind.
fn room() -> Zeroizing<String> {
    Zeroizing::new(String::with_capacity(LIMIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_typed_and_not_shown() {
        for (mut field, shown) in [(Field::secret("PIN"), "•••••"), (Field::hidden("Code"), "5 characters")] {
            field.paste("1234\r\n5");
            field.pressed(KeyCode::Char('6'));
            field.pressed(KeyCode::Backspace);
            assert_eq!(field.value(), "12345");
            assert_eq!(field.shown(), shown);
        }
    }

    #[test]
    fn a_text_never_outgrows_its_room() {
        let mut field = Field::secret("PIN");
        field.paste(&"é".repeat(LIMIT));
        assert_eq!(field.value().len(), LIMIT);
        let Content::Secret(text) = &field.content else { panic!("not a secret") };
        assert_eq!(text.capacity(), LIMIT);
    }

    #[test]
    fn a_choice_goes_round() {
        let mut field = Field::choice("Key", &["P-256", "P-384", "none"]);
        for expected in [2, 1, 0] {
            field.pressed(KeyCode::Left);
            assert_eq!(field.chosen(), expected);
        }
        for expected in [1, 2, 0] {
            field.pressed(KeyCode::Right);
            assert_eq!(field.chosen(), expected);
        }
    }
}
