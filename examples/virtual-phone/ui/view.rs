//! Draws the screen.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Clear, List, ListItem, Paragraph, Wrap},
};

use super::app::{App, Prompt, Tone};

/// Fits into 80 columns.
const HELP: &str = "q quit  p pair by QR text  c by digits alone  x stop  l lock  up/down F forget";

pub(super) fn draw(frame: &mut Frame<'_>, app: &App) {
    let hosts = u16::try_from(app.hosts.len().clamp(1, 6)).unwrap_or(6);
    let rows = [
        Constraint::Length(5),
        Constraint::Length(hosts + 2),
        Constraint::Min(4),
        Constraint::Length(1),
        Constraint::Length(1),
    ];
    let [head, host_list, log, notice, help] = Layout::vertical(rows).areas(frame.area());
    frame.render_widget(header(app), head);
    frame.render_widget(host_widget(app), host_list);
    frame.render_widget(log_widget(app, log), log);
    frame.render_widget(Paragraph::new(app.notice.as_str()).style(Style::new().fg(Color::Yellow)), notice);
    frame.render_widget(Paragraph::new(HELP).style(Style::new().fg(Color::DarkGray)), help);
    if let Some(text) = &app.typing {
        let text = format!("{} characters so far. Enter ends it, Esc gives up.", text.chars().count());
        popup(frame, "Paste or type the text below the QR code", vec![Line::from(text)]);
    } else if let Some(prompt) = app.prompts.front() {
        popup(frame, question(prompt), answer_lines(prompt));
    }
}

fn header(app: &App) -> Paragraph<'_> {
    let card = match (app.enrolled, app.locked) {
        (false, _) => "not enrolled yet: it has no PIN and answers as blocked",
        (true, true) => "locked: no computer sees it",
        (true, false) => "in the reader of every connected computer",
    };
    let approvals = if app.auto_approve { "given without asking (test)" } else { "asked here" };
    let lines = vec![
        Line::from(format!("Card: {card}. Approvals: {approvals}.")),
        Line::from(format!("Pair with: pocketcard pair --connect {}", app.address)),
        Line::from(format!("State: {}", app.state)),
    ];
    Paragraph::new(lines).block(Block::bordered().title(app.name.as_str()))
}

fn host_widget(app: &App) -> List<'_> {
    let items: Vec<ListItem<'_>> = if app.hosts.is_empty() {
        vec![ListItem::new("No computer is paired yet.").style(Style::new().fg(Color::DarkGray))]
    } else {
        let item = |(index, info): (usize, &pocketcard_phone::runtime::HostInfo)| {
            let mark = if info.connected { "●" } else { "○" };
            let style =
                if index == app.selected { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
            ListItem::new(format!("{mark} {}", info.name)).style(style)
        };
        app.hosts.iter().enumerate().map(item).collect()
    };
    List::new(items).block(Block::bordered().title("Computers"))
}

fn log_widget(app: &App, area: Rect) -> Paragraph<'_> {
    let rows = usize::from(area.height.saturating_sub(2));
    let lines: Vec<Line<'_>> = app.log.iter().skip(app.log.len().saturating_sub(rows)).map(log_line).collect();
    Paragraph::new(lines).block(Block::bordered().title("What happens"))
}

fn log_line((tone, text): &(Tone, String)) -> Line<'_> {
    let color = match tone {
        Tone::Plain => Color::Reset,
        Tone::Good => Color::Green,
        Tone::Bad => Color::Red,
        Tone::Quiet => Color::DarkGray,
    };
    Line::from(Span::styled(text.as_str(), Style::new().fg(color)))
}

fn question(prompt: &Prompt) -> &'static str {
    match prompt {
        Prompt::Digits { .. } => "Does the computer show the same digits?",
        Prompt::Approval { .. } => "Approve?",
    }
}

fn answer_lines(prompt: &Prompt) -> Vec<Line<'_>> {
    let keys = Line::from("y yes    n no");
    match prompt {
        Prompt::Digits { digits, host } => {
            vec![Line::from(digits.as_str()).bold_centered(), Line::from(format!("{host} wants to pair.")), keys]
        }
        Prompt::Approval { host, text, .. } => vec![Line::from(format!("{host} wants to {text}.")), keys],
    }
}

fn popup(frame: &mut Frame<'_>, title: &str, lines: Vec<Line<'_>>) {
    let area = frame.area();
    let width = area.width.min(60);
    let height = u16::try_from(lines.len()).unwrap_or(3).saturating_add(2).min(area.height);
    let x = area.x + (area.width - width) / 2;
    let y = area.y + (area.height - height) / 2;
    let area = Rect { x, y, width, height };
    frame.render_widget(Clear, area);
    let block = Block::bordered().title(title.to_owned()).border_style(Style::new().fg(Color::Yellow));
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: true }).block(block), area);
}

trait BoldCentered {
    fn bold_centered(self) -> Self;
}

impl BoldCentered for Line<'_> {
    fn bold_centered(self) -> Self {
        self.centered().style(Style::new().add_modifier(Modifier::BOLD))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::arguments::Arguments;

    fn screen(app: &App) -> String {
        let mut terminal = Terminal::new(TestBackend::new(100, 24)).unwrap();
        terminal.draw(|frame| draw(frame, app)).unwrap();
        terminal.backend().to_string()
    }

    fn app(enrolled: bool) -> App {
        let arguments = Arguments::parse_from(["virtual-phone", "--state", "/tmp/x", "--listen", "unix:/tmp/x/s"]);
        App::new(&arguments, "unix:/tmp/x/s", enrolled)
    }

    #[test]
    fn a_phone_without_a_pin_says_so() {
        assert!(screen(&app(false)).contains("not enrolled yet"));
        assert!(!screen(&app(true)).contains("not enrolled yet"));
    }

    #[test]
    fn every_key_is_named_on_a_small_terminal() {
        assert!(HELP.len() <= 80);
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(frame, &app(true))).unwrap();
        assert!(terminal.backend().to_string().contains(HELP));
    }

    #[test]
    fn digits_are_shown_and_a_typed_code_is_not() {
        let mut app = app(true);
        app.prompts.push_back(Prompt::Digits { digits: "042137".to_owned(), host: "laptop".to_owned() });
        let shown = screen(&app);
        assert!(shown.contains("042137") && shown.contains("laptop wants to pair."));
        app.typing = Some("pocketcard:secret".to_owned().into());
        let shown = screen(&app);
        assert!(!shown.contains("secret") && shown.contains("17 characters"));
    }

    #[test]
    fn a_tiny_terminal_is_no_error() {
        let mut app = app(true);
        app.prompts.push_back(Prompt::Digits { digits: "042137".to_owned(), host: "laptop".to_owned() });
        for (width, height) in [(1, 1), (5, 3), (20, 8)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| draw(frame, &app)).unwrap();
        }
    }
}
