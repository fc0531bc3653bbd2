//! The configuration applet that management tools read to learn what a token can do. It answers questions and holds no state.
//!
//! Spec: Yubico management interface, READ CONFIG (docs.yubico.com)

use pocketcard_protocol::apdu::{Command, StatusWord};
use pocketcard_protocol::tlv::Writer;

use super::applet::{Applet, Context, Progress, SessionId};
use super::effect::EffectResult;
use super::event::CommandLine;
use super::piv::Version;

const READ_CONFIG: u8 = 0x1D;

/// The applications that tools may expect: PIV alone.
const PIV: [u8; 2] = [0x00, 0x10];

/// Tells tools that there is a PIV application, its version and the card's serial number.
pub(crate) struct ConfigurationApplet {
    version: Version,
    serial: u32,
}

impl ConfigurationApplet {
    pub(crate) const fn new(version: Version, serial: u32) -> Self {
        Self { version, serial }
    }

    fn configuration(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.put(0x01, &PIV); // applications there are
        writer.put(0x02, &self.serial.to_be_bytes());
        writer.put(0x03, &PIV); // applications that are enabled
        writer.put(0x04, &[0x00]); // form factor: unknown
        writer.put(0x05, &self.version.to_bytes());
        writer.put(0x0A, &[0x00]); // not locked
        writer.put(0x0D, &PIV); // the same once more, without contacts
        writer.put(0x0E, &PIV);
        let objects = writer.into_bytes();
        let mut page = vec![u8::try_from(objects.len()).unwrap_or(u8::MAX)];
        page.extend_from_slice(&objects);
        page
    }
}

impl Applet for ConfigurationApplet {
    fn identifier(&self) -> &'static [u8] {
        &[0xA0, 0x00, 0x00, 0x05, 0x27, 0x47, 0x11, 0x17]
    }

    fn select(&mut self, _session: SessionId) -> Vec<u8> {
        let Version { major, minor, patch } = self.version;
        format!("Pocketcard {major}.{minor}.{patch}").into_bytes()
    }

    fn clear(&mut self, _session: SessionId) {}

    fn execute(&mut self, _session: SessionId, command: &Command, _context: &mut Context<'_>) -> Progress {
        match (command.ins(), command.p1(), command.p2()) {
            (READ_CONFIG, 0, 0) => Progress::success(&self.configuration()),
            (READ_CONFIG, _, _) => Progress::status(StatusWord::WrongParameters),
            _ => Progress::status(StatusWord::InstructionNotSupported),
        }
    }

    fn resume(&mut self, _session: SessionId, _result: EffectResult, _context: &mut Context<'_>) -> Progress {
        Progress::status(StatusWord::NoDiagnosis)
    }

    fn cancel(&mut self, _session: SessionId) {}

    fn describe(&self, command: &Command) -> CommandLine {
        match command.ins() {
            READ_CONFIG => CommandLine::bare("READ CONFIG"),
            ins => CommandLine::new("INS", format!("{ins:02X}")),
        }
    }
}
