//! Sides of different versions meet.

use super::*;

fn range(min: u8, max: u8) -> VersionRange {
    VersionRange::new(min, max).expect("a range")
}

fn meet(host: VersionRange, phone: VersionRange) -> Pair {
    let mut parties = Parties::new(1);
    parties.host.versions = host;
    parties.phone.versions = phone;
    let mut pair = parties.connecting();
    pair.settle();
    pair
}

#[test]
fn a_newer_phone_and_a_newer_host_speak_what_both_know() {
    for (host, phone) in [(range(1, 1), range(1, 2)), (range(1, 2), range(1, 1)), (range(1, 7), range(2, 9))] {
        let mut pair = meet(host, phone);
        pair.send(Side::Host, transmit(1)).expect("connected");
        pair.settle();
        assert_eq!(pair.take_messages(Side::Phone).len(), 1, "{host:?} {phone:?}");
    }
}

#[test]
fn without_a_common_version_both_sides_say_who_must_update() {
    for (host, phone, update) in [(range(2, 3), range(1, 1), Side::Phone), (range(1, 1), range(2, 3), Side::Host)] {
        let pair = meet(host, phone);
        let mismatch = |ours, theirs| Some(CloseReason::VersionMismatch { ours, theirs, update });
        assert_eq!(pair.closed(Side::Host), mismatch(host, phone));
        assert_eq!(pair.closed(Side::Phone), mismatch(phone, host));
        // Info and the refusal; no handshake.
        assert_eq!(pair.log.len(), 2);
    }
}

#[test]
fn the_info_of_a_later_version_need_not_look_like_ours() {
    let mut parties = Parties::new(1);
    let keys = parties.pair();
    parties.host.versions = range(1, 1);
    let mut host = Link::host_connect(parties.host.clone(), &keys, Timestamp::ZERO);
    // Kind, versions 2 to 4, and nothing that version 1 could read.
    host.handle_message(&[0, 2, 4, 0xFF], Timestamp::ZERO);
    let Some(Event::Closed(CloseReason::VersionMismatch { update, .. })) = host.poll_event() else {
        panic!("not closed");
    };
    assert_eq!(update, Side::Host);
}

#[test]
fn a_handshake_of_a_later_version_need_not_look_like_ours() {
    let mut phone = Link::phone(Parties::new(1).phone, Timestamp::ZERO);
    let _info = phone.poll_transmit();
    phone.handle_message(&[1, 9, 0xFF], Timestamp::ZERO);
    assert_eq!(phone.poll_transmit(), Some(vec![3, 1, 1, 1]));
    assert!(matches!(
        phone.poll_event(),
        Some(Event::Closed(CloseReason::VersionMismatch { update: Side::Phone, .. }))
    ));
}

#[test]
fn a_longer_info_of_the_same_version_still_connects() {
    // A later phone that still speaks version 1 may append to its Info; the host binds what it read.
    let parties = Parties::new(1);
    let mut pair = parties.connecting();
    pair.intercept(change(Side::Phone, 0, |message| message.extend_from_slice(b"later")));
    pair.settle();
    // Here the wire appended it, not the phone, so the two disagree and the handshake fails.
    assert_eq!(pair.closed(Side::Phone), Some(CloseReason::Decrypt));
    assert_eq!(pair.closed(Side::Host), Some(CloseReason::Rejected));
}
