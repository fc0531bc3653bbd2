//! `pocketcard watch` of a user's, who locks the screen when the phone leaves.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use pocketcard_dev::{Builder, Card, Environment};

use crate::failure::{Context, Failure, expect};
use crate::world::{ALICE, World, ok};

/// The number that Debian gives its first user.
const ALICE_ID: u32 = 1000;

/// A machine with a phone, at which alice may watch it.
///
/// - `pin_entry`: where the PIN is entered.
pub(crate) fn watched(pin_entry: &str) -> Builder {
    // Elsewhere the group lets her in; the daemon of a test knows its own user, and whom it is told.
    let config = format!("pin_entry = \"{pin_entry}\"\ncontrol_uids = [{ALICE_ID}]\n");
    Environment::builder().card(Card::Ec).daemon_config(config)
}

/// Lets alice at the daemon's socket, as her group and the package do elsewhere.
pub(crate) fn may_watch(world: &World) -> Result<(), Failure> {
    let id = ok("id", ["-u", ALICE.0])?;
    expect(id.trim() == ALICE_ID.to_string(), || format!("alice has the number {id}"))?;
    let socket = world.environment.folder().join("control.sock");
    chown(&socket, None, Some(ALICE_ID)).context("opening the control socket")?;
    fs::set_permissions(&socket, Permissions::from_mode(0o660)).context("opening the control socket")?;
    // Sessions get a PATH of their own.
    let programs = std::env::var("POCKETCARD_BIN_DIR").unwrap_or_default();
    symlink(Path::new(&programs).join("pocketcard"), "/usr/local/bin/pocketcard").context("naming our program")
}
