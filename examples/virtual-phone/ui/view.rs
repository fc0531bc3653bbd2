//! Draws the screen.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Clear, List, ListItem, Paragraph, Wrap},
};

use super::{
    app::{App, Tone},
    field::Field,
    form::Form,
    prompt::Prompt,
    screen::{CardView, LogView, PERMISSIONS, PermissionList, Screen, is_given},
    words,
};

/// The keys of each page. Every line fits into 80 columns.
const HELP: [&str; 2] = [
    "q quit  l lock  e card, enrol  v log  Enter permissions  r rename  F forget",
    "p pair by QR text  c by digits alone  x stop pairing  o let computers ask again",
];
const PERMISSIONS_HELP: [&str; 2] =
    ["up/down  Space changes it  Esc back", "c let it have the card for this connection"];
const LOG_HELP: [&str; 2] = ["up/down PgUp/PgDn  w write into a file  Esc back", ""];
const CARD_HELP: [&str; 2] = [
    "e enrol, or new keys  p change PIN  u change PUK  f forgot the PIN  Esc back",
    "up/down s request a certificate  i import one  R reset to nothing",
];
const FORM_HELP: [&str; 2] = ["up/down field  left/right choice  Enter goes on  Esc back", ""];

pub(super) fn draw(frame: &mut Frame<'_>, app: &App) {
    let rows = [Constraint::Min(4), Constraint::Length(1), Constraint::Length(2)];
    let [page, notice, help] = Layout::vertical(rows).areas(frame.area());
    match &app.screen {
        Screen::Main => draw_home(frame, page, app),
        Screen::Permissions(list) => draw_permissions(frame, page, app, list),
        Screen::Log(view) => frame.render_widget(log_widget(view, page), page),
        Screen::Card(view) => draw_card(frame, page, view),
    }
    frame.render_widget(Paragraph::new(notice_text(app)).style(Style::new().fg(Color::Yellow)), notice);
    if let Some(form) = &app.form {
        draw_form(frame, form);
    }
    let lines = match app.prompt() {
        Some(prompt) => {
            popup(frame, &title(prompt, app.prompts.len()), prompt_lines(prompt));
            [prompt.help(), ""]
        }
        None if app.form.is_some() => FORM_HELP,
        None => match &app.screen {
            Screen::Main => HELP,
            Screen::Permissions(_) => PERMISSIONS_HELP,
            Screen::Log(_) => LOG_HELP,
            Screen::Card(_) => CARD_HELP,
        },
    };
    let lines = lines.map(Line::from).to_vec();
    frame.render_widget(Paragraph::new(lines).style(Style::new().fg(Color::DarkGray)), help);
}

fn notice_text(app: &App) -> String {
    if app.form.is_some() && app.prompt().is_none() && !app.prompts.is_empty() {
        return "A computer is waiting for an answer: F2".to_owned();
    }
    match app.progress.filter(|_| app.notice.is_empty()) {
        Some(progress) => format!(
            "Making key {} of {}: {}, {} …",
            progress.number,
            progress.of,
            words::key(progress.slot.reference()),
            words::algorithm(progress.algorithm)
        ),
        None => app.notice.clone(),
    }
}

fn draw_home(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let hosts = u16::try_from(app.hosts.len().clamp(1, 6)).unwrap_or(6);
    let rows = [Constraint::Length(5), Constraint::Length(hosts + 2), Constraint::Min(3)];
    let [head, host_list, happened] = Layout::vertical(rows).areas(area);
    frame.render_widget(header(app), head);
    frame.render_widget(host_widget(app), host_list);
    frame.render_widget(happened_widget(app, happened), happened);
}

fn header(app: &App) -> Paragraph<'_> {
    let card = match (app.enrolled, app.locked) {
        (false, _) => "not enrolled yet: it has no PIN and answers as blocked. Press e",
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
            let held = if app.held.contains(&info.host) { "  may not ask until you press o" } else { "" };
            ListItem::new(format!("{mark} {}{held}", info.name)).style(marked(index == app.selected))
        };
        app.hosts.iter().enumerate().map(item).collect()
    };
    List::new(items).block(Block::bordered().title("Computers"))
}

fn happened_widget(app: &App, area: Rect) -> Paragraph<'_> {
    let rows = usize::from(area.height.saturating_sub(2));
    let skipped = app.happened.len().saturating_sub(rows);
    let lines: Vec<Line<'_>> = app.happened.iter().skip(skipped).map(happened_line).collect();
    Paragraph::new(lines).block(Block::bordered().title("What happens"))
}

fn happened_line((tone, text): &(Tone, String)) -> Line<'_> {
    let color = match tone {
        Tone::Plain => Color::Reset,
        Tone::Good => Color::Green,
        Tone::Bad => Color::Red,
        Tone::Quiet => Color::DarkGray,
    };
    Line::from(Span::styled(text.as_str(), Style::new().fg(color)))
}

fn draw_permissions(frame: &mut Frame<'_>, area: Rect, app: &App, list: &PermissionList) {
    let Some(info) = app.host(list.host) else { return };
    let item = |(line, text): (usize, &&'static str)| {
        let mark = if is_given(&info.permissions, line) { "[x]" } else { "[ ]" };
        ListItem::new(format!("{mark} {text}")).style(marked(line == list.at))
    };
    let items: Vec<ListItem<'_>> = PERMISSIONS.iter().enumerate().map(item).collect();
    frame.render_widget(List::new(items).block(Block::bordered().title(format!("{} may …", info.name))), area);
}

fn log_widget(view: &LogView, area: Rect) -> Paragraph<'_> {
    let rows = usize::from(area.height.saturating_sub(2));
    let end = view.entries.len().saturating_sub(view.below);
    let shown = view.entries.iter().take(end).skip(end.saturating_sub(rows));
    let lines: Vec<Line<'_>> = shown.map(|entry| Line::from(words::log_entry(entry))).collect();
    Paragraph::new(lines).block(Block::bordered().title(format!("Log ({} entries)", view.entries.len())))
}

fn draw_card(frame: &mut Frame<'_>, area: Rect, view: &CardView) {
    let tries = match (view.tries.are_over(), view.tries.pin) {
        (true, _) => "No PIN can be used: none was chosen yet, or PIN and PUK are blocked. Press e or f.".to_owned(),
        (false, 0) => format!("The PIN is blocked; the PUK has {} tries left.", view.tries.puk),
        (false, pin) => format!("PIN: {pin} tries left. PUK: {} tries left.", view.tries.puk),
    };
    let slot = |(index, content): (usize, &pocketcard_phone::enrolment::SlotContent)| {
        let key = content.algorithm.map_or("no key", words::algorithm);
        let certificate = if content.certificate.is_some() { "with certificate" } else { "no certificate" };
        let text = format!("{:<16} {key:<10} {certificate}", words::key(content.slot.reference()));
        Line::from(text).style(marked(index == view.at))
    };
    let head = [Line::from(tries), Line::default()];
    let lines: Vec<Line<'_>> = head.into_iter().chain(view.slots.iter().enumerate().map(slot)).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title("Card")), area);
}

fn draw_form(frame: &mut Frame<'_>, form: &Form) {
    let Some(page) = form.page() else { return };
    let mut lines: Vec<Line<'_>> = field_lines(&page.fields, form.at);
    if let Some(problem) = &form.problem {
        lines.push(Line::from(Span::styled(format!("Not yet: {problem}."), Style::new().fg(Color::Red))));
    }
    popup(frame, &page.title, lines);
}

fn field_lines(fields: &[Field], at: usize) -> Vec<Line<'static>> {
    let line = |(index, field): (usize, &Field)| {
        let mark = if index == at { "> " } else { "  " };
        Line::from(format!("{mark}{}: {}", field.label, field.shown()))
    };
    fields.iter().enumerate().map(line).collect()
}

fn title(prompt: &Prompt, waiting: usize) -> String {
    match waiting.saturating_sub(1) {
        0 => prompt.title().to_owned(),
        more => format!("{} ({more} more waiting)", prompt.title()),
    }
}

fn prompt_lines(prompt: &Prompt) -> Vec<Line<'_>> {
    let mut lines = match prompt {
        Prompt::Digits { digits, host } => {
            let digits = Line::from(digits.as_str()).centered().style(Style::new().add_modifier(Modifier::BOLD));
            vec![digits, Line::from(format!("{host} wants to pair."))]
        }
        Prompt::Approval { host, text, .. } => vec![Line::from(format!("{host} wants to {text}."))],
        Prompt::Owner { host, .. } => vec![Line::from(format!("{host} wants to know that it is you."))],
        Prompt::Over => vec![Line::from("The computer no longer waits for an answer.")],
        Prompt::Pin { entry, .. } => {
            let wish = Line::from(format!("{} wants to {}.", entry.host, words::pin_wish(entry.purpose)));
            let mut lines = vec![wish, Line::from(format!("{} tries left.", entry.tries_left))];
            lines.extend(field_lines(&entry.fields, entry.at));
            lines
        }
    };
    lines.push(Line::from(prompt.help()).style(Style::new().fg(Color::DarkGray)));
    lines
}

fn marked(is_marked: bool) -> Style {
    if is_marked { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() }
}

fn popup(frame: &mut Frame<'_>, title: &str, lines: Vec<Line<'_>>) {
    let area = frame.area();
    let width = area.width.min(64);
    let room = usize::from(width.saturating_sub(2)).max(1);
    // A line that is broken between words may need one more than its length says.
    let rows: usize =
        lines.iter().map(|line| if line.width() <= room { 1 } else { line.width().div_ceil(room) + 1 }).sum();
    let height = u16::try_from(rows).unwrap_or(u16::MAX).saturating_add(2).min(area.height);
    let x = area.x + (area.width - width) / 2;
    let y = area.y + (area.height - height) / 2;
    let area = Rect { x, y, width, height };
    frame.render_widget(Clear, area);
    let block = Block::bordered().title(title.to_owned()).border_style(Style::new().fg(Color::Yellow));
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), area);
}

#[cfg(test)]
pub(super) const EVERY_HELP: [[&str; 2]; 5] = [HELP, PERMISSIONS_HELP, LOG_HELP, CARD_HELP, FORM_HELP];
