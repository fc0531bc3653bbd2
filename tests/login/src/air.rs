//! The same stories with the phone on the air, in the emulated machine of `cargo xtask test-ble`.

use std::time::Duration;

use pocketcard_dev::Builder;

use crate::failure::Failure;
use crate::world::ok;

/// What tests/ble/people.sh sets there.
const MARK: &str = "POCKETCARD_LOGIN_AIR";
/// The computer's adapter and the phone's.
const ADAPTERS: (&str, &str) = ("hci0", "hci1");
/// Where the host sees the logs.
const LOGS: &str = "/run/ble/logs";
/// How many times as long everything may take there: two emulated processors draw a desktop.
const PATIENCE: u32 = 6;
/// Asks the virtual radio; tests/ble/controllers.py has the list.
const ASK: &str = ". \"$BLE_ROOT/tests/ble/lib.sh\"; radio \"$@\"";

/// Whether this is that machine.
pub(crate) fn is_here() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Puts the phone on the air.
pub(crate) fn on(builder: Builder) -> Builder {
    builder.over_the_air(ADAPTERS.0, &[ADAPTERS.1]).keep_logs(LOGS)
}

/// What becomes of a limit.
pub(crate) fn patient(limit: Duration) -> Duration {
    if is_here() { limit * PATIENCE } else { limit }
}

/// The phone goes out of range, or comes back.
pub(crate) fn in_range(is_in_range: bool) -> Result<(), Failure> {
    ok("bash", ["-c", ASK, "radio", if is_in_range { "back" } else { "away" }, "1"]).map(|_| ())
}

/// What a picture is called: those of the air stand beside the others.
pub(crate) fn picture_name(name: &str) -> String {
    match name.split_once('-') {
        Some((story, rest)) if is_here() => format!("{story}-ble-{rest}"),
        _ => name.to_owned(),
    }
}
