//! `pocketcard doctor`: looks at everything between a program and the phone, and says what to do.

use std::ffi::CStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use pcsc::{Context, Scope};
use pocketcard_ipc::control::{ClientError, Finding, Level, PinPlace, Status};

use crate::failure::{Code, Failure};
use crate::terminal::print;
use crate::{bundle, connect, reader_conf};

/// Where pcscd looks for readers that are not on USB.
pub(crate) const READER_CONF_FOLDER: &str = "/etc/reader.conf.d";
/// The name of our driver's file, wherever it lies.
const DRIVER: &str = "libifd_pocketcard.so";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write a report without secrets that can be attached to a bug.
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// A log to take the end of into the report; may be given several times.
    #[arg(long, value_name = "FILE", requires = "bundle")]
    log: Vec<PathBuf>,
    /// The daemon's configuration, for the report.
    #[arg(long, value_name = "FILE", requires = "bundle", default_value = "/etc/pocketcard/pocketcardd.toml")]
    config: PathBuf,
    /// Where pcscd's readers are configured.
    #[arg(long, value_name = "FOLDER", env = "POCKETCARD_READER_CONF", default_value = READER_CONF_FOLDER, hide = true)]
    reader_conf: PathBuf,
}

pub(crate) fn run(arguments: &Arguments, control: &Path) -> Result<ExitCode, Failure> {
    let Examination { findings, status } = examine(control, &arguments.reader_conf);
    if let Some(file) = &arguments.bundle {
        let sources = bundle::Sources {
            findings: &findings,
            status: status.as_ref(),
            config: &arguments.config,
            reader_conf: &arguments.reader_conf,
            logs: &arguments.log,
        };
        bundle::write(file, &sources)?;
        print(&format!("Written: {}. Read it before you attach it to a bug.\n", file.display()));
        return Ok(ExitCode::SUCCESS);
    }
    print(&findings.iter().map(paragraph).collect::<String>());
    let worst = findings.iter().map(|finding| finding.level).max();
    Ok(if worst == Some(Level::Error) { Code::DoctorFound.into() } else { ExitCode::SUCCESS })
}

/// What was found, and the daemon's status if it answered.
struct Examination {
    findings: Vec<Finding>,
    status: Option<Status>,
}

fn examine(control: &Path, reader_conf: &Path) -> Examination {
    let mut findings = vec![pcscd_version()];
    findings.extend(configured_readers(reader_conf));
    findings.extend(pcsc_service());
    findings.extend(socket_permissions(control));
    let mut status = None;
    match connect(control).map(|client| (client.daemon_software().to_owned(), client)) {
        Err(failure) => findings.push(daemon_away(&failure)),
        Ok((software, mut client)) => {
            findings.push(versions(&software));
            status = client.status().ok();
            let sssd = pocketcard_dev::find_program("sssd").and_then(|sssd| version_of(&sssd));
            findings.extend(status.iter().flat_map(|status| pin_pad_clients(status, sssd.clone())));
            match client.doctor() {
                Ok(own) => findings.extend(own),
                Err(error) => findings.push(daemon_away(&error.into())),
            }
        }
    }
    Examination { findings, status }
}

/// Programs that cannot use a PIN that is entered on the phone, where that is configured.
///
/// - `sssd`: the version that is installed.
fn pin_pad_clients(status: &Status, sssd: Option<String>) -> Vec<Finding> {
    if !status.slots.iter().any(|slot| slot.pin_entry == PinPlace::Phone) {
        return Vec::new();
    }
    let keyboard = "or set `pin_entry = \"keyboard\"` for the slot";
    let mut findings = vec![found(
        "pin-entry",
        Level::Note,
        "PINs are entered on the phone; `ssh-add -s` asks for the PIN here all the same",
        &format!("use `ssh -I opensc-pkcs11.so`, {keyboard}"),
    )];
    if let Some(version) = sssd.filter(|version| is_without_pin_pads(version)) {
        let message = format!("PINs are entered on the phone; sssd {version} asks for the PIN here all the same");
        let advice = format!("take pam_pkcs11, a newer sssd (2.10 or later), {keyboard}");
        findings.push(found("pin-entry-sssd", Level::Note, message, &advice));
    }
    findings
}

/// sssd has learnt of PIN pads between 2.9 and 2.10.
fn is_without_pin_pads(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
    (numbers.next(), numbers.next()) < (Some(2), Some(10))
}

/// A finding of this program.
fn found(check: &str, level: Level, message: impl Into<String>, advice: &str) -> Finding {
    let advice = (!advice.is_empty()).then(|| advice.to_owned());
    Finding { check: check.to_owned(), level, message: message.into(), advice }
}

fn pcscd_version() -> Finding {
    let Some(pcscd) = pocketcard_dev::find_program("pcscd") else {
        return found("pcscd", Level::Error, "pcscd is not installed", "apt-get install pcscd");
    };
    match version_of(&pcscd) {
        Some(version) => found("pcscd", Level::Good, version, ""),
        None => found("pcscd", Level::Warning, "pcscd does not tell its version", "apt-get install --reinstall pcscd"),
    }
}

/// The first line of what a program says about its version.
pub(crate) fn version_of(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(|line| line.trim_end_matches('.').to_owned())
}

fn configured_readers(folder: &Path) -> Vec<Finding> {
    let files = match reader_conf::folder(folder) {
        Ok(files) => files,
        Err(error) => {
            let message = format!("{} cannot be read: {error}", folder.display());
            return vec![found("reader.conf.d", Level::Error, message, "apt-get install pcscd")];
        }
    };
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| !file.problems.is_empty()) {
        let message = format!("{}: {}", file.path.display(), file.problems.join("; "));
        let advice = "pcscd does not start with a bad file there: repair it or move it out of the folder";
        findings.push(found("reader.conf.d", Level::Error, message, advice));
    }
    let ours = |library: &PathBuf| library.file_name().is_some_and(|name| name == DRIVER);
    if files.iter().any(|file| file.libraries.iter().any(ours)) {
        findings.push(found("reader.conf.d", Level::Good, "our reader is configured", ""));
    } else {
        let message = format!("no file in {} names {DRIVER}", folder.display());
        let advice = "install Pocketcard's reader.conf.d file; to try things without it: pocketcard dev";
        findings.push(found("reader.conf.d", Level::Error, message, advice));
    }
    findings
}

fn pcsc_service() -> Vec<Finding> {
    let names = Context::establish(Scope::User).and_then(|context| {
        let buffer = context.list_readers_owned()?;
        Ok(buffer.iter().map(|name| CStr::to_string_lossy(name).into_owned()).collect::<Vec<_>>())
    });
    match names {
        Ok(names) if names.iter().any(|name| name.starts_with("Pocketcard")) => {
            vec![found("reader", Level::Good, format!("pcscd has our reader ({} slots in all)", names.len()), "")]
        }
        Ok(_) => vec![found(
            "reader",
            Level::Error,
            "pcscd runs without our reader",
            "pcscd reads its readers only when it starts: systemctl restart pcscd",
        )],
        Err(error) => {
            let advice = Failure::from(error).advice().unwrap_or_else(|| "systemctl status pcscd".to_owned());
            vec![found("pcsc", Level::Error, format!("PC/SC does not answer: {error}"), &advice)]
        }
    }
}

/// The control socket may be used by root and one group: whoever reaches it can pair a phone.
fn socket_permissions(control: &Path) -> Option<Finding> {
    let metadata = fs::symlink_metadata(control).ok()?;
    if !metadata.file_type().is_socket() {
        let message = format!("{} is not a socket", control.display());
        return Some(found(
            "control-socket",
            Level::Error,
            message,
            "stop pocketcardd, remove the file, start it again",
        ));
    }
    let mode = metadata.mode() & 0o777;
    Some(if mode & 0o007 == 0 {
        found("control-socket", Level::Good, format!("the control socket has mode {mode:04o}"), "")
    } else {
        let message = format!("every user can open the control socket (mode {mode:04o}); the daemon refuses them");
        found("control-socket", Level::Warning, message, "restart pocketcardd: it sets the mode when it starts")
    })
}

fn versions(daemon: &str) -> Finding {
    let own = env!("CARGO_PKG_VERSION");
    if daemon.split_whitespace().any(|word| word.trim_start_matches('v') == own) {
        return found("versions", Level::Good, format!("pocketcard {own}, {daemon}"), "");
    }
    let message = format!("pocketcard {own} talks to {daemon}");
    found("versions", Level::Warning, message, "install both from the same release, then restart pocketcardd")
}

fn daemon_away(failure: &Failure) -> Finding {
    let check = match failure {
        Failure::Control(ClientError::Refused { .. }) => "control-socket",
        Failure::Control(ClientError::Version { .. }) => "versions",
        _ => "daemon",
    };
    found(check, Level::Error, failure.to_string(), &failure.advice().unwrap_or_default())
}

/// One finding as a person reads it.
pub(crate) fn paragraph(finding: &Finding) -> String {
    let mark = match finding.level {
        Level::Good => "good   ",
        Level::Note => "note   ",
        Level::Warning => "warning",
        Level::Error => "ERROR  ",
    };
    let mut text = format!("{mark}  {}: {}\n", finding.check, finding.message);
    if let Some(advice) = &finding.advice {
        text.push_str(&format!("           what to do: {advice}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::fixtures;

    #[test]
    fn versions_of_sssd() {
        for (version, without) in
            [("2.8.2", true), ("2.9.5", true), ("2.10.0", false), ("2.11.1", false), ("3.0", false)]
        {
            assert_eq!(is_without_pin_pads(version), without, "{version}");
        }
    }

    #[test]
    fn programs_that_know_no_pin_pads_are_named_where_there_is_one() {
        let status = |pin_entry| {
            let slots = vec![pocketcard_ipc::control::SlotStatus { pin_entry, ..fixtures::slot() }];
            Status { slots, ..fixtures::status() }
        };
        let checks = |pin_entry, sssd: Option<&str>| {
            let findings = pin_pad_clients(&status(pin_entry), sssd.map(str::to_owned));
            assert!(findings.iter().all(|finding| finding.advice.is_some()), "{findings:?}");
            findings.into_iter().map(|finding| (finding.check, finding.level)).collect::<Vec<_>>()
        };
        let agent = ("pin-entry".to_owned(), Level::Note);
        let sssd = ("pin-entry-sssd".to_owned(), Level::Note);
        assert_eq!(checks(PinPlace::Keyboard, Some("2.8.2")), []);
        assert_eq!(checks(PinPlace::Phone, None), std::slice::from_ref(&agent));
        assert_eq!(checks(PinPlace::Phone, Some("2.8.2")), [agent.clone(), sssd]);
        assert_eq!(checks(PinPlace::Phone, Some("2.10.1")), [agent]);
    }

    #[test]
    fn every_error_comes_with_advice() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("broken~"), "rubbish").unwrap();
        let examination = examine(&folder.path().join("no.sock"), folder.path());
        let errors: Vec<_> = examination.findings.iter().filter(|finding| finding.level == Level::Error).collect();
        for check in ["reader.conf.d", "daemon"] {
            assert!(errors.iter().any(|finding| finding.check == check), "{check} not in {errors:?}");
        }
        assert!(errors.iter().all(|finding| finding.advice.is_some()), "{errors:?}");
        assert!(examination.status.is_none());
    }

    #[test]
    fn an_open_control_socket_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        for (mode, level) in [(0o660, Level::Good), (0o600, Level::Good), (0o666, Level::Warning)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(socket_permissions(&path).unwrap().level, level, "{mode:o}");
        }
        fs::write(folder.path().join("file"), "").unwrap();
        assert_eq!(socket_permissions(&folder.path().join("file")).unwrap().level, Level::Error);
    }

    #[test]
    fn releases_that_differ_are_noticed() {
        assert_eq!(versions(concat!("pocketcardd ", env!("CARGO_PKG_VERSION"))).level, Level::Good);
        assert_eq!(versions("pocketcardd 99.0.0").level, Level::Warning);
    }
}
