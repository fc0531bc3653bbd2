//! The pages in docs/: their commands are what the stories run, so that no page says what nobody has tried.
//!
//! A block of commands that is preceded by `<!-- run: USER -->` is run as that user, at a terminal; all blocks of one user
//! between two of another are one shell. A block after `<!-- prints -->` has to be among what the commands before it
//! printed, line by line; `…` stands for anything.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::failure::{Context, Failure, expect};
use crate::pty::Dialogue;
use crate::world::{as_user, say};

/// How long the commands of one block may take, PINs included.
const BLOCK_LIMIT: Duration = Duration::from_secs(60);
/// Says that a block is over.
const OVER: &str = "---over---";

/// A piece of a page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Commands for this user.
    Run { user: String, commands: String },
    /// What they print.
    Prints(Vec<String>),
}

/// What is typed when somebody is asked.
pub(crate) type Answers<'a> = &'a [(&'a str, &'a str)];

/// The page's pieces that are to be run or compared.
pub(crate) fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(mark) = line.trim().strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) else { continue };
        let user = mark.strip_prefix("run: ");
        if user.is_none() && mark != "prints" {
            continue;
        }
        let block: Vec<&str> = lines
            .by_ref()
            .skip_while(|line| !line.starts_with("```"))
            .skip(1)
            .take_while(|line| *line != "```")
            .collect();
        pieces.push(match user {
            Some(user) => Piece::Run { user: user.to_owned(), commands: block.join("\n") },
            None => Piece::Prints(block.into_iter().map(str::to_owned).collect()),
        });
    }
    pieces
}

/// The pieces of one of our pages.
pub(crate) fn read(name: &str) -> Result<Vec<Piece>, Failure> {
    let path = Path::new("/opt/docs").join(name);
    let pieces = pieces(&fs::read_to_string(&path).context(format!("reading {}", path.display()))?);
    expect(!pieces.is_empty(), || format!("{name} has nothing to run"))?;
    Ok(pieces)
}

/// Runs the commands of a page, answers what is asked, and compares what they print. Returns the last shell, in which
/// something may still run.
///
/// - `before`: what every shell runs first.
pub(crate) fn follow(name: &str, before: &str, answers: Answers<'_>) -> Result<Option<Dialogue>, Failure> {
    let mut shell: Option<(String, Dialogue)> = None;
    let mut printed = String::new();
    for piece in read(name)? {
        match piece {
            Piece::Run { user, commands } => {
                let (_, dialogue) = match &mut shell {
                    Some(open) if open.0 == user => open,
                    other => other.insert((user.clone(), open(&user, before)?)),
                };
                printed = block(dialogue, &commands, answers)
                    .map_err(|failure| Failure::Wrong(format!("{name}: as {user}: {commands}\n{failure}")))?;
                say(&format!("ok      {name}, as {user}:\n{}", indented(&commands)));
            }
            Piece::Prints(lines) => {
                for line in &lines {
                    let found = printed.lines().any(|seen| fits(line.trim(), seen.trim()));
                    expect(found, || format!("{name}: nothing prints {line:?} in:\n{printed}"))?;
                }
                say(&format!("ok      {name}, prints:\n{}", indented(&lines.join("\n"))));
            }
        }
    }
    Ok(shell.map(|(_, dialogue)| dialogue))
}

/// A shell that prints no prompt.
fn open(user: &str, before: &str) -> Result<Dialogue, Failure> {
    let mut words = as_user(user);
    words.extend(["sh", "-c", "cd; PS1= PS2= exec bash --noprofile --norc --noediting -i"].map(str::to_owned));
    let mut dialogue = Dialogue::start("setpriv", words)?;
    // Nothing that is typed is to be taken for what is printed.
    dialogue.type_line(&format!("stty -echo; set -o pipefail; {before} echo '---'over'---'"))?;
    dialogue.expect(OVER, BLOCK_LIMIT)?;
    Ok(dialogue)
}

fn block(dialogue: &mut Dialogue, commands: &str, answers: Answers<'_>) -> Result<String, Failure> {
    let before = dialogue.seen().len();
    let file = format!("/tmp/block-{before}");
    // With the echo on, a program that asks for a secret is seen to turn it off: what is typed earlier it throws away.
    let text = format!("stty echo\ntrap 'echo failed with $?' ERR\n{commands}\ntrap - ERR\nstty -echo\n");
    fs::write(&file, text).context("writing a block")?;
    dialogue.type_line(&format!(". {file}; echo '---'over'---'"))?;
    let mut wanted = vec![OVER, "failed with "];
    wanted.extend(answers.iter().map(|(question, _)| *question));
    loop {
        match dialogue.one_of(&wanted, BLOCK_LIMIT)? {
            0 => return Ok(dialogue.seen().get(before..).unwrap_or_default().to_owned()),
            1 => return Err(Failure::Wrong(dialogue.seen().get(before..).unwrap_or_default().to_owned())),
            index => {
                if let Some((_, answer)) = answers.get(index - 2) {
                    dialogue.type_answer(answer)?;
                }
            }
        }
    }
}

/// Whether a line is what a page says; `…` stands for anything.
fn fits(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    for (index, part) in parts.iter().enumerate() {
        if index + 1 == parts.len() {
            return rest.ends_with(part);
        }
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.is_empty()
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("            {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::stories::STORIES;

    #[test]
    fn only_what_is_marked_is_run() {
        let page = "# Page\n```sh\nnot this\n```\n<!-- run: alice -->\n```sh\necho a\necho b\n```\n<!-- prints -->\n```text\na\n```\n";
        let run = Piece::Run { user: "alice".to_owned(), commands: "echo a\necho b".to_owned() };
        assert_eq!(pieces(page), [run, Piece::Prints(vec!["a".to_owned()])]);
    }

    #[test]
    fn dots_stand_for_anything() {
        for (pattern, line, expected) in [
            ("a … c", "a b c", true),
            ("a … c", "a b d", false),
            ("a…", "abc", true),
            ("…c", "abc", true),
            ("abc", "abcd", false),
            ("a…b…c", "a1b2c", true),
            ("a…b…c", "a1c", false),
        ] {
            assert_eq!(fits(pattern, line), expected, "{pattern:?} {line:?}");
        }
    }

    /// They run where no page can be followed: in a session, as hooks.
    #[test]
    fn the_hooks_of_the_login_page_are_those_of_the_stories() {
        use crate::greeter::lightdm::TERMINAL;
        use crate::locker::{ON_ARRIVE, ON_LEAVE};

        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/login.md");
        let page = fs::read_to_string(docs).unwrap();
        let lock = format!("\npocketcard watch --on-leave '{ON_LEAVE}'");
        assert!(page.contains(&format!("{lock}\n")), "{lock}");
        let wake = format!("{lock} --on-arrive '{ON_ARRIVE}'\n");
        assert!(page.contains(&wake), "{wake}");
        let (_, hook) = TERMINAL.split_once("--on-leave ").unwrap();
        let greeter = format!("\npocketcard watch --on-leave {}\n", hook.split(" 2>&1").next().unwrap());
        assert!(page.contains(&greeter), "{greeter}");
    }

    /// Every row of the table names the stories that tell it, and no cell of it is a guess.
    #[test]
    fn the_table_of_clients_is_told_by_stories() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/clients.md");
        let page = fs::read_to_string(docs).unwrap();
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
        assert!(rows.len() >= 7, "{rows:?}");
        for row in rows {
            assert!(!row.contains("not run"), "{row}");
            let told = row.trim_end_matches('|').rsplit('|').next().unwrap();
            for story in told.split(',').map(|name| name.trim().trim_matches('`')) {
                assert!(STORIES.iter().any(|known| known.name == story), "{story:?} in {row}");
            }
        }
    }
}
