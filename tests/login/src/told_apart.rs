//! A card that was taken away, an entry that was declined, a key that was denied, a blocked PIN: PAM modules call nearly all of
//! them a wrong PIN. `pocketcard status` and the phone's log tell them apart.

use serde_json::{Value, json};

use crate::failure::{Failure, expect};
use crate::owner::{ALL_TRIES, OWN_PIN, field, owned_world};
use crate::pin_pad::{TOLD_LIMIT, start};
use crate::sign_in::{LEFT_LIMIT, Module, PROGRAMS, set_up};
use crate::world::{SOON, World, ok, say};

/// What somebody does on the phone while pamtester waits.
type Deed = fn(&mut World) -> Result<(), Failure>;

/// What happens, what `pocketcard status` says then, and an entry of the phone's log: operation, key, result.
const CASES: [(&str, Deed, &str, [&str; 3]); 4] = [
    ("the card is locked away", lock, "no card", ["lock", "", "done"]),
    ("the PIN is not entered", decline, "it was cancelled", ["verify_pin", "80", "cancelled_by_owner"]),
    ("the use of the key is denied", deny, "its owner denied the use of key 9A", ["sign", "9A", "denied"]),
    ("the last try is wrong", block, "PIN blocked", ["verify_pin", "80", "wrong_pin"]),
];

pub(crate) fn told_apart() -> Result<(), Failure> {
    let mut world = owned_world("phone")?;
    let _none = set_up(Module::PamPkcs11)?;
    let [.., pamtester] = &PROGRAMS;
    let mut seen_by_pam = Vec::new();
    for (what, deed, words, entry) in CASES {
        // What is granted ends the talk of an earlier refusal.
        world.opens_app()?;
        let mut dialogue = start(pamtester)?;
        world.enters(OWN_PIN)?;
        world.approves(true)?;
        expect(pamtester.verdict(&mut dialogue, SOON)?, || format!("not let in:\n{}", dialogue.seen()))?;
        let mut dialogue = start(pamtester)?;
        deed(&mut world)?;
        let limit = if words == "no card" { LEFT_LIMIT } else { TOLD_LIMIT };
        let is_in = pamtester.verdict(&mut dialogue, limit)?;
        expect(!is_in, || format!("{what}: LET IN:\n{}", dialogue.seen()))?;
        let told = dialogue.seen().lines().find(|line| line.contains("Error ")).unwrap_or_default().trim().to_owned();
        let status = ok("pocketcard", ["status"])?;
        expect(status.contains(words), || format!("{what}: no {words:?} in:\n{status}"))?;
        let others = CASES.iter().map(|case| case.2).filter(|other| *other != words);
        for other in others {
            expect(!status.contains(other), || format!("{what}: {other:?}, too, in:\n{status}"))?;
        }
        let log = log(&mut world)?;
        let found = log.iter().rev().take(4).any(|logged| {
            let is = |name: &str, wanted: &str| field(logged, name).as_str().unwrap_or_default() == wanted;
            is("operation", entry[0]) && is("key", entry[1]) && is("result", entry[2])
        });
        expect(found, || format!("{what}: no {entry:?} in:\n{log:#?}"))?;
        say(&format!(
            "ok      {what}\n            PAM:    {told}\n            status: {words}\n            phone:  {entry:?}"
        ));
        seen_by_pam.push(told);
        world.environment.phone(0)?.send(&json!({ "command": "unlock" }))?;
        world.environment.wait_card(0, true, SOON)?;
    }
    let wrong = seen_by_pam.iter().filter(|told| told.contains("Wrong smartcard PIN")).count();
    say(&format!("        pam_pkcs11 calls {wrong} of {} a wrong PIN", CASES.len()));
    Ok(())
}

fn lock(world: &mut World) -> Result<(), Failure> {
    world.asked_for_pin()?;
    Ok(world.environment.phone(0)?.send(&json!({ "command": "lock" }))?)
}

fn decline(world: &mut World) -> Result<(), Failure> {
    world.declines_pin()
}

fn deny(world: &mut World) -> Result<(), Failure> {
    world.enters(OWN_PIN)?;
    world.approves(false)
}

/// On the phone itself the last try may be used.
fn block(world: &mut World) -> Result<(), Failure> {
    world.enters("999999")?;
    let [.., pamtester] = &PROGRAMS;
    for _ in 1..ALL_TRIES {
        let _waits = start(pamtester)?;
        world.enters("999999")?;
    }
    Ok(())
}

/// What the phone's owner reads there, oldest first.
fn log(world: &mut World) -> Result<Vec<Value>, Failure> {
    let phone = world.environment.phone(0)?;
    phone.send(&json!({ "command": "log" }))?;
    let mut entries = Vec::new();
    loop {
        let event =
            phone.wait_event("the log", SOON, |event| event["event"] == "log_entry" || event["event"] == "log_end")?;
        if field(&event, "event") == "log_end" {
            return Ok(entries);
        }
        entries.push(event);
    }
}
