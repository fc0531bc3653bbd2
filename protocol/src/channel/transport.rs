//! Records: how messages travel once the handshake is done.

use std::fmt;
use std::time::Duration;

use snow::TransportState;

use super::ChannelError;
use crate::messages::MESSAGE_LIMIT;
use crate::time::Timestamp;
use crate::wipe::Plaintext;

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
    outgoing: Plaintext,
    /// Plaintext of the record that was opened last.
    incoming: Plaintext,
    /// The message so far, if it spans records.
    partial: Plaintext,
    /// Whether `partial`, not `incoming`, holds the message that was completed last.
    spanned: bool,
}

impl Transport {
    pub(super) fn new(noise: TransportState, now: Timestamp) -> Self {
        Self {
            noise,
            sealed: 0,
            key_since: now,
            opened: 0,
            outgoing: Plaintext::default(),
            incoming: Plaintext::default(),
            partial: Plaintext::default(),
            spanned: false,
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
        let mut message = Plaintext::default();
        message.reserve_total(length);
        write(message.bytes_mut());
        if message.bytes().len() != length {
            return Err(ChannelError::State);
        }
        let mut pieces = message.bytes().chunks(RECORD_PAYLOAD_LIMIT).peekable();
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

    /// Opens one record. Gives the whole message if the record is its last; it stays in this transport's buffer, which
    /// is wiped before the next record and by [`Transport::forget_message`].
    ///
    /// # Errors
    /// [`ChannelError::Decrypt`] if the record was tampered with, replayed, dropped or reordered; any other error if
    /// the peer breaks the rules of records.
    pub fn open(&mut self, record: &[u8]) -> Result<Option<&[u8]>, ChannelError> {
        if self.spanned {
            self.forget_message();
        }
        let padded = record.len().checked_sub(TAG_LENGTH).ok_or(ChannelError::Length)?;
        if record.len() > RECORD_LIMIT || padded == 0 || !padded.is_multiple_of(PADDING_BLOCK) {
            return Err(ChannelError::Length);
        }
        self.incoming.clear();
        self.incoming.reserve_total(padded);
        self.incoming.bytes_mut().resize(padded, 0);
        self.noise.read_message(record, self.incoming.bytes_mut())?;
        self.opened += 1;

        let (flags, body) = unpad(self.incoming.bytes())?;
        if flags & LAST_UNDER_KEY != 0 {
            self.noise.rekey_incoming();
            self.opened = 0;
        } else if self.opened >= REKEY_RECORDS {
            return Err(ChannelError::RekeyOverdue);
        }

        let last = flags & LAST_OF_MESSAGE != 0;
        let collected = self.partial.bytes().len();
        if last && collected == 0 {
            return Ok(Some(body));
        }
        if collected + body.len() > MESSAGE_LIMIT {
            return Err(ChannelError::TooLong);
        }
        // A record that carries nothing and ends nothing could go on for ever.
        if body.is_empty() && !last {
            return Err(ChannelError::Record);
        }
        self.partial.reserve_total(collected + body.len());
        self.partial.bytes_mut().extend_from_slice(body);
        if !last {
            return Ok(None);
        }
        self.spanned = true;
        Ok(Some(self.partial.bytes()))
    }

    /// Wipes the message that [`Transport::open`] gave last.
    pub fn forget_message(&mut self) {
        self.incoming.clear();
        if self.spanned {
            self.partial.clear();
            self.spanned = false;
        }
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
