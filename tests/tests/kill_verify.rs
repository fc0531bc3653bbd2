//! `kill -9` of the phone in the middle of VERIFY, at every point where something is decided.
//!
//! Whatever the moment: the card never compares more PINs than tries were spent, every wrong PIN that was answered is
//! counted, and a try is only spent if the phone received the command.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends where it fails, and prints what it measured"
)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use pocketcard_dev::{CARD_LIMIT, Card, Environment, Phone};
use pocketcard_tests::apdu::{PIN_STATUS, RIGHT_PIN, SELECT_PIV, WRONG_PIN, status_word, tries_left, verify};
use pocketcard_tests::run::repetitions;
use pocketcard_tests::{Client, ClientFailure, start};

/// Tries of a test card.
const TRIES: u8 = 3;
/// How long a call may take once the phone is dead.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// A place to kill the phone at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    /// The phone is suspended, so the command lies in its socket, unread.
    BeforeReceipt,
    /// A hook of the phone, by its name.
    Hook(&'static str),
    /// After the answer: nothing is in the air any more.
    AfterAnswer,
}

const POINTS: [Point; 7] = [
    Point::BeforeReceipt,
    Point::Hook("verify-received"),
    Point::Hook("verify-before-commit"),
    Point::Hook("verify-after-commit"),
    Point::Hook("verify-compared"),
    Point::Hook("verify-before-answer"),
    Point::AfterAnswer,
];

/// Tries that must be gone afterwards.
fn spent(point: Point, right: bool) -> u8 {
    match point {
        Point::BeforeReceipt | Point::Hook("verify-received" | "verify-before-commit") => 0,
        // The right PIN gives its try back in a second commit, which may lie before or after the comparison's hook.
        Point::Hook("verify-before-answer") | Point::AfterAnswer if right => 0,
        _ => 1,
    }
}

/// How often each point was passed, by the log that the phone writes with one unbuffered write a line.
fn passed(log: &Path, point: &str) -> usize {
    fs::read_to_string(log)
        .unwrap_or_default()
        .lines()
        .filter(|line| line.split_whitespace().any(|word| word == point))
        .count()
}

/// Starts the phone (again), killed or not, when the card of the one before has left: until then a computer may still take it
/// for a card whose link is about to come back.
fn restart(environment: &mut Environment, more: &[&str]) {
    environment.phone(0).unwrap().kill();
    environment.wait_card(0, false, CARD_LIMIT).unwrap();
    environment.phone(0).unwrap().restart_with(more).unwrap();
}

fn connect(environment: &Environment) -> Client {
    environment.wait_card(0, true, CARD_LIMIT).unwrap();
    let mut client = Client::connected(environment, 0);
    assert_eq!(status_word(&client.transmit(SELECT_PIV).unwrap()), 0x9000);
    client
}

fn tries(client: &mut Client) -> u8 {
    let answer = client.transmit(PIN_STATUS).unwrap();
    tries_left(&answer).unwrap_or_else(|| panic!("a new card session has no verified PIN: {answer:02X?}"))
}

/// Kills the phone and takes the answer of the call that is on its way.
fn after_kill(phone: &mut Phone, client: &mut Client, slowest: &mut Duration) -> Result<Vec<u8>, ClientFailure> {
    phone.kill();
    let killed = Instant::now();
    let answer = client.response(ENDS_WITHIN);
    *slowest = killed.elapsed().max(*slowest);
    answer
}

#[test]
fn a_killed_phone_never_forgets_a_try() {
    let mut environment = start(Environment::builder().card(Card::Empty));
    let rounds = repetitions(POINTS.len() * 10, 500);
    let mut hits = [0_usize; POINTS.len()];
    let (mut spent_in_all, mut compared_in_all, mut answered_wrong) = (0_usize, 0_usize, 0_usize);
    let mut slowest = Duration::ZERO;

    for round in 0..rounds {
        let index = round % POINTS.len();
        let point = POINTS[index];
        let right = (round / POINTS.len()) % 2 == 1;
        let log = environment.folder().join(format!("probe-{round}.log"));
        let log_name = log.display().to_string();
        let mut more = vec!["--probe-log-for-testing-only", &log_name];
        if let Point::Hook(name) = point {
            more.extend(["--probe-stop-for-testing-only", name]);
        }
        restart(&mut environment, &more);
        let mut client = connect(&environment);
        let before = tries(&mut client);
        assert_eq!(before, TRIES, "round {round} begins with all tries");

        let phone = environment.phone(0).unwrap();
        if point == Point::BeforeReceipt {
            phone.process().unwrap().suspend().unwrap();
        }
        client.send(&["transmit", &hex::encode(verify(if right { RIGHT_PIN } else { WRONG_PIN }))]);
        let answer = match point {
            Point::BeforeReceipt => {
                // The command is on its way; a moment later it lies in the socket of a phone that does not run.
                std::thread::sleep(Duration::from_millis(30));
                after_kill(phone, &mut client, &mut slowest)
            }
            Point::Hook(name) => {
                phone
                    .wait_event("reaching the hook", CARD_LIMIT, |event| {
                        event["event"] == "probe" && event["point"] == name
                    })
                    .unwrap();
                after_kill(phone, &mut client, &mut slowest)
            }
            Point::AfterAnswer => {
                let answer = client.response(CARD_LIMIT);
                phone.kill();
                answer
            }
        };
        hits[index] += 1;
        match (&answer, point) {
            (Ok(response), Point::AfterAnswer) => {
                let word = status_word(response);
                assert_eq!(word, if right { 0x9000 } else { 0x63C0 | u16::from(TRIES - 1) });
                answered_wrong += usize::from(!right);
            }
            (Err(ClientFailure::Pcsc(_)), _) => {}
            other => panic!("round {round}, {point:?}: {other:?}"),
        }

        // The same phone, without hooks: what does it remember?
        let compared = passed(&log, "verify-compared");
        let committed = passed(&log, "verify-after-commit");
        let received = passed(&log, "verify-received");
        restart(&mut environment, &[]);
        let mut client = connect(&environment);
        let gone = before - tries(&mut client);
        assert_eq!(gone, spent(point, right), "round {round}, {point:?}, right PIN {right}");
        // A comparison costs a try that is stored before; only the right PIN gets it back.
        assert!(compared <= committed, "round {round}: {compared} comparisons, {committed} tries stored");
        assert!(right || compared <= usize::from(gone), "round {round}: {compared} comparisons for {gone} tries");
        assert!(gone == 0 || received == 1, "round {round}: a try without a VERIFY");
        spent_in_all += committed;
        compared_in_all += compared;
        // All tries back for the next round.
        assert_eq!(status_word(&client.transmit(&verify(RIGHT_PIN)).unwrap()), 0x9000);
    }

    // `cargo xtask` repeats these lines in its summary.
    for (point, count) in POINTS.iter().zip(hits) {
        println!("REPORT: kill_verify: {count:>3} of {rounds} kills at {point:?}");
    }
    println!(
        "REPORT: kill_verify: tries spent {spent_in_all}, comparisons {compared_in_all}, wrong PINs answered \
         {answered_wrong}, slowest end of VERIFY after a kill {slowest:?} (limit {ENDS_WITHIN:?})"
    );
    assert!(hits.iter().all(|count| *count > 0), "some point was never hit");
    assert!(compared_in_all <= spent_in_all);
}
