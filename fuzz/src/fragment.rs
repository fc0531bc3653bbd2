//! Fragments: hostile ones, and honest ones that a radio mixes up.

use core::time::Duration;

use pocketcard_protocol::Timestamp;
use pocketcard_protocol::fragment::{FragmentError, FragmentLayer, FragmentSize, Reassembler, WINDOW};

use crate::Input;

/// The first byte chooses between the two.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    if input.byte() % 2 == 0 { hostile(input) } else { mixed_up(input) }
}

/// Each piece is a fragment. What is kept stays bounded, messages keep the limit, an error is final.
fn hostile(mut input: Input<'_>) {
    let limit = 1 + usize::from(input.u16());
    let mut reassembler = Reassembler::new(limit);
    let mut now = Timestamp::ZERO;
    let mut failed = false;
    while !input.is_empty() {
        now += Duration::from_millis(10 * u64::from(input.byte()));
        let fragment = input.long_chunk();
        let result = reassembler.handle_fragment(fragment, now);
        assert!(!failed || result == Err(FragmentError::Closed));
        failed |= result.is_err();
        assert!(reassembler.buffered() <= limit + WINDOW * FragmentSize::LARGEST.bytes());
        while let Some(message) = reassembler.poll_message() {
            assert!((1..=limit).contains(&message.len()));
        }
        let credit = reassembler.poll_credit();
        assert!(!(failed && credit.is_some()));
        if let Some(due) = reassembler.poll_timeout() {
            assert!(due > now && due <= now + Duration::from_secs(2));
            assert!(!failed);
        }
    }
}

/// Two ends, and a radio that delivers what the input says: every message arrives once, whole and in order.
fn mixed_up(mut input: Input<'_>) {
    const LIMIT: usize = 4096;
    let now = Timestamp::ZERO;
    let mut ends = [input.u16(), input.u16()].map(|size| FragmentLayer::new(FragmentSize::new(size.into()), LIMIT));
    let mut sent: [Vec<Vec<u8>>; 2] = Default::default();
    let mut received: [Vec<Vec<u8>>; 2] = Default::default();
    let mut air: [Vec<Vec<u8>>; 2] = Default::default();
    let mut deliver = |ends: &mut [FragmentLayer; 2], received: &mut [Vec<Vec<u8>>; 2], from: usize, choice: usize| {
        let [a, b] = &mut air;
        a.extend(std::iter::from_fn(|| ends[0].poll_transmit(now)));
        b.extend(std::iter::from_fn(|| ends[1].poll_transmit(now)));
        let queue = &mut air[from];
        if queue.is_empty() {
            return air[1 - from].is_empty();
        }
        let fragment = queue.swap_remove(choice % queue.len());
        let to = &mut ends[1 - from];
        to.handle_fragment(&fragment, now).expect("honest fragments, in any order");
        received[from].extend(std::iter::from_fn(|| to.poll_message()));
        false
    };
    while !input.is_empty() {
        let operation = input.byte();
        let side = usize::from(operation & 1);
        match operation >> 1 & 7 {
            0 => {
                let message = vec![operation; 1 + usize::from(input.u16()) % LIMIT];
                ends[side].push(message.clone()).expect("within the limits");
                sent[side].push(message);
            }
            1 => ends[side].set_size(FragmentSize::new(input.u16().into())),
            _ => {
                deliver(&mut ends, &mut received, side, usize::from(input.byte()));
            }
        }
    }
    // Not `&&`: both directions have to move.
    while !(deliver(&mut ends, &mut received, 0, 0) & deliver(&mut ends, &mut received, 1, 0)) {}
    assert_eq!(sent, received);
}
