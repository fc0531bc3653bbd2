//! ssh, its agent, git and curl with the PIN entered on the phone, `pin_entry = "phone"`: what works, and what their users
//! see where it does not.

use pocketcard_dev::{Card, TEST_PIN};

use crate::clients::{sshd, tls_server};
use crate::failure::{Failure, expect};
use crate::owner::{ALL_TRIES, pin_pad_world};
use crate::page::{Answers, follow};
use crate::pty::Dialogue;
use crate::world::{ALICE, SOON, World, as_user, ok, say};

/// Nobody is asked for the PIN but by the agent, which does not know better.
const ANSWERS: Answers<'static> =
    &[("(yes/no/[fingerprint])?", "yes"), ("server.example's password:", ALICE.1), (PASSPHRASE, TEST_PIN)];
/// The agent's word for the PIN.
const PASSPHRASE: &str = "Enter passphrase for PKCS#11:";
const REFUSED: &str = "agent refused operation";

/// ssh by itself, without the agent that the page has started.
const SSH: &str = "ssh -F none -o IdentityAgent=none -o PasswordAuthentication=no \
                   -I /usr/lib/x86_64-linux-gnu/opensc-pkcs11.so alice@server.example true; echo \"ended with $?\"";
/// An agent that is asked to take the phone's keys, and what it has then.
const AGENT: &str = r#"eval "$(ssh-agent -P '/usr/lib/*/opensc-pkcs11.so,/usr/lib/x86_64-linux-gnu/*')" >/dev/null
trap 'kill $SSH_AGENT_PID' EXIT
ssh-add -s /usr/lib/x86_64-linux-gnu/opensc-pkcs11.so
echo "ssh-add ended with $?"
ssh-add -T ~/phone.pub && echo "it signs""#;
const COMMIT: &str = "cd ~/project && git commit -q --allow-empty -m 'Signed by nobody'; echo \"ended with $?\"";
const CURL: &str = "curl --silent --show-error --engine pkcs11 --cert-type ENG --cert 'pkcs11:id=%01;type=cert' \
                    --key-type ENG --key 'pkcs11:id=%01;type=private' https://server.example:8443/ >/dev/null; \
                    echo \"ended with $?\"";

/// A command of alice's at a terminal.
fn alice(script: &str) -> Result<Dialogue, Failure> {
    let mut words = as_user(ALICE.0);
    words.extend(["bash", "-c", script].map(str::to_owned));
    Dialogue::start("setpriv", words)
}

fn no_try_spent(world: &World) -> Result<(), Failure> {
    let tries = world.tries_left()?;
    expect(tries == ALL_TRIES, || format!("a try was spent: {tries} are left"))
}

pub(crate) fn ssh() -> Result<(), Failure> {
    let mut world = pin_pad_world(Card::Ec)?;
    let _sshd = sshd()?;
    world.entering(|| follow("ssh.md", "", ANSWERS).map(|_| ()))?;
    let seen = declined(&mut world, SSH, "Permission denied (publickey")?;
    say(&format!("ok      ssh -I     phone  the owner says no: {seen}"));
    agent(&mut world)
}

pub(crate) fn git() -> Result<(), Failure> {
    let mut world = pin_pad_world(Card::Ec)?;
    world.entering(|| follow("git.md", "", ANSWERS).map(|_| ()))?;
    world.permits_typed_pins(false)?;
    let mut dialogue = alice(&format!("{AGENT}\n{COMMIT}"))?;
    dialogue.expect(PASSPHRASE, SOON)?;
    dialogue.type_secret(TEST_PIN)?;
    dialogue.expect("ended with 128", SOON)?;
    no_try_spent(&world)?;
    say(&format!("ok      git        phone  no typed PIN is permitted:\n{}", dialogue.seen()));
    Ok(())
}

pub(crate) fn curl() -> Result<(), Failure> {
    let mut world = pin_pad_world(Card::Ec)?;
    let _server = tls_server()?;
    world.entering(|| follow("tls.md", "", ANSWERS).map(|_| ()))?;
    let seen = declined(&mut world, CURL, "curl: (58)")?;
    say(&format!("ok      curl       phone  the owner says no: {seen}"));
    Ok(())
}

/// The owner will not enter the PIN: it ends with a message, and no try is spent.
fn declined(world: &mut World, command: &str, message: &str) -> Result<String, Failure> {
    let mut dialogue = alice(command)?;
    world.declines_pin()?;
    dialogue.expect(message, SOON)?;
    dialogue.expect("ended with ", SOON)?;
    let seen = dialogue.seen();
    expect(!seen.contains("PIN for"), || format!("a PIN is asked for here:\n{seen}"))?;
    no_try_spent(world)?;
    Ok(format!("{message:?}"))
}

/// The agent sends whatever is typed as the PIN, PIN pad or not; the phone itself asks for nothing.
fn agent(world: &mut World) -> Result<(), Failure> {
    let mut row = |situation: &str, typed: &str, permitted: bool, (takes_it, tries): (bool, u32)| {
        world.permits_typed_pins(permitted)?;
        let mut dialogue = alice(AGENT)?;
        dialogue.expect(PASSPHRASE, SOON)?;
        dialogue.type_secret(typed)?;
        let ends = ["it signs", REFUSED];
        let took_it = dialogue.one_of(&ends, SOON)? == 0;
        expect(took_it == takes_it, || format!("{situation}: taken: {took_it}:\n{}", dialogue.seen()))?;
        world.nobody_was_asked()?;
        let left = world.tries_left()?;
        expect(left == tries, || format!("{situation}: {left} tries are left"))?;
        let seen = if took_it { "taken, and signs" } else { REFUSED };
        say(&format!("ok      ssh-agent  phone  {situation}: {seen}"));
        Ok::<(), Failure>(())
    };
    row("nothing typed", "", true, (false, ALL_TRIES))?;
    row("what cannot be a PIN typed", "zz", true, (false, ALL_TRIES))?;
    row("right PIN typed, which the phone does not permit", TEST_PIN, false, (false, ALL_TRIES))?;
    let status = ok("pocketcard", ["status"])?;
    expect(status.contains("a PIN typed on this computer is not accepted"), || status.clone())?;
    row("wrong PIN typed", "999999", true, (false, ALL_TRIES - 1))?;
    row("right PIN typed", TEST_PIN, true, (true, ALL_TRIES))
}
