//! Waiting for a card to come or go without polling it.

use std::cell::Cell;
use std::ffi::{c_int, c_short};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The type of `poll`'s second argument.
#[cfg(target_os = "linux")]
type FdCount = std::ffi::c_ulong;
#[cfg(not(target_os = "linux"))]
type FdCount = std::ffi::c_uint;

const POLLIN: c_short = 1;

/// `struct pollfd` of POSIX.
#[repr(C)]
struct PollFd {
    fd: c_int,
    events: c_short,
    revents: c_short,
}

unsafe extern "C" {
    fn poll(fds: *mut PollFd, count: FdCount, timeout_ms: c_int) -> c_int;
}

/// A wake-up that is never lost: set before anybody waits, it ends the next wait; read once, it is gone.
#[derive(Debug)]
pub(crate) struct Latch {
    reader: UnixStream,
    writer: UnixStream,
    stop: AtomicBool,
}

impl Latch {
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        Ok(Self { reader, writer, stop: AtomicBool::new(false) })
    }

    /// Ends the present or the next wait.
    pub(crate) fn wake(&self) {
        // The only error that can occur is a full buffer, and then a wake-up is waiting in it already.
        let _ = (&self.writer).write(&[0]);
    }

    /// Asks the polling function to return once.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Whether a stop was asked since the last call; forgets it. The order matters: the octets are taken out before the
    /// flag, so that a stop between the two leaves its octet behind and at worst causes one needless turn of the loop.
    pub(crate) fn take_stop(&self) -> bool {
        let mut octets = [0; 64];
        while matches!((&self.reader).read(&mut octets), Ok(count) if count > 0) {}
        self.stop.swap(false, Ordering::SeqCst)
    }
}

/// Tells this crate, from any thread, that presence may have changed.
///
/// A reader that learns of its card in a thread of its own keeps the one it gets in [`crate::Reader::open`] and calls
/// [`Notifier::notify`]. The polling function then asks [`crate::Reader::presence`]; if nothing changed, it goes on
/// waiting.
#[derive(Debug, Clone)]
pub struct Notifier(pub(crate) Arc<Latch>);

impl Notifier {
    /// Has [`crate::Reader::presence`] asked again. Never blocks; several calls may become one.
    pub fn notify(&self) {
        self.0.wake();
    }
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// The reader's own file descriptor is readable, or was closed at the other end, or is invalid.
    Ready,
    /// The limit that the reader gave has passed.
    LimitReached,
    /// The wait is over: return to the caller. (A stop, a notification, the resource manager's own time limit, or
    /// a kernel that would not wait.)
    Over,
}

/// What a reader waits with in [`crate::Reader::wait_for_change`].
#[derive(Debug)]
pub struct Waiter<'a> {
    latch: &'a Latch,
    deadline: Instant,
    failed: Cell<bool>,
}

impl<'a> Waiter<'a> {
    pub(crate) fn new(latch: &'a Latch, deadline: Instant) -> Self {
        Self { latch, deadline, failed: Cell::new(false) }
    }

    /// When the wait is over in any case.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether a wait ended because the kernel would not wait.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// Blocks until `source` is readable, `limit` has passed, or the wait is over.
    ///
    /// - `source`: the reader's own file descriptor, if it has one.
    /// - `limit`: for a reader that has something to do from time to time, such as to try to connect again.
    ///
    /// The wait costs no CPU. A `source` that stays readable makes every wait return at once, so read it empty.
    #[must_use]
    pub fn wait(&self, source: Option<BorrowedFd<'_>>, limit: Option<Duration>) -> Woken {
        let limit = limit.and_then(|limit| Instant::now().checked_add(limit));
        loop {
            let now = Instant::now();
            let until = limit.map_or(self.deadline, |limit| limit.min(self.deadline));
            let mut fds = [
                PollFd { fd: self.latch.reader.as_fd().as_raw_fd(), events: POLLIN, revents: 0 },
                // POSIX: an entry with a negative descriptor is ignored.
                PollFd { fd: source.map_or(-1, |fd| fd.as_raw_fd()), events: POLLIN, revents: 0 },
            ];
            // SAFETY: `fds` is an array of two `struct pollfd`, valid and exclusively borrowed during the call; `poll`
            // writes nothing but `revents`. The descriptors are borrowed, so they stay open.
            let ready = unsafe { poll(fds.as_mut_ptr(), 2, timeout_ms(until.saturating_duration_since(now))) };
            let [latch, own] = fds;
            match ready {
                0 if self.deadline <= Instant::now() => return Woken::Over,
                0 if limit.is_some_and(|limit| limit <= Instant::now()) => return Woken::LimitReached,
                0 => {}
                count if count > 0 && latch.revents != 0 => return Woken::Over,
                count if count > 0 && own.revents != 0 => return Woken::Ready,
                _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                // Out of memory, or below the limit of open files. pcscd pauses after a poll that failed.
                _ => {
                    self.failed.set(true);
                    return Woken::Over;
                }
            }
        }
    }
}

/// Milliseconds for `poll`, rounded up: rounded down it would spin through the last fraction.
fn timeout_ms(duration: Duration) -> c_int {
    c_int::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(c_int::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn a_wake_up_before_the_wait_is_not_lost_and_counts_once() {
        let latch = Latch::new().unwrap();
        latch.stop();
        latch.stop();
        assert_eq!(Waiter::new(&latch, soon()).wait(None, None), Woken::Over);
        assert!(latch.take_stop());
        assert!(!latch.take_stop());
        let waiter = Waiter::new(&latch, soon());
        assert_eq!(waiter.wait(None, Some(Duration::from_millis(5))), Woken::LimitReached);
    }

    #[test]
    fn a_flood_of_notifications_neither_blocks_nor_grows() {
        let notifier = Notifier(Arc::new(Latch::new().unwrap()));
        for _ in 0..500_000 {
            notifier.notify();
        }
        assert_eq!(Waiter::new(&notifier.0, soon()).wait(None, None), Woken::Over);
        assert!(!notifier.0.take_stop());
        assert_eq!(Waiter::new(&notifier.0, soon()).wait(None, Some(Duration::ZERO)), Woken::LimitReached);
    }

    #[test]
    fn the_readers_own_descriptor_ends_the_wait() {
        let latch = Latch::new().unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        let waiter = Waiter::new(&latch, soon());
        assert_eq!(waiter.wait(Some(near.as_fd()), Some(Duration::from_millis(1))), Woken::LimitReached);
        (&far).write_all(&[1]).unwrap();
        assert_eq!(waiter.wait(Some(near.as_fd()), None), Woken::Ready);
        drop(far);
        assert_eq!(waiter.wait(Some(near.as_fd()), None), Woken::Ready);
    }

    #[test]
    fn the_deadline_ends_the_wait() {
        let latch = Latch::new().unwrap();
        let deadline = Instant::now() + Duration::from_millis(10);
        assert_eq!(Waiter::new(&latch, deadline).wait(None, None), Woken::Over);
        assert!(Instant::now() >= deadline);
    }

    #[test]
    fn time_outs_round_up() {
        assert_eq!(timeout_ms(Duration::ZERO), 0);
        assert_eq!(timeout_ms(Duration::from_micros(1)), 1);
        assert_eq!(timeout_ms(Duration::from_millis(600_000)), 600_000);
        assert_eq!(timeout_ms(Duration::MAX), c_int::MAX);
    }
}
