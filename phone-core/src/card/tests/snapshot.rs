//! What the card says to everybody is what it answers, and every host hears of a change before it can see it.

use pocketcard_protocol::messages::{Body, Envelope, Fetch, SecurityState, SnapshotPage};
use pocketcard_protocol::snapshot::{Object, PAGE_LIMIT, Snapshot, SnapshotDigest};

use super::*;
use crate::card::applet::SessionId;
use crate::card::{Input, LinkId};

const PUT_CERTIFICATE: &str = "00DB3FFF 0C 5C035FC105 53057003010203";

/// What a host was told last, and how many messages that took.
fn announced(card: &mut TestBox, link: LinkId) -> (Option<SecurityState>, usize) {
    let mut states = Vec::new();
    card.out.sent.retain(|(to, envelope)| match &envelope.body {
        Some(Body::SecurityState(state)) if *to == link => {
            states.push(state.clone());
            false
        }
        _ => true,
    });
    let count = states.len();
    (states.pop(), count)
}

fn page(card: &mut TestBox, host: &TestHost, digest: &[u8], offset: usize) -> SnapshotPage {
    let fetch = Fetch { session: host.session, digest: digest.to_vec(), offset: offset as u32 };
    card.handle(Input::Message { link: host.link, envelope: fetch.into() });
    match card.out.sent.pop() {
        Some((link, Envelope { body: Some(Body::SnapshotPage(page)) })) if link == host.link => page,
        other => panic!("{other:?}"),
    }
}

/// The snapshot that is announced to a host which opens a session, fetched as a host does.
fn fetch(card: &mut TestBox, host: &TestHost) -> Option<Snapshot> {
    let digest = card.card.snapshot_digest(SessionId(host.session))?.to_field();
    let mut bytes = Vec::new();
    loop {
        let page = page(card, host, &digest, bytes.len());
        assert_eq!((&page.digest, page.offset as usize), (&digest, bytes.len()));
        if page.page.is_empty() {
            assert_eq!(page.length as usize, bytes.len());
            break;
        }
        bytes.extend(page.page);
    }
    let snapshot = Snapshot::from_bytes(bytes).ok()?;
    assert_eq!(Some(snapshot.digest()), SnapshotDigest::from_field(&digest));
    Some(snapshot)
}

#[test]
fn the_snapshot_says_what_the_card_answers() {
    let (mut card, mut host) = card_with_keys();
    for object in ["5FC101", "5FC105", "5FC10D", "5FC121", "5FC109", "5FFF00", "5F0001"] {
        assert_eq!(text(&card.local(&bytes(&format!("00DB3FFF 0B 5C03{object} 5304AABBCCDD")))), "9000");
    }
    assert_eq!(text(&card.local(&bytes("00DB3FFF 08 5C0142 5303010203"))), "9000");
    card.out.sent.clear();
    let snapshot = fetch(&mut card, &host).unwrap();
    let short = [0x42, 0x7E, 0x7F, 0x7F61];
    for tag in short.into_iter().chain(0x5F_0000..0x5F_0004).chain(0x5F_C100..0x5F_C130).chain(0x5F_FF00..0x5F_FF20) {
        let octets: Vec<u8> = u32::to_be_bytes(tag).into_iter().skip_while(|octet| *octet == 0).collect();
        let command =
            [bytes("00CB3FFF 0000"), vec![octets.len() as u8 + 2, 0x5C, octets.len() as u8], octets, vec![0, 0]];
        let answer = host.raw(&mut card, &command.concat());
        let expected = match snapshot.object(tag) {
            None => bytes("6A82"),
            Some(Object::Pin) => bytes("6982"),
            Some(Object::Always(data)) => [data, &[0x90, 0x00]].concat(),
        };
        assert_eq!(text(&answer), text(&expected), "{tag:X}");
    }
    for instruction in (0..=0xFF).filter(|ins| !matches!(ins, 0xA4 | 0xC0)) {
        let answer = host.raw(&mut card, &[0, instruction, 0xFE, 0xFE]);
        assert_eq!(answer == [0x6D, 0x00], !snapshot.knows(instruction), "{instruction:02X}");
    }
    for (command, data) in [
        ("00A4040005A00000030800", snapshot.template()),
        ("00FD000000", snapshot.version()),
        ("00F8000000", snapshot.serial()),
    ] {
        assert_eq!(text(&host.raw(&mut card, &bytes(command))), text(data) + "9000");
    }
    for (name, application) in
        [("A000000308", Some(0)), ("A000000527471117", Some(1)), ("A0000003080000100001000000", None)]
    {
        assert_eq!(snapshot.application(&bytes(name)), application);
        let select = [bytes("00A4040C"), vec![bytes(name).len() as u8], bytes(name)].concat();
        assert_eq!(text(&host.raw(&mut card, &select)), if application.is_some() { "9000" } else { "6A82" });
    }
}

#[test]
fn every_host_hears_of_a_change_before_anybody_can_see_it() {
    let (mut card, mut writer) = card_with_management();
    let other = card.host(2);
    let before = fetch(&mut card, &other).unwrap().digest();
    assert_eq!(text(&writer.transmit(&mut card, &bytes("00CB3FFF 03 5C017E"))).get(..2), Some("7E"));
    assert!(card.out.sent.is_empty(), "reading changes nothing");

    writer.last_request += 1;
    writer.send(&mut card, writer.last_request, &bytes(PUT_CERTIFICATE));
    let order: Vec<_> = card.out.sent.iter().map(|(link, envelope)| (*link, envelope.body.clone().unwrap())).collect();
    let [(a, Body::SecurityState(first)), (b, Body::SecurityState(second)), (c, Body::Response(response))] = &order[..]
    else {
        panic!("{order:?}")
    };
    assert_eq!([*a, *b, *c], [writer.link, other.link, writer.link]);
    assert_ne!(SnapshotDigest::from_field(&first.snapshot_digest), Some(before));
    assert_eq!((&first.snapshot_digest, first.version), (&response.snapshot_digest, response.security_version));
    assert_eq!((&first.snapshot_digest, second.epoch), (&second.snapshot_digest, other.epoch));
    assert!(
        card.out.events.iter().all(|event| !matches!(event, CardEvent::SecurityChanged { .. })),
        "the PIN is as it was"
    );
    card.out.sent.clear();

    // The owner deletes it again: everything is as before, and so is the digest.
    assert_eq!(text(&card.local(&bytes("00DB3FFF 07 5C035FC105 5300"))), "9000");
    for link in [writer.link, other.link] {
        let (state, count) = announced(&mut card, link);
        assert_eq!((SnapshotDigest::from_field(&state.unwrap().snapshot_digest), count), (Some(before), 1));
    }
    // A key, and what needs the PIN, are in nobody's snapshot.
    assert!(text(&card.local(&bytes("0047009A 05 AC03800111"))).ends_with("9000"));
    assert_eq!(text(&card.local(&bytes("00DB3FFF 09 5C035FC109 53020102"))), "9000");
    assert!(card.out.sent.is_empty());
}

#[test]
fn one_message_says_all_that_one_command_changed() {
    let (mut card, mut host) = card_with_keys();
    assert_eq!(send(&mut card, &mut host, VERIFY), "9000");
    let (verified, _) = announced(&mut card, host.link);
    let verified = verified.unwrap();
    assert_eq!(text(&card.local(&bytes("00FB0000"))), "9000");
    let (new, count) = announced(&mut card, host.link);
    let new = new.unwrap();
    assert_eq!((count, new.version, new.pin_verified), (1, verified.version + 1, false));
    assert_ne!(new.snapshot_digest, verified.snapshot_digest, "another card identifier");
}

#[test]
fn what_was_said_under_an_epoch_names_it() {
    let (mut card, mut host) = card_with_keys();
    host.reset(&mut card);
    host.reset(&mut card);
    assert_eq!(send(&mut card, &mut host, VERIFY), "9000");
    assert_eq!(announced(&mut card, host.link).0.map(|state| (state.epoch, state.pin_verified)), Some((3, true)));
}

/// The host has taken from the reset that nothing is verified, whatever it was told before.
#[test]
fn a_pin_that_is_verified_by_the_command_that_brings_a_reset_is_said_again() {
    let (mut card, mut host) = card_with_keys();
    assert_eq!(send(&mut card, &mut host, VERIFY), "9000");
    announced(&mut card, host.link);
    host.epoch += 1;
    assert_eq!(send(&mut card, &mut host, VERIFY), "9000");
    assert_eq!(announced(&mut card, host.link).0.map(|state| (state.epoch, state.pin_verified)), Some((2, true)));
}

#[test]
fn a_locked_card_says_nothing() {
    let (mut card, host) = card_with_keys();
    let digest = fetch(&mut card, &host).unwrap().digest();
    card.handle(Input::LockCard);
    assert_eq!(announced(&mut card, host.link).0.unwrap().snapshot_digest, []);
    card.out.sent.clear();
    let refused = page(&mut card, &host, digest.as_bytes(), 0);
    assert_eq!((&refused.digest[..], refused.length, refused.page.len()), (&digest.as_bytes()[..], 0, 0));
    card.handle(Input::UnlockCard);
    assert_eq!(announced(&mut card, host.link).0.unwrap().snapshot_digest, digest.as_bytes());
}

#[test]
fn only_the_snapshot_of_now_is_given_out_and_only_in_a_session() {
    let (mut card, host) = card_with_keys();
    let old = fetch(&mut card, &host).unwrap().digest();
    assert_eq!(text(&card.local(&bytes(PUT_CERTIFICATE))), "9000");
    card.out.sent.clear();
    let refused = page(&mut card, &host, old.as_bytes(), 0);
    assert_eq!((&refused.digest[..], refused.length, refused.page.len()), (&old.as_bytes()[..], 0, 0));
    let fetch = Fetch { session: host.session + 1, digest: old.to_field(), offset: 0 };
    card.handle(Input::Message { link: host.link, envelope: fetch.into() });
    assert_eq!(card.out.closed.len(), 1, "a session that is not its own");
}

#[test]
fn a_full_card_still_has_a_snapshot() {
    let (mut card, host) = card_with_keys();
    let mut written = 0;
    for (number, length) in (0x5F_FF00_u32..).zip([16 * 1024; 15].into_iter().chain([100; 200])) {
        let mut data = [vec![0x5C, 3], number.to_be_bytes()[1..].to_vec(), vec![0x53, 0x82]].concat();
        data.extend(u16::to_be_bytes(length));
        data.resize(data.len() + usize::from(length), 7);
        let put = [bytes("00DB3FFF00"), (data.len() as u16).to_be_bytes().to_vec(), data].concat();
        written += usize::from(text(&card.local(&put)) == "9000");
    }
    assert!(written > 100, "{written}");
    card.out.sent.clear();
    let snapshot = fetch(&mut card, &host).unwrap();
    assert!(snapshot.as_bytes().len() > 29 * PAGE_LIMIT, "{snapshot:?}");
}
