//! A reader with a card in it that echoes every command, with 90 00 behind.
//!
//! `cargo build --example echo_reader`, then an entry in `/etc/reader.conf.d`:
//!
//! ```text
//! FRIENDLYNAME "Echo reader"
//! DEVICENAME   echo:
//! LIBPATH      /path/to/libecho_reader.so
//! ```
#![forbid(unsafe_code)]

use ifd_handler::{
    Atr, ControlCode, Device, Error, Insertion, Lun, Notifier, PowerAction, Presence, Reader, ResponseBuffer,
};

/// One slot. It keeps nothing: the card is always there and remembers nothing.
struct EchoReader;

impl Reader for EchoReader {
    fn open(_lun: Lun, _device: Device<'_>, _notifier: Notifier) -> Result<Self, Error> {
        Ok(Self)
    }

    fn presence(&self) -> Presence {
        Presence::Present(Insertion::default())
    }

    fn power(&self, _card: Insertion, _action: PowerAction) -> Result<Atr, Error> {
        // Direct convention, T=1, no historical octets; the last octet is the check octet.
        Atr::new(&[0x3B, 0x80, 0x01, 0x81]).ok_or(Error::Communication)
    }

    fn power_down(&self) {}

    fn transmit(&self, _card: Insertion, command: &[u8], response: &mut ResponseBuffer<'_>) -> Result<(), Error> {
        response.write(command)?;
        response.write(&[0x90, 0x00])
    }

    fn control(&self, code: ControlCode, input: &[u8], output: &mut ResponseBuffer<'_>) -> Result<(), Error> {
        if code != ControlCode(0x4200_0001) {
            return Err(Error::NotSupported);
        }
        output.write(input)
    }
}

ifd_handler::export_ifd_handler!(EchoReader);
