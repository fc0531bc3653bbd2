//! The machine that a story is told in: its radio, its bluetoothd, its clients of PC/SC.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pocketcard_dev::{DevError, Environment, Phone, TEST_PIN};
use pocketcard_tests::run::run;
use serde_json::Value;

/// How long one command of a client may take, in an emulated machine whose host is busy.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);
/// How long bluetoothd may take to end.
const BLUETOOTHD_LIMIT: Duration = Duration::from_secs(20);
/// Where /run/ble/logs is: the folder that the host shares with the guest.
const LOGS: &str = "/run/ble/logs";

/// Why a story did not go as it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Something that the environment started did not do what it should.
    #[error("{0}")]
    Environment(#[from] DevError),
    /// The machine refused something.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
    /// A client of PC/SC failed.
    #[error("{what} failed:\n{text}")]
    Client { what: &'static str, text: String },
    /// The radio did not do what it was asked.
    #[error("the radio answered {0:?}")]
    Radio(String),
    /// Something is not as the story says.
    #[error("{0}")]
    Wrong(String),
}

/// Says what was tried when the machine refuses.
pub(crate) trait Context<T> {
    fn context(self, what: &'static str) -> Result<T, Failure>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: &'static str) -> Result<T, Failure> {
        self.map_err(|error| Failure::System(what, error))
    }
}

/// Prints a line.
pub(crate) fn say(line: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Does one step of a story and says how long it took.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let started = Instant::now();
    let result = work();
    let words = if result.is_ok() { "done" } else { "FAILED" };
    say(&format!("story: {what}: {words} after {:.2} s", started.elapsed().as_secs_f64()));
    result
}

/// A folder for an environment's logs that the host sees.
pub(crate) fn logs(name: &str) -> PathBuf {
    PathBuf::from(LOGS).join(name)
}

/// Asks something of the virtual radio and returns what it says beside "ok". tests/ble/controllers.py has the list.
pub(crate) fn radio(command: &str) -> Result<String, Failure> {
    let ports = fs::read_dir("/sys/class/virtio-ports").context("looking for the radio's port")?.flatten();
    let port = ports
        .filter(|port| fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == "control"))
        .map(|port| PathBuf::from("/dev").join(port.file_name()))
        .next()
        .ok_or_else(|| Failure::Radio("nothing: this radio cannot be asked".to_owned()))?;
    let port = OpenOptions::new().read(true).write(true).open(port).context("opening the radio's port")?;
    writeln!(&port, "{command}").context("asking the radio")?;
    let mut answer = String::new();
    BufReader::new(&port).read_line(&mut answer).context("asking the radio")?;
    match answer.trim().strip_prefix("ok") {
        Some(rest) => Ok(rest.trim().to_owned()),
        None => Err(Failure::Radio(answer)),
    }
}

/// Ends bluetoothd as the system does.
pub(crate) fn stop_bluetoothd() -> Result<(), Failure> {
    let stop = "kill $(pidof bluetoothd) && while pidof bluetoothd >/dev/null; do sleep 0.1; done";
    let ran = run(Command::new("sh").args(["-c", stop]), BLUETOOTHD_LIMIT);
    if ran.success { Ok(()) } else { Err(Failure::Client { what: "stopping bluetoothd", text: ran.text }) }
}

/// Starts bluetoothd again.
pub(crate) fn start_bluetoothd() -> Result<(), Failure> {
    let log = OpenOptions::new().append(true).create(true).open("/run/bluetoothd.log").context("opening a log")?;
    let mut bluetoothd = Command::new("/usr/libexec/bluetooth/bluetoothd");
    bluetoothd.args(["--nodetach", "--experimental"]).stdin(Stdio::null());
    bluetoothd.stdout(log.try_clone().context("opening a log")?).stderr(log);
    bluetoothd.spawn().map(|_| ()).context("starting bluetoothd")
}

/// Runs a command that has to succeed and returns what it wrote.
pub(crate) fn client(what: &'static str, command: &mut Command) -> Result<String, Failure> {
    let ran = run(command, COMMAND_LIMIT);
    if ran.success { Ok(ran.text) } else { Err(Failure::Client { what, text: ran.text }) }
}

/// OpenSC's PKCS#11 module.
pub(crate) fn opensc_module() -> Result<PathBuf, Failure> {
    let folders = fs::read_dir("/usr/lib").context("looking for OpenSC")?.flatten();
    folders
        .map(|entry| entry.path().join("opensc-pkcs11.so"))
        .find(|module| module.is_file())
        .ok_or_else(|| Failure::Wrong("OpenSC's PKCS#11 module is not there".to_owned()))
}

/// Signs a file with the key in 9A by OpenSC, and lets openssl check it against the certificate on the card.
///
/// - `mechanism`: how pkcs11-tool calls what the key does.
pub(crate) fn sign(environment: &Environment, mechanism: &[&str]) -> Result<(), Failure> {
    let folder = environment.folder();
    let file = |name: &str| folder.join(name);
    fs::write(file("document"), "Signed by a phone on the air.\n").context("writing a document")?;
    let mut read = environment.command("pkcs11-tool");
    read.args(["--read-object", "--type", "cert", "--id", "01", "--output-file"]).arg(file("certificate"));
    client("reading the certificate", &mut read)?;
    let mut sign = environment.command("pkcs11-tool");
    sign.args(["--login", "--pin", TEST_PIN, "--id", "01", "--sign"]).args(mechanism);
    sign.arg("--input-file").arg(file("document")).arg("--output-file").arg(file("signature"));
    client("pkcs11-tool --login --sign", &mut sign)?;
    let mut x509 = Command::new("openssl");
    x509.args(["x509", "-inform", "DER", "-pubkey", "-noout", "-out"]).arg(file("key"));
    x509.arg("-in").arg(file("certificate"));
    client("openssl x509", &mut x509)?;
    let mut verify = Command::new("openssl");
    verify.args(["dgst", "-sha256", "-verify"]).arg(file("key")).arg("-signature").arg(file("signature"));
    client("openssl dgst -verify", verify.arg(file("document"))).map(|_| ())
}

/// What `pkcs11-tool` needs to sign with the keys of a card.
pub(crate) const P256: [&str; 4] = ["--mechanism", "ECDSA-SHA256", "--signature-format", "openssl"];
pub(crate) const RSA: [&str; 2] = ["--mechanism", "SHA256-RSA-PKCS"];

/// The commands that a phone was asked so far, by its log: each one was a round trip over the air.
pub(crate) fn commands(log: &Path) -> Result<Vec<String>, Failure> {
    let log = fs::read_to_string(log).context("reading the phone's log")?;
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line.split_once(' ')?.1).ok());
    Ok(events.filter(|event| text(event, "event") == "apdu").map(|event| text(&event, "command").to_owned()).collect())
}

/// Waits until the phone says this of its radio: "up" or "down".
pub(crate) fn wait_radio(phone: &mut Phone, state: &str, limit: Duration) -> Result<(), Failure> {
    phone.wait_event("the state of its radio", limit, |event| {
        event.get("event").is_some_and(|name| name == "radio") && text(event, "state") == state
    })?;
    Ok(())
}

/// A string of an event; empty if it has none of that name.
pub(crate) fn text<'a>(event: &'a Value, name: &str) -> &'a str {
    event.get(name).and_then(Value::as_str).unwrap_or_default()
}
