//! A connection-oriented channel of L2CAP in place of fragments: the frames of a stream, and how long either side may stall.
//!
//! The SDUs of such a channel are in order and complete, and where one ends means nothing: some systems give a program the bytes
//! alone. So what they carry is a stream like that of a socket (section 5). Unlike a socket's, its far end is out of this
//! computer, and may take or give nothing for ever; hence the limits of section 4.4.
//!
//! Spec: SPEC.md section 11.3

use core::fmt;
use core::time::Duration;

use crate::Timestamp;
use crate::fragment::{NEXT_FRAGMENT, WHOLE_MESSAGE};
use crate::stream::{self, FrameReader, StreamError};

/// The longest SDU that either side of ours takes. A longer one ends the channel.
pub const SDU_LIMIT: u16 = 2048;

/// How long a host waits for a channel and the phone's first message on it before it does without.
pub const OPEN_LIMIT: Duration = Duration::from_secs(2);

/// How long a host uses GATT alone with a phone at the radio address at which a channel went wrong.
pub const DOUBT: Duration = Duration::from_secs(600);

/// Channels that a phone takes at once.
pub const CHANNELS_LIMIT: usize = 8;

/// Bytes that may wait for a peer to take them: a few of the longest messages. A peer that takes a little now and then while
/// it asks for more would have them grow for ever.
pub const WAITING_LIMIT: usize = 256 * 1024;

/// The number by which a phone's channel is asked for: an LE PSM that the phone's system chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Psm(u16);

impl Psm {
    /// A PSM of those that are given out while a system runs, 0x80 to 0xFF; `None` for any other number.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number >= 0x80 && number <= 0xFF { Some(Self(number)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// Why a channel cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum L2capError {
    /// A frame that must not be.
    #[error(transparent)]
    Frame(#[from] StreamError),
    /// A message began and did not go on, or not to its end.
    #[error("a message stopped in the middle")]
    Unfinished,
    /// The peer takes nothing: it gives no credits.
    #[error("the peer takes nothing")]
    Stalled,
}

/// Link messages over the bytes of a channel, in both directions; the caller reads and writes.
///
/// Spec: SPEC.md section 11.3
pub struct L2capLayer {
    frames: FrameReader,
    /// When the message that has begun must have gone on, and when it must be whole.
    next_due: Option<Timestamp>,
    whole_due: Option<Timestamp>,
    out: Vec<u8>,
    sent: usize,
    /// When some of what waits must have been taken.
    taken_due: Option<Timestamp>,
}

impl L2capLayer {
    /// Takes messages of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let frames = FrameReader::new(limit);
        Self { frames, next_due: None, whole_due: None, out: Vec::new(), sent: 0, taken_due: None }
    }

    /// Changes the limit; it holds for every message that was not given out yet, also if its bytes are here already.
    pub fn set_limit(&mut self, limit: usize) {
        self.frames.set_limit(limit);
    }

    /// These bytes came. Take the messages now, until there is none.
    pub fn handle_bytes(&mut self, bytes: &[u8], now: Timestamp) {
        self.frames.push(bytes);
        self.next_due = Some(now + NEXT_FRAGMENT);
        self.whole_due.get_or_insert(now + WHOLE_MESSAGE);
    }

    /// The next whole message.
    ///
    /// # Errors
    /// [`L2capError::Frame`] as soon as a length is here that the limit forbids.
    pub fn poll_message(&mut self) -> Result<Option<Vec<u8>>, L2capError> {
        let message = self.frames.next_message()?.map(<[u8]>::to_vec);
        if message.is_some() {
            // What follows it is of another message, which began with the same bytes at the earliest.
            self.whole_due = self.next_due.map(|due| due + (WHOLE_MESSAGE - NEXT_FRAGMENT));
        }
        if self.frames.is_between_messages() {
            self.next_due = None;
            self.whole_due = None;
        }
        Ok(message)
    }

    /// Nothing more is read for now, so the peer is not the one to wait for. It is again with the next bytes; call
    /// [`L2capLayer::handle_bytes`] without any when reading goes on.
    pub fn hold(&mut self) {
        self.next_due = None;
        self.whole_due = None;
    }

    /// Whether the channel may end now: if not, its end cuts a message off.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.frames.is_between_messages()
    }

    /// Puts a message behind what waits.
    ///
    /// # Errors
    /// [`L2capError::Frame`] if a stream cannot carry it; [`L2capError::Stalled`] above [`WAITING_LIMIT`].
    pub fn push(&mut self, message: &[u8], now: Timestamp) -> Result<(), L2capError> {
        if self.waiting().len().saturating_add(message.len()) > WAITING_LIMIT {
            return Err(L2capError::Stalled);
        }
        self.out.drain(..self.sent);
        self.sent = 0;
        stream::encode_into(message, &mut self.out)?;
        self.taken_due.get_or_insert(now + NEXT_FRAGMENT);
        Ok(())
    }

    /// What is to be written; nothing if it is empty.
    #[must_use]
    pub fn waiting(&self) -> &[u8] {
        self.out.get(self.sent..).unwrap_or_default()
    }

    /// The system took so many of these bytes.
    pub fn written(&mut self, count: usize, now: Timestamp) {
        self.sent = self.sent.saturating_add(count).min(self.out.len());
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
            self.taken_due = None;
        } else if count > 0 {
            self.taken_due = Some(now + NEXT_FRAGMENT);
        }
    }

    /// When [`L2capLayer::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        [self.next_due, self.whole_due, self.taken_due].into_iter().flatten().min()
    }

    /// Checks the limits.
    ///
    /// # Errors
    /// [`L2capError::Unfinished`], [`L2capError::Stalled`]: close the channel.
    pub fn handle_timeout(&mut self, now: Timestamp) -> Result<(), L2capError> {
        let passed = |due: Option<Timestamp>| due.is_some_and(|due| due <= now);
        if passed(self.next_due) || passed(self.whole_due) {
            Err(L2capError::Unfinished)
        } else if passed(self.taken_due) {
            Err(L2capError::Stalled)
        } else {
            Ok(())
        }
    }
}

impl fmt::Debug for L2capLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.waiting().len();
        f.debug_struct("L2capLayer").field("frames", &self.frames).field("waiting", &waiting).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Timestamp {
        Timestamp::from_origin(Duration::from_secs_f64(seconds))
    }

    #[test]
    fn only_a_psm_that_a_system_gives_out_is_one() {
        for (number, valid) in [(0, false), (0x7F, false), (0x80, true), (0xFF, true), (0x100, false), (0x1001, false)]
        {
            assert_eq!(Psm::new(number).map(Psm::number), valid.then_some(number), "{number:#x}");
        }
    }

    #[test]
    fn messages_cross_in_sdus_of_any_size() {
        for size in [1, 16, 23, 244, 2048] {
            let (mut sender, mut receiver) = (L2capLayer::new(70_000), L2capLayer::new(70_000));
            let messages = [vec![1; 12_700], vec![2], vec![3; 65_536]];
            messages.iter().for_each(|message| sender.push(message, at(0.0)).unwrap());
            let mut seen = Vec::new();
            while !sender.waiting().is_empty() {
                let sdu = sender.waiting()[..sender.waiting().len().min(size)].to_vec();
                sender.written(sdu.len(), at(0.0));
                receiver.handle_bytes(&sdu, at(0.0));
                while let Some(message) = receiver.poll_message().unwrap() {
                    seen.push(message);
                }
            }
            assert!(seen == messages, "SDUs of {size} bytes");
            assert_eq!((sender.poll_timeout(), receiver.poll_timeout()), (None, None));
        }
    }

    #[test]
    fn a_frame_that_is_too_long_for_the_state_of_the_link_ends_the_channel() {
        let mut layer = L2capLayer::new(4096);
        layer.handle_bytes(&4097u32.to_be_bytes(), at(0.0));
        assert!(matches!(layer.poll_message(), Err(L2capError::Frame(StreamError::TooLong { .. }))));
        let mut layer = L2capLayer::new(4096);
        layer.handle_bytes(&[0; 4], at(0.0));
        assert_eq!(layer.poll_message(), Err(L2capError::Frame(StreamError::Empty)));
    }

    #[test]
    fn a_message_that_stops_in_the_middle_ends_the_channel() {
        let mut layer = L2capLayer::new(4096);
        assert_eq!(layer.poll_timeout(), None, "silence between two messages is no fault");
        layer.handle_bytes(&[0, 0, 0, 2, 1], at(0.0));
        assert_eq!(layer.poll_message(), Ok(None));
        assert_eq!(layer.poll_timeout(), Some(at(2.0)));
        assert_eq!(layer.handle_timeout(at(1.999)), Ok(()));
        assert_eq!(layer.handle_timeout(at(2.0)), Err(L2capError::Unfinished));
    }

    #[test]
    fn a_message_that_comes_byte_by_byte_has_half_a_minute() {
        let mut layer = L2capLayer::new(4096);
        layer.handle_bytes(&[0, 0, 0, 100], at(0.0));
        for second in 1..30u8 {
            assert_eq!(layer.poll_message(), Ok(None));
            assert_eq!(layer.handle_timeout(at(second.into())), Ok(()));
            layer.handle_bytes(&[second], at(second.into()));
        }
        assert_eq!(layer.handle_timeout(at(30.0)), Err(L2capError::Unfinished));
    }

    #[test]
    fn the_next_message_has_a_half_minute_of_its_own() {
        let mut layer = L2capLayer::new(4096);
        layer.handle_bytes(&[0, 0, 0, 2, 1], at(0.0));
        assert_eq!(layer.poll_message(), Ok(None));
        layer.handle_bytes(&[2, 0, 0, 0, 9], at(1.0));
        assert_eq!(layer.poll_message(), Ok(Some(vec![1, 2])));
        assert_eq!((layer.next_due, layer.whole_due), (Some(at(3.0)), Some(at(31.0))));
    }

    #[test]
    fn a_peer_that_is_not_read_owes_nothing_and_is_to_take_what_waits_all_the_same() {
        let mut layer = L2capLayer::new(4096);
        layer.push(&[7; 100], at(0.5)).unwrap();
        layer.handle_bytes(&[0, 0, 0, 9, 1], at(0.0));
        layer.hold();
        assert_eq!(layer.handle_timeout(at(2.0)), Ok(()));
        assert_eq!(layer.handle_timeout(at(2.5)), Err(L2capError::Stalled));
        layer.written(104, at(2.5));
        assert_eq!(layer.poll_timeout(), None);
        layer.handle_bytes(&[], at(10.0));
        assert_eq!(layer.poll_message(), Ok(None));
        assert_eq!(layer.handle_timeout(at(12.0)), Err(L2capError::Unfinished), "from here on it does again");
        // Between two messages nothing is owed.
        let mut layer = L2capLayer::new(4096);
        layer.handle_bytes(&[], at(0.0));
        assert_eq!((layer.poll_message(), layer.poll_timeout()), (Ok(None), None));
    }

    #[test]
    fn what_waits_for_a_peer_that_takes_little_has_an_end() {
        let mut layer = L2capLayer::new(4096);
        let mut pushed = 0;
        let end = loop {
            match layer.push(&[7; 1000], at(0.0)) {
                Ok(()) => pushed += 1,
                Err(error) => break error,
            }
            layer.written(1, at(0.0));
            assert!(layer.out.len() <= WAITING_LIMIT + 4 && pushed < 1000);
        };
        assert_eq!((end, pushed), (L2capError::Stalled, 261));
        // One that takes nearly all goes on for ever, and what it took is not kept.
        let mut layer = L2capLayer::new(4096);
        for _ in 0..1000 {
            layer.push(&[7; 1000], at(0.0)).unwrap();
            layer.written(layer.waiting().len() - 1, at(0.0));
        }
        assert!(layer.out.len() < 2 * 1004, "{}", layer.out.len());
    }

    #[test]
    fn a_peer_that_gives_no_credits_ends_the_channel() {
        let mut layer = L2capLayer::new(4096);
        layer.push(&[7; 100], at(0.0)).unwrap();
        layer.push(&[8; 100], at(1.5)).unwrap();
        assert_eq!(layer.handle_timeout(at(1.999)), Ok(()));
        layer.written(50, at(1.999));
        assert_eq!(layer.handle_timeout(at(3.9)), Ok(()));
        assert_eq!(layer.handle_timeout(at(4.0)), Err(L2capError::Stalled));
    }
}
