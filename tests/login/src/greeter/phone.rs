//! The PIN is entered on the phone, and nothing is typed at the greeter.

use pocketcard_dev::TEST_PIN;

use crate::failure::Failure;
use crate::sign_in::Module;
use crate::world::{ALICE, SOON, World, eventually, say};

use super::lightdm::{
    LightDm, answered, is_authorized, is_refused, is_signed_in, is_unlocked, locks, messages, press_log_in, pressed,
    screen,
};

/// That a phone was found, whose it is, and that it wants its PIN.
const MESSAGES: usize = 3;

pub(crate) fn pam_pkcs11() -> Result<(), Failure> {
    LightDm::start(Module::PamPkcs11, "phone")?.tell(|world| {
        signs_in(world)?;
        unlocks(world)
    })
}

/// A greeter that lists users begins with one of them before anybody has touched it.
pub(crate) fn listed() -> Result<(), Failure> {
    LightDm::with_list(Module::PamPkcs11, "phone")?.tell(|world| {
        let screen = screen()?;
        eventually("the greeter to ask", SOON, || messages() >= MESSAGES)?;
        screen.settle();
        screen.picture("greeter-phone-6-list")?;
        is_refused(&screen, || world.declines_pin())?;
        world.nobody_was_asked()?;
        say("ok      greeter-phone  a list of users: the phone asks as soon as the greeter is there, and once");
        Ok(())
    })
}

fn signs_in(world: &mut World) -> Result<(), Failure> {
    let screen = screen()?;
    world.come(0)?;
    world.nobody_was_asked()?;
    say(
        "ok      greeter-phone  the greeter is there, and so is the phone, which asks nothing before it is known who comes",
    );

    answered(&screen, ALICE.0, MESSAGES)?;
    screen.picture("greeter-phone-1-asked")?;
    is_refused(&screen, || world.declines_pin())?;
    screen.picture("greeter-phone-2-declined")?;
    world.nobody_was_asked()?;
    say("ok      greeter-phone  the owner says no: out, and the phone is not asked again");

    answered(&screen, "", MESSAGES)?;
    is_refused(&screen, || world.enters("999999").map(|_| ()))?;
    say("ok      greeter-phone  wrong PIN on the phone: out");

    pressed(&screen, MESSAGES)?;
    let seen = screen.look();
    world.enters(TEST_PIN)?;
    is_authorized(1)?;
    screen.changes(&seen)?;
    screen.picture("greeter-phone-3-entered")?;
    press_log_in(&screen);
    is_signed_in(&screen)?;
    say("ok      greeter-phone  right PIN on the phone, then Log In: alice is signed in");
    Ok(())
}

fn unlocks(world: &mut World) -> Result<(), Failure> {
    let lock = locks(world)?;
    world.come(0)?;
    world.nobody_was_asked()?;
    answered(&lock, "", MESSAGES)?;
    lock.picture("greeter-phone-4-back")?;
    let seen = lock.look();
    world.enters(TEST_PIN)?;
    is_authorized(2)?;
    lock.changes(&seen)?;
    press_log_in(&lock);
    is_unlocked(1)?;
    let session = screen()?;
    session.settle();
    session.picture("greeter-phone-5-unlocked")?;
    say("ok      greeter-phone  the phone is back: asked after Enter, unlocked by the PIN entered there, and Log In");
    Ok(())
}
