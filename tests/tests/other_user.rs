//! Another local user gets nothing from any of our sockets, even where folder and modes would let them in.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends where it fails, and prints what it measured"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pocketcard_dev::{Card, Environment};
use pocketcard_tests::client::program;
use pocketcard_tests::run::{Ran, run};
use pocketcard_tests::{skip, start};

const NOBODY: &str = "65534";

fn open_to_all(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Our sockets below a folder.
fn sockets(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sock"))
        .collect();
    found.sort();
    found
}

fn probe(user: Option<&str>, probe: &Path, socket: &Path, request: &[u8]) -> Ran {
    let mut command = Command::new("setpriv");
    if let Some(user) = user {
        command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
    }
    command.arg("--").arg(probe).arg(socket).arg(hex::encode(request)).current_dir("/");
    run(&mut command, Duration::from_secs(10))
}

/// What the daemon keeps: the computer's identity and its pairs. First by the mode of its folders, then by that of each file.
fn nobody_reads(state: &Path) {
    let (mut folders, mut files, mut left) = (Vec::new(), Vec::new(), vec![state.to_path_buf()]);
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let list = if entry.path().is_dir() { &mut left } else { &mut files };
            list.push(entry.path());
        }
        folders.push(folder);
    }
    println!("state: {files:?}");
    assert!(files.len() >= 2, "an identity and a pair: {files:?}");
    let modes: Vec<_> = folders.iter().map(|folder| fs::metadata(folder).unwrap().permissions()).collect();
    let above = state.parent().unwrap();
    let closed = fs::metadata(above).unwrap().permissions();
    open_to_all(above, 0o755);
    for round in ["by the folder", "by the file"] {
        for file in &files {
            let mut read = Command::new("setpriv");
            read.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--", "cat"]).arg(file);
            let ran = run(&mut read, Duration::from_secs(10));
            assert!(!ran.success && ran.text.contains("Permission denied"), "{round}: {}", file.display());
        }
        folders.iter().for_each(|folder| open_to_all(folder, 0o755));
    }
    folders.iter().zip(modes).for_each(|(folder, mode)| fs::set_permissions(folder, mode).unwrap());
    fs::set_permissions(above, closed).unwrap();
}

#[test]
fn another_user_gets_nothing() {
    let is_root = run(Command::new("id").arg("-u"), Duration::from_secs(5)).text.trim() == "0";
    if !is_root {
        skip!("only root can become another user");
    }
    let environment = start(Environment::builder().card(Card::Ec));
    let folder = environment.folder().to_path_buf();
    // Outside the environment's folder, where the other user can run it from the beginning.
    let tools = tempfile::tempdir().unwrap();
    open_to_all(tools.path(), 0o755);
    let helper = tools.path().join("socket-probe");
    fs::copy(program("socket-probe"), &helper).unwrap();
    open_to_all(&helper, 0o755);
    let hello = b"{\"request\":\"hello\",\"version\":1,\"software\":\"somebody\"}\n{\"request\":\"status\"}\n";
    let sockets = sockets(&folder);
    println!("sockets: {sockets:?}");
    assert!(sockets.len() >= 3, "control, driver and phone: {sockets:?}");

    // The folder alone keeps others out.
    for socket in &sockets {
        let ran = probe(Some(NOBODY), &helper, socket, hello);
        assert!(!ran.success && ran.text.contains("Permission denied"), "{}: {}", socket.display(), ran.text);
    }
    nobody_reads(&folder.join("daemon"));
    // With every door of the file system open, the peer's user id still counts.
    open_to_all(&folder, 0o777);
    for socket in &sockets {
        open_to_all(socket, 0o777);
    }
    for socket in &sockets {
        for request in [hello.as_slice(), &[], &[0; 64], &[0xFF; 64]] {
            let ran = probe(Some(NOBODY), &helper, socket, request);
            assert!(ran.success, "{} did not close the connection: {}", socket.display(), ran.text);
            assert_eq!(ran.text.trim(), "", "{} said something", socket.display());
        }
    }
    // Our own user, who says nothing, is waited for, and answered when asking: the test asks what it means to ask. (A phone
    // speaks first.)
    for socket in &sockets {
        let ran = probe(None, &helper, socket, &[]);
        assert!(!ran.success, "{} hangs up on everybody: {}", socket.display(), ran.text);
    }
    let control = sockets.iter().find(|path| path.ends_with("control.sock")).unwrap();
    let ran = probe(None, &helper, control, hello);
    assert!(!ran.text.trim().is_empty(), "the control socket answers nobody at all");
    open_to_all(&folder, 0o700);
}
