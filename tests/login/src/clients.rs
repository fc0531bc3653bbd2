//! What else people sign in to: ssh, git, TLS. The commands are those of the pages.

use std::fs;
use std::process::Command;

use pocketcard_dev::{Card, Environment, TEST_PIN};

use crate::failure::{Context, Failure};
use crate::page::{Answers, follow};
use crate::service::Service;
use crate::world::{ALICE, SOON, World, as_user, eventually, ok, say};

/// What is typed at which question, on every page.
pub(crate) const ANSWERS: Answers<'static> = &[
    ("(yes/no/[fingerprint])?", "yes"),
    ("server.example's password:", ALICE.1),
    ("Enter PIN for '", TEST_PIN),
    ("Enter passphrase for PKCS#11:", TEST_PIN),
    ("Enter PKCS#11 token PIN for", TEST_PIN),
    ("Let this phone sign this user in? [yes/no]", "yes"),
    ("Phone PIN:", TEST_PIN),
];

/// What the server says.
pub(crate) const SERVER_LOG: &str = "/tmp/server.log";

/// Starts a server and waits until it listens.
fn server(program: &str, arguments: &[&str], port: u16) -> Result<Service, Failure> {
    let mut command = Command::new(program);
    let log = fs::File::create(SERVER_LOG).context("making a log")?;
    command.args(arguments).stdout(log.try_clone().context("making a log")?).stderr(log);
    let server = Service::spawn(&mut command)?;
    eventually(program, SOON, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
    Ok(server)
}

pub(crate) fn sshd() -> Result<Service, Failure> {
    server("/usr/sbin/sshd", &["-D"], 22)
}

pub(crate) fn world() -> Result<World, Failure> {
    World::start(Environment::builder().card(Card::Ec))
}

pub(crate) fn ssh() -> Result<(), Failure> {
    let _world = world()?;
    let _sshd = sshd()?;
    follow("ssh.md", "", ANSWERS).map(|_| ())
}

pub(crate) fn git() -> Result<(), Failure> {
    let _world = world()?;
    follow("git.md", "", ANSWERS).map(|_| ())
}

/// Beside it, how the agent comes to the server: the phone's key is there already.
const AT_THE_SERVER: &str = "cd; mkdir -p -m 700 .ssh
ssh-keygen -D /usr/lib/x86_64-linux-gnu/opensc-pkcs11.so | grep 'PIV AUTH' | tee phone.pub >.ssh/authorized_keys
ssh-keyscan server.example 2>/dev/null >.ssh/known_hosts";

pub(crate) fn sudo_agent() -> Result<(), Failure> {
    let _world = world()?;
    let _sshd = sshd()?;
    let mut words = as_user(ALICE.0);
    words.extend(["bash", "-c", AT_THE_SERVER].map(str::to_owned));
    ok("setpriv", words)?;
    let at_desk = follow("sudo-agent.md", "", ANSWERS)?;
    let mut at_desk = at_desk.ok_or_else(|| Failure::Wrong("no shell at the desk".to_owned()))?;
    at_desk
        .type_line("ssh -t -o IdentitiesOnly=yes -i phone.pub alice@server.example 'sudo --reset-timestamp -- id'")?;
    at_desk.expect("[sudo] password for alice:", SOON)?;
    say("ok      without the agent the password is asked for");
    Ok(())
}

/// The passphrase of the disk.
const PASSPHRASE: &str = "correct horse battery staple";

pub(crate) fn luks() -> Result<(), Failure> {
    let answers = [
        ("(Type 'yes' in capital letters):", "YES"),
        ("Enter passphrase for vault.img:", PASSPHRASE),
        ("Verify passphrase:", PASSPHRASE),
        ("enter current passphrase for disk", PASSPHRASE),
        ("enter PIN for security token", TEST_PIN),
        ("token PIN:", TEST_PIN),
    ];
    let mut world = World::start(Environment::builder().card(Card::Rsa))?;
    // systemd makes it, which does not run here.
    fs::create_dir_all("/run/systemd/ask-password").context("making a folder for systemd's questions")?;
    follow("luks.md", "", &answers)?;
    world.used("9D")?;
    say("ok      the phone decrypted");
    Ok(())
}

pub(crate) fn login() -> Result<(), Failure> {
    let _world = world()?;
    follow("login.md", "", ANSWERS).map(|_| ())
}

pub(crate) fn curl() -> Result<(), Failure> {
    let _world = world()?;
    let _server = tls_server()?;
    follow("tls.md", "", ANSWERS).map(|_| ())
}

/// A server on loopback that demands a certificate and takes the phone's, and whose own everybody here trusts.
const TLS: &str = r"set -e
mkdir -p /srv/tls; cd /srv/tls
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 -subj '/CN=Server authority' \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
openssl req -new -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=server.example
printf 'subjectAltName=DNS:server.example\nextendedKeyUsage=serverAuth\nkeyUsage=digitalSignature,keyEncipherment\n' >ext
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile ext -out server.pem
pkcs11-tool --read-object --type cert --id 01 --output-file phone.der
openssl x509 -inform DER -in phone.der -out phone.pem
cp ca.pem /usr/local/share/ca-certificates/server-authority.crt
update-ca-certificates";

pub(crate) fn tls_server() -> Result<Service, Failure> {
    ok("bash", ["-c", TLS])?;
    fs::metadata("/srv/tls/phone.pem").context("the phone's certificate")?;
    let arguments = "s_server -accept 8443 -cert /srv/tls/server.pem -key /srv/tls/server.key \
                     -CAfile /srv/tls/phone.pem -Verify 1 -verify_return_error -no_ticket -state -www";
    server("openssl", &arguments.split_whitespace().collect::<Vec<_>>(), 8443)
}
