//! What the daemon can see of its own installation.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pocketcard_ipc::accounts::Accounts;
use pocketcard_ipc::control::{BluetoothState, BluetoothStatus, DriverState, Finding, Level, LinkState};
use pocketcard_protocol::advertising::EPOCH;

use crate::hub::Hub;
use crate::listener::{CONTROL_GROUP, PCSCD_USER};
use crate::radio::settings;

/// Every check, good ones included.
pub(crate) fn findings(hub: &Hub) -> Vec<Finding> {
    let mut findings = vec![
        private("state-folder", hub.store().folder()),
        private("identity", &hub.store().folder().join("identity")),
        core_dumps(),
        reader(hub),
    ];
    if !hub.config.dev {
        findings.extend(accounts());
    }
    findings.extend(hub.unusable().into_iter().map(|message| {
        let advice = "move the file away and restart pocketcardd, then pair that phone again";
        finding("store", Level::Error, message, Some(advice))
    }));
    findings.push(match &hub.air {
        Some(air) => bluetooth(&air.status()),
        None => finding("bluetooth", Level::Note, "Bluetooth is off in the daemon's configuration".into(), None),
    });
    if hub.air.is_some() {
        findings.extend(bluetooth_settings());
    }
    findings.extend(phones(hub));
    findings
}

/// BlueZ's own configuration. Whether to change it is the administrator's decision: it holds for all of Bluetooth.
fn bluetooth_settings() -> Option<Finding> {
    let text = fs::read_to_string(settings::PATH).ok()?;
    Some(match settings::advice(&text) {
        None => finding("bluetooth-settings", Level::Good, "connections are made quick and lasting".into(), None),
        Some(lines) => {
            let message = "BlueZ makes connections slow, and gives them up after a moment of silence".into();
            let advice = format!("under [LE] in {}: {lines}; then restart bluetooth", settings::PATH);
            finding("bluetooth-settings", Level::Note, message, Some(&advice))
        }
    })
}

/// The radio, and what to do about it.
pub(crate) fn bluetooth(status: &BluetoothStatus) -> Finding {
    let message = || status.message.clone().unwrap_or_default();
    let error = |advice: &str| finding("bluetooth", Level::Error, message(), Some(advice));
    match status.state {
        BluetoothState::Working => {
            let adapter = status.adapter.as_deref().unwrap_or("the adapter");
            finding("bluetooth", Level::Good, format!("{adapter} listens for phones when one is away"), None)
        }
        BluetoothState::NoService => {
            error("systemctl enable --now bluetooth (install the package `bluez` if there is none)")
        }
        BluetoothState::NoPermission => error(
            "let the daemon's user talk to org.bluez on the system bus: add it to the group `bluetooth`, then restart pocketcardd",
        ),
        BluetoothState::NoAdapter => error(
            "plug an adapter in (`bluetoothctl list` shows what there is), or correct `adapter` under [bluetooth] in the daemon's configuration",
        ),
        BluetoothState::PoweredOff => {
            error("bluetoothctl power on (after `rfkill unblock bluetooth`, if that refuses)")
        }
        BluetoothState::Starting => finding("bluetooth", Level::Note, "Bluetooth is starting".into(), None),
        _ => error("systemctl status bluetooth; the daemon tries again by itself"),
    }
}

fn finding(check: &str, level: Level, message: String, advice: Option<&str>) -> Finding {
    Finding { check: check.to_owned(), level, message, advice: advice.map(str::to_owned) }
}

fn private(check: &str, path: &Path) -> Finding {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.permissions().mode() & 0o077 == 0 => {
            finding(check, Level::Good, format!("{} is private", path.display()), None)
        }
        Ok(_) => {
            let advice = "take the rights of group and others away, and consider every pair as known to them";
            finding(check, Level::Error, format!("{} can be read by other users", path.display()), Some(advice))
        }
        Err(error) => finding(check, Level::Error, format!("{}: {error}", path.display()), None),
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn core_dumps() -> Finding {
    use rustix::process::{DumpableBehavior, dumpable_behavior};
    match dumpable_behavior() {
        Ok(DumpableBehavior::NotDumpable) => {
            finding("core-dumps", Level::Good, "a crash leaves no memory on the disk".into(), None)
        }
        _ => finding("core-dumps", Level::Warning, "a crash may leave secrets in a core dump".into(), None),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn core_dumps() -> Finding {
    finding("core-dumps", Level::Note, "the limit of core dumps is set to 0".into(), None)
}

fn reader(hub: &Hub) -> Finding {
    let absent = hub.slots.iter().filter(|slot| slot.view().driver == DriverState::Absent).count();
    if absent == 0 {
        finding("reader", Level::Good, "pcscd has loaded the driver".into(), None)
    } else if absent == hub.slots.len() {
        let advice = "start pcscd (any smart-card program does), and check the driver's file in /etc/reader.conf.d";
        finding("reader", Level::Warning, "no driver is connected".into(), Some(advice))
    } else {
        let advice = "make the number in the driver's DEVICENAME and `reader_slots` the same, then restart pcscd";
        let message = format!("the driver serves only {} of {} slots", hub.slots.len() - absent, hub.slots.len());
        finding("reader", Level::Warning, message, Some(advice))
    }
}

fn accounts() -> Vec<Finding> {
    let accounts = Accounts::load();
    let group = match accounts.group(CONTROL_GROUP) {
        Some((_, members)) => {
            let message = format!("the group `{CONTROL_GROUP}` has {} members", members.len());
            finding("control-group", Level::Good, message, None)
        }
        None => {
            let message = format!("there is no group `{CONTROL_GROUP}`: only root can pair and forget phones");
            finding("control-group", Level::Note, message, Some("create it, and add the users who may pair"))
        }
    };
    let pcscd = match accounts.user(PCSCD_USER) {
        Some(_) => finding("pcscd-user", Level::Good, format!("pcscd may run as root or as `{PCSCD_USER}`"), None),
        None => finding("pcscd-user", Level::Good, "pcscd runs as root on this system".into(), None),
    };
    vec![group, pcscd]
}

/// The phone was heard, by a clock that is not ours.
///
/// - `ahead`: by how many quarters of an hour.
fn clock(name: &str, ahead: i64) -> Finding {
    let minutes = ahead.unsigned_abs() * EPOCH.as_secs() / 60;
    let side = if ahead > 0 { "ahead of" } else { "behind" };
    let message =
        format!("the clock of {name:?} is about {}:{:02} h {side} this computer's", minutes / 60, minutes % 60);
    let advice = "correct the wrong one (here: `timedatectl`, and its time zone), or no phone is recognised on Bluetooth; if both are right, somebody repeats what the phone sent then";
    finding("clock", Level::Error, message, Some(advice))
}

/// The phone is there and its service is not where BlueZ has found it some other time.
fn services(name: &str) -> Finding {
    let message = format!("BlueZ looks for what {name:?} serves where it was some other time");
    let advice = format!("under [GATT] in {}: Cache=yes; then restart bluetooth", settings::PATH);
    finding("services", Level::Error, message, Some(&advice))
}

fn phones(hub: &Hub) -> Vec<Finding> {
    let phones = hub.phones();
    if phones.is_empty() {
        return vec![finding("phones", Level::Note, "no phone is paired".into(), Some("`pocketcard pair`"))];
    }
    let check = |phone: &pocketcard_ipc::control::Phone| {
        let (name, ahead) = (&phone.name, hub.clock_ahead(phone));
        match &phone.link {
            LinkState::Connected {} => finding("phone", Level::Good, format!("{name:?} is connected"), None),
            LinkState::Connecting {} => finding("phone", Level::Note, format!("{name:?} is connecting"), None),
            LinkState::VersionMismatch { update, .. } => {
                let advice = match update {
                    pocketcard_ipc::Side::Ours => "update Pocketcard on this computer",
                    pocketcard_ipc::Side::Theirs => "update Pocketcard on the phone",
                };
                finding("phone", Level::Error, format!("{name:?} speaks another version"), Some(advice))
            }
            LinkState::Disconnected { .. } if ahead.is_some() => clock(name, ahead.unwrap_or_default()),
            LinkState::Disconnected { .. } if hub.is_stale(phone) => services(name),
            LinkState::Disconnected { .. } if hub.seen_on_air(phone) == Some(false) => {
                let message = format!("{name:?} has not been seen on Bluetooth since the daemon began");
                let advice = "open the app on the phone, near this computer, with Bluetooth on; the clocks of both must agree within a quarter of an hour";
                finding("phone", Level::Note, message, Some(advice))
            }
            LinkState::Disconnected { reason } => {
                let reason = reason.as_deref().unwrap_or("not reached yet");
                finding("phone", Level::Note, format!("{name:?} is not connected: {reason}"), None)
            }
            _ => finding("phone", Level::Note, format!("{name:?} is in an unknown state"), None),
        }
    };
    phones.iter().map(check).collect()
}
