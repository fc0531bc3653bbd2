//! ssh and PAM with a PIN that is entered on the phone, and with one that is typed.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pocketcard_dev::{Card, Environment, TEST_PIN};
use pocketcard_tests::client::{eventually, program};
use pocketcard_tests::run::{Ran, run};
use pocketcard_tests::{skip, start};
use serde_json::json;

use crate::{LIMIT, SOON, enter, meanwhile, question, with_phone};

pub(crate) const MODULE: &str = "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so";
pub(crate) const GREETING: &str = "logged in with a PIN of the phone";

/// The machine's, or the one that `cargo xtask demo` unpacked.
pub(crate) fn sshd() -> Option<PathBuf> {
    let unpacked = program("../xtask/sshd/usr/sbin/sshd");
    pocketcard_dev::find_program("sshd").or_else(|| unpacked.is_file().then_some(unpacked))
}

/// In a mount namespace of its own sshd gets the folder and the user that it wants, and the machine stays as it is.
const ENTER_SSHD: &str = "mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir -m 0755 /run/sshd || exit 1
if ! getent passwd sshd >/dev/null; then
    { cat /etc/passwd; echo 'sshd:x:64999:65534::/run/sshd:/usr/sbin/nologin'; } >/run/passwd
    mount --bind /run/passwd /etc/passwd || exit 1
fi
exec setpriv --pdeathsig KILL -- \"$0\" \"$@\"";

pub(crate) struct Sshd {
    child: Child,
    folder: PathBuf,
    port: u16,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sshd {
    pub(crate) fn start(environment: &Environment, sshd: &Path) -> Self {
        let folder = environment.folder().join("ssh");
        fs::create_dir(&folder).unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let keys = run(environment.command("ssh-keygen").args(["-D", MODULE]), LIMIT);
        let key = keys.text.lines().find(|line| line.contains("PIV AUTH")).unwrap_or_else(|| panic!("{}", keys.text));
        fs::write(folder.join("authorized_keys"), format!("{key}\n")).unwrap();
        let host_key = folder.join("host_key");
        let made = run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&host_key), LIMIT);
        assert!(made.success, "{}", made.text);
        let public = fs::read_to_string(folder.join("host_key.pub")).unwrap();
        fs::write(folder.join("known_hosts"), format!("[127.0.0.1]:{port} {public}")).unwrap();
        let shown = folder.display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {shown}/host_key\nPidFile none\n\
             AuthorizedKeysFile {shown}/authorized_keys\nStrictModes no\nUsePAM no\n\
             AuthenticationMethods publickey\nPermitRootLogin prohibit-password\nPrintMotd no\n"
        );
        fs::write(folder.join("sshd_config"), config).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", "sh", "-c", ENTER_SSHD]).arg(sshd);
        command.arg("-D").arg("-f").arg(folder.join("sshd_config")).arg("-E").arg(folder.join("sshd.log"));
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let sshd = Self { child, folder, port };
        // A listening port gives no event.
        let listens = eventually(SOON, || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        assert!(listens, "{}", fs::read_to_string(sshd.folder.join("sshd.log")).unwrap_or_default());
        sshd
    }

    /// - `typed`: what ssh gets if it asks for a PIN.
    pub(crate) fn login(&self, environment: &Environment, typed: &str) -> Command {
        let asked = self.folder.join("asked");
        let _ = fs::remove_file(&asked);
        let ask_pass = self.folder.join("ask-pass");
        fs::write(&ask_pass, format!("#!/bin/sh\necho \"$1\" >>{}\necho {typed}\n", asked.display())).unwrap();
        fs::set_permissions(&ask_pass, fs::Permissions::from_mode(0o700)).unwrap();
        let mut ssh = environment.command("ssh");
        ssh.args(["-F", "none", "-p", &self.port.to_string()]);
        for option in [
            "StrictHostKeyChecking=yes",
            "PreferredAuthentications=publickey",
            "IdentityFile=none",
            "IdentityAgent=none",
            "ConnectTimeout=10",
            &format!("UserKnownHostsFile={}", self.folder.join("known_hosts").display()),
        ] {
            ssh.args(["-o", option]);
        }
        ssh.args(["-I", MODULE, "root@127.0.0.1", &format!("echo {GREETING}")]);
        ssh.env("SSH_ASKPASS", &ask_pass).env("SSH_ASKPASS_REQUIRE", "force").env("DISPLAY", ":0");
        ssh
    }

    /// What ssh asked for on the computer since the last login began.
    fn asked(&self) -> String {
        fs::read_to_string(self.folder.join("asked")).unwrap_or_default()
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn ssh_logs_in_with_a_pin_of_the_phone() {
    let Some(sshd) = sshd() else { skip!("there is no sshd; `cargo xtask demo` unpacks one") };
    if !is_root() || !Path::new(MODULE).exists() {
        skip!("needs root, for a mount namespace, and opensc-pkcs11");
    }
    let mut environment = with_phone(Card::Ec);
    let sshd = Sshd::start(&environment, &sshd);
    let (ran, asked, took) =
        meanwhile(sshd.login(&environment, "000000"), || enter(environment.phone(0).unwrap(), TEST_PIN));
    assert!(ran.success && ran.text.contains(GREETING), "{}", ran.text);
    assert_eq!((&asked["purpose"], sshd.asked().as_str()), (&json!("verify"), ""), "ssh asked for nothing here");
    println!("ssh with a PIN of the phone: {took:?}");
    let (ran, (), _) = meanwhile(sshd.login(&environment, "000000"), || {
        let phone = environment.phone(0).unwrap();
        let asked = question(phone);
        phone.send(&json!({ "command": "cancel_pin", "id": asked["id"] })).unwrap();
    });
    assert!(!ran.success && ran.text.contains("Permission denied"), "{}", ran.text);
    assert_eq!(sshd.asked(), "");
}

#[test]
fn ssh_asks_here_with_the_keyboard() {
    let Some(sshd) = sshd() else { skip!("there is no sshd; `cargo xtask demo` unpacks one") };
    if !is_root() || !Path::new(MODULE).exists() {
        skip!("needs root, for a mount namespace, and opensc-pkcs11");
    }
    let mut environment = start(Environment::builder().card(Card::Ec));
    let sshd = Sshd::start(&environment, &sshd);
    let ran = run(&mut sshd.login(&environment, TEST_PIN), LIMIT);
    assert!(ran.success && ran.text.contains(GREETING), "{}", ran.text);
    assert!(sshd.asked().contains("PIN"), "{}", sshd.asked());
    let asked = environment
        .phone(0)
        .unwrap()
        .wait_event("nothing", Duration::from_millis(300), |event| event["event"] == "pin_asked");
    assert!(asked.is_err(), "{asked:?}");
}

/// PAM's settings are the test's own, in a mount namespace.
const ENTER_PAM: &str = "mount --make-rprivate / && mount -t tmpfs tmpfs /etc/pam.d && mount -t tmpfs tmpfs /etc/pam_pkcs11 \
    && cp \"$0\"/service /etc/pam.d/pocketcard-test && cp \"$0\"/pam_pkcs11.conf \"$0\"/digest_map /etc/pam_pkcs11/ || exit 1
exec pamtester -v pocketcard-test root authenticate";

pub(crate) fn prepare_pam(environment: &Environment) -> Option<PathBuf> {
    let there = pocketcard_dev::find_program("pamtester").is_some()
        && Path::new("/lib/x86_64-linux-gnu/security/pam_pkcs11.so").exists()
        && Path::new("/etc/pam_pkcs11").is_dir()
        && is_root();
    if !there {
        return None;
    }
    let folder = environment.folder().join("pam");
    fs::create_dir(&folder).unwrap();
    let certificate = folder.join("cert.der");
    let mut read = environment.command("pkcs11-tool");
    let read = read.args(["--read-object", "--type", "cert", "--id", "01", "--output-file"]).arg(&certificate);
    let read = run(read, LIMIT);
    assert!(read.success, "{}", read.text);
    let print = ["x509", "-inform", "DER", "-noout", "-fingerprint", "-sha256", "-in"];
    let print = run(Command::new("openssl").args(print).arg(&certificate), LIMIT);
    let digest = print.text.trim().split_once('=').map(|(_, digest)| digest.to_owned()).unwrap();
    // By the digest: pam_pkcs11 would take another key's certificate for the same name.
    let settings = format!(
        "pam_pkcs11 {{
  nullok = false; debug = false; use_first_pass = false; try_first_pass = false; card_only = false;
  wait_for_card = false; use_pkcs11_module = opensc;
  pkcs11_module opensc {{
    module = {MODULE}; description = \"OpenSC\"; slot_num = 0; support_threads = false;
    ca_dir = /etc/pam_pkcs11; crl_dir = /etc/pam_pkcs11; cert_policy = signature; token_type = \"Smart card\";
  }}
  use_mappers = digest;
  mapper digest {{
    debug = false; module = internal; algorithm = \"sha256\"; mapfile = file:///etc/pam_pkcs11/digest_map;
  }}
}}
"
    );
    fs::write(folder.join("pam_pkcs11.conf"), settings).unwrap();
    fs::write(folder.join("digest_map"), format!("{digest} -> root\n")).unwrap();
    fs::write(folder.join("service"), "auth required pam_pkcs11.so\naccount required pam_permit.so\n").unwrap();
    Some(folder)
}

pub(crate) fn pamtester(environment: &Environment, folder: &Path, typed: &str) -> Command {
    let mut command = environment.command("sh");
    command
        .args(["-c", "printf '%s\\n' \"$1\" | unshare --mount -- sh -c \"$2\" \"$3\"", "sh", typed, ENTER_PAM])
        .arg(folder);
    command
}

pub(crate) fn authenticated(ran: &Ran) -> bool {
    ran.text.contains("successfully authenticated")
}

#[test]
fn pam_logs_in_with_a_pin_of_the_phone() {
    let mut environment = with_phone(Card::Rsa);
    let Some(folder) = prepare_pam(&environment) else { skip!("needs root, pamtester and libpam-pkcs11") };
    let (ran, asked, _) =
        meanwhile(pamtester(&environment, &folder, ""), || enter(environment.phone(0).unwrap(), TEST_PIN));
    assert!(authenticated(&ran), "{}", ran.text);
    assert_eq!(asked["purpose"], "verify");
    assert!(ran.text.contains("on the pinpad"), "{}", ran.text);
    let (ran, (), _) = meanwhile(pamtester(&environment, &folder, TEST_PIN), || {
        let phone = environment.phone(0).unwrap();
        let asked = question(phone);
        phone.send(&json!({ "command": "cancel_pin", "id": asked["id"] })).unwrap();
    });
    assert!(!authenticated(&ran), "{}", ran.text);
}

#[test]
fn pam_asks_here_with_the_keyboard() {
    let mut environment = start(Environment::builder().card(Card::Rsa));
    let Some(folder) = prepare_pam(&environment) else { skip!("needs root, pamtester and libpam-pkcs11") };
    let ran = run(&mut pamtester(&environment, &folder, TEST_PIN), LIMIT);
    assert!(authenticated(&ran), "{}", ran.text);
    let asked = environment
        .phone(0)
        .unwrap()
        .wait_event("nothing", Duration::from_millis(300), |event| event["event"] == "pin_asked");
    assert!(asked.is_err(), "{asked:?}");
}
