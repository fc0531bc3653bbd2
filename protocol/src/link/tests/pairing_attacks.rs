//! Somebody is on the wire of a pairing, or has photographed the code.

use super::pairing::{METHODS, Method, digits, offer, paired, pairing, pairing_with};
use super::*;
use crate::channel::{Handshake, Pattern, StaticSecret};
use crate::messages::{PairCommit, PairConfirm, PairOpen, PairSecret, PairStored};
use crate::pairing::{Attempts, QrText};
use std::sync::Arc;

fn confirm_both(pair: &mut Pair) {
    for side in [Side::Host, Side::Phone] {
        let now = pair.now;
        pair.link(side).confirm_pairing(true, now);
    }
    pair.settle();
    for side in [Side::Host, Side::Phone] {
        let now = pair.now;
        pair.link(side).pair_stored(now);
    }
    pair.settle();
}

fn is_done(events: &[Event]) -> bool {
    events.iter().any(|event| matches!(event, Event::PairingDone))
}

#[test]
fn no_message_of_a_pairing_can_be_changed() {
    for method in METHODS {
        let parties = Parties::new(1);
        let mut pair = pairing(&parties, method);
        pair.settle();
        confirm_both(&mut pair);
        assert!(is_done(&pair.host_events) && is_done(&pair.phone_events));
        let sent = pair.log.clone();
        // All but the host's last, its close.
        for flight in &sent[..sent.len() - 1] {
            for position in [0, 1, 2, 3, 9, 20, 24, 33, 50, 70, 100, flight.message.len() - 1] {
                let mut pair = pairing(&parties, method);
                pair.intercept(change(flight.from, flight.number, move |message| {
                    let at = position.min(message.len() - 1);
                    message[at] ^= 0x10;
                }));
                pair.settle();
                confirm_both(&mut pair);
                let receiver = if flight.from == Side::Host { &pair.phone_events } else { &pair.host_events };
                let what = format!("{method:?} {:?} {} {position}", flight.from, flight.number);
                assert!(!is_done(receiver), "{what}");
                if let (Some(host), Some(phone)) = (paired(&pair.host_events), paired(&pair.phone_events)) {
                    assert_eq!(host.session_psk().as_bytes(), phone.session_psk().as_bytes(), "{what}");
                }
                pair.advance(Duration::from_secs(200));
                assert!(pair.host.is_closed() && pair.phone.is_closed(), "{what}");
            }
        }
    }
}

#[test]
fn a_man_in_the_middle_shows_different_digits() {
    let parties = Parties::new(1);
    let middle = Parties::new(2);
    // The host pairs with the attacker, the attacker with the phone; the phone's owner and the person at the computer
    // believe they pair with each other.
    let attempts = Attempts::new();
    let mut to_host = parties.clone();
    to_host.phone.identity = Arc::clone(&middle.phone.identity);
    let mut to_phone = parties.clone();
    to_phone.host.identity = Arc::clone(&middle.host.identity);
    let mut left = pairing_with(&to_host, Method::Compared, &attempts, Timestamp::ZERO);
    let mut right = pairing_with(&to_phone, Method::Compared, &attempts, Timestamp::ZERO);
    left.settle();
    right.settle();
    let (shown_on_host, shown_on_phone) = (digits(&left.host_events), digits(&right.phone_events));
    assert!(shown_on_host.is_some() && shown_on_phone.is_some());
    assert_ne!(shown_on_host, shown_on_phone);
    // So both people say no, and nobody has anything.
    left.host.confirm_pairing(false, left.now);
    right.phone.confirm_pairing(false, right.now);
    left.settle();
    right.settle();
    for events in [&left.host_events, &left.phone_events, &right.host_events, &right.phone_events] {
        assert!(paired(events).is_none());
    }
}

#[test]
fn whoever_photographed_the_code_and_was_faster_is_declined() {
    let parties = Parties::new(1);
    let thief = Parties::new(2);
    let offer = offer(&parties, Method::Scanned, &Attempts::new(), Timestamp::ZERO);
    let mode = super::pairing::mode(&offer);
    let mut phone = thief.phone.clone();
    phone.pairing = mode.clone();
    let host = Link::host_pair(parties.host.clone(), offer, Timestamp::ZERO);
    let mut stolen = Pair::new(host, Link::phone(phone, Timestamp::ZERO));
    stolen.settle();
    stolen.phone.confirm_pairing(true, stolen.now);
    stolen.settle();
    // The host shows digits, and says that the phone has confirmed.
    assert!(digits(&stolen.host_events).is_some());
    assert!(stolen.host_events.iter().any(|event| matches!(event, Event::PeerConfirmed)));

    // But the owner's phone shows none: its host has no offer left, and nobody says yes at the computer.
    let mut own = parties.phone.clone();
    own.pairing = mode;
    let mut own = Link::phone(own, Timestamp::ZERO);
    assert!(own.poll_event().is_none());
    stolen.host.confirm_pairing(false, stolen.now);
    stolen.settle();
    assert!(paired(&stolen.host_events).is_none() && paired(&stolen.phone_events).is_none());
    assert!(stolen.host.reclaim_offer().is_none(), "the secret is used up");
}

#[test]
fn a_host_that_stole_the_code_is_not_the_host_of_the_code() {
    let parties = Parties::new(1);
    let offer = offer(&parties, Method::Scanned, &Attempts::new(), Timestamp::ZERO);
    let mut phone = parties.phone.clone();
    phone.pairing = super::pairing::mode(&offer);
    let mut thief = parties.host.clone();
    thief.identity = Arc::new(StaticSecret::from_bytes(&[0x66; 32]));
    let mut pair = Pair::new(Link::host_pair(thief, offer, Timestamp::ZERO), Link::phone(phone, Timestamp::ZERO));
    pair.settle();
    assert_eq!(pair.closed(Side::Phone), Some(CloseReason::WrongHost));
    assert!(digits(&pair.phone_events).is_none());
}

#[test]
fn without_the_code_nobody_pairs_with_a_phone_that_scanned() {
    let parties = Parties::new(1);
    // The same host, another code: what an attacker has who knows all but the secret.
    let scanned = offer(&parties, Method::Scanned, &Attempts::new(), Timestamp::ZERO);
    let other = offer(&parties, Method::Scanned, &Attempts::new(), Timestamp::ZERO);
    let mut phone = parties.phone.clone();
    phone.pairing = super::pairing::mode(&scanned);
    let host = Link::host_pair(parties.host.clone(), other, Timestamp::ZERO);
    let mut pair = Pair::new(host, Link::phone(phone, Timestamp::ZERO));
    pair.settle();
    assert!(digits(&pair.phone_events).is_none() && digits(&pair.host_events).is_none());
    assert!(pair.host.is_closed() || pair.phone.is_closed());
}

/// A host of the test's own: it speaks the handshake, then says what it likes.
struct RawHost {
    channel: sealed::Sealed,
    hash: crate::channel::HandshakeHash,
    phone: Link,
}

impl RawHost {
    fn new() -> Self {
        let parties = Parties::new(1);
        let now = Timestamp::ZERO;
        let mut config = parties.phone.clone();
        config.pairing = PairingMode::Compare;
        let mut phone = Link::phone(config, now);
        let info = Info::parse(&phone.poll_transmit().expect("Info")[1..]).expect("Info");
        let first = frame::FirstHandshake { version: 1, pattern: Pattern::PairCompared, info_nonce: *info.nonce() };
        let entropy: Arc<dyn crate::Entropy> = Arc::new(TestEntropy::new(9));
        let secret = StaticSecret::from_bytes(&[0x66; 32]);
        let prologue = first.prologue(&info, None);
        let mut handshake =
            Handshake::initiator(Pattern::PairCompared, &prologue, &secret, None, None, &entropy).expect("keys");
        let mut message = frame::handshake();
        first.write(&mut message);
        handshake.write(&mut message).expect("message 1");
        phone.handle_message(&message, now);
        handshake.read(&phone.poll_transmit().expect("message 2")[1..]).expect("message 2");
        let mut message = frame::handshake();
        handshake.write(&mut message).expect("message 3");
        phone.handle_message(&message, now);
        let (transport, hash) = handshake.finish(now).expect("finished");
        Self { channel: sealed::Sealed::new(transport), hash, phone }
    }

    fn say(&mut self, message: impl Into<Envelope>) {
        let mut out = Outbox::default();
        self.channel.send(&message.into(), Timestamp::ZERO, &mut out).expect("sealed");
        for record in out.transmits {
            self.phone.handle_message(&record, Timestamp::ZERO);
        }
    }

    fn commit(&mut self, nonce: [u8; 32]) {
        let commitment = crate::pairing::commitment(&self.hash, &nonce).to_vec();
        self.say(PairCommit { commitment, host_name: "h".into(), software: String::new() });
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.phone.poll_event()).collect()
    }
}

#[test]
fn a_host_cannot_choose_its_nonce_after_it_saw_the_phones() {
    let mut host = RawHost::new();
    host.commit([1; 32]);
    host.say(PairOpen { nonce: vec![2; 32] });
    let events = host.events();
    assert!(matches!(events[..], [Event::Closed(CloseReason::Protocol(Violation::Commitment))]), "{events:?}");

    let mut host = RawHost::new();
    host.commit([1; 32]);
    host.say(PairOpen { nonce: vec![1; 32] });
    assert!(digits(&host.events()).is_some());
}

#[test]
fn steps_cannot_be_left_out_or_repeated() {
    type Say = fn(&mut RawHost);
    let commit: Say = |host| host.commit([1; 32]);
    let open: Say = |host| host.say(PairOpen { nonce: vec![1; 32] });
    let confirm: Say = |host| host.say(PairConfirm {});
    let secret: Say = |host| host.say(PairSecret { secret: vec![3; 32] });
    let stored: Say = |host| host.say(PairStored {});
    let agree: Say = |host| host.phone.confirm_pairing(true, Timestamp::ZERO);
    let request: Say = |host| host.say(transmit(1));
    let sequences: [&[Say]; 13] = [
        &[open],
        &[confirm],
        &[secret],
        &[stored],
        &[request],
        &[commit, commit],
        &[commit, confirm],
        &[commit, open, secret],
        &[commit, open, confirm, secret],
        &[commit, open, agree, secret],
        &[commit, open, confirm, confirm],
        &[commit, open, confirm, agree, stored],
        &[commit, open, confirm, agree, secret, secret],
    ];
    for (index, sequence) in sequences.into_iter().enumerate() {
        let mut host = RawHost::new();
        for say in sequence {
            say(&mut host);
        }
        let events = host.events();
        let last = events.last();
        assert!(
            matches!(last, Some(Event::Closed(CloseReason::Protocol(Violation::OutOfPlace)))),
            "{index}: {events:?}"
        );
        assert_eq!(paired(&events).is_some(), index == 12, "{index}");
    }
    let mut host = RawHost::new();
    for say in [commit, open, confirm, agree, secret, stored] {
        say(&mut host);
    }
    host.phone.pair_stored(Timestamp::ZERO);
    assert!(is_done(&host.events()));
}

#[test]
fn a_recorded_pairing_cannot_be_replayed() {
    let parties = Parties::new(1);
    let offer = offer(&parties, Method::Scanned, &Attempts::new(), Timestamp::ZERO);
    let text = offer.qr_text().expect("a code");
    let mut config = parties.phone.clone();
    config.pairing = QrText::parse(&text).expect("its own").into();
    let host = Link::host_pair(parties.host.clone(), offer, Timestamp::ZERO);
    let mut pair = Pair::new(host, Link::phone(config.clone(), Timestamp::ZERO));
    pair.settle();
    confirm_both(&mut pair);
    let mut phone = Link::phone(config, Timestamp::ZERO);
    let info = phone.poll_transmit().expect("Info");
    for flight in pair.log.iter().filter(|flight| flight.from == Side::Host) {
        let mut message = flight.message.clone();
        if flight.number == 0 {
            message[4..20].copy_from_slice(&info[9..25]);
        }
        phone.handle_message(&message, Timestamp::ZERO);
    }
    let events: Vec<Event> = std::iter::from_fn(|| phone.poll_event()).collect();
    assert!(matches!(events[..], [Event::Closed(CloseReason::Decrypt)]), "{events:?}");
}

/// The bytes as `{:?}` and as hexadecimal digits would show them: enough of them to be no accident.
fn traces(secret: &[u8]) -> [String; 2] {
    let list = format!("{:?}", &secret[..6]);
    [list.trim_matches(['[', ']']).to_owned(), hex::encode(&secret[..6])]
}

#[test]
fn no_secret_is_printed_in_any_state() {
    let parties = Parties::new(1);
    let offer = offer(&parties, Method::Scanned, &Attempts::new(), Timestamp::ZERO);
    let text = offer.qr_text().expect("a code");
    let qr = QrText::parse(&text).expect("its own");
    let mut secrets: Vec<Vec<u8>> = vec![
        parties.host.identity.to_bytes().to_vec(),
        parties.phone.identity.to_bytes().to_vec(),
        qr.secret().as_bytes().to_vec(),
    ];
    let mut config = parties.phone.clone();
    config.pairing = qr.into();
    let host = Link::host_pair(parties.host.clone(), offer, Timestamp::ZERO);
    let mut pair = Pair::new(host, Link::phone(config, Timestamp::ZERO));
    let mut printed = String::new();
    let mut print = |pair: &Pair| {
        printed += &format!("{:?} {:#?} {:?} {:?}", pair, pair, pair.host_events, pair.phone_events);
    };
    // Step by step: each millisecond one message arrives.
    pair.latency = MOMENT;
    for step in 0..40 {
        print(&pair);
        pair.advance(MOMENT);
        match step {
            10 => pair.host.confirm_pairing(true, pair.now),
            12 => pair.phone.confirm_pairing(true, pair.now),
            20 => pair.host.pair_stored(pair.now),
            22 => pair.phone.pair_stored(pair.now),
            _ => {}
        }
    }
    assert!(is_done(&pair.host_events));
    let keys = paired(&pair.host_events).expect("paired").duplicate();
    parties.store(paired(&pair.phone_events).expect("paired").duplicate());
    secrets.push(keys.session_psk().as_bytes().to_vec());
    secrets.push(keys.advertising_key().to_vec());

    let mut pair = parties.connecting_with(&keys);
    let command = b"\0\x20\0\x80\x08271828\xff\xff".to_vec();
    secrets.push(command.clone());
    pair.latency = MOMENT;
    for step in 0..10 {
        print(&pair);
        pair.advance(MOMENT);
        if step == 5 {
            let transmit = Transmit { session: 1, request_id: 1, epoch: 1, command: command.clone() };
            pair.send(Side::Host, transmit).expect("connected");
        }
    }
    assert_eq!(messages_in(&pair.phone_events), 1);
    assert!(printed.contains("Deciding") && printed.contains("<13 bytes>") && printed.contains("Paired"), "{printed}");
    for secret in &secrets {
        for trace in traces(secret) {
            assert!(!printed.to_lowercase().contains(&trace), "{trace}");
        }
    }
    assert!(!printed.contains(text.as_str()));
}
