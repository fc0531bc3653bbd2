//! A host and a phone pair.

use super::*;
use crate::pairing::{Attempts, OFFER_LIFETIME, OfferError, QrText, TRIES_WINDOW};
use limits::*;

/// How a test pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Method {
    Scanned,
    Compared,
}

pub(super) const METHODS: [Method; 2] = [Method::Scanned, Method::Compared];

pub(super) fn offer(parties: &Parties, method: Method, attempts: &Attempts, now: Timestamp) -> Offer {
    let host = &parties.host;
    match method {
        Method::Scanned => Offer::new(&host.identity.public(), &host.name, host.entropy.as_ref(), attempts, now),
        Method::Compared => Offer::compare(attempts, now),
    }
    .expect("an offer")
}

pub(super) fn mode(offer: &Offer) -> PairingMode {
    match offer.qr_text() {
        Some(text) => QrText::parse(&text).expect("the host's own text").into(),
        None => PairingMode::Compare,
    }
}

pub(super) fn pairing_with(parties: &Parties, method: Method, attempts: &Attempts, now: Timestamp) -> Pair {
    let offer = offer(parties, method, attempts, now);
    let mut phone = parties.phone.clone();
    phone.pairing = mode(&offer);
    let mut pair = Pair::new(Link::host_pair(parties.host.clone(), offer, now), Link::phone(phone, now));
    pair.now = now;
    pair
}

pub(super) fn pairing(parties: &Parties, method: Method) -> Pair {
    pairing_with(parties, method, &Attempts::new(), Timestamp::ZERO)
}

pub(super) fn digits(events: &[Event]) -> Option<Digits> {
    events.iter().find_map(|event| match event {
        Event::PairingDigits { digits, .. } => Some(*digits),
        _ => None,
    })
}

pub(super) fn paired(events: &[Event]) -> Option<&PairKeys> {
    events.iter().find_map(|event| match event {
        Event::Paired { pair, .. } => Some(pair),
        _ => None,
    })
}

fn done(events: &[Event]) -> bool {
    events.iter().any(|event| matches!(event, Event::PairingDone))
}

#[test]
fn both_ways_end_with_the_same_keys_on_both_sides() {
    for method in METHODS {
        let parties = Parties::new(1);
        let mut pair = pairing(&parties, method);
        pair.latency = Duration::from_millis(15);
        pair.settle();
        let shown = digits(&pair.host_events).expect("digits");
        assert_eq!(digits(&pair.phone_events), Some(shown), "{method:?}");
        let Some(Event::PairingDigits { peer_name, peer, .. }) = pair.host_events.first() else { panic!() };
        assert_eq!((peer_name.as_str(), *peer), ("phone", parties.phone.identity.public()));
        let Some(Event::PairingDigits { peer_name, peer, .. }) = pair.phone_events.first() else { panic!() };
        assert_eq!((peer_name.as_str(), *peer), ("desk", parties.host.identity.public()));

        pair.host.confirm_pairing(true, pair.now);
        pair.settle();
        assert!(matches!(pair.phone_events.last(), Some(Event::PeerConfirmed)));
        assert!(paired(&pair.host_events).is_none() && paired(&pair.phone_events).is_none());
        pair.phone.confirm_pairing(true, pair.now);
        pair.settle();
        let of_host = paired(&pair.host_events).expect("paired").duplicate();
        let of_phone = paired(&pair.phone_events).expect("paired").duplicate();
        assert_eq!(of_host.peer, parties.phone.identity.public());
        assert_eq!(of_phone.peer, parties.host.identity.public());
        assert_eq!(of_host.session_psk().as_bytes(), of_phone.session_psk().as_bytes());
        assert_eq!(of_host.advertising_key(), of_phone.advertising_key());

        pair.phone.pair_stored(pair.now);
        pair.settle();
        assert!(!done(&pair.host_events) && !done(&pair.phone_events));
        pair.host.pair_stored(pair.now);
        pair.settle();
        assert!(done(&pair.host_events) && done(&pair.phone_events));
        assert_eq!(pair.closed(Side::Host), Some(CloseReason::Done));
        assert_eq!(pair.closed(Side::Phone), Some(CloseReason::Peer(messages::CloseReason::Done)));

        // And they connect with what they stored.
        parties.store(of_phone);
        let mut pair = parties.connecting_with(&of_host);
        pair.settle();
        pair.send(Side::Host, transmit(1)).expect("connected");
        pair.settle();
        assert!(connected(&pair.phone_events));
    }
}

#[test]
fn two_pairings_of_the_same_two_share_nothing() {
    let parties = Parties::new(1);
    let keys = METHODS.map(|method| {
        let mut pair = pairing(&parties, method);
        pair.settle();
        pair.host.confirm_pairing(true, pair.now);
        pair.phone.confirm_pairing(true, pair.now);
        pair.settle();
        paired(&pair.host_events).expect("paired").to_bytes()
    });
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn nothing_secret_leaves_before_both_confirmations() {
    for (first, method) in [(Side::Host, Method::Scanned), (Side::Phone, Method::Compared)] {
        let mut pair = pairing(&Parties::new(1), method);
        pair.settle();
        let before = pair.log.len();
        let now = pair.now;
        pair.link(first).confirm_pairing(true, now);
        pair.link(first).confirm_pairing(true, now);
        pair.settle();
        // One record: the confirmation. No secret goes with it, nor does one come.
        assert_eq!(pair.log.len(), before + 1);
        assert_eq!(pair.log[before].from, first);
        pair.link(first.other()).confirm_pairing(true, now);
        pair.settle();
        assert_eq!(pair.log.len(), before + 4, "the other confirmation and two secrets");
    }
}

#[test]
fn no_means_no_on_either_side() {
    for side in [Side::Host, Side::Phone] {
        for confirmed_first in [false, true] {
            let mut pair = pairing(&Parties::new(1), Method::Scanned);
            pair.settle();
            let now = pair.now;
            if confirmed_first {
                pair.link(side.other()).confirm_pairing(true, now);
                pair.settle();
            }
            pair.link(side).confirm_pairing(false, now);
            pair.settle();
            assert_eq!(pair.closed(side), Some(CloseReason::Declined));
            assert_eq!(pair.closed(side.other()), Some(CloseReason::Peer(messages::CloseReason::Rejected)));
            assert!(paired(&pair.host_events).is_none() && paired(&pair.phone_events).is_none());
        }
    }
}

#[test]
fn too_early_or_repeated_answers_change_nothing() {
    let mut pair = pairing(&Parties::new(1), Method::Compared);
    pair.host.confirm_pairing(true, pair.now);
    pair.phone.pair_stored(pair.now);
    pair.settle();
    pair.host.pair_stored(pair.now);
    pair.settle();
    assert!(digits(&pair.host_events).is_some());
    pair.phone.confirm_pairing(true, pair.now);
    pair.settle();
    assert!(paired(&pair.phone_events).is_none(), "the early yes of the host did not count");
    assert_eq!((pair.closed(Side::Host), pair.closed(Side::Phone)), (None, None));
}

#[test]
fn a_host_waits_until_the_owner_has_scanned() {
    let parties = Parties::new(1);
    let offer = offer(&parties, Method::Scanned, &Attempts::new(), Timestamp::ZERO);
    let mode = mode(&offer);
    let phone = Link::phone(parties.phone.clone(), Timestamp::ZERO);
    let mut pair = Pair::new(Link::host_pair(parties.host.clone(), offer, Timestamp::ZERO), phone);
    pair.settle();
    pair.advance(Duration::from_secs(100));
    assert_eq!(pair.log.len(), 1, "only Info");
    pair.phone.set_pairing(PairingMode::Compare, pair.now);
    pair.settle();
    assert_eq!(pair.log.len(), 2, "another Info, of the wrong kind for this host");
    pair.phone.set_pairing(mode, pair.now);
    pair.settle();
    assert!(digits(&pair.phone_events).is_some());
}

#[test]
fn info_may_change_while_the_host_already_answers_it() {
    let parties = Parties::new(1);
    let mut pair = parties.connecting();
    // The owner chooses to pair just when a paired host connects.
    pair.collect();
    pair.phone.set_pairing(PairingMode::Compare, pair.now);
    pair.settle();
    pair.send(Side::Host, transmit(1)).expect("connected");
    pair.settle();
    assert!(connected(&pair.phone_events));
}

#[test]
fn a_phone_pairs_only_in_the_way_its_owner_chose() {
    let parties = Parties::new(1);
    let scanned = mode(&offer(&parties, Method::Scanned, &Attempts::new(), Timestamp::ZERO));
    for (method, mode) in [
        (Method::Scanned, PairingMode::Closed),
        (Method::Scanned, PairingMode::Compare),
        (Method::Compared, PairingMode::Closed),
        (Method::Compared, scanned),
    ] {
        let offer = offer(&parties, method, &Attempts::new(), Timestamp::ZERO);
        let mut phone = parties.phone.clone();
        phone.pairing = mode;
        let host = Link::host_pair(parties.host.clone(), offer, Timestamp::ZERO);
        let mut pair = Pair::new(host, Link::phone(phone, Timestamp::ZERO));
        // Somebody tells the host that the phone is ready: then the phone refuses by itself.
        pair.intercept(change(Side::Phone, 0, |message| message[3] = 0xFF));
        pair.settle();
        assert_eq!(pair.closed(Side::Phone), Some(CloseReason::NotPairing), "{method:?}");
        assert_eq!(pair.closed(Side::Host), Some(CloseReason::NotPairing));
    }
}

#[test]
fn an_offer_expires() {
    for method in METHODS {
        let parties = Parties::new(1);
        // While the host waits for the phone to be ready.
        let offer = offer(&parties, method, &Attempts::new(), Timestamp::ZERO);
        let host = Link::host_pair(parties.host.clone(), offer, Timestamp::ZERO);
        let mut pair = Pair::new(host, Link::phone(parties.phone.clone(), Timestamp::ZERO));
        pair.advance(OFFER_LIFETIME - MOMENT);
        assert_eq!(pair.closed(Side::Host), None);
        pair.advance(MOMENT);
        assert_eq!(pair.closed(Side::Host), Some(CloseReason::Expired));
        assert_eq!(pair.host.reclaim_offer().map(|offer| offer.expires()), Some(Timestamp::ZERO + OFFER_LIFETIME));

        // In the middle of the handshake: Info and message 1 arrive in time, message 2 does not.
        let offer = self::offer(&parties, method, &Attempts::new(), Timestamp::ZERO);
        let mut phone = parties.phone.clone();
        phone.pairing = mode(&offer);
        let now = Timestamp::ZERO + (OFFER_LIFETIME - MOMENT * 2);
        let mut pair = Pair::new(Link::host_pair(parties.host.clone(), offer, now), Link::phone(phone, now));
        pair.now = now;
        pair.latency = MOMENT;
        pair.settle();
        assert_eq!(pair.closed(Side::Host), Some(CloseReason::Expired), "{method:?}");
        assert!(digits(&pair.phone_events).is_none());
    }
}

#[test]
fn a_phone_forgets_what_it_scanned() {
    let parties = Parties::new(1);
    let text = offer(&parties, Method::Scanned, &Attempts::new(), Timestamp::ZERO).qr_text().expect("a code");
    let lifetime = Duration::from_secs(30);
    let scanned = || QrText::parse(&text).expect("its own").with_lifetime_for_testing_only(lifetime).into();
    let mut config = parties.phone.clone();
    config.pairing = scanned();
    let mut phone = Link::phone(config, Timestamp::ZERO);
    let ready = |phone: &mut Link| phone.poll_transmit().map(|info| info[3]);
    assert_eq!(ready(&mut phone), Some(1));
    let expires = Timestamp::ZERO + lifetime;
    assert_eq!(phone.poll_timeout(), Some(expires));
    phone.handle_timeout(expires);
    assert_eq!(ready(&mut phone), Some(0));
    assert!(!phone.is_closed(), "the link may still be used to connect");
    assert_eq!(phone.poll_timeout(), Some(Timestamp::ZERO + WAIT_LIMIT), "for as long as if nothing had been scanned");

    // Scanned again, it holds again; and a handshake that comes too late is refused though no timer ran.
    phone.set_pairing(scanned(), expires);
    let info = phone.poll_transmit().expect("Info");
    let nonce = info[9..25].try_into().expect("a nonce");
    let first = frame::FirstHandshake { version: 1, pattern: crate::channel::Pattern::PairScanned, info_nonce: nonce };
    let mut message = frame::handshake();
    first.write(&mut message);
    message.extend_from_slice(&[9; 32]);
    phone.handle_message(&message, expires + lifetime);
    assert!(matches!(phone.poll_event(), Some(Event::Closed(CloseReason::NotPairing))));
}

#[test]
fn people_have_two_minutes() {
    let mut pair = pairing(&Parties::new(1), Method::Scanned);
    pair.settle();
    pair.host.confirm_pairing(true, pair.now);
    pair.advance(DECISION_LIMIT - MOMENT);
    assert_eq!((pair.closed(Side::Host), pair.closed(Side::Phone)), (None, None));
    pair.advance(MOMENT);
    assert_eq!(pair.closed(Side::Host), Some(CloseReason::Timeout(Limit::Decision)));
    assert_eq!(pair.closed(Side::Phone), Some(CloseReason::Timeout(Limit::Decision)));
}

#[test]
fn a_late_timer_gives_nobody_more_time() {
    let yes: fn(&mut Pair, Timestamp) = |pair, now| pair.host.confirm_pairing(true, now);
    let stored: fn(&mut Pair, Timestamp) = |pair, now| pair.host.pair_stored(now);
    for (act, limit) in [(yes, Limit::Decision), (stored, Limit::Store)] {
        let mut pair = pairing(&Parties::new(1), Method::Scanned);
        pair.settle();
        pair.phone.confirm_pairing(true, pair.now);
        if limit == Limit::Store {
            pair.host.confirm_pairing(true, pair.now);
        }
        pair.settle();
        act(&mut pair, Timestamp::ZERO + limit.duration());
        pair.collect();
        assert_eq!(pair.closed(Side::Host), Some(CloseReason::Timeout(limit)));
    }
}

#[test]
fn a_side_that_does_not_store_is_not_waited_for() {
    let mut pair = pairing(&Parties::new(1), Method::Scanned);
    pair.settle();
    pair.host.confirm_pairing(true, pair.now);
    pair.phone.confirm_pairing(true, pair.now);
    pair.settle();
    pair.phone.pair_stored(pair.now);
    pair.advance(STORE_LIMIT - MOMENT);
    assert_eq!((pair.closed(Side::Host), pair.closed(Side::Phone)), (None, None));
    pair.advance(MOMENT);
    assert_eq!(pair.closed(Side::Host), Some(CloseReason::Timeout(Limit::Store)));
    assert_eq!(pair.closed(Side::Phone), Some(CloseReason::Timeout(Limit::Store)));
    assert!(!done(&pair.phone_events));
}

#[test]
fn digits_must_come_in_time() {
    for stopped in 2..5 {
        let mut pair = pairing(&Parties::new(1), Method::Scanned);
        let mut count = 0;
        pair.intercept(move |flight| {
            count += 1;
            if count > stopped { Vec::new() } else { vec![flight] }
        });
        pair.settle();
        pair.advance(HANDSHAKE_LIMIT);
        let closed = [pair.closed(Side::Host), pair.closed(Side::Phone)];
        assert!(closed.contains(&Some(CloseReason::Timeout(Limit::Handshake))), "{stopped} {closed:?}");
        assert!(digits(&pair.phone_events).is_none());
    }
}

#[test]
fn a_phone_that_is_done_does_not_wait_for_ever() {
    let mut pair = pairing(&Parties::new(1), Method::Scanned);
    pair.settle();
    for side in [Side::Host, Side::Phone] {
        let now = pair.now;
        pair.link(side).confirm_pairing(true, now);
    }
    pair.settle();
    pair.phone.pair_stored(pair.now);
    pair.settle();
    pair.host.pair_stored(pair.now);
    // The last record of the host, its close, is lost.
    pair.intercept(|flight| vec![flight]);
    pair.collect();
    let stored = pair.log.iter().rev().nth(1).expect("stored").message.clone();
    pair.cut();
    pair.phone.handle_message(&stored, pair.now);
    pair.collect();
    assert!(done(&pair.phone_events));
    pair.advance(CLOSE_LIMIT - MOMENT);
    assert_eq!(pair.closed(Side::Phone), None);
    pair.advance(MOMENT);
    assert_eq!(pair.closed(Side::Phone), Some(CloseReason::Done));
}

#[test]
fn three_failures_in_ten_minutes_are_enough() {
    let parties = Parties::new(1);
    let attempts = Attempts::new();
    for _ in 0..3 {
        let mut pair = pairing_with(&parties, Method::Compared, &attempts, Timestamp::ZERO);
        pair.settle();
        assert!(digits(&pair.host_events).is_some());
        pair.host.confirm_pairing(false, pair.now);
        assert!(pair.host.reclaim_offer().is_none(), "the offer is used up");
    }
    let until = Timestamp::ZERO + TRIES_WINDOW;
    let refused = Offer::compare(&attempts, Timestamp::ZERO);
    assert_eq!(refused.err(), Some(OfferError::TooManyTries(crate::pairing::TooManyTries { until })));
    let mut pair = pairing_with(&parties, Method::Compared, &attempts, until);
    pair.settle();
    assert!(digits(&pair.host_events).is_some());
}

#[test]
fn an_offer_made_before_the_third_failure_does_not_help() {
    let parties = Parties::new(1);
    let attempts = Attempts::new();
    let mut pairs: Vec<Pair> =
        (0..4).map(|_| pairing_with(&parties, Method::Compared, &attempts, Timestamp::ZERO)).collect();
    for pair in &mut pairs {
        pair.settle();
    }
    let shown = pairs.iter().filter(|pair| digits(&pair.host_events).is_some()).count();
    assert_eq!(shown, 3);
    let until = Timestamp::ZERO + TRIES_WINDOW;
    assert_eq!(pairs[3].closed(Side::Host), Some(CloseReason::TooManyTries { until }));
}

#[test]
fn a_pairing_that_succeeds_does_not_count() {
    let parties = Parties::new(1);
    let attempts = Attempts::new();
    for _ in 0..5 {
        let mut pair = pairing_with(&parties, Method::Scanned, &attempts, Timestamp::ZERO);
        pair.settle();
        pair.host.confirm_pairing(true, pair.now);
        pair.phone.confirm_pairing(true, pair.now);
        pair.settle();
        assert!(paired(&pair.host_events).is_some());
    }
}

#[test]
fn a_link_that_fails_early_gives_the_offer_back() {
    let parties = Parties::new(1);
    let attempts = Attempts::new();
    let mut pair = pairing_with(&parties, Method::Scanned, &attempts, Timestamp::ZERO);
    assert!(pair.host.reclaim_offer().is_none(), "the link still uses it");
    pair.disconnect();
    let offer = pair.host.reclaim_offer().expect("unused");
    let mut phone = parties.phone.clone();
    phone.pairing = mode(&offer);
    let host = Link::host_pair(parties.host.clone(), offer, Timestamp::ZERO);
    let mut pair = Pair::new(host, Link::phone(phone, Timestamp::ZERO));
    pair.settle();
    assert!(digits(&pair.host_events).is_some());
}
