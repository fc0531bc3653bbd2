//! A phone and a computer that share nothing with ours but the core: bumble in place of BlueZ, Python in place of Rust, an MTU
//! of 185, and for the phone a radio address that changes every few seconds.

use std::process::Command;
use std::time::{Duration, Instant};

use pocketcard_dev::{AIR_CARD_LIMIT, DevError, Environment};
use pocketcard_ipc::control::{ClientError, PairMethod, Reply, Request, Transport};
use pocketcard_tests::client::eventually;
use serde_json::json;

use crate::guest::{Failure, client, radio, say, start_bluetoothd, step, stop_bluetoothd, text};
use crate::stories::{environment, signs};
use crate::transports;

/// How long each side may take in a pairing.
const PAIRING_LIMIT: Duration = Duration::from_secs(90);

/// That phone, and our computer.
pub(crate) fn phone() -> Result<(), Failure> {
    let mut host = environment("host").over_the_air("hci0", &[]).start()?;
    step("the phone pairs by its camera, its card is in pcscd", || {
        pair(&host)?;
        Ok(host.wait_card(0, true, AIR_CARD_LIMIT)?)
    })?;
    signs(&host, "after pairing")?;
    for round in 1..=2 {
        step(&format!("the computer comes back and knows the phone at another address, time {round}"), || {
            host.daemon().restart()?;
            Ok(host.wait_card(0, true, AIR_CARD_LIMIT)?)
        })?;
        signs(&host, "after the computer's return")?;
    }
    let state = radio("phone state")?;
    say(&format!("story: the phone: {state}"));
    if state.contains("MTU [185]") { Ok(()) } else { Err(Failure::Wrong(format!("another MTU: {state}"))) }
}

/// That phone, with channels of L2CAP by somebody else's system: one that works, and those of a phone that means no good.
/// Each of these costs some time, and the card comes over GATT.
pub(crate) fn channels() -> Result<(), Failure> {
    let mut host = environment("host").over_the_air("hci0", &[]).start()?;
    step("the phone pairs by its camera, its card is in pcscd", || {
        pair(&host)?;
        Ok(host.wait_card(0, true, AIR_CARD_LIMIT)?)
    })?;
    radio("phone keep")?;
    for mode in ["refuse", "silent", "long", "cut", "stingy"] {
        let begun = Instant::now();
        step(&format!("the computer comes back, the phone's channel is to be: {mode}"), || {
            radio(&format!("phone l2cap {mode}"))?;
            // A daemon that starts has no doubts about anybody.
            host.daemon().restart()?;
            Ok(host.wait_card(0, true, AIR_CARD_LIMIT)?)
        })?;
        say(&format!("REPORT other-channels: {mode}: card after {} ms", begun.elapsed().as_millis()));
        transports::expect(&host, &Transport::Gatt { mtu: 185 })?;
        signs(&host, "over GATT all the same")?;
    }
    step("the computer comes back, the phone's channel is good", || {
        radio("phone l2cap good")?;
        host.daemon().restart()?;
        Ok(host.wait_card(0, true, AIR_CARD_LIMIT)?)
    })?;
    transports::expect(&host, &Transport::L2cap {})?;
    signs(&host, "over L2CAP")?;
    let state = radio("phone state")?;
    say(&format!("story: the phone: {state}"));
    // Nobody listens for the first; the others were opened, and one more.
    if state.ends_with(" 5 channels") { Ok(()) } else { Err(Failure::Wrong(format!("other channels: {state}"))) }
}

/// That phone, when it comes back with the same service in another order at the same handles. BlueZ takes it for what it was.
pub(crate) fn handles() -> Result<(), Failure> {
    let mut host = environment("host").over_the_air("hci0", &[]).start()?;
    step("the phone pairs by its camera, its card is in pcscd", || {
        pair(&host)?;
        Ok(host.wait_card(0, true, AIR_CARD_LIMIT)?)
    })?;
    step("its service moves, its address changes: the computer comes back and finds it", || {
        moves(&mut host)?;
        Ok(host.wait_card(0, true, AIR_CARD_LIMIT)?)
    })?;
    signs(&host, "at other handles")?;
    step("its address stays from now on", || {
        radio("phone static")?;
        host.daemon().restart()?;
        Ok(host.wait_card(0, true, AIR_CARD_LIMIT)?)
    })?;
    signs(&host, "at a static address")?;
    step("its service moves: the computer comes back and says that it does not find it", || {
        moves(&mut host)?;
        if eventually(AIR_CARD_LIMIT, || advice(&host).is_some()) { Ok(()) } else { not_there(&host) }
    })?;
    let advice = advice(&host).unwrap_or_default();
    say(&format!("story: doctor: {advice}"));
    step("BlueZ is told to keep less, as doctor advises: the card is back", || {
        let Some((_, setting)) = advice.split_once(": ") else { return Err(Failure::Wrong(advice)) };
        let setting = setting.split(';').next().unwrap_or_default();
        let edit = format!("s/^\\[GATT\\]/[GATT]\\n{setting}/");
        client("sed", Command::new("sed").args(["--in-place", &edit, "/etc/bluetooth/main.conf"]))?;
        stop_bluetoothd()?;
        start_bluetoothd()?;
        Ok(host.wait_card(0, true, AIR_CARD_LIMIT)?)
    })?;
    signs(&host, "after doctor's advice")?;
    step("its service moves once more: the computer comes back and finds it", || {
        moves(&mut host)?;
        Ok(host.wait_card(0, true, AIR_CARD_LIMIT)?)
    })?;
    signs(&host, "at other handles again")
}

/// The phone's service moves while the computer is away.
fn moves(host: &mut Environment) -> Result<(), Failure> {
    host.daemon().terminate();
    radio("phone move")?;
    Ok(host.daemon().restart()?)
}

/// What doctor advises for services that are not where they were.
fn advice(host: &Environment) -> Option<String> {
    let findings = host.daemon_control().ok()?.doctor().ok()?;
    findings.into_iter().find(|finding| finding.check == "services")?.advice
}

fn not_there(host: &Environment) -> Result<(), Failure> {
    let phones = host.daemon_control()?.phones();
    Err(Failure::Wrong(format!("doctor names no services: {phones:?}")))
}

/// That computer, and our phone.
pub(crate) fn host() -> Result<(), Failure> {
    let mut environment = environment("host").over_the_air("hci0", &["hci1"]).unpaired().start()?;
    let phone = environment.phone(0)?;
    step("the phone pairs with the computer by digits", || {
        phone.send(&json!({ "command": "compare" }))?;
        let at_host = radio("host compare")?;
        let event = phone.wait_event("the digits", PAIRING_LIMIT, |event| text(event, "event") == "digits")?;
        let at_phone = text(&event, "digits").to_owned();
        if at_phone != at_host {
            return Err(DevError::DigitsDiffer { host: at_host, phone: at_phone }.into());
        }
        phone.send(&json!({ "command": "confirm", "agree": true }))?;
        radio("host confirm").map(|_| ())
    })?;
    for round in 1..=3 {
        step(&format!("the computer connects, the phone signs, time {round}"), || {
            let state = radio("host connect")?;
            radio("host sign")?;
            // Longer than any fragment of this MTU.
            radio("host certificate")?;
            radio("host leave")?;
            if state == "MTU 185" { Ok(()) } else { Err(Failure::Wrong(format!("another MTU: {state}"))) }
        })?;
    }
    for mode in ["long", "huge", "cut", "stalls", "stingy"] {
        step(&format!("the computer opens a channel of L2CAP and means no good: {mode}"), || {
            let took = radio(&format!("host l2cap {mode}"))?;
            say(&format!("REPORT other-host: {mode}: the end of the channel: {took}"));
            Ok(())
        })?;
    }
    step("the computer connects, the phone signs as before", || {
        radio("host connect")?;
        radio("host sign")?;
        radio("host leave").map(|_| ())
    })
}

pub(crate) fn pair(host: &Environment) -> Result<(), Failure> {
    let mut control = host.daemon_control()?;
    let lost = |error: ClientError| Failure::Environment(DevError::from(error));
    let (text, _) = control.pair_start(None, PairMethod::Qr, Some(0)).map_err(lost)?;
    radio(&format!("phone scan {}", text.unwrap_or_default()))?;
    loop {
        match control.receive(Some(PAIRING_LIMIT)).map_err(lost)? {
            Reply::PairDigits { digits, .. } => {
                let shown = radio("phone digits")?;
                control.send(&Request::PairConfirm { agree: shown == digits }).map_err(lost)?;
                if shown != digits {
                    return Err(DevError::DigitsDiffer { host: digits, phone: shown }.into());
                }
                radio("phone confirm")?;
            }
            Reply::Paired { .. } => return Ok(()),
            Reply::Error(failure) => return Err(lost(ClientError::Failed(failure))),
            _ => {}
        }
    }
}
