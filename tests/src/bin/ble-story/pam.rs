//! A login by PAM with the key in the phone: pam_pkcs11 under pamtester. The machine's settings are the story's own.

use std::fs;
use std::path::Path;
use std::process::Command;

use pocketcard_dev::{Environment, TEST_PIN};

use crate::guest::{Context, Failure, client, opensc_module, say};

const SERVICE: &str = "pocketcard-story";
/// Whom the certificate of 9A stands for.
const USER: &str = "root";

/// Somebody to log in.
pub(crate) struct Pam(());

/// Writes the settings; nothing where the programs are not.
pub(crate) fn prepare(environment: &Environment) -> Result<Option<Pam>, Failure> {
    let there = Command::new("sh").args(["-c", "command -v pamtester && ls /lib/*/security/pam_pkcs11.so"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        say("story: SKIPPED a part: no pamtester or no pam_pkcs11");
        return Ok(None);
    }
    let certificate = environment.folder().join("pam.der");
    let mut read = environment.command("pkcs11-tool");
    read.args(["--read-object", "--type", "cert", "--id", "01", "--output-file"]).arg(&certificate);
    client("reading the certificate", &mut read)?;
    let mut print = Command::new("openssl");
    print.args(["x509", "-inform", "DER", "-noout", "-fingerprint", "-sha256", "-in"]).arg(&certificate);
    let print = client("the certificate's fingerprint", &mut print)?;
    let digest = print.trim().split_once('=').map(|(_, digest)| digest).unwrap_or_default();
    let folder = Path::new("/etc/pam_pkcs11");
    fs::create_dir_all(folder).context("making a folder for PAM")?;
    let module = opensc_module()?;
    // By the digest: pam_pkcs11 would take another key's certificate for the same name.
    let settings = format!(
        "pam_pkcs11 {{
  nullok = false; debug = false; use_first_pass = false; try_first_pass = false; card_only = false;
  wait_for_card = false; use_pkcs11_module = opensc;
  pkcs11_module opensc {{
    module = {}; description = \"OpenSC\"; slot_num = 0; support_threads = false;
    ca_dir = /etc/pam_pkcs11; crl_dir = /etc/pam_pkcs11; cert_policy = signature; token_type = \"Smart card\";
  }}
  use_mappers = digest;
  mapper digest {{
    debug = false; module = internal; algorithm = \"sha256\"; mapfile = file:///etc/pam_pkcs11/digest_map;
  }}
}}
",
        module.display()
    );
    for (name, text) in [("pam_pkcs11.conf", settings), ("digest_map", format!("{digest} -> {USER}\n"))] {
        fs::write(folder.join(name), text).context("writing PAM's settings")?;
    }
    let service = "auth required pam_pkcs11.so\naccount required pam_permit.so\n";
    fs::write(Path::new("/etc/pam.d").join(SERVICE), service).context("writing PAM's settings")?;
    Ok(Some(Pam(())))
}

impl Pam {
    /// Logs in.
    pub(crate) fn login(&self, environment: &Environment) -> Result<(), Failure> {
        let mut login = environment.command("sh");
        login.args(["-c", &format!("echo {TEST_PIN} | pamtester {SERVICE} {USER} authenticate")]);
        let text = client("pamtester", &mut login)?;
        let done = text.contains("successfully authenticated");
        if done { Ok(()) } else { Err(Failure::Client { what: "pamtester", text }) }
    }
}
