//! Messages cut into fragments.

use std::collections::VecDeque;

use super::{END, FragmentError, FragmentSize, NEXT_FRAGMENT, START, WINDOW, check_total};
use crate::Timestamp;
use crate::stream::LONGEST_MESSAGE;

/// Cuts messages into fragments, as many at a time as the other side has given credit for.
#[derive(Debug)]
pub struct Fragmenter {
    size: FragmentSize,
    queue: VecDeque<Vec<u8>>,
    /// Of the message at the head of the queue: its size of fragment, bytes and fragments sent.
    current: Option<Cut>,
    message: u8,
    sent: u16,
    credited: u16,
    stalled_since: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Cut {
    size: FragmentSize,
    offset: usize,
    index: u16,
}

impl Fragmenter {
    /// Sends fragments of this size.
    #[must_use]
    pub fn new(size: FragmentSize) -> Self {
        Self { size, queue: VecDeque::new(), current: None, message: 0, sent: 0, credited: 0, stalled_since: None }
    }

    /// Changes the size, from the next message on; the MTU of a connection may change once it is agreed.
    pub fn set_size(&mut self, size: FragmentSize) {
        self.size = size;
    }

    /// Queues a message behind those that were not sent yet.
    ///
    /// # Errors
    /// [`FragmentError::MessageLength`] for an empty message and above [`LONGEST_MESSAGE`].
    pub fn push(&mut self, message: Vec<u8>) -> Result<(), FragmentError> {
        check_total(message.len(), LONGEST_MESSAGE)?;
        self.queue.push_back(message);
        Ok(())
    }

    /// The next fragment to send, or `None` if everything was sent or the window is full.
    pub fn poll_fragment(&mut self, now: Timestamp) -> Option<Vec<u8>> {
        let message = self.queue.front()?;
        if usize::from(self.in_flight()) >= WINDOW {
            self.stalled_since.get_or_insert(now);
            return None;
        }
        let mut cut = self.current.take().unwrap_or(Cut { size: self.size, offset: 0, index: 0 });
        let mut fragment = Vec::with_capacity(cut.size.bytes());
        let [index_high, index_low] = cut.index.to_be_bytes();
        fragment.extend_from_slice(&[0, self.message, index_high, index_low]);
        let mut flags = 0;
        if cut.index == 0 {
            flags |= START;
            fragment.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
        }
        let rest = message.get(cut.offset..).unwrap_or_default();
        let payload = rest.get(..cut.size.bytes().saturating_sub(fragment.len())).unwrap_or(rest);
        fragment.extend_from_slice(payload);
        cut.offset += payload.len();
        // Even the smallest size needs only 5,462 fragments for the longest message.
        cut.index = cut.index.saturating_add(1);
        if cut.offset >= message.len() {
            flags |= END;
            self.queue.pop_front();
            self.message = self.message.wrapping_add(1);
        } else {
            self.current = Some(cut);
        }
        if let Some(first) = fragment.first_mut() {
            *first = flags;
        }
        self.sent = self.sent.wrapping_add(1);
        Some(fragment)
    }

    /// Takes the count of a credit fragment.
    ///
    /// # Errors
    /// [`FragmentError::Credit`] if it counts fragments that were not sent. A credit that another one overtook on the
    /// way is ignored.
    pub fn handle_credit(&mut self, count: u16) -> Result<(), FragmentError> {
        let fresh = count.wrapping_sub(self.credited);
        if fresh <= self.in_flight() {
            if fresh > 0 {
                self.credited = count;
                self.stalled_since = None;
            }
            Ok(())
        } else if fresh >= 0x8000 {
            Ok(())
        } else {
            Err(FragmentError::Credit)
        }
    }

    /// Whether every message was sent.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// When to call [`Fragmenter::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.stalled_since.map(|since| since + NEXT_FRAGMENT)
    }

    /// Checks the time limit.
    ///
    /// # Errors
    /// [`FragmentError::Stalled`] if no credit came while fragments waited for one.
    pub fn handle_timeout(&mut self, now: Timestamp) -> Result<(), FragmentError> {
        match self.poll_timeout() {
            Some(limit) if now >= limit => Err(FragmentError::Stalled),
            _ => Ok(()),
        }
    }

    fn in_flight(&self) -> u16 {
        self.sent.wrapping_sub(self.credited)
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp::ZERO;

    fn at(seconds: f64) -> Timestamp {
        Timestamp::from_origin(Duration::from_secs_f64(seconds))
    }

    #[test]
    fn credits_for_what_was_not_sent_are_refused() {
        let mut fragmenter = Fragmenter::new(FragmentSize::SMALLEST);
        assert_eq!(fragmenter.handle_credit(1), Err(FragmentError::Credit));
        fragmenter.push(vec![1; 200]).unwrap();
        let sent = std::iter::from_fn(|| fragmenter.poll_fragment(NOW)).count();
        assert_eq!(sent, WINDOW);
        assert_eq!(fragmenter.handle_credit(5), Err(FragmentError::Credit));
        fragmenter.handle_credit(4).unwrap();
        // Overtaken by the one before, and ignored.
        fragmenter.handle_credit(2).unwrap();
        assert_eq!(std::iter::from_fn(|| fragmenter.poll_fragment(NOW)).count(), WINDOW);
        assert_eq!(fragmenter.push(vec![]), Err(FragmentError::MessageLength { length: 0, limit: LONGEST_MESSAGE }));
        assert!(fragmenter.push(vec![0; LONGEST_MESSAGE + 1]).is_err());
    }

    #[test]
    fn a_new_size_waits_for_the_next_message() {
        let mut fragmenter = Fragmenter::new(FragmentSize::SMALLEST);
        fragmenter.push(vec![1; 30]).unwrap();
        fragmenter.push(vec![1; 30]).unwrap();
        let mut lengths = vec![fragmenter.poll_fragment(NOW).unwrap().len()];
        fragmenter.set_size(FragmentSize::DEFAULT);
        lengths.extend(std::iter::from_fn(|| fragmenter.poll_fragment(NOW)).map(|fragment| fragment.len()));
        assert_eq!(lengths, [20, 20, 6, 38]);
    }

    #[test]
    fn waits_two_seconds_for_a_credit() {
        let mut fragmenter = Fragmenter::new(FragmentSize::SMALLEST);
        fragmenter.push(vec![1; 200]).unwrap();
        while fragmenter.poll_fragment(at(5.0)).is_some() {}
        assert_eq!(fragmenter.poll_timeout(), Some(at(7.0)));
        fragmenter.handle_timeout(at(6.9)).unwrap();
        assert_eq!(fragmenter.handle_timeout(at(7.0)), Err(FragmentError::Stalled));
        fragmenter.handle_credit(2).unwrap();
        assert_eq!(fragmenter.poll_timeout(), None);
    }
}
