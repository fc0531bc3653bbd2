//! The throw-away machine: its users, its reader with phones, and what its sockets are called.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pocketcard_dev::{Builder, CARD_LIMIT, Environment};
use serde_json::Value;

use crate::air;
use crate::failure::{Context, Failure, expect};
use crate::system::System;

/// Who has a phone, and the password beside it.
pub(crate) const ALICE: (&str, &str) = ("alice", "alice's password");
/// Who has none.
pub(crate) const BOB: (&str, &str) = ("bob", "bob's password");
/// What the xtask sets in the throw-away Debian.
const MARK: &str = "POCKETCARD_LOGIN_ROOT";
/// How long a program that asks nobody may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// A machine that is busy with four things at once is still given this for what takes no time.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Prints a line at once.
pub(crate) fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Refuses every machine but the one that was made for it, whose root is an overlay: a variable alone could come from anywhere.
pub(crate) fn is_throw_away() -> Result<(), Failure> {
    let marked = std::env::var_os(MARK).is_some() && rustix::process::geteuid().is_root();
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let over_another = mounts.lines().any(|mount| mount.split(' ').skip(1).take(2).eq(["/", "overlay"]));
    if marked && over_another {
        Ok(())
    } else {
        Err(Failure::CannotRun("only `cargo xtask test-login` makes the machine for it".into()))
    }
}

/// The machine, with phones in its reader.
pub(crate) struct World {
    pub(crate) environment: Environment,
    _system: System,
}

impl World {
    /// Makes the users, starts the reader and puts its sockets where the system's are.
    pub(crate) fn start(builder: Builder) -> Result<Self, Failure> {
        for (name, password) in [ALICE, BOB] {
            ok("useradd", ["--create-home", "--shell", "/bin/bash", name])?;
            fed("chpasswd", [] as [&str; 0], &format!("{name}:{password}"))?;
        }
        fs::write("/etc/sudoers.d/stories", "alice ALL=(ALL) ALL\nDefaults passwd_tries=1\n").context("sudoers")?;
        fs::write("/etc/hosts", "127.0.0.1 localhost server.example\n127.0.1.1 machine\n").context("hosts")?;
        let (system, builder) =
            if air::is_here() { (System::default(), air::on(builder)) } else { System::start(builder)? };
        let environment = builder.start()?;
        let folder = environment.folder();
        // PAM modules of setuid programs read no environment, and users have to get through to pcscd's socket.
        fs::set_permissions(folder, Permissions::from_mode(0o711)).context("opening the folder")?;
        for (at, name) in [("/run/pcscd", "run/pcscd.comm"), ("/run/pocketcard", "control.sock")] {
            fs::create_dir_all(at).context("making a folder for a socket")?;
            let socket = folder.join(name);
            let link = Path::new(at).join(socket.file_name().unwrap_or_default());
            symlink(&socket, link).context("naming a socket")?;
        }
        Ok(Self { environment, _system: system })
    }

    /// The phone leaves: its process is killed, or it goes out of range.
    pub(crate) fn leave(&mut self, phone: usize) -> Result<(), Failure> {
        if air::is_here() {
            air::in_range(false)?;
        } else {
            self.environment.phone(phone)?.kill();
        }
        let slot = u32::try_from(phone).unwrap_or_default();
        Ok(self.environment.wait_card(slot, false, air::patient(CARD_LIMIT))?)
    }

    /// The phone comes back.
    pub(crate) fn come(&mut self, phone: usize) -> Result<(), Failure> {
        if air::is_here() {
            air::in_range(true)?;
        } else {
            self.environment.phone(phone)?.restart()?;
        }
        let slot = u32::try_from(phone).unwrap_or_default();
        Ok(self.environment.wait_card(slot, true, air::patient(CARD_LIMIT))?)
    }

    /// Waits until the phone has used a key, and gives what it says of that.
    pub(crate) fn used(&mut self, key: &str) -> Result<Value, Failure> {
        Ok(self.environment.phone(0)?.wait_event("the use of a key", SOON, |event| {
            let is = |name: &str, wanted: &str| event[name] == wanted;
            let of_key = event["subject"].as_str().is_some_and(|subject| subject.starts_with(key));
            is("event", "apdu") && is("command", "GENERAL AUTHENTICATE") && of_key && is("status", "9000")
        })?)
    }

    /// Enters a wrong PIN until none is left.
    pub(crate) fn block_pin(&self) -> Result<(), Failure> {
        let wrong = "00:20:00:80:08:39:39:39:39:39:39:FF:FF";
        let output = apdus(&[SELECT, wrong, wrong, wrong, wrong])?;
        expect(output.contains("SW1=0x69, SW2=0x83"), || format!("the PIN is not blocked:\n{output}"))
    }

    /// Sets the PIN to what it was, with the PUK.
    pub(crate) fn unblock_pin(&self) -> Result<(), Failure> {
        let unblock = "00:2C:00:80:10:31:32:33:34:35:36:37:38:31:32:33:34:35:36:FF:FF";
        let output = apdus(&[SELECT, unblock])?;
        expect(output.matches("SW1=0x90, SW2=0x00").count() == 2, || format!("the PIN stays blocked:\n{output}"))
    }

    /// How many tries of the PIN are left.
    pub(crate) fn tries(&self) -> Result<String, Failure> {
        let output = apdus(&[SELECT, "00:20:00:80"])?;
        let word = output.lines().filter_map(|line| line.split_once("SW1=")).next_back();
        Ok(word.map(|(_, word)| word.trim_end_matches(')').to_owned()).unwrap_or_default())
    }
}

const SELECT: &str = "00:A4:04:00:05:A0:00:00:03:08:00";

/// Sends APDUs with opensc-tool.
fn apdus(apdus: &[&str]) -> Result<String, Failure> {
    let mut arguments = vec!["--reader", "0", "--card-driver", "default"];
    apdus.iter().for_each(|apdu| arguments.extend(["--send-apdu", apdu]));
    ok("opensc-tool", arguments)
}

/// Runs a program that has to succeed, and returns what it wrote.
pub(crate) fn ok<S: AsRef<std::ffi::OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Result<String, Failure> {
    fed(program, arguments, "")
}

/// The same with something to read.
pub(crate) fn fed<S: AsRef<std::ffi::OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = S>,
    input: &str,
) -> Result<String, Failure> {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = run(&mut command, input)?;
    let text = text(&output);
    expect(output.status.success(), || format!("{command:?}: {}\n{text}", output.status))?;
    Ok(text)
}

/// Runs a program to its end, which has to come within a minute.
pub(crate) fn run(command: &mut Command, input: &str) -> Result<Output, Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context(format!("starting {name}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not want to read has already said why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let (sender, ended) = std::sync::mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let limit = air::patient(COMMAND_LIMIT);
    match ended.recv_timeout(limit) {
        Ok(output) => output.context(format!("waiting for {name}")),
        Err(_) => Err(Failure::Hangs { program: name, limit, seen: String::new() }),
    }
}

/// stdout, then stderr.
pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Words that make a program run as a user, with that user's home and nothing of our environment.
pub(crate) fn as_user(user: &str) -> Vec<String> {
    let home = if user == "root" { "/root".to_owned() } else { format!("/home/{user}") };
    let mut words: Vec<String> =
        ["--reuid", user, "--regid", user, "--init-groups", "--", "env", "-i"].map(str::to_owned).into();
    words.extend([
        format!("HOME={home}"),
        format!("USER={user}"),
        format!("LOGNAME={user}"),
        "SHELL=/bin/bash".to_owned(),
        "TERM=dumb".to_owned(),
        "LC_ALL=C.UTF-8".to_owned(),
        format!("PATH={}", std::env::var("PATH").unwrap_or_default()),
    ]);
    words
}

/// Waits until something holds, for what gives no event.
pub(crate) fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Result<(), Failure> {
    let limit = air::patient(limit);
    let deadline = Instant::now() + limit;
    while !holds() {
        if Instant::now() > deadline {
            return Err(Failure::Silent { wanted: what.to_owned(), limit, seen: String::new() });
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
