//! What flows of real programs cost on the air.
#![allow(clippy::expect_used)] // helpers of tests

use std::time::Duration;

use pocketcard_front::PowerAction;
use pocketcard_simulator::radio::Parameters;
use pocketcard_simulator::recording::{Cost, Recording, Start};
use pocketcard_simulator::{PhoneSetup, relay};

/// What an app and the systems on both sides are taken to need for a message; a relay of APDUs needs it for each.
const LATENCY: Duration = Duration::from_millis(60);
/// Logins and signatures.
const FLOWS: [&str; 5] = ["ssh-login-rsa", "ssh-login-ec", "pkcs11-sign-rsa", "pkcs11-sign-ec", "pam-login-rsa"];

fn play(recording: &Recording, latency: Duration, start: Start) -> Cost {
    let setup = PhoneSetup { latency, ..PhoneSetup::default() };
    let (mut world, slot) = recording.world(1, setup, Parameters::default(), start);
    recording.play(&mut world, slot).expect("a card that stays")
}

#[test]
fn a_login_with_a_known_card_is_two_round_trips() {
    for recording in FLOWS.map(Recording::named) {
        let cost = play(&recording, Duration::ZERO, Start::Warm);
        // VERIFY and GENERAL AUTHENTICATE.
        assert_eq!((cost.traffic.commands, cost.traffic.pages), (2, 0), "{}", recording.name);
    }
}

#[test]
fn a_login_with_a_new_card_is_at_most_four() {
    for recording in FLOWS.map(Recording::named) {
        let cost = play(&recording, Duration::ZERO, Start::Cold);
        assert!(cost.traffic.round_trips() <= 4, "{}: {:?}", recording.name, cost.traffic);
    }
}

#[test]
fn an_ssh_login_takes_a_quarter_of_a_second_where_a_relay_takes_seconds() {
    let recording = Recording::named("ssh-login-rsa");
    let cost = play(&recording, LATENCY, Start::Warm);
    assert!(cost.time <= Duration::from_millis(250), "{:?}", cost.time);
    let flow = recording.commands().zip(cost.answers.iter().map(Vec::as_slice));
    let relayed = relay::play(&Parameters::default(), LATENCY, flow).time;
    assert!(relayed >= 17 * cost.time, "{relayed:?}, {:?}", cost.time);
}

#[test]
fn nothing_is_sent_in_the_first_idle_minute_after_a_flow() {
    for recording in FLOWS.map(Recording::named) {
        for start in [Start::Cold, Start::Warm] {
            let (mut world, slot) = recording.world(1, PhoneSetup::default(), Parameters::default(), start);
            recording.play(&mut world, slot).expect("a card that stays");
            world.power(slot, PowerAction::Down).expect("it never fails");
            // The reset, its push and the credits of both.
            world.run(Duration::from_millis(100));
            let before = world.traffic(slot);
            world.run(Duration::from_secs(59));
            assert_eq!(world.traffic(slot), before, "{} {start:?}", recording.name);
        }
    }
}
