//! LightDM with the GTK greeter on virtual screens, and the session that it starts.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::consoles::Consoles;
use crate::air;
use crate::failure::{Context, Failure, expect};
use crate::screen::Screen;
use crate::service::Service;
use crate::sign_in::{Module, set_up};
use crate::watcher::{may_watch, watched};
use crate::world::{SOON, World, eventually, say};

/// LightDM starts its own X server; this takes away what Xvfb does not know. `exec`, because LightDM waits for a signal from
/// this very process; `-noreset`, because a server that starts afresh when a client of ours leaves it throws LightDM out.
const X_SERVER: &str = r#"#!/bin/bash
a=()
while [ $# -gt 0 ]; do
    case "$1" in
        :*) a+=("$1") ;;
        -auth) a+=(-auth "$2"); shift ;;
        -seat|-layout|-background) shift ;;
        vt*|-novtswitch|-nolisten|tcp) ;;
        *) a+=("$1") ;;
    esac
    shift
done
exec Xvfb "${a[@]}" -screen 0 1024x768x24 -nolisten tcp -noreset
"#;
const LIGHTDM: &str = "[LightDM]\nlogind-check-graphical=false\n[Seat:*]\ntype=local\n\
                       xserver-command=/usr/local/bin/x-server\ngreeter-session=lightdm-gtk-greeter\nuser-session=story\n";
const CONFIGURATION: &str = "/etc/lightdm/lightdm.conf.d/50-story.conf";
const SESSION: &str = "[Desktop Entry]\nName=Story\nExec=/usr/local/bin/story-session\nType=Application\n";
/// What the user finds: a window manager, and a terminal that says who is in and watches the phone.
const SESSION_PROGRAM: &str = "#!/bin/sh\nopenbox &\nxsetroot -solid '#30506a'\nexec xterm -title Session -fa Monospace -fs 12 \
                               -geometry 90x16+60+180 -e /usr/local/bin/story-terminal\n";
/// The hook is that of docs/login.md.
pub(crate) const TERMINAL: &str = r#"#!/bin/sh
echo "$(id -un) is signed in."
id -un >~/session.ok
pocketcard watch --no-notices --on-leave 'pgrep -u lightdm -f greeter >/dev/null || dm-tool lock' 2>&1 | tee ~/watch.log
exec sleep 600
"#;
/// Where the terminal leaves its marks.
const SESSION_MARK: &str = "/home/alice/session.ok";
const WATCH_LOG: &str = "/home/alice/watch.log";
const LOG: &str = "/var/log/lightdm/lightdm.log";
/// A greeter has to be there so soon, on a busy machine.
const GREETER_LIMIT: Duration = Duration::from_secs(60);
/// For what must not happen, once all that would bring it has happened.
const NOTHING: Duration = Duration::from_secs(2);

/// Where "Log In" is, on a screen of this size.
const LOG_IN: (&str, &str) = ("608", "446");

/// What LightDM's log says: that the greeter asks PAM for alice, what PAM asks then and how it ended; that a session is locked,
/// that its user is back in it, and that the lock's screen is gone.
const BEGUN_WITH_ANYBODY: &str = "Greeter start authentication";
const BEGUN: &str = "Greeter start authentication for alice";
const PROMPT: &str = "Prompt greeter with";
const AUTHORIZED: &str = "User alice authorized";
const REFUSED: &str = "Authenticate result for user alice: Authentication failure";
const LOCKED: &str = "Seat seat0: Locking";
const UNLOCKED: &str = "Returning to existing user session alice";
const SCREEN_GONE: &str = "Seat seat0: Display server stopped";

/// The session's screen, which the greeter has before it, and that of the greeter that locks it: what LightDM calls them, and
/// the files that let root in.
const SESSION_SCREEN: (&str, &str) = (":0", "/run/lightdm/root/:0");
const LOCK_SCREEN: (&str, &str) = (":1", "/run/lightdm/root/:1");

/// LightDM at its greeter, with a phone that has been set up for alice and is away.
///
/// The order of the fields is the order in which they end.
pub(crate) struct LightDm {
    _lightdm: Service,
    _bus: Option<Service>,
    _sssd: Option<Service>,
    _consoles: Consoles,
    pub(crate) world: World,
}

impl LightDm {
    /// - `pin_entry`: where the PIN is entered.
    pub(crate) fn start(module: Module, pin_entry: &str) -> Result<Self, Failure> {
        Self::prepare(module, pin_entry, |world| world.leave(0))
    }

    /// The same with a greeter that lists users, and with the phone here.
    pub(crate) fn with_list(module: Module, pin_entry: &str) -> Result<Self, Failure> {
        Self::prepare(module, pin_entry, |_| {
            let text = format!("{LIGHTDM}greeter-hide-users=false\n");
            fs::write(CONFIGURATION, text).context("configuring LightDM")
        })
    }

    fn prepare(
        module: Module,
        pin_entry: &str,
        before: impl FnOnce(&mut World) -> Result<(), Failure>,
    ) -> Result<Self, Failure> {
        let mut world = World::start(watched(pin_entry))?;
        let sssd = set_up(module)?;
        may_watch(&world)?;
        configure()?;
        before(&mut world)?;
        let consoles = Consoles::take()?;
        let bus = bus()?;
        eventually("D-Bus", SOON, || Path::new("/run/dbus/system_bus_socket").exists())?;
        let lightdm = Service::start("lightdm", &["-d"])?;
        let lightdm = Self { _lightdm: lightdm, _bus: bus, _sssd: sssd, _consoles: consoles, world };
        eventually("the greeter", GREETER_LIMIT, || count(PROMPT) > 0)?;
        Ok(lightdm)
    }

    /// Tells what happens, and shows the end of LightDM's log if that goes wrong.
    pub(crate) fn tell(mut self, story: impl FnOnce(&mut World) -> Result<(), Failure>) -> Result<(), Failure> {
        let told = story(&mut self.world);
        if told.is_err() {
            for path in [LOG, WATCH_LOG] {
                let log = fs::read_to_string(path).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                say(&format!("--- the end of {path}"));
                lines.iter().skip(lines.len().saturating_sub(80)).for_each(|line| say(line));
            }
        }
        told
    }
}

/// D-Bus. With the phone on the air it runs already, for bluetoothd.
fn bus() -> Result<Option<Service>, Failure> {
    if air::is_here() {
        return Ok(None);
    }
    fs::create_dir_all("/run/dbus").context("making a folder for D-Bus")?;
    Service::start("dbus-daemon", &["--system", "--nofork", "--nopidfile"]).map(Some)
}

fn configure() -> Result<(), Failure> {
    for (path, text) in [
        ("/usr/local/bin/x-server", X_SERVER),
        ("/usr/local/bin/story-session", SESSION_PROGRAM),
        ("/usr/local/bin/story-terminal", TERMINAL),
        (CONFIGURATION, LIGHTDM),
        ("/usr/share/xsessions/story.desktop", SESSION),
        // So that a screen that stands still looks alike.
        ("/etc/gtk-3.0/settings.ini", "[Settings]\ngtk-cursor-blink=false\n"),
    ] {
        let folder = Path::new(path).parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder).context("making a folder")?;
        fs::write(path, text).context(format!("writing {path}"))?;
        let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
        fs::set_permissions(path, Permissions::from_mode(mode)).context(format!("writing {path}"))?;
    }
    Ok(())
}

fn log() -> String {
    fs::read_to_string(LOG).unwrap_or_default()
}

/// How often LightDM has said this.
fn count(text: &str) -> usize {
    log().matches(text).count()
}

/// What PAM has asked and said since the greeter began with alice.
pub(super) fn messages() -> usize {
    let log = log();
    log.rsplit(BEGUN).next().unwrap_or_default().matches(PROMPT).count()
}

fn shown((display, authority): (&'static str, &'static str)) -> Result<Screen, Failure> {
    let screen = Screen::of(display, authority);
    eventually("the screen", GREETER_LIMIT, || screen.command("xdotool", &["getdisplaygeometry"]).is_ok())?;
    Ok(screen)
}

/// The greeter's screen.
pub(super) fn screen() -> Result<Screen, Failure> {
    shown(SESSION_SCREEN)
}

/// Types an answer with which the greeter begins anew, and waits for so many messages of PAM's then.
pub(super) fn answered(screen: &Screen, answer: &str, wanted: usize) -> Result<(), Failure> {
    begins(screen, wanted, || screen.type_line(answer))
}

/// The same with the button that begins anew: after a second refusal without a question between, no key reaches the greeter.
pub(super) fn pressed(screen: &Screen, wanted: usize) -> Result<(), Failure> {
    begins(screen, wanted, || {
        press_log_in(screen);
        Ok(())
    })
}

/// Presses the button without which a greeter that has asked nothing starts no session.
pub(super) fn press_log_in(screen: &Screen) {
    let (x, y) = LOG_IN;
    // The screen may go before xdotool has let go of the button.
    let _ = screen.command("xdotool", &["mousemove", x, y, "click", "1"]);
}

fn begins(screen: &Screen, wanted: usize, act: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let before = count(BEGUN);
    act()?;
    eventually("the greeter to begin anew", SOON, || count(BEGUN) > before)?;
    eventually("the greeter to ask", SOON, || messages() >= wanted)?;
    screen.settle();
    Ok(())
}

/// Waits until alice is refused by what the phone's owner does, and the greeter shows it.
pub(super) fn is_refused(screen: &Screen, act: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let (refused, seen) = (count(REFUSED), screen.look());
    act()?;
    eventually("a refusal", SOON, || count(REFUSED) > refused)?;
    screen.changes(&seen)?;
    nobody_is_in()
}

/// Nobody was let in so far.
pub(super) fn nobody_is_in() -> Result<(), Failure> {
    expect(count(AUTHORIZED) == 0 && !Path::new(SESSION_MARK).exists(), || "LET IN".to_owned())
}

/// Waits until LightDM is content, so many times in all; the greeter may wait for Enter all the same.
pub(super) fn is_authorized(times: usize) -> Result<(), Failure> {
    eventually("LightDM to let alice in", SOON, || count(AUTHORIZED) >= times)
}

/// Waits for the session, and for its watcher to watch.
pub(super) fn is_signed_in(screen: &Screen) -> Result<(), Failure> {
    is_authorized(1)?;
    eventually("the session", SOON, || fs::read_to_string(SESSION_MARK).is_ok_and(|text| text == "alice\n"))?;
    screen.window("Session")?;
    eventually("the watcher", SOON, || watcher_said("slot 0") > 0)?;
    screen.settle();
    Ok(())
}

/// How often the watcher has said this.
fn watcher_said(text: &str) -> usize {
    fs::read_to_string(WATCH_LOG).unwrap_or_default().matches(text).count()
}

/// The phone leaves, and the watcher takes note.
pub(super) fn leaves(world: &mut World) -> Result<(), Failure> {
    let before = watcher_said("has left");
    world.leave(0)?;
    eventually("the watcher to see it leave", SOON, || watcher_said("has left") > before)
}

/// The phone leaves, and the session locks: gives the screen on which it is opened again.
pub(super) fn locks(world: &mut World) -> Result<Screen, Failure> {
    let (locked, begun) = (count(LOCKED), count(BEGUN_WITH_ANYBODY));
    leaves(world)?;
    eventually("the lock", SOON, || count(LOCKED) > locked)?;
    // It remembers who is locked out, and begins with them or, for the name, with nobody.
    let asks = || log().rsplit(BEGUN_WITH_ANYBODY).next().is_some_and(|rest| rest.contains(PROMPT));
    eventually("its greeter", GREETER_LIMIT, || count(BEGUN_WITH_ANYBODY) > begun && asks())?;
    let screen = shown(LOCK_SCREEN)?;
    screen.settle();
    Ok(screen)
}

/// How often the session has been locked and opened.
pub(super) fn locked_and_unlocked() -> (usize, usize) {
    (count(LOCKED), count(UNLOCKED))
}

/// Waits until the session is back, and stays.
///
/// - `times`: how often it was locked so far.
pub(super) fn is_unlocked(times: usize) -> Result<(), Failure> {
    eventually("the session to be back", SOON, || count(UNLOCKED) == times)?;
    eventually("the lock's screen to go", SOON, || count(SCREEN_GONE) == times)?;
    let is_back = || locked_and_unlocked() == (times, times);
    let again = eventually("nothing", NOTHING, || !is_back() || count(SCREEN_GONE) != times);
    expect(again.is_err(), || "locked again".to_owned())
}
