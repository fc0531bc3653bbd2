//! The driver socket: frames, requests, replies, the device name.

use pocketcard_ipc::VERSION;
use pocketcard_ipc::driver::{DeviceName, FrameBuffer, MAX_APDU, MAX_ATR, MAX_FRAME, PIN_ENTRY_LIMIT, Reply, Request};

use crate::Input;

/// A whole body; a stream in pieces; a device name.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 3 {
        0 => body(input.all()),
        1 => stream(input),
        _ => device_name(&String::from_utf8_lossy(input.all())),
    }
}

/// What is understood has one form only, and keeps the limits.
fn body(body: &[u8]) {
    let mut frame = Vec::new();
    if let Ok(request) = Request::parse(body) {
        match &request {
            Request::Transmit { apdu } => assert!(apdu.len() <= MAX_APDU),
            Request::Control { input, .. } => assert!(input.len() <= MAX_APDU),
            Request::PinEntry(entry) => assert!(entry.time_limit() <= PIN_ENTRY_LIMIT),
            Request::Hello { .. } | Request::Power { .. } => {}
        }
        request.encode(&mut frame).expect("it came in a frame");
        if !matches!(request, Request::Hello { version, .. } if version != VERSION) {
            assert_eq!(&frame[4..], body);
        }
        assert!(format!("{request:?}").len() < 100, "no APDU is printed");
    }
    if let Ok(reply) = Reply::parse(body) {
        match &reply {
            Reply::Presence(presence) => {
                assert!(presence.atr.len() <= MAX_ATR);
                assert_eq!(presence.present, !presence.atr.is_empty());
            }
            Reply::Powered { atr } => assert!(atr.len() <= MAX_ATR),
            Reply::Response { apdu } => assert!((2..=MAX_APDU).contains(&apdu.len())),
            _ => {}
        }
        reply.encode(&mut frame).expect("it came in a frame");
        if !matches!(reply, Reply::Hello { version, .. } if version != VERSION) {
            assert_eq!(&frame[4..], body);
        }
    }
}

/// Cut in any way, a stream gives the frames that it consists of, up to the first that is none.
fn stream(mut input: Input<'_>) {
    let cuts = input.chunk();
    let stream = input.all();
    let mut expected = Vec::new();
    let mut rest = stream;
    while let Some((header, behind)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*header) as usize;
        if length == 0 || length > MAX_FRAME || length > behind.len() {
            break;
        }
        expected.push(behind[..length].to_vec());
        rest = &behind[length..];
    }

    let mut buffer = FrameBuffer::new();
    let mut seen = Vec::new();
    let mut rest = stream;
    let mut cuts = cuts.iter().copied().cycle();
    'stream: while !rest.is_empty() {
        let space = buffer.space();
        assert!(!space.is_empty(), "a read of nothing would look like the end");
        let count = (1 + usize::from(cuts.next().unwrap_or(0))).min(rest.len()).min(space.len());
        space[..count].copy_from_slice(&rest[..count]);
        buffer.filled(count);
        rest = &rest[count..];
        loop {
            let whole = buffer.has_frame();
            match buffer.frame() {
                Ok(Some(frame)) => {
                    assert_eq!(whole, Ok(true));
                    body(frame);
                    seen.push(frame.to_vec());
                }
                Ok(None) => break,
                Err(_) => break 'stream,
            }
        }
    }
    assert_eq!(seen, expected);
}

fn device_name(text: &str) {
    let Ok(name) = text.parse::<DeviceName>() else { return };
    assert!(name.socket().is_absolute() && (1..=DeviceName::MAX_SLOTS).contains(&name.slots()));
    assert!(name.to_string().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"=/-._@:".contains(&byte)));
    assert_eq!(name.to_string().parse(), Ok(name));
}
