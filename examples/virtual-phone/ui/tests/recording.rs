//! The recording in `docs/images`: what the terminal shows while a computer is paired, approved, denied and read about in the log.
//! As text, and as a picture that moves. Drawn anew by this test, which fails when they are not what the program shows.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use pocketcard_phone::{
    HostId, PinPurpose,
    card::{Caller, CardEvent, CommandLine, Deed, Permissions, piv::Slot},
    runtime::{HostInfo, LogEntry, LogOperation, LogResult, LoggedHost, PhoneEvent},
};
use pocketcard_protocol::{apdu::StatusWord, messages::RefusalReason};
use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::{Buffer, Cell},
    crossterm::event::KeyCode,
    style::{Color, Modifier},
};

use super::{
    super::{
        app::App,
        prompt::Prompt,
        view,
        wish::{Outcome, Wish},
    },
    app, press,
    questions::{approval, pin},
    write,
};
use crate::approver::Question;

const WIDTH: u16 = 80;
const HEIGHT: u16 = 20;

/// How long a picture stays.
const PICTURE_SECONDS: usize = 3;

/// Size of a character in the picture.
const CELL: (usize, usize) = (8, 17);

const LAPTOP: HostId = HostId::new([1; 32]);

/// Writes the files anew instead of comparing them.
const UPDATE: &str = "POCKETCARD_UPDATE_RECORDING";

struct Recording {
    app: App,
    pictures: Vec<(&'static str, Buffer)>,
    seconds: u64,
    log: Vec<LogEntry>,
}

impl Recording {
    fn show(&mut self, caption: &'static str) {
        let mut terminal = Terminal::new(TestBackend::new(WIDTH, HEIGHT)).unwrap();
        terminal.draw(|frame| view::draw(frame, &self.app)).unwrap();
        self.pictures.push((caption, terminal.backend().buffer().clone()));
    }

    fn happens(&mut self, event: CardEvent) {
        self.app.happened(&PhoneEvent::Card(event));
    }

    /// A command of the laptop's, and its entry in the log.
    fn command(&mut self, name: &'static str, subject: &str, deed: Deed, status: StatusWord, result: LogResult) {
        let caller = Caller::Host { id: LAPTOP, name: "laptop".to_owned() };
        let command = CommandLine { name, subject: subject.to_owned(), deed: Some(deed) };
        let duration = Duration::from_millis(2400);
        let (refused, given_up, asked) = (None, false, true);
        self.happens(CardEvent::Command { caller, command, status, refused, given_up, asked, duration });
        self.logs(LogOperation::Card(deed), result, true);
    }

    fn logs(&mut self, operation: LogOperation, result: LogResult, asked: bool) {
        self.seconds += 7;
        let at = UNIX_EPOCH + Duration::from_secs(1_795_600_000 + self.seconds);
        let host = Some(LoggedHost { host: LAPTOP, name: "laptop".to_owned() });
        self.log.push(LogEntry { at, host, operation, result, asked });
    }
}

fn record() -> Vec<(&'static str, Buffer)> {
    let mut app = app(true);
    app.address = "unix:/run/user/1000/pocketcard/phone.sock".to_owned();
    app.state = "/home/ann/.local/share/pocketcard/phone".to_owned();
    let mut recording = Recording { app, pictures: Vec::new(), seconds: 0, log: Vec::new() };

    press(&mut recording.app, KeyCode::Char('p'));
    write(&mut recording.app, &"x".repeat(97));
    recording.show("Pairing: the text below the computer's QR code is pasted. It is a secret, and not shown.");
    let Some(Wish::Scan(_)) = press(&mut recording.app, KeyCode::Enter) else { panic!("not scanned") };
    recording.app.prompts.push_back(Prompt::Digits { digits: "042137".to_owned(), host: "laptop".to_owned() });
    recording.show("Pairing: both show the same digits. y here, and the same at the computer.");
    let Some(Wish::Confirm(true)) = press(&mut recording.app, KeyCode::Char('y')) else { panic!("not confirmed") };
    recording.app.happened(&PhoneEvent::Paired { host: LAPTOP, name: "laptop".to_owned() });
    recording.app.happened(&PhoneEvent::Connected { host: LAPTOP, name: "laptop".to_owned() });
    let (name, permissions) = ("laptop".to_owned(), Permissions::new_host());
    recording.app.set_hosts(vec![HostInfo { host: LAPTOP, name, paired_at: UNIX_EPOCH, connected: true, permissions }]);
    recording.logs(LogOperation::Pair, LogResult::Done, false);
    recording.logs(LogOperation::Connect, LogResult::Done, false);
    let software = "pocketcardd 0.1.0".to_owned();
    recording.happens(CardEvent::SessionOpened { host: LAPTOP, host_name: "laptop".into(), software, resumed: false });

    let _answer = pin(&mut recording.app, 1, PinPurpose::Verify);
    write(&mut recording.app, "246813");
    recording.show("ssh on the laptop needs the PIN. It is typed on the phone; the laptop never sees it.");
    press(&mut recording.app, KeyCode::Enter);
    recording.command("VERIFY", "80", Deed::VerifyPin, StatusWord::Success, LogResult::Done);
    let _answer = approval(&mut recording.app, 2, "laptop");
    recording.show("An approval: who asks, which key, what for.");
    press(&mut recording.app, KeyCode::Char('y'));
    recording.app.question(Question::Gone { id: 2 });
    let sign = Deed::Sign(Slot::Authentication);
    recording.command("GENERAL AUTHENTICATE", "9A", sign, StatusWord::Success, LogResult::Done);
    recording.show("Approved: ssh is in.");

    let _answer = approval(&mut recording.app, 3, "laptop");
    recording.show("Nobody started anything at the laptop, and it asks again.");
    press(&mut recording.app, KeyCode::Char('n'));
    recording.app.question(Question::Gone { id: 3 });
    let denied = LogResult::Refused(RefusalReason::Denied);
    recording.command("GENERAL AUTHENTICATE", "9A", sign, StatusWord::SecurityStatusNotSatisfied, denied);
    recording.show("Denied: the program on the laptop gets 6982, and no signature.");

    let Some(Wish::ReadLog) = press(&mut recording.app, KeyCode::Char('v')) else { panic!("no log") };
    let log = recording.log.clone();
    recording.app.became(Outcome::Log(log));
    recording.show("The log.");
    recording.pictures
}

fn text(pictures: &[(&str, Buffer)]) -> String {
    let mut text = String::new();
    for (number, (caption, buffer)) in pictures.iter().enumerate() {
        writeln!(text, "[{} of {}] {caption}", number + 1, pictures.len()).unwrap();
        for row in rows(buffer) {
            let line: String = row.iter().map(Cell::symbol).collect();
            writeln!(text, "{}", line.trim_end()).unwrap();
        }
        text.push('\n');
    }
    text
}

fn rows(buffer: &Buffer) -> impl Iterator<Item = &[Cell]> {
    buffer.content.chunks(usize::from(WIDTH))
}

/// One picture after the other, for ever. Where nothing moves, the fourth is seen: an approval.
fn svg(pictures: &[(&str, Buffer)]) -> String {
    let (width, height) = (usize::from(WIDTH) * CELL.0 + 20, (usize::from(HEIGHT) + 2) * CELL.1 + 20);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"'DejaVu Sans Mono', ui-monospace, monospace\" font-size=\"13.3\">\n\
         <title>The virtual phone in a terminal: pairing, a PIN, an approval, a denial, the log</title>\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"#16181d\"/>\n"
    );
    let count = pictures.len();
    for (number, (caption, buffer)) in pictures.iter().enumerate() {
        let visibility = if number == 3 { "visible" } else { "hidden" };
        let at = |number: usize| format!("{:.4}", number as f64 / count as f64);
        let (values, times) = match number {
            0 => ("visible;hidden", format!("0;{}", at(1))),
            last if last + 1 == count => ("hidden;visible", format!("0;{}", at(last))),
            _ => ("hidden;visible;hidden", format!("0;{};{}", at(number), at(number + 1))),
        };
        writeln!(svg, "<g visibility=\"{visibility}\">").unwrap();
        writeln!(
            svg,
            "<animate attributeName=\"visibility\" calcMode=\"discrete\" values=\"{values}\" keyTimes=\"{times}\" dur=\"{}s\" \
             repeatCount=\"indefinite\"/>",
            count * PICTURE_SECONDS
        )
        .unwrap();
        for (row, cells) in rows(buffer).enumerate() {
            let mut column = 0;
            for run in cells.chunk_by(|left, right| style(left) == style(right)) {
                write_run(&mut svg, run, column, row);
                column += run.len();
            }
        }
        let y = (usize::from(HEIGHT) + 1) * CELL.1 + 20;
        writeln!(svg, "<text x=\"10\" y=\"{y}\" fill=\"#9aa4b2\">{}</text>", escaped(caption)).unwrap();
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn style(cell: &Cell) -> (Color, Modifier) {
    (cell.fg, cell.modifier)
}

fn write_run(svg: &mut String, run: &[Cell], column: usize, row: usize) {
    let text: String = run.iter().map(Cell::symbol).collect();
    let (color, modifier) = run.first().map(style).unwrap();
    let color = match color {
        Color::Green => "#8bd49c",
        Color::Red => "#f07178",
        Color::Yellow => "#ffcb6b",
        Color::DarkGray => "#7d8590",
        _ => "#d8dee9",
    };
    let (x, y, width) = (10 + column * CELL.0, 10 + row * CELL.1, run.len() * CELL.0);
    let color = if modifier.contains(Modifier::REVERSED) {
        writeln!(svg, "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{}\" fill=\"{color}\"/>", CELL.1).unwrap();
        "#16181d"
    } else {
        color
    };
    if text.trim().is_empty() {
        return;
    }
    let weight = if modifier.contains(Modifier::BOLD) { " font-weight=\"bold\"" } else { "" };
    writeln!(
        svg,
        "<text x=\"{x}\" y=\"{}\" textLength=\"{width}\" lengthAdjust=\"spacingAndGlyphs\" fill=\"{color}\"{weight} \
         xml:space=\"preserve\">{}</text>",
        y + 13,
        escaped(&text)
    )
    .unwrap();
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images")
}

#[test]
fn the_recording_in_the_documentation_is_what_the_terminal_shows() {
    let pictures = record();
    let text = text(&pictures);
    for shown in ["wants to pair.", "wants to sign with key 9A (login).", "6982", "denied, asked here"] {
        assert!(text.contains(shown), "{shown:?} is not in the recording");
    }
    assert!(!text.contains("246813") && !text.contains("xxx"), "a secret is in the recording");
    for (name, content) in [("virtual-phone.txt", text), ("virtual-phone.svg", svg(&pictures))] {
        let file = folder().join(name);
        if std::env::var_os(UPDATE).is_some() {
            std::fs::create_dir_all(folder()).unwrap();
            std::fs::write(&file, content).unwrap();
            continue;
        }
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(kept == content, "{} is not what the program shows; run the test with {UPDATE}=1", file.display());
    }
}
