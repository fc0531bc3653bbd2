//! The PIN is typed at the greeter.

use pocketcard_dev::TEST_PIN;

use crate::failure::{Failure, expect};
use crate::sign_in::Module;
use crate::system;
use crate::world::{ALICE, World, say};

use super::lightdm::{
    LightDm, answered, is_signed_in, is_unlocked, leaves, locked_and_unlocked, locks, nobody_is_in, screen,
};

/// What PAM says and asks at least, with and without a phone.
struct Messages {
    phone: usize,
    no_phone: usize,
}

pub(crate) fn pam_pkcs11() -> Result<(), Failure> {
    // That a phone was found, whose it is, and the question for the PIN; that there is none, which later versions do not say,
    // and that for the password.
    let messages = Messages { phone: 3, no_phone: if system::is_debian_13() { 1 } else { 2 } };
    LightDm::start(Module::PamPkcs11, "keyboard")?.tell(|world| {
        signs_in(world, &messages, "greeter")?;
        password_unlocks(world, &messages)?;
        pin_unlocks(world, &messages)
    })
}

pub(crate) fn sssd() -> Result<(), Failure> {
    // Nothing but the question.
    let messages = Messages { phone: 1, no_phone: 1 };
    LightDm::start(Module::Sssd, "keyboard")?.tell(|world| signs_in(world, &messages, "greeter-sssd"))
}

/// - `story`: how the names of its pictures begin.
fn signs_in(world: &mut World, messages: &Messages, story: &str) -> Result<(), Failure> {
    let screen = screen()?;
    // Debian's greeter does not list users, so the first question is for the name.
    answered(&screen, ALICE.0, messages.no_phone)?;
    screen.picture(&format!("{story}-1-no-phone"))?;

    // The phone arrives. The greeter has asked for the password already, and begins anew when that is wrong.
    world.come(0)?;
    answered(&screen, "", messages.phone)?;
    screen.picture(&format!("{story}-2-phone"))?;

    answered(&screen, "999999", messages.phone)?;
    one_try_spent(world)?;
    nobody_is_in()?;
    say(&format!("ok      {story}  wrong PIN: out, one try spent"));

    screen.type_line(TEST_PIN)?;
    is_signed_in(&screen)?;
    screen.picture(&format!("{story}-3-session"))?;
    say(&format!("ok      {story}  right PIN: alice is signed in"));
    Ok(())
}

fn one_try_spent(world: &World) -> Result<(), Failure> {
    let tries = world.tries()?;
    expect(tries.starts_with("0x63, SW2=0xC2"), || format!("not one try was spent: {tries}"))
}

/// The phone has left; it was back for a moment, and has left again, which locks nothing that is locked.
fn password_unlocks(world: &mut World, messages: &Messages) -> Result<(), Failure> {
    let screen = locks(world)?;
    screen.picture("greeter-4-locked")?;
    say("ok      greeter  the phone left: locked");
    world.come(0)?;
    leaves(world)?;
    answered(&screen, "", messages.no_phone)?;
    expect(locked_and_unlocked() == (1, 0), || "locked twice, or not at all".to_owned())?;
    screen.type_line(ALICE.1)?;
    is_unlocked(1)?;
    say("ok      greeter  no phone: unlocked by the password");
    world.come(0)?;
    is_unlocked(1)
}

/// The phone has left, and is back.
fn pin_unlocks(world: &mut World, messages: &Messages) -> Result<(), Failure> {
    let lock = locks(world)?;
    world.come(0)?;
    answered(&lock, "", messages.phone)?;
    lock.picture("greeter-5-phone-is-back")?;
    answered(&lock, "999999", messages.phone)?;
    one_try_spent(world)?;
    expect(locked_and_unlocked() == (2, 1), || "UNLOCKED by a wrong PIN".to_owned())?;
    lock.type_line(TEST_PIN)?;
    is_unlocked(2)?;
    let session = screen()?;
    session.settle();
    session.picture("greeter-6-unlocked")?;
    say("ok      greeter  the phone is back: unlocked by its PIN, not by a wrong one");
    Ok(())
}
