//! The owner is asked on the phone for the use of the key, after the PIN that was typed here: says yes, says no, does not
//! answer, goes away.

use std::time::{Duration, Instant};

use crate::failure::{Failure, expect};
use crate::owner::{OWN_PIN, owned_world};
use crate::pin_pad::{TOLD_LIMIT, tell};
use crate::pty::Dialogue;
use crate::sign_in::{LEFT_LIMIT, Module, PROGRAMS, Program, at_pin, no_phone, out, set_up};
use crate::world::{SOON, World};

/// Nobody answers: the phone gives up after 50 s, and the person has to know then.
const UNANSWERED_LIMIT: Duration = Duration::from_secs(55);

/// What a program says to whom it lets out, by this module.
fn message(module: Module) -> &'static str {
    match module {
        Module::PamPkcs11 => "Signing failed",
        // It leaves the words to the program.
        Module::Sssd => "",
    }
}

pub(crate) fn matrix(module: Module) -> Result<(), Failure> {
    let mut world = owned_world("keyboard")?;
    let _sssd = set_up(module)?;
    let mut failed = 0;
    for program in &PROGRAMS {
        let mut row = |situation: &str, result: Result<String, Failure>| {
            failed += tell(module, program, situation, result);
        };
        row("the owner says yes", agrees(program, &mut world));
        row("the owner says no", denies(program, &mut world, module));
        if program.name == "pamtester" {
            row("nobody answers", unanswered(program, &mut world, module));
        }
        row("phone leaves while it asks", leaves(program, &mut world));
        row("no phone", no_phone(program));
        world.come(0)?;
    }
    expect(failed == 0, || format!("{failed} rows went wrong"))
}

fn pin_typed(program: &Program) -> Result<Dialogue, Failure> {
    let mut dialogue = at_pin(program)?;
    dialogue.type_secret(OWN_PIN)?;
    Ok(dialogue)
}

fn agrees(program: &Program, world: &mut World) -> Result<String, Failure> {
    let mut dialogue = pin_typed(program)?;
    world.approves(true)?;
    let is_in = program.verdict(&mut dialogue, SOON)?;
    expect(is_in, || format!("not let in:\n{}", dialogue.seen()))?;
    Ok("in".to_owned())
}

/// Out, and told so.
fn told(program: &Program, dialogue: Dialogue, module: Module, limit: Duration) -> Result<String, Failure> {
    let started = Instant::now();
    let dialogue = out(program, dialogue, limit)?;
    let (took, seen) = (started.elapsed(), dialogue.seen());
    for message in [message(module), program.is_out] {
        expect(seen.contains(message), || format!("no {message:?}:\n{seen}"))?;
    }
    Ok(format!("out after {:.1} s: {:?}", took.as_secs_f32(), program.is_out))
}

fn denies(program: &Program, world: &mut World, module: Module) -> Result<String, Failure> {
    let dialogue = pin_typed(program)?;
    world.approves(false)?;
    let seen = told(program, dialogue, module, TOLD_LIMIT)?;
    world.nobody_was_asked()?;
    // A refusal more within the minute would silence this computer.
    world.opens_app()?;
    Ok(seen)
}

fn unanswered(program: &Program, world: &mut World, module: Module) -> Result<String, Failure> {
    let dialogue = pin_typed(program)?;
    world.asked_for_approval()?;
    told(program, dialogue, module, UNANSWERED_LIMIT)
}

fn leaves(program: &Program, world: &mut World) -> Result<String, Failure> {
    let dialogue = pin_typed(program)?;
    world.asked_for_approval()?;
    let started = Instant::now();
    world.leave(0)?;
    out(program, dialogue, LEFT_LIMIT)?;
    Ok(format!("out after {:.1} s", started.elapsed().as_secs_f32()))
}
