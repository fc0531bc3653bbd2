//! Records: how messages travel once the handshake is done.

use std::time::Duration;
use std::{fmt, mem};

use prost::bytes::Bytes;
use snow::TransportState;

use super::ChannelError;
use crate::messages::MESSAGE_LIMIT;
use crate::time::Timestamp;
use crate::wipe::WipedBuffer;

/// Longest record: Noise's limit for any message.
pub const RECORD_LIMIT: usize = 65_535;

/// Plaintexts are padded to a multiple of this.
pub const PADDING_BLOCK: usize = 32;

/// Bytes of a record that are not message: two of header and the tag. Padding comes on top.
pub const RECORD_OVERHEAD: usize = HEADER_LENGTH + TAG_LENGTH;

/// Longest piece of a message in one record.
pub const RECORD_PAYLOAD_LIMIT: usize = (RECORD_LIMIT - TAG_LENGTH) / PADDING_BLOCK * PADDING_BLOCK - HEADER_LENGTH;

/// A key seals at most this many records.
pub const REKEY_RECORDS: u32 = 1 << 16;

/// A key older than this seals one more record.
pub const REKEY_INTERVAL: Duration = Duration::from_secs(10 * 60);

const HEADER_LENGTH: usize = 2;
const TAG_LENGTH: usize = 16;

/// The last record of a message.
const LAST_OF_MESSAGE: u8 = 0x01;
/// The last record under this key; the sender's next one is under the next key.
const LAST_UNDER_KEY: u8 = 0x02;
const KNOWN_FLAGS: u8 = LAST_OF_MESSAGE | LAST_UNDER_KEY;

/// An encrypted channel, both directions.
///
/// Records are sealed and opened strictly in order. After any error the transport is of no further use: the caller
/// drops it, and with it the keys.
///
/// Spec: SPEC.md section 6.3 and 6.4
pub struct Transport {
    noise: TransportState,
    /// Records sealed under the present key, and since when it is in use.
    sealed: u32,
    key_since: Timestamp,
    /// Records opened under the peer's present key.
    opened: u32,
    /// Plaintext of the record that is being sealed.
    outgoing: WipedBuffer,
    /// The peer's message so far, if it spans records.
    partial: WipedBuffer,
}

impl Transport {
    pub(super) fn new(noise: TransportState, now: Timestamp) -> Self {
        Self {
            noise,
            sealed: 0,
            key_since: now,
            opened: 0,
            outgoing: WipedBuffer::default(),
            partial: WipedBuffer::default(),
        }
    }

    /// Seals one message; `emit` gets each record, behind the `prefix` that the caller wants before it.
    ///
    /// `length` is what `write` will append to the buffer it is given: the message is written straight to where it is
    /// sealed.
    ///
    /// # Errors
    /// [`ChannelError::TooLong`] if `length` is above [`MESSAGE_LIMIT`]; [`ChannelError::State`] if `write` appended
    /// something else, or the nonces are used up.
    pub fn seal(
        &mut self,
        length: usize,
        write: impl FnOnce(&mut Vec<u8>),
        prefix: &[u8],
        now: Timestamp,
        mut emit: impl FnMut(Vec<u8>),
    ) -> Result<(), ChannelError> {
        if length > MESSAGE_LIMIT {
            return Err(ChannelError::TooLong);
        }
        if length <= RECORD_PAYLOAD_LIMIT {
            return self.seal_record(length, write, true, prefix, now).map(emit);
        }
        let mut message = WipedBuffer::default();
        message.reserve_total(length);
        write(message.bytes_mut());
        if message.len() != length {
            return Err(ChannelError::State);
        }
        let mut pieces = message.chunks(RECORD_PAYLOAD_LIMIT).peekable();
        while let Some(piece) = pieces.next() {
            let last = pieces.peek().is_none();
            let write = |out: &mut Vec<u8>| out.extend_from_slice(piece);
            emit(self.seal_record(piece.len(), write, last, prefix, now)?);
        }
        Ok(())
    }

    fn seal_record(
        &mut self,
        length: usize,
        write: impl FnOnce(&mut Vec<u8>),
        last_of_message: bool,
        prefix: &[u8],
        now: Timestamp,
    ) -> Result<Vec<u8>, ChannelError> {
        self.sealed += 1;
        let rekey = self.sealed >= REKEY_RECORDS || now.saturating_since(self.key_since) >= REKEY_INTERVAL;
        let mut flags = 0;
        if last_of_message {
            flags |= LAST_OF_MESSAGE;
        }
        if rekey {
            flags |= LAST_UNDER_KEY;
        }

        let padded = (HEADER_LENGTH + length).next_multiple_of(PADDING_BLOCK);
        let padding = u8::try_from(padded - HEADER_LENGTH - length).map_err(|_| ChannelError::State)?;
        self.outgoing.reserve_total(padded);
        let plaintext = self.outgoing.bytes_mut();
        plaintext.extend_from_slice(&[flags, padding]);
        write(plaintext);
        if plaintext.len() != HEADER_LENGTH + length {
            return Err(ChannelError::State);
        }
        plaintext.resize(padded, 0);

        let mut record = vec![0; prefix.len() + padded + TAG_LENGTH];
        let (head, body) = record.split_at_mut_checked(prefix.len()).ok_or(ChannelError::State)?;
        head.copy_from_slice(prefix);
        self.noise.write_message(plaintext, body)?;
        self.outgoing.clear();

        if rekey {
            self.noise.rekey_outgoing();
            self.sealed = 0;
            self.key_since = now;
        }
        Ok(record)
    }

    /// Opens one record. Gives the whole message if the record is its last; it is wiped when the last handle to it is
    /// dropped.
    ///
    /// # Errors
    /// [`ChannelError::Decrypt`] if the record was tampered with, replayed, dropped or reordered; any other error if
    /// the peer breaks the rules of records.
    pub fn open(&mut self, record: &[u8]) -> Result<Option<Bytes>, ChannelError> {
        let padded = record.len().checked_sub(TAG_LENGTH).ok_or(ChannelError::Length)?;
        if record.len() > RECORD_LIMIT || padded == 0 || !padded.is_multiple_of(PADDING_BLOCK) {
            return Err(ChannelError::Length);
        }
        let mut plaintext = WipedBuffer::zeroed(padded);
        self.noise.read_message(record, plaintext.bytes_mut())?;
        self.opened += 1;

        let (flags, body) = unpad(&plaintext)?;
        if flags & LAST_UNDER_KEY != 0 {
            self.noise.rekey_incoming();
            self.opened = 0;
        } else if self.opened >= REKEY_RECORDS {
            return Err(ChannelError::RekeyOverdue);
        }

        let last = flags & LAST_OF_MESSAGE != 0;
        let collected = self.partial.len();
        if last && collected == 0 {
            let body = HEADER_LENGTH..HEADER_LENGTH + body.len();
            return Ok(Some(Bytes::from_owner(plaintext).slice(body)));
        }
        if collected + body.len() > MESSAGE_LIMIT {
            return Err(ChannelError::TooLong);
        }
        // A record that carries nothing and ends nothing could go on for ever.
        if body.is_empty() && !last {
            return Err(ChannelError::Record);
        }
        self.partial.extend(body);
        if !last {
            return Ok(None);
        }
        Ok(Some(Bytes::from_owner(mem::take(&mut self.partial))))
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("sealed", &self.sealed).field("opened", &self.opened).finish_non_exhaustive()
    }
}

/// Takes the header and the padding off a record's plaintext.
fn unpad(plaintext: &[u8]) -> Result<(u8, &[u8]), ChannelError> {
    let [flags, padding, rest @ ..] = plaintext else { return Err(ChannelError::Record) };
    let length = rest.len().checked_sub(usize::from(*padding)).ok_or(ChannelError::Record)?;
    let (body, padding) = rest.split_at_checked(length).ok_or(ChannelError::Record)?;
    if flags & !KNOWN_FLAGS != 0 || padding.len() >= PADDING_BLOCK || padding.iter().any(|&byte| byte != 0) {
        return Err(ChannelError::Record);
    }
    Ok((*flags, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{Handshake, Pattern, StaticSecret};
    use crate::entropy::Entropy;
    use crate::test_support::TestEntropy;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn transports() -> (Transport, Transport) {
        let entropy: Arc<dyn Entropy> = Arc::new(TestEntropy::new(3));
        let secrets = [1, 2].map(|byte| StaticSecret::from_bytes(&[byte; 32]));
        let pattern = Pattern::PairCompared;
        let mut host = Handshake::initiator(pattern, b"", &secrets[0], None, None, &entropy).expect("keys");
        let mut phone = Handshake::responder(pattern, b"", &secrets[1], None, &entropy).expect("keys");
        for host_writes in [true, false, true] {
            let (writer, reader) = if host_writes { (&mut host, &mut phone) } else { (&mut phone, &mut host) };
            let mut message = Vec::new();
            writer.write(&mut message).expect("written");
            reader.read(&message).expect("read");
        }
        let finish = |side: Handshake| side.finish(Timestamp::ZERO).expect("finished").0;
        (finish(host), finish(phone))
    }

    fn seal(transport: &mut Transport, message: &[u8], now: Timestamp) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        let write = |out: &mut Vec<u8>| out.extend_from_slice(message);
        transport.seal(message.len(), write, b"", now, |record| records.push(record)).expect("sealed");
        records
    }

    /// Seals a plaintext as it is, whatever `seal` would have made of it.
    fn seal_plaintext(transport: &mut Transport, plaintext: &[u8]) -> Vec<u8> {
        let mut record = vec![0; plaintext.len() + TAG_LENGTH];
        transport.noise.write_message(plaintext, &mut record).expect("sealed");
        record
    }

    #[test]
    fn records_have_the_least_length_that_padding_allows() {
        let (mut host, mut phone) = transports();
        for (length, expected) in [(0, 48), (30, 48), (31, 80), (4096, 4144), (RECORD_PAYLOAD_LIMIT, 65_520)] {
            let message = vec![7; length];
            let records = seal(&mut host, &message, Timestamp::ZERO);
            assert_eq!(records.iter().map(Vec::len).collect::<Vec<_>>(), [expected]);
            assert_eq!(phone.open(&records[0]), Ok(Some(message.clone().into())));
        }
        let message = vec![7; RECORD_PAYLOAD_LIMIT + 1];
        let records = seal(&mut host, &message, Timestamp::ZERO);
        assert_eq!(records.iter().map(Vec::len).collect::<Vec<_>>(), [65_520, 48]);
        assert_eq!(phone.open(&records[0]), Ok(None));
        assert_eq!(phone.open(&records[1]), Ok(Some(message.clone().into())));
        // What spanned records is not left behind for the next message.
        let records = seal(&mut host, b"next", Timestamp::ZERO);
        assert_eq!(phone.open(&records[0]), Ok(Some(Bytes::from_static(b"next"))));
    }

    #[test]
    fn the_prefix_stands_before_each_record() {
        let (mut host, _) = transports();
        let mut records = Vec::new();
        let message = vec![7; RECORD_PAYLOAD_LIMIT + 1];
        let write = |out: &mut Vec<u8>| out.extend_from_slice(&message);
        host.seal(message.len(), write, &[2], Timestamp::ZERO, |record| records.push(record)).expect("sealed");
        assert_eq!(records.iter().map(|record| (record[0], record.len())).collect::<Vec<_>>(), [(2, 65_521), (2, 49)]);
    }

    #[test]
    fn a_writer_that_lies_about_its_length_is_found_out() {
        for (length, written) in [(4, 5), (5, 4), (RECORD_PAYLOAD_LIMIT + 1, 3)] {
            let (mut host, _) = transports();
            let write = |out: &mut Vec<u8>| out.resize(out.len() + written, 0);
            let sealed = host.seal(length, write, b"", Timestamp::ZERO, |_| {});
            assert_eq!(sealed, Err(ChannelError::State));
        }
        let (mut host, _) = transports();
        let sealed = host.seal(MESSAGE_LIMIT + 1, |_| {}, b"", Timestamp::ZERO, |_| {});
        assert_eq!(sealed, Err(ChannelError::TooLong));
    }

    #[test]
    fn the_last_record_under_a_key_says_so() {
        let (mut host, mut phone) = transports();
        for number in 1..=2 * REKEY_RECORDS {
            let records = seal(&mut host, b"x", Timestamp::ZERO);
            phone.open(&records[0]).expect("opened");
            let last = number % REKEY_RECORDS == 0;
            assert_eq!(phone.opened == 0, last, "{number}");
        }
        let mut now = Timestamp::ZERO;
        for step in [REKEY_INTERVAL - Duration::from_millis(1), Duration::from_millis(1), Duration::ZERO] {
            now += step;
            let records = seal(&mut host, b"x", now);
            phone.open(&records[0]).expect("opened");
            let last = step == Duration::from_millis(1);
            assert_eq!(phone.opened == 0, last, "{step:?}");
        }
    }

    #[test]
    fn a_key_change_that_only_one_side_makes_ends_the_channel() {
        let (mut host, mut phone) = transports();
        host.noise.rekey_outgoing();
        let records = seal(&mut host, b"x", Timestamp::ZERO);
        assert_eq!(phone.open(&records[0]), Err(ChannelError::Decrypt));
    }

    #[test]
    fn a_peer_that_never_changes_its_key_is_found_out() {
        let (mut host, mut phone) = transports();
        let mut plaintext = [0; PADDING_BLOCK];
        plaintext[..2].copy_from_slice(&[LAST_OF_MESSAGE, 30]);
        for _ in 1..REKEY_RECORDS {
            let record = seal_plaintext(&mut host, &plaintext);
            assert_eq!(phone.open(&record), Ok(Some(Bytes::new())));
        }
        let record = seal_plaintext(&mut host, &plaintext);
        assert_eq!(phone.open(&record), Err(ChannelError::RekeyOverdue));
    }

    #[test]
    fn plaintexts_that_are_no_records_are_refused() {
        let padded = |head: &[u8], length: usize| [head, &vec![0; length - head.len()]].concat();
        let table = [
            (padded(&[LAST_OF_MESSAGE, 30], 32), Ok(Some(0))),
            (padded(&[LAST_OF_MESSAGE, 31], 64), Ok(Some(31))),
            (padded(&[LAST_OF_MESSAGE, 31], 32), Err(ChannelError::Record)),
            (padded(&[LAST_OF_MESSAGE, 32], 64), Err(ChannelError::Record)),
            (padded(&[LAST_OF_MESSAGE, 255], 64), Err(ChannelError::Record)),
            (padded(&[LAST_OF_MESSAGE | 0x04, 30], 32), Err(ChannelError::Record)),
            (padded(&[0x80, 0], 32), Err(ChannelError::Record)),
            ([padded(&[LAST_OF_MESSAGE, 30], 31), vec![1]].concat(), Err(ChannelError::Record)),
            (padded(&[0, 0], 32), Ok(None)),
            (padded(&[0, 30], 32), Err(ChannelError::Record)),
        ];
        for (plaintext, expected) in table {
            let (mut host, mut phone) = transports();
            let record = seal_plaintext(&mut host, &plaintext);
            assert_eq!(
                phone.open(&record).map(|message| message.map(|message| message.len())),
                expected,
                "{plaintext:?}"
            );
        }
        for length in [0, 1, 16, 33, 63] {
            let (mut host, mut phone) = transports();
            let record = seal_plaintext(&mut host, &vec![0; length]);
            assert_eq!(phone.open(&record), Err(ChannelError::Length), "{length}");
        }
    }

    #[test]
    fn a_message_without_end_is_refused() {
        let (mut host, mut phone) = transports();
        let plaintext = [&[0, 0], &vec![7; RECORD_PAYLOAD_LIMIT][..]].concat();
        assert_eq!(phone.open(&seal_plaintext(&mut host, &plaintext)), Ok(None));
        assert_eq!(phone.open(&seal_plaintext(&mut host, &plaintext)), Err(ChannelError::TooLong));
    }

    #[test]
    fn a_record_must_be_the_next() {
        let (mut host, mut phone) = transports();
        let records: Vec<_> = (0..4_u8).flat_map(|byte| seal(&mut host, &[byte], Timestamp::ZERO)).collect();
        assert_eq!(phone.open(&records[0]), Ok(Some(Bytes::from_static(&[0]))));
        assert_eq!(phone.open(&records[0]), Err(ChannelError::Decrypt));
        assert_eq!(phone.open(&records[2]), Err(ChannelError::Decrypt));
        let mut own = phone;
        let echoed = seal(&mut own, b"x", Timestamp::ZERO);
        assert_eq!(own.open(&echoed[0]), Err(ChannelError::Decrypt), "its own record, reflected");
    }

    #[test]
    fn no_message_stays_in_a_transport() {
        let (mut host, mut phone) = transports();
        for length in [6, RECORD_PAYLOAD_LIMIT + 1] {
            for record in seal(&mut host, &vec![7; length], Timestamp::ZERO) {
                phone.open(&record).expect("opened");
            }
            assert!(host.outgoing.is_empty() && phone.partial.is_empty(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn messages_arrive_as_they_were(lengths in proptest::collection::vec(0_usize..70_000, 1..6)) {
            let (mut host, mut phone) = transports();
            for length in lengths {
                let length = length.min(MESSAGE_LIMIT);
                let message: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
                let records = seal(&mut host, &message, Timestamp::ZERO);
                let mut arrived = None;
                for record in &records {
                    prop_assert!(arrived.is_none() && record.len() <= RECORD_LIMIT);
                    arrived = phone.open(record).expect("opened").map(Vec::from);
                }
                prop_assert_eq!(arrived, Some(message));
            }
        }

        #[test]
        fn any_plaintext_is_read_or_refused(blocks in 0_usize..6, bytes in proptest::collection::vec(any::<u8>(), 192)) {
            let (mut host, mut phone) = transports();
            let record = seal_plaintext(&mut host, &bytes[..blocks * PADDING_BLOCK]);
            let _ = phone.open(&record);
        }

        #[test]
        fn any_record_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (_, mut phone) = transports();
            prop_assert!(phone.open(&bytes).is_err());
        }
    }
}
