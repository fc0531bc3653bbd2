//! What a host can do with its links, and what not.

use super::*;

#[test]
fn a_paired_host_uses_the_card_also_after_a_restart() {
    let store = MemoryStore::new();
    let mut world = World::new(&store);
    let pair = pair(&mut world, 1);
    let (mut host, session) = world.session(1, &pair);
    host.send(&mut world, Transmit { session, request_id: 1, epoch: 1, command: SELECT.to_vec() });
    let answered = |event: &Event| matches!(event, Event::Message(Envelope { body: Some(Body::Response(_)) }));
    assert!(host.events.iter().any(answered), "{:?}", host.events);
    assert!(hosts(&mut world)[0].connected);
    drop(world);

    let mut world = World::new(&store);
    assert_eq!(hosts(&mut world).len(), 1);
    assert!(!hosts(&mut world)[0].connected);
    world.session(1, &pair);
}

#[test]
fn forgetting_a_host_closes_its_link_at_once() {
    let mut world = World::new(&MemoryStore::new());
    let pair = pair(&mut world, 1);
    let (mut host, _) = world.session(1, &pair);
    let phone = world.phone.clone();
    let id = hosts(&mut world)[0].host;
    world.ask(phone.forget(id)).unwrap();
    assert!(matches!(world.ask(phone.forget(id)), Err(PhoneError::UnknownHost)));
    host.exchange(&mut world);
    assert!(host.closed().is_some());
    assert!(host.is_cut_off());
    let mut again = world.connect(Link::host_connect(host_config(1), &pair, world.now()));
    again.exchange(&mut world);
    assert!(!again.link.is_open());
}

#[test]
fn a_transport_that_only_asks_again_makes_no_progress() {
    let mut world = World::new(&MemoryStore::new());
    let pair = pair(&mut world, 1);
    let (mut host, session) = world.session(1, &pair);
    host.wire.blocked.store(true, Ordering::Relaxed);
    host.send(&mut world, Transmit { session, request_id: 1, epoch: 1, command: SELECT.to_vec() });
    for _ in 0..9 {
        world.advance(Duration::from_secs(1));
        host.handle.as_ref().unwrap().ready_to_send();
        world.run();
    }
    assert!(!host.is_cut_off());
    world.advance(Duration::from_secs(1));
    assert!(host.is_cut_off());
}

#[test]
fn one_host_takes_no_more_than_two_places() {
    let mut world = World::new(&MemoryStore::new());
    let first_pair = pair(&mut world, 1);
    let second_pair = pair(&mut world, 2);
    let mut links: Vec<Host> = (0..20)
        .map(|_| {
            let mut host = world.connect(Link::host_connect(host_config(1), &first_pair, world.now()));
            host.exchange(&mut world);
            // Anything but an opening, which would end the card session of the link before.
            host.send(&mut world, Unsupported::default());
            host
        })
        .collect();
    links.iter_mut().for_each(|host| host.exchange(&mut world));
    let closed: Vec<_> = links.iter().map(Host::closed).collect();
    assert!(closed[..18].iter().all(|reason| *reason == Some(CloseReason::Peer(Told::Replaced))), "{closed:?}");
    assert_eq!(closed[18..], [None, None]);
    world.session(2, &second_pair);
}

#[test]
fn a_host_that_does_not_read_is_served_no_further_and_then_cut_off() {
    let mut world = World::new(&MemoryStore::new());
    let pair = pair(&mut world, 1);
    let (mut host, session) = world.session(1, &pair);
    host.wire.blocked.store(true, Ordering::Relaxed);
    for request_id in 1..=3 {
        let transmit = Transmit { session, request_id, epoch: 1, command: SELECT.to_vec() };
        host.send(&mut world, transmit);
    }
    assert!(host.events.is_empty(), "{:?}", host.events);
    host.wire.blocked.store(false, Ordering::Relaxed);
    host.handle.as_ref().unwrap().ready_to_send();
    host.exchange(&mut world);
    let responses = |host: &Host| {
        let ids = host.events.iter().filter_map(|event| match event {
            Event::Message(Envelope { body: Some(Body::Response(response)) }) => Some(response.request_id),
            _ => None,
        });
        ids.collect::<Vec<_>>()
    };
    assert_eq!(responses(&host), [1, 2, 3]);

    host.wire.blocked.store(true, Ordering::Relaxed);
    host.send(&mut world, Transmit { session, request_id: 4, epoch: 1, command: SELECT.to_vec() });
    world.advance(Duration::from_secs(9));
    assert!(!host.is_cut_off());
    world.advance(Duration::from_secs(1));
    assert!(host.is_cut_off());
    world.event(|event| matches!(event, PhoneEvent::Disconnected { .. }));
}

#[test]
fn a_flood_fills_only_its_own_room() {
    let mut world = World::new(&MemoryStore::new());
    let pair = pair(&mut world, 1);
    let (mut host, _) = world.session(1, &pair);
    let handle = host.handle.take().unwrap();
    // Nothing is polled here, so everything waits.
    let mut taken = 0;
    while handle.try_push_message(vec![0]).is_ok() {
        taken += 1;
    }
    assert_eq!(taken, 64);
    assert!(matches!(handle.try_push_message(vec![0]), Err((PushError::Full, message)) if message == [0]));
    world.run();
    assert!(handle.is_closed());
    assert!(matches!(handle.try_push_message(vec![0]), Err((PushError::Closed, _))));
}

#[test]
fn strangers_cannot_take_all_places() {
    let mut world = World::new(&MemoryStore::new());
    let pair = pair(&mut world, 1);
    let strangers: Vec<Host> =
        (0..8).map(|_| world.connect(Link::host_connect(host_config(9), &pair, Timestamp::ZERO))).collect();
    world.run();
    let mut ninth = world.connect(Link::host_connect(host_config(1), &pair, world.now()));
    ninth.exchange(&mut world);
    assert_eq!(ninth.closed(), Some(CloseReason::Busy));
    assert!(ninth.is_cut_off());
    drop(strangers);
    world.run();
    world.session(1, &pair);
}

#[test]
fn a_lost_transport_is_reported_and_its_host_can_come_back() {
    let mut world = World::new(&MemoryStore::new());
    let pair = pair(&mut world, 1);
    let (mut host, _) = world.session(1, &pair);
    drop(host.handle.take());
    let lost = |event: &PhoneEvent| matches!(event, PhoneEvent::Disconnected { reason: CloseReason::Lost, .. });
    world.event(lost);
    assert!(host.is_cut_off());
    world.session(1, &pair);
}

#[test]
fn a_silent_host_is_let_go() {
    let mut world = World::new(&MemoryStore::new());
    let pair = pair(&mut world, 1);
    let (_host, _) = world.session(1, &pair);
    world.advance(Limit::Silence.duration() - Duration::from_secs(1));
    assert!(hosts(&mut world)[0].connected);
    world.advance(Duration::from_secs(2));
    assert!(!hosts(&mut world)[0].connected);
}

#[test]
fn stopping_says_goodbye_to_every_host() {
    let mut world = World::new(&MemoryStore::new());
    let pair = pair(&mut world, 1);
    let (mut host, _) = world.session(1, &pair);
    let phone = world.phone.clone();
    world.ask(phone.stop());
    assert!(world.ended);
    host.exchange(&mut world);
    assert!(host.closed().is_some());
    assert!(host.is_cut_off());
    assert!(matches!(world.ask(phone.hosts()), Err(PhoneError::Stopped)));
    world.ask(phone.stop());
}

#[test]
fn messages_without_a_session_close_only_their_link() {
    let mut world = World::new(&MemoryStore::new());
    let first_pair = pair(&mut world, 1);
    let second_pair = pair(&mut world, 2);
    let (mut good, session) = world.session(1, &first_pair);
    let mut bad = world.connect(Link::host_connect(host_config(2), &second_pair, world.now()));
    bad.exchange(&mut world);
    bad.send(&mut world, Reset { session: 77, epoch: 5 });
    assert!(bad.closed().is_some());
    good.send(&mut world, Transmit { session, request_id: 1, epoch: 1, command: SELECT.to_vec() });
    assert!(good.closed().is_none());
    assert!(bad.link.send(&Ping { id: 1 }.into(), world.now()).is_err());
}

#[test]
fn a_link_that_was_lost_may_come_back_and_one_that_was_closed_may_not() {
    type End = fn(&mut World, &mut Host, &PairKeys);
    let ends: [(&str, End, bool); 6] = [
        ("the transport ends", |_, host, _| drop(host.handle.take()), true),
        (
            "the host waited too long",
            |world, host, _| {
                host.link.close(CloseReason::Timeout(Limit::Request), world.now());
                host.exchange(world);
            },
            true,
        ),
        (
            "somebody on the radio makes up a record",
            |world, host, _| {
                host.handle.as_ref().unwrap().try_push_message(vec![2; 49]).unwrap();
                world.run();
                assert!(host.is_cut_off());
            },
            true,
        ),
        (
            "newer links of the host took its place",
            |world, host, pair| {
                let mut more = Vec::new();
                for _ in 0..2 {
                    let mut link = world.connect(Link::host_connect(host_config(1), pair, world.now()));
                    link.exchange(world);
                    link.send(world, Unsupported::default());
                    more.push(link);
                }
                assert!(host.is_cut_off());
            },
            true,
        ),
        (
            "the host is done",
            |world, host, _| {
                host.link.close(CloseReason::Done, world.now());
                host.exchange(world);
            },
            false,
        ),
        ("the host breaks the protocol", |world, host, _| host.send(world, Reset { session: 99, epoch: 2 }), false),
    ];
    for (name, end, comes_back) in ends {
        let mut world = World::new(&MemoryStore::new());
        let pair = pair(&mut world, 1);
        let (mut host, opened) = world.open(1, &pair, Vec::new());
        end(&mut world, &mut host, &pair);
        world.run();
        let (_again, again) = world.open(1, &pair, opened.token.clone());
        assert_eq!(again.resumed, comes_back, "{name}");
    }
}
