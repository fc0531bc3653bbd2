//! The stories.

use std::time::Duration;

use pocketcard_dev::{AIR_CARD_LIMIT, Builder, Card, DevError, Environment, Phone};
use serde_json::{Value, json};

use crate::guest::{
    Failure, P256, RSA, commands, logs, radio, say, sign, start_bluetoothd, step, stop_bluetoothd, text, wait_radio,
};
use crate::{absence, costs, others, ssh, transports};

/// How long a card may stay in the reader when its phone has gone: the supervision time-out, and the grace.
pub(crate) const LEAVE_LIMIT: Duration = Duration::from_secs(60);
/// How long a card may stay when one side forgot the other: no grace, but a slow machine.
const FORGET_LIMIT: Duration = Duration::from_secs(10);
/// How long a phone may take to see that bluetoothd has gone or come.
pub(crate) const RADIO_LIMIT: Duration = Duration::from_secs(60);

/// What any login costs in round trips over the air: everything else is in the computer's copy of what everybody may read.
const LOGIN: [&str; 2] = ["VERIFY", "GENERAL AUTHENTICATE"];

/// A story and what it needs.
pub(crate) struct Story {
    pub(crate) name: &'static str,
    pub(crate) adapters: u8,
    /// `[GATT] Channels`, unless BlueZ's default will do.
    pub(crate) channels: Option<u8>,
    /// Whether the radio brings a phone and a computer of its own: tests/ble/phone.py and host.py.
    pub(crate) peers: bool,
    pub(crate) limit: Duration,
    pub(crate) tell: fn() -> Result<(), Failure>,
}

impl Story {
    const fn new(name: &'static str, tell: fn() -> Result<(), Failure>) -> Self {
        Self { name, adapters: 2, channels: None, peers: false, limit: Duration::from_secs(420), tell }
    }
}

/// All of them, in the order in which they are told.
pub(crate) const STORIES: [Story; 18] = [
    Story { channels: Some(1), ..Story::new("login", login) },
    Story { channels: Some(3), ..Story::new("login-eatt", login) },
    Story::new("l2cap", transports::l2cap),
    Story::new("forget", forget),
    Story::new("return", comes_back),
    Story::new("adapter", absence::adapter),
    Story::new("bonded", absence::bonded),
    Story::new("cut", absence::cut),
    Story::new("costs", costs::costs),
    Story::new("quiet", costs::quiet),
    Story::new("arrivals", costs::arrivals),
    Story { adapters: 1, peers: true, ..Story::new("least-mtu", transports::least_mtu) },
    Story { adapters: 3, ..Story::new("next-host", next_host) },
    Story { adapters: 3, ..Story::new("two-hosts", two_hosts) },
    Story { adapters: 1, peers: true, ..Story::new("other-phone", others::phone) },
    Story { adapters: 1, peers: true, ..Story::new("other-channels", others::channels) },
    Story { adapters: 1, peers: true, ..Story::new("other-handles", others::handles) },
    Story { peers: true, ..Story::new("other-host", others::host) },
];

/// What a story's computers have in common.
pub(crate) fn environment(name: &str) -> Builder {
    Environment::builder().card(Card::Ec).keep_logs(logs(name)).log_level(
        std::env::var("RUST_LOG").unwrap_or_else(|_| "info,pocketcardd=debug,pocketcard_daemon=debug".to_owned()),
    )
}

pub(crate) fn paired(card: Card) -> Result<Environment, Failure> {
    step("a phone pairs by its camera over the air, its card is in pcscd", || {
        Ok(environment("host").card(card).over_the_air("hci0", &["hci1"]).start()?)
    })
}

/// Signs with the P-256 card, and says when.
pub(crate) fn signs(environment: &Environment, when: &str) -> Result<(), Failure> {
    step(&format!("pkcs11-tool --login --sign, {when}"), || sign(environment, &P256))
}

/// Pairing, a signature by OpenSC, an ssh login, and how often each asks the phone.
fn login() -> Result<(), Failure> {
    let environment = paired(Card::Rsa)?;
    let asks = |what: &str, work: &dyn Fn() -> Result<(), Failure>| {
        let log = environment.logs().join("phone-0.log");
        let before = commands(&log)?.len();
        step(what, work)?;
        let asked = commands(&log)?.split_off(before);
        say(&format!("story: the phone was asked: {}", asked.join(", ")));
        if asked == LOGIN { Ok(()) } else { Err(Failure::Wrong(format!("the phone was to be asked: {LOGIN:?}"))) }
    };
    asks("pkcs11-tool --login --sign", &|| sign(&environment, &RSA))?;
    if let Some(server) = ssh::Server::prepare(&environment)? {
        asks("ssh logs in", &|| server.login(&environment))?;
    }
    asks("pkcs11-tool --login --sign again", &|| sign(&environment, &RSA))
}

/// Pairing without a camera; forgetting on either side takes effect at once.
fn forget() -> Result<(), Failure> {
    let mut environment = environment("host").over_the_air("hci0", &["hci1"]).unpaired().start()?;
    let pairs = |environment: &mut Environment| {
        step("a phone pairs by the digits alone, its card is in pcscd", || {
            environment.pair_by_digits(0, 0)?;
            Ok(environment.wait_card(0, true, AIR_CARD_LIMIT)?)
        })
    };
    pairs(&mut environment)?;
    signs(&environment, "after pairing")?;
    step("the computer forgets the phone, the card leaves", || {
        let mut control = environment.daemon_control()?;
        let phone = control.phones().map_err(DevError::from)?.first().map(|phone| phone.id.clone()).unwrap_or_default();
        control.forget(&phone).map_err(DevError::from)?;
        Ok(environment.wait_card(0, false, FORGET_LIMIT)?)
    })?;
    step("the phone forgets the computer", || forget_hosts(environment.phone(0)?).map(|_| ()))?;
    pairs(&mut environment)?;
    signs(&environment, "after pairing again")?;
    step("the phone forgets the computer, the card leaves", || match forget_hosts(environment.phone(0)?)? {
        1 => Ok(environment.wait_card(0, false, FORGET_LIMIT)?),
        other => Err(Failure::Wrong(format!("the phone knew {other} computers"))),
    })
}

/// Makes the phone forget every computer, and says how many there were.
fn forget_hosts(phone: &mut Phone) -> Result<usize, Failure> {
    phone.send(&json!({ "command": "hosts" }))?;
    let event = phone.wait_event("its hosts", RADIO_LIMIT, |event| text(event, "event") == "hosts")?;
    let hosts = event.get("hosts").and_then(Value::as_array).cloned().unwrap_or_default();
    for host in &hosts {
        phone.send(&json!({ "command": "forget", "id": text(host, "id") }))?;
    }
    Ok(hosts.len())
}

/// A phone that is killed, walks away, loses bluetoothd, and comes back each time.
fn comes_back() -> Result<(), Failure> {
    let mut environment = paired(Card::Ec)?;
    signs(&environment, "after pairing")?;

    step("the phone is killed, the card leaves", || {
        environment.phone(0)?.kill();
        Ok(environment.wait_card(0, false, LEAVE_LIMIT)?)
    })?;
    step("the phone starts again, the card is back", || {
        environment.phone(0)?.restart()?;
        Ok(environment.wait_card(0, true, AIR_CARD_LIMIT)?)
    })?;
    signs(&environment, "after the phone's restart")?;

    walks_away(&environment)?;
    signs(&environment, "after the phone's return")?;

    step("bluetoothd ends, the card leaves", || {
        stop_bluetoothd()?;
        wait_radio(environment.phone(0)?, "down", RADIO_LIMIT)?;
        Ok(environment.wait_card(0, false, LEAVE_LIMIT)?)
    })?;
    step("bluetoothd starts again, the card is back", || {
        start_bluetoothd()?;
        Ok(environment.wait_card(0, true, AIR_CARD_LIMIT)?)
    })?;
    signs(&environment, "after bluetoothd's restart")
}

/// The phone goes out of range and returns.
pub(crate) fn walks_away(environment: &Environment) -> Result<(), Failure> {
    step("the phone goes out of range, the card leaves", || {
        radio("away 1")?;
        Ok(environment.wait_card(0, false, LEAVE_LIMIT)?)
    })?;
    step("the phone returns, the card is back", || {
        radio("back 1")?;
        Ok(environment.wait_card(0, true, AIR_CARD_LIMIT)?)
    })
}

/// A second computer takes the phone when the first has left.
fn next_host() -> Result<(), Failure> {
    let mut first = paired(Card::Ec)?;
    signs(&first, "at the first computer")?;
    let mut second = second(&mut first)?;
    step("the first computer leaves", || {
        first.daemon().terminate();
        Ok(())
    })?;
    signs(&second, "at the second computer, alone")?;
    step("the second leaves and the first returns", || {
        second.daemon().terminate();
        first.daemon().restart()?;
        Ok(first.wait_card(0, true, AIR_CARD_LIMIT)?)
    })?;
    signs(&first, "at the first computer again")
}

/// Two computers have the phone's card at once.
fn two_hosts() -> Result<(), Failure> {
    let mut first = paired(Card::Ec)?;
    let second = second(&mut first)?;
    for round in 1..=3 {
        step(&format!("both computers sign at once, round {round}"), || {
            std::thread::scope(|scope| {
                let other = scope.spawn(|| sign(&second, &P256));
                let result = sign(&first, &P256);
                other.join().unwrap_or_else(|_| Err(Failure::Wrong("the second computer panicked".to_owned())))?;
                result
            })
        })?;
    }
    Ok(())
}

/// A second computer, paired with the first one's phone while that has it.
fn second(first: &mut Environment) -> Result<Environment, Failure> {
    step("a second computer pairs with the phone", || {
        let mut second = environment("second-host").over_the_air("hci2", &[]).start()?;
        second.pair_guest(first.phone(0)?, 0)?;
        second.wait_card(0, true, AIR_CARD_LIMIT)?;
        Ok(second)
    })
}
