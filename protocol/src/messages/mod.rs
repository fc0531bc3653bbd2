//! What travels inside an open channel: one [`Envelope`] per message.
//!
//! The types are generated from `proto/v1/pocketcard.proto`. Those that carry APDUs, tokens or secrets print lengths
//! only and are wiped when dropped; because they have a destructor, take a field out with its `take_...` method.
//!
//! Spec: SPEC.md section 7

mod name;
mod number;
mod redacted;

/// The code that prost makes. Its documentation is the comments of the .proto file.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/pocketcard.v1.rs"));
}

pub use generated::envelope::Body;
pub use generated::*;
pub use name::{NAME_LIMIT, peer_name};
pub(crate) use number::first_field;

use prost::Message as _;
use prost::bytes::Bytes;

use crate::snapshot::{PAGE_LIMIT, SNAPSHOT_LIMIT};
use crate::wipe::WipedBuffer;

/// Longest encoded envelope: the longest extended APDU and 1 KiB for what is around it.
///
/// Spec: SPEC.md section 10
pub const MESSAGE_LIMIT: usize = 64 * 1024 + 1024;

/// Longest answer to reset: TS and 32 characters.
pub const ATR_LIMIT: usize = 33;

/// Length of a session's token; the commitment, the nonces and the secrets of a pairing have the same.
pub const TOKEN_LENGTH: usize = 32;

/// Length of a snapshot's digest, where a message has one.
pub const DIGEST_LENGTH: usize = 32;

/// Most keys that [`Permissions`] can name.
pub const KEYS_LIMIT: usize = 32;

/// Why bytes from the peer are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Longer than [`MESSAGE_LIMIT`].
    #[error("a message of {length} bytes is longer than the limit of {MESSAGE_LIMIT}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// Not an encoded envelope.
    #[error("a message that cannot be decoded")]
    Malformed,
    /// A field has a length or a value that it cannot have.
    #[error("a message with a field of impossible length or value")]
    FieldLength,
}

impl Envelope {
    /// Reads one message of the peer. Names in it come out sanitised by [`peer_name`].
    ///
    /// An unknown message is not an error: its `body` is `None`, and the answer to it is [`Unsupported`].
    ///
    /// # Errors
    /// [`MessageError`] if the bytes are too long, are no envelope, or hold a token, digest, ATR or nonce of the wrong
    /// length, or a key reference that is none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut copy = WipedBuffer::default();
        copy.extend(bytes);
        Self::from_message(Bytes::from_owner(copy))
    }

    /// Reads one message of the peer, as [`Envelope::from_bytes`] does.
    ///
    /// From a slice prost takes each field by way of a buffer of its own, which it frees unwiped; from [`Bytes`] it
    /// takes it where it is.
    pub(crate) fn from_message(message: Bytes) -> Result<Self, MessageError> {
        if message.len() > MESSAGE_LIMIT {
            return Err(MessageError::TooLong { length: message.len() });
        }
        let mut envelope = Self::decode(message).map_err(|_| MessageError::Malformed)?;
        if let Some(body) = &mut envelope.body {
            check(body)?;
        }
        Ok(envelope)
    }

    /// Length of the encoded envelope in bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.encoded_len()
    }
}

/// Checks the lengths and ranges of a message's fields and cleans its names.
fn check(body: &mut Body) -> Result<(), MessageError> {
    let possible = match body {
        Body::Open(open) => {
            clean(&mut open.software);
            matches!(open.resume_token.len(), 0 | TOKEN_LENGTH)
        }
        Body::Opened(opened) => {
            clean(&mut opened.software);
            opened.token.len() == TOKEN_LENGTH
                && opened.card_state.as_mut().is_none_or(check_card)
                && opened.security_state.as_ref().is_none_or(check_state)
        }
        Body::CardState(card) => check_card(card),
        Body::Response(response) => matches!(response.snapshot_digest.len(), 0 | DIGEST_LENGTH),
        Body::SecurityState(state) => check_state(state),
        Body::Fetch(fetch) => fetch.digest.len() == DIGEST_LENGTH,
        Body::SnapshotPage(page) => page.digest.len() == DIGEST_LENGTH && is_page(page.length, page.page.len()),
        Body::PinEntry(entry) => u8::try_from(entry.key_reference).is_ok(),
        Body::Refused(refused) => u8::try_from(refused.key_reference).is_ok(),
        Body::Permissions(permissions) => is_key_list(&permissions.keys),
        Body::PairCommit(commit) => {
            clean(&mut commit.host_name);
            clean(&mut commit.software);
            commit.commitment.len() == TOKEN_LENGTH
        }
        Body::PairNonce(nonce) => {
            clean(&mut nonce.phone_name);
            clean(&mut nonce.software);
            nonce.nonce.len() == TOKEN_LENGTH
        }
        Body::PairOpen(open) => open.nonce.len() == TOKEN_LENGTH,
        Body::PairSecret(secret) => secret.secret.len() == TOKEN_LENGTH,
        Body::Transmit(_)
        | Body::Reset(_)
        | Body::Cancel(_)
        | Body::Pending(_)
        | Body::Ping(_)
        | Body::Pong(_)
        | Body::Close(_)
        | Body::Unsupported(_)
        | Body::PairConfirm(_)
        | Body::PairStored(_) => true,
    };
    if possible { Ok(()) } else { Err(MessageError::FieldLength) }
}

fn check_card(card: &mut CardState) -> bool {
    clean(&mut card.card_name);
    card.atr.len() <= ATR_LIMIT
}

fn check_state(state: &SecurityState) -> bool {
    matches!(state.snapshot_digest.len(), 0 | DIGEST_LENGTH)
}

fn is_page(length: u32, page: usize) -> bool {
    page <= PAGE_LIMIT && usize::try_from(length).is_ok_and(|length| length <= SNAPSHOT_LIMIT)
}

fn is_key_list(keys: &[u8]) -> bool {
    keys.len() <= KEYS_LIMIT && keys.is_sorted_by(|before, after| before < after)
}

fn clean(name: &mut String) {
    *name = peer_name(name);
}

/// Wraps each message in its envelope.
macro_rules! into_envelope {
    ($($message:ident),* $(,)?) => {$(
        impl From<$message> for Envelope {
            fn from(message: $message) -> Self {
                Self { body: Some(Body::$message(message)) }
            }
        }
    )*};
}

into_envelope!(
    Open,
    Transmit,
    PinEntry,
    Reset,
    Cancel,
    Opened,
    Response,
    Pending,
    Refused,
    Permissions,
    CardState,
    SecurityState,
    Fetch,
    SnapshotPage,
    Ping,
    Pong,
    Close,
    Unsupported,
    PairCommit,
    PairNonce,
    PairOpen,
    PairConfirm,
    PairSecret,
    PairStored,
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_survives_encoding() {
        let sent = Envelope::from(Transmit { session: 1, request_id: 2, epoch: 3, command: vec![0, 0xA4, 4, 0] });
        assert_eq!(Envelope::from_bytes(&sent.encode_to_vec()), Ok(sent));
    }

    #[test]
    fn an_unknown_message_has_no_body() {
        // Field 2000, a length-delimited message of one byte.
        let envelope = Envelope::from_bytes(&[0x82, 0x7D, 1, 0]).expect("unknown fields are no error");
        assert_eq!(envelope.body, None);
    }

    #[test]
    fn an_unknown_field_is_ignored() {
        // Ping { id: 7, (field 9, varint): 1 }
        let envelope = Envelope::from_bytes(&[0x82, 0x02, 4, 0x08, 7, 0x48, 1]).expect("unknown fields are no error");
        assert_eq!(envelope, Ping { id: 7 }.into());
    }

    fn opened(token: usize, atr: usize) -> Envelope {
        Opened {
            session: 1,
            token: vec![0; token],
            resumed: false,
            last_request_id: 0,
            card_state: Some(CardState { atr: vec![0; atr], ..CardState::default() }),
            security_state: None,
            software: String::new(),
        }
        .into()
    }

    fn state(digest: usize) -> SecurityState {
        SecurityState { snapshot_digest: vec![0; digest], ..SecurityState::default() }
    }

    fn with_state(mut envelope: Envelope, state: SecurityState) -> Envelope {
        if let Some(Body::Opened(opened)) = &mut envelope.body {
            opened.security_state = Some(state);
        }
        envelope
    }

    fn fetch(digest: usize) -> Envelope {
        Fetch { session: 1, digest: vec![0; digest], offset: u32::MAX }.into()
    }

    fn page(digest: usize, length: usize, page: usize) -> Envelope {
        let (digest, length) = (vec![0; digest], u32::try_from(length).unwrap());
        SnapshotPage { digest, offset: 0, length, page: vec![0; page] }.into()
    }

    fn response(digest: usize) -> Envelope {
        Response {
            session: 1,
            request_id: 1,
            epoch: 1,
            response: vec![0x90, 0],
            security_version: 1,
            snapshot_digest: vec![0; digest],
        }
        .into()
    }

    fn pin_entry(key_reference: u32) -> Envelope {
        let operation = PinOperation::Change.into();
        PinEntry { session: 1, request_id: 2, epoch: 3, operation, key_reference, time_limit_s: u32::MAX }.into()
    }

    fn refused(key_reference: u32) -> Envelope {
        Refused { session: 1, request_id: 2, reason: RefusalReason::Denied.into(), key_reference }.into()
    }

    fn permissions(keys: &[u8]) -> Envelope {
        Permissions { typed_pin: true, administer: false, connect_unattended: true, keys: keys.to_vec() }.into()
    }

    #[test]
    fn limits_hold() {
        for right in [
            opened(32, 0),
            opened(32, ATR_LIMIT),
            response(0),
            response(32),
            state(0).into(),
            state(32).into(),
            fetch(32),
            page(32, 0, 0),
            page(32, SNAPSHOT_LIMIT, PAGE_LIMIT),
            pin_entry(0),
            pin_entry(0xFF),
            refused(0xFF),
            permissions(&[]),
            permissions(&[0x82, 0x9A, 0x9E]),
            permissions(&(0..32).collect::<Vec<u8>>()),
        ] {
            assert_eq!(Envelope::from_bytes(&right.encode_to_vec()).as_ref(), Ok(&right));
        }
        assert_eq!(
            Envelope::from_bytes(&vec![0; MESSAGE_LIMIT + 1]),
            Err(MessageError::TooLong { length: MESSAGE_LIMIT + 1 })
        );
        let wrong: Vec<Envelope> = vec![
            Open { resume_token: vec![0; 31], epoch: 1, software: String::new() }.into(),
            opened(31, ATR_LIMIT),
            opened(32, ATR_LIMIT + 1),
            response(31),
            state(31).into(),
            with_state(opened(32, 0), state(33)),
            fetch(0),
            page(31, 0, 0),
            page(32, SNAPSHOT_LIMIT + 1, PAGE_LIMIT),
            page(32, SNAPSHOT_LIMIT, PAGE_LIMIT + 1),
            pin_entry(0x100),
            refused(0x100),
            permissions(&(0..33).collect::<Vec<u8>>()),
            permissions(&[0x9A, 0x9A]),
            permissions(&[0x9C, 0x9A]),
            PairOpen { nonce: vec![0; 33] }.into(),
            PairSecret { secret: Vec::new() }.into(),
            CardState { atr: vec![0; 34], ..CardState::default() }.into(),
            PairCommit { commitment: vec![1], ..PairCommit::default() }.into(),
            PairNonce { nonce: vec![1], ..PairNonce::default() }.into(),
        ];
        for message in wrong {
            assert_eq!(Envelope::from_bytes(&message.encode_to_vec()), Err(MessageError::FieldLength), "{message:?}");
        }
        assert_eq!(Envelope::from_bytes(&[0x0A, 5, 0]), Err(MessageError::Malformed));
    }

    #[test]
    fn names_of_the_peer_are_cleaned() {
        let commit = PairCommit {
            commitment: vec![0; 32],
            host_name: "desk\u{202e}top\n".into(),
            software: "\u{1b}[31mred".into(),
        };
        let Ok(Envelope { body: Some(Body::PairCommit(read)) }) =
            Envelope::from_bytes(&Envelope::from(commit).encode_to_vec())
        else {
            panic!("not a commit");
        };
        assert_eq!((read.host_name.as_str(), read.software.as_str()), ("desktop", "[31mred"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(envelope) = Envelope::from_bytes(&bytes) {
                let again = Envelope::from_bytes(&envelope.encode_to_vec());
                prop_assert_eq!(again, Ok(envelope));
            }
        }
    }
}
