//! What goes away and comes back: adapters, and links within the grace.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pocketcard_dev::{AIR_CARD_LIMIT, Card, Environment};
use pocketcard_ipc::control::BluetoothState;
use pocketcard_tests::apdu::{RIGHT_PIN, SELECT_PIV, sign_p256, signature, verify};
use pocketcard_tests::client::eventually;
use pocketcard_tests::piv::PublicKey;
use pocketcard_tests::{Client, ClientFailure};

use crate::guest::{Context, Failure, client, commands, radio, say, step, text, wait_radio};
use crate::stories::{LEAVE_LIMIT, RADIO_LIMIT, paired, signs, walks_away};
use crate::transports::{apdu, summary};

/// The phone as the computer's BlueZ names it.
const PHONE: &str = "/org/bluez/hci0/dev_F0_F1_F2_00_00_01";
/// Signatures during which the link is cut, each a little later than the one before.
const CUTS: u64 = 8;
/// How much later.
const LATER: Duration = Duration::from_millis(15);
/// What an operation may take with the grace in it, in an emulated machine.
const CUT_LIMIT: Duration = Duration::from_secs(30);

/// The adapters are switched off and on, and pulled out and put back.
pub(crate) fn adapter() -> Result<(), Failure> {
    let mut environment = paired(Card::Ec)?;
    signs(&environment, "after pairing")?;
    step("the computer's adapter is switched off, the card leaves", || {
        power("hci0", false)?;
        environment.wait_card(0, false, LEAVE_LIMIT)?;
        say(&format!("story: BlueZ says: {}", powered("hci0")?));
        state(&environment, BluetoothState::PoweredOff)
    })?;
    step("it is switched on, the card is back", || {
        power("hci0", true)?;
        environment.wait_card(0, true, AIR_CARD_LIMIT)?;
        state(&environment, BluetoothState::Working)
    })?;
    signs(&environment, "after the adapter was off")?;
    step("the phone's adapter is switched off, the card leaves", || {
        power("hci1", false)?;
        wait_radio(environment.phone(0)?, "down", RADIO_LIMIT)?;
        Ok(environment.wait_card(0, false, LEAVE_LIMIT)?)
    })?;
    step("it is switched on, the card is back", || {
        power("hci1", true)?;
        wait_radio(environment.phone(0)?, "up", RADIO_LIMIT)?;
        Ok(environment.wait_card(0, true, AIR_CARD_LIMIT)?)
    })?;
    signs(&environment, "after the phone's adapter was off")?;
    step("the computer's adapter is pulled out, the card leaves", || {
        // Nobody says good-bye for an adapter without power.
        radio("away 0")?;
        unplug("hci0")?;
        environment.wait_card(0, false, LEAVE_LIMIT)?;
        state(&environment, BluetoothState::NoAdapter)
    })?;
    step("it is put back, the card is back", || {
        radio("back 0")?;
        plug("hci0")?;
        environment.wait_card(0, true, AIR_CARD_LIMIT)?;
        state(&environment, BluetoothState::Working)
    })?;
    signs(&environment, "after the adapter was out")
}

/// The link is cut again and again and comes back within the grace: the PIN stays verified, and what was asked happens once.
pub(crate) fn cut() -> Result<(), Failure> {
    let mut environment = paired(Card::Ec)?;
    let log = environment.logs().join("phone-0.log");
    let mut client = Client::connected(&environment, 0);
    let public = PublicKey::of_9a(&environment, &mut client, "9a");
    apdu(&mut client, "SELECT", SELECT_PIV)?;
    apdu(&mut client, "VERIFY", &verify(RIGHT_PIN))?;
    // So that most cuts find a message on its way.
    radio("interval 30")?;
    let mut times = Vec::new();
    for round in 0..CUTS {
        let delay = LATER * u32::try_from(round).unwrap_or_default();
        let before = commands(&log)?.len();
        let digest = [u8::try_from(round).unwrap_or_default(); 32];
        step(&format!("a signature, and the link is cut {} ms later", delay.as_millis()), || {
            let begun = Instant::now();
            client.send(&["transmit", &hex(&sign_p256(0x9A, &digest))]);
            // The cut is to hit another moment each time.
            std::thread::sleep(delay);
            radio("cut 1")?;
            let failed = |failure: ClientFailure| Failure::Wrong(format!("the signature: {failure:?}"));
            let response = client.response(CUT_LIMIT).map_err(failed)?;
            times.push(begun.elapsed());
            let signed =
                signature(&response).ok_or_else(|| Failure::Wrong(format!("no signature: {response:02X?}")))?;
            let scratch = environment.folder().to_owned();
            if !public.verifies(&scratch, &digest, signed) {
                return Err(Failure::Wrong("openssl does not take the signature".to_owned()));
            }
            environment.phone(0)?.wait_event("the session", CUT_LIMIT, |event| {
                text(event, "event") == "session" && event.get("resumed").is_some_and(|resumed| resumed == true)
            })?;
            Ok(())
        })?;
        let asked = commands(&log)?.split_off(before);
        if asked != ["GENERAL AUTHENTICATE"] {
            return Err(Failure::Wrong(format!("the phone was asked {asked:?}")));
        }
    }
    say(&format!("REPORT cut: {CUTS} signatures cut and resumed, none lost, none done twice: {}", summary(times)));
    Ok(())
}

/// A phone that BlueZ is bonded with for other purposes goes and comes back: BlueZ keeps its services and tells no
/// identifier of it any more.
pub(crate) fn bonded() -> Result<(), Failure> {
    let mut environment = paired(Card::Ec)?;
    signs(&environment, "after pairing")?;
    // No bond yet, but somebody's decision all the same.
    step("somebody has BlueZ trust the phone", || trust(true))?;
    walks_away(&environment)?;
    signs(&environment, "with a trusted phone")?;
    step("BlueZ trusts it as before, and is told not to", || if trusted()? { trust(false) } else { lost_trust() })?;
    step("BlueZ bonds the two adapters", || bond(&environment))?;
    for _ in 0..2 {
        walks_away(&environment)?;
        signs(&environment, "with a bonded phone")?;
    }
    step("the computer's daemon starts again, the card is back", || {
        environment.daemon().restart()?;
        Ok(environment.wait_card(0, true, AIR_CARD_LIMIT)?)
    })?;
    signs(&environment, "with a bonded phone, after the daemon's start")
}

fn trust(trusted: bool) -> Result<(), Failure> {
    let mut command = Command::new("dbus-send");
    command.args(["--system", "--print-reply", "--dest=org.bluez", PHONE]);
    command.args(["org.freedesktop.DBus.Properties.Set", "string:org.bluez.Device1", "string:Trusted"]);
    client("trusting the phone", command.arg(format!("variant:boolean:{trusted}"))).map(|_| ())
}

fn trusted() -> Result<bool, Failure> {
    let mut command = Command::new("dbus-send");
    command.args(["--system", "--print-reply=literal", "--dest=org.bluez", PHONE]);
    command.args(["org.freedesktop.DBus.Properties.Get", "string:org.bluez.Device1", "string:Trusted"]);
    Ok(client("asking for trust", &mut command)?.trim_end().ends_with("boolean true"))
}

fn lost_trust() -> Result<(), Failure> {
    Err(Failure::Wrong("the phone is trusted no more".to_owned()))
}

/// Bonds the adapters as a desktop does with a device that has neither display nor keys.
fn bond(environment: &Environment) -> Result<(), Failure> {
    let device = PHONE;
    // The agent has to stay while it is asked.
    let script = format!(
        "exec 3<>\"$1/agent\" && bluetoothctl --agent NoInputNoOutput <&3 >\"$1/agent.log\" 2>&1 &
         agent=$!
         sleep 2
         # What it asks: whether the other adapter may.
         (exec 3>\"$1/agent\"; for _ in $(seq 30); do sleep 1; echo yes >&3; done) &
         answers=$!
         dbus-send --system --print-reply --reply-timeout=60000 --dest=org.bluez {device} org.bluez.Device1.Pair
         kill $agent $answers
         dbus-send --system --print-reply=literal --dest=org.bluez {device} \\
             org.freedesktop.DBus.Properties.Get string:org.bluez.Device1 string:Paired"
    );
    let folder = environment.folder();
    client("making a pipe", Command::new("mkfifo").arg(folder.join("agent")))?;
    let told = client("bonding", Command::new("bash").args(["-c", &script, "bash"]).arg(folder))?;
    let bonded = told.trim_end().ends_with("boolean true");
    if bonded { Ok(()) } else { Err(Failure::Client { what: "bonding", text: told }) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Switches an adapter as the desktop does.
fn power(adapter: &str, on: bool) -> Result<(), Failure> {
    let mut command = Command::new("dbus-send");
    command.args(["--system", "--print-reply", "--dest=org.bluez", &format!("/org/bluez/{adapter}")]);
    command.args(["org.freedesktop.DBus.Properties.Set", "string:org.bluez.Adapter1", "string:Powered"]);
    client("switching an adapter", command.arg(format!("variant:boolean:{on}"))).map(|_| ())
}

/// What BlueZ says of an adapter's power.
fn powered(adapter: &str) -> Result<String, Failure> {
    let mut command = Command::new("dbus-send");
    command.args(["--system", "--print-reply=literal", "--dest=org.bluez", &format!("/org/bluez/{adapter}")]);
    command.args(["org.freedesktop.DBus.Properties.Get", "string:org.bluez.Adapter1", "string:Powered"]);
    Ok(client("asking for an adapter's power", &mut command)?.trim().to_owned())
}

/// Ends the program that makes an adapter; the adapter goes with it.
fn unplug(adapter: &str) -> Result<(), Failure> {
    let port = port(adapter)?;
    let processes = fs::read_dir("/proc").context("looking for an adapter's program")?.flatten();
    let bridge = processes.map(|process| process.path()).find(|process| {
        let line = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        let mut words = line.split('\0');
        words.next().is_some_and(|program| program.ends_with("ble-bridge")) && words.next() == Some(&port)
    });
    let process = bridge.and_then(|process| Some(process.file_name()?.to_owned())).unwrap_or_default();
    client("ending an adapter's program", Command::new("kill").arg(process))?;
    let device = Path::new("/sys/class/bluetooth").join(adapter);
    if eventually(RADIO_LIMIT, || !device.exists()) {
        Ok(())
    } else {
        Err(Failure::Wrong(format!("{adapter} does not go")))
    }
}

fn plug(adapter: &str) -> Result<(), Failure> {
    let mut bridge = Command::new("ble-bridge");
    bridge.arg(port(adapter)?).stdin(Stdio::null());
    bridge.spawn().map(|_| ()).context("putting an adapter back")
}

/// The port to the controller of an adapter.
fn port(adapter: &str) -> Result<String, Failure> {
    let ports = fs::read_dir("/sys/class/virtio-ports").context("looking for an adapter's port")?.flatten();
    let port = ports
        .filter(|port| fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == adapter))
        .map(|port| format!("/dev/{}", port.file_name().display()))
        .next();
    port.ok_or_else(|| Failure::Wrong(format!("{adapter} has no port: this story needs controllers by bumble")))
}

/// Waits until the daemon says this of its radio.
fn state(environment: &Environment, wanted: BluetoothState) -> Result<(), Failure> {
    let mut told = None;
    let holds = eventually(RADIO_LIMIT, || {
        let status = environment.daemon_control().ok().and_then(|mut control| control.status().ok());
        told = status.and_then(|status| status.bluetooth).map(|bluetooth| bluetooth.state);
        told == Some(wanted)
    });
    if holds { Ok(()) } else { Err(Failure::Wrong(format!("the radio's state is {told:?}, not {wanted:?}"))) }
}

/// The daemon's snapshots are gone, as on a computer that never saw the card; it starts again.
pub(crate) fn start_cold(environment: &mut Environment) -> Result<(), Failure> {
    environment.daemon().terminate();
    let gone = "find \"$1\" -path '*snapshot*' -type f -print -delete";
    let folder = environment.folder().to_owned();
    let deleted = client("deleting snapshots", Command::new("sh").args(["-c", gone, "sh"]).arg(folder))?;
    if deleted.trim().is_empty() {
        return Err(Failure::Wrong("there was no snapshot to delete".to_owned()));
    }
    environment.daemon().restart()?;
    Ok(environment.wait_card(0, true, AIR_CARD_LIMIT)?)
}
