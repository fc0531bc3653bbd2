//! PINs that the owner enters on the phone, seen from the slot.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use pocketcard_front::{Failure, FrontError, Output, PinEntry, PowerAction};
use pocketcard_protocol::Timestamp;
use pocketcard_protocol::messages::{
    Body, Envelope, Permissions, PinOperation, RefusalReason, Refused, SecurityState, Unsupported,
};

use support::{Bench, LOOK, PIN, opened, seconds};

const VERIFY: PinEntry =
    PinEntry { operation: PinOperation::Verify, key_reference: 0x80, time_limit: Duration::from_secs(25) };

/// Long after any of these waits.
const LATE: Timestamp = Timestamp::from_origin(Duration::from_secs(1000));

fn just_before(timestamp: Timestamp) -> Timestamp {
    Timestamp::from_origin(timestamp.saturating_since(Timestamp::ZERO) - Duration::from_millis(1))
}

#[test]
fn an_entry_goes_to_the_phone_and_its_status_word_comes_back() {
    let mut bench = Bench::powered();
    let sent = bench.enter_pin(VERIFY);
    assert_eq!(
        (sent.session, sent.request_id, sent.operation(), sent.key_reference),
        (7, 1, PinOperation::Verify, 0x80)
    );
    assert_eq!(sent.time_limit_s, 25);
    bench.respond(7, (1, sent.epoch), &[0x90, 0]);
    assert!(matches!(bench.front.poll_output(), Some(Output::Granted)));
    assert_eq!(bench.reply(), Ok(vec![0x90, 0]));
    // The PIN is verified now, so a reset has something to end.
    bench.power(PowerAction::Reset).unwrap();
    assert!(matches!(&bench.sent()[..], [Body::Reset(_)]));
    let sent = bench.enter_pin(VERIFY);
    assert_eq!(sent.request_id, 2);
    bench.respond(7, (2, sent.epoch), &[0x63, 0xC2]);
    assert_eq!(bench.reply(), Ok(vec![0x63, 0xC2]));
}

#[test]
fn data_is_no_answer_to_an_entry() {
    let mut bench = Bench::powered();
    let sent = bench.enter_pin(VERIFY);
    bench.respond(7, (1, sent.epoch), &[0x31, 0x90, 0]);
    assert_eq!(bench.reply(), Err(Failure::NotPresent));
    assert_eq!(bench.closed(), FrontError::Malformed);
}

#[test]
fn an_entry_needs_a_card_with_power_and_nothing_else_under_way() {
    let mut bench = Bench::powered();
    bench.power(PowerAction::Down).unwrap();
    bench.front.handle_pin_entry(VERIFY, bench.now);
    assert_eq!(bench.reply(), Err(Failure::NotPresent));
    bench.power(PowerAction::Up).unwrap();
    bench.relay(&LOOK);
    bench.front.handle_pin_entry(VERIFY, bench.now);
    assert_eq!(bench.reply(), Err(Failure::NotPresent));
}

#[test]
fn an_entry_wipes_what_was_left_of_a_response() {
    let mut bench = Bench::powered();
    let look = bench.relay(&LOOK);
    bench.respond(7, look, &[&[5; 300][..], &[0x90, 0]].concat());
    assert_eq!(&bench.reply().unwrap()[256..], [0x61, 44]);
    let sent = bench.enter_pin(VERIFY);
    bench.respond(7, (2, sent.epoch), &[0x64, 0x01]);
    assert_eq!(bench.reply(), Ok(vec![0x64, 0x01]));
    bench.front.handle_transmit(&[0x00, 0xC0, 0x00, 0x00, 0x00], bench.now);
    assert_eq!(bench.reply(), Ok(vec![0x69, 0x85]));
}

#[test]
fn a_phone_that_hangs_is_a_time_out_of_the_pad_and_not_a_hang() {
    for limit in [1, 25] {
        let mut bench = Bench::powered();
        let sent = bench.enter_pin(PinEntry { time_limit: Duration::from_secs(limit), ..VERIFY });
        let due = bench.front.poll_timeout().unwrap();
        assert!(due > seconds(limit) && due < seconds(limit + 2), "{due:?}");
        bench.front.handle_timeout(just_before(due));
        assert!(bench.front.poll_output().is_none());
        bench.front.handle_timeout(due);
        let Some(Output::Send(Envelope { body: Some(Body::Cancel(cancel)) })) = bench.front.poll_output() else {
            panic!()
        };
        assert_eq!(cancel.request_id, 1);
        let Some(Output::Send(Envelope { body: Some(Body::Reset(reset)) })) = bench.front.poll_output() else {
            panic!()
        };
        assert!(reset.epoch > sent.epoch, "a PIN that is entered too late verifies nothing");
        assert_eq!(bench.reply(), Ok(vec![0x64, 0x00]));
        bench.respond(7, (1, sent.epoch), &[0x90, 0]);
        assert!(bench.front.poll_output().is_none(), "nobody waits any more");
    }
}

#[test]
fn a_lost_link_takes_the_entry_up_again_and_never_beyond_its_time() {
    for (phone_has, id) in [(1, 1), (0, 1)] {
        let mut bench = Bench::powered();
        bench.enter_pin(VERIFY);
        bench.front.handle_link_down(bench.now);
        assert!(bench.sent().is_empty(), "the entry stays under way");
        bench.front.handle_link_up(bench.now);
        assert!(matches!(&bench.sent()[..], [Body::Open(_)]));
        let mut again = opened(7, true);
        again.last_request_id = phone_has;
        bench.front.handle_envelope(again.into(), bench.now);
        let sent = bench.sent();
        let [Body::PinEntry(entry)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!(entry.request_id, id);
        bench.respond(7, (id, entry.epoch), &[0x90, 0]);
        assert_eq!(bench.reply(), Ok(vec![0x90, 0]));
    }
    // The link goes in the last moment, and the phone does not come back before the program has waited long enough.
    let mut bench = Bench::powered();
    bench.enter_pin(VERIFY);
    bench.front.handle_link_down(seconds(24));
    bench.front.handle_timeout(seconds(27));
    assert_eq!(bench.reply(), Ok(vec![0x64, 0x00]));
    bench.front.handle_timeout(LATE);
    assert!(matches!(bench.front.poll_output(), Some(Output::Presence(presence)) if presence.atr.is_none()));
}

#[test]
fn whoever_gives_up_is_answered_as_on_a_pad() {
    let mut bench = Bench::powered();
    assert!(!bench.front.handle_cancel(bench.now), "nothing is under way");
    assert!(bench.front.poll_output().is_none());
    bench.enter_pin(VERIFY);
    assert!(bench.front.is_busy() && bench.front.handle_cancel(bench.now) && !bench.front.is_busy());
    assert!(matches!(&bench.front.poll_output(), Some(Output::Send(Envelope { body: Some(Body::Cancel(_)) }))));
    assert!(matches!(&bench.front.poll_output(), Some(Output::Send(Envelope { body: Some(Body::Reset(_)) }))));
    assert_eq!(bench.reply(), Ok(vec![0x64, 0x01]));
    bench.relay(&PIN);
    assert!(bench.front.handle_cancel(bench.now));
    assert!(matches!(&bench.front.poll_output(), Some(Output::Send(Envelope { body: Some(Body::Cancel(_)) }))));
    assert!(matches!(&bench.front.poll_output(), Some(Output::Send(Envelope { body: Some(Body::Reset(_)) }))));
    assert_eq!(bench.reply(), Err(Failure::Cancelled));
    assert_eq!(bench.relay(&LOOK).0, 3, "the card goes on");
}

#[test]
fn a_lock_ends_what_was_verified_and_what_is_under_way_and_leaves_the_card() {
    let mut bench = Bench::powered();
    bench.front.handle_lock(bench.now);
    assert!(bench.front.poll_output().is_none(), "nothing was left at the card: the phone need not be told");
    let sent = bench.enter_pin(VERIFY);
    bench.respond(7, (1, sent.epoch), &[0x90, 0]);
    assert_eq!(bench.reply(), Ok(vec![0x90, 0]));
    bench.front.handle_lock(bench.now);
    assert!(matches!(&bench.front.poll_output(), Some(Output::Send(Envelope { body: Some(Body::Reset(_)) }))));
    assert!(bench.front.poll_output().is_none(), "no program is told, and the card stays");
    bench.enter_pin(VERIFY);
    bench.front.handle_lock(bench.now);
    assert!(matches!(&bench.front.poll_output(), Some(Output::Send(Envelope { body: Some(Body::Cancel(_)) }))));
    assert!(matches!(&bench.front.poll_output(), Some(Output::Send(Envelope { body: Some(Body::Reset(_)) }))));
    assert_eq!(bench.reply(), Ok(vec![0x64, 0x01]));
    assert!(bench.front.poll_output().is_none());
}

#[test]
fn a_phone_that_does_not_know_entries_says_so_and_counts_none() {
    let mut bench = Bench::powered();
    bench.enter_pin(VERIFY);
    bench.front.handle_envelope(Unsupported::default().into(), bench.now);
    assert_eq!(bench.reply(), Err(Failure::Unsupported));
    bench.enter_pin(VERIFY);
    let fetch = Body::Fetch(Default::default()).number();
    bench.front.handle_envelope(Unsupported { message: fetch }.into(), bench.now);
    assert!(bench.front.poll_output().is_none(), "what it does not know was not the entry");
    let entry = Body::PinEntry(Default::default()).number();
    bench.front.handle_envelope(Unsupported { message: entry }.into(), bench.now);
    assert_eq!(bench.reply(), Err(Failure::Unsupported));
    assert_eq!(bench.relay(&LOOK).0, 1, "the phone counts on from where it was");
    bench.front.handle_envelope(Unsupported::default().into(), bench.now);
    assert!(bench.front.poll_output().is_none(), "what it does not know was not the command");
}

#[test]
fn what_is_known_of_the_pin_after_an_entry_is_what_the_phone_says() {
    let mut bench = Bench::powered();
    let sent = bench.enter_pin(VERIFY);
    let state = |version, pin_verified, epoch| SecurityState {
        version,
        pin_verified,
        pin_tries_left: 3,
        snapshot_digest: vec![5; 32],
        epoch,
    };
    bench.front.handle_envelope(state(1, true, sent.epoch).into(), bench.now);
    bench.respond(7, (1, sent.epoch), &[0x90, 0]);
    assert_eq!(bench.reply(), Ok(vec![0x90, 0]));
    assert!(bench.front.security().pin_verified);
    bench.power(PowerAction::Reset).unwrap();
    assert!(!bench.front.security().pin_verified);
}

#[test]
fn a_refusal_is_told_to_people_only_and_only_of_what_is_under_way() {
    let mut bench = Bench::powered();
    let sent = bench.enter_pin(VERIFY);
    let refused = |request_id| Refused {
        session: 7,
        request_id,
        reason: RefusalReason::TooManyDenials.into(),
        key_reference: 0x80,
    };
    bench.front.handle_envelope(refused(1).into(), bench.now);
    let told = bench.front.poll_output();
    assert!(
        matches!(told, Some(Output::Refused { reason: RefusalReason::TooManyDenials, key_reference: 0x80 })),
        "{told:?}"
    );
    bench.respond(7, (1, sent.epoch), &[0x69, 0x85]);
    assert_eq!(bench.reply(), Ok(vec![0x69, 0x85]));
    bench.front.handle_envelope(refused(1).into(), bench.now);
    assert!(bench.front.poll_output().is_none());
    bench.front.handle_envelope(refused(9).into(), bench.now);
    assert_eq!(bench.closed(), FrontError::UnknownRequest);
}

#[test]
fn a_connection_that_the_owner_does_not_confirm_is_told_without_a_request() {
    let mut bench = Bench::powered();
    let reason = RefusalReason::ConnectionNotConfirmed;
    let refused = |session| Refused { session, request_id: 0, reason: reason.into(), key_reference: 0 };
    bench.front.handle_envelope(refused(7).into(), bench.now);
    let told = bench.front.poll_output();
    assert!(matches!(told, Some(Output::Refused { reason: it, key_reference: 0 }) if it == reason), "{told:?}");
    bench.front.handle_envelope(refused(8).into(), bench.now);
    assert_eq!(bench.closed(), FrontError::OutOfOrder, "of another session");
}

#[test]
fn permissions_are_told_while_there_is_a_session() {
    let mut bench = Bench::powered();
    let permissions = Permissions { typed_pin: true, administer: false, connect_unattended: true, keys: vec![0x9A] };
    bench.front.handle_envelope(permissions.clone().into(), bench.now);
    assert!(matches!(bench.front.poll_output(), Some(Output::Permissions(told)) if told == permissions));
    bench.front.handle_link_closed(bench.now);
    bench.front.handle_envelope(permissions.into(), bench.now);
    assert_eq!(bench.closed(), FrontError::OutOfOrder);
}
