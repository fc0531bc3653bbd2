//! An ssh login on loopback with the key in the phone. The machine is the story's own, so its sshd may be, too.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use pocketcard_dev::{Environment, TEST_PIN};

use crate::guest::{Context, Failure, client, opensc_module, say};

/// What the login prints at its other end.
const GREETING: &str = "logged in over the air";
const PORT: &str = "2222";
/// Listens before it returns, and the machine ends with the story.
const PREPARE: &str = "mkdir -p -m 0755 /run/sshd
getent passwd sshd >/dev/null || echo 'sshd:x:64999:65534::/run/sshd:/usr/sbin/nologin' >>/etc/passwd";

/// A machine to log in at: an sshd that trusts only the key in 9A.
pub(crate) struct Server {
    folder: PathBuf,
    module: PathBuf,
    _sshd: Sshd,
}

impl Server {
    /// Starts it; nothing where there is no sshd.
    pub(crate) fn prepare(environment: &Environment) -> Result<Option<Self>, Failure> {
        let Some(sshd) = std::env::var_os("BLE_SSHD") else {
            say("story: SKIPPED a part: no sshd");
            return Ok(None);
        };
        let module = opensc_module()?;
        let folder = environment.folder().join("ssh");
        fs::create_dir(&folder).context("making a folder for ssh")?;
        let keys = client("ssh-keygen -D", environment.command("ssh-keygen").arg("-D").arg(&module))?;
        let key = keys.lines().find(|line| line.contains("PIV AUTH")).unwrap_or_default();
        fs::write(folder.join("authorized_keys"), format!("{key}\n")).context("writing authorized_keys")?;
        let sshd = Sshd::start(Path::new(&sshd), &folder)?;
        let ask_pass = folder.join("ask-pass");
        fs::write(&ask_pass, format!("#!/bin/sh\necho {TEST_PIN}\n")).context("writing what knows the PIN")?;
        fs::set_permissions(&ask_pass, Permissions::from_mode(0o700)).context("writing what knows the PIN")?;
        Ok(Some(Self { folder, module, _sshd: sshd }))
    }

    /// Logs in as root.
    pub(crate) fn login(&self, environment: &Environment) -> Result<(), Failure> {
        let mut ssh = environment.command("ssh");
        ssh.args(["-F", "none", "-p", PORT]);
        for option in [
            "StrictHostKeyChecking=accept-new",
            "PreferredAuthentications=publickey",
            "IdentityFile=none",
            "IdentityAgent=none",
            "ConnectionAttempts=20",
            &format!("UserKnownHostsFile={}", self.folder.join("known_hosts").display()),
        ] {
            ssh.args(["-o", option]);
        }
        ssh.arg("-I").arg(&self.module).arg("root@127.0.0.1").arg(format!("echo {GREETING}"));
        let ask_pass = self.folder.join("ask-pass");
        ssh.env("SSH_ASKPASS", ask_pass).env("SSH_ASKPASS_REQUIRE", "force").env("DISPLAY", ":0");
        let text = client("ssh", &mut ssh)?;
        if text.contains(GREETING) { Ok(()) } else { Err(Failure::Client { what: "ssh", text }) }
    }
}

struct Sshd(Child);

impl Sshd {
    fn start(sshd: &Path, folder: &Path) -> Result<Self, Failure> {
        client("preparing sshd", Command::new("sh").args(["-c", PREPARE]))?;
        let host_key = folder.join("host_key");
        client("ssh-keygen", Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&host_key))?;
        let folder = folder.display();
        let configuration = format!(
            "Port {PORT}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\n\
             AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n\
             AuthenticationMethods publickey\nPermitRootLogin prohibit-password\nPrintMotd no\nLogLevel VERBOSE\n"
        );
        let file = host_key.with_file_name("sshd_config");
        fs::write(&file, configuration).context("writing sshd's configuration")?;
        let mut command = Command::new(sshd);
        command.arg("-D").arg("-f").arg(&file).arg("-E").arg(host_key.with_file_name("sshd.log"));
        command.stdin(Stdio::null()).spawn().map(Self).context("starting sshd")
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
