//! The PIN entered on the phone, `pin_entry = "phone"`: who signs in by pam_pkcs11 types nothing on the computer, and sssd,
//! which knows no PIN pads, asks all the same.

use std::process::Command;
use std::time::{Duration, Instant};

use pocketcard_dev::{Card, TEST_PIN};

use crate::failure::{Failure, expect};
use crate::owner::{ALL_TRIES, pin_pad_world};
use crate::pty::Dialogue;
use crate::sign_in::{LEFT_LIMIT, Module, PROGRAMS, Program, asked_for_pin, at_pin, no_phone, out, right_pin, set_up};
use crate::sssd_pad;
use crate::world::{ALICE, SOON, World, run, say, text};

/// What people are told to do.
const TOLD: &str = "Enter your Phone PIN on the pinpad";
/// What they are told whatever went wrong: pam_pkcs11 has one word for all of it.
const REFUSED: &str = "Error 2320: Wrong smart";
/// Once its owner has said no, or is not asked since the PIN is blocked: when the person at the computer has to know.
pub(crate) const TOLD_LIMIT: Duration = Duration::from_secs(5);

pub(crate) fn pam_pkcs11() -> Result<(), Failure> {
    let mut world = pin_pad_world(Card::Ec)?;
    let _none = set_up(Module::PamPkcs11)?;
    let mut failed = 0;
    for program in &PROGRAMS {
        let mut row = |situation: &str, result: Result<String, Failure>| {
            failed += tell(Module::PamPkcs11, program, situation, result);
        };
        row("right PIN on the phone", entered(program, &mut world, TEST_PIN, true));
        row("wrong PIN on the phone", entered(program, &mut world, "999999", false));
        row("right PIN again", entered(program, &mut world, TEST_PIN, true));
        row("the owner says no", declined(program, &mut world));
        row("blocked PIN", blocked(program, &mut world));
        row("phone leaves while it asks", leaves(program, &mut world));
        row("no phone", no_phone(program));
        world.come(0)?;
    }
    expect(failed == 0, || format!("{failed} rows went wrong"))
}

/// sssd 2.8 asks for the PIN itself; what it does with what is typed is what its users have to know.
pub(crate) fn sssd() -> Result<(), Failure> {
    if sssd_pad::is_here() {
        return sssd_pad::matrix();
    }
    let mut world = pin_pad_world(Card::Ec)?;
    let _sssd = set_up(Module::Sssd)?;
    let mut failed = 0;
    for program in &PROGRAMS {
        let mut row = |situation: &str, result: Result<String, Failure>| {
            failed += tell(Module::Sssd, program, situation, result);
        };
        row("nothing typed", nothing_typed(program, &mut world));
        row("wrong PIN typed", typed(program, &mut world, "999999", ALL_TRIES - 1));
        row("right PIN typed", right_pin(program));
        world.permits_typed_pins(false)?;
        row("right PIN typed, which the phone does not permit", typed(program, &mut world, TEST_PIN, ALL_TRIES));
        world.permits_typed_pins(true)?;
        world.leave(0)?;
        row("no phone", no_phone(program));
        world.come(0)?;
    }
    doctor_notes()?;
    expect(failed == 0, || format!("{failed} rows went wrong"))
}

/// Who asks why nothing comes on the phone is told.
fn doctor_notes() -> Result<(), Failure> {
    // It ends with an error: no package has configured the reader here.
    let told = text(&run(Command::new("pocketcard").arg("doctor"), "")?);
    for words in
        ["pin-entry-sssd: PINs are entered on the phone; sssd 2.8", "`ssh-add -s` asks for the PIN here all the same"]
    {
        expect(told.contains(words), || format!("doctor does not say {words:?}:\n{told}"))?;
    }
    say("ok      doctor notes sssd and ssh-agent");
    Ok(())
}

/// Says how it went, and counts what went wrong.
pub(crate) fn tell(module: Module, program: &Program, situation: &str, result: Result<String, Failure>) -> u32 {
    let failed = result.is_err();
    let word = if failed { "FAILED" } else { "ok    " };
    let seen = result.unwrap_or_else(|failure| failure.to_string());
    say(&format!("{word}  {:<10}  {:<9}  {situation}: {seen}", module.name(), program.name));
    failed.into()
}

/// Starts the program, which says that the PIN is to be entered on the phone, and asks nothing.
pub(crate) fn start(program: &Program) -> Result<Dialogue, Failure> {
    let mut dialogue = program.start()?;
    dialogue.expect(TOLD, SOON)?;
    Ok(dialogue)
}

fn entered(program: &Program, world: &mut World, pin: &str, lets_in: bool) -> Result<String, Failure> {
    let mut dialogue = start(program)?;
    world.enters(pin)?;
    verdict(program, &mut dialogue, lets_in)
}

/// Whoever is refused has been told so.
fn verdict(program: &Program, dialogue: &mut Dialogue, lets_in: bool) -> Result<String, Failure> {
    let limit = if lets_in { SOON } else { TOLD_LIMIT };
    let is_in = program.verdict(dialogue, limit)?;
    expect(is_in == lets_in, || format!("let in: {is_in}:\n{}", dialogue.seen()))?;
    if is_in {
        return Ok("in, nothing typed".to_owned());
    }
    expect(dialogue.seen().contains(REFUSED), || format!("no {REFUSED:?}:\n{}", dialogue.seen()))?;
    Ok(format!("out: {REFUSED:?}"))
}

fn declined(program: &Program, world: &mut World) -> Result<String, Failure> {
    let mut dialogue = start(program)?;
    world.declines_pin()?;
    let seen = verdict(program, &mut dialogue, false)?;
    // A refusal more within the minute would silence this computer.
    world.opens_app()?;
    Ok(seen)
}

fn blocked(program: &Program, world: &mut World) -> Result<String, Failure> {
    world.block_pin()?;
    let mut dialogue = start(program)?;
    let seen = verdict(program, &mut dialogue, false);
    world.unblock_pin()?;
    world.nobody_was_asked()?;
    seen
}

fn leaves(program: &Program, world: &mut World) -> Result<String, Failure> {
    let mut dialogue = start(program)?;
    world.asked_for_pin()?;
    let started = Instant::now();
    world.leave(0)?;
    let is_in = program.verdict(&mut dialogue, LEFT_LIMIT)?;
    expect(!is_in, || format!("LET IN:\n{}", dialogue.seen()))?;
    Ok(format!("out after {:.1} s", started.elapsed().as_secs_f32()))
}

/// sssd then falls to the password.
fn nothing_typed(program: &Program, world: &mut World) -> Result<String, Failure> {
    let mut dialogue = at_pin(program)?;
    dialogue.type_secret("")?;
    expect(!asked_for_pin(&mut dialogue)?, || format!("the PIN is asked for again:\n{}", dialogue.seen()))?;
    untouched(world, ALL_TRIES)?;
    dialogue.type_secret(ALICE.1)?;
    let is_in = program.verdict(&mut dialogue, SOON)?;
    expect(is_in, || format!("not let in by the password:\n{}", dialogue.seen()))?;
    Ok("no try spent, the phone asks nothing; in by the password".to_owned())
}

/// - `tries`: how many are left then.
fn typed(program: &Program, world: &mut World, pin: &str, tries: u32) -> Result<String, Failure> {
    let mut dialogue = at_pin(program)?;
    dialogue.type_secret(pin)?;
    out(program, dialogue, SOON)?;
    untouched(world, tries)?;
    Ok(format!("out, {tries} tries left"))
}

/// So many tries are left, and the phone asked for nothing.
fn untouched(world: &mut World, tries: u32) -> Result<(), Failure> {
    let left = world.tries_left()?;
    expect(left == tries, || format!("{left} tries are left"))?;
    world.nobody_was_asked()
}
