//! Names that come from the other side.

/// Longest name in bytes of UTF-8.
///
/// Spec: SPEC.md section 10
pub const NAME_LIMIT: usize = 64;

/// A peer's name as it may be shown: no control, no bidi and no invisible characters, no space around it, at most
/// [`NAME_LIMIT`] bytes, cut at a character.
///
/// The result may be empty. It is still the peer's own choice of words: never show it as if the program said it.
///
/// Spec: SPEC.md section 7.1
#[must_use]
pub fn peer_name(raw: &str) -> String {
    let mut name = String::with_capacity(raw.len().min(NAME_LIMIT));
    for character in raw.chars().filter(|&c| !is_stripped(c)).skip_while(|c| c.is_whitespace()) {
        if name.len() + character.len_utf8() > NAME_LIMIT {
            break;
        }
        name.push(character);
    }
    name.truncate(name.trim_end().len());
    name
}

/// Characters that can turn a line around, break it, or hide in it: controls, separators, interlinear annotation, and
/// all that Unicode calls default ignorable.
fn is_stripped(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{00AD}'                    // soft hyphen
            | '\u{034F}'                  // combining grapheme joiner
            | '\u{061C}'                  // Arabic letter mark
            | '\u{115F}' | '\u{1160}'     // Hangul fillers
            | '\u{17B4}' | '\u{17B5}'     // Khmer inherent vowels
            | '\u{180B}'..='\u{180F}'     // Mongolian variation selectors, vowel separator
            | '\u{200B}'..='\u{200F}'     // zero width, left-to-right and right-to-left mark
            | '\u{2028}'..='\u{202E}'     // line and paragraph separator, embeddings, overrides
            | '\u{2060}'..='\u{206F}'     // word joiner, isolates, deprecated format characters
            | '\u{3164}' | '\u{FFA0}'     // Hangul fillers
            | '\u{FE00}'..='\u{FE0F}'     // variation selectors
            | '\u{FEFF}'                  // byte order mark
            | '\u{FFF0}'..='\u{FFFB}'     // interlinear annotation, and its unassigned neighbours
            | '\u{1BCA0}'..='\u{1BCA3}'   // shorthand format controls
            | '\u{1D173}'..='\u{1D17A}'   // musical format controls
            | '\u{E0000}'..='\u{E0FFF}'   // tags, variation selectors
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn harmful_characters_go_and_words_stay() {
        let table = [
            ("laptop", "laptop"),
            ("  Zoë's Rechner  ", "Zoë's Rechner"),
            ("a\tb\r\nc\0d", "abcd"),
            ("\u{1b}[2Jroot", "[2Jroot"),
            ("moc.\u{202E}elgoog", "moc.elgoog"),
            ("\u{2066}x\u{2069}\u{200F}\u{061C}", "x"),
            ("\u{85}\u{9f}\u{feff}", ""),
            ("\u{E0041}tag", "tag"),
            // Default ignorable code points, one of each kind that is no format character.
            ("r\u{34F}o\u{17B4}o\u{180B}t\u{FE0F}\u{FFF0}\u{E0100}", "root"),
            ("", ""),
        ];
        for (raw, expected) in table {
            assert_eq!(peer_name(raw), expected, "{raw:?}");
        }
    }

    #[test]
    fn a_long_name_is_cut_at_a_character() {
        assert_eq!(peer_name(&"x".repeat(65)), "x".repeat(64));
        // 21 characters of 3 bytes are 63 bytes; the next does not fit.
        assert_eq!(peer_name(&"語".repeat(30)), "語".repeat(21));
    }

    proptest! {
        #[test]
        fn the_result_is_clean_short_and_stable(raw in any::<String>()) {
            let name = peer_name(&raw);
            prop_assert!(name.len() <= NAME_LIMIT);
            prop_assert!(!name.chars().any(is_stripped));
            prop_assert_eq!(peer_name(&name), name);
        }
    }
}
