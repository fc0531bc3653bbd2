use std::sync::{Mutex, MutexGuard, PoisonError};

use ifd_handler::part10;
use ifd_handler::{
    Atr, ControlCode, Device, Error, Insertion, Lun, Notifier, PowerAction, Presence, Reader, ResponseBuffer, Waiter,
};
use pocketcard_ipc::driver::{DeviceName, PinEntry};

use crate::command::CommandLine;
use crate::events::{self, Events, Woke};
use crate::pin_pad;

/// One slot of the reader: a phone that may or may not be there.
#[derive(Debug)]
pub struct PhoneSlot {
    name: DeviceName,
    slot: u32,
    command: CommandLine,
    events: Mutex<Events>,
}

impl PhoneSlot {
    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the owner enter a PIN, or refuses the description of it before anybody hears of it.
    fn enter_pin(&self, entry: Option<PinEntry>, output: &mut ResponseBuffer<'_>) -> Result<(), Error> {
        match entry {
            Some(entry) => self.command.enter_pin(entry, output),
            None => output.write(&pin_pad::REFUSED),
        }
    }
}

impl Reader for PhoneSlot {
    /// Never fails for want of a daemon: pcscd would drop the reader for good.
    fn open(lun: Lun, device: Device<'_>, _notifier: Notifier) -> Result<Self, Error> {
        let name = match device {
            Device::Name(name) => name.to_str().ok().map(|name| name.trim_matches('"').parse::<DeviceName>()),
            Device::Channel(_) => None,
        };
        match name {
            Some(Ok(name)) => Ok(Self {
                name,
                slot: u32::from(lun.slot()),
                command: CommandLine::new(),
                events: Mutex::new(Events::new()),
            }),
            Some(Err(error)) => {
                crate::log(format_args!("reader.conf: DEVICENAME: {error}"));
                Err(Error::Communication)
            }
            None => {
                crate::log(format_args!("reader.conf: the reader needs a DEVICENAME"));
                Err(Error::Communication)
            }
        }
    }

    fn slots(&self) -> u8 {
        self.name.slots()
    }

    fn presence(&self) -> Presence {
        self.events().presence(&self.name, self.slot)
    }

    fn wait_for_change(&self, waiter: &Waiter<'_>) {
        loop {
            let (socket, pause) = {
                let events = self.events();
                (events.socket(), events.pause())
            };
            let was_connected = socket.is_some();
            match events::wait(waiter, &self.name, socket.as_deref(), pause) {
                Woke::Over => return,
                Woke::News if was_connected => return,
                Woke::News => {}
                Woke::Daemon => self.events().expect_daemon(),
            }
            // Away: try to connect here, on the event thread, and bother pcscd only if there is a card.
            if self.presence() != Presence::Absent {
                return;
            }
        }
    }

    fn power(&self, card: Insertion, action: PowerAction) -> Result<Atr, Error> {
        let generation = self.events().generation(card).ok_or(Error::CardAbsent)?;
        self.command.power(&self.name, self.slot, generation, action)
    }

    fn power_down(&self) {
        self.command.power_down();
    }

    fn transmit(&self, _card: Insertion, command: &[u8], response: &mut ResponseBuffer<'_>) -> Result<(), Error> {
        // The daemon refuses a command for a card that this connection did not power up, so the card need not be
        // compared here: between the look and the command it could leave anyway.
        self.command.transmit(command, response)
    }

    fn control(&self, code: ControlCode, input: &[u8], output: &mut ResponseBuffer<'_>) -> Result<(), Error> {
        let pin_pad = self.events().has_pin_pad(&self.name, self.slot);
        match code {
            part10::GET_FEATURE_REQUEST | part10::GET_FEATURE_REQUEST_WINDOWS => {
                pin_pad::write_features(pin_pad, output)
            }
            pin_pad::TLV_PROPERTIES => pin_pad::write_properties(pin_pad, output),
            pin_pad::PIN_PROPERTIES if pin_pad => pin_pad::write_pin_properties(output),
            pin_pad::VERIFY_PIN if pin_pad => self.enter_pin(pin_pad::verify(input), output),
            pin_pad::MODIFY_PIN if pin_pad => self.enter_pin(pin_pad::modify(input), output),
            _ => Err(Error::NotSupported),
        }
    }

    fn close(&self) {
        self.command.close();
        self.events().close();
    }
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;

    use pocketcard_ipc::driver::Reply;

    use super::*;
    use crate::fake_daemon::{FakeConnection, FakeDaemon};
    use crate::pin_pad::tests::{hostile, opensc_verify};

    fn slot(daemon: &FakeDaemon) -> PhoneSlot {
        let name = daemon.name().clone();
        PhoneSlot { name, slot: 0, command: CommandLine::new(), events: Mutex::new(Events::new()) }
    }

    fn control(slot: &PhoneSlot, code: ControlCode, input: &[u8]) -> Result<Vec<u8>, Error> {
        let mut memory = [MaybeUninit::new(0); 64];
        let mut output = ResponseBuffer::new(&mut memory);
        slot.control(code, input, &mut output)?;
        Ok(output.as_slice().to_vec())
    }

    /// The event connection comes first; then, on the command connection, power and one PIN entry.
    fn serve(pin_pad: bool) -> FakeDaemon {
        FakeDaemon::serve_at_once(move |connection: &mut FakeConnection| {
            connection.hello_with(pin_pad);
            if connection.number == 0 {
                connection.push(&Reply::Presence(pocketcard_ipc::driver::Presence {
                    present: true,
                    generation: 1,
                    atr: &[0x3B, 0x80],
                }));
                connection.step();
            } else {
                connection.answer(&Reply::Powered { atr: &[0x3B, 0x80] });
                connection.answer(&Reply::Response { apdu: &[0x90, 0x00] });
                connection.request();
            }
        })
    }

    #[test]
    fn a_hostile_description_is_refused_before_the_daemon_hears_of_it() {
        let daemon = serve(true);
        let slot = slot(&daemon);
        let Presence::Present(card) = slot.presence() else { panic!("no card") };
        slot.power(card, PowerAction::Up).unwrap();
        let before = daemon.requests();
        for (name, code, bytes) in hostile() {
            assert_eq!(control(&slot, code, &bytes), Ok(vec![0x6B, 0x80]), "{name}");
        }
        assert_eq!(daemon.requests(), before);
        assert_eq!(control(&slot, pin_pad::VERIFY_PIN, &opensc_verify()), Ok(vec![0x90, 0x00]));
        assert_eq!(daemon.requests(), before + 1);
    }

    #[test]
    fn a_reader_without_a_pad_does_not_know_its_codes() {
        let daemon = serve(false);
        let slot = slot(&daemon);
        assert_eq!(control(&slot, part10::GET_FEATURE_REQUEST, &[]).unwrap().len(), 6);
        for code in [pin_pad::VERIFY_PIN, pin_pad::MODIFY_PIN, pin_pad::PIN_PROPERTIES] {
            assert_eq!(control(&slot, code, &opensc_verify()), Err(Error::NotSupported));
        }
        assert_eq!(daemon.requests(), 1, "only the greeting");
    }
}
