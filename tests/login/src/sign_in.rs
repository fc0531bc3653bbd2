//! Everybody who signs people in, in every situation: su, sudo, login and pamtester, by pam_pkcs11 and by sssd.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pocketcard_dev::{Card, Environment, TEST_PIN};

use crate::failure::{Context, Failure, expect};
use crate::pin_pad::tell;
use crate::pty::Dialogue;
use crate::service::Service;
use crate::world::{ALICE, BOB, SOON, World, as_user, ok, say};

/// What is asked for by these words is the PIN; whatever comes first decides.
const PIN_PROMPTS: [&str; 2] = ["Phone PIN:", "PIN for "];
/// What is asked for by these is the password.
const PASSWORD_PROMPTS: [&str; 2] = ["Password: ", "password for alice: "];
/// Without a phone the password has to be asked for at once: so long may a busy machine take.
const AT_ONCE: Duration = Duration::from_secs(3);
/// A phone that leaves while its PIN is typed: when the person has to know.
pub(crate) const LEFT_LIMIT: Duration = Duration::from_secs(10);

/// What looks at the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Module {
    PamPkcs11,
    Sssd,
}

impl Module {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PamPkcs11 => "pam_pkcs11",
            Self::Sssd => "sssd",
        }
    }

    /// What people are told when the PIN is blocked.
    fn blocked_message(self) -> &'static str {
        match self {
            // It does not tell a blocked PIN from a wrong one.
            Self::PamPkcs11 => "Error 2320: Wrong smart",
            Self::Sssd => "PIN locked",
        }
    }
}

/// A program that signs alice in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// Who runs it, what it is, and how it says that alice is in.
    user: &'static str,
    command: &'static [&'static str],
    is_in: &'static str,
    pub(crate) is_out: &'static str,
}

const MARK: &str = "echo I am $(id -un) for alice";

pub(crate) const PROGRAMS: [Program; 4] = [
    Program {
        name: "su",
        user: "bob",
        command: &["su", "--login", "alice", "--command", MARK],
        is_in: "I am alice for alice",
        is_out: "Authentication failure",
    },
    Program {
        name: "sudo",
        user: "alice",
        command: &["sudo", "--reset-timestamp", "--", "sh", "-c", MARK],
        is_in: "I am root for alice",
        is_out: "incorrect password attempt",
    },
    Program {
        name: "login",
        user: "root",
        command: &["login", "alice"],
        is_in: "alice@machine",
        is_out: "Login incorrect",
    },
    Program {
        name: "pamtester",
        user: "root",
        command: &["pamtester", "sudo", "alice", "authenticate", "acct_mgmt"],
        is_in: "account management done",
        is_out: "Authentication failure",
    },
];

impl Program {
    pub(crate) fn start(&self) -> Result<Dialogue, Failure> {
        let mut words = as_user(self.user);
        words.extend(self.command.iter().map(|&word| word.to_owned()));
        Dialogue::start("setpriv", words)
    }

    /// Whether alice is in, once the program has decided.
    pub(crate) fn verdict(&self, dialogue: &mut Dialogue, limit: Duration) -> Result<bool, Failure> {
        // More prompts are a no, too: what was typed did not do.
        let mut ends = vec![self.is_in, self.is_out];
        ends.extend(PASSWORD_PROMPTS.iter().chain(&PIN_PROMPTS));
        Ok(dialogue.one_of(&ends, limit)? == 0)
    }
}

/// Where sssd says that it is ready, as it does to systemd.
const READY: &str = "/run/sssd-ready";

/// Starts sssd, and waits for what systemd waits for before it lets anybody sign in.
///
/// Names are answered earlier: then what PAM asks may still be starting, and everybody is asked for the password.
pub(crate) fn start_sssd() -> Result<Service, Failure> {
    for folder in ["db", "mc", "pipes/private", "pubconf", "gpo_cache", "secrets", "deskprofile"] {
        fs::create_dir_all(Path::new("/var/lib/sss").join(folder)).context("making a folder for sssd")?;
    }
    fs::create_dir_all("/var/log/sssd").context("making a folder for sssd")?;
    let ready = UnixDatagram::bind(READY).context("making a socket for sssd")?;
    let mut sssd = Command::new("sssd");
    sssd.args(["--interactive", "--debug-level=0x3ff0", "--logger=files"]).env("NOTIFY_SOCKET", READY);
    let sssd = Service::spawn(sssd.stdout(Stdio::null()).stderr(Stdio::null()))?;
    let told = await_ready(&ready);
    fs::remove_file(READY).context("removing the socket for sssd")?;
    told?;
    let line = ok("getent", ["passwd", "--service=sss", "alice"])?;
    expect(line.starts_with("alice:"), || format!("sssd does not know alice: {line:?}"))?;
    Ok(sssd)
}

/// Waits until a service says that it has started. Spec: sd_notify(3)
fn await_ready(socket: &UnixDatagram) -> Result<(), Failure> {
    socket.set_read_timeout(Some(SOON)).context("waiting for sssd")?;
    let deadline = Instant::now() + SOON;
    let mut message = [0; 512];
    while Instant::now() < deadline {
        let length = socket.recv(&mut message).context(format!("waiting {SOON:?} for sssd to be ready"))?;
        let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default());
        if text.lines().any(|line| line == "READY=1") {
            return Ok(());
        }
    }
    Err(Failure::Silent { wanted: "READY=1".to_owned(), limit: SOON, seen: String::new() })
}

/// Sets the login up as its page says, with the person's yes.
pub(crate) fn set_up(module: Module) -> Result<Option<Service>, Failure> {
    let arguments = ["login", "setup", "--user", ALICE.0, "--module", module.name()];
    let mut setup = Dialogue::start("pocketcard", arguments)?;
    setup.expect("Let this phone sign this user in?", SOON)?;
    setup.type_line("yes")?;
    let status = setup.end(SOON)?;
    expect(status.success(), || format!("login setup: {status}\n{}", setup.seen()))?;
    say(setup.seen());
    if module == Module::Sssd { start_sssd().map(Some) } else { Ok(None) }
}

/// The matrix of one module.
pub(crate) fn matrix(module: Module) -> Result<(), Failure> {
    let mut world = World::start(Environment::builder().card(Card::Ec))?;
    // As the package makes it.
    fs::create_dir_all("/etc/pocketcard").context("making the folder of our configuration")?;
    let before = tree()?;
    let sssd = set_up(module)?;
    expect(tree()? != before, || "set-up has written nothing".to_owned())?;
    let mut failed = 0;
    for program in &PROGRAMS {
        let mut row = |situation: &str, result: Result<String, Failure>| {
            failed += tell(module, program, situation, result);
        };
        row("right PIN", right_pin(program));
        row("wrong PIN", wrong_pin(program, &world));
        row("password in place of the PIN", password_as_pin(program));
        row("blocked PIN", blocked_pin(program, &world, module));
        // bob may not use sudo.
        if program.name != "sudo" {
            row("another user", another_user(program, &world));
        }
        row("phone leaves at the prompt", leaves(program, &mut world));
        row("no phone", no_phone(program));
        world.come(0)?;
        row("phone is back", right_pin(program));
    }
    broken(module, &mut failed)?;
    drop(sssd);
    ok("pocketcard", ["login", "undo"])?;
    expect(tree()? == before, || {
        format!("undo does not put back what was there:\n{before}\nis now\n{}", tree().unwrap_or_default())
    })?;
    say("ok      undo puts /etc/pam.d, /etc/sssd and /etc/pocketcard back: names, modes, owners, bytes");
    expect(failed == 0, || format!("{failed} rows went wrong"))
}

fn ask(program: &Program) -> Result<(Dialogue, bool), Failure> {
    let mut dialogue = program.start()?;
    let pin = asked_for_pin(&mut dialogue)?;
    Ok((dialogue, pin))
}

/// Whether the next prompt is for the PIN, and not for the password.
pub(crate) fn asked_for_pin(dialogue: &mut Dialogue) -> Result<bool, Failure> {
    Ok(dialogue.one_of(&[PIN_PROMPTS, PASSWORD_PROMPTS].concat(), SOON)? < PIN_PROMPTS.len())
}

pub(crate) fn at_pin(program: &Program) -> Result<Dialogue, Failure> {
    let (dialogue, pin) = ask(program)?;
    expect(pin, || format!("the password is asked for, with a phone here:\n{}", dialogue.seen()))?;
    Ok(dialogue)
}

pub(crate) fn right_pin(program: &Program) -> Result<String, Failure> {
    let mut dialogue = at_pin(program)?;
    dialogue.type_secret(TEST_PIN)?;
    let is_in = program.verdict(&mut dialogue, SOON)?;
    expect(is_in, || format!("not let in:\n{}", dialogue.seen()))?;
    Ok("in".to_owned())
}

pub(crate) fn out(program: &Program, mut dialogue: Dialogue, limit: Duration) -> Result<Dialogue, Failure> {
    let is_in = program.verdict(&mut dialogue, limit)?;
    expect(!is_in, || format!("LET IN:\n{}", dialogue.seen()))?;
    let seen = dialogue.seen();
    expect(!PASSWORD_PROMPTS.iter().any(|prompt| seen.contains(prompt)), || {
        format!("the password is asked for after a refused PIN:\n{seen}")
    })?;
    Ok(dialogue)
}

fn wrong_pin(program: &Program, world: &World) -> Result<String, Failure> {
    let mut dialogue = at_pin(program)?;
    dialogue.type_secret("999999")?;
    out(program, dialogue, SOON)?;
    let tries = world.tries()?;
    expect(tries.starts_with("0x63, SW2=0xC2"), || format!("not one try was spent: {tries}"))?;
    // The right one gives the try back.
    right_pin(program)?;
    Ok("out, one try spent, no password asked for".to_owned())
}

/// What was asked for is the PIN: a password in its place must not be passed on to be tried as one.
fn password_as_pin(program: &Program) -> Result<String, Failure> {
    let mut dialogue = at_pin(program)?;
    dialogue.type_secret(ALICE.1)?;
    out(program, dialogue, SOON)?;
    // In case it cost a try.
    right_pin(program)?;
    Ok("out".to_owned())
}

fn blocked_pin(program: &Program, world: &World, module: Module) -> Result<String, Failure> {
    world.block_pin()?;
    let told = || -> Result<String, Failure> {
        let (mut dialogue, pin) = ask(program)?;
        if pin {
            dialogue.type_secret(TEST_PIN)?;
        }
        let dialogue = out(program, dialogue, SOON)?;
        let message = module.blocked_message();
        expect(dialogue.seen().contains(message), || format!("no {message:?}:\n{}", dialogue.seen()))?;
        Ok(format!("out: {message:?}"))
    };
    let told = told();
    world.unblock_pin()?;
    told
}

/// bob, who has no phone, is asked for his password although alice's phone is here.
fn another_user(program: &Program, world: &World) -> Result<String, Failure> {
    let mut words = as_user(if program.name == "su" { ALICE.0 } else { "root" });
    words.extend(match program.name {
        "su" => ["su", "--login", "bob", "--command", "echo bob is in"].map(str::to_owned).to_vec(),
        "login" => ["login", "bob"].map(str::to_owned).to_vec(),
        _ => ["pamtester", "sudo", "bob", "authenticate"].map(str::to_owned).to_vec(),
    });
    let mut dialogue = Dialogue::start("setpriv", words)?;
    dialogue.expect("Password: ", AT_ONCE)?;
    dialogue.type_secret(BOB.1)?;
    dialogue.one_of(&["bob is in", "bob@machine", "successfully authenticated"], SOON)?;
    let tries = world.tries()?;
    expect(tries.starts_with("0x90") || tries.starts_with("0x63, SW2=0xC3"), || format!("a try was spent: {tries}"))?;
    Ok("his password, no try of the PIN spent".to_owned())
}

fn leaves(program: &Program, world: &mut World) -> Result<String, Failure> {
    let mut dialogue = at_pin(program)?;
    world.leave(0)?;
    let started = Instant::now();
    dialogue.type_secret(TEST_PIN)?;
    let is_in = program.verdict(&mut dialogue, LEFT_LIMIT)?;
    expect(!is_in, || format!("LET IN:\n{}", dialogue.seen()))?;
    Ok(format!("out after {:.1} s", started.elapsed().as_secs_f32()))
}

pub(crate) fn no_phone(program: &Program) -> Result<String, Failure> {
    let mut dialogue = program.start()?;
    let started = Instant::now();
    dialogue.one_of(&PASSWORD_PROMPTS, AT_ONCE)?;
    let asked = started.elapsed();
    let seen = dialogue.seen();
    expect(!PIN_PROMPTS.iter().any(|prompt| seen.contains(prompt)), || format!("a PIN is asked for:\n{seen}"))?;
    dialogue.type_secret(ALICE.1)?;
    let is_in = program.verdict(&mut dialogue, SOON)?;
    expect(is_in, || format!("not let in by the password:\n{}", dialogue.seen()))?;
    Ok(format!("password asked for after {:.1} s, in", asked.as_secs_f32()))
}

/// Whatever breaks, the password goes on working.
fn broken(module: Module, failed: &mut u32) -> Result<(), Failure> {
    let module_file = match module {
        Module::PamPkcs11 => "pam_pkcs11.so",
        Module::Sssd => "pam_sss.so",
    };
    let found = ok("find", ["/usr/lib", "-path", &format!("*/security/{module_file}")])?;
    let breakable = [("the PAM module is gone", found.trim()), ("its configuration is gone", "/etc/pocketcard/login")];
    for (index, (what, path)) in breakable.into_iter().enumerate() {
        let moved = format!("{path}.away");
        fs::rename(path, &moved).context("breaking something")?;
        // sssd keeps what it has read, and may go on working.
        let may_ask = index == 1 && module == Module::Sssd;
        for program in PROGRAMS.iter().take(2) {
            *failed += tell(module, program, what, fallback(program, may_ask));
        }
        fs::rename(&moved, path).context("mending it again")?;
    }
    Ok(())
}

/// - `may_ask`: whether the PIN may be asked for all the same.
fn fallback(program: &Program, may_ask: bool) -> Result<String, Failure> {
    let (mut dialogue, pin) = ask(program)?;
    expect(!pin || may_ask, || format!("the PIN is asked for: nothing is broken:\n{}", dialogue.seen()))?;
    dialogue.type_secret(if pin { TEST_PIN } else { ALICE.1 })?;
    let is_in = program.verdict(&mut dialogue, SOON)?;
    expect(is_in, || format!("LOCKED OUT:\n{}", dialogue.seen()))?;
    Ok(if pin { "the PIN still does" } else { "the password does" }.to_owned())
}

/// Everything in the folders that set-up writes to, with modes, owners and digests.
fn tree() -> Result<String, Failure> {
    const TREE: &str = "set -e -o pipefail; shopt -s nullglob; cd /etc
        find pam.d sssd* pocketcard* -printf '%M %u:%g %p %l\\n' | sort -k3
        find pam.d sssd* pocketcard* -type f -print0 | sort -z | xargs -0 sha256sum";
    ok("bash", ["-c", TREE])
}
