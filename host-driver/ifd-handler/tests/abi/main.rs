//! Calls the exported C functions as pcscd does, and as it should not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;
mod waiting;

use std::ptr::{null, null_mut};

use ifd_handler::Protocol;
use ifd_handler::types::*;

use support::*;

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
