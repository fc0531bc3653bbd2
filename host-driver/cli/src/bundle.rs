//! `pocketcard doctor --bundle`: a report without secrets that a user can attach to a bug.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use pocketcard_ipc::control::{Finding, Status};

use crate::doctor::{paragraph, version_of};
use crate::failure::Failure;
use crate::phones::link;
use crate::{reader_conf, redact};

/// How much of the end of each log is taken.
const LOG_TAIL: u64 = 64 * 1024;
/// The keys of the daemon's configuration whose values help and name nobody.
const OPEN_KEYS: [&str; 10] = [
    "dev",
    "state_dir",
    "driver_socket",
    "control_socket",
    "reader_slots",
    "pin_entry",
    "address",
    "allow_connect",
    "driver_uids",
    "control_uids",
];

/// Where the report comes from.
pub(crate) struct Sources<'a> {
    pub(crate) findings: &'a [Finding],
    pub(crate) status: Option<&'a Status>,
    pub(crate) config: &'a Path,
    pub(crate) reader_conf: &'a Path,
    pub(crate) logs: &'a [PathBuf],
}

/// Writes the report, readable by its owner only.
pub(crate) fn write(file: &Path, sources: &Sources<'_>) -> Result<(), Failure> {
    let report = report(sources);
    let written =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file).and_then(|mut file| {
            // A file that was there before keeps its mode otherwise.
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.write_all(report.as_bytes())
        });
    written.map_err(|source| Failure::Report { file: file.to_owned(), source })
}

/// The whole report. Every line of it goes through [`redact::line`].
fn report(sources: &Sources<'_>) -> String {
    let mut text = String::from("Pocketcard report. Names, keys, PINs and card data are taken out.\n");
    section(&mut text, "versions", &versions());
    section(&mut text, "findings", &sources.findings.iter().map(paragraph).collect::<String>());
    section(&mut text, "status", &sources.status.map_or_else(|| "no answer\n".to_owned(), slots));
    section(&mut text, "configuration of pocketcardd", &configuration(sources.config));
    section(&mut text, "readers of pcscd", &readers(sources.reader_conf));
    for log in sources.logs {
        let name = log.file_name().unwrap_or_default().to_string_lossy();
        section(&mut text, &format!("end of {name}"), &tail(log).unwrap_or_else(unreadable));
    }
    if sources.logs.is_empty() {
        section(&mut text, "journal", &journal());
    }
    let names = names(sources.status);
    text.lines().map(|line| redact::line(line, &names) + "\n").collect()
}

fn section(text: &mut String, title: &str, content: &str) {
    // Writing to a String cannot fail.
    let _ = write!(text, "\n== {title} ==\n{content}");
}

fn unreadable(error: io::Error) -> String {
    format!("cannot be read: {error}\n")
}

fn versions() -> String {
    let mut text = format!("pocketcard {}\n", env!("CARGO_PKG_VERSION"));
    for program in ["pcscd", "opensc-tool", "bluetoothctl", "ssh"] {
        let version = pocketcard_dev::find_program(program).map(|path| version_of(&path).unwrap_or_default());
        let _ = writeln!(text, "{program}: {}", version.unwrap_or_else(|| "not installed".to_owned()));
    }
    for file in ["/proc/sys/kernel/osrelease", "/etc/debian_version"] {
        let _ = writeln!(text, "{file}: {}", fs::read_to_string(file).unwrap_or_default().trim());
    }
    text
}

/// The status without names and ids.
fn slots(status: &Status) -> String {
    let mut text = format!("{}, dev: {}, pairing: {}\n", status.software, status.dev, status.pairing);
    for slot in &status.slots {
        let phone = slot.phone.as_ref().map_or_else(|| "free".to_owned(), |phone| link(&phone.link));
        let _ = writeln!(
            text,
            "slot {}: {phone}; driver {:?}, card {}, powered {}, PIN verified {}, PIN tries {:?}",
            slot.slot, slot.driver, slot.card_present, slot.powered, slot.pin_verified, slot.pin_tries_left
        );
    }
    text
}

/// Every name that the status has, to be taken out of everything else.
fn names(status: Option<&Status>) -> Vec<String> {
    let phones = status.iter().flat_map(|status| &status.slots).filter_map(|slot| slot.phone.as_ref());
    let mut names: Vec<String> = phones.flat_map(|phone| [phone.name.clone(), phone.id.clone()]).collect();
    names.extend(status.map(|status| status.host_name.clone()));
    names.extend(fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()));
    let users = ["USER", "LOGNAME", "SUDO_USER"].into_iter().filter_map(|name| std::env::var(name).ok());
    names.extend(users.filter(|user| user != "root"));
    names.retain(|name| !name.is_empty() && name != "localhost");
    names
}

/// The configuration: known keys with their values, every other value taken out.
fn configuration(path: &Path) -> String {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return unreadable(error),
    };
    let mut shown = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let open =
            line.starts_with('[') || line.split_once('=').is_some_and(|(key, _)| OPEN_KEYS.contains(&key.trim()));
        match line.split_once('=') {
            _ if open => shown.push_str(line),
            Some((key, _)) => shown.push_str(&format!("{}= [taken out]", key)),
            None => shown.push_str("[taken out]"),
        }
        shown.push('\n');
    }
    shown
}

fn readers(folder: &Path) -> String {
    match reader_conf::folder(folder) {
        Err(error) => unreadable(error),
        Ok(files) if files.is_empty() => "none\n".to_owned(),
        Ok(files) => files
            .iter()
            .map(|file| {
                format!("{}: drivers {:?}, problems {:?}\n", file.path.display(), file.libraries, file.problems)
            })
            .collect(),
    }
}

fn tail(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let start = file.metadata()?.len().saturating_sub(LOG_TAIL);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // The first line may have lost its beginning, and with it what would have told what it is.
    let whole = if start == 0 { &*text } else { text.split_once('\n').map_or("", |(_, rest)| rest) };
    Ok(whole.to_owned() + "\n")
}

fn journal() -> String {
    let Some(journalctl) = pocketcard_dev::find_program("journalctl") else {
        return "no journalctl on this machine; name logs with --log\n".to_owned();
    };
    let output = Command::new(journalctl)
        .args(["--no-pager", "--quiet", "--lines=300", "--output=short-iso", "--unit=pocketcardd", "--unit=pcscd"])
        .output();
    match output {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => unreadable(error),
    }
}

#[cfg(test)]
mod tests {
    use pocketcard_ipc::control::{Level, Phone, SlotStatus};

    use super::*;
    use crate::fixtures;

    fn status() -> Status {
        let phone = Phone {
            id: "a1b2c3d4e5f6a7b8c9d0a1b2c3d4e5f6a7b8c9d0a1b2c3d4e5f6a7b8c9d0abcd".to_owned(),
            name: "Anna's Pixel".to_owned(),
            ..fixtures::phone()
        };
        let slot = SlotStatus { card_present: true, pin_tries_left: Some(3), phone: Some(phone), ..fixtures::slot() };
        Status {
            software: "pocketcardd 0.1.0".to_owned(),
            host_id: "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100".to_owned(),
            host_name: "annas-laptop".to_owned(),
            dev: false,
            pairing: false,
            bluetooth: None,
            slots: vec![slot],
        }
    }

    #[test]
    fn no_secret_and_no_name_gets_into_the_report() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.toml");
        fs::write(&config, "reader_slots = 4\nhost_name = \"annas-laptop\"\npassword = \"hunter2hunter2\"\n").unwrap();
        let log = folder.path().join("pocketcardd.log");
        fs::write(
            &log,
            "2026-11-24T04:06:28.123456Z INFO connected to Anna's Pixel on annas-laptop\n\
             psk 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n\
             offer pocketcard:1:QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo\n\
             VERIFY 00 20 00 80 08 31 32 33 34 35 36 FF FF pin 123456 or 87654321\n\
             2026-11-24T04:06:29.000001Z WARN link lost: timed out\n",
        )
        .unwrap();
        let finding = Finding {
            check: "daemon".to_owned(),
            level: Level::Note,
            message: "Anna's Pixel a1b2c3d4e5f6a7b8c9d0a1b2c3d4e5f6a7b8c9d0a1b2c3d4e5f6a7b8c9d0abcd".to_owned(),
            advice: None,
        };
        let status = status();
        let text = report(&Sources {
            findings: &[finding],
            status: Some(&status),
            config: &config,
            reader_conf: folder.path(),
            logs: &[log],
        });
        for secret in [
            "Anna",
            "annas-laptop",
            "hunter2",
            "000102030405",
            "QUJDREVGR0",
            "31 32 33",
            "123456 or",
            "87654321",
            "a1b2c3d4e5",
            "ffeeddcc",
        ] {
            assert!(!text.contains(secret), "{secret} is in the report:\n{text}");
        }
        for useful in ["link lost: timed out", "reader_slots = 4", "PIN tries Some(3)", "slot 0: connected"] {
            assert!(text.contains(useful), "{useful} is not in the report:\n{text}");
        }
    }

    #[test]
    fn the_report_is_private_also_where_a_file_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("report.txt");
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        let path = folder.path();
        write(&file, &Sources { findings: &[], status: None, config: path, reader_conf: path, logs: &[] }).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::read_to_string(&file).unwrap().starts_with("Pocketcard report."));
    }

    #[test]
    fn a_log_is_cut_at_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("long.log");
        fs::write(&log, "secretbeginning ".repeat(5000) + "\nlast\n").unwrap();
        assert_eq!(tail(&log).unwrap(), "last\n\n");
    }
}
