//! What the owner types.

use pocketcard_phone::{ApprovalDecision, runtime::Phone};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use zeroize::Zeroizing;

use super::app::{App, Prompt};

/// Longest QR text that can be typed, in bytes.
const TYPED: usize = 1024;

pub(super) fn is_quit(app: &App, key: KeyEvent) -> bool {
    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    control_c || app.typing.is_none() && app.prompts.is_empty() && key.code == KeyCode::Char('q')
}

pub(super) async fn pressed(app: &mut App, phone: &Phone, key: KeyEvent) {
    if key.kind == KeyEventKind::Release {
        return;
    }
    if app.typing.is_some() {
        typed(app, phone, key.code).await;
        return;
    }
    if !app.prompts.is_empty() {
        match key.code {
            KeyCode::Char('y') => answer(app, phone, true).await,
            KeyCode::Char('n') | KeyCode::Esc => answer(app, phone, false).await,
            _ => {}
        }
        return;
    }
    app.notice.clear();
    match key.code {
        // With all its room at once: a text that grows leaves copies behind.
        KeyCode::Char('p') => app.typing = Some(Zeroizing::new(String::with_capacity(TYPED))),
        KeyCode::Char('c') => match phone.compare().await {
            Ok(()) => app.notice = "Waiting two minutes for a computer that pairs without a code.".to_owned(),
            Err(error) => app.notice = error.to_string(),
        },
        KeyCode::Char('x') => phone.cancel_pairing(),
        KeyCode::Char('l') if app.locked => phone.unlock_card(),
        KeyCode::Char('l') => phone.lock_card(),
        KeyCode::Up => app.selected = app.selected.saturating_sub(1),
        KeyCode::Down if app.selected + 1 < app.hosts.len() => app.selected += 1,
        KeyCode::Char('F') => {
            if let Some(host) = app.selected_host().map(|info| info.host)
                && let Err(error) = phone.forget(host).await
            {
                app.notice = error.to_string();
            }
        }
        _ => {}
    }
}

/// Pasted text is a QR text, wherever it is pasted.
pub(super) async fn pasted(app: &mut App, phone: &Phone, text: &str) {
    app.typing = None;
    scan(app, phone, text).await;
}

async fn typed(app: &mut App, phone: &Phone, key: KeyCode) {
    let Some(text) = &mut app.typing else { return };
    match key {
        KeyCode::Char(character) if text.len() + character.len_utf8() <= TYPED => text.push(character),
        KeyCode::Backspace => drop(text.pop()),
        KeyCode::Esc => app.typing = None,
        KeyCode::Enter => {
            let text = app.typing.take().unwrap_or_default();
            scan(app, phone, &text).await;
        }
        _ => {}
    }
}

async fn scan(app: &mut App, phone: &Phone, text: &str) {
    app.notice = match phone.scan(text.trim()).await {
        Ok(host) => format!("Waiting two minutes for {host}."),
        Err(error) => error.to_string(),
    };
}

async fn answer(app: &mut App, phone: &Phone, agree: bool) {
    match app.prompts.pop_front() {
        Some(Prompt::Approval { answer, .. }) => {
            let decision = if agree { ApprovalDecision::Approved } else { ApprovalDecision::Denied };
            let _ = answer.try_send(decision);
        }
        Some(Prompt::Digits { .. }) => {
            app.notice = match phone.confirm_pairing(agree).await {
                Ok(()) if agree => "Now confirm at the computer too.".to_owned(),
                Ok(()) => String::new(),
                Err(error) => error.to_string(),
            };
        }
        None => {}
    }
}
