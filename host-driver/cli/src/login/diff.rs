//! What would change, for a person or for patch(1).

use std::path::Path;

/// Unchanged lines that a diff shows around a change.
const CONTEXT: usize = 3;

/// One change as `diff -u` shows it; nothing if there is none. All that lies between the first and the last line that
/// differ is one piece.
pub(super) fn diff(path: &Path, old: Option<&str>, new: &str) -> String {
    let (before, after): (Vec<&str>, Vec<&str>) = (old.unwrap_or_default().lines().collect(), new.lines().collect());
    if before == after {
        return String::new();
    }
    let head = before.iter().zip(&after).take_while(|(old, new)| old == new).count();
    let rest = before.len().min(after.len()) - head;
    let tail = before.iter().rev().zip(after.iter().rev()).take(rest).take_while(|(old, new)| old == new).count();
    let start = head.saturating_sub(CONTEXT);
    let end = |lines: &[&str]| (lines.len() - tail + CONTEXT).min(lines.len());
    let range = |lines: &[&str]| {
        let length = end(lines) - start;
        format!("{},{length}", if length == 0 { 0 } else { start + 1 })
    };
    let from = if old.is_some() { format!("/{}", path.display()) } else { "/dev/null".to_owned() };
    let mut text = format!("--- {from}\n+++ /{}\n@@ -{} +{} @@\n", path.display(), range(&before), range(&after));
    let mut put = |sign: char, lines: &[&str], from: usize, to: usize| {
        lines.iter().take(to).skip(from).for_each(|line| text.push_str(&format!("{sign}{line}\n")));
    };
    put(' ', &before, start, head);
    put('-', &before, head, before.len() - tail);
    put('+', &after, head, after.len() - tail);
    put(' ', &after, after.len() - tail, end(&after));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_is_one_that_patch_takes() {
        let old = "1\n2\n3\n4\n@include common-auth\n6\n7\n8\n9\n";
        let new = old.replace("@include common-auth", "auth substack pocketcard-auth");
        assert_eq!(
            diff(Path::new("etc/pam.d/su"), Some(old), &new),
            "--- /etc/pam.d/su\n+++ /etc/pam.d/su\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-@include common-auth\n\
             +auth substack pocketcard-auth\n 6\n 7\n 8\n"
        );
        assert_eq!(diff(Path::new("a"), None, "x\n"), "--- /dev/null\n+++ /a\n@@ -0,0 +1,1 @@\n+x\n");
        assert_eq!(diff(Path::new("a"), Some("x\n"), "x\n"), "");
    }
}
