use pocketcard_protocol::messages::SecurityState;
use pocketcard_protocol::snapshot::Profile;

use super::*;

const EPOCH: u64 = 4;

fn snapshot() -> Snapshot {
    let profile = Profile {
        template: b"template",
        applications: &[&[0xA0, 0, 0, 3, 8, 0, 0, 0x10], &[0xA0, 0, 0, 5, 0x27, 0x47]],
        instructions: &[0x20, 0x87, 0xCB],
        version: &[5, 7, 4],
        serial: &[],
    };
    let objects = [(0x7E, Object::Always(&b"discovery"[..])), (0x5F_C109, Object::Pin)];
    Snapshot::new(&profile, &objects).unwrap()
}

fn state(version: u64, pin_verified: bool) -> SecurityState {
    let snapshot_digest = snapshot().digest().to_field();
    SecurityState { version, pin_verified, pin_tries_left: 3, epoch: EPOCH, snapshot_digest }
}

fn response(security_version: u64) -> messages::Response {
    messages::Response {
        session: 1,
        request_id: 1,
        epoch: EPOCH,
        response: Vec::new(),
        security_version,
        snapshot_digest: snapshot().digest().to_field(),
    }
}

fn knowledge() -> Knowledge {
    let mut knowledge = Knowledge::new(EPOCH);
    knowledge.announce(&state(1, false));
    knowledge
}

fn command(text: &str) -> Command {
    let digits: Vec<u8> =
        text.bytes().filter_map(|byte| char::from(byte).to_digit(16)).map(|digit| digit as u8).collect();
    Command::parse(&digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect::<Vec<_>>()).unwrap()
}

/// The answer in hexadecimal, or `-` if the card has to be asked.
fn answer(knowledge: &Knowledge, text: &str) -> String {
    let snapshot = snapshot();
    match knowledge.answer(&command(text), Some(&snapshot).filter(|held| knowledge.snapshot() == Some(held.digest()))) {
        Some(response) => response.to_bytes().iter().map(|byte| format!("{byte:02X}")).collect(),
        None => "-".into(),
    }
}

/// A command that goes to the card, and how it is answered there.
fn relay(knowledge: &mut Knowledge, text: &str, status: StatusWord) {
    knowledge.sent(&command(text));
    knowledge.response(&response(knowledge.version), status);
}

const STATUS: &str = "00200080";
const PRINTED: &str = "00CB3FFF 05 5C035FC109 00";
const SELECT_DEFAULT: &str = "00A40400 05 A000000308";
const SELECT_OTHER: &str = "00A40400 06 A00000052747";

#[test]
fn only_what_is_certain_is_answered() {
    let knowledge = knowledge();
    let table = [
        (STATUS, "63C3"),
        ("0020008000", "63C3"),
        ("0020FF80", "-"),
        ("00200081", "-"),
        ("00200080 02 3132", "-"),
        ("0C200080", "-"),
        ("80200080", "-"),
        ("00CB3FFF 03 5C017E 00", "646973636F766572799000"),
        ("00CB3FFF 03 5C017E", "646973636F766572799000"),
        ("00CB3FFF 05 5C035FC105 00", "6A82"),
        (PRINTED, "6982"),
        // Not the form in which everybody asks: whatever the card says to it.
        ("00CB3FFE 03 5C017E 00", "-"),
        ("00CB3FFF 04 5C81017E 00", "-"),
        ("00CB3FFF 03 5C027E 00", "-"),
        ("00CB3FFF 02 5C00 00", "-"),
        ("00CB3FFF 03 5C0100 00", "-"),
        ("00CB3FFF 06 5C0401020304 00", "-"),
        ("00CB3FFF", "-"),
        (SELECT_DEFAULT, "74656D706C6174659000"),
        ("00A4040C 05 A000000308", "9000"),
        ("00A40400 05 A000000309", "6A82"),
        ("00A40400 09 A00000030800001001", "6A82"),
        (SELECT_OTHER, "-"),
        ("00A40400 04 A0000003", "-"),
        ("00A40000 05 A000000309", "-"),
        ("00A40402 05 A000000309", "-"),
        ("01A40400 05 A000000309", "-"),
        ("00A40400 11 A000000309000000000000000000000000", "-"),
        ("00FD000000", "0507049000"),
        ("00FD000100", "6D00"),
        ("00F8000000", "-"),
        ("00CADF3005", "6D00"),
        ("0087039B 04 7C028100", "-"),
    ];
    for (command, expected) in table {
        assert_eq!(answer(&knowledge, command), expected, "{command}");
    }
}

#[test]
fn what_needs_the_pin_is_refused_or_left_to_the_card() {
    let mut knowledge = knowledge();
    knowledge.announce(&state(2, true));
    assert_eq!((answer(&knowledge, STATUS), answer(&knowledge, PRINTED)), ("9000".into(), "-".into()));
    for (tries, status) in [(15, "63CF"), (200, "63CF"), (1, "63C1"), (0, "6983")] {
        knowledge.announce(&SecurityState { pin_tries_left: tries, ..state(3, false) });
        assert_eq!((answer(&knowledge, STATUS), answer(&knowledge, PRINTED)), (status.into(), "6982".into()));
    }
}

#[test]
fn without_an_announced_snapshot_nothing_is_answered() {
    let mut knowledge = knowledge();
    let silent = SecurityState { snapshot_digest: Vec::new(), ..state(2, false) };
    knowledge.announce(&silent);
    for command in [STATUS, PRINTED, SELECT_DEFAULT, "00CB3FFF 03 5C017E 00", "00CADF3005"] {
        assert_eq!(answer(&knowledge, command), "-", "{command}");
    }
    // And with one that is not held only what does not depend on it.
    let digest = vec![7; 32];
    knowledge.announce(&SecurityState { snapshot_digest: digest, ..state(3, false) });
    for command in [PRINTED, SELECT_DEFAULT, "00CB3FFF 03 5C017E 00", "00CADF3005"] {
        assert_eq!(answer(&knowledge, command), "-", "{command}");
    }
    assert_eq!(answer(&knowledge, STATUS), "63C3");
}

#[test]
fn a_response_can_make_everything_stale() {
    let mut knowledge = knowledge();
    knowledge.announce(&state(5, true));
    knowledge.response(&response(5), StatusWord::Success);
    assert_eq!(knowledge.security().pin_tries_left, Some(3));
    knowledge.response(&response(7), StatusWord::Success);
    assert_eq!(knowledge.security().pin_tries_left, None);
    assert_eq!((answer(&knowledge, STATUS), answer(&knowledge, PRINTED)), ("-".into(), "-".into()));
    knowledge.announce(&state(6, true));
    assert_eq!(answer(&knowledge, STATUS), "-", "still the old one");
    knowledge.announce(&state(7, true));
    assert_eq!(answer(&knowledge, STATUS), "9000");
    // Another snapshot after this command than the one that is held.
    let mut changed = response(7);
    changed.snapshot_digest = vec![7; 32];
    knowledge.response(&changed, StatusWord::Success);
    assert_eq!(answer(&knowledge, "00CB3FFF 03 5C017E 00"), "-");
}

#[test]
fn an_old_announcement_changes_nothing() {
    let mut knowledge = knowledge();
    knowledge.announce(&state(5, true));
    knowledge.announce(&state(4, false));
    assert!(knowledge.security().pin_verified);
    knowledge.announce(&state(6, false));
    assert!(!knowledge.security().pin_verified);
}

#[test]
fn what_was_verified_before_a_reset_is_not_after_it_whatever_still_comes_in() {
    let mut knowledge = knowledge();
    knowledge.announce(&state(2, true));
    knowledge.reset(EPOCH + 1, false);
    assert_eq!(answer(&knowledge, STATUS), "63C3");
    // Said before the phone heard of the reset; the tries are everybody's.
    knowledge.announce(&SecurityState { pin_tries_left: 2, ..state(3, true) });
    assert_eq!(answer(&knowledge, STATUS), "63C2");
    knowledge.announce(&SecurityState { epoch: EPOCH + 1, ..state(4, true) });
    assert_eq!(answer(&knowledge, STATUS), "9000");
}

#[test]
fn a_command_that_was_given_up_has_to_be_waited_for() {
    let mut knowledge = knowledge();
    knowledge.sent(&command("00200080 02 3132"));
    knowledge.reset(EPOCH + 1, true);
    assert_eq!(answer(&knowledge, STATUS), "-", "it may have cost a try");
    knowledge.announce(&state(2, false));
    assert_eq!(answer(&knowledge, STATUS), "-", "that may have been said before");
    relay(&mut knowledge, STATUS, StatusWord::RemainingTries(3));
    assert_eq!(answer(&knowledge, STATUS), "63C3");

    // What the phone says names the epoch under which it stands.
    for (epoch, expected) in [(EPOCH, "-"), (EPOCH + 1, "-"), (EPOCH + 2, "63C3")] {
        knowledge.reset(EPOCH + 2, true);
        knowledge.announce(&SecurityState { epoch, ..state(2, false) });
        assert_eq!(answer(&knowledge, STATUS), expected, "{epoch}");
    }
    assert_eq!(answer(&Knowledge::new(EPOCH), STATUS), "-", "a phone that says nothing");
}

#[test]
fn the_selected_application_is_followed() {
    let mut knowledge = knowledge();
    let is_known = |knowledge: &Knowledge| answer(knowledge, STATUS) != "-";
    relay(&mut knowledge, SELECT_OTHER, StatusWord::Success);
    assert!(!is_known(&knowledge));
    for command in [PRINTED, SELECT_DEFAULT, "00FD000000", "00CADF3005"] {
        assert_eq!(answer(&knowledge, command), "-", "{command}");
    }
    assert_eq!(answer(&knowledge, "00A40400 05 A000000309"), "6A82", "whichever is selected");
    relay(&mut knowledge, "00A40400 05 A000000309", StatusWord::NotFound);
    assert!(!is_known(&knowledge), "a SELECT that finds nothing changes nothing");
    relay(&mut knowledge, SELECT_DEFAULT, StatusWord::Success);
    assert!(is_known(&knowledge));
    relay(&mut knowledge, SELECT_OTHER, StatusWord::NotFound);
    assert!(is_known(&knowledge));
    for (command, status) in [
        ("00A40000 02 3F00", StatusWord::Success),
        ("00A40400 04 A0000003", StatusWord::Success),
        ("80A40400 05 A000000308", StatusWord::Success),
        (SELECT_DEFAULT, StatusWord::NoDiagnosis),
        (SELECT_DEFAULT, StatusWord::ConditionsNotSatisfied),
    ] {
        relay(&mut knowledge, SELECT_DEFAULT, StatusWord::Success);
        relay(&mut knowledge, command, status);
        assert!(!is_known(&knowledge), "{command}");
        relay(&mut knowledge, PRINTED, StatusWord::Success);
        assert!(!is_known(&knowledge));
    }
    knowledge.reset(EPOCH + 1, false);
    assert!(is_known(&knowledge), "the one after every reset");
}
