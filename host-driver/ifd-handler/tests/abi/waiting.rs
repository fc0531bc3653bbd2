//! What blocks, and how it ends: commands, polls, and the presence of cards.

use std::ffi::c_int;
use std::thread;
use std::time::{Duration, Instant};

use ifd_handler::Reader as _;
use ifd_handler::types::*;

use crate::support::*;

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
