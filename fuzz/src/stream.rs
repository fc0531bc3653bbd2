//! Frames on a stream, against a reader that sees the whole stream at once.

use pocketcard_protocol::stream::{FrameReader, HEADER, StreamError};

use crate::Input;

/// A limit, how to cut the stream, and the stream.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let limit = usize::from(input.u16());
    let cuts = input.chunk();
    let stream = input.all();
    let (expected, end) = model(stream, limit);

    let mut reader = FrameReader::new(limit);
    let mut seen = Vec::new();
    let mut rest = stream;
    let mut cuts = cuts.iter().copied().cycle();
    let result = loop {
        loop {
            match reader.next_message() {
                Ok(Some(message)) => seen.push(message.to_vec()),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(reader.next_message(), Err(error), "an error is final");
                    break;
                }
            }
        }
        if let Err(error) = reader.next_message() {
            break Err(error);
        }
        if rest.is_empty() {
            break Ok(reader.is_between_messages());
        }
        let count = (1 + usize::from(cuts.next().unwrap_or(0))).min(rest.len());
        if count % 2 == 0 {
            reader.push(&rest[..count]);
            rest = &rest[count..];
        } else {
            let room = reader.read_buffer();
            assert!(!room.is_empty(), "a read of nothing would look like the end");
            let count = count.min(room.len());
            room[..count].copy_from_slice(&rest[..count]);
            reader.filled(count);
            rest = &rest[count..];
        }
    };
    assert_eq!(seen, expected);
    assert_eq!(result, end);
}

/// The messages, and whether the stream ends between two, or the error that ends it.
fn model(mut stream: &[u8], limit: usize) -> (Vec<Vec<u8>>, Result<bool, StreamError>) {
    let mut messages = Vec::new();
    while let Some((header, rest)) = stream.split_first_chunk::<HEADER>() {
        let length = u32::from_be_bytes(*header) as usize;
        if length == 0 {
            return (messages, Err(StreamError::Empty));
        }
        if length > limit {
            return (messages, Err(StreamError::TooLong { length, limit }));
        }
        let Some((message, rest)) = rest.split_at_checked(length) else { return (messages, Ok(false)) };
        messages.push(message.to_vec());
        stream = rest;
    }
    let whole = stream.is_empty();
    (messages, Ok(whole))
}
