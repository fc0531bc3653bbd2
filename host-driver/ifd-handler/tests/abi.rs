//! Calls the exported C functions as pcscd does, and as it should not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int};
use std::ptr::{null, null_mut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ifd_handler::types::*;
use ifd_handler::{
    Atr, ControlCode, Device, Error, Insertion, Lun, Notifier, PowerAction, Presence, Protocol, Reader, ResponseBuffer,
};

unsafe extern "C" {
    fn IFDHCreateChannelByName(lun: Dword, name: *const c_char) -> ResponseCode;
    fn IFDHCreateChannel(lun: Dword, channel: Dword) -> ResponseCode;
    fn IFDHCloseChannel(lun: Dword) -> ResponseCode;
    fn IFDHGetCapabilities(lun: Dword, tag: Dword, length: *mut Dword, value: *mut Uchar) -> ResponseCode;
    fn IFDHSetCapabilities(lun: Dword, tag: Dword, length: Dword, value: *mut Uchar) -> ResponseCode;
    fn IFDHSetProtocolParameters(
        lun: Dword,
        protocol: Dword,
        flags: Uchar,
        a: Uchar,
        b: Uchar,
        c: Uchar,
    ) -> ResponseCode;
    fn IFDHPowerICC(lun: Dword, action: Dword, atr: *mut Uchar, length: *mut Dword) -> ResponseCode;
    fn IFDHTransmitToICC(
        lun: Dword,
        send: ScardIoHeader,
        tx: *const Uchar,
        tx_length: Dword,
        rx: *mut Uchar,
        rx_length: *mut Dword,
        receive: *mut ScardIoHeader,
    ) -> ResponseCode;
    fn IFDHControl(
        lun: Dword,
        code: Dword,
        tx: *const Uchar,
        tx_length: Dword,
        rx: *mut Uchar,
        rx_length: Dword,
        returned: *mut Dword,
    ) -> ResponseCode;
    fn IFDHICCPresence(lun: Dword) -> ResponseCode;
}

const ATR: [u8; 4] = [0x3B, 0x80, 0x01, 0x81];
const BLOCK: [u8; 1] = [0xB0];
const BLOCK_DEAF: [u8; 1] = [0xB1];
const ABSENT: [u8; 1] = [0xA0];
const PANIC: [u8; 1] = [0x99];
const TIMED_OUT: [u8; 1] = [0x70];

/// What a test and its reader share.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    presence: Option<u64>,
    power_fails: bool,
    panics: bool,
    closed: bool,
    released: bool,
    blocked: u32,
    presence_calls: u32,
    powers_down: u32,
    removed: bool,
    protocol: Option<Protocol>,
    notifier: Option<Notifier>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
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
    fn await_state(&self, what: &str, ready: impl Fn(&State) -> bool) {
        let (_state, timeout) =
            self.changed.wait_timeout_while(self.lock(), Duration::from_secs(10), |state| !ready(state)).unwrap();
        assert!(!timeout.timed_out(), "never {what}");
    }
}

static READERS: Mutex<Option<HashMap<u32, Arc<Shared>>>> = Mutex::new(None);

fn shared(lun: u32) -> Arc<Shared> {
    let mut readers = READERS.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(readers.get_or_insert_default().entry(lun).or_default())
}

struct TestReader(Arc<Shared>);

impl TestReader {
    fn maybe_panic(&self) {
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
struct Open {
    lun: Dword,
    shared: Arc<Shared>,
    poll: PollingFunction,
    stop: StopFunction,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.set(|state| (state.released, state.panics) = (true, false));
        // SAFETY: the function takes a number.
        unsafe { IFDHCloseChannel(self.lun) };
    }
}

impl Open {
    fn new(lun: Dword) -> Self {
        assert_eq!(open(lun, "test:"), 0);
        let poll = function(lun, TAG_IFD_POLLING_THREAD_WITH_TIMEOUT);
        let stop = function(lun, TAG_IFD_STOP_POLLING_THREAD);
        // SAFETY: the driver wrote a pointer to a function of this type for this tag.
        let (poll, stop) = unsafe {
            (std::mem::transmute::<usize, PollingFunction>(poll), std::mem::transmute::<usize, StopFunction>(stop))
        };
        Self { lun, shared: shared(u32::try_from(lun).unwrap()), poll, stop }
    }

    fn with_card(lun: Dword) -> Self {
        let open = Self::new(lun);
        open.insert(1);
        assert_eq!(open.presence(), IFD_ICC_PRESENT);
        assert_eq!(open.power(IFD_POWER_UP).0, 0);
        open
    }

    fn insert(&self, number: u64) {
        self.shared.set(|state| state.presence = Some(number));
    }

    fn remove(&self) {
        self.shared.set(|state| state.presence = None);
    }

    fn presence(&self) -> ResponseCode {
        // SAFETY: the function takes a number.
        unsafe { IFDHICCPresence(self.lun) }
    }

    fn power(&self, action: Dword) -> (ResponseCode, Vec<u8>) {
        let mut atr = [0xEE; 33];
        // As Apple's resource manager does: the length is not set before the call.
        let mut length = 0;
        // SAFETY: 33 octets and a length.
        let code = unsafe { IFDHPowerICC(self.lun, action, atr.as_mut_ptr(), &mut length) };
        (code, atr[..usize::try_from(length).unwrap()].to_vec())
    }

    fn transmit(&self, command: &[u8]) -> (ResponseCode, Vec<u8>) {
        transmit(self.lun, command, MAX_BUFFER_SIZE_EXTENDED)
    }

    fn poll(&self, timeout_ms: c_int) -> ResponseCode {
        (self.poll)(self.lun, timeout_ms)
    }

    /// One turn of pcscd's event thread: a poll that must return at once, then a look.
    fn event(&self) -> ResponseCode {
        let start = Instant::now();
        assert_eq!(self.poll(20_000), IFD_SUCCESS);
        assert!(start.elapsed() < Duration::from_secs(10), "the polling function did not return for a change");
        self.presence()
    }
}

fn open(lun: Dword, name: &str) -> ResponseCode {
    let name = CString::new(name).unwrap();
    // SAFETY: a C string.
    unsafe { IFDHCreateChannelByName(lun, name.as_ptr()) }
}

fn transmit(lun: Dword, command: &[u8], room: usize) -> (ResponseCode, Vec<u8>) {
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

fn capability(lun: Dword, tag: Dword, room: usize) -> (ResponseCode, Vec<u8>) {
    let mut value = vec![0xEE; room];
    let mut length = Dword::try_from(room).unwrap();
    // SAFETY: the buffer has the length that is given.
    let code = unsafe { IFDHGetCapabilities(lun, tag, &mut length, value.as_mut_ptr()) };
    value.truncate(usize::try_from(length).unwrap());
    (code, value)
}

fn function(lun: Dword, tag: Dword) -> usize {
    let (code, value) = capability(lun, tag, size_of::<usize>());
    assert_eq!(code, 0);
    usize::from_ne_bytes(value.try_into().unwrap())
}

fn control(lun: Dword, code: Dword, input: &[u8], room: usize) -> (ResponseCode, Vec<u8>) {
    let mut output = vec![0xEE; room];
    let mut returned = 99;
    let (tx, tx_length) = (input.as_ptr(), Dword::try_from(input.len()).unwrap());
    let room = Dword::try_from(room).unwrap();
    // SAFETY: the buffers have the lengths that are given.
    let code = unsafe { IFDHControl(lun, code, tx, tx_length, output.as_mut_ptr(), room, &mut returned) };
    output.truncate(usize::try_from(returned).unwrap());
    (code, output)
}

#[test]
fn octet_tags_have_length_one_also_before_a_slot_is_open() {
    assert_eq!(capability(0x0100_0000, TAG_IFD_THREAD_SAFE, 1), (0, vec![1]));
    assert_eq!(capability(0x0100_0000, TAG_IFD_SLOT_THREAD_SAFE, 8), (0, vec![1]));
    assert_eq!(capability(0x0100_0000, TAG_IFD_SIMULTANEOUS_ACCESS, 1), (0, vec![77]));
    assert_eq!(capability(0x0100_0000, TAG_IFD_SLOTS_NUMBER, 1), (0, vec![1]));
    let slot = Open::new(0x0101_0000);
    assert_eq!(capability(slot.lun, TAG_IFD_SLOTS_NUMBER, 1), (0, vec![3]));
}

#[test]
fn tags_that_are_unknown_too_long_or_for_the_reader() {
    let slot = Open::new(0x0102_0000);
    assert_eq!(capability(slot.lun, 0x4242, 32), (600, vec![]));
    assert_eq!(capability(slot.lun, TAG_IFD_POLLING_THREAD_KILLABLE, 1), (600, vec![]));
    assert_eq!(capability(slot.lun, TAG_IFD_POLLING_THREAD, 8), (600, vec![]));
    assert_eq!(capability(slot.lun, 0x0001_0100, 32), (0, b"Test".to_vec()));
    assert_eq!(capability(slot.lun, 0x0001_0100, 3), (618, vec![]));
    assert_eq!(capability(slot.lun, TAG_IFD_POLLING_THREAD_WITH_TIMEOUT, size_of::<usize>() - 1), (618, vec![]));
    assert_eq!(capability(slot.lun, TAG_IFD_ATR, 33), (616, vec![]));
    slot.insert(1);
    slot.presence();
    assert_eq!(slot.power(IFD_POWER_UP).0, 0);
    assert_eq!(capability(slot.lun, TAG_IFD_ATR, 33), (0, vec![0x3B, 0x80, 0x01, 0x81, 0]));
    assert_eq!(capability(slot.lun, SCARD_ATTR_ATR_STRING, 2), (618, vec![]));
    slot.insert(2);
    assert_eq!((slot.event(), slot.event()), (IFD_ICC_NOT_PRESENT, IFD_ICC_PRESENT));
    assert_eq!(capability(slot.lun, TAG_IFD_ATR, 33), (616, vec![]), "not the one of the card before");
    // SAFETY: three octets.
    unsafe {
        assert_eq!(IFDHSetCapabilities(slot.lun, 7, 3, b"abc".as_ptr().cast_mut()), 0);
        assert_eq!(IFDHSetCapabilities(slot.lun, 8, 3, b"abc".as_ptr().cast_mut()), 602);
        assert_eq!(IFDHSetCapabilities(slot.lun, TAG_IFD_DEVICE_REMOVED, 1, [1].as_mut_ptr()), 0);
    }
    assert!(slot.shared.lock().removed);
}

#[test]
fn power_gives_the_answer_to_reset_and_ignores_the_incoming_length() {
    let slot = Open::with_card(0x0103_0000);
    assert_eq!(slot.power(IFD_POWER_UP), (0, vec![0x3B, 0x80, 0x01, 0x81, 0]));
    assert_eq!(slot.power(IFD_RESET), (0, vec![0x3B, 0x80, 0x01, 0x81, 1]));
    assert_eq!(slot.power(IFD_POWER_DOWN), (0, vec![]));
    assert_eq!(slot.power(499), (614, vec![]));
    // SAFETY: null pointers are allowed: pcscd powers down with dummies.
    unsafe {
        assert_eq!(IFDHPowerICC(slot.lun, IFD_POWER_DOWN, null_mut(), null_mut()), 0);
        assert_eq!(IFDHPowerICC(slot.lun, IFD_POWER_UP, null_mut(), null_mut()), 0);
    }
    assert_eq!(slot.shared.lock().powers_down, 2);
}

#[test]
fn transmit_needs_power() {
    let slot = Open::new(0x0104_0000);
    assert_eq!(slot.transmit(b"x"), (616, vec![]));
    slot.insert(1);
    assert_eq!(slot.event(), IFD_ICC_PRESENT);
    assert_eq!(slot.transmit(b"x"), (612, vec![]), "no power: an error, but no removal");
    assert_eq!(slot.presence(), IFD_ICC_PRESENT);
    assert_eq!(slot.power(IFD_POWER_UP).0, 0);
    assert_eq!(slot.transmit(b"x"), (0, b"x\x90\x00".to_vec()));
    assert_eq!(slot.power(IFD_POWER_DOWN).0, 0);
    assert_eq!(slot.transmit(b"x"), (612, vec![]));
}

#[test]
fn the_received_length_is_zero_on_every_error() {
    let slot = Open::with_card(0x0105_0000);
    assert_eq!(slot.transmit(&TIMED_OUT), (613, vec![]));
    assert_eq!(slot.transmit(&PANIC), (612, vec![]));
    assert_eq!(transmit(slot.lun, b"0123456789", 11), (612 + 6, vec![]));
    assert_eq!(transmit(slot.lun, b"0123456789", 5), (618, vec![]));
    assert_eq!(transmit(slot.lun, b"0123456789", 0), (618, vec![]));
    assert_eq!(transmit(slot.lun, b"0123456789", 12), (0, b"0123456789\x90\x00".to_vec()));
    assert_eq!(slot.transmit(&ABSENT), (616, vec![]));
    assert_eq!(transmit(0x7777_0000, b"x", 10), (612, vec![]));
    assert_eq!(control(slot.lun, 2, b"abc", 10), (616, vec![]));
    assert_eq!(control(slot.lun, 3, b"abc", 10), (614, vec![]));
    assert_eq!(control(slot.lun, 1, b"abc", 2), (618, vec![]));
    assert_eq!(control(slot.lun, 1, b"abc", 3), (0, b"abc".to_vec()));
    assert_eq!(control(0x7777_0000, 1, b"abc", 3), (612, vec![]));
}

#[test]
fn null_pointers_and_absurd_lengths_are_errors() {
    let slot = Open::with_card(0x0106_0000);
    let header = ScardIoHeader::default();
    let mut octets = [0xEE; 16];
    let mut length: Dword = 16;
    // SAFETY: every pointer is null or has the length that is given, except where the length is absurd and must be
    // refused before the pointer is used.
    unsafe {
        assert_eq!(IFDHCreateChannelByName(0x0107_0000, null()), 612);
        assert_eq!(IFDHGetCapabilities(slot.lun, TAG_IFD_THREAD_SAFE, null_mut(), octets.as_mut_ptr()), 612);
        assert_eq!(IFDHGetCapabilities(slot.lun, TAG_IFD_THREAD_SAFE, &mut length, null_mut()), 612);
        assert_eq!(IFDHSetCapabilities(slot.lun, 7, 3, null_mut()), 612);
        let tx = octets.as_ptr();
        assert_eq!(IFDHTransmitToICC(slot.lun, header, tx, 1, octets.as_mut_ptr().add(8), null_mut(), null_mut()), 612);
        assert_eq!(IFDHTransmitToICC(slot.lun, header, null(), 1, octets.as_mut_ptr(), &mut length, null_mut()), 612);
        assert_eq!(length, 0);
        length = 16;
        assert_eq!(IFDHTransmitToICC(slot.lun, header, b"x".as_ptr(), 1, null_mut(), &mut length, null_mut()), 612);
        assert_eq!(length, 0);
        length = 16;
        assert_eq!(
            IFDHTransmitToICC(
                slot.lun,
                header,
                b"x".as_ptr(),
                Dword::MAX,
                octets.as_mut_ptr(),
                &mut length,
                null_mut()
            ),
            612
        );
        assert_eq!(length, 0);
        length = Dword::MAX;
        assert_eq!(
            IFDHTransmitToICC(slot.lun, header, b"x".as_ptr(), 1, octets.as_mut_ptr(), &mut length, null_mut()),
            612
        );
        assert_eq!(length, 0);
        length = 16;
        assert_eq!(IFDHTransmitToICC(slot.lun, header, null(), 0, octets.as_mut_ptr(), &mut length, null_mut()), 0);
        assert_eq!((length, &octets[..2]), (2, &[0x90, 0x00][..]));
        assert_eq!(IFDHControl(slot.lun, 1, b"ab".as_ptr(), 2, octets.as_mut_ptr(), 16, null_mut()), 0);
        assert_eq!(IFDHControl(slot.lun, 1, null(), 2, octets.as_mut_ptr(), 16, &mut length), 612);
        assert_eq!(length, 0);
        assert_eq!(IFDHControl(slot.lun, 1, null(), 0, null_mut(), 0, &mut length), 0);
    }
}

#[test]
fn a_panic_never_crosses_into_c_and_breaks_nothing() {
    let slot = Open::with_card(0x0108_0000);
    slot.shared.set(|state| state.panics = true);
    assert_eq!(slot.presence(), IFD_ICC_NOT_PRESENT, "never anything but present or absent");
    assert_eq!(capability(slot.lun, TAG_IFD_SLOTS_NUMBER, 1), (612, vec![]));
    assert_eq!(capability(slot.lun, 0x0001_0100, 9), (612, vec![]));
    assert_eq!(slot.power(IFD_POWER_DOWN), (612, vec![]));
    assert_eq!(control(slot.lun, 1, b"a", 1), (612, vec![]));
    assert_eq!(slot.poll(0), 0, "the card looks absent: a change");
    // SAFETY: the function takes numbers; three octets.
    unsafe {
        assert_eq!(IFDHSetProtocolParameters(slot.lun, 2, 0, 0, 0, 0), 612);
        assert_eq!(IFDHSetCapabilities(slot.lun, 7, 3, b"abc".as_ptr().cast_mut()), 612);
    }
    slot.shared.set(|state| state.panics = false);
    assert_eq!(slot.event(), IFD_ICC_PRESENT);
    slot.shared.set(|state| state.panics = true);
    assert_eq!(slot.power(IFD_POWER_UP), (612, vec![]));
    slot.shared.set(|state| state.panics = false);
    assert_eq!(slot.presence(), IFD_ICC_NOT_PRESENT, "a power-up that failed is a removal");
    assert_eq!(slot.event(), IFD_ICC_NOT_PRESENT);
    assert_eq!(slot.event(), IFD_ICC_PRESENT);
    assert_eq!(slot.power(IFD_POWER_UP).0, 0);
    assert_eq!(slot.transmit(b"x"), (0, b"x\x90\x00".to_vec()));
    assert_eq!(open(0x0109_0000, "panic"), 612);
    assert_eq!(open(0x0109_0000, "test:"), 0, "the failed open left nothing behind");
    shared(0x0109_0000).set(|state| state.panics = true);
    // SAFETY: the function takes a number.
    assert_eq!(unsafe { IFDHCloseChannel(0x0109_0000) }, 613);
    // SAFETY: the function takes a number.
    assert_eq!(unsafe { IFDHICCPresence(0x0109_0000) }, 612, "closed all the same");
}

#[test]
fn protocols() {
    let slot = Open::new(0x010A_0000);
    // SAFETY: the function takes numbers.
    unsafe {
        assert_eq!(IFDHSetProtocolParameters(slot.lun, 2, 0, 0, 0, 0), 0);
        assert_eq!(slot.shared.lock().protocol, Some(Protocol::T1));
        assert_eq!(IFDHSetProtocolParameters(slot.lun, 1, 0, 0, 0, 0), 0);
        assert_eq!(slot.shared.lock().protocol, Some(Protocol::T0));
        assert_eq!(IFDHSetProtocolParameters(slot.lun, 4, 0, 0, 0, 0), 607);
    }
}

#[test]
fn slots_are_opened_once_and_closed_once() {
    assert_eq!(open(0x010B_0000, "broken"), 612);
    assert_eq!(open(0x010B_0000, "test:"), 0);
    assert_eq!(open(0x010B_0000, "test:"), 612);
    // SAFETY: the functions take numbers.
    unsafe {
        assert_eq!(IFDHCloseChannel(0x010B_0000), 0);
        assert_eq!(IFDHCloseChannel(0x010B_0000), 612);
        assert_eq!(IFDHICCPresence(0x010B_0000), 612);
        assert_eq!(IFDHCreateChannel(0x010B_0000, 5), 0);
        assert_eq!(IFDHCloseChannel(0x010B_0000), 0);
    }
}

#[test]
fn close_beside_a_blocked_transmit_brings_it_back() {
    let slot = Open::with_card(0x010C_0000);
    thread::scope(|scope| {
        let blocked = scope.spawn(|| slot.transmit(&BLOCK));
        slot.shared.await_state("blocked", |state| state.blocked == 1);
        // SAFETY: the function takes a number.
        assert_eq!(unsafe { IFDHCloseChannel(slot.lun) }, 0, "drained within the limit");
        assert!(blocked.is_finished() || blocked.join().unwrap() == (616, vec![]));
    });
}

#[test]
fn close_beside_a_deaf_transmit_gives_up_after_its_limit() {
    let slot = Open::with_card(0x010D_0000);
    thread::scope(|scope| {
        let blocked = scope.spawn(|| slot.transmit(&BLOCK_DEAF));
        slot.shared.await_state("blocked", |state| state.blocked == 1);
        let start = Instant::now();
        // SAFETY: the function takes a number.
        assert_eq!(unsafe { IFDHCloseChannel(slot.lun) }, 613);
        let elapsed = start.elapsed();
        assert!(elapsed >= TestReader::CLOSE_LIMIT && elapsed < Duration::from_secs(5), "{elapsed:?}");
        slot.shared.set(|state| state.released = true);
        assert_eq!(blocked.join().unwrap(), (616, vec![]), "the reader outlives its slot while a call needs it");
    });
}

#[test]
fn close_wakes_the_polling_function() {
    let slot = Open::with_card(0x010E_0000);
    thread::scope(|scope| {
        let calls = slot.shared.lock().presence_calls;
        let polling = scope.spawn(|| slot.poll(600_000));
        slot.shared.await_state("polling", |state| state.presence_calls > calls);
        // SAFETY: the function takes a number.
        assert_eq!(unsafe { IFDHCloseChannel(slot.lun) }, 0);
        assert_eq!(polling.join().unwrap(), 0);
    });
}

#[test]
fn one_blocked_slot_does_not_delay_another() {
    let (first, second) = (Open::with_card(0x010F_0000), Open::with_card(0x010F_0001));
    thread::scope(|scope| {
        let blocked = scope.spawn(|| first.transmit(&BLOCK));
        first.shared.await_state("blocked", |state| state.blocked == 1);
        assert_eq!(second.transmit(b"x"), (0, b"x\x90\x00".to_vec()));
        assert_eq!(first.presence(), IFD_ICC_PRESENT);
        first.shared.set(|state| state.released = true);
        assert_eq!(blocked.join().unwrap(), (616, vec![]));
    });
}

#[test]
fn a_stop_before_the_poll_is_not_lost_and_stops_once() {
    let slot = Open::with_card(0x0110_0000);
    assert_eq!((slot.stop)(slot.lun), 0);
    let start = Instant::now();
    assert_eq!(slot.poll(600_000), 0);
    assert!(start.elapsed() < Duration::from_secs(10));
    let start = Instant::now();
    assert_eq!(slot.poll(150), 0);
    assert!(start.elapsed() >= Duration::from_millis(150), "a stop must not be sticky: pcscd would spin");
}

#[test]
fn a_wait_after_many_stops_does_not_spin() {
    let slot = Open::with_card(0x0111_0000);
    for _ in 0..1000 {
        (slot.stop)(slot.lun);
    }
    assert_eq!(slot.poll(600_000), 0);
    let calls = slot.shared.lock().presence_calls;
    let start = Instant::now();
    assert_eq!(slot.poll(200), 0);
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert!(slot.shared.lock().presence_calls - calls <= 4, "the wait spins");
}

#[test]
fn notifications_without_news_do_not_end_the_poll() {
    let slot = Open::with_card(0x0112_0000);
    thread::scope(|scope| {
        let polling = scope.spawn(|| slot.poll(600_000));
        for _ in 0..20 {
            let calls = slot.shared.lock().presence_calls;
            slot.shared.set(|_| {});
            slot.shared.await_state("asked again", |state| state.presence_calls > calls);
            assert!(!polling.is_finished(), "an early return would power an unused card off");
        }
        slot.remove();
        assert_eq!(polling.join().unwrap(), 0);
        assert_eq!(slot.presence(), IFD_ICC_NOT_PRESENT);
    });
}

#[test]
fn a_card_that_a_command_found_gone_is_reported_gone() {
    let slot = Open::with_card(0x0113_0000);
    assert_eq!(slot.transmit(&ABSENT), (616, vec![]));
    // The reader says that the card is there, but pcscd must see it leave.
    assert_eq!(slot.presence(), IFD_ICC_NOT_PRESENT);
    assert_eq!(slot.presence(), IFD_ICC_NOT_PRESENT, "another thread took the first answer");
    assert_eq!(slot.transmit(b"x"), (616, vec![]));
    assert_eq!(slot.power(IFD_POWER_UP), (616, vec![]));
    assert_eq!(slot.event(), IFD_ICC_NOT_PRESENT);
    assert_eq!(slot.event(), IFD_ICC_PRESENT);
    assert_eq!(slot.transmit(b"x"), (612, vec![]));
    assert_eq!(slot.power(IFD_POWER_UP).0, 0);
    assert_eq!(slot.transmit(b"x").0, 0);
    let start = Instant::now();
    assert_eq!(slot.poll(100), 0);
    assert!(start.elapsed() >= Duration::from_millis(100), "nothing is left to tell");
}

#[test]
fn a_card_that_came_back_between_two_looks_is_a_new_card() {
    let slot = Open::with_card(0x0114_0000);
    slot.remove();
    slot.insert(2);
    assert_eq!(slot.transmit(b"x"), (616, vec![]), "the reader refuses a command for the old card");
    assert_eq!(slot.event(), IFD_ICC_NOT_PRESENT);
    assert_eq!(slot.event(), IFD_ICC_PRESENT);
    assert_eq!(slot.transmit(b"x"), (612, vec![]));
    slot.insert(3);
    assert_eq!(slot.event(), IFD_ICC_NOT_PRESENT);
    assert_eq!(slot.event(), IFD_ICC_PRESENT);
    assert_eq!(slot.power(IFD_POWER_UP).0, 0);
    assert_eq!(slot.transmit(b"x").0, 0);
}

#[test]
fn a_failed_power_up_is_a_removal() {
    let slot = Open::new(0x0115_0000);
    slot.insert(1);
    assert_eq!(slot.event(), IFD_ICC_PRESENT);
    slot.shared.set(|state| state.power_fails = true);
    assert_eq!(slot.power(IFD_POWER_UP), (616, vec![]));
    slot.shared.set(|state| state.power_fails = false);
    assert_eq!(slot.event(), IFD_ICC_NOT_PRESENT);
    assert_eq!(slot.event(), IFD_ICC_PRESENT);
    assert_eq!(slot.power(IFD_POWER_UP).0, 0);
}

#[test]
fn a_card_is_not_announced_while_a_client_may_still_write_its_absence() {
    let slot = Open::with_card(0x011A_0000);
    thread::scope(|scope| {
        let (polled, told) = (&slot, std::sync::mpsc::channel());
        let event_thread = scope.spawn(move || {
            polled.poll(1);
            told.0.send(()).unwrap();
            while polled.event() != IFD_ICC_PRESENT {}
            Instant::now()
        });
        told.1.recv().unwrap();
        // This thread is a client's, since another one polls.
        let lost = Instant::now();
        assert_eq!(slot.transmit(&ABSENT), (616, vec![]));
        let held = event_thread.join().unwrap().saturating_duration_since(lost);
        assert!(held >= Duration::from_millis(100), "announced after {held:?}");
    });
    assert_eq!(slot.power(IFD_POWER_UP).0, 0);
}

#[test]
fn a_card_that_never_powers_up_does_not_make_pcscd_spin() {
    let slot = Open::new(0x0118_0000);
    slot.insert(1);
    slot.shared.set(|state| state.power_fails = true);
    let start = Instant::now();
    let mut power_ups = 0;
    while start.elapsed() < Duration::from_secs(1) {
        // pcscd's event thread: look, power up what is there, wait for the next change.
        if slot.presence() == IFD_ICC_PRESENT {
            assert_eq!(slot.power(IFD_POWER_UP).0, 616);
            power_ups += 1;
        }
        assert_eq!(slot.poll(100), 0);
    }
    assert!((1..=3).contains(&power_ups), "{power_ups} attempts in a second");
    // Another card is not made to wait for it.
    slot.shared.set(|state| (state.presence, state.power_fails) = (Some(2), false));
    while slot.presence() != IFD_ICC_PRESENT {
        assert!(start.elapsed() < Duration::from_secs(10));
        assert_eq!(slot.poll(100), 0);
    }
    assert_eq!(slot.power(IFD_POWER_UP).0, 0);
}

#[test]
fn polling_a_closed_slot_is_an_error_so_that_pcscd_pauses() {
    let (poll, stop) = {
        let slot = Open::new(0x0116_0000);
        (slot.poll, slot.stop)
    };
    assert_eq!(poll(0x0116_0000, 1000), 612);
    assert_eq!(stop(0x0116_0000), 612);
}

/// Runs in a process of its own, because the limit holds for all of its threads.
#[cfg(target_os = "linux")]
#[test]
fn a_wait_that_the_kernel_refuses_is_an_error_so_that_pcscd_pauses() {
    const CHILD: &str = "IFD_HANDLER_TEST_CHILD";
    const RLIMIT_NOFILE: c_int = 7;
    unsafe extern "C" {
        fn getrlimit(resource: c_int, limits: *mut [std::ffi::c_ulong; 2]) -> c_int;
        fn setrlimit(resource: c_int, limits: *const [std::ffi::c_ulong; 2]) -> c_int;
    }
    if std::env::var_os(CHILD).is_none() {
        let test = thread::current().name().unwrap().to_owned();
        let program = std::env::current_exe().unwrap();
        let output = std::process::Command::new(program).args(["--exact", &test]).env(CHILD, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
        return;
    }
    let slot = Open::with_card(0x0119_0000);
    let mut limits = [0; 2];
    // SAFETY: both functions get a `struct rlimit`, which is two `unsigned long`.
    unsafe {
        assert_eq!(getrlimit(RLIMIT_NOFILE, &mut limits), 0);
        // `poll` refuses more descriptors than the process may have.
        assert_eq!(setrlimit(RLIMIT_NOFILE, &[1, limits[1]]), 0);
    }
    let start = Instant::now();
    let code = slot.poll(600_000);
    // SAFETY: as above.
    unsafe { assert_eq!(setrlimit(RLIMIT_NOFILE, &limits), 0) };
    assert_eq!(code, 612);
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(slot.poll(1), 0, "and it works again");
}

#[test]
fn arrival_reaches_the_poll_within_milliseconds() {
    let slot = Open::new(0x0117_0000);
    assert_eq!(slot.presence(), IFD_ICC_NOT_PRESENT);
    for number in 1..=20 {
        thread::scope(|scope| {
            let polling = scope.spawn(|| {
                slot.poll(600_000);
                Instant::now()
            });
            let start = Instant::now();
            if number % 2 == 1 {
                slot.insert(number)
            } else {
                slot.remove()
            }
            let delay = polling.join().unwrap().saturating_duration_since(start);
            assert!(delay < Duration::from_secs(2), "{delay:?}");
        });
        assert_eq!(slot.presence(), if number % 2 == 1 { IFD_ICC_PRESENT } else { IFD_ICC_NOT_PRESENT });
    }
}
