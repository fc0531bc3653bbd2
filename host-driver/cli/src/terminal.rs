//! Reading from and writing to the person at the computer.

use std::error::Error as _;
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::{env, fs, process, thread};

use rustix::event::{PollFd, PollFlags, poll};

use crate::failure::Failure;

/// Somebody who can be told something and asked yes or no.
pub(crate) trait Person {
    /// Whether there is anybody to answer.
    fn can_answer(&self) -> bool;
    /// Whether what is told may set colours. Spec: ECMA-48, SGR.
    fn sees_colours(&self) -> bool;
    /// Shows text as it is.
    fn tell(&mut self, text: &str);
    /// Asks until the answer is yes or no.
    ///
    /// # Errors
    /// [`Failure::NobodyToAsk`] if there is no terminal.
    fn ask(&mut self, question: &str) -> Result<bool, Failure>;
}

/// The terminal that the program runs in.
pub(crate) struct Terminal;

impl Person for Terminal {
    fn can_answer(&self) -> bool {
        io::stdin().is_terminal()
    }

    fn sees_colours(&self) -> bool {
        io::stdout().is_terminal() && env::var_os("TERM").is_some_and(|terminal| terminal != "dumb")
    }

    fn tell(&mut self, text: &str) {
        print(text);
    }

    fn ask(&mut self, question: &str) -> Result<bool, Failure> {
        if !self.can_answer() {
            return Err(Failure::NobodyToAsk);
        }
        loop {
            print(&format!("{question} [yes/no] "));
            let mut line = String::new();
            let read = io::stdin().lock().read_line(&mut line);
            if matches!(read, Ok(0) | Err(_)) {
                print("\n");
                return Ok(false);
            }
            if let Some(answer) = yes_or_no(&line) {
                return Ok(answer);
            }
        }
    }
}

/// Only whole words: one key hit by accident must not confirm a pairing.
fn yes_or_no(line: &str) -> Option<bool> {
    match line.trim().to_ascii_lowercase().as_str() {
        "yes" => Some(true),
        "no" | "n" => Some(false),
        _ => None,
    }
}

/// Writes to stdout. Whoever closed the other end of a pipe does not want to know more, so errors are dropped.
pub(crate) fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Ends the program as soon as nobody reads its output any more, for commands that otherwise go on for ever: in
/// `status --watch | head -1` the next event, and with it the next failed write, may be days away.
pub(crate) fn end_with_reader() {
    thread::spawn(|| {
        let stdout = io::stdout();
        // A pipe without reader is an error; nothing else is asked for.
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        while let Err(rustix::io::Errno::INTR) = poll(&mut watched, None) {}
        if watched.iter().any(|stdout| stdout.revents().intersects(PollFlags::ERR | PollFlags::HUP)) {
            process::exit(0);
        }
    });
}

/// Writes one line to stderr.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes to stderr what must not be overlooked: to the journal as errors.
///
/// Spec: sd-daemon(3), systemd.exec(5) on `JOURNAL_STREAM`
pub(crate) fn alarm(text: &str) {
    let stream = fs::metadata("/proc/self/fd/2").map(|stream| format!("{}:{}", stream.dev(), stream.ino()));
    let is_journal = stream.is_ok_and(|stream| env::var("JOURNAL_STREAM").is_ok_and(|journal| journal == stream));
    let mark = if is_journal { "<3>" } else { "" };
    text.lines().for_each(|line| note(&format!("{mark}{line}")));
}

/// Says why a command failed, and what to do next.
pub(crate) fn complain(failure: &Failure) {
    note(&complaint(failure));
}

/// Why a command failed, and what to do next; a line each.
pub(crate) fn complaint(failure: &Failure) -> String {
    let mut text = format!("pocketcard: {failure}");
    let mut source = failure.source().and_then(std::error::Error::source);
    while let Some(cause) = source {
        text.push_str(&format!("\n  because: {cause}"));
        source = cause.source();
    }
    if let Some(advice) = failure.advice() {
        text.push_str(&format!("\n  what to do: {advice}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_word_is_yes() {
        assert_eq!(yes_or_no("yes\n"), Some(true));
        assert_eq!(yes_or_no(" YES \n"), Some(true));
        for line in ["y\n", "\n", "yess\n", "042137\n"] {
            assert_eq!(yes_or_no(line), None, "{line:?}");
        }
        assert_eq!(yes_or_no("n\n"), Some(false));
    }
}
