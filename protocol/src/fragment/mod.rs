//! Link messages on GATT: cut into fragments, put together again in any order.
//!
//! GATT does not keep the order of notifications and of writes without response (a system may spread them over several
//! bearers), so every fragment says where it belongs. At most [`WINDOW`] fragments are on their way without a credit,
//! which bounds what a receiver has to keep; [`FragmentLayer`] is both directions of one connection.
//!
//! Nothing in here is secret or authenticated: messages were sealed before they are cut.
//!
//! Spec: SPEC.md section 4

mod fragmenter;
mod reassembler;

use core::time::Duration;

use crate::Timestamp;

pub use fragmenter::Fragmenter;
pub use reassembler::Reassembler;

/// Most fragments in one direction that the receiver has not credited yet.
pub const WINDOW: usize = 4;

/// Longest wait for the next fragment of a message, and of a sender for a credit.
pub const NEXT_FRAGMENT: Duration = Duration::from_secs(2);

/// Longest time from the first fragment of a message to its last.
pub const WHOLE_MESSAGE: Duration = Duration::from_secs(30);

const START: u8 = 0x01;
const END: u8 = 0x02;
const CREDIT: u8 = 0x80;

/// In-order fragments after which a receiver gives credit; half the window, so that a sender need not stop.
const CREDIT_EVERY: usize = WINDOW / 2;

const HEADER: usize = 4;
const TOTAL: usize = 4;

/// Why the fragments of a connection make no sense any more. The link must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FragmentError {
    /// A fragment shorter than its header, longer than [`FragmentSize::LARGEST`], or without payload.
    #[error("a fragment of {length} bytes")]
    Length {
        /// Bytes of the fragment.
        length: usize,
    },
    /// Flags that this version does not know, or that do not go together.
    #[error("fragment flags {flags:#04x}")]
    Flags {
        /// The flags.
        flags: u8,
    },
    /// A fragment that came already, or that is further ahead than the window allows.
    #[error("fragment {index} of message {message} is not expected")]
    Unexpected {
        /// Message id.
        message: u8,
        /// Index in the message.
        index: u16,
    },
    /// A message longer than the state of the link allows, empty, or too long for the index.
    #[error("a message of {length} bytes where 1 to {limit} are allowed")]
    MessageLength {
        /// Bytes announced.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The payloads do not add up to the announced length.
    #[error("the fragments of a message do not add up to its length")]
    Total,
    /// A credit for fragments that were not sent.
    #[error("a credit for fragments that were never sent")]
    Credit,
    /// No fragment, or no credit, came for [`NEXT_FRAGMENT`].
    #[error("no fragment or credit came in time")]
    Stalled,
    /// A message took longer than [`WHOLE_MESSAGE`].
    #[error("a message took too long")]
    TooSlow,
    /// An earlier error ended this direction.
    #[error("the fragments of this connection ended in an earlier error")]
    Closed,
}

/// How many bytes one fragment has, header included: one GATT write or notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentSize(usize);

impl FragmentSize {
    /// What the smallest ATT MTU carries.
    pub const SMALLEST: Self = Self(20);
    /// Less is never asked for. Some stacks take a few bytes of the smallest ATT MTU for themselves.
    const LEAST: usize = 16;
    /// What fits a link-layer packet with its headers; larger ones are slower on most phones.
    pub const DEFAULT: Self = Self(244);
    /// Longer values get lost on the way through some stacks.
    pub const LARGEST: Self = Self(509);

    /// The default for this ATT MTU: three bytes less, at most 244.
    #[must_use]
    pub fn from_mtu(mtu: usize) -> Self {
        Self(mtu.saturating_sub(3).clamp(Self::SMALLEST.0, Self::DEFAULT.0))
    }

    /// A size of the caller's choice, brought into the range of 16 to 509.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(bytes.clamp(Self::LEAST, Self::LARGEST.0))
    }

    /// Bytes of a fragment.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.0
    }
}

impl Default for FragmentSize {
    fn default() -> Self {
        Self::SMALLEST
    }
}

/// Both directions of one GATT connection.
///
/// ```
/// use pocketcard_protocol::Timestamp;
/// use pocketcard_protocol::fragment::{FragmentLayer, FragmentSize};
///
/// let now = Timestamp::ZERO;
/// let mut host = FragmentLayer::new(FragmentSize::from_mtu(185), 4096);
/// let mut phone = FragmentLayer::new(FragmentSize::from_mtu(185), 4096);
/// host.push(vec![7; 1000])?;
/// let message = loop {
///     while let Some(fragment) = host.poll_transmit(now) {
///         phone.handle_fragment(&fragment, now)?;
///     }
///     while let Some(credit) = phone.poll_transmit(now) {
///         host.handle_fragment(&credit, now)?;
///     }
///     if let Some(message) = phone.poll_message() {
///         break message;
///     }
/// };
/// assert_eq!(message, [7; 1000]);
/// # Ok::<(), pocketcard_protocol::fragment::FragmentError>(())
/// ```
#[derive(Debug)]
pub struct FragmentLayer {
    fragmenter: Fragmenter,
    reassembler: Reassembler,
}

impl FragmentLayer {
    /// Sends fragments of this size and takes messages of at most `limit` bytes.
    #[must_use]
    pub fn new(size: FragmentSize, limit: usize) -> Self {
        Self { fragmenter: Fragmenter::new(size), reassembler: Reassembler::new(limit) }
    }

    /// Changes the size of what is sent, from the next message on.
    pub fn set_size(&mut self, size: FragmentSize) {
        self.fragmenter.set_size(size);
    }

    /// Changes the limit for messages that come in, when the state of the link changes.
    pub fn set_limit(&mut self, limit: usize) {
        self.reassembler.set_limit(limit);
    }

    /// Queues a message.
    ///
    /// # Errors
    /// As [`Fragmenter::push`].
    pub fn push(&mut self, message: Vec<u8>) -> Result<(), FragmentError> {
        self.fragmenter.push(message)
    }

    /// Takes one fragment or credit.
    ///
    /// # Errors
    /// As [`Reassembler::handle_fragment`] and [`Fragmenter::handle_credit`]; close the link then.
    pub fn handle_fragment(&mut self, bytes: &[u8], now: Timestamp) -> Result<(), FragmentError> {
        match bytes {
            &[CREDIT, high, low] => self.fragmenter.handle_credit(u16::from_be_bytes([high, low])),
            _ => self.reassembler.handle_fragment(bytes, now),
        }
    }

    /// The next message that came in whole.
    pub fn poll_message(&mut self) -> Option<Vec<u8>> {
        self.reassembler.poll_message()
    }

    /// The next fragment or credit to send, credits first.
    pub fn poll_transmit(&mut self, now: Timestamp) -> Option<Vec<u8>> {
        self.reassembler.poll_credit().or_else(|| self.fragmenter.poll_fragment(now))
    }

    /// Whether every message was sent.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.fragmenter.is_idle()
    }

    /// When to call [`FragmentLayer::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        [self.fragmenter.poll_timeout(), self.reassembler.poll_timeout()].into_iter().flatten().min()
    }

    /// Checks the time limits.
    ///
    /// # Errors
    /// A limit that has passed; close the link then.
    pub fn handle_timeout(&mut self, now: Timestamp) -> Result<(), FragmentError> {
        self.fragmenter.handle_timeout(now)?;
        self.reassembler.handle_timeout(now)
    }
}

fn check_total(length: usize, limit: usize) -> Result<(), FragmentError> {
    if (1..=limit).contains(&length) { Ok(()) } else { Err(FragmentError::MessageLength { length, limit }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::LONGEST_MESSAGE;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::ZERO;

    #[test]
    fn sizes() {
        for (mtu, bytes) in [(0, 20), (23, 20), (185, 182), (247, 244), (517, 244)] {
            assert_eq!(FragmentSize::from_mtu(mtu).bytes(), bytes);
        }
        assert_eq!((FragmentSize::new(600).bytes(), FragmentSize::new(1).bytes()), (509, 16));
        for size in [16, 20, 21, 244, 509] {
            let mut fragmenter = Fragmenter::new(FragmentSize::new(size));
            let mut reassembler = Reassembler::new(LONGEST_MESSAGE);
            let message: Vec<u8> = (0..=255).cycle().take(LONGEST_MESSAGE).collect();
            fragmenter.push(message.clone()).unwrap();
            while let Some(fragment) = fragmenter.poll_fragment(NOW) {
                assert!(fragment.len() == size || fragmenter.is_idle());
                reassembler.handle_fragment(&fragment, NOW).unwrap();
                if let Some(credit) = reassembler.poll_credit() {
                    fragmenter.handle_credit(u16::from_be_bytes([credit[1], credit[2]])).unwrap();
                }
            }
            assert_eq!(reassembler.poll_message(), Some(message));
            assert_eq!(reassembler.buffered(), 0);
        }
    }

    #[test]
    fn ids_and_counts_wrap() {
        let mut sender = FragmentLayer::new(FragmentSize::SMALLEST, 1);
        let mut receiver = FragmentLayer::new(FragmentSize::SMALLEST, 1);
        for n in 0..70_000u32 {
            let message = n.to_le_bytes()[..1].to_vec();
            sender.push(message.clone()).unwrap();
            receiver.handle_fragment(&sender.poll_transmit(NOW).unwrap(), NOW).unwrap();
            assert_eq!(receiver.poll_message(), Some(message));
            while let Some(credit) = receiver.poll_transmit(NOW) {
                sender.handle_fragment(&credit, NOW).unwrap();
            }
        }
    }

    /// What is on its way in one direction of a radio that keeps no order.
    #[derive(Default)]
    struct Air(Vec<Vec<u8>>);

    impl Air {
        fn deliver(&mut self, choice: usize) -> Option<Vec<u8>> {
            (!self.0.is_empty()).then(|| self.0.swap_remove(choice % self.0.len()))
        }
    }

    proptest! {
        /// Two ends, a radio that delivers whatever it likes next: every message arrives, in order, within the bounds.
        #[test]
        fn any_order_gives_the_same_messages(
            to_phone in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..700), 0..8),
            to_host in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..700), 0..40),
            sizes in (20..=509usize, 20..=509usize),
            choices in prop::collection::vec(any::<usize>(), 50),
        ) {
            let mut host = FragmentLayer::new(FragmentSize::new(sizes.0), 700);
            let mut phone = FragmentLayer::new(FragmentSize::new(sizes.1), 700);
            for message in &to_phone {
                host.push(message.clone()).unwrap();
            }
            for message in &to_host {
                phone.push(message.clone()).unwrap();
            }
            let (mut down, mut up) = (Air::default(), Air::default());
            let (mut at_phone, mut at_host) = (Vec::new(), Vec::new());
            for choice in choices.iter().cycle() {
                down.0.extend(std::iter::from_fn(|| host.poll_transmit(NOW)));
                up.0.extend(std::iter::from_fn(|| phone.poll_transmit(NOW)));
                if down.0.is_empty() && up.0.is_empty() {
                    break;
                }
                for (air, end, seen) in
                    [(&mut down, &mut phone, &mut at_phone), (&mut up, &mut host, &mut at_host)]
                {
                    if let Some(fragment) = air.deliver(*choice) {
                        end.handle_fragment(&fragment, NOW).unwrap();
                        prop_assert!(end.reassembler.buffered() <= 700 + WINDOW * 509);
                        seen.extend(std::iter::from_fn(|| end.poll_message()));
                    }
                }
            }
            prop_assert_eq!(at_phone, to_phone);
            prop_assert_eq!(at_host, to_host);
            prop_assert!(host.is_idle() && phone.is_idle());
            prop_assert_eq!((host.poll_timeout(), phone.poll_timeout()), (None, None));
        }
    }
}
