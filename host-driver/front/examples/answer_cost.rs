//! Prints what a command costs that the front answers itself, and what a change of the card's objects costs a phone:
//! `cargo run --release -p pocketcard-front --example answer_cost`.
#![allow(missing_docs, clippy::print_stdout, clippy::expect_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use pocketcard_front::{Config, Front, Output, PowerAction};
use pocketcard_phone::card::test_support::TestBox;
use pocketcard_phone::card::{HostId, Input, LinkId};
use pocketcard_protocol::messages::Body;

const LINK: LinkId = LinkId::new(1 << 40);
const ROUNDS: u32 = 2_000;

/// PUT DATA of `5FFFxx` with so many bytes.
fn put(number: u8, length: usize) -> Vec<u8> {
    let length = u16::try_from(length).expect("an object").to_be_bytes();
    let mut data = vec![0x5C, 3, 0x5F, 0xFF, number, 0x53, 0x82, length[0], length[1]];
    data.resize(data.len() + usize::from(u16::from_be_bytes(length)), 7);
    let lc = u16::try_from(data.len()).expect("an object").to_be_bytes();
    [&[0, 0xDB, 0x3F, 0xFF, 0, lc[0], lc[1]], data.as_slice()].concat()
}

/// Carries messages until nothing is left, and says how many commands went to the card.
fn settle(front: &mut Front, card: &mut TestBox) -> usize {
    let mut relayed = 0;
    loop {
        while let Some(output) = front.poll_output() {
            if let Output::Send(envelope) = output {
                relayed += usize::from(matches!(envelope.body, Some(Body::Transmit(_))));
                card.handle(Input::Message { link: LINK, envelope });
            }
        }
        let Some((_, envelope)) = (!card.out.sent.is_empty()).then(|| card.out.sent.remove(0)) else { return relayed };
        front.handle_envelope(envelope, card.now);
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn main() {
    let mut card = TestBox::test_card();
    assert_eq!(card.local(&put(1, 1024)), [0x90, 0]);
    assert_eq!(card.local(&put(2, 16 * 1024)), [0x90, 0]);
    let mut front = Front::new(Config::default());
    card.handle(Input::LinkUp { link: LINK, host: HostId::new([1; 32]), host_name: "host".into() });
    front.handle_link_up(card.now);
    settle(&mut front, &mut card);
    front.handle_power(PowerAction::Up, 1, card.now).expect("a card");
    let get = |number: u8| vec![0, 0xCB, 0x3F, 0xFF, 0, 0, 5, 0x5C, 3, 0x5F, 0xFF, number, 0, 0];
    for (name, command) in [
        ("SELECT of an application that is not there", vec![0, 0xA4, 4, 0, 6, 0xD2, 0x76, 0, 1, 0x24, 1]),
        ("SELECT of PIV", vec![0, 0xA4, 4, 0, 5, 0xA0, 0, 0, 3, 8, 0]),
        ("state of the PIN", vec![0, 0x20, 0, 0x80]),
        ("GET DATA, 1 KiB", get(1)),
        ("GET DATA, 16 KiB", get(2)),
    ] {
        let times = (0..ROUNDS).map(|_| {
            let start = Instant::now();
            front.handle_transmit(black_box(&command), card.now);
            black_box(front.poll_output());
            start.elapsed()
        });
        println!("{name}: {:?}", median(times.collect()));
    }
    assert_eq!(settle(&mut front, &mut card), 0, "a command that went to the card");

    for number in 3..15 {
        assert_eq!(card.local(&put(number, 16 * 1024)), [0x90, 0]);
    }
    let whole = median(
        (0..200)
            .map(|round| {
                let command = put(1, 512 + round);
                let start = Instant::now();
                black_box(card.local(&command));
                start.elapsed()
            })
            .collect(),
    );
    println!("PUT DATA beside 208 KiB of objects, with the new digest: {whole:?}");
}
