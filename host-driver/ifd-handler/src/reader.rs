//! The trait that a driver implements.

use std::ffi::CStr;
use std::fmt;
use std::time::Duration;

use crate::error::Error;
use crate::response::ResponseBuffer;
use crate::types::{Dword, MAX_ATR_SIZE};
use crate::wait::{Notifier, Waiter};

/// One slot of a reader, as the resource manager (pcscd, or Apple's SmartCardServices) uses it.
///
/// A value is made by [`Reader::open`] for each slot, lives in a table of this crate until the resource manager closes
/// the slot, and is used by several threads at once, hence `&self` everywhere:
///
/// | Thread of pcscd | calls |
/// |---|---|
/// | event thread of the slot | [`wait_for_change`](Reader::wait_for_change), [`presence`](Reader::presence), [`power`](Reader::power) |
/// | a client's thread | [`power`](Reader::power), [`transmit`](Reader::transmit), [`control`](Reader::control), [`presence`](Reader::presence), the rest |
/// | the main thread, on its way out | [`close`](Reader::close), **beside a blocked `transmit`** |
///
/// pcscd holds a lock per reader over presence, power, transmit and control, so those do not overlap; Apple's holds one
/// over all readers. Neither holds it over `wait_for_change`, nor, after half a second, over `close`.
///
/// # What the crate does for you
/// - The C side: pointers, lengths, tags, `DWORD` of either system, panics (a panic becomes `IFD_COMMUNICATION_ERROR`; it
///   never crosses into C), the received length set to 0 on every error.
/// - Presence: [`presence`](Reader::presence) says the truth, and the crate sees to it that pcscd hears of every removal,
///   also of one between two of its looks and of one that [`transmit`](Reader::transmit) found out. See [`Insertion`].
/// - Commands reach only a card that was powered up. A card that came back is a new card.
/// - The polling function returns only for a change of presence, a stop or its time-out: an early return on a powered,
///   unused card makes pcscd power it off. A stop is latched (pcscd joins its thread, so a lost one would block it for ten
///   minutes) and one-shot (pcscd also stops after every last disconnect, so a sticky one would make it spin).
///
/// # What you have to do
/// - **No slow work in `open`, `presence` and `power`.** While the first power-up of any reader runs, *all* PC/SC clients
///   of *all* readers wait. Report [`Presence::Present`] only once the answer to reset is known.
/// - **Limit every wait.** No one cancels a transmit: the client has no time limit, and a client that dies cannot take
///   its command back. pcscd itself, asked to end, waits for it.
/// - **Notice in `transmit` that the card is gone**: presence is not asked while a transmit runs.
/// - No thread-locals with destructors and no threads that outlive `close`: pcscd unloads the library afterwards. Link
///   the driver with `-Wl,-z,nodelete` on Linux.
/// - No `setrlimit`, `setpriority` or `sched_setaffinity`: the service unit of pcscd 2.x kills a process that tries.
pub trait Reader: Sized + Send + Sync + 'static {
    /// How many readers (not slots) the driver can run at the same time: `TAG_IFD_SIMULTANEOUS_ACCESS`. More than one entry
    /// of `reader.conf` may name the same library only if this is more than 1.
    const SIMULTANEOUS_READERS: u8 = 255;

    /// How long [`close`](Reader::close) waits for calls that are still blocked.
    const CLOSE_LIMIT: Duration = Duration::from_secs(2);

    /// Opens a slot.
    ///
    /// Return quickly, and also when the device is not there yet: pcscd drops a reader that fails to open for good.
    /// Readers and slots are fixed once pcscd runs: `pcscd --hotplug` does not read `reader.conf` again, so declare as many
    /// as there may ever be, and let a device that comes later be a card that is inserted.
    /// pcscd opens slot 0 first, asks its [`slots`](Reader::slots), and opens the others with the same device.
    ///
    /// # Errors
    /// Any error makes the resource manager give up on this reader until it is restarted.
    fn open(lun: Lun, device: Device<'_>, notifier: Notifier) -> Result<Self, Error>;

    /// The number of slots of this reader; asked on slot 0.
    fn slots(&self) -> u8 {
        1
    }

    /// Whether there is a card, and which. Cheap: a look at memory, or at most a read that does not block; it is called
    /// under pcscd's lock, and on a Mac several times a second.
    fn presence(&self) -> Presence;

    /// Blocks until presence may have changed, by [`Waiter::wait`] and nothing else. The default waits for [`Notifier`].
    ///
    /// Return for [`Woken::Over`](crate::Woken::Over), and whenever [`presence`](Reader::presence) has something new to
    /// say. A return without news is harmless: the crate asks `presence` and calls again. On a Mac it is never called.
    fn wait_for_change(&self, waiter: &Waiter<'_>) {
        let _ = waiter.wait(None, None);
    }

    /// Powers the card up or resets it, and gives its answer to reset.
    ///
    /// Either clears what the card had verified. It should not fail while [`presence`](Reader::presence) reports the
    /// card: pcscd keeps a card that it could not power up in a dead state until it has seen it leave. The crate
    /// therefore treats every failure as a removal. A card that is known to have left in this moment may well be
    /// answered with its last known answer to reset.
    ///
    /// # Errors
    /// [`Error::CardAbsent`] if the card with this number is gone.
    fn power(&self, card: Insertion, action: PowerAction) -> Result<Atr, Error>;

    /// Takes the card's power, and with it what the card had verified. It must not fail, and may be called for a card that
    /// is not powered.
    ///
    /// Programs ask for it with `SCARD_UNPOWER_CARD`, a power-up follows then. (`SCARD_EJECT_CARD` never gets here:
    /// pcscd refuses it for drivers of version 3.)
    ///
    /// pcscd does so 5 s after the last program let go of the card (0.4 s without the polling function) and powers it up
    /// again for the next one, so both should be cheap.
    fn power_down(&self);

    /// Sends a command APDU and writes the response APDU.
    ///
    /// - `card`: the card that was powered up. If another one is there by now, answer [`Error::CardAbsent`]: this command
    ///   was meant for the old one.
    /// - `command`: at most 65,548 octets from pcscd, raw; it may be empty or malformed.
    /// - `response`: pcscd gives room for 65,548 octets and checks the client's size itself. GET RESPONSE is the
    ///   client's business, not the driver's.
    ///
    /// # Errors
    /// [`Error::CardAbsent`] if the card is gone or leaves while the command runs; any other error for a command that
    /// failed without that. What was written to `response` is discarded.
    fn transmit(&self, card: Insertion, command: &[u8], response: &mut ResponseBuffer<'_>) -> Result<(), Error>;

    /// Executes a control command of the reader: `SCardControl`. [`crate::part10`] has those of PC/SC part 10.
    ///
    /// It needs no card: OpenSC asks for the features on every connect, others before any card is there. pcscd prints the
    /// input at its debug level if the command fails.
    ///
    /// # Errors
    /// [`Error::NotSupported`] for an unknown code: the application sees `SCARD_E_UNSUPPORTED_FEATURE`.
    fn control(&self, code: ControlCode, input: &[u8], output: &mut ResponseBuffer<'_>) -> Result<(), Error> {
        let _ = (code, input, output);
        Err(Error::NotSupported)
    }

    /// Chooses the transmission protocol. pcscd prefers T=1 if the answer to reset offers it.
    ///
    /// # Errors
    /// [`Error::ProtocolNotSupported`]; pcscd tolerates [`Error::NotSupported`].
    fn set_protocol(&self, protocol: Protocol) -> Result<(), Error> {
        let _ = protocol;
        Ok(())
    }

    /// Reads an attribute that the crate does not answer itself (`SCardGetAttrib`): names, serial number and so on.
    ///
    /// # Errors
    /// [`Error::UnknownTag`]; pcscd then answers the reader's names itself.
    fn attribute(&self, tag: u32, value: &mut ResponseBuffer<'_>) -> Result<(), Error> {
        let _ = (tag, value);
        Err(Error::UnknownTag)
    }

    /// Sets an attribute (`SCardSetAttrib`).
    ///
    /// # Errors
    /// [`Error::UnknownTag`] or [`Error::ReadOnly`].
    fn set_attribute(&self, tag: u32, value: &[u8]) -> Result<(), Error> {
        let _ = (tag, value);
        Err(Error::UnknownTag)
    }

    /// The resource manager saw the device being unplugged; it closes the slot next.
    fn device_removed(&self) {}

    /// Ends every blocked call of this slot and releases the device.
    ///
    /// Called beside calls that still run. After it returns, the crate waits up to [`Reader::CLOSE_LIMIT`] for them to
    /// come back, then drops the value. The polling function is woken by the crate.
    fn close(&self) {}
}

/// The address of a slot: the reader in the upper, the slot in the lower 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lun(pub(crate) u32);

impl Lun {
    pub(crate) fn from_raw(lun: Dword) -> Self {
        // Luns have 32 bits in both ABIs, whatever the width of `DWORD`.
        #[allow(clippy::cast_possible_truncation)]
        Self(lun as u32)
    }

    /// The reader's number, chosen by the resource manager.
    #[must_use]
    pub fn reader(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The slot within the reader, from 0.
    #[must_use]
    pub fn slot(self) -> u16 {
        (self.0 & 0xFFFF) as u16
    }
}

/// What the configuration says a reader is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device<'a> {
    /// `DEVICENAME` of `reader.conf` (quotes are not stripped there), or `usb:VVVV/PPPP:...` for a USB reader.
    Name(&'a CStr),
    /// `CHANNELID` of `reader.conf`, if there is no `DEVICENAME`.
    Channel(u32),
}

/// Which card is in the slot: a number that is different whenever the card is a new one.
///
/// A card that left and came back has a new number, even if it is the same piece of plastic: what it had verified is
/// gone. If the resource manager still holds handles for number 1 and [`Reader::presence`] says number 2, this crate
/// reports the slot empty first, so that those handles die (`SCARD_W_REMOVED_CARD`), and passes no command on before the
/// new card was powered up. A reader whose device cannot tell may count the changes it sees, or always say the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Insertion(pub u64);

/// Whether a card is in the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Presence {
    /// No card. Also the answer while the device itself is away: every other answer makes pcscd drop the reader or
    /// stall.
    Absent,
    /// A card, ready to be powered up at once.
    Present(Insertion),
}

/// How a card is brought to its initial state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PowerAction {
    /// Power it up (a cold reset, if it had power).
    Up,
    /// Reset it without taking its power: `SCARD_RESET_CARD`. Other handles of the card then get `SCARD_W_RESET_CARD`.
    Reset,
}

/// A transmission protocol of ISO/IEC 7816-3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// T=0, by octets.
    T0,
    /// T=1, by blocks.
    T1,
}

/// The code of a control command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ControlCode(pub u32);

/// An answer to reset: 2 to 33 octets.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Atr {
    octets: [u8; MAX_ATR_SIZE],
    length: u8,
}

impl Atr {
    /// An answer to reset, or `None` if it has fewer than 2 or more than 33 octets.
    #[must_use]
    pub fn new(octets: &[u8]) -> Option<Self> {
        let length = u8::try_from(octets.len()).ok().filter(|length| *length >= 2)?;
        let mut atr = Self { octets: [0; MAX_ATR_SIZE], length };
        atr.octets.get_mut(..octets.len())?.copy_from_slice(octets);
        Some(atr)
    }

    /// The octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.octets.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl fmt::Debug for Atr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Atr(")?;
        for octet in self.as_bytes() {
            write!(formatter, "{octet:02X}")?;
        }
        formatter.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lun_is_reader_and_slot() {
        let lun = Lun::from_raw(0x0003_0002);
        assert_eq!((lun.reader(), lun.slot()), (3, 2));
    }

    #[test]
    fn an_answer_to_reset_has_2_to_33_octets() {
        assert!(Atr::new(&[]).is_none());
        assert!(Atr::new(&[0x3B]).is_none());
        assert_eq!(Atr::new(&[0x3B, 0x00]).unwrap().as_bytes(), [0x3B, 0x00]);
        assert_eq!(Atr::new(&[7; 33]).unwrap().as_bytes().len(), 33);
        assert!(Atr::new(&[7; 34]).is_none());
        assert!(Atr::new(&[7; 300]).is_none());
        assert_eq!(format!("{:?}", Atr::new(&[0x3B, 0x80]).unwrap()), "Atr(3B80)");
    }
}
