//! The table of open slots, and the calls that are under way in each.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::presence::{Announcer, Asker};
use crate::reader::{Atr, Insertion, Reader};
use crate::types::Dword;
use crate::wait::Latch;

/// The open slots of a driver. [`crate::export_ifd_handler!`] makes the one there is.
pub struct Table<R> {
    slots: Mutex<Vec<(Dword, Arc<Slot<R>>)>>,
}

impl<R> std::fmt::Debug for Table<R> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Table").field("slots", &locked(&self.slots).len()).finish()
    }
}

impl<R> Default for Table<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R> Table<R> {
    /// An empty table.
    #[must_use]
    pub const fn new() -> Self {
        Self { slots: Mutex::new(Vec::new()) }
    }
}

impl<R: Reader> Table<R> {
    /// Whether the slot is open.
    pub(crate) fn contains(&self, lun: Dword) -> bool {
        locked(&self.slots).iter().any(|(open, _)| *open == lun)
    }

    /// Adds a slot. `false` if it is open already.
    pub(crate) fn insert(&self, lun: Dword, slot: Slot<R>) -> bool {
        let mut slots = locked(&self.slots);
        if slots.iter().any(|(open, _)| *open == lun) {
            return false;
        }
        slots.push((lun, Arc::new(slot)));
        true
    }

    /// Begins a call. The lock is held for the look-up alone, never during the call.
    pub(crate) fn enter(&self, lun: Dword) -> Option<Call<R>> {
        let slots = locked(&self.slots);
        let (_, slot) = slots.iter().find(|(open, _)| *open == lun)?;
        // Counted under the table's lock: once a slot is out of the table, its count can only fall.
        *locked(&slot.calls) += 1;
        Some(Call(Arc::clone(slot)))
    }

    /// Takes a slot out: no new call finds it.
    pub(crate) fn remove(&self, lun: Dword) -> Option<Arc<Slot<R>>> {
        let mut slots = locked(&self.slots);
        let index = slots.iter().position(|(open, _)| *open == lun)?;
        Some(slots.swap_remove(index).1)
    }
}

/// An open slot.
pub(crate) struct Slot<R> {
    pub(crate) reader: R,
    pub(crate) latch: Arc<Latch>,
    announcer: Mutex<Announcer>,
    atr: Mutex<Option<(Insertion, Atr)>>,
    /// [`thread_mark`] of the thread that calls the polling function; 0 before.
    event_thread: AtomicUsize,
    calls: Mutex<u32>,
    idle: Condvar,
}

impl<R> Slot<R> {
    pub(crate) fn new(reader: R, latch: Arc<Latch>) -> Self {
        Self {
            reader,
            latch,
            announcer: Mutex::new(Announcer::new()),
            atr: Mutex::new(None),
            event_thread: AtomicUsize::new(0),
            calls: Mutex::new(0),
            idle: Condvar::new(),
        }
    }

    /// What the resource manager was told. Held briefly, never while the reader works.
    pub(crate) fn announcer(&self) -> MutexGuard<'_, Announcer> {
        locked(&self.announcer)
    }

    /// A power-up or reset of `card` worked.
    pub(crate) fn powered_up(&self, card: Insertion, atr: Atr) {
        *locked(&self.atr) = Some((card, atr));
        self.announcer().powered_up(card);
    }

    /// The answer to reset of the card that is shown, if it was ever powered up.
    pub(crate) fn atr(&self) -> Option<Atr> {
        let card = self.announcer().card()?;
        locked(&self.atr).filter(|(of, _)| *of == card).map(|(_, atr)| atr)
    }

    /// The calling thread is the event thread.
    pub(crate) fn note_event_thread(&self) {
        self.event_thread.store(thread_mark(), Ordering::Relaxed);
    }

    /// Who the calling thread is.
    pub(crate) fn asker(&self) -> Asker {
        match self.event_thread.load(Ordering::Relaxed) {
            0 => Asker::EventThread,
            mark if mark == thread_mark() => Asker::EventThread,
            _ => Asker::Client,
        }
    }

    /// The resource manager is about to hear from a call that is no presence check that there is no card: remembers it
    /// and has the event thread look.
    pub(crate) fn card_lost(&self) {
        let now = Instant::now();
        let wake = {
            let mut announcer = self.announcer();
            announcer.absence_told(self.asker(), now);
            announcer.lost(now)
        };
        if wake {
            self.latch.wake();
        }
    }

    /// A power-up failed: a removal as well, and nobody tries again at once.
    pub(crate) fn power_failed(&self, card: Insertion) {
        self.announcer().power_failed(card, Instant::now());
        self.card_lost();
    }

    /// Waits until no call is under way. `false` if the limit passed first.
    pub(crate) fn drain(&self, limit: Duration) -> bool {
        let deadline = Instant::now().checked_add(limit);
        let mut calls = locked(&self.calls);
        while *calls > 0 {
            let left = deadline.map_or(limit, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return false;
            }
            calls = self.idle.wait_timeout(calls, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// A call under way in a slot.
pub(crate) struct Call<R>(Arc<Slot<R>>);

impl<R> std::ops::Deref for Call<R> {
    type Target = Slot<R>;

    fn deref(&self) -> &Slot<R> {
        &self.0
    }
}

impl<R> Drop for Call<R> {
    fn drop(&mut self) {
        let mut calls = locked(&self.0.calls);
        *calls = calls.saturating_sub(1);
        if *calls == 0 {
            self.0.idle.notify_all();
        }
    }
}

/// A number that tells running threads apart. Not `std::thread::current`: that leaves a destructor in the thread, which
/// runs after pcscd has unloaded the library.
fn thread_mark() -> usize {
    thread_local! {
        static MARK: u8 = const { 0 };
    }
    MARK.with(|mark| std::ptr::from_ref(mark).addr())
}

/// A lock that a panic elsewhere does not take away: every value behind one is valid at each step.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
