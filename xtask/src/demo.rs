//! `cargo xtask demo`: from nothing to an ssh login with a key in a phone.

use std::fs;
use std::path::Path;
use std::process::Command;

use pocketcard_dev::{Card, Environment, TEST_MANAGEMENT_KEY, TEST_PIN};

use crate::problem::Context;
use crate::steps::{Outcome, Steps, say};
use crate::workspace::{cargo, output, target};
use crate::{Problem, demo_ssh, install, workspace};

/// What has to be built.
pub(crate) const PACKAGES: [&str; 4] = ["pocketcard", "pocketcardd", "pocketcard-driver", "pocketcard-examples"];

/// A kind of key, as each of the tools calls it.
struct Algorithm {
    name: &'static str,
    ykman: &'static str,
    mechanism: &'static [&'static str],
}

const ALGORITHMS: [Algorithm; 2] = [
    Algorithm {
        name: "P-256",
        ykman: "ECCP256",
        mechanism: &["--mechanism", "ECDSA-SHA256", "--signature-format", "openssl"],
    },
    Algorithm { name: "RSA-2048", ykman: "RSA2048", mechanism: &["--mechanism", "SHA256-RSA-PKCS"] },
];

pub(crate) fn run(steps: &mut Steps) -> Result<(), Problem> {
    steps.step("Install what is missing", || {
        install::apt(&[install::RUN.as_slice(), install::CLIENTS.as_slice()].concat())?;
        Ok(Outcome::Done)
    })?;
    let ykman = steps.value("Install ykman from PyPI, to make keys and certificates", install::ykman)?;
    let sshd = steps.value("Find an sshd to log in at; the machine's own is left alone", install::sshd)?;
    steps.step("Build the daemon, the driver, the virtual phone and the command line", || {
        build()?;
        Ok(Outcome::Done)
    })?;
    let environment = steps.value("Start a virtual phone, pair it, and put it into a private reader", || {
        let environment = Environment::builder().card(Card::Empty).bin_dir(target().join("debug")).start()?;
        say(&format!("    the reader: {}", environment.reader_names().join(", ")));
        Ok(environment)
    })?;
    steps.step("OpenSC sees the reader", || list_readers(&environment))?;
    for algorithm in &ALGORITHMS {
        let name = algorithm.name;
        steps.step(format!("{name}: the phone makes a key in slot 9A and certifies it (ykman)"), || {
            provision(&environment, &ykman, algorithm)
        })?;
        steps.step(format!("{name}: the phone signs a file, openssl verifies it"), || sign(&environment, algorithm))?;
        steps
            .step(format!("{name}: ssh logs in with the key in the phone"), || demo_ssh::login(&environment, &sshd))?;
    }
    say("\nThe private key never left the phone. Everything that was started is gone when this ends.");
    say("Next: cargo run -p pocketcard -- dev    (a shell with a phone in the reader)");
    Ok(())
}

/// Builds what an environment needs. The dev profile optimises the cryptography, and the rest is waiting for sockets.
pub(crate) fn build() -> Result<(), Problem> {
    let mut build = cargo(["build"]);
    build.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
    workspace::run(&mut build)
}

fn list_readers(environment: &Environment) -> Result<Outcome, Problem> {
    let text = output(environment.command("opensc-tool").arg("--list-readers"))?;
    say(&indented(&text));
    let name = environment.reader_names().concat();
    // "Nr.  Card  Features  Name": a card is there.
    let listed = text.lines().any(|line| line.contains(&name) && line.contains("Yes"));
    if listed { Ok(Outcome::Done) } else { Err(Problem::Wrong(format!("no card in {name}"))) }
}

fn provision(environment: &Environment, ykman: &Path, algorithm: &Algorithm) -> Result<Outcome, Problem> {
    let public_key = environment.folder().join("public.pem");
    let reader = environment.reader_names().concat();
    let piv = |arguments: &[&str]| {
        let mut command = environment.command(ykman);
        command.args(["--reader", &reader, "piv"]).args(arguments);
        command.args(["--management-key", TEST_MANAGEMENT_KEY]);
        command
    };
    workspace::run(piv(&["keys", "generate", "--algorithm", algorithm.ykman]).arg("9a").arg(&public_key))?;
    workspace::run(
        piv(&["certificates", "generate", "--subject", "CN=Pocketcard demo", "--pin", TEST_PIN])
            .arg("9a")
            .arg(&public_key),
    )?;
    let text = fs::read_to_string(&public_key).context("reading the public key")?;
    say(&indented(&text));
    Ok(Outcome::Done)
}

fn sign(environment: &Environment, algorithm: &Algorithm) -> Result<Outcome, Problem> {
    let file = |name: &str| environment.folder().join(name);
    let document = file("document.txt");
    fs::write(&document, "Signed by a phone.\n").context("writing the document")?;
    let mut pkcs11 = environment.command("pkcs11-tool");
    pkcs11.args(["--login", "--pin", TEST_PIN, "--id", "01", "--sign"]).args(algorithm.mechanism);
    pkcs11.arg("--input-file").arg(&document).arg("--output-file").arg(file("signature"));
    workspace::run(&mut pkcs11)?;
    let mut openssl = Command::new("openssl");
    openssl.args(["dgst", "-sha256", "-verify"]).arg(file("public.pem"));
    openssl.arg("-signature").arg(file("signature")).arg(&document);
    workspace::run(&mut openssl)?;
    Ok(Outcome::Done)
}

/// Text of a program, set off from our own.
pub(crate) fn indented(text: &str) -> String {
    text.trim_end().lines().map(|line| format!("    | {line}")).collect::<Vec<_>>().join("\n")
}
