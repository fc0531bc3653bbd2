//! The control socket: lines of JSON from any program that may open it.

use pocketcard_ipc::Address;
use pocketcard_ipc::control::{LineReader, MAX_LINE, Reply, Request, encode};
use serde_json::Value;

use crate::Input;

/// A stream in pieces, as requests and as replies; an address.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 3 {
        0 => lines(input, |reader| request(reader)),
        1 => lines(input, |reader| reply(reader)),
        _ => address(&String::from_utf8_lossy(input.all())),
    }
}

/// Hands the stream over in pieces; `next` takes one message and says whether there was one.
fn lines(mut input: Input<'_>, next: impl Fn(&mut LineReader) -> bool) {
    let cuts = input.chunk();
    let mut rest = input.all();
    let data_length = rest.len();
    let mut cuts = cuts.iter().copied().cycle();
    let mut reader = LineReader::new();
    while !rest.is_empty() {
        let count = (1 + 16 * usize::from(cuts.next().unwrap_or(255))).min(rest.len());
        if reader.push(&rest[..count]).is_err() {
            assert!(data_length > MAX_LINE, "only a long line is too long");
            return;
        }
        rest = &rest[count..];
        while next(&mut reader) {}
    }
}

fn request(reader: &mut LineReader) -> bool {
    match reader.next_message::<Request>() {
        Ok(Some(request)) => {
            let line = encode(&request).expect("every request can be written");
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(serde_json::from_slice::<Request>(&line).expect("what was written can be read"), request);
            if let Request::PairStart { connect: Some(connect), .. } = &request {
                address(&connect.to_string());
            }
            true
        }
        Ok(None) => false,
        // The line is gone; the next one may be good.
        Err(_) => true,
    }
}

fn reply(reader: &mut LineReader) -> bool {
    match reader.next_message::<Reply>() {
        Ok(Some(reply)) => {
            let line = encode(&reply).expect("every reply can be written");
            assert_eq!(serde_json::from_slice::<Reply>(&line).expect("what was written can be read"), reply);
            assert!(serde_json::from_slice::<Value>(&line).is_ok());
            true
        }
        Ok(None) => false,
        Err(_) => true,
    }
}

/// Only unix sockets and the loopback are addresses of a link.
fn address(text: &str) {
    let Ok(address) = text.parse::<Address>() else { return };
    match &address {
        Address::Unix(path) => assert!(path.is_absolute()),
        Address::Tcp(address) => assert!(address.ip().is_loopback()),
        other => unreachable!("a kind of address without a rule: {other}"),
    }
    assert_eq!(address.to_string().parse(), Ok(address));
}
