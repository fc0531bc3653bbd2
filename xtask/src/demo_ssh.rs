//! The ssh part of the demo: an sshd of our own on loopback, and a login with the key in the phone.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pocketcard_dev::{Environment, TEST_PIN};

use crate::demo::indented;
use crate::problem::Context;
use crate::steps::{Outcome, say};
use crate::workspace::{output, run};
use crate::{Problem, install};

/// How long sshd may take to listen.
const LISTEN_LIMIT: Duration = Duration::from_secs(10);
/// What the login prints at its other end.
const GREETING: &str = "logged in with a key that lives in a phone";

/// As root, sshd wants a folder in /run and a user of its own; in a mount namespace of our own it gets both, and nothing
/// of the machine changes.
const ENTER: &str = "mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir -m 0755 /run/sshd || exit 1
if ! getent passwd sshd >/dev/null; then
    { cat /etc/passwd; echo 'sshd:x:64999:65534::/run/sshd:/usr/sbin/nologin'; } >/run/passwd
    mount --bind /run/passwd /etc/passwd || exit 1
fi
exec setpriv --pdeathsig KILL -- \"$0\" \"$@\"";

/// Logs in as this user at an sshd that trusts only the key in 9A.
pub(crate) fn login(environment: &Environment, sshd: &Path) -> Result<Outcome, Problem> {
    let module = install::opensc_module()?;
    let folder = environment.folder().join("ssh");
    if folder.exists() {
        fs::remove_dir_all(&folder).context("clearing the folder for ssh")?;
    }
    fs::create_dir(&folder).context("making the folder for ssh")?;

    // The key as ssh wants it. This is also how anybody prints the line for a server's authorized_keys.
    let keys = output(environment.command("ssh-keygen").arg("-D").arg(&module))?;
    let key = keys.lines().find(|line| line.contains("PIV AUTH")).or_else(|| keys.lines().next()).unwrap_or_default();
    say(&indented(key));
    fs::write(folder.join("authorized_keys"), format!("{key}\n")).context("writing authorized_keys")?;

    let port = free_port()?;
    let user = output(Command::new("id").arg("--user").arg("--name"))?.trim().to_owned();
    let _sshd = Sshd::start(sshd, &folder, port)?;

    let ask_pass = folder.join("ask-pass");
    fs::write(&ask_pass, format!("#!/bin/sh\necho {TEST_PIN}\n")).context("writing the program that knows the PIN")?;
    fs::set_permissions(&ask_pass, Permissions::from_mode(0o700)).context("writing the program that knows the PIN")?;
    let mut ssh = environment.command("ssh");
    ssh.args(["-F", "none", "-p", &port.to_string()]);
    for option in [
        "StrictHostKeyChecking=yes",
        "PreferredAuthentications=publickey",
        "IdentityFile=none",
        "IdentityAgent=none",
        "ConnectTimeout=10",
        &format!("UserKnownHostsFile={}", folder.join("known_hosts").display()),
    ] {
        ssh.args(["-o", option]);
    }
    ssh.arg("-I").arg(&module).arg(format!("{user}@127.0.0.1")).arg(format!("echo {GREETING}"));
    ssh.env("SSH_ASKPASS", &ask_pass).env("SSH_ASKPASS_REQUIRE", "force").env("DISPLAY", ":0").stdin(Stdio::null());
    say(&format!("    $ ssh -I {} {user}@127.0.0.1", module.display()));
    let greeting = output(&mut ssh).inspect_err(|_| {
        say(&indented(&fs::read_to_string(folder.join("sshd.log")).unwrap_or_default()));
    })?;
    say(&indented(&greeting));
    if greeting.trim() == GREETING { Ok(Outcome::Done) } else { Err(Problem::Wrong("no greeting".to_owned())) }
}

/// An sshd on loopback that ends with this value, and with this process.
struct Sshd(Child);

impl Sshd {
    fn start(program: &Path, folder: &Path, port: u16) -> Result<Self, Problem> {
        let host_key = folder.join("host_key");
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&host_key))?;
        let public = fs::read_to_string(folder.join("host_key.pub")).context("reading the host key")?;
        fs::write(folder.join("known_hosts"), format!("[127.0.0.1]:{port} {public}")).context("writing known_hosts")?;
        let config = folder.join("sshd_config");
        fs::write(&config, configuration(folder, port)).context("writing sshd's configuration")?;
        let as_root = rustix::process::geteuid().is_root();
        let mut command = if as_root {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--", "sh", "-c", ENTER]);
            command
        } else {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "--"]);
            command
        };
        command.arg(program).arg("-D").arg("-f").arg(&config).arg("-E").arg(folder.join("sshd.log"));
        let child = command.stdin(Stdio::null()).spawn().context("starting sshd")?;
        let mut sshd = Self(child);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let deadline = Instant::now() + LISTEN_LIMIT;
        // A listening port gives no event.
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            let ended = sshd.0.try_wait().context("waiting for sshd")?.is_some();
            if ended || Instant::now() > deadline {
                let log = fs::read_to_string(folder.join("sshd.log")).unwrap_or_default();
                return Err(Problem::Wrong(format!("sshd does not listen:\n{log}")));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(sshd)
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn configuration(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\n\
         AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n\
         AuthenticationMethods publickey\nPermitRootLogin prohibit-password\nPrintMotd no\nLogLevel VERBOSE\n"
    )
}

/// A port that nobody uses now.
fn free_port() -> Result<u16, Problem> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    Ok(listener.local_addr().context("looking for a free port")?.port())
}
