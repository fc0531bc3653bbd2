//! Questions that the owner answers by typing: pages of fields, checked one by one.

use pocketcard_phone::{
    HostId, KeyAlgorithm,
    card::piv::Slot,
    enrolment::{NewKey, SLOTS},
};
use ratatui::crossterm::event::KeyCode;
use zeroize::Zeroizing;

use super::{
    field::Field,
    wish::{Typed, Wish},
};
use crate::enrolment as owner;

const ALGORITHMS: [&str; 4] = ["P-256", "P-384", "RSA-2048", "as it is"];

/// What the answers are for.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Scan,
    Rename(HostId),
    ExportLog,
    /// From nothing: PIN, PUK, names, keys.
    Enrol,
    /// The same with the PIN that there is.
    NewKeys,
    ChoosePin,
    ChangePin,
    ChangePuk,
    Request(Slot),
    Import(Slot),
    FactoryReset,
}

pub(super) struct Page {
    pub(super) title: String,
    pub(super) fields: Vec<Field>,
    check: fn(&Page) -> Result<(), String>,
}

pub(super) struct Form {
    purpose: Purpose,
    pages: Vec<Page>,
    page: usize,
    /// The field that takes what is typed.
    pub(super) at: usize,
    /// Why the page was not taken.
    pub(super) problem: Option<String>,
}

pub(super) enum Pressed {
    Nothing,
    Closed,
    Finished(Wish),
}

impl Form {
    pub(super) fn new(purpose: Purpose) -> Self {
        let pages = match purpose {
            Purpose::Scan => vec![page("Paste or type the text below the QR code", vec![Field::hidden("Text")])],
            Purpose::Rename(_) => vec![page("A name for this computer", vec![Field::text("Name", "")])],
            Purpose::ExportLog => vec![page("Write the log into a new file", vec![Field::text("File", "")])],
            Purpose::Enrol => {
                vec![new_pin("Choose PIN and PUK (1 of 3)"), names("Names (2 of 3)"), keys("Keys (3 of 3)")]
            }
            Purpose::NewKeys => vec![pin("PIN (1 of 3)"), names("Names (2 of 3)"), keys("Keys (3 of 3)")],
            Purpose::ChoosePin => vec![new_pin("Choose a new PIN and a new PUK")],
            Purpose::ChangePin => vec![change_pin()],
            Purpose::ChangePuk => vec![change_puk()],
            Purpose::Request(slot) => {
                let file = page("Write the request into a new file", vec![Field::text("File", "")]);
                vec![pin(&format!("Request for a certificate of {slot} (1 of 3)")), names("Names (2 of 3)"), file]
            }
            Purpose::Import(slot) => {
                vec![page(&format!("A certificate for {slot}, PEM or DER"), vec![Field::text("File", "")])]
            }
            Purpose::FactoryReset => vec![reset()],
        };
        Self { purpose, pages, page: 0, at: 0, problem: None }
    }

    pub(super) fn page(&self) -> Option<&Page> {
        self.pages.get(self.page)
    }

    pub(super) fn paste(&mut self, text: &str) {
        if let Some(field) = self.field() {
            field.paste(text);
        }
    }

    pub(super) fn pressed(&mut self, key: KeyCode) -> Pressed {
        let last = self.page().map_or(0, |page| page.fields.len().saturating_sub(1));
        match key {
            KeyCode::Esc if self.page == 0 => return Pressed::Closed,
            KeyCode::Esc => self.turn_to(self.page - 1),
            KeyCode::Up | KeyCode::BackTab => self.at = self.at.saturating_sub(1),
            KeyCode::Down | KeyCode::Tab => self.at = (self.at + 1).min(last),
            KeyCode::Enter if self.at < last => self.at += 1,
            KeyCode::Enter => return self.finished_page(),
            key => {
                if let Some(field) = self.field() {
                    field.pressed(key);
                }
            }
        }
        Pressed::Nothing
    }

    fn finished_page(&mut self) -> Pressed {
        let checked = self.page().map_or(Ok(()), |page| (page.check)(page));
        if let Err(problem) = checked {
            self.problem = Some(problem);
            self.at = 0;
            return Pressed::Nothing;
        }
        if self.page + 1 < self.pages.len() {
            self.turn_to(self.page + 1);
            return Pressed::Nothing;
        }
        match self.wish() {
            Ok(wish) => Pressed::Finished(wish),
            Err(problem) => {
                self.problem = Some(problem);
                Pressed::Nothing
            }
        }
    }

    fn turn_to(&mut self, page: usize) {
        (self.page, self.at, self.problem) = (page, 0, None);
    }

    fn field(&mut self) -> Option<&mut Field> {
        self.pages.get_mut(self.page)?.fields.get_mut(self.at)
    }

    fn value(&self, page: usize, field: usize) -> &str {
        self.pages.get(page).map_or("", |page| page.value(field))
    }

    fn typed(&self, page: usize, field: usize) -> Typed {
        Zeroizing::new(self.value(page, field).to_owned())
    }

    fn wish(&self) -> Result<Wish, String> {
        let names = |page| {
            let value = |field| self.value(page, field);
            let names = owner::names(value(0), value(1), value(2), value(3));
            names.map(Box::new).map_err(|error| error.to_string())
        };
        Ok(match self.purpose {
            Purpose::Scan => Wish::Scan(self.typed(0, 0)),
            Purpose::Rename(host) => Wish::Rename(host, self.value(0, 0).to_owned()),
            Purpose::ExportLog => Wish::ExportLog(self.value(0, 0).into()),
            Purpose::Enrol => {
                let (pin, puk) = (self.typed(0, 0), Some(self.typed(0, 2)));
                Wish::Enrol { pin, puk, names: names(1)?, keys: self.new_keys(2) }
            }
            Purpose::NewKeys => {
                Wish::Enrol { pin: self.typed(0, 0), puk: None, names: names(1)?, keys: self.new_keys(2) }
            }
            Purpose::ChoosePin => Wish::ChoosePin { pin: self.typed(0, 0), puk: self.typed(0, 2) },
            Purpose::ChangePin => Wish::ChangePin { current: self.typed(0, 0), new: self.typed(0, 1) },
            Purpose::ChangePuk => Wish::ChangePuk { current: self.typed(0, 0), new: self.typed(0, 1) },
            Purpose::Request(slot) => {
                Wish::Request { pin: self.typed(0, 0), slot, names: names(1)?, file: self.value(2, 0).into() }
            }
            Purpose::Import(slot) => Wish::Import { slot, file: self.value(0, 0).into() },
            Purpose::FactoryReset => Wish::FactoryReset,
        })
    }

    fn new_keys(&self, page: usize) -> Vec<NewKey> {
        let fields = self.pages.get(page).map_or(&[][..], |page| page.fields.as_slice());
        let chosen = SLOTS.into_iter().zip(fields).filter_map(|(slot, field)| {
            let algorithm = match field.chosen() {
                0 => KeyAlgorithm::EccP256,
                1 => KeyAlgorithm::EccP384,
                2 => KeyAlgorithm::Rsa2048,
                _ => return None,
            };
            Some(NewKey::new(slot, algorithm))
        });
        chosen.collect()
    }
}

impl Page {
    fn value(&self, field: usize) -> &str {
        self.fields.get(field).map_or("", Field::value)
    }

    /// Whether two fields are alike, as what is typed unseen must be.
    fn are_alike(&self, first: usize, second: usize) -> Result<(), String> {
        if self.value(first) == self.value(second) { Ok(()) } else { Err("the two are not the same".to_owned()) }
    }

    fn is_pin(&self, field: usize) -> Result<(), String> {
        owner::check_pin(self.value(field)).map_err(|error| error.to_string())
    }

    fn is_puk(&self, field: usize) -> Result<(), String> {
        owner::check_puk(self.value(field)).map_err(|error| error.to_string())
    }
}

fn page(title: &str, fields: Vec<Field>) -> Page {
    let check = |page: &Page| if page.value(0).is_empty() { Err("nothing is typed".to_owned()) } else { Ok(()) };
    Page { title: title.to_owned(), fields, check }
}

fn pin(title: &str) -> Page {
    Page { check: |page| page.is_pin(0), ..page(title, vec![Field::secret("PIN")]) }
}

fn new_pin(title: &str) -> Page {
    let labels = ["PIN, 6 to 8 digits", "PIN again", "PUK, 8 characters", "PUK again"];
    let check = |page: &Page| {
        page.is_pin(0)
            .and_then(|()| page.are_alike(0, 1))
            .and_then(|()| page.is_puk(2))
            .and_then(|()| page.are_alike(2, 3))
    };
    Page { check, ..page(title, labels.map(Field::secret).into()) }
}

fn change_pin() -> Page {
    let labels = ["PIN", "New PIN, 6 to 8 digits", "New PIN again"];
    let check = |page: &Page| page.is_pin(0).and_then(|()| page.is_pin(1)).and_then(|()| page.are_alike(1, 2));
    Page { check, ..page("Change the PIN", labels.map(Field::secret).into()) }
}

fn change_puk() -> Page {
    let labels = ["PUK", "New PUK, 8 characters", "New PUK again"];
    let check = |page: &Page| page.is_puk(0).and_then(|()| page.is_puk(1)).and_then(|()| page.are_alike(1, 2));
    Page { check, ..page("Change the PUK", labels.map(Field::secret).into()) }
}

fn names(title: &str) -> Page {
    let labels =
        ["Your name", "Organization (may be empty)", "Login, user@domain (may be empty)", "E-mail (may be empty)"];
    let check = |page: &Page| {
        let [name, organization, login, email] = [0, 1, 2, 3].map(|field| page.value(field));
        owner::names(name, organization, login, email).map(drop).map_err(|error| error.to_string())
    };
    Page { check, ..page(title, labels.map(|label| Field::text(label, "")).into()) }
}

fn keys(title: &str) -> Page {
    let labels = ["9A (login)", "9C (signature)", "9D (decryption)", "9E (no PIN)"];
    Page { check: |_| Ok(()), ..page(title, labels.map(|label| Field::choice(label, &ALGORITHMS)).into()) }
}

fn reset() -> Page {
    let check = |page: &Page| {
        if page.value(0) == "reset" { Ok(()) } else { Err("to go on type the word reset".to_owned()) }
    };
    let title = "Keys, certificates, PIN, PUK and computers will be gone";
    Page { check, ..page(title, vec![Field::text("Type reset", "")]) }
}
