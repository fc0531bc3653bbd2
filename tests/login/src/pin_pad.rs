//! The PIN entered on the phone, `pin_entry = "phone"`: who signs in by pam_pkcs11 types nothing on the computer.

use std::time::{Duration, Instant};

use pocketcard_dev::{Card, Environment, TEST_PIN};
use serde_json::{Value, json};

use crate::failure::{Failure, expect};
use crate::pty::Dialogue;
use crate::sign_in::{Module, PROGRAMS, Program, no_phone, set_up};
use crate::world::{SOON, World, say};

/// What people are told to do.
const TOLD: &str = "Enter your Phone PIN on the pinpad";
/// What they are told whatever went wrong: pam_pkcs11 has one word for all of it.
const REFUSED: &str = "Error 2320: Wrong smart";
/// A phone that leaves while it asks: when the person has to know.
const LEFT_LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn matrix() -> Result<(), Failure> {
    let mut world = World::start(Environment::builder().card(Card::Ec).daemon_config("pin_entry = \"phone\"\n"))?;
    let _none = set_up(Module::PamPkcs11)?;
    let mut failed = 0;
    for program in &PROGRAMS {
        let mut row = |situation: &str, result: Result<String, Failure>| {
            failed += u32::from(result.is_err());
            let word = if result.is_ok() { "ok    " } else { "FAILED" };
            let seen = result.unwrap_or_else(|failure| failure.to_string());
            say(&format!("{word}  pam_pkcs11  {:<9}  {situation}: {seen}", program.name));
        };
        row("right PIN on the phone", entered(program, &mut world, TEST_PIN, true));
        row("wrong PIN on the phone", entered(program, &mut world, "999999", false));
        row("right PIN again", entered(program, &mut world, TEST_PIN, true));
        row("the owner says no", declined(program, &mut world));
        row("phone leaves while it asks", leaves(program, &mut world));
        row("no phone", no_phone(program));
        world.come(0)?;
    }
    expect(failed == 0, || format!("{failed} rows went wrong"))
}

/// Starts the program; the phone asks its owner, the computer says so and asks nothing.
fn asked(program: &Program, world: &mut World) -> Result<(Dialogue, Value), Failure> {
    let mut dialogue = program.start()?;
    dialogue.expect(TOLD, SOON)?;
    let question =
        world.environment.phone(0)?.wait_event("asking for the PIN", SOON, |event| event["event"] == "pin_asked")?;
    Ok((dialogue, question.get("id").cloned().unwrap_or_default()))
}

fn entered(program: &Program, world: &mut World, pin: &str, lets_in: bool) -> Result<String, Failure> {
    let (mut dialogue, id) = asked(program, world)?;
    world.environment.phone(0)?.send(&json!({ "command": "enter_pin", "id": id, "pin": pin }))?;
    verdict(program, &mut dialogue, lets_in)
}

/// Whoever is refused has been told so.
fn verdict(program: &Program, dialogue: &mut Dialogue, lets_in: bool) -> Result<String, Failure> {
    let is_in = program.verdict(dialogue, SOON)?;
    expect(is_in == lets_in, || format!("let in: {is_in}:\n{}", dialogue.seen()))?;
    if is_in {
        return Ok("in, nothing typed".to_owned());
    }
    expect(dialogue.seen().contains(REFUSED), || format!("no {REFUSED:?}:\n{}", dialogue.seen()))?;
    Ok(format!("out: {REFUSED:?}"))
}

fn declined(program: &Program, world: &mut World) -> Result<String, Failure> {
    let (mut dialogue, id) = asked(program, world)?;
    world.environment.phone(0)?.send(&json!({ "command": "cancel_pin", "id": id }))?;
    let seen = verdict(program, &mut dialogue, false)?;
    // A refusal more within the minute would silence this computer; the owner opens the app.
    world.environment.phone(0)?.restart()?;
    world.environment.wait_card(0, true, pocketcard_dev::CARD_LIMIT)?;
    Ok(seen)
}

fn leaves(program: &Program, world: &mut World) -> Result<String, Failure> {
    let (mut dialogue, _) = asked(program, world)?;
    let started = Instant::now();
    world.leave(0)?;
    let is_in = program.verdict(&mut dialogue, LEFT_LIMIT)?;
    expect(!is_in, || format!("LET IN:\n{}", dialogue.seen()))?;
    Ok(format!("out after {:.1} s", started.elapsed().as_secs_f32()))
}
