//! Makes a Bluetooth adapter whose controller is outside the emulated machine: carries HCI packets between /dev/vhci and a
//! port to the host. Used by the guest of `cargo xtask test-ble`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::thread;

/// The largest packet of HCI with its indicator: 4 octets of header and a length of 16 bits.
const PACKET: usize = 5 + 0xFFFF;
/// What /dev/vhci takes for "an adapter, please", and how its answer begins.
const VENDOR: u8 = 0xFF;

fn main() -> ExitCode {
    let Some(port) = std::env::args_os().nth(1) else {
        eprintln!("usage: ble-bridge PORT");
        return ExitCode::from(2);
    };
    let open = |path| OpenOptions::new().read(true).write(true).open(path);
    match open("/dev/vhci".into()).and_then(|vhci| bridge(vhci, open(port)?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ble-bridge: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Carries packets until either end closes.
fn bridge(vhci: File, port: File) -> io::Result<()> {
    (&vhci).write_all(&[VENDOR, 0])?;
    let (mut from, mut to) = (vhci.try_clone()?, port.try_clone()?);
    let up = thread::spawn(move || {
        let mut packet = vec![0; PACKET];
        loop {
            let length = from.read(&mut packet)?;
            let packet = packet.get(..length).unwrap_or_default();
            match packet.first() {
                None => return Ok::<(), io::Error>(()),
                Some(&VENDOR) => {}
                Some(_) => to.write_all(packet)?,
            }
        }
    });
    let (mut vhci, mut port) = (vhci, port);
    let mut stream = Vec::new();
    let mut read = vec![0; PACKET];
    while !up.is_finished() {
        let length = port.read(&mut read)?;
        if length == 0 {
            return Ok(());
        }
        stream.extend_from_slice(read.get(..length).unwrap_or_default());
        // One write is one packet to the kernel.
        while let Some(length) = packet_length(&stream)? {
            let packet: Vec<u8> = stream.drain(..length).collect();
            vhci.write_all(&packet)?;
        }
    }
    up.join().unwrap_or_else(|_| Err(io::Error::other("the way up ended")))
}

/// The length of the first packet of a stream, or `None` while it is not all there.
///
/// Spec: Bluetooth 5.4, volume 4, part A, section 2
fn packet_length(stream: &[u8]) -> io::Result<Option<usize>> {
    let length = match *stream {
        [2, _, _, low, high, ..] => 5 + usize::from(u16::from_le_bytes([low, high])),
        [3, _, _, length, ..] => 4 + usize::from(length),
        [4, _, length, ..] => 3 + usize::from(length),
        [5, _, _, low, high, ..] => 5 + usize::from(u16::from_le_bytes([low, high]) & 0x3FFF),
        [] | [2..=5, ..] => return Ok(None),
        [kind, ..] => return Err(io::Error::other(format!("not a packet from a controller: {kind}"))),
    };
    Ok((stream.len() >= length).then_some(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_end_where_their_headers_say() {
        let packets: [&[u8]; 4] =
            [&[4, 0x0E, 2, 1, 2], &[2, 0x40, 0x20, 3, 0, 1, 2, 3], &[3, 0, 0, 1, 9], &[5, 0, 0, 1, 0x40, 9]];
        for packet in packets {
            for end in 0..packet.len() {
                assert_eq!(packet_length(&packet[..end]).unwrap(), None);
            }
            assert_eq!(packet_length(packet).unwrap(), Some(packet.len()));
            assert_eq!(packet_length(&[packet, &[4, 4]].concat()).unwrap(), Some(packet.len()));
        }
        assert!(packet_length(&[0x42, 0, 0]).is_err());
    }
}
