//! The connection between daemon and phone is cut in the middle of things: programs do not notice, unless it stays cut.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends where it fails, and prints what it measured"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pocketcard_dev::{CARD_LIMIT, Card, Environment};
use pocketcard_tests::apdu::{
    PIN_STATUS, RIGHT_PIN, SELECT_PIV, WRONG_PIN, sign_p256, signature, status_word, tries_left, verify,
};
use pocketcard_tests::client::reader;
use pocketcard_tests::cutter::{Cut, Cutter, Part, Way};
use pocketcard_tests::piv::PublicKey;
use pocketcard_tests::run::repetitions;
use pocketcard_tests::{Client, ClientFailure, start};
use serde_json::Value;

/// A card waits this long for its phone.
const GRACE: Duration = Duration::from_secs(5);

/// Frames from the phone to the host at the beginning of a connection: Info, handshake, `Opened`.
const OPENING_TO_HOST: u32 = 3;
/// And the other way: handshake, `Open`.
const OPENING_TO_PHONE: u32 = 2;

const PARTS: [Part; 3] = [Part::Nothing, Part::Half, Part::All];

fn random(below: u32) -> u32 {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).unwrap();
    u32::from_le_bytes(bytes) % below
}

fn digest() -> [u8; 32] {
    let mut digest = [0; 32];
    getrandom::fill(&mut digest).unwrap();
    digest
}

/// A card with keys, a program that has verified the PIN, and a cutter between daemon and phone.
struct World {
    environment: Environment,
    client: Client,
    cutter: Cutter,
    key: PublicKey,
    scratch: PathBuf,
    signatures: usize,
}

impl World {
    fn new() -> Self {
        let mut environment = start(Environment::builder().card(Card::Ec));
        let address = environment.phone(0).unwrap().address();
        let cutter = Cutter::in_place_of(Path::new(address.strip_prefix("unix:").unwrap())).unwrap();
        // It dials anew, through the cutter.
        environment.daemon().restart().unwrap();
        environment.wait_card(0, true, CARD_LIMIT).unwrap();
        let mut client = Client::connected(&environment, 0);
        let key = PublicKey::of_9a(&environment, &mut client, "9a");
        let scratch = environment.folder().join("scratch");
        fs::create_dir(&scratch).unwrap();
        let mut world = Self { environment, client, cutter, key, scratch, signatures: 0 };
        world.login();
        world
    }

    fn login(&mut self) {
        assert_eq!(status_word(&self.client.transmit(SELECT_PIV).unwrap()), 0x9000);
        assert_eq!(status_word(&self.client.transmit(&verify(RIGHT_PIN)).unwrap()), 0x9000);
    }

    /// pcscd's count of insertions and removals.
    fn counter(&mut self) -> Value {
        let name = reader(&self.environment, 0);
        self.client.call(&["counter", &name]).unwrap()
    }

    /// Signatures that the phone has told of since the last call. It keeps only the last few thousand events.
    fn made(&mut self, wait: Duration) -> usize {
        let phone = self.environment.phone(0).unwrap();
        let is_signature = |event: &Value| {
            event["event"] == "apdu"
                && event["command"].as_str().is_some_and(|name| name.starts_with("GENERAL AUTHENTICATE"))
        };
        let mut made = 0;
        while phone.wait_event("a signature", wait, is_signature).is_ok() {
            made += 1;
        }
        made
    }

    fn sign(&mut self, what: &str) {
        let input = digest();
        let response = self.client.transmit(&sign_p256(0x9A, &input));
        let response = response.unwrap_or_else(|failure| panic!("{what}: {failure:?}"));
        let signature = signature(&response).unwrap_or_else(|| panic!("{what}: {response:02x?}"));
        assert!(self.key.verifies(&self.scratch, &input, signature), "{what}: a wrong signature");
        self.signatures += 1;
    }

    /// A wrong PIN costs one try and a right one gives it back, whatever happens to the answers.
    fn verify(&mut self, what: &str) {
        assert_eq!(status_word(&self.client.transmit(&verify(WRONG_PIN)).unwrap()), 0x63C2, "{what}");
        assert_eq!(tries_left(&self.client.transmit(PIN_STATUS).unwrap()), Some(2), "{what}");
        assert_eq!(status_word(&self.client.transmit(&verify(RIGHT_PIN)).unwrap()), 0x9000, "{what}");
    }
}

/// All that is sent for a command, cut in every place, and some of what brings the link back.
fn places() -> Vec<Vec<Cut>> {
    let mut places = Vec::new();
    for part in PARTS {
        let answer = Cut { way: Way::ToHost, after: 0, part };
        places.push(vec![Cut { way: Way::ToPhone, after: 0, part }]);
        places.push(vec![answer]);
        for after in 0..OPENING_TO_HOST {
            places.push(vec![answer, Cut { way: Way::ToHost, after, part }]);
        }
        for after in 0..=OPENING_TO_PHONE {
            places.push(vec![answer, Cut { way: Way::ToPhone, after, part }]);
        }
    }
    places
}

#[test]
fn a_cut_connection_is_not_noticed() {
    let mut world = World::new();
    let before = world.counter();
    world.made(Duration::ZERO);
    let (mut slowest, mut made) = (Duration::ZERO, 0);
    let mut places = places();
    for _ in 0..repetitions(10, 800) {
        let cuts = 1 + random(3);
        let way = |number| if number == 0 { Way::ToHost } else { Way::ToPhone };
        let cut = |_| Cut { way: way(random(2)), after: random(6), part: PARTS[random(3) as usize] };
        places.push((0..cuts).map(cut).collect());
    }
    for cuts in &places {
        let what = format!("{cuts:?}");
        world.cutter.cut(cuts);
        let started = Instant::now();
        world.sign(&what);
        slowest = slowest.max(started.elapsed());
        world.verify(&what);
        world.cutter.forget();
        made += world.made(Duration::from_millis(1));
    }
    made += world.made(Duration::from_millis(200));
    let signed = world.signatures;
    println!(
        "REPORT: dropped_link: {} cuts, {made} signatures made for {signed} asked for, slowest {slowest:?}",
        world.cutter.cuts()
    );
    assert_eq!(made, signed, "each is made once");
    assert_eq!(world.counter(), before, "no card came or went");
    assert!(world.cutter.cuts() as usize > places.len(), "hardly anything was cut");
    // Programs share what was verified, as before.
    assert_eq!(status_word(&world.client.transmit(PIN_STATUS).unwrap()), 0x9000);
}

#[test]
fn a_connection_that_stays_cut_is_a_card_that_left() {
    let mut world = World::new();
    world.cutter.hold();
    world.cutter.cut(&[Cut { way: Way::ToHost, after: 0, part: Part::Nothing }]);
    let started = Instant::now();
    world.client.send(&["transmit", &hex::encode(sign_p256(0x9A, &digest()))]);
    assert!(world.cutter.wait_cuts(1, Duration::from_secs(5)));
    let cut = Instant::now();
    let answer = world.client.response(GRACE * 2);
    let (whole, waited) = (started.elapsed(), cut.elapsed());
    println!("REPORT: dropped_link: a signature whose link stays cut ended after {waited:?} ({answer:?})");
    assert!(matches!(answer, Err(ClientFailure::Pcsc(_))), "{answer:?}");
    assert!(whole >= GRACE && waited < GRACE + Duration::from_secs(1), "{waited:?}");
    world.environment.wait_card(0, false, CARD_LIMIT).unwrap();
    world.cutter.mend();
    world.environment.wait_card(0, true, CARD_LIMIT).unwrap();
    world.client = Client::connected(&world.environment, 0);
    assert_eq!(status_word(&world.client.transmit(SELECT_PIV).unwrap()), 0x9000);
    assert_eq!(tries_left(&world.client.transmit(PIN_STATUS).unwrap()), Some(3), "a new session has verified nothing");
    world.login();
    world.sign("afterwards");
}

/// The address still takes connections, so nobody can know that the phone's program is another one; the phone does.
#[test]
fn a_program_that_ends_takes_its_cards_with_it() {
    let mut world = World::new();
    let before = world.counter();
    world.environment.phone(0).unwrap().kill();
    let killed = Instant::now();
    let answer = world.client.transmit(&sign_p256(0x9A, &digest()));
    println!("REPORT: dropped_link: a phone behind a proxy killed: {:?} ({answer:?})", killed.elapsed());
    assert!(matches!(answer, Err(ClientFailure::Pcsc(_))), "{answer:?}");
    assert!(killed.elapsed() < GRACE + Duration::from_secs(1), "{:?}", killed.elapsed());
    world.environment.wait_card(0, false, CARD_LIMIT).unwrap();
    world.environment.phone(0).unwrap().restart().unwrap();
    world.environment.wait_card(0, true, CARD_LIMIT).unwrap();
    world.client = Client::connected(&world.environment, 0);
    assert_ne!(world.counter(), before);
    world.login();
    world.sign("afterwards");
}
