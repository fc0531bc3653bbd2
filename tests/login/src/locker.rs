//! i3lock: a screen locker that asks PAM and says nothing of it.

use std::fs::{self, File};
use std::process::Command;
use std::time::Duration;

use pocketcard_dev::TEST_PIN;

use crate::failure::{Context, Failure, expect};
use crate::screen::Screen;
use crate::service::Service;
use crate::sign_in::{Module, set_up};
use crate::watcher::{may_watch, watched};
use crate::world::{ALICE, SOON, World, as_user, eventually, ok, say};

const DISPLAY: &str = ":5";
/// What is run when the phone leaves and when it comes, as docs/login.md says.
pub(crate) const ON_LEAVE: &str = "i3lock --color 402020";
pub(crate) const ON_ARRIVE: &str = "! pgrep -u \"$USER\" -x i3lock >/dev/null || xdotool key Return";
const WATCH_LOG: &str = "/tmp/watch.log";
/// i3lock takes nothing for two seconds after a refusal: once they are over, it would have opened if a refusal were enough.
const AFTER_REFUSAL: Duration = Duration::from_secs(3);

/// Somebody's desktop, with what locks it.
struct Desktop {
    _watcher: Service,
    screen: Screen,
    world: World,
}

impl Desktop {
    /// - `pin_entry`: where the PIN is entered.
    /// - `hooks`: what the watcher is given.
    fn start(pin_entry: &str, hooks: &[&str]) -> Result<Self, Failure> {
        let world = World::start(watched(pin_entry))?;
        let _none = set_up(Module::PamPkcs11)?;
        may_watch(&world)?;
        let screen = Screen::start(DISPLAY)?;
        let log = File::create(WATCH_LOG).context("making a log")?;
        let mut watch = Command::new("setpriv");
        watch.args(as_user(ALICE.0)).arg(format!("DISPLAY={DISPLAY}")).args(["pocketcard", "watch", "--no-notices"]);
        watch.args(hooks).stdout(log.try_clone().context("making a log")?).stderr(log);
        let desktop = Self { _watcher: Service::spawn(&mut watch)?, screen, world };
        eventually("the watcher", SOON, || fs::read_to_string(WATCH_LOG).is_ok_and(|log| log.contains("slot 0")))?;
        Ok(desktop)
    }

    /// The phone leaves, and the screen is locked.
    fn locks(&mut self) -> Result<(), Failure> {
        self.world.leave(0)?;
        self.screen.window("i3lock")?;
        Ok(())
    }

    fn is_locked(&self) -> bool {
        // Nobody here takes note of those that have ended.
        ok("pgrep", ["-u", ALICE.0, "--runstates", "R,S,D", "-x", "i3lock"]).is_ok()
    }

    fn is_unlocked(&self) -> Result<(), Failure> {
        eventually("the screen to be unlocked", SOON, || !self.is_locked())
    }

    /// So it stays for as long as a refusal takes.
    fn stays_locked(&self) -> Result<(), Failure> {
        let opened = eventually("nothing", AFTER_REFUSAL, || !self.is_locked());
        expect(opened.is_err(), || "UNLOCKED".to_owned())
    }
}

pub(crate) fn i3lock() -> Result<(), Failure> {
    let mut desktop = Desktop::start("keyboard", &["--on-leave", ON_LEAVE])?;
    desktop.locks()?;
    say("ok      i3lock  the phone left: locked");
    desktop.world.come(0)?;
    desktop.screen.type_line("999999")?;
    let spent = || desktop.world.tries().is_ok_and(|tries| tries.starts_with("0x63, SW2=0xC2"));
    eventually("a try to be spent", SOON, spent)?;
    desktop.stays_locked()?;
    say("ok      i3lock  wrong PIN: locked, one try spent");
    desktop.screen.type_line(TEST_PIN)?;
    desktop.is_unlocked()?;
    say("ok      i3lock  right PIN: unlocked");
    desktop.locks()?;
    desktop.screen.type_line(ALICE.1)?;
    desktop.is_unlocked()?;
    say("ok      i3lock  no phone: unlocked by the password");
    Ok(())
}

/// With the PIN entered on the phone nothing is typed: the phone that comes back asks.
pub(crate) fn i3lock_phone() -> Result<(), Failure> {
    let mut desktop = Desktop::start("phone", &["--on-leave", ON_LEAVE, "--on-arrive", ON_ARRIVE])?;
    desktop.locks()?;
    desktop.world.come(0)?;
    desktop.world.asked_for_pin()?;
    desktop.screen.settle();
    desktop.screen.picture("locker-phone-1-asked")?;
    desktop.world.leave(0)?;
    desktop.stays_locked()?;
    say("ok      i3lock  phone  it asks when it is back; gone again: locked");
    desktop.world.come(0)?;
    desktop.world.declines_pin()?;
    desktop.stays_locked()?;
    desktop.world.nobody_was_asked()?;
    say("ok      i3lock  phone  the owner says no: locked, and not asked again");
    desktop.screen.type_line("")?;
    desktop.world.enters(TEST_PIN)?;
    desktop.is_unlocked()?;
    say("ok      i3lock  phone  Enter, and the PIN on the phone: unlocked");
    desktop.locks()?;
    desktop.world.come(0)?;
    desktop.world.enters(TEST_PIN)?;
    desktop.is_unlocked()?;
    say("ok      i3lock  phone  it is back, and its PIN is entered there: unlocked, nothing typed");
    Ok(())
}
