//! The text of a host's QR code.

use pocketcard_protocol::Timestamp;
use pocketcard_protocol::channel::StaticSecret;
use pocketcard_protocol::pairing::{Attempts, Offer, QrText};
use pocketcard_protocol::test_support::TestEntropy;

use crate::{Input, envelope};

/// Any text; and a good one with a change in it.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    if input.byte() % 2 == 0 {
        any_text(&String::from_utf8_lossy(input.all()));
    } else {
        changed(input);
    }
}

fn any_text(text: &str) {
    let Ok(qr) = QrText::parse(text) else { return };
    envelope::name(qr.name());
    assert!(!format!("{qr:?}").contains(&qr.to_text()[11..]), "the secret is not for logs");
    let again = QrText::parse(&qr.to_text()).expect("its own text");
    same(&qr, &again);
    same(&qr, &QrText::parse(&qr.to_text().to_uppercase()).expect("upper case"));
}

/// Whatever was changed in a good text: it is refused, or means exactly the same.
fn changed(mut input: Input<'_>) {
    let entropy = TestEntropy::new(input.u16().into());
    let host = StaticSecret::generate(&entropy).expect("test entropy").public();
    let name = String::from_utf8_lossy(input.chunk()).into_owned();
    let offer = Offer::new(&host, &name, &entropy, &Attempts::new(), Timestamp::ZERO).expect("first offer");
    let text = offer.qr_text().expect("a code to scan");
    let good = QrText::parse(&text).expect("an offer's text");
    assert_eq!(*good.host(), host);
    envelope::name(good.name());
    any_text(&text);

    let mut bytes = text.as_bytes().to_vec();
    while !input.is_empty() {
        let at = usize::from(input.byte()) % bytes.len().max(1);
        match input.byte() {
            byte @ 1..0x80 if at < bytes.len() => bytes[at] = byte,
            0x80..0xA0 => bytes.insert(at, b' '),
            0xA0..0xC0 => bytes.insert(at, b'-'),
            0xC0..0xE0 if at < bytes.len() => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    any_text(&text);
    if let Ok(changed) = QrText::parse(&text) {
        same(&good, &changed);
    }
}

fn same(a: &QrText, b: &QrText) {
    assert_eq!(
        (a.host(), a.name(), a.lifetime(), a.advertising_seed()),
        (b.host(), b.name(), b.lifetime(), b.advertising_seed())
    );
    assert_eq!(*a.to_text(), *b.to_text());
}
