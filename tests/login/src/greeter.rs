//! LightDM with the GTK greeter, on a virtual screen: the phone arrives, the greeter asks for its PIN, the session starts.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use pocketcard_dev::TEST_PIN;

use crate::air;
use crate::clients::world;
use crate::failure::{Context, Failure, expect};
use crate::screen::Screen;
use crate::sign_in::{Module, set_up};
use crate::world::{ALICE, SOON, eventually, ok, say};

/// LightDM starts its own X server; this takes away what Xvfb does not know. `exec`, because LightDM waits for a signal from
/// this very process.
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
exec Xvfb "${a[@]}" -screen 0 1024x768x24 -nolisten tcp
"#;
const LIGHTDM: &str = "[LightDM]\nlogind-check-graphical=false\n[Seat:*]\ntype=local\n\
                       xserver-command=/usr/local/bin/x-server\ngreeter-session=lightdm-gtk-greeter\nuser-session=story\n";
const SESSION: &str = "[Desktop Entry]\nName=Story\nExec=/usr/local/bin/story-session\nType=Application\n";
/// What the user finds: a window manager, and a terminal that says who is in.
const SESSION_PROGRAM: &str = "#!/bin/sh\nopenbox &\nxsetroot -solid '#30506a'\nexec xterm -fa Monospace -fs 14 -geometry 60x10+150+200 \
                               -e sh -c 'echo \"$(id -un) is signed in.\"; id -un >~/session.ok; exec sleep 600'\n";
const LOG: &str = "/var/log/lightdm/lightdm.log";
/// The screen of the seat, and the file that lets root in.
const DISPLAY: (&str, &str) = (":0", "/run/lightdm/root/:0");
/// That a phone was found, whose it is, and the question for the PIN.
const PROMPT_FOR_PIN: usize = 3;
/// A greeter has to be there so soon, on a busy machine.
const GREETER_LIMIT: Duration = Duration::from_secs(60);

/// A service that ends with this value.
struct Service(Child);

impl Service {
    fn start(program: &str, arguments: &[&str]) -> Result<Self, Failure> {
        let mut command = Command::new(program);
        // With a DISPLAY in its environment LightDM starts a nested server on that one.
        command.args(arguments).env_remove("DISPLAY").env_remove("XAUTHORITY");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Self).context(format!("starting {program}"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        // So that it ends its own children; the namespace's end takes what is left.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        thread::sleep(Duration::from_millis(500));
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program(path: &str, text: &str) -> Result<(), Failure> {
    fs::write(path, text).context(format!("writing {path}"))?;
    fs::set_permissions(path, Permissions::from_mode(0o755)).context(format!("writing {path}"))
}

fn log() -> String {
    fs::read_to_string(LOG).unwrap_or_default()
}

/// How often the greeter has been asked to ask.
fn prompts() -> usize {
    log().matches("Prompt greeter with").count()
}

pub(crate) fn lightdm() -> Result<(), Failure> {
    let mut world = world()?;
    let _none = set_up(Module::PamPkcs11)?;
    program("/usr/local/bin/x-server", X_SERVER)?;
    program("/usr/local/bin/story-session", SESSION_PROGRAM)?;
    for (folder, file, text) in
        [("/etc/lightdm/lightdm.conf.d", "50-story.conf", LIGHTDM), ("/usr/share/xsessions", "story.desktop", SESSION)]
    {
        fs::create_dir_all(folder).context("making a folder")?;
        fs::write(Path::new(folder).join(file), text).context("configuring LightDM")?;
    }
    world.leave(0)?;
    let _bus = if air::is_here() { None } else { Some(bus()?) };
    eventually("D-Bus", SOON, || Path::new("/run/dbus/system_bus_socket").exists())?;
    let _lightdm = Service::start("lightdm", &["-d"])?;
    let told = tell(&mut world);
    if told.is_err() {
        let log = log();
        let end: Vec<&str> = log.lines().rev().take(60).collect();
        end.iter().rev().for_each(|line| say(line));
    }
    told
}

/// D-Bus. With the phone on the air it runs already, for bluetoothd.
fn bus() -> Result<Service, Failure> {
    fs::create_dir_all("/run/dbus").context("making a folder for D-Bus")?;
    Service::start("dbus-daemon", &["--system", "--nofork", "--nopidfile"])
}

fn tell(world: &mut crate::world::World) -> Result<(), Failure> {
    eventually("the greeter", GREETER_LIMIT, || prompts() > 0)?;
    let screen = Screen::of(DISPLAY.0, DISPLAY.1);
    eventually("the screen", SOON, || screen.command("xdotool", &["getdisplaygeometry"]).is_ok())?;
    // Debian's greeter does not list users, so the first question is for the name.
    answered(&screen, ALICE.0, 1)?;
    screen.picture("greeter-1-no-phone")?;

    // The phone arrives. The greeter has asked for the password already, and begins anew when that is wrong.
    world.come(0)?;
    answered(&screen, "", PROMPT_FOR_PIN)?;
    screen.picture("greeter-2-phone")?;

    // A wrong PIN lets nobody in.
    answered(&screen, "999999", 1 + PROMPT_FOR_PIN)?;
    let tries = world.tries()?;
    expect(tries.starts_with("0x63, SW2=0xC2"), || format!("not one try was spent: {tries}"))?;
    expect(!log().contains(&format!("User {} authorized", ALICE.0)), || "LET IN".to_owned())?;

    screen.type_line(TEST_PIN)?;
    eventually("the session", SOON, || Path::new("/home/alice/session.ok").exists())?;
    expect(log().contains(&format!("User {} authorized", ALICE.0)), || "LightDM does not say so".to_owned())?;
    // The session's screen has a file of its own.
    eventually("the session's screen", SOON, || screen.window("sh").is_ok() || screen.window("xterm").is_ok())?;
    screen.settle();
    screen.picture("greeter-3-session")?;
    say(&format!("ok      greeter: {} is signed in", ok("cat", ["/home/alice/session.ok"])?.trim()));
    Ok(())
}

/// Types an answer, and waits for so many messages of PAM's to come to the greeter then.
fn answered(screen: &Screen, answer: &str, messages: usize) -> Result<(), Failure> {
    let before = prompts();
    screen.type_line(answer)?;
    eventually("the greeter to go on", SOON, || prompts() >= before + messages)?;
    screen.settle();
    Ok(())
}
