//! The C types, tags and codes of the IFD handler API, version 3, as `ifdhandler.h`, `wintypes.h` and `reader.h` define them.
//!
//! A driver written with [`crate::Reader`] needs none of these; they are public for tests and for those who want the ABI
//! alone. Every constant, size and offset is compared with the installed C header by `tests/c_header.rs`.
//!
//! Two ABIs exist: pcsc-lite (`DWORD` is `unsigned long`, 64 bits on an LP64 machine) and Apple's SmartCardServices
//! (`DWORD` is `uint32_t`). Mixing them up is the classic mistake of a driver that worked on the other system.

use std::ffi::c_int;

/// `DWORD` of pcsc-lite: `unsigned long`.
#[cfg(not(target_vendor = "apple"))]
pub type Dword = std::ffi::c_ulong;
/// `DWORD` of Apple's SmartCardServices: `uint32_t`.
#[cfg(target_vendor = "apple")]
pub type Dword = u32;

/// `RESPONSECODE` of pcsc-lite: `long`.
#[cfg(not(target_vendor = "apple"))]
pub type ResponseCode = std::ffi::c_long;
/// `RESPONSECODE` of Apple's SmartCardServices: `int32_t`.
#[cfg(target_vendor = "apple")]
pub type ResponseCode = i32;

/// `UCHAR`.
pub type Uchar = u8;

/// `SCARD_IO_HEADER`; [`crate::abi::transmit_to_icc`] takes it **by value**.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScardIoHeader {
    /// The protocol: 0 for T=0, 1 for T=1 (not the bit mask that PC/SC applications use).
    pub protocol: Dword,
    /// The length of the header.
    pub length: Dword,
}

// What `tests/c_header.rs` cannot see of the other ABI, every build checks: the header is two `DWORD` without padding.
const _: () = assert!(size_of::<ScardIoHeader>() == 2 * size_of::<Dword>());
const _: () = assert!(align_of::<ScardIoHeader>() == align_of::<Dword>());
const _: () = assert!(size_of::<Dword>() == if cfg!(target_vendor = "apple") { 4 } else { size_of::<usize>() });
const _: () = assert!(size_of::<ResponseCode>() == size_of::<Dword>());

/// The function behind [`TAG_IFD_POLLING_THREAD_WITH_TIMEOUT`]: Lun and time-out in milliseconds.
pub type PollingFunction = extern "C" fn(Dword, c_int) -> ResponseCode;
/// The function behind [`TAG_IFD_STOP_POLLING_THREAD`].
pub type StopFunction = extern "C" fn(Dword) -> ResponseCode;

/// The longest answer to reset, in octets.
pub const MAX_ATR_SIZE: usize = 33;
/// The size of the buffers pcscd uses: an extended APDU with 65,536 octets of data.
pub const MAX_BUFFER_SIZE_EXTENDED: usize = 4 + 3 + (1 << 16) + 3 + 2;

/// The answer to reset of the card.
pub const TAG_IFD_ATR: Dword = 0x0303;
/// Selects a slot; only version 1 of the API used it.
pub const TAG_IFD_SLOTNUM: Dword = 0x0180;
/// One octet: different slots of one reader may be used at the same time.
pub const TAG_IFD_SLOT_THREAD_SAFE: Dword = 0x0FAC;
/// One octet: different readers of this driver may be used at the same time.
pub const TAG_IFD_THREAD_SAFE: Dword = 0x0FAD;
/// One octet: the number of slots of the reader.
pub const TAG_IFD_SLOTS_NUMBER: Dword = 0x0FAE;
/// One octet: how many readers the driver can manage at the same time.
pub const TAG_IFD_SIMULTANEOUS_ACCESS: Dword = 0x0FAF;
/// Unused by current versions of pcsc-lite.
pub const TAG_IFD_POLLING_THREAD: Dword = 0x0FB0;
/// One octet: the polling thread may be killed by `pthread_cancel`. Never true of Rust code.
pub const TAG_IFD_POLLING_THREAD_KILLABLE: Dword = 0x0FB1;
/// A function pointer: wakes the polling function.
pub const TAG_IFD_STOP_POLLING_THREAD: Dword = 0x0FB2;
/// A function pointer: waits for a card to come or go.
pub const TAG_IFD_POLLING_THREAD_WITH_TIMEOUT: Dword = 0x0FB3;
/// Set by pcscd: the reader itself has been unplugged.
pub const TAG_IFD_DEVICE_REMOVED: Dword = 0x0FB4;

/// `SCARD_ATTR_ATR_STRING`, asked by PC/SC applications; the same value as [`TAG_IFD_ATR`].
pub const SCARD_ATTR_ATR_STRING: Dword = 0x0009_0303;

/// Power the card up.
pub const IFD_POWER_UP: Dword = 500;
/// Power the card down.
pub const IFD_POWER_DOWN: Dword = 501;
/// Reset the card without taking its power (a warm reset).
pub const IFD_RESET: Dword = 502;

/// Negotiate PTS1.
pub const IFD_NEGOTIATE_PTS1: Uchar = 1;
/// Negotiate PTS2.
pub const IFD_NEGOTIATE_PTS2: Uchar = 2;
/// Negotiate PTS3.
pub const IFD_NEGOTIATE_PTS3: Uchar = 4;

/// No error.
pub const IFD_SUCCESS: ResponseCode = 0;
/// Unknown tag; pcscd then answers some attributes (the reader's names) itself.
pub const IFD_ERROR_TAG: ResponseCode = 600;
/// The value could not be set.
pub const IFD_ERROR_SET_FAILURE: ResponseCode = 601;
/// The value is read-only.
pub const IFD_ERROR_VALUE_READ_ONLY: ResponseCode = 602;
/// PTS failed.
pub const IFD_ERROR_PTS_FAILURE: ResponseCode = 605;
/// Not supported.
pub const IFD_ERROR_NOT_SUPPORTED: ResponseCode = 606;
/// The protocol is not supported.
pub const IFD_PROTOCOL_NOT_SUPPORTED: ResponseCode = 607;
/// The power action failed.
pub const IFD_ERROR_POWER_ACTION: ResponseCode = 608;
/// The card could not be swallowed.
pub const IFD_ERROR_SWALLOW: ResponseCode = 609;
/// The card could not be ejected.
pub const IFD_ERROR_EJECT: ResponseCode = 610;
/// The card could not be confiscated.
pub const IFD_ERROR_CONFISCATE: ResponseCode = 611;
/// A communication error.
pub const IFD_COMMUNICATION_ERROR: ResponseCode = 612;
/// The card did not answer in time.
pub const IFD_RESPONSE_TIMEOUT: ResponseCode = 613;
/// The request is not supported.
pub const IFD_NOT_SUPPORTED: ResponseCode = 614;
/// A card is present.
pub const IFD_ICC_PRESENT: ResponseCode = 615;
/// No card is present.
pub const IFD_ICC_NOT_PRESENT: ResponseCode = 616;
/// The reader has been unplugged. **A trap** for every driver that is not a USB driver: see [`crate::Error`].
pub const IFD_NO_SUCH_DEVICE: ResponseCode = 617;
/// The buffer is too small.
pub const IFD_ERROR_INSUFFICIENT_BUFFER: ResponseCode = 618;
