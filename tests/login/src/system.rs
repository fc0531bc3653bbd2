//! What a system has around its reader and this machine has not, since no systemd starts it: the user that pcscd runs as, the
//! bus, and polkit with our rules. And what it is for: that nobody but pcscd reaches the daemon.

use std::fs;
use std::path::Path;

use pocketcard_dev::{Builder, CARD_LIMIT, Card, Environment, TEST_PIN};

use crate::failure::{Context, Failure, expect};
use crate::service::Service;
use crate::world::{ALICE, SOON, World, as_user, eventually, ok, say};

/// The rules, where the package installs them.
const RULES: (&str, &str) = (
    "/usr/share/polkit-1/rules.d/50-pocketcard.rules",
    include_str!("../../../packaging/debian/pocketcard/polkit.rules"),
);
/// By what the xtask says whom pcscd runs as.
const PCSCD_USER: &str = "POCKETCARD_PCSCD_USER";
/// Where a polkit is, if pcscd asks one.
const POLKITD: &str = "/usr/lib/polkit-1/polkitd";
/// What polkit may be asked about cards.
const POLICY: &str = "/usr/share/polkit-1/actions/org.debian.pcsc-lite.policy";
/// Lets users ask polkit whether others may reach the card, which otherwise root alone may. Whoever gives pcscd a user of its
/// own has to write this; mallory is here so that what refuses him is the daemon.
const MAY_ASK: &str = "<annotate key=\"org.freedesktop.policykit.owner\">unix-user:pcscd unix-user:mallory</annotate>";

/// The bus and polkit, if this Debian's pcscd asks one. They end with this value.
#[derive(Default)]
pub(crate) struct System(Vec<Service>);

impl System {
    /// Makes the accounts that our package makes, starts what pcscd asks, and lets alice, who has no seat here, use the reader.
    pub(crate) fn start(builder: Builder) -> Result<(Self, Builder), Failure> {
        let user = std::env::var(PCSCD_USER).unwrap_or_else(|_| "root".to_owned());
        ok("groupadd", ["--system", "pocketcard"])?;
        make_user(&user)?;
        let mut system = Self::default();
        if Path::new(POLKITD).exists() {
            fs::write(RULES.0, RULES.1).context("our rules")?;
            ok("gpasswd", ["--add", ALICE.0, "pocketcard"])?;
            let policy = fs::read_to_string(POLICY).context("the policy of pcscd")?;
            fs::write(POLICY, policy.replace("</defaults>", &format!("</defaults>{MAY_ASK}"))).context("the policy")?;
            fs::create_dir_all("/run/dbus").context("making a folder for D-Bus")?;
            system.0.push(Service::start("dbus-daemon", &["--system", "--nofork", "--nopidfile"])?);
            eventually("D-Bus", SOON, || Path::new("/run/dbus/system_bus_socket").exists())?;
            system.0.push(Service::start(POLKITD, &["--no-debug"])?);
            let owner =
                ["--system", "--print-reply", "--dest=org.freedesktop.DBus", "/", "org.freedesktop.DBus.GetNameOwner"];
            let name = "string:org.freedesktop.PolicyKit1";
            eventually("polkit", SOON, || ok("dbus-send", owner.iter().chain([&name])).is_ok())?;
        }
        Ok((system, builder.as_system(user)))
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // The bus last.
        while self.0.pop().is_some() {}
    }
}

/// Whether this is Debian 13, for programs that behave in another way there.
pub(crate) fn is_debian_13() -> bool {
    fs::read_to_string("/etc/debian_version").is_ok_and(|version| version.starts_with("13"))
}

/// A user as packages make them for services.
fn make_user(name: &str) -> Result<(), Failure> {
    if ok("getent", ["passwd", name]).is_ok() {
        return Ok(());
    }
    ok("useradd", ["--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", name]).map(|_| ())
}

/// pcscd as a user without privileges, as pcsc-lite 2.4 runs it: it serves, also when it is started anew; as any other user it
/// gets nothing from the daemon.
pub(crate) fn pcscd_user() -> Result<(), Failure> {
    make_user("pcscd")?;
    make_user("mallory")?;
    let mut world = World::start(Environment::builder().card(Card::Ec))?;
    for start in ["started", "started anew"] {
        world.environment.pcscd()?.restart_as("pcscd")?;
        world.environment.wait_card(0, true, CARD_LIMIT)?;
        let status = status_of_pcscd(&mut world)?;
        expect(status.contains("CapEff:\t0000000000000000"), || format!("pcscd may do more:\n{status}"))?;
        signed(ALICE.0)?;
        say(&format!("ok      pcscd {start} as user pcscd: alice signs"));
    }
    world.environment.pcscd()?.terminate();
    world.environment.pcscd()?.restart()?;
    world.environment.wait_card(0, true, CARD_LIMIT)?;
    signed(ALICE.0)?;
    say("ok      pcscd ended as a system ends it, and started: alice signs");

    world.environment.pcscd()?.restart_as("mallory")?;
    world.environment.wait_card(0, false, CARD_LIMIT)?;
    let log = world.environment.logs().join("pocketcardd.log");
    let number = ok("id", ["--user", "mallory"])?;
    let refused = format!("user={}", number.trim());
    eventually("the daemon to refuse mallory", SOON, || {
        let log = fs::read_to_string(&log).unwrap_or_default();
        log.lines().any(|line| line.contains("refused") && line.contains(&refused))
    })?;
    expect(signed("root").is_err(), || "THE DRIVER OF MALLORY SIGNS".to_owned())?;
    say("ok      pcscd as user mallory: its reader is empty, and the daemon says whom it refused");

    world.environment.pcscd()?.restart_as("pcscd")?;
    world.environment.wait_card(0, true, CARD_LIMIT)?;
    signed(ALICE.0)?;
    say("ok      pcscd as user pcscd again: alice signs");
    Ok(())
}

fn status_of_pcscd(world: &mut World) -> Result<String, Failure> {
    let id = world.environment.pcscd()?.process().map(|process| process.id()).unwrap_or_default();
    fs::read_to_string(format!("/proc/{id}/status")).context("looking at pcscd")
}

/// A user signs with the phone.
fn signed(user: &str) -> Result<(), Failure> {
    let sign = format!(
        "head -c 32 /dev/zero | pkcs11-tool --login --pin {TEST_PIN} --sign --mechanism ECDSA --id 01 | wc -c | grep -qx 64"
    );
    let mut words = as_user(user);
    words.extend(["bash", "-c", &sign].map(str::to_owned));
    ok("setpriv", words).map(|_| ())
}
