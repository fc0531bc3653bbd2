//! Two people have phones, and sign in while only the other's is here: nobody's phone is asked but their own.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use pcsc::{Context as PcscContext, Protocols, Scope, ShareMode};
use pocketcard_dev::{Card, Environment, TEST_PIN};

use crate::card;
use crate::failure::{Context, Failure, expect};
use crate::owner::ALL_TRIES;
use crate::pty::Dialogue;
use crate::sign_in::{PROGRAMS, asked_for_pin, no_phone, right_pin};
use crate::world::{ALICE, BOB, SOON, World, as_user, ok, run, say, text};

/// What is said of a phone that is somebody else's.
const NOT_BOBS: &str = "The phone that is here is not bob's.";
const NOT_ALICES: &str = "The phone that is here is not alice's.";
/// How long a card is waited for that another program keeps.
const LIMIT: Duration = Duration::from_secs(5);

/// Issues a certificate for the key in bob's phone.
const ISSUE: &str = r#"set -e
cd /root
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 30 -subj '/CN=Example authority'
pkcs11-tool --slot-index 1 --read-object --type cert --id 01 --output-file old.der
openssl x509 -inform DER -in old.der -noout -pubkey >public.pem
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout other.key -out request.pem -subj '/CN=Bob'
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -set_serial 7 -days 30 -force_pubkey public.pem -outform DER -out bob.der"#;

/// Who signs bob in: who runs it, what it is, and how it says that he is in.
const FOR_BOB: [(&str, &[&str], &str); 3] = [
    ("alice", &["su", "--login", "bob", "--command", "echo I am $(id -un)"], "I am bob"),
    ("root", &["login", "bob"], "bob@machine"),
    ("root", &["pamtester", "sudo", "bob", "authenticate"], "successfully authenticated"),
];

/// PINs are typed.
pub(crate) fn keyboard() -> Result<(), Failure> {
    let mut world = both_set_up("keyboard")?;

    // Both are here: pam_pkcs11 looks at the first card alone, which is alice's.
    for program in &PROGRAMS {
        say(&format!("ok      {}  both phones are here: alice {}", program.name, right_pin(program)?));
    }
    bob_by_password(&world, "both phones are here", NOT_BOBS)?;

    world.leave(1)?;
    bob_by_password(&world, "only alice's phone is here", NOT_BOBS)?;
    for program in &PROGRAMS {
        say(&format!("ok      {}  only alice's phone is here: alice {}", program.name, right_pin(program)?));
    }

    world.leave(0)?;
    world.come(1)?;
    for program in &PROGRAMS {
        let mut dialogue = program.start()?;
        dialogue.expect(NOT_ALICES, SOON)?;
        drop(dialogue);
        say(&format!("ok      {}  only bob's phone is here: {}", program.name, no_phone(program)?));
    }
    for (user, command, is_in) in FOR_BOB {
        let mut dialogue = started(user, command)?;
        expect(asked_for_pin(&mut dialogue)?, || format!("no PIN is asked for:\n{}", dialogue.seen()))?;
        dialogue.type_secret(TEST_PIN)?;
        dialogue.expect(is_in, SOON)?;
        say(&format!("ok      {}  only bob's phone is here: bob in by his PIN", command.first().unwrap_or(&"")));
    }

    world.leave(1)?;
    for program in &PROGRAMS {
        let mut dialogue = program.start()?;
        expect(!asked_for_pin(&mut dialogue)?, || format!("a PIN is asked for:\n{}", dialogue.seen()))?;
        expect(!dialogue.seen().contains(NOT_ALICES), || format!("there is no phone:\n{}", dialogue.seen()))?;
    }
    say("ok      no phone is here: the password, and nothing is said of anybody's phone");
    world.come(0)?;
    left_to_the_module()?;
    ok("pocketcard", ["login", "undo"])?;
    Ok(())
}

/// PINs are entered on the phone: the wrong one does not even ask.
pub(crate) fn phone() -> Result<(), Failure> {
    let mut world = both_set_up("phone")?;
    world.leave(1)?;
    world.nobody_was_asked()?;
    bob_by_password(&world, "only alice's phone is here", NOT_BOBS)?;
    world.nobody_was_asked()?;
    say("ok      alice's phone asked for nothing");
    let [.., pamtester] = &PROGRAMS;
    let mut dialogue = pamtester.start()?;
    world.enters(TEST_PIN)?;
    expect(pamtester.verdict(&mut dialogue, SOON)?, || format!("alice is not let in:\n{}", dialogue.seen()))?;
    say("ok      alice is asked on her phone, and in");
    Ok(())
}

/// Alice's phone is the first, bob's the second; his certificate is of an authority.
fn both_set_up(pin_entry: &str) -> Result<World, Failure> {
    let config = format!("pin_entry = \"{pin_entry}\"\n");
    let world = World::start(Environment::builder().card(Card::Ec).slots(2).daemon_config(config))?;
    set_up(ALICE.0, "Test phone 1", &[])?;
    // Both have signed their own, by the same name.
    let refused = set_up(BOB.0, "Test phone 2", &[]).err().map(|failure| failure.to_string()).unwrap_or_default();
    expect(refused.contains("alice has the same subject"), || format!("taken beside alice's: {refused}"))?;
    ok("bash", ["-c", ISSUE])?;
    let der = fs::read("/root/bob.der").context("reading the certificate")?;
    card::write(1, &[(&[0x5F, 0xC1, 0x05], card::certificate(&der))])?;
    set_up(BOB.0, "Test phone 2", &["--ca", "/root/ca.pem"])?;
    Ok(world)
}

/// With the person's yes to what is shown.
fn set_up(user: &str, phone: &str, more: &[&str]) -> Result<(), Failure> {
    let setup = [["login", "setup", "--user", user, "--phone", phone].as_slice(), more].concat();
    let shown = ok("pocketcard", setup.iter().chain(&["--dry-run"]))?;
    let fingerprint = shown.lines().find_map(|line| line.strip_prefix("SHA-256")).unwrap_or_default().trim();
    say(&ok("pocketcard", setup.iter().chain(&["--yes-if-fingerprint", fingerprint]))?);
    Ok(())
}

fn started(user: &str, command: &[&str]) -> Result<Dialogue, Failure> {
    let mut words = as_user(user);
    words.extend(command.iter().map(|&word| word.to_owned()));
    Dialogue::start("setpriv", words)
}

/// Bob is told why, and asked for his password; alice's phone has lost no try.
fn bob_by_password(world: &World, situation: &str, told: &str) -> Result<(), Failure> {
    for (user, command, is_in) in FOR_BOB {
        let mut dialogue = started(user, command)?;
        expect(!asked_for_pin(&mut dialogue)?, || format!("{situation}: a PIN IS ASKED FOR:\n{}", dialogue.seen()))?;
        expect(dialogue.seen().contains(told), || format!("{situation}: no {told:?}:\n{}", dialogue.seen()))?;
        dialogue.type_secret(BOB.1)?;
        dialogue.expect(is_in, SOON)?;
        let tries = world.tries_left()?;
        expect(tries == ALL_TRIES, || format!("{situation}: alice has {tries} tries left"))?;
        say(&format!("ok      {}  {situation}: bob by his password", command.first().unwrap_or(&"")));
    }
    Ok(())
}

/// Whatever cannot be found out is left to pam_pkcs11, so that nothing that works without this line stops working with it.
fn left_to_the_module() -> Result<(), Failure> {
    let here = |user: &str, more: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(as_user(user)).args(more).arg("PAM_USER=bob").args(["/usr/bin/pocketcard", "login", "here"]);
        let output = run(&mut command, "")?;
        Ok::<_, Failure>((output.status.success(), text(&output)))
    };
    let (goes_on, said) = here("root", &[])?;
    expect(!goes_on && said.contains(NOT_BOBS), || format!("alice's card is taken for bob's: {said}"))?;
    // Whoever unlocks a screen is no root.
    let (goes_on, said) = here("alice", &[])?;
    expect(!goes_on && said.contains(NOT_BOBS), || format!("as alice: {said}"))?;
    ok("chmod", ["700", "/etc/pocketcard/login"])?;
    let (goes_on, said) = here("alice", &[])?;
    expect(goes_on && said.is_empty(), || format!("the mapping is unreadable: {said}"))?;
    ok("chmod", ["755", "/etc/pocketcard/login"])?;
    let (goes_on, said) = here("root", &["PCSCLITE_CSOCK_NAME=/nonexistent"])?;
    expect(goes_on && said.is_empty(), || format!("no pcscd: {said}"))?;
    let wrong = |error: pcsc::Error| Failure::Wrong(format!("PC/SC: {error}"));
    let context = PcscContext::establish(Scope::User).map_err(wrong)?;
    let readers = context.list_readers_owned().map_err(wrong)?;
    let first = readers.first().ok_or_else(|| Failure::Wrong("no reader".to_owned()))?;
    let mut card = context.connect(first, ShareMode::Shared, Protocols::ANY).map_err(wrong)?;
    let transaction = card.transaction().map_err(wrong)?;
    let begin = Instant::now();
    let (goes_on, said) = here("root", &[])?;
    let took = begin.elapsed();
    drop(transaction);
    expect(goes_on && said.is_empty(), || format!("another program keeps the card: {said}"))?;
    expect(took >= LIMIT && took < LIMIT * 2, || format!("another program keeps the card: {took:?}"))?;
    say(&format!(
        "ok      an unreadable mapping, no pcscd, a card that is kept (after {:.1} s): left to pam_pkcs11",
        took.as_secs_f32()
    ));
    Ok(())
}
