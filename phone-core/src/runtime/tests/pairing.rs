//! How pairs come and go, and how long a pairing may take.

use pocketcard_protocol::advertising::{Epoch, Identifier};

use super::*;

#[test]
fn a_pair_that_the_host_did_not_store_is_dropped_in_time() {
    let store = MemoryStore::new();
    let mut world = World::new(&store);
    let (host, _pair) = pair_halfway(&mut world, 1);
    assert_eq!(hosts(&mut world).len(), 1);
    drop(host);
    world.advance(UNCONFIRMED_PAIR_LIFETIME - Duration::from_secs(1));
    assert_eq!(hosts(&mut world).len(), 1);
    world.advance(Duration::from_secs(1));
    assert_eq!(hosts(&mut world).len(), 0);
    let left = store.load().unwrap();
    assert!(!left.iter().any(|(name, _)| name.starts_with("host/")));
}

#[test]
fn a_connection_confirms_a_pair_for_good() {
    let store = MemoryStore::new();
    let mut world = World::new(&store);
    let (host, pair) = pair_halfway(&mut world, 1);
    drop(host);
    world.session(1, &pair);
    world.advance(UNCONFIRMED_PAIR_LIFETIME * 2);
    assert_eq!(hosts(&mut world).len(), 1);
}

#[test]
fn secrets_of_a_pair_are_sealed_in_the_store() {
    let store = MemoryStore::new();
    let mut world = World::new(&store);
    let pair = pair(&mut world, 1);
    let secret = pair.to_bytes();
    for (name, value) in store.load().unwrap() {
        for part in secret.windows(16).step_by(16) {
            assert!(!value.windows(16).any(|window| window == part && part != pair.peer.as_bytes()), "{name}");
        }
    }
}

#[test]
fn pairing_again_replaces_the_pair_and_ends_the_old_link() {
    let mut world = World::new(&MemoryStore::new());
    let old = pair(&mut world, 1);
    let (mut host, _) = world.session(1, &old);
    let new = pair(&mut world, 1);
    host.exchange(&mut world);
    assert!(host.closed().is_some());
    assert_eq!(hosts(&mut world).len(), 1);
    world.session(1, &new);
    let mut stale = world.connect(Link::host_connect(host_config(1), &old, world.now()));
    stale.exchange(&mut world);
    assert!(!stale.link.is_open());
}

#[test]
fn one_pairing_at_a_time_and_two_minutes_for_it() {
    let mut world = World::new(&MemoryStore::new());
    let phone = world.phone.clone();
    assert!(matches!(world.ask(phone.confirm_pairing(true)), Err(PhoneError::NoPairing)));
    let (_host, _) = pair_halfway(&mut world, 1);
    assert!(matches!(world.ask(phone.compare()), Err(ScanError::Busy)));
    phone.cancel_pairing();
    world.advance(Duration::from_secs(60));
    world.ask(phone.compare()).unwrap();
    world.advance(Duration::from_secs(120));
    world.event(|event| matches!(event, PhoneEvent::PairingFailed { reason: PairingFailure::Expired }));
    assert!(world.ask(phone.scan("pocketcard:nonsense")).is_err());
}

#[test]
fn a_factory_reset_ends_a_pairing_in_whatever_state_it_is() {
    let store = MemoryStore::new();
    let mut world = World::new(&store);
    let phone = world.phone.clone();
    world.ask(phone.compare()).unwrap();
    world.ask(phone.factory_reset()).unwrap();
    world.event(|event| matches!(event, PhoneEvent::PairingFailed { reason: PairingFailure::Cancelled }));

    let (mut host, digits) = shown_digits(&mut world, 1);
    host.link.confirm_pairing(true, world.now());
    world.ask(phone.factory_reset()).unwrap();
    world.event(|event| matches!(event, PhoneEvent::PairingFailed { reason: PairingFailure::Cancelled }));
    assert!(matches!(world.ask(phone.confirm_pairing(true)), Err(PhoneError::NoPairing)), "{digits}");
    host.exchange(&mut world);
    assert!(host.closed().is_some() && hosts(&mut world).is_empty());

    let (mut host, _) = pair_halfway(&mut world, 1);
    world.ask(phone.factory_reset()).unwrap();
    host.link.pair_stored(world.now());
    host.exchange(&mut world);
    assert!(host.closed().is_some() && hosts(&mut world).is_empty());
    world.ask(phone.compare()).expect("no pairing is under way");
    assert!(!store.load().unwrap().iter().any(|(name, _)| name.starts_with("host/")));
}

/// What a phone's `Info` says about pairing by a scanned code.
fn ready_for_scanned(info: &[u8]) -> bool {
    info[3] & 1 != 0
}

#[test]
fn a_scanned_code_holds_two_minutes_from_the_scan_whatever_links_come_up() {
    let mut world = World::new(&MemoryStore::new());
    let phone = world.phone.clone();
    let config = host_config(1);
    // The host's own clock is late, so that nothing but the phone ends the pairing.
    let made = world.now() + Duration::from_secs(100);
    let offer = Offer::new(&config.identity.public(), "Host", &SystemEntropy, &Attempts::new(), made).unwrap();
    world.ask(phone.scan(&offer.qr_text().unwrap())).unwrap();
    let infos = |world: &mut World, host: &Host| {
        world.run();
        host.wire.to_host.lock().unwrap().drain(..).map(|info| ready_for_scanned(&info)).collect::<Vec<_>>()
    };
    world.advance(Duration::from_secs(119));
    let early = world.connect(Link::host_pair(host_config(1), offer, world.now()));
    assert_eq!(infos(&mut world, &early), [true]);
    world.advance(Duration::from_millis(999));
    assert!(infos(&mut world, &early).is_empty());
    world.advance(Duration::from_millis(1));
    assert_eq!(infos(&mut world, &early), [false], "the link has been there for a second only");
    world.event(|event| matches!(event, PhoneEvent::PairingFailed { reason: PairingFailure::Expired }));
    let late = world.connect(Link::host_connect(host_config(2), &unpaired(), world.now()));
    assert_eq!(infos(&mut world, &late), [false]);
}

/// The device slept; the link comes up before any timer has run.
#[test]
fn a_pairing_does_not_outlive_a_sleep_of_the_device() {
    for scanned in [true, false] {
        let mut world = World::new(&MemoryStore::new());
        let phone = world.phone.clone();
        let config = host_config(1);
        let offer = Offer::new(&config.identity.public(), "Host", &SystemEntropy, &Attempts::new(), world.now());
        let text = offer.unwrap().qr_text().unwrap();
        if scanned {
            world.ask(phone.scan(&text)).unwrap();
        } else {
            world.ask(phone.compare()).unwrap();
        }
        world.clock.advance(Duration::from_secs(120));
        let host = world.connect(Link::host_connect(host_config(1), &unpaired(), world.now()));
        world.run();
        let infos = std::mem::take(&mut *host.wire.to_host.lock().unwrap());
        assert_eq!(infos.iter().map(|info| info[3]).collect::<Vec<_>>(), [0], "ready for nothing from the start");
        world.event(|event| matches!(event, PhoneEvent::PairingFailed { reason: PairingFailure::Expired }));
    }
}

/// The keys of a pair that no phone here has.
fn unpaired() -> PairKeys {
    pair(&mut World::new(&MemoryStore::new()), 1)
}

#[test]
fn hosts_that_are_away_and_a_pairing_are_advertised() {
    let mut world = World::new(&MemoryStore::new());
    let epoch = Epoch::at(Duration::from_secs(1_800_000_000));
    let phone = world.phone.clone();
    let advertised = phone.advertise(epoch);
    let set = |world: &mut World| {
        world.run();
        advertised.try_recv().ok()
    };
    assert_eq!(set(&mut world), Some(vec![]));
    let (first, second) = (pair(&mut world, 1), pair(&mut world, 2));
    let of = |pair: &PairKeys| Identifier::of_pair(pair, epoch);
    let mut both = set(&mut world).unwrap();
    both.sort();
    let mut expected = vec![of(&first), of(&second)];
    expected.sort();
    assert_eq!(both, expected);
    let (host, _) = world.session(1, &first);
    assert_eq!(set(&mut world), Some(vec![of(&second)]));
    world.ask(phone.compare()).unwrap();
    assert_eq!(set(&mut world), Some(vec![Identifier::COMPARE, of(&second)]));
    phone.cancel_pairing();
    drop(host);
    assert_eq!(set(&mut world).unwrap().len(), 2);
    let gone = world.ask(phone.hosts()).unwrap()[0].host;
    world.ask(phone.forget(gone)).unwrap();
    assert_eq!(set(&mut world).unwrap().len(), 1);
    assert_eq!(set(&mut world), None, "told only of changes");
    // Another epoch, or another radio: the earlier watcher is told no more.
    let later = phone.advertise(Epoch::at(Duration::from_secs(1_800_000_900)));
    world.run();
    assert!(advertised.is_closed());
    assert_eq!(later.try_recv().unwrap().len(), 1);
    let offer =
        Offer::new(&host_config(1).identity.public(), "Host", &SystemEntropy, &Attempts::new(), world.now()).unwrap();
    world.ask(phone.scan(&offer.qr_text().unwrap())).unwrap();
    world.run();
    let expected = Identifier::of_offer(offer.advertising_seed().unwrap());
    assert_eq!(later.try_recv().unwrap()[0], expected);
}
