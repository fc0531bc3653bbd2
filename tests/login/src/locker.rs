//! i3lock: a screen locker that asks PAM and says nothing of it.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use pocketcard_dev::TEST_PIN;

use crate::clients::world;
use crate::failure::{Context, Failure, expect};
use crate::screen::Screen;
use crate::sign_in::{Module, set_up};
use crate::world::{ALICE, SOON, as_user, eventually, say};

/// The locker, which runs until it is unlocked.
struct Locker<'a> {
    child: Child,
    screen: &'a Screen,
}

impl<'a> Locker<'a> {
    fn start(screen: &'a Screen) -> Result<Self, Failure> {
        let mut locker = Command::new("setpriv");
        locker.args(as_user(ALICE.0)).args(["env", "DISPLAY=:5", "i3lock", "--nofork", "--color=402020"]);
        locker.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = locker.spawn().context("starting i3lock")?;
        screen.window("i3lock")?;
        Ok(Self { child, screen })
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    fn unlocks(&mut self, secret: &str) -> Result<(), Failure> {
        self.screen.type_line(secret)?;
        eventually("the screen to be unlocked", SOON, || self.has_ended())
    }
}

impl Drop for Locker<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn i3lock() -> Result<(), Failure> {
    let mut world = world()?;
    let _none = set_up(Module::PamPkcs11)?;
    let screen = Screen::start(":5")?;
    let mut locker = Locker::start(&screen)?;
    screen.type_line("999999")?;
    eventually("a try to be spent", SOON, || world.tries().is_ok_and(|tries| tries.starts_with("0x63, SW2=0xC2")))?;
    // Time to end, if a refused PIN were enough for it; it waits two seconds after a refusal.
    thread::sleep(Duration::from_secs(3));
    expect(!locker.has_ended(), || "UNLOCKED by a wrong PIN".to_owned())?;
    say("ok      i3lock  wrong PIN: locked, one try spent");
    locker.unlocks(TEST_PIN)?;
    say("ok      i3lock  right PIN: unlocked");
    world.leave(0)?;
    let mut locker = Locker::start(&screen)?;
    locker.unlocks(ALICE.1)?;
    say("ok      i3lock  no phone: unlocked by the password");
    Ok(())
}
