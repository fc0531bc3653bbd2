//! A reader that does what a test says, and the C functions that lead to it.

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ifd_handler::types::*;
use ifd_handler::{
    Atr, ControlCode, Device, Error, Insertion, Lun, Notifier, PowerAction, Presence, Protocol, Reader, ResponseBuffer,
};

unsafe extern "C" {
    pub(crate) fn IFDHCreateChannelByName(lun: Dword, name: *const c_char) -> ResponseCode;
    pub(crate) fn IFDHCreateChannel(lun: Dword, channel: Dword) -> ResponseCode;
    pub(crate) fn IFDHCloseChannel(lun: Dword) -> ResponseCode;
    pub(crate) fn IFDHGetCapabilities(lun: Dword, tag: Dword, length: *mut Dword, value: *mut Uchar) -> ResponseCode;
    pub(crate) fn IFDHSetCapabilities(lun: Dword, tag: Dword, length: Dword, value: *mut Uchar) -> ResponseCode;
    pub(crate) fn IFDHSetProtocolParameters(
        lun: Dword,
        protocol: Dword,
        flags: Uchar,
        a: Uchar,
        b: Uchar,
        c: Uchar,
    ) -> ResponseCode;
    pub(crate) fn IFDHPowerICC(lun: Dword, action: Dword, atr: *mut Uchar, length: *mut Dword) -> ResponseCode;
    pub(crate) fn IFDHTransmitToICC(
        lun: Dword,
        send: ScardIoHeader,
        tx: *const Uchar,
        tx_length: Dword,
        rx: *mut Uchar,
        rx_length: *mut Dword,
        receive: *mut ScardIoHeader,
    ) -> ResponseCode;
    pub(crate) fn IFDHControl(
        lun: Dword,
        code: Dword,
        tx: *const Uchar,
        tx_length: Dword,
        rx: *mut Uchar,
        rx_length: Dword,
        returned: *mut Dword,
    ) -> ResponseCode;
    pub(crate) fn IFDHICCPresence(lun: Dword) -> ResponseCode;
}

pub(crate) const ATR: [u8; 4] = [0x3B, 0x80, 0x01, 0x81];
pub(crate) const BLOCK: [u8; 1] = [0xB0];
pub(crate) const BLOCK_DEAF: [u8; 1] = [0xB1];
pub(crate) const ABSENT: [u8; 1] = [0xA0];
pub(crate) const PANIC: [u8; 1] = [0x99];
pub(crate) const TIMED_OUT: [u8; 1] = [0x70];

/// What a test and its reader share.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    pub(crate) changed: Condvar,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) presence: Option<u64>,
    pub(crate) power_fails: bool,
    pub(crate) panics: bool,
    pub(crate) closed: bool,
    pub(crate) released: bool,
    pub(crate) blocked: u32,
    pub(crate) presence_calls: u32,
    pub(crate) powers_down: u32,
    pub(crate) removed: bool,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) notifier: Option<Notifier>,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let notifier = state.notifier.clone();
        drop(state);
        self.changed.notify_all();
        if let Some(notifier) = notifier {
            notifier.notify();
        }
    }

    /// Waits, with a limit, until the reader is where the test wants it.
    pub(crate) fn await_state(&self, what: &str, ready: impl Fn(&State) -> bool) {
        let (_state, timeout) =
            self.changed.wait_timeout_while(self.lock(), Duration::from_secs(10), |state| !ready(state)).unwrap();
        assert!(!timeout.timed_out(), "never {what}");
    }
}

pub(crate) static READERS: Mutex<Option<HashMap<u32, Arc<Shared>>>> = Mutex::new(None);

pub(crate) fn shared(lun: u32) -> Arc<Shared> {
    let mut readers = READERS.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(readers.get_or_insert_default().entry(lun).or_default())
}

pub(crate) struct TestReader(Arc<Shared>);

impl TestReader {
    pub(crate) fn maybe_panic(&self) {
        let panics = self.0.lock().panics;
        assert!(!panics, "the test wants a panic");
    }
}

impl Reader for TestReader {
    const SIMULTANEOUS_READERS: u8 = 77;
    const CLOSE_LIMIT: Duration = Duration::from_millis(300);

    fn open(lun: Lun, device: Device<'_>, notifier: Notifier) -> Result<Self, Error> {
        match device {
            Device::Name(name) if name.to_bytes() == b"broken" => return Err(Error::Communication),
            Device::Name(name) if name.to_bytes() == b"panic" => panic!("the test wants a panic"),
            Device::Name(name) => assert_eq!(name.to_bytes(), b"test:"),
            Device::Channel(channel) => assert_eq!(channel, 5),
        }
        let shared = shared((u32::from(lun.reader()) << 16) | u32::from(lun.slot()));
        shared.lock().notifier = Some(notifier);
        Ok(Self(shared))
    }

    fn slots(&self) -> u8 {
        self.maybe_panic();
        3
    }

    fn presence(&self) -> Presence {
        self.maybe_panic();
        let mut state = self.0.lock();
        state.presence_calls += 1;
        self.0.changed.notify_all();
        state.presence.map_or(Presence::Absent, |number| Presence::Present(Insertion(number)))
    }

    fn power(&self, card: Insertion, action: PowerAction) -> Result<Atr, Error> {
        self.maybe_panic();
        let state = self.0.lock();
        if state.power_fails || state.presence != Some(card.0) {
            return Err(Error::CardAbsent);
        }
        let mut atr = ATR.to_vec();
        atr.push(u8::from(action == PowerAction::Reset));
        Ok(Atr::new(&atr).unwrap())
    }

    fn power_down(&self) {
        self.maybe_panic();
        self.0.lock().powers_down += 1;
    }

    fn transmit(&self, card: Insertion, command: &[u8], response: &mut ResponseBuffer<'_>) -> Result<(), Error> {
        self.maybe_panic();
        response.write(command)?;
        if command == PANIC {
            panic!("the test wants a panic");
        } else if command == ABSENT {
            return Err(Error::CardAbsent);
        } else if command == TIMED_OUT {
            return Err(Error::TimedOut);
        } else if command == BLOCK || command == BLOCK_DEAF {
            let mut state = self.0.lock();
            state.blocked += 1;
            self.0.changed.notify_all();
            while !(state.released || (command == BLOCK && state.closed)) {
                state = self.0.changed.wait(state).unwrap();
            }
            return Err(Error::CardAbsent);
        } else if self.0.lock().presence != Some(card.0) {
            return Err(Error::CardAbsent);
        }
        response.write(&[0x90, 0x00])
    }

    fn control(&self, code: ControlCode, input: &[u8], output: &mut ResponseBuffer<'_>) -> Result<(), Error> {
        self.maybe_panic();
        match code.0 {
            1 => output.write(input),
            2 => {
                output.write(input)?;
                Err(Error::CardAbsent)
            }
            _ => Err(Error::NotSupported),
        }
    }

    fn set_protocol(&self, protocol: Protocol) -> Result<(), Error> {
        self.maybe_panic();
        self.0.lock().protocol = Some(protocol);
        Ok(())
    }

    fn attribute(&self, tag: u32, value: &mut ResponseBuffer<'_>) -> Result<(), Error> {
        self.maybe_panic();
        if tag == 0x0001_0100 { value.write(b"Test") } else { Err(Error::UnknownTag) }
    }

    fn set_attribute(&self, tag: u32, value: &[u8]) -> Result<(), Error> {
        self.maybe_panic();
        if (tag, value) == (7, b"abc") { Ok(()) } else { Err(Error::ReadOnly) }
    }

    fn device_removed(&self) {
        self.maybe_panic();
        self.0.lock().removed = true;
    }

    fn close(&self) {
        self.0.set(|state| state.closed = true);
        self.maybe_panic();
    }
}

ifd_handler::export_ifd_handler!(TestReader);

/// A slot that is open during a test.
pub(crate) struct Open {
    pub(crate) lun: Dword,
    pub(crate) shared: Arc<Shared>,
    pub(crate) poll: PollingFunction,
    pub(crate) stop: StopFunction,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.set(|state| (state.released, state.panics) = (true, false));
        // SAFETY: the function takes a number.
        unsafe { IFDHCloseChannel(self.lun) };
    }
}

impl Open {
    pub(crate) fn new(lun: Dword) -> Self {
        assert_eq!(open(lun, "test:"), 0);
        let poll = function(lun, TAG_IFD_POLLING_THREAD_WITH_TIMEOUT);
        let stop = function(lun, TAG_IFD_STOP_POLLING_THREAD);
        // SAFETY: the driver wrote a pointer to a function of this type for this tag.
        let (poll, stop) = unsafe {
            (std::mem::transmute::<usize, PollingFunction>(poll), std::mem::transmute::<usize, StopFunction>(stop))
        };
        Self { lun, shared: shared(u32::try_from(lun).unwrap()), poll, stop }
    }

    pub(crate) fn with_card(lun: Dword) -> Self {
        let open = Self::new(lun);
        open.insert(1);
        assert_eq!(open.presence(), IFD_ICC_PRESENT);
        assert_eq!(open.power(IFD_POWER_UP).0, 0);
        open
    }

    pub(crate) fn insert(&self, number: u64) {
        self.shared.set(|state| state.presence = Some(number));
    }

    pub(crate) fn remove(&self) {
        self.shared.set(|state| state.presence = None);
    }

    pub(crate) fn presence(&self) -> ResponseCode {
        // SAFETY: the function takes a number.
        unsafe { IFDHICCPresence(self.lun) }
    }

    pub(crate) fn power(&self, action: Dword) -> (ResponseCode, Vec<u8>) {
        let mut atr = [0xEE; 33];
        // As Apple's resource manager does: the length is not set before the call.
        let mut length = 0;
        // SAFETY: 33 octets and a length.
        let code = unsafe { IFDHPowerICC(self.lun, action, atr.as_mut_ptr(), &mut length) };
        (code, atr[..usize::try_from(length).unwrap()].to_vec())
    }

    pub(crate) fn transmit(&self, command: &[u8]) -> (ResponseCode, Vec<u8>) {
        transmit(self.lun, command, MAX_BUFFER_SIZE_EXTENDED)
    }

    pub(crate) fn poll(&self, timeout_ms: c_int) -> ResponseCode {
        (self.poll)(self.lun, timeout_ms)
    }

    /// One turn of pcscd's event thread: a poll that must return at once, then a look.
    pub(crate) fn event(&self) -> ResponseCode {
        let start = Instant::now();
        assert_eq!(self.poll(20_000), IFD_SUCCESS);
        assert!(start.elapsed() < Duration::from_secs(10), "the polling function did not return for a change");
        self.presence()
    }
}

pub(crate) fn open(lun: Dword, name: &str) -> ResponseCode {
    let name = CString::new(name).unwrap();
    // SAFETY: a C string.
    unsafe { IFDHCreateChannelByName(lun, name.as_ptr()) }
}

pub(crate) fn transmit(lun: Dword, command: &[u8], room: usize) -> (ResponseCode, Vec<u8>) {
    let mut response = vec![0xEE; room];
    let mut length = Dword::try_from(room).unwrap();
    let send = ScardIoHeader { protocol: 1, length: 16 };
    let mut receive = ScardIoHeader::default();
    let (tx, tx_length) = (command.as_ptr(), Dword::try_from(command.len()).unwrap());
    // SAFETY: the buffers have the lengths that are given.
    let code = unsafe { IFDHTransmitToICC(lun, send, tx, tx_length, response.as_mut_ptr(), &mut length, &mut receive) };
    assert_eq!(receive, if code == 0 { send } else { ScardIoHeader::default() });
    response.truncate(usize::try_from(length).unwrap());
    (code, response)
}

pub(crate) fn capability(lun: Dword, tag: Dword, room: usize) -> (ResponseCode, Vec<u8>) {
    let mut value = vec![0xEE; room];
    let mut length = Dword::try_from(room).unwrap();
    // SAFETY: the buffer has the length that is given.
    let code = unsafe { IFDHGetCapabilities(lun, tag, &mut length, value.as_mut_ptr()) };
    value.truncate(usize::try_from(length).unwrap());
    (code, value)
}

pub(crate) fn function(lun: Dword, tag: Dword) -> usize {
    let (code, value) = capability(lun, tag, size_of::<usize>());
    assert_eq!(code, 0);
    usize::from_ne_bytes(value.try_into().unwrap())
}

pub(crate) fn control(lun: Dword, code: Dword, input: &[u8], room: usize) -> (ResponseCode, Vec<u8>) {
    let mut output = vec![0xEE; room];
    let mut returned = 99;
    let (tx, tx_length) = (input.as_ptr(), Dword::try_from(input.len()).unwrap());
    let room = Dword::try_from(room).unwrap();
    // SAFETY: the buffers have the lengths that are given.
    let code = unsafe { IFDHControl(lun, code, tx, tx_length, output.as_mut_ptr(), room, &mut returned) };
    output.truncate(usize::try_from(returned).unwrap());
    (code, output)
}
