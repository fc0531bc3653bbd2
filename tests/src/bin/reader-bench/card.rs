//! The card behind vpcd: connects to it and answers with as few system calls as can be.
//!
//! Debian's vpcd writes the length and the data of a command apart, without TCP_NODELAY: a peer that delays its
//! acknowledgement makes each exchange take 44 ms. Setting TCP_QUICKACK again after every read shows it at its best.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;

use rustix::net::sockopt::set_tcp_quickack;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::clock::monotonic_us;
use crate::conversation;
use crate::fixture::{KNOWN, KNOWN_ANSWER, LARGE, LARGE_ANSWER};
use crate::run::Failure;

/// T=0 and T=1, as much as a PC/SC client asks for.
const ATR: [u8; 5] = [0x3B, 0x80, 0x80, 0x01, 0x01];

/// What the card is told. It answers with the time at which it began.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Connect to vpcd: the card is put in.
    Insert,
    /// Close the connection: the card is taken out.
    Remove,
}

/// When it happened.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Happened {
    pub(crate) at_us: u64,
}

pub(crate) fn serve(port: u16) -> Result<(), Failure> {
    let mut connection: Option<(TcpStream, mpsc::Receiver<()>)> = None;
    conversation::serve(|request: Request, answer| {
        let at_us = match request {
            Request::Insert => {
                let stream = TcpStream::connect(("127.0.0.1", port))?;
                let at_us = monotonic_us();
                stream.set_nodelay(true)?;
                let (ended, end) = mpsc::channel();
                let served = stream.try_clone()?;
                thread::spawn(move || {
                    // Its end, by an error or by us, is the removal.
                    let _ = answer_commands(served);
                    let _ = ended.send(());
                });
                connection = Some((stream, end));
                at_us
            }
            Request::Remove => {
                let at_us = monotonic_us();
                if let Some((stream, end)) = connection.take() {
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                    drop(stream);
                    let _ = end.recv();
                }
                at_us
            }
        };
        answer(json!(Happened { at_us }))
    })
}

/// Spec: vsmartcard's vpcd.h: length in two bytes, then a control byte or a command.
fn answer_commands(mut stream: TcpStream) -> Result<(), Failure> {
    let small = frame(&[0x6D, 0x00]);
    let [large, known] = [LARGE_ANSWER, KNOWN_ANSWER].map(|length| {
        let mut answer = vec![0xA5; length];
        answer.splice(length - 2.., [0x90, 0x00]);
        frame(&answer)
    });
    let atr = frame(&ATR);
    let mut buffer = vec![0; 65_538];
    let mut filled = 0;
    loop {
        let read = stream.read(buffer.get_mut(filled..).unwrap_or_default())?;
        set_tcp_quickack(&stream, true).map_err(std::io::Error::from)?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        while let Some(&[high, low]) = buffer.get(..2) {
            let length = usize::from(u16::from_be_bytes([high, low]));
            if filled < 2 + length {
                break;
            }
            match buffer.get(2..2 + length) {
                Some([4]) => stream.write_all(&atr)?,
                // Power off, power on, reset: no answer.
                Some([_]) => {}
                Some(command) if command == LARGE => stream.write_all(&large)?,
                Some(command) if command == KNOWN => stream.write_all(&known)?,
                _ => stream.write_all(&small)?,
            }
            buffer.copy_within(2 + length..filled, 0);
            filled -= 2 + length;
            if filled < 2 {
                break;
            }
        }
    }
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    let mut frame = u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
    frame.extend(bytes);
    frame
}
