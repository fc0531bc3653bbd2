//! The functions of the C API, generic over the [`Reader`]; [`crate::export_ifd_handler!`] gives them their names.
//!
//! Each takes what C hands over, checks it, enters the slot, calls the reader and translates the result. None of them
//! panics or unwinds; a panic in the reader becomes `IFD_COMMUNICATION_ERROR`.

use std::ffi::{CStr, c_char, c_int};
use std::mem::MaybeUninit;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::reader::{Atr, ControlCode, Device, Lun, PowerAction, Presence, Protocol, Reader};
use crate::response::ResponseBuffer;
use crate::slot::{Slot, Table};
use crate::types::*;
use crate::wait::{Latch, Notifier, Waiter};

/// A reader that has been exported: it has the one table of the library.
pub trait Exported: Reader {
    /// The open slots.
    fn table() -> &'static Table<Self>;
}

/// Runs `call`, catching a panic.
fn guarded(call: impl FnOnce() -> Result<(), Error>) -> ResponseCode {
    // A reader keeps its own invariants through a panic (its locks poison themselves); ours hold at every step.
    match panic::catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => IFD_SUCCESS,
        Ok(Err(error)) => error.response_code(),
        Err(payload) => {
            // The payload's own destructor may panic as well.
            std::mem::forget(payload);
            IFD_COMMUNICATION_ERROR
        }
    }
}

/// The slot must be open.
fn enter<R: Exported>(lun: Dword) -> Result<crate::slot::Call<R>, Error> {
    R::table().enter(lun).ok_or(Error::Communication)
}

fn open<R: Exported>(lun: Dword, device: Device<'_>) -> Result<(), Error> {
    if R::table().contains(lun) {
        return Err(Error::Communication);
    }
    let latch = Arc::new(Latch::new()?);
    let reader = R::open(Lun::from_raw(lun), device, Notifier(Arc::clone(&latch)))?;
    if R::table().insert(lun, Slot::new(reader, latch)) { Ok(()) } else { Err(Error::Communication) }
}

/// Memory that C lends us to read.
///
/// # Safety
/// `octets` is null or valid for reads of `length` octets during `'a`, and nobody writes to it.
unsafe fn input<'a>(octets: *const Uchar, length: Dword) -> Result<&'a [u8], Error> {
    let length = bounded(length)?;
    if length == 0 {
        return Ok(&[]);
    }
    if octets.is_null() {
        return Err(Error::Communication);
    }
    // SAFETY: not null, valid by the caller's promise, and no longer than a Rust slice may be.
    Ok(unsafe { std::slice::from_raw_parts(octets, length) })
}

/// Memory that C lends us to write.
///
/// # Safety
/// `octets` is null or valid for writes of `length` octets during `'a`, and nobody else uses it.
unsafe fn output<'a>(octets: *mut Uchar, length: Dword) -> Result<&'a mut [MaybeUninit<u8>], Error> {
    let length = bounded(length)?;
    if length == 0 {
        return Ok(&mut []);
    }
    if octets.is_null() {
        return Err(Error::Communication);
    }
    // SAFETY: not null, valid by the caller's promise, no longer than a Rust slice may be; `MaybeUninit<u8>` has the
    // layout of `u8` and need not be initialised.
    Ok(unsafe { std::slice::from_raw_parts_mut(octets.cast::<MaybeUninit<u8>>(), length) })
}

/// A length that a Rust slice may have.
#[allow(clippy::useless_conversion)] // `DWORD` is narrower than `usize` on a Mac.
fn bounded(length: Dword) -> Result<usize, Error> {
    usize::try_from(length).ok().filter(|length| isize::try_from(*length).is_ok()).ok_or(Error::Communication)
}

/// Stores a length, if C wants it.
///
/// # Safety
/// `target` is null or valid for writes.
unsafe fn store(target: *mut Dword, length: usize) {
    if !target.is_null() {
        // SAFETY: not null, valid by the caller's promise; `unaligned` asks nothing about its address.
        unsafe { target.write_unaligned(Dword::try_from(length).unwrap_or(0)) };
    }
}

/// `IFDHCreateChannelByName`. Its presence tells pcscd that this is a driver of version 3.
///
/// # Safety
/// `device_name` is null or a C string.
pub unsafe fn create_channel_by_name<R: Exported>(lun: Dword, device_name: *const c_char) -> ResponseCode {
    guarded(|| {
        if device_name.is_null() {
            return Err(Error::Communication);
        }
        // SAFETY: not null, and a C string by the caller's promise.
        open::<R>(lun, Device::Name(unsafe { CStr::from_ptr(device_name) }))
    })
}

/// `IFDHCreateChannel`, for an entry of `reader.conf` without `DEVICENAME`.
#[allow(clippy::cast_possible_truncation)] // Channel ids have 32 bits in both ABIs.
pub fn create_channel<R: Exported>(lun: Dword, channel: Dword) -> ResponseCode {
    guarded(|| open::<R>(lun, Device::Channel(channel as u32)))
}

/// `IFDHCloseChannel`. pcscd calls it even beside a `transmit` that has not come back after half a second, and then
/// unloads the library; so the slot leaves the table first, its callers are woken, and they are waited for.
pub fn close_channel<R: Exported>(lun: Dword) -> ResponseCode {
    guarded(|| {
        let slot = R::table().remove(lun).ok_or(Error::Communication)?;
        // A `close` that panics must not keep the polling function asleep.
        let closed = panic::catch_unwind(AssertUnwindSafe(|| slot.reader.close()));
        slot.latch.stop();
        let drained = slot.drain(R::CLOSE_LIMIT);
        if closed.is_err() || !drained { Err(Error::TimedOut) } else { Ok(()) }
    })
}

/// `IFDHGetCapabilities`.
///
/// # Safety
/// `length` is null or valid for reads and writes; `value` is null or valid for writes of as many octets as `*length`
/// says, or of the size of the tag's value where that is fixed.
pub unsafe fn get_capabilities<R: Exported>(
    lun: Dword,
    tag: Dword,
    length: *mut Dword,
    value: *mut Uchar,
) -> ResponseCode {
    guarded(|| {
        if length.is_null() || value.is_null() {
            return Err(Error::Communication);
        }
        // SAFETY: not null, valid by the caller's promise.
        let room = unsafe { length.read_unaligned() };
        // SAFETY: as above.
        unsafe { store(length, 0) };
        let result = match tag {
            TAG_IFD_POLLING_THREAD_WITH_TIMEOUT | TAG_IFD_STOP_POLLING_THREAD => {
                let size = size_of::<PollingFunction>();
                if bounded(room)? < size {
                    Err(Error::InsufficientBuffer)
                } else if tag == TAG_IFD_STOP_POLLING_THREAD {
                    // SAFETY: `value` has room for a function pointer, at any address.
                    unsafe { value.cast::<StopFunction>().write_unaligned(stop_polling::<R>) };
                    Ok(size)
                } else {
                    enter::<R>(lun)?.announcer().polling_starts();
                    // SAFETY: as above.
                    unsafe { value.cast::<PollingFunction>().write_unaligned(poll_presence::<R>) };
                    Ok(size)
                }
            }
            _ => {
                // SAFETY: by the caller's promise.
                let mut value = ResponseBuffer::new(unsafe { output(value, room) }?);
                attribute::<R>(lun, tag, &mut value).map(|()| value.len())
            }
        };
        // SAFETY: not null, valid by the caller's promise.
        unsafe { store(length, *result.as_ref().unwrap_or(&0)) };
        result.map(drop)
    })
}

/// The attributes that are octets.
#[allow(clippy::cast_possible_truncation)] // Tags have 32 bits in both ABIs.
fn attribute<R: Exported>(lun: Dword, tag: Dword, value: &mut ResponseBuffer<'_>) -> Result<(), Error> {
    match tag {
        // Apple's resource manager does not keep what a thread-safe driver needs; CCID says no there as well.
        TAG_IFD_THREAD_SAFE => value.write(&[u8::from(!cfg!(target_vendor = "apple"))]),
        TAG_IFD_SLOT_THREAD_SAFE => value.write(&[u8::from(!cfg!(target_vendor = "apple"))]),
        TAG_IFD_SIMULTANEOUS_ACCESS => value.write(&[R::SIMULTANEOUS_READERS]),
        // Asked before any slot is open as well.
        TAG_IFD_SLOTS_NUMBER => value.write(&[R::table().enter(lun).map_or(1, |slot| slot.reader.slots())]),
        // `pthread_cancel` in Rust code is undefined behaviour: not answered, which means no.
        TAG_IFD_POLLING_THREAD | TAG_IFD_POLLING_THREAD_KILLABLE => Err(Error::UnknownTag),
        TAG_IFD_ATR | SCARD_ATTR_ATR_STRING => value.write(enter::<R>(lun)?.atr().ok_or(Error::CardAbsent)?.as_bytes()),
        _ => enter::<R>(lun)?.reader.attribute(tag as u32, value),
    }
}

/// `IFDHSetCapabilities`.
///
/// # Safety
/// `value` is null or valid for reads of `length` octets.
#[allow(clippy::cast_possible_truncation)] // Tags have 32 bits in both ABIs.
pub unsafe fn set_capabilities<R: Exported>(
    lun: Dword,
    tag: Dword,
    length: Dword,
    value: *const Uchar,
) -> ResponseCode {
    guarded(|| {
        let slot = enter::<R>(lun)?;
        if tag == TAG_IFD_DEVICE_REMOVED {
            slot.reader.device_removed();
            return Ok(());
        }
        // SAFETY: by the caller's promise.
        slot.reader.set_attribute(tag as u32, unsafe { input(value, length) }?)
    })
}

/// `IFDHSetProtocolParameters`.
pub fn set_protocol_parameters<R: Exported>(lun: Dword, protocol: Dword) -> ResponseCode {
    guarded(|| {
        let protocol = match protocol {
            1 => Protocol::T0,
            2 => Protocol::T1,
            _ => return Err(Error::ProtocolNotSupported),
        };
        enter::<R>(lun)?.reader.set_protocol(protocol)
    })
}

/// `IFDHPowerICC`.
///
/// The incoming `*atr_length` is not read: Apple's resource manager leaves it uninitialised. When powering down, both
/// pointers may lead to dummy buffers.
///
/// # Safety
/// `atr` is null or valid for writes of 33 octets, `atr_length` is null or valid for writes.
pub unsafe fn power_icc<R: Exported>(
    lun: Dword,
    action: Dword,
    atr: *mut Uchar,
    atr_length: *mut Dword,
) -> ResponseCode {
    // SAFETY: by the caller's promise.
    unsafe { store(atr_length, 0) };
    guarded(|| {
        let slot = enter::<R>(lun)?;
        let action = match action {
            IFD_POWER_UP => PowerAction::Up,
            IFD_RESET => PowerAction::Reset,
            IFD_POWER_DOWN => {
                slot.announcer().powered_down();
                slot.reader.power_down();
                return Ok(());
            }
            _ => return Err(Error::NotSupported),
        };
        let answer = power(&slot, action)?;
        if atr.is_null() {
            return Ok(());
        }
        let octets = answer.as_bytes();
        // SAFETY: not null, room for 33 octets by the caller's promise, and an `Atr` has no more.
        unsafe { std::ptr::copy_nonoverlapping(octets.as_ptr(), atr, octets.len()) };
        // SAFETY: by the caller's promise.
        unsafe { store(atr_length, octets.len()) };
        Ok(())
    })
}

/// Powers the card up; a failure is a removal, or pcscd would not try again before it has seen one.
fn power<R: Reader>(slot: &Slot<R>, action: PowerAction) -> Result<Atr, Error> {
    let Some(card) = slot.announcer().card() else {
        slot.card_lost();
        return Err(Error::CardAbsent);
    };
    slot.announcer().powered_down();
    let answer = panic::catch_unwind(AssertUnwindSafe(|| slot.reader.power(card, action)));
    match answer {
        Ok(Ok(atr)) => {
            slot.powered_up(card, atr);
            Ok(atr)
        }
        Ok(Err(error)) => {
            slot.power_failed(card);
            Err(error)
        }
        Err(payload) => {
            slot.power_failed(card);
            panic::resume_unwind(payload)
        }
    }
}

/// `IFDHTransmitToICC`.
///
/// # Safety
/// `command` is null or valid for reads of `command_length` octets; `response_length` is null or valid for reads and
/// writes; `response` is null or valid for writes of `*response_length` octets; the two do not overlap;
/// `response_header` is null or valid for writes.
pub unsafe fn transmit_to_icc<R: Exported>(
    lun: Dword,
    header: ScardIoHeader,
    (command, command_length): (*const Uchar, Dword),
    (response, response_length): (*mut Uchar, *mut Dword),
    response_header: *mut ScardIoHeader,
) -> ResponseCode {
    if response_length.is_null() {
        return IFD_COMMUNICATION_ERROR;
    }
    // SAFETY: not null, valid by the caller's promise.
    let room = unsafe { response_length.read_unaligned() };
    // pcscd logs the buffer up to this length even after an error.
    // SAFETY: as above.
    unsafe { store(response_length, 0) };
    guarded(|| {
        let slot = enter::<R>(lun)?;
        // SAFETY: by the caller's promise.
        let command = unsafe { input(command, command_length) }?;
        // SAFETY: by the caller's promise.
        let mut buffer = ResponseBuffer::new(unsafe { output(response, room) }?);
        let (card, shown) = {
            let announcer = slot.announcer();
            (announcer.powered(), announcer.shows_card())
        };
        let result = match card {
            Some(card) => slot.reader.transmit(card, command, &mut buffer),
            // A card without power is the resource manager's mistake, not a removal.
            None if shown => Err(Error::Communication),
            None => Err(Error::CardAbsent),
        };
        if result == Err(Error::CardAbsent) {
            slot.card_lost();
        }
        result?;
        // SAFETY: not null, valid by the caller's promise.
        unsafe { store(response_length, buffer.len()) };
        if !response_header.is_null() {
            // SAFETY: not null, valid by the caller's promise.
            unsafe { response_header.write_unaligned(header) };
        }
        Ok(())
    })
}

/// `IFDHControl`.
///
/// # Safety
/// `from` is null or valid for reads of `from_length` octets; `to` is null or valid for writes of `to_length` octets; the
/// two do not overlap; `returned` is null or valid for writes.
#[allow(clippy::cast_possible_truncation)] // Control codes have 32 bits in both ABIs.
pub unsafe fn control<R: Exported>(
    lun: Dword,
    code: Dword,
    (from, from_length): (*const Uchar, Dword),
    (to, to_length): (*mut Uchar, Dword),
    returned: *mut Dword,
) -> ResponseCode {
    // SAFETY: by the caller's promise.
    unsafe { store(returned, 0) };
    guarded(|| {
        let slot = enter::<R>(lun)?;
        // SAFETY: by the caller's promise.
        let command = unsafe { input(from, from_length) }?;
        // SAFETY: by the caller's promise.
        let mut buffer = ResponseBuffer::new(unsafe { output(to, to_length) }?);
        let result = slot.reader.control(ControlCode(code as u32), command, &mut buffer);
        if result == Err(Error::CardAbsent) {
            slot.card_lost();
        }
        result?;
        // SAFETY: by the caller's promise.
        unsafe { store(returned, buffer.len()) };
        Ok(())
    })
}

/// `IFDHICCPresence`.
///
/// For an open slot it answers present or not present and nothing else: with any other code pcscd drops a reader that it
/// is just starting. A reader that panics here has no card.
pub fn icc_presence<R: Exported>(lun: Dword) -> ResponseCode {
    let mut answer = IFD_ICC_NOT_PRESENT;
    let result = guarded(|| {
        let slot = enter::<R>(lun)?;
        let actual = actual_presence(&slot);
        let (shown, wake) = slot.announcer().report(actual, slot.asker(), Instant::now());
        if wake {
            slot.latch.wake();
        }
        if shown != Presence::Absent {
            answer = IFD_ICC_PRESENT;
        }
        Ok(())
    });
    if result == IFD_SUCCESS { answer } else { result }
}

fn actual_presence<R: Reader>(slot: &Slot<R>) -> Presence {
    panic::catch_unwind(AssertUnwindSafe(|| slot.reader.presence())).unwrap_or(Presence::Absent)
}

/// The polling function: `TAG_IFD_POLLING_THREAD_WITH_TIMEOUT`.
///
/// Returns `IFD_SUCCESS` for a change of presence, a stop, or its time-out. Every other code makes pcscd pause for 400 ms;
/// that is wanted for a slot that is not open, and if the kernel would not let us wait, or pcscd would spin.
pub extern "C" fn poll_presence<R: Exported>(lun: Dword, timeout_ms: c_int) -> ResponseCode {
    guarded(|| {
        let slot = enter::<R>(lun)?;
        let timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        slot.note_event_thread();
        slot.announcer().poll_starts();
        let result = panic::catch_unwind(AssertUnwindSafe(|| wait(&slot, Instant::now() + timeout)));
        slot.announcer().poll_ends();
        result.unwrap_or(Err(Error::Communication))
    })
}

/// Waits for one of the three reasons to return. Fails if the kernel would not let it wait.
fn wait<R: Reader>(slot: &Slot<R>, deadline: Instant) -> Result<(), Error> {
    loop {
        let stopped = slot.latch.take_stop();
        let actual = actual_presence(slot);
        let now = Instant::now();
        let (returns, held) = {
            let mut announcer = slot.announcer();
            (announcer.poll_turns(actual, now), announcer.held_until(actual, now))
        };
        if returns || stopped || deadline <= now {
            return Ok(());
        }
        let waiter = Waiter::new(&slot.latch, held.map_or(deadline, |held| held.min(deadline)));
        slot.reader.wait_for_change(&waiter);
        if waiter.has_failed() {
            return Err(Error::Communication);
        }
    }
}

/// The stop function: `TAG_IFD_STOP_POLLING_THREAD`. Never blocks.
pub extern "C" fn stop_polling<R: Exported>(lun: Dword) -> ResponseCode {
    guarded(|| {
        enter::<R>(lun)?.latch.stop();
        Ok(())
    })
}
