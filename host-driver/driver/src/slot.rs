use std::sync::{Mutex, MutexGuard, PoisonError};

use ifd_handler::part10::{self, Feature, Property};
use ifd_handler::{
    Atr, ControlCode, Device, Error, Insertion, Lun, Notifier, PowerAction, Presence, Reader, ResponseBuffer, Waiter,
};
use pocketcard_ipc::driver::DeviceName;

use crate::command::CommandLine;
use crate::events::{self, Events, Woke};

/// Our control code for the reader's properties.
const TLV_PROPERTIES: ControlCode = part10::control_code(0x12);

/// Most data of one command or response: what an extended APDU can carry.
const MAX_DATA: u32 = 65_536;

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
        // Neither takes input. The properties tell OpenSC that extended APDUs pass: without them it cuts everything.
        let _ = input;
        match code {
            part10::GET_FEATURE_REQUEST | part10::GET_FEATURE_REQUEST_WINDOWS => {
                part10::write_features(&[(Feature::GET_TLV_PROPERTIES, TLV_PROPERTIES)], output)
            }
            TLV_PROPERTIES => part10::write_properties(&[Property::MaxApduDataSize(MAX_DATA)], output),
            _ => Err(Error::NotSupported),
        }
    }

    fn close(&self) {
        self.command.close();
        self.events().close();
    }
}
