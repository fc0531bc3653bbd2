//! A driver for `tests/pcscd.rs`: its card comes and goes as a socket says.
//!
//! DEVICENAME is a unix socket. Each slot connects, says its number, reads `i` (insert), `r` (remove), `s` (swap: another
//! card between two looks) and writes what pcscd does: `U` power up, `R` reset, `D` power down, `B` blocked in a transmit,
//! `C` close.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ifd_handler::{
    Atr, Device, Error, Insertion, Lun, Notifier, PowerAction, Presence, Reader, ResponseBuffer, Waiter, Woken,
};

struct ScriptedReader {
    socket: UnixStream,
    state: Mutex<State>,
    closing: Condvar,
}

#[derive(Default)]
struct State {
    present: bool,
    insertion: u64,
    closed: bool,
}

impl ScriptedReader {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, what: u8) {
        // The test may have hung up already.
        let _ = (&self.socket).write(&[what]);
    }
}

impl Reader for ScriptedReader {
    fn open(lun: Lun, device: Device<'_>, _notifier: Notifier) -> Result<Self, Error> {
        let Device::Name(name) = device else { return Err(Error::NotSupported) };
        let mut socket = UnixStream::connect(OsStr::from_bytes(name.to_bytes()))?;
        socket.write_all(&[b'0' + u8::try_from(lun.slot()).map_err(|_| Error::NotSupported)?])?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, state: Mutex::default(), closing: Condvar::new() })
    }

    fn slots(&self) -> u8 {
        2
    }

    fn presence(&self) -> Presence {
        let mut state = self.state();
        let mut octets = [0; 64];
        while let Ok(count @ 1..) = (&self.socket).read(&mut octets) {
            for octet in octets.iter().take(count) {
                state.present = *octet != b'r';
                state.insertion += u64::from(state.present);
            }
        }
        if state.present { Presence::Present(Insertion(state.insertion)) } else { Presence::Absent }
    }

    fn wait_for_change(&self, waiter: &Waiter<'_>) {
        let _: Woken = waiter.wait(Some(self.socket.as_fd()), None);
    }

    fn power(&self, _card: Insertion, action: PowerAction) -> Result<Atr, Error> {
        self.tell(if action == PowerAction::Up { b'U' } else { b'R' });
        Atr::new(&[0x3B, 0x80, 0x01, 0x81]).ok_or(Error::Communication)
    }

    fn power_down(&self) {
        self.tell(b'D');
    }

    fn transmit(&self, card: Insertion, command: &[u8], response: &mut ResponseBuffer<'_>) -> Result<(), Error> {
        match command {
            [0xA0, ..] => return Err(Error::CardAbsent),
            [0xB0, ..] => {
                self.tell(b'B');
                let wait =
                    self.closing.wait_timeout_while(self.state(), Duration::from_secs(30), |state| !state.closed);
                drop(wait);
                return Err(Error::CardAbsent);
            }
            _ => {}
        }
        if card.0 != self.state().insertion {
            return Err(Error::CardAbsent);
        }
        response.write(&card.0.to_be_bytes())?;
        response.write(&[0x90, 0x00])
    }

    fn close(&self) {
        self.tell(b'C');
        self.state().closed = true;
        self.closing.notify_all();
    }
}

ifd_handler::export_ifd_handler!(ScriptedReader);
