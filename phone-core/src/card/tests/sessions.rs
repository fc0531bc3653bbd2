use std::time::Duration;

use pocketcard_protocol::messages::{Body, Cancel, CloseReason, Envelope, Opened, PendingReason, Reset};

use super::grace::{graceful, reconnect};
use super::*;
use crate::card::{CardEvent, Effect, HostId, Input, LinkId};

const RANDOM: &str = "0087009B 04 7C028100 00";
pub(super) const SIGN: &str = "0087119E 08 7C0682008102ABCD 00";
const GENERATE: &str = "0047009A 05 AC03800111 00";

pub(super) fn closed(card: &TestBox) -> Vec<CloseReason> {
    card.out.closed.iter().map(|(_, reason)| *reason).collect()
}

/// Security states that a link was told since the last call: version, verified, tries.
pub(super) fn told(card: &mut TestBox, link: LinkId) -> Vec<(u64, bool, u32)> {
    let (told, rest) = std::mem::take(&mut card.out.sent)
        .into_iter()
        .partition::<Vec<_>, _>(|(to, envelope)| *to == link && matches!(envelope.body, Some(Body::SecurityState(_))));
    card.out.sent = rest;
    told.into_iter()
        .filter_map(|(_, envelope)| match envelope.body {
            Some(Body::SecurityState(state)) => Some((state.version, state.pin_verified, state.pin_tries_left)),
            _ => None,
        })
        .collect()
}

#[test]
fn a_request_is_executed_once_however_often_it_is_sent() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    let first = host.transmit(&mut card, &bytes(RANDOM));
    host.send(&mut card, 1, &bytes(RANDOM));
    assert_eq!(host.answer(&mut card), Some(first.clone()), "the stored result, not another number");
    assert_ne!(host.transmit(&mut card, &bytes(RANDOM)), first);
    // A wrong PIN that is sent twice costs one try.
    host.transmit(&mut card, &bytes(VERIFY_WRONG));
    host.send(&mut card, 3, &bytes(VERIFY_WRONG));
    assert_eq!(host.answer(&mut card), Some(vec![0x63, 0xC2]));
    assert_eq!(host.transmit(&mut card, &bytes(STATUS)), [0x63, 0xC2]);
    assert!(closed(&card).is_empty());
}

#[test]
fn whatever_breaks_the_order_closes_the_link_and_ends_the_session() {
    type Breach = fn(&mut TestBox, &mut TestHost);
    let breaches: &[(&str, Breach)] = &[
        ("an id too far", |card, host| host.send(card, host.last_request + 2, &bytes(STATUS))),
        ("an id too old", |card, host| host.send(card, host.last_request - 1, &bytes(STATUS))),
        ("another session", |card, host| {
            host.session += 1;
            host.send(card, host.last_request + 1, &bytes(STATUS));
        }),
        ("an older epoch", |card, host| {
            host.epoch -= 1;
            host.send(card, host.last_request + 1, &bytes(STATUS));
        }),
        ("the last id after a reset", |card, host| {
            host.reset(card);
            host.send(card, host.last_request, &bytes(STATUS));
        }),
        ("a second opening", |card, host| host.open(card, Vec::new())),
        ("a reset of another session", |card, host| {
            let reset = Reset { session: host.session + 1, epoch: host.epoch + 1 };
            card.handle(Input::Message { link: host.link, envelope: reset.into() });
        }),
    ];
    for (name, breach) in breaches {
        let mut card = TestBox::test_card();
        let mut host = card.host(1);
        host.transmit(&mut card, &bytes(VERIFY));
        host.transmit(&mut card, &bytes(STATUS));
        breach(&mut card, &mut host);
        assert_eq!(closed(&card), [CloseReason::Protocol], "{name}");
        assert!(card.out.events.contains(&CardEvent::SessionClosed { host: HostId::new([1; 32]) }), "{name}");
        let sent = card.out.sent.len();
        host.send(&mut card, host.last_request + 1, &bytes(STATUS));
        assert_eq!(card.out.sent.len(), sent, "{name}: a closed link is dead");
    }
}

#[test]
fn a_request_before_the_session_closes_the_link_and_an_unknown_message_is_unsupported() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    card.handle(Input::Message { link: host.link, envelope: Envelope { body: None } });
    card.handle(Input::Message { link: host.link, envelope: Opened::default().into() });
    let unsupported = |(_, envelope): &(LinkId, Envelope)| match &envelope.body {
        Some(Body::Unsupported(unsupported)) => Some(unsupported.message),
        _ => None,
    };
    assert_eq!(card.out.sent.iter().filter_map(unsupported).collect::<Vec<_>>(), [0, 16]);
    let link = LinkId::new(99);
    card.handle(Input::LinkUp { link, host: HostId::new([9; 32]), host_name: "early".into() });
    host.link = link;
    host.send(&mut card, 1, &bytes(STATUS));
    assert_eq!(card.out.closed, [(link, CloseReason::Protocol)]);
}

#[test]
fn a_new_epoch_ends_what_runs_and_what_was_verified() {
    let (mut card, mut host) = card_with_keys();
    host.transmit(&mut card, &bytes(VERIFY));
    prove_management(&mut card, &mut host);
    card.hold = true;
    assert!(host.transmit(&mut card, &bytes(SIGN)).is_empty());
    let operation = card.out.held[0].0;
    host.reset(&mut card);
    assert_eq!(card.out.cancelled, [operation]);
    assert_eq!(host.answer(&mut card), Some(vec![0x6F, 0x00]), "nobody waits for it any longer");
    // A late result is nobody's.
    let late = crate::card::EffectResult::Bytes(vec![1, 2, 3].into());
    card.handle(Input::Completed { operation, result: late });
    assert_eq!(host.answer(&mut card), None);
    assert_eq!(host.transmit(&mut card, &bytes(STATUS)), [0x63, 0xC3]);
    assert_eq!(host.transmit(&mut card, &bytes("00DB3FFF 09 5C035FFF00 5302AABB")), [0x69, 0x82]);
    // An epoch that rides on a request does the same.
    card.hold = false;
    host.transmit(&mut card, &bytes(VERIFY));
    host.epoch += 1;
    assert_eq!(host.transmit(&mut card, &bytes(STATUS)), [0x63, 0xC3]);
    // One that is not higher does nothing.
    host.transmit(&mut card, &bytes(VERIFY));
    let reset = Reset { session: host.session, epoch: host.epoch };
    card.handle(Input::Message { link: host.link, envelope: reset.into() });
    assert_eq!(host.transmit(&mut card, &bytes(STATUS)), [0x90, 0x00]);
}

#[test]
fn a_reset_selects_piv_again_and_drops_a_pending_challenge() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    table(&mut card, &mut host, &[("00A4040008A000000527471117", "..9000"), (STATUS, "6D00")]);
    host.reset(&mut card);
    table(&mut card, &mut host, &[(STATUS, "63C3")]);
    let answer = send(&mut card, &mut host, "00870A9B 04 7C028100 00");
    host.reset(&mut card);
    let response = text(&aes192(&bytes(&answer[8..40])));
    assert_eq!(send(&mut card, &mut host, &format!("00870A9B 14 7C128210{response}")), "6982");
}

#[test]
fn a_key_that_is_made_for_nobody_is_destroyed() {
    let (mut card, mut host) = card_with_management();
    card.hold = true;
    host.transmit(&mut card, &bytes(GENERATE));
    let (operation, effect) = card.out.held.remove(0);
    host.reset(&mut card);
    assert_eq!(card.out.cancelled, [operation]);
    // The key store was faster than the cancellation.
    let result = card.keys.perform(effect);
    assert_eq!(card.keys.handles().len(), 1);
    card.handle(Input::Completed { operation, result });
    assert!(card.keys.handles().is_empty() && card.card.key_handles().is_empty());
    assert_eq!(send(&mut card, &mut host, "00F7009A 00"), "6A88");
    // A result that is reported twice does not destroy the key that is in use.
    prove_management(&mut card, &mut host);
    card.hold = true;
    host.transmit(&mut card, &bytes(GENERATE));
    let (operation, effect) = card.out.held.remove(0);
    let crate::card::EffectResult::Generated { handle, public } = card.keys.perform(effect) else { panic!("no key") };
    for _ in 0..2 {
        let result = crate::card::EffectResult::Generated { handle: handle.clone(), public: public.clone() };
        card.handle(Input::Completed { operation, result });
    }
    assert_eq!(card.keys.handles(), [handle]);
}

#[test]
fn pending_is_sent_every_half_second_and_says_why() {
    let (mut card, mut host) = card_with_management();
    card.hold = true;
    host.transmit(&mut card, &bytes(GENERATE));
    card.out.sent.clear();
    card.advance(Duration::from_millis(499));
    assert!(card.out.sent.is_empty());
    card.advance(Duration::from_millis(1501));
    let pending: Vec<_> = std::mem::take(&mut card.out.sent)
        .into_iter()
        .map(|(link, envelope)| match envelope.body {
            Some(Body::Pending(pending)) => (link, pending.session, pending.request_id, pending.reason()),
            body => panic!("{body:?}"),
        })
        .collect();
    let expected = (host.link, host.session, host.last_request, PendingReason::KeyGeneration);
    assert_eq!(pending, [expected; 4]);
    card.release();
    assert!(host.answer(&mut card).is_some());
    card.advance(Duration::from_secs(5));
    assert!(card.out.sent.is_empty(), "nothing is pending any more");
}

#[test]
fn a_request_is_cancelled_and_its_id_is_spent() {
    let (mut card, mut host) = card_with_keys();
    host.transmit(&mut card, &bytes(VERIFY));
    card.hold = true;
    host.transmit(&mut card, &bytes(SIGN));
    let (session, request_id) = (host.session, host.last_request);
    let cancel = |request_id| Cancel { session, request_id }.into();
    card.handle(Input::Message { link: host.link, envelope: cancel(request_id - 1) });
    assert!(card.out.cancelled.is_empty(), "another request");
    card.handle(Input::Message { link: host.link, envelope: cancel(request_id) });
    assert_eq!(card.out.cancelled.len(), 1);
    assert_eq!(host.answer(&mut card), Some(vec![0x6F, 0x00]));
    assert_eq!(host.transmit(&mut card, &bytes(STATUS)), [0x90, 0x00], "no reset: the PIN stays verified");
    assert!(closed(&card).is_empty());
}

/// A host must give up by itself; one that does not gets no answer for ever, and the owner no question for ever.
#[test]
fn a_command_that_takes_a_minute_is_given_up() {
    let (mut card, mut host) = card_with_keys();
    host.transmit(&mut card, &bytes(VERIFY));
    card.hold = true;
    host.transmit(&mut card, &bytes(SIGN));
    card.advance(Duration::from_millis(59_999));
    assert_eq!(host.answer(&mut card), None);
    card.advance(Duration::from_millis(1));
    assert_eq!(host.answer(&mut card), Some(vec![0x6F, 0x00]));
    assert_eq!(card.out.cancelled.len(), 1);
    assert_eq!(host.transmit(&mut card, &bytes(STATUS)), [0x90, 0x00]);
    // The owner waits for his own phone as long as he likes.
    card.local(&bytes(GENERATE));
    card.advance(Duration::from_secs(600));
    assert_eq!(card.out.held.len(), 1);
}

#[test]
fn a_request_that_runs_is_not_run_again() {
    let (mut card, mut host) = card_with_keys();
    card.hold = true;
    host.transmit(&mut card, &bytes(SIGN));
    host.send(&mut card, host.last_request, &bytes(SIGN));
    assert_eq!(card.out.held.len(), 1);
    host.send(&mut card, host.last_request + 1, &bytes(SIGN));
    assert_eq!(closed(&card), [CloseReason::Protocol], "one after the other");
    assert_eq!(card.out.cancelled.len(), 1);
}

#[test]
fn one_hosts_waiting_does_not_delay_another() {
    let (mut card, mut first) = card_with_keys();
    let mut second = card.host(2);
    card.hold = true;
    assert!(first.transmit(&mut card, &bytes(SIGN)).is_empty());
    assert_eq!(second.transmit(&mut card, &bytes(VERIFY)), [0x90, 0x00]);
    assert!(second.transmit(&mut card, &bytes(SIGN)).is_empty());
    let (operation, effect) = card.out.held.remove(1);
    let result = card.keys.perform(effect);
    card.handle(Input::Completed { operation, result });
    assert!(second.answer(&mut card).is_some(), "the second is done first");
    assert_eq!(first.answer(&mut card), None);
    second.reset(&mut card);
    assert!(card.out.cancelled.is_empty(), "a reset is of one session");
    card.release();
    assert!(first.answer(&mut card).is_some());
    assert_eq!(first.transmit(&mut card, &bytes(STATUS)), [0x63, 0xC3], "what the other verified is the other's");
}

#[test]
fn security_state_is_told_before_the_answer_and_to_everybody_whom_it_concerns() {
    let mut card = TestBox::test_card();
    let mut first = card.host(1);
    let mut second = card.host(2);
    first.last_request += 1;
    first.send(&mut card, 1, &bytes(VERIFY));
    let kinds: Vec<_> = card.out.sent.iter().map(|(_, envelope)| envelope.body.as_ref().unwrap()).collect();
    let [Body::SecurityState(state), Body::Response(response)] = kinds[..] else { panic!("{kinds:?}") };
    assert!(state.pin_verified && state.pin_tries_left == 3);
    assert_eq!(response.security_version, state.version);
    let version = state.version;
    first.answer(&mut card).unwrap();
    told(&mut card, first.link);
    // Tries are everybody's.
    second.transmit(&mut card, &bytes(VERIFY_WRONG));
    assert_eq!(told(&mut card, first.link), [(version + 1, true, 2)]);
    assert_eq!(told(&mut card, second.link), [(2, false, 2)]);
    first.transmit(&mut card, &bytes(STATUS));
    assert!(told(&mut card, first.link).is_empty(), "nothing changed");
    first.reset(&mut card);
    assert_eq!(told(&mut card, first.link), [(version + 2, false, 2)]);
    assert!(told(&mut card, second.link).is_empty());
}

#[test]
fn a_second_link_of_a_host_takes_the_place_of_the_first() {
    let mut card = TestBox::test_card();
    let mut first = card.host(1);
    first.transmit(&mut card, &bytes(VERIFY));
    let mut second = card.host(1);
    assert_eq!(card.out.closed, [(first.link, CloseReason::Replaced)]);
    assert_eq!(second.transmit(&mut card, &bytes(STATUS)), [0x63, 0xC3]);
    first.disconnect(&mut card);
    assert_eq!(second.transmit(&mut card, &bytes(STATUS)), [0x63, 0xC3], "the old link going down is not its end");
}

#[test]
fn a_locked_card_answers_nothing_and_costs_no_try() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    host.transmit(&mut card, &bytes(VERIFY));
    card.handle(Input::LockCard);
    let absent =
        |(_, envelope): &&(LinkId, Envelope)| matches!(&envelope.body, Some(Body::CardState(state)) if !state.present);
    assert_eq!(card.out.sent.iter().filter(absent).count(), 1);
    for command in [VERIFY_WRONG, VERIFY, STATUS, "00CB3FFF 05 5C035FC102 00"] {
        assert_eq!(host.transmit(&mut card, &bytes(command)), [0x69, 0x85]);
    }
    card.handle(Input::UnlockCard);
    assert_eq!(host.transmit(&mut card, &bytes(STATUS)), [0x63, 0xC3]);
}

#[test]
fn a_forgotten_host_is_gone_at_once() {
    let (mut card, mut host) = card_with_keys();
    let other = card.host(2);
    card.hold = true;
    host.transmit(&mut card, &bytes(SIGN));
    card.handle(Input::HostForgotten(HostId::new([1; 32])));
    assert_eq!(card.out.closed, [(host.link, CloseReason::Revoked)]);
    assert_eq!(card.out.cancelled.len(), 1);
    assert!(!card.out.closed.iter().any(|(link, _)| *link == other.link));
}

/// No timer runs while a device sleeps; the first thing that it hears is a command.
#[test]
fn what_time_has_ended_is_over_even_if_no_timer_has_run() {
    let (mut card, mut host) = graceful();
    host.transmit(&mut card, &bytes(VERIFY));
    card.now += Duration::from_secs(15 * 60);
    assert_eq!(host.transmit(&mut card, &bytes(STATUS)), [0x63, 0xC3]);
    host.transmit(&mut card, &bytes(VERIFY));
    host.disconnect(&mut card);
    card.now += Duration::from_secs(5);
    let token = host.token.clone();
    reconnect(&mut card, &mut host, 50, token);
    assert!(!host.resumed, "the grace is over");
    assert_eq!(host.transmit(&mut card, &bytes(STATUS)), [0x63, 0xC3]);
}

#[test]
fn a_pin_is_forgotten_after_a_quarter_of_an_hour_without_a_command() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    host.transmit(&mut card, &bytes(VERIFY));
    card.advance(Duration::from_secs(14 * 60));
    assert_eq!(host.transmit(&mut card, &bytes(STATUS)), [0x90, 0x00]);
    told(&mut card, host.link);
    card.advance(Duration::from_secs(15 * 60));
    assert_eq!(told(&mut card, host.link).len(), 1, "and the host is told");
    assert_eq!(host.transmit(&mut card, &bytes(STATUS)), [0x63, 0xC3]);
    assert_eq!(card.card.poll_timeout(), None, "an idle card wakes nobody up");
    prove_management(&mut card, &mut host);
    card.advance(Duration::from_secs(15 * 60));
    assert_eq!(send(&mut card, &mut host, "00DB3FFF 09 5C035FFF00 5302AABB"), "6982", "so is the management key");
}

#[test]
fn the_owner_waits_for_his_own_command_only() {
    let mut card = TestBox::test_card();
    card.hold = true;
    assert!(card.local(&bytes(GENERATE)).is_empty());
    assert!(card.local(&bytes("00FD0000 00")).is_empty(), "one after the other");
    let mut host = card.host(1);
    assert_eq!(host.transmit(&mut card, &bytes(STATUS)), [0x63, 0xC3]);
    card.release();
    let answered: Vec<u64> = card.out.local.iter().map(|(request, _)| *request).collect();
    assert_eq!(answered, [1, 2]);
    // A reset of his session ends what runs.
    card.local(&bytes(GENERATE));
    card.handle(Input::LocalReset);
    assert_eq!(card.out.cancelled.len(), 1);
    assert_eq!(u16::from(card.out.local.last().unwrap().1.status()), 0x6F00);
}

#[test]
fn events_tell_what_happened_and_never_a_pin() {
    let (mut card, mut host) = card_with_keys();
    card.out.events.clear();
    let signature = "0087119A 26 7C2482008120 DEADBEEFDEADBEEFDEADBEEFDEADBEEFDEADBEEFDEADBEEFDEADBEEFDEADBEEF 00";
    for command in [VERIFY_WRONG, VERIFY, signature, "00240080 10 313233343536FFFF 36353433323130FF"] {
        host.transmit(&mut card, &bytes(command));
    }
    let lines: Vec<String> = card
        .out
        .events
        .iter()
        .filter_map(|event| match event {
            CardEvent::Command { command, status, .. } => Some(format!("{command}: {:04X}", u16::from(*status))),
            _ => None,
        })
        .collect();
    let expected = [
        "VERIFY PIN: 63C2",
        "VERIFY PIN: 9000",
        "GENERAL AUTHENTICATE 9A P-256 sign: 9000",
        "CHANGE REFERENCE DATA PIN: 9000",
    ];
    assert_eq!(lines, expected);
    card.hold = true;
    host.transmit(&mut card, &bytes("0087119E 08 7C0682008102BEEF 00"));
    let everything = format!("{:?} {:?} {:?} {:?}", card.out.events, card.out.sent, card.out.held, card.card);
    for secret in ["123456", "313233", "49, 50, 51", "654321", "DEADBEEF", "190, 239", "BEEF"] {
        assert!(!everything.contains(secret), "{secret} in {everything}");
    }
    assert!(matches!(card.out.held[0].1, Effect::Sign { .. }));
}
