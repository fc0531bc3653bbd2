//! sssd since 2.10 and a PIN pad: it asks for a PIN all the same, takes no notice of what is typed, and has the PIN entered on
//! the phone.

use std::time::Instant;

use pocketcard_dev::{Card, TEST_PIN};

use crate::failure::{Failure, expect};
use crate::owner::{ALL_TRIES, pin_pad_world};
use crate::pin_pad::{TOLD_LIMIT, tell};
use crate::pty::Dialogue;
use crate::sign_in::{LEFT_LIMIT, Module, PROGRAMS, Program, asked_for_pin, at_pin, no_phone, out, set_up};
use crate::world::{ALICE, SOON, World, ok};

/// Whether sssd is one that knows PIN pads.
pub(crate) fn is_here() -> bool {
    let version = ok("sssd", ["--version"]).unwrap_or_default();
    let mut numbers = version.trim().split('.').map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(2), Some(10))
}

pub(crate) fn matrix() -> Result<(), Failure> {
    let mut world = pin_pad_world(Card::Ec)?;
    let _sssd = set_up(Module::Sssd)?;
    let mut failed = 0;
    for program in &PROGRAMS {
        let mut row = |situation: &str, result: Result<String, Failure>| {
            failed += tell(Module::Sssd, program, situation, result);
        };
        row("right PIN on the phone", entered(program, &mut world, TEST_PIN, true));
        row("wrong PIN on the phone", entered(program, &mut world, "999999", false));
        row("right PIN again", entered(program, &mut world, TEST_PIN, true));
        row("nothing typed", nothing_typed(program, &mut world));
        row("the owner says no", declined(program, &mut world));
        row("phone leaves while it asks", leaves(program, &mut world));
        row("no phone", no_phone(program));
        world.come(0)?;
    }
    expect(failed == 0, || format!("{failed} rows went wrong"))
}

/// Starts the program and types something where it asks for a PIN.
fn start(program: &Program) -> Result<Dialogue, Failure> {
    let mut dialogue = at_pin(program)?;
    dialogue.type_secret("x")?;
    Ok(dialogue)
}

fn entered(program: &Program, world: &mut World, pin: &str, lets_in: bool) -> Result<String, Failure> {
    let mut dialogue = start(program)?;
    world.enters(pin)?;
    if lets_in {
        let is_in = program.verdict(&mut dialogue, SOON)?;
        expect(is_in, || format!("not let in:\n{}", dialogue.seen()))?;
        return Ok("in, whatever is typed".to_owned());
    }
    out(program, dialogue, TOLD_LIMIT)?;
    expect(world.tries_left()? == ALL_TRIES - 1, || "not one try was spent".to_owned())?;
    Ok("out".to_owned())
}

fn nothing_typed(program: &Program, world: &mut World) -> Result<String, Failure> {
    let mut dialogue = at_pin(program)?;
    dialogue.type_secret("")?;
    expect(!asked_for_pin(&mut dialogue)?, || format!("the PIN is asked for again:\n{}", dialogue.seen()))?;
    world.nobody_was_asked()?;
    dialogue.type_secret(ALICE.1)?;
    let is_in = program.verdict(&mut dialogue, SOON)?;
    expect(is_in, || format!("not let in by the password:\n{}", dialogue.seen()))?;
    Ok("the phone asks nothing; in by the password".to_owned())
}

fn declined(program: &Program, world: &mut World) -> Result<String, Failure> {
    let dialogue = start(program)?;
    world.declines_pin()?;
    out(program, dialogue, TOLD_LIMIT)?;
    // A refusal more within the minute would silence this computer.
    world.opens_app()?;
    Ok("out".to_owned())
}

fn leaves(program: &Program, world: &mut World) -> Result<String, Failure> {
    let dialogue = start(program)?;
    world.asked_for_pin()?;
    let started = Instant::now();
    world.leave(0)?;
    out(program, dialogue, LEFT_LIMIT)?;
    Ok(format!("out after {:.1} s", started.elapsed().as_secs_f32()))
}
