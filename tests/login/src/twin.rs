//! A second paired phone that says of itself what the first one says: same subject, UPN, CHUID, issuer and serial number.

use std::fs;
use std::path::Path;

use pocketcard_dev::{Card, Environment, TEST_PIN};

use crate::card;
use crate::failure::{Context, Failure, expect};
use crate::sign_in::{Module, PROGRAMS, asked_for_pin, right_pin, start_sssd};
use crate::world::{ALICE, SOON, World, ok, say};

/// An authority, and a certificate for whatever public key, in which everything else is always the same.
const AUTHORITY: &str = r#"set -e
cd /root
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 30 \
    -subj '/O=Example/CN=Example authority' -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
cat >extensions <<X
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = clientAuth,1.3.6.1.4.1.311.20.2.2
subjectAltName = otherName:1.3.6.1.4.1.311.20.2.3;UTF8:alice@example.com
X
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout other.key -out request.pem -subj '/O=Example/CN=Alice (Example)'"#;

/// Issues the certificate for the key in the phone at reader `$0`.
const ISSUE: &str = r#"set -e
cd /root
pkcs11-tool --slot-index "$0" --read-object --type cert --id 01 --output-file old.der
openssl x509 -inform DER -in old.der -noout -pubkey >public.pem
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -set_serial 42 -days 30 -force_pubkey public.pem \
    -extfile extensions -outform DER -out new.der"#;

pub(crate) fn refused(module: Module) -> Result<(), Failure> {
    let mut world = World::start(Environment::builder().card(Card::Ec).slots(2))?;
    ok("bash", ["-c", AUTHORITY])?;
    for (index, reader) in ["0", "1"].into_iter().enumerate() {
        ok("bash", ["-c", ISSUE, reader])?;
        let der = fs::read("/root/new.der").context("reading the certificate")?;
        card::write(index, &[(&[0x5F, 0xC1, 0x05], card::certificate(&der)), (&[0x5F, 0xC1, 0x02], card::chuid())])?;
    }
    let about = |reader: &str| {
        let script = "pkcs11-tool --slot-index $0 --read-object --type cert --id 01 -o /root/c$0.der 2>/dev/null
            openssl x509 -inform DER -in /root/c$0.der -noout -subject -issuer -serial -ext subjectAltName,extendedKeyUsage
            opensc-tool --reader $0 --card-driver default -s 00:A4:04:00:05:A0:00:00:03:08:00 -s 00:CB:3F:FF:05:5C:03:5F:C1:02:00 |
                tail -n 5";
        ok("bash", ["-c", script, reader])
    };
    let (first, second) = (about("0")?, about("1")?);
    // OpenSSL 3.0 writes `CN = Alice`.
    expect(first == second && first.replace(" = ", "=").contains("CN=Alice"), || {
        format!("not alike:\n{first}\n{second}")
    })?;
    expect(fs::read("/root/c0.der").ok() != fs::read("/root/c1.der").ok(), || "the keys are the same".to_owned())?;
    say(&first);

    // The first phone's certificate is pinned, which is of an authority here.
    world.leave(1)?;
    let fingerprint = "openssl x509 -inform DER -in /root/c0.der -noout -fingerprint -sha256 | sed s/.*=//";
    let fingerprint = ok("bash", ["-c", fingerprint])?;
    let without = ["login", "setup", "--user", ALICE.0, "--module", module.name(), "--dry-run"];
    let failure = ok("pocketcard", without).err().map(|failure| failure.to_string()).unwrap_or_default();
    expect(failure.contains("--ca"), || format!("taken without its authority: {failure}"))?;
    let mut setup = vec!["login", "setup", "--user", ALICE.0, "--module", module.name(), "--ca", "/root/ca.pem"];
    setup.extend(["--yes-if-fingerprint", fingerprint.trim()]);
    say(&ok("pocketcard", setup)?);
    let sssd = if module == Module::Sssd { Some(start_sssd()?) } else { None };
    for program in &PROGRAMS {
        right_pin(program)?;
        say(&format!("ok      {}  {}  the phone that was set up: in", module.name(), program.name));
    }
    world.leave(0)?;
    world.come(1)?;
    // Whether it is asked for a PIN is the module's affair; that the right one lets nobody in is what counts.
    out(module)?;
    if module == Module::PamPkcs11 {
        // The rule looks whose phone it is before. The module has to refuse it by itself, too.
        ok("ln", ["--symbolic", "--force", "/bin/true", "/usr/bin/pocketcard"])?;
        expect(out(module)? == PROGRAMS.len(), || "pam_pkcs11 was not asked".to_owned())?;
    }
    drop(sssd);
    forgotten()
}

/// The twin lets nobody in. Gives how often its PIN was asked for.
fn out(module: Module) -> Result<usize, Failure> {
    let mut asked = 0;
    for program in &PROGRAMS {
        let mut dialogue = program.start()?;
        if asked_for_pin(&mut dialogue)? {
            asked += 1;
            dialogue.type_secret(TEST_PIN)?;
            let is_in = program.verdict(&mut dialogue, SOON)?;
            expect(!is_in, || format!("THE TWIN IS LET IN by {}:\n{}", program.name, dialogue.seen()))?;
            say(&format!("ok      {}  {}  its twin: refused after its PIN", module.name(), program.name));
        } else {
            say(&format!("ok      {}  {}  its twin: no PIN asked for, the password is", module.name(), program.name));
        }
    }
    Ok(asked)
}

/// `forget` names the mapping that is left and takes it back if the person says so.
fn forgotten() -> Result<(), Failure> {
    let listed = ok("pocketcard", ["phones"])?;
    let id = listed.lines().find(|line| line.contains("Test phone 1")).and_then(|line| line.split_whitespace().nth(2));
    let id = id.ok_or_else(|| Failure::Wrong(format!("no first phone:\n{listed}")))?;
    let mut forget = crate::pty::Dialogue::start("pocketcard", ["forget", id])?;
    forget.expect("alice: Test phone 1", SOON)?;
    forget.expect("Take that back, too?", SOON)?;
    forget.type_line("yes")?;
    let status = forget.end(SOON)?;
    expect(status.success(), || forget.seen().to_owned())?;
    expect(!Path::new("/etc/pocketcard/login").exists(), || "the mapping is still there".to_owned())?;
    say("ok      forget names alice and takes her login back");
    Ok(())
}
