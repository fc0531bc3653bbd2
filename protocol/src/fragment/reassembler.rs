//! Fragments put together to messages.

use std::collections::VecDeque;

use super::{
    CREDIT, CREDIT_EVERY, END, FragmentError, FragmentSize, HEADER, NEXT_FRAGMENT, START, TOTAL, WHOLE_MESSAGE, WINDOW,
    check_total,
};
use crate::Timestamp;

/// Puts messages together from fragments that come in any order within the window.
///
/// Any error is final: every later call gives [`FragmentError::Closed`].
#[derive(Debug)]
pub struct Reassembler {
    limit: usize,
    /// Message and index of the fragment that is next in order.
    message: u8,
    index: u16,
    /// Announced length of the message that has begun, and what is here of it.
    total: usize,
    assembled: Vec<u8>,
    /// Fragments ahead of the next one; fewer than [`WINDOW`].
    early: Vec<Fragment>,
    /// Fragments taken in order, counted like the sender counts them, and those of them without a credit so far.
    accepted: u16,
    uncredited: usize,
    complete: VecDeque<Vec<u8>>,
    waiting: Option<Waiting>,
    closed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    since: Timestamp,
    last: Timestamp,
}

impl Waiting {
    fn limit(self) -> (Timestamp, FragmentError) {
        let stalled = self.last + NEXT_FRAGMENT;
        let too_slow = self.since + WHOLE_MESSAGE;
        if stalled <= too_slow { (stalled, FragmentError::Stalled) } else { (too_slow, FragmentError::TooSlow) }
    }
}

/// A fragment of a message, its header read.
#[derive(Debug)]
struct Fragment {
    message: u8,
    index: u16,
    /// Announced length of the message, in its first fragment.
    total: Option<usize>,
    is_last: bool,
    payload: Vec<u8>,
}

impl Fragment {
    fn parse(bytes: &[u8]) -> Result<Self, FragmentError> {
        let length = bytes.len();
        if length > FragmentSize::LARGEST.bytes() {
            return Err(FragmentError::Length { length });
        }
        let Some((&[flags, message, index_high, index_low], rest)) = bytes.split_first_chunk::<HEADER>() else {
            return Err(FragmentError::Length { length });
        };
        let index = u16::from_be_bytes([index_high, index_low]);
        let is_first = flags & START != 0;
        if flags & !(START | END) != 0 || is_first != (index == 0) {
            return Err(FragmentError::Flags { flags });
        }
        let (total, payload) = if is_first {
            let (total, payload) = rest.split_first_chunk::<TOTAL>().ok_or(FragmentError::Length { length })?;
            (Some(usize::try_from(u32::from_be_bytes(*total)).unwrap_or(usize::MAX)), payload)
        } else {
            (None, rest)
        };
        if payload.is_empty() {
            return Err(FragmentError::Length { length });
        }
        Ok(Self { message, index, total, is_last: flags & END != 0, payload: payload.to_vec() })
    }
}

impl Reassembler {
    /// Takes messages of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            message: 0,
            index: 0,
            total: 0,
            assembled: Vec::new(),
            early: Vec::new(),
            accepted: 0,
            uncredited: 0,
            complete: VecDeque::new(),
            waiting: None,
            closed: false,
        }
    }

    /// Changes the limit, for messages whose first fragment is yet to come.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Takes one fragment of a message; credits go to [`super::Fragmenter::handle_credit`].
    ///
    /// # Errors
    /// Any breach of SPEC.md section 4, also a time limit that has passed.
    pub fn handle_fragment(&mut self, bytes: &[u8], now: Timestamp) -> Result<(), FragmentError> {
        self.handle_timeout(now)?;
        let taken = Fragment::parse(bytes).and_then(|fragment| self.take(fragment, now));
        self.close_on_error(taken)
    }

    /// The next message that is complete, in the order in which they were sent.
    pub fn poll_message(&mut self) -> Option<Vec<u8>> {
        self.complete.pop_front()
    }

    /// A credit fragment to send, if one is due.
    pub fn poll_credit(&mut self) -> Option<Vec<u8>> {
        if self.uncredited < CREDIT_EVERY {
            return None;
        }
        self.uncredited = 0;
        let [high, low] = self.accepted.to_be_bytes();
        Some(vec![CREDIT, high, low])
    }

    /// When to call [`Reassembler::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.waiting.map(|waiting| waiting.limit().0)
    }

    /// Checks the time limits.
    ///
    /// # Errors
    /// [`FragmentError::Stalled`] and [`FragmentError::TooSlow`] while a message is incomplete.
    pub fn handle_timeout(&mut self, now: Timestamp) -> Result<(), FragmentError> {
        if self.closed {
            return Err(FragmentError::Closed);
        }
        let result = match self.waiting.map(Waiting::limit) {
            Some((limit, error)) if now >= limit => Err(error),
            _ => Ok(()),
        };
        self.close_on_error(result)
    }

    /// Bytes that are kept for messages that are not complete.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.assembled.len() + self.early.iter().map(|fragment| fragment.payload.len()).sum::<usize>()
    }

    fn close_on_error(&mut self, result: Result<(), FragmentError>) -> Result<(), FragmentError> {
        if result.is_err() {
            let complete = std::mem::take(&mut self.complete);
            *self = Self { complete, closed: true, ..Self::new(0) };
        }
        result
    }

    fn take(&mut self, fragment: Fragment, now: Timestamp) -> Result<(), FragmentError> {
        let Fragment { message, index, .. } = fragment;
        let unexpected = FragmentError::Unexpected { message, index };
        // The id that comes next in order may be followed by a few later ones, never by an earlier one.
        let ahead = usize::from(message.wrapping_sub(self.message));
        let seen = (ahead == 0 && index < self.index)
            || self.early.iter().any(|early| (early.message, early.index) == (message, index));
        if ahead >= WINDOW || seen || self.uncredited + self.early.len() >= WINDOW {
            return Err(unexpected);
        }
        if let Some(total) = fragment.total {
            check_total(total, self.limit)?;
        }
        let waiting = self.waiting.get_or_insert(Waiting { since: now, last: now });
        waiting.last = now;
        if (message, index) != (self.message, self.index) {
            // One of the window must still be on its way to come before this one.
            if self.uncredited + self.early.len() + 1 >= WINDOW {
                return Err(unexpected);
            }
            self.early.push(fragment);
            return Ok(());
        }
        let mut next = Some(fragment);
        while let Some(fragment) = next {
            self.append(fragment, now)?;
            let place = self.early.iter().position(|early| (early.message, early.index) == (self.message, self.index));
            next = place.map(|place| self.early.swap_remove(place));
        }
        if self.assembled.is_empty() && self.early.is_empty() {
            self.waiting = None;
        }
        Ok(())
    }

    /// Takes the fragment that is next in order.
    fn append(&mut self, fragment: Fragment, now: Timestamp) -> Result<(), FragmentError> {
        let Fragment { message, index, total, is_last, payload } = fragment;
        if let Some(total) = total {
            self.total = total;
            self.assembled.reserve_exact(total);
        }
        let length = self.assembled.len() + payload.len();
        if length > self.total || is_last != (length == self.total) {
            return Err(FragmentError::Total);
        }
        self.assembled.extend_from_slice(&payload);
        if is_last {
            self.complete.push_back(std::mem::take(&mut self.assembled));
            self.message = message.wrapping_add(1);
            self.index = 0;
            // What is here of the next message gets time of its own.
            self.waiting = Some(Waiting { since: now, last: now });
        } else {
            self.index = index.checked_add(1).ok_or(FragmentError::Unexpected { message, index })?;
        }
        self.accepted = self.accepted.wrapping_add(1);
        self.uncredited += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::ZERO;

    fn at(seconds: f64) -> Timestamp {
        Timestamp::from_origin(Duration::from_secs_f64(seconds))
    }

    fn refused(fragments: &[&[u8]]) -> FragmentError {
        let mut reassembler = Reassembler::new(100);
        let (last, first) = fragments.split_last().unwrap();
        for fragment in first {
            reassembler.handle_fragment(fragment, NOW).unwrap();
        }
        let error = reassembler.handle_fragment(last, NOW).unwrap_err();
        assert_eq!(reassembler.buffered(), 0);
        assert_eq!(reassembler.handle_fragment(&[3, 0, 0, 0, 0, 0, 0, 1, 9], NOW), Err(FragmentError::Closed));
        assert_eq!(reassembler.handle_timeout(NOW), Err(FragmentError::Closed));
        assert_eq!((reassembler.poll_credit(), reassembler.poll_timeout()), (None, None));
        error
    }

    #[test]
    fn breaches_close_the_link() {
        let unexpected = |message, index| FragmentError::Unexpected { message, index };
        let whole: &[u8] = &[3, 0, 0, 0, 0, 0, 0, 1, 9];
        let first: &[u8] = &[1, 0, 0, 0, 0, 0, 0, 3, 9];
        let rows: &[(&[&[u8]], FragmentError)] = &[
            (&[&[]], FragmentError::Length { length: 0 }),
            (&[&[3, 0, 0]], FragmentError::Length { length: 3 }),
            (&[&[3, 0, 0, 0, 0, 0, 0]], FragmentError::Length { length: 7 }),
            (&[&[3, 0, 0, 0, 0, 0, 0, 1]], FragmentError::Length { length: 8 }),
            (&[first, &[0, 0, 0, 1]], FragmentError::Length { length: 4 }),
            (&[&[0; 510]], FragmentError::Length { length: 510 }),
            // Unknown flags, a start that is not index 0, an index 0 that is not the start.
            (&[&[7, 0, 0, 0, 0, 0, 0, 1, 9]], FragmentError::Flags { flags: 7 }),
            (&[&[1, 0, 0, 1, 0, 0, 0, 3, 9]], FragmentError::Flags { flags: 1 }),
            (&[&[0, 0, 0, 0, 9]], FragmentError::Flags { flags: 0 }),
            // A credit is not a fragment.
            (&[&[0x80, 1, 0, 0, 0]], FragmentError::Flags { flags: 0x80 }),
            (&[&[1, 0, 0, 0, 0, 0, 0, 0, 9]], FragmentError::MessageLength { length: 0, limit: 100 }),
            (&[&[1, 0, 0, 0, 0, 0, 0, 101, 9]], FragmentError::MessageLength { length: 101, limit: 100 }),
            (
                &[&[1, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 9]],
                FragmentError::MessageLength { length: 0xFFFF_FFFF, limit: 100 },
            ),
            // More than announced, an end too early, no end when all is here.
            (&[first, &[2, 0, 0, 1, 9, 9, 9]], FragmentError::Total),
            (&[first, &[2, 0, 0, 1, 9]], FragmentError::Total),
            (&[first, &[0, 0, 0, 1, 9, 9]], FragmentError::Total),
            (&[&[1, 0, 0, 0, 0, 0, 0, 1, 9]], FragmentError::Total),
            // Also if it came before its turn: nothing of it is kept.
            (&[&[3, 1, 0, 0, 0, 0, 0, 101, 9]], FragmentError::MessageLength { length: 101, limit: 100 }),
            // The same twice: in order, early, of a message that is complete.
            (&[first, first], unexpected(0, 0)),
            (&[&[0, 0, 0, 2, 9], &[0, 0, 0, 2, 9]], unexpected(0, 2)),
            (&[whole, whole], unexpected(0, 0)),
            // Too far ahead: by messages, by fragments.
            (&[&[3, 4, 0, 0, 0, 0, 0, 1, 9]], unexpected(4, 0)),
            (&[&[0, 0, 0, 1, 9], &[0, 0, 0, 2, 9], &[0, 0, 0, 3, 9], &[0, 0, 0, 4, 9]], unexpected(0, 4)),
        ];
        for (fragments, error) in rows {
            assert_eq!(refused(fragments), *error, "{fragments:02X?}");
        }
    }

    #[test]
    fn time_limits() {
        let first: &[u8] = &[1, 0, 0, 0, 0, 0, 0, 100, 9];
        let mut reassembler = Reassembler::new(100);
        assert_eq!(reassembler.poll_timeout(), None);
        reassembler.handle_fragment(first, at(1.0)).unwrap();
        assert_eq!(reassembler.poll_timeout(), Some(at(3.0)));
        reassembler.handle_timeout(at(2.9)).unwrap();
        assert_eq!(reassembler.handle_fragment(&[0, 0, 0, 1, 9], at(3.0)), Err(FragmentError::Stalled));

        // A trickle is stopped after half a minute, to the moment.
        let mut reassembler = Reassembler::new(100);
        reassembler.handle_fragment(first, at(0.0)).unwrap();
        for index in 1..20 {
            reassembler.handle_fragment(&[0, 0, 0, index, 9], at(1.5 * f64::from(index))).unwrap();
            reassembler.poll_credit();
        }
        assert_eq!(reassembler.poll_timeout(), Some(at(30.0)));
        assert_eq!(reassembler.handle_timeout(at(30.0)), Err(FragmentError::TooSlow));

        // Nothing is waited for once all is here; an early fragment is waited for.
        let mut reassembler = Reassembler::new(100);
        reassembler.handle_fragment(&[3, 0, 0, 0, 0, 0, 0, 1, 9], at(0.0)).unwrap();
        assert_eq!(reassembler.poll_timeout(), None);
        reassembler.handle_fragment(&[3, 2, 0, 0, 0, 0, 0, 1, 9], at(60.0)).unwrap();
        assert_eq!(reassembler.poll_timeout(), Some(at(62.0)));
    }

    proptest! {
        #[test]
        fn hostile_fragments_stay_within_the_bounds(
            fragments in prop::collection::vec(
                (0..8u8, 0..6u8, 0..5u16, prop::collection::vec(0..6u8, 0..40)).prop_map(|(flags, id, index, rest)| {
                    let mut fragment = vec![flags, id];
                    fragment.extend_from_slice(&index.to_be_bytes());
                    fragment.extend_from_slice(&rest);
                    fragment
                }),
                0..60,
            ),
            credits in any::<bool>(),
        ) {
            let mut reassembler = Reassembler::new(50);
            for fragment in fragments {
                let failed = reassembler.handle_fragment(&fragment, NOW).is_err();
                prop_assert!(reassembler.buffered() <= 50 + WINDOW * 509);
                prop_assert!(reassembler.assembled.capacity() <= 64);
                while let Some(message) = reassembler.poll_message() {
                    prop_assert!((1..=50).contains(&message.len()));
                }
                prop_assert_eq!(failed, reassembler.closed);
                if credits {
                    reassembler.poll_credit();
                }
                if failed {
                    break;
                }
            }
        }
    }
}
