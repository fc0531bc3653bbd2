//! What the owner is asked and types, without a phone.

use async_channel::Receiver;
use pocketcard_phone::{
    ApprovalDecision, ApprovalPurpose, ApprovalRequest, HostId, OwnerCheck, OwnerDecision, PinAnswer, PinPurpose,
    PinRequest,
};
use ratatui::crossterm::event::KeyCode;

use super::{super::view::EVERY_HELP, app, press, screen, screen_of, write};
use crate::{
    approver::{Asked, Question},
    ui::{
        app::App,
        form::{Form, Purpose},
        prompt::Prompt,
        wish::Wish,
    },
};

const HOST: HostId = HostId::new([1; 32]);

pub(super) fn approval(app: &mut App, id: u64, host: &str) -> Receiver<ApprovalDecision> {
    let (sender, answer) = async_channel::bounded(1);
    let purpose = ApprovalPurpose::Sign;
    let request = ApprovalRequest { host: HOST, host_name: host.into(), key: 0x9A, purpose, input_digest: [0; 32] };
    app.question(Question::Asked { id, asked: Asked::Approval(request, sender) });
    answer
}

pub(super) fn pin(app: &mut App, id: u64, purpose: PinPurpose) -> Receiver<PinAnswer> {
    let (sender, answer) = async_channel::bounded(1);
    let request = PinRequest { host: HOST, host_name: "laptop".into(), purpose, tries_left: 3 };
    app.question(Question::Asked { id, asked: Asked::Pin(request, sender) });
    answer
}

#[test]
fn a_phone_without_a_pin_says_so() {
    assert!(screen(&app(false)).contains("not enrolled yet"));
    assert!(!screen(&app(true)).contains("not enrolled yet"));
}

#[test]
fn every_key_is_named_on_a_small_terminal() {
    assert!(EVERY_HELP.as_flattened().iter().all(|line| line.len() <= 80));
    let shown = screen_of(&app(true), 80, 24);
    for line in EVERY_HELP[0] {
        assert!(shown.contains(line), "{shown}");
    }
}

#[test]
fn digits_are_shown_and_a_typed_code_is_not() {
    let mut app = app(true);
    app.prompts.push_back(Prompt::Digits { digits: "042137".to_owned(), host: "laptop".to_owned() });
    let shown = screen(&app);
    assert!(shown.contains("042137") && shown.contains("laptop wants to pair."));
    assert!(matches!(press(&mut app, KeyCode::Char('y')), Some(Wish::Confirm(true))));
    app.form = Some(Form::new(Purpose::Scan));
    write(&mut app, "pocketcard:secret");
    let shown = screen(&app);
    assert!(!shown.contains("secret") && shown.contains("17 characters"));
    let Some(Wish::Scan(text)) = press(&mut app, KeyCode::Enter) else { panic!("not scanned") };
    assert_eq!(&**text, "pocketcard:secret");
}

#[test]
fn pasted_text_is_a_code_and_never_an_answer() {
    let mut app = app(true);
    assert!(matches!(app.pasted("pocketcard:\r\nx"), Some(Wish::Scan(text)) if **text == *"pocketcard:x"));
    let answer = approval(&mut app, 1, "laptop");
    assert!(app.pasted("y").is_none());
    assert!(answer.is_empty() && app.prompt().is_some());
}

#[test]
fn questions_wait_in_line_and_go_away_when_they_are_gone() {
    let mut app = app(true);
    let [first, second, third] = [1, 2, 3].map(|id| approval(&mut app, id, &format!("laptop {id}")));
    let shown = screen(&app);
    assert!(
        shown.contains("laptop 1 wants to sign with key 9A (login).") && shown.contains("2 more waiting"),
        "{shown}"
    );
    app.question(Question::Gone { id: 2 });
    assert!(screen(&app).contains("1 more waiting"));
    assert!(press(&mut app, KeyCode::Char('x')).is_none());
    assert!(first.is_empty(), "only y and n answer");
    press(&mut app, KeyCode::Char('y'));
    assert_eq!(first.try_recv(), Ok(ApprovalDecision::Approved));
    assert!(screen(&app).contains("laptop 3 wants"));
    press(&mut app, KeyCode::Char('n'));
    assert_eq!(third.try_recv(), Ok(ApprovalDecision::Denied));
    assert!(second.is_empty() && app.prompt().is_none());
}

#[test]
fn what_is_typed_for_a_question_that_is_over_goes_nowhere() {
    let mut app = app(true);
    let _pin = pin(&mut app, 1, PinPurpose::Unblock);
    write(&mut app, "ab");
    app.question(Question::Gone { id: 1 });
    assert!(screen(&app).contains("no longer waits"), "{}", screen(&app));
    // Each of these does something on the page behind: it locks, pairs, and ends the program.
    write(&mut app, "lcoFx");
    assert!(!app.is_at_home());
    press(&mut app, KeyCode::Esc);
    assert!(app.is_at_home());

    let _first = approval(&mut app, 2, "laptop 2");
    let second = approval(&mut app, 3, "laptop 3");
    app.question(Question::Gone { id: 2 });
    press(&mut app, KeyCode::Char('y'));
    assert!(second.is_empty(), "the yes was for the first");
    press(&mut app, KeyCode::Enter);
    press(&mut app, KeyCode::Char('n'));
    assert_eq!(second.try_recv(), Ok(ApprovalDecision::Denied));

    let _third = approval(&mut app, 4, "laptop 4");
    app.question(Question::Gone { id: 4 });
    assert!(app.is_at_home(), "where nothing is typed and nothing waits there is nothing to say");
}

#[test]
fn a_question_does_not_take_what_is_typed_into_a_form() {
    let mut app = app(true);
    app.form = Some(Form::new(Purpose::Rename(HOST)));
    write(&mut app, "m");
    let answer = approval(&mut app, 1, "laptop");
    write(&mut app, "y");
    assert!(answer.is_empty());
    let shown = screen(&app);
    assert!(shown.contains("Name: my") && shown.contains("F2") && !shown.contains("Approve?"), "{shown}");
    press(&mut app, KeyCode::F(2));
    assert!(screen(&app).contains("Approve?"));
    press(&mut app, KeyCode::Char('n'));
    assert_eq!(answer.try_recv(), Ok(ApprovalDecision::Denied));
    assert!(screen(&app).contains("Name: my"), "the form is still there");
    // Nor does the next one.
    approval(&mut app, 2, "laptop");
    assert!(!screen(&app).contains("Approve?"));
}

#[test]
fn a_pin_is_typed_unseen() {
    for (purpose, asked) in [
        (PinPurpose::Verify, "laptop wants to use keys that ask for the PIN."),
        (PinPurpose::Change, "laptop wants to change the PIN."),
        (PinPurpose::ChangePuk, "laptop wants to change the PUK."),
        (PinPurpose::Unblock, "laptop wants to set a new PIN with the PUK."),
    ] {
        let mut app = app(true);
        let answer = pin(&mut app, 1, purpose);
        let shown = screen(&app);
        assert!(shown.contains(asked) && shown.contains("3 tries left."), "{shown}");
        let typed: &[&str] = if purpose.asks_for_new() { &["24681357", "13572468", "99999999"] } else { &["24681357"] };
        for value in typed {
            assert!(answer.is_empty());
            write(&mut app, value);
            let shown = screen(&app);
            assert!(shown.contains("••••••••") && typed.iter().all(|value| !shown.contains(value)), "{shown}");
            press(&mut app, KeyCode::Enter);
        }
        let PinAnswer::Entered(entered) = answer.try_recv().unwrap() else { panic!("not entered") };
        assert_eq!(&**entered.current, "24681357");
        let new = entered.new.map(|new| (new.value.to_string(), new.repeated.to_string()));
        let expected = purpose.asks_for_new().then(|| ("13572468".to_owned(), "99999999".to_owned()));
        assert_eq!(new, expected);
        assert!(app.prompt().is_none());
        let remembered: String = app.happened.iter().map(|(_, text)| text.as_str()).collect();
        assert!(!remembered.contains("24681357") && !app.notice.contains("24681357"));
    }
}

#[test]
fn an_entry_is_cancelled_and_one_that_is_gone_takes_what_was_typed_along() {
    let mut app = app(true);
    let cancelled = pin(&mut app, 1, PinPurpose::Verify);
    write(&mut app, "1234");
    press(&mut app, KeyCode::Esc);
    assert!(matches!(cancelled.try_recv(), Ok(PinAnswer::Cancelled)));
    let gone = pin(&mut app, 2, PinPurpose::Verify);
    write(&mut app, "1234");
    let next = pin(&mut app, 3, PinPurpose::Verify);
    app.question(Question::Gone { id: 2 });
    assert!(gone.is_empty() && gone.is_closed());
    // The rest of it, from fingers that are faster than eyes.
    write(&mut app, "56");
    press(&mut app, KeyCode::Enter);
    assert!(next.is_empty() && !screen(&app).contains('•'), "the next one begins empty");
    write(&mut app, "5678");
    press(&mut app, KeyCode::Enter);
    assert!(matches!(next.try_recv(), Ok(PinAnswer::Entered(entered)) if *entered.current == "5678"));
}

#[test]
fn the_stand_in_for_a_sensor_is_answered() {
    for (key, expected) in [
        (KeyCode::Char('y'), OwnerDecision::Matched),
        (KeyCode::Char('n'), OwnerDecision::NotMatched),
        (KeyCode::Esc, OwnerDecision::Cancelled),
    ] {
        let mut app = app(true);
        let (sender, answer) = async_channel::bounded(1);
        let check = OwnerCheck { host: HOST, host_name: "laptop".into() };
        app.question(Question::Asked { id: 1, asked: Asked::Owner(check, sender) });
        assert!(screen(&app).contains("laptop wants to know that it is you."));
        press(&mut app, key);
        assert_eq!(answer.try_recv(), Ok(expected));
    }
}

#[test]
fn a_long_name_hides_neither_the_operation_nor_the_answers() {
    let mut app = app(true);
    let _answer = approval(&mut app, 1, &"laptop ".repeat(9));
    let shown = screen_of(&app, 60, 24);
    assert!(shown.contains("9A (login)") && shown.contains("y yes    n no"), "{shown}");
}

#[test]
fn a_tiny_terminal_is_no_error() {
    let mut app = app(true);
    app.prompts.push_back(Prompt::Digits { digits: "042137".to_owned(), host: "laptop".to_owned() });
    let _answer = pin(&mut app, 1, PinPurpose::Change);
    for _ in 0..3 {
        for (width, height) in [(1, 1), (5, 3), (20, 8)] {
            screen_of(&app, width, height);
        }
        app.prompts.pop_front();
        app.form = Some(Form::new(Purpose::Enrol));
    }
}
