//! Command-line clients with a limit, and the counts of repeated tests.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::client::{program, unusable};

/// What a program wrote and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// stdout, then stderr.
    pub text: String,
    /// Whether its exit code was 0.
    pub success: bool,
}

/// Runs a program to its end, killed after `limit`; whoever hangs has failed.
pub fn run(command: &mut Command, limit: Duration) -> Ran {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| unusable(&format!("{command:?}: {error}")));
    let (sender, ended) = mpsc::channel();
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                let _ = pipe.read_to_end(&mut bytes);
            }
            bytes
        })
    };
    let stdout = read(child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let stderr = read(child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let collector = thread::spawn(move || {
        let output = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
        let _ = sender.send(());
        output
    });
    // Both pipes close when the program ends.
    let in_time = ended.recv_timeout(limit).is_ok();
    if !in_time {
        let _ = child.kill();
    }
    let status = child.wait();
    let (stdout, stderr) = collector.join().unwrap_or_default();
    let mut text = String::from_utf8_lossy(&stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&stderr));
    if !in_time {
        text.push_str(&format!("\n[killed after {limit:?}]"));
    }
    Ran { text, success: in_time && status.is_ok_and(|status| status.success()) }
}

/// How often a repeated test is to run: `POCKETCARD_SOAK=1` asks for the full count.
pub fn repetitions(reduced: usize, full: usize) -> usize {
    if std::env::var_os("POCKETCARD_SOAK").is_some_and(|value| value != "0") { full } else { reduced }
}

/// Debian's yubico-piv-tool is older than AES management keys; PyPI's ykman is not. `cargo xtask test` installs it.
pub fn ykman() -> Option<PathBuf> {
    std::env::var_os("POCKETCARD_YKMAN").map(PathBuf::from).filter(|path| path.is_file()).or_else(|| {
        let beside = program("../xtask/ykman/bin/ykman");
        beside.is_file().then_some(beside).or_else(|| pocketcard_dev::find_program("ykman"))
    })
}

/// The output of a program as text, for messages.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
