//! A way between daemon and phone that is cut where a test wants it, and mended at once.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the daemon to the phone.
    ToPhone,
    /// From the phone to the daemon.
    ToHost,
}

/// How much of the frame at which the connection is cut still arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Nothing.
    Nothing,
    /// Half of it.
    Half,
    /// All of it.
    All,
}

/// Where a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Frames of this way are counted.
    pub way: Way,
    /// So many of them pass before, on whatever connection.
    pub after: u32,
    /// What arrives of the next one.
    pub part: Part,
}

#[derive(Debug, Default)]
struct State {
    plan: VecDeque<Cut>,
    cuts: u32,
    /// Connections are taken and then lie still.
    held: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What becomes of the next frame of a way; `None`: it passes.
    fn next(&self, way: Way) -> Option<Part> {
        let mut state = self.state();
        let cut = state.plan.front_mut().filter(|cut| cut.way == way)?;
        if cut.after > 0 {
            cut.after -= 1;
            return None;
        }
        let part = cut.part;
        state.plan.pop_front();
        state.cuts += 1;
        self.changed.notify_all();
        Some(part)
    }

    fn wait_while_held(&self) {
        let state = self.state();
        drop(self.changed.wait_while(state, |state| state.held).unwrap_or_else(PoisonError::into_inner));
    }
}

/// Stands at the address of a phone and passes on what comes, frame by frame. Ends with the process.
#[derive(Debug)]
pub struct Cutter {
    shared: Arc<Shared>,
}

impl Cutter {
    /// Takes the place of the phone that listens at `socket`. Connections that are open already go on past it.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn in_place_of(socket: &Path) -> io::Result<Self> {
        let mut phone = socket.as_os_str().to_owned();
        phone.push(".behind");
        let phone = PathBuf::from(phone);
        fs::rename(socket, &phone)?;
        let listener = UnixListener::bind(socket)?;
        let shared = Arc::new(Shared::default());
        let ours = Arc::clone(&shared);
        thread::spawn(move || {
            for host in listener.incoming().map_while(Result::ok) {
                let (shared, phone) = (Arc::clone(&ours), phone.clone());
                thread::spawn(move || {
                    shared.wait_while_held();
                    // A daemon whose connection ends at once dials again.
                    let _ = carry(&shared, host, &phone);
                });
            }
        });
        Ok(Self { shared })
    }

    /// Cuts here, one after the other.
    pub fn cut(&self, cuts: &[Cut]) {
        self.shared.state().plan.extend(cuts);
    }

    /// From now on connections are taken and lie still, until [`Self::mend`].
    pub fn hold(&self) {
        self.shared.state().held = true;
    }

    /// Connections that lie still go on.
    pub fn mend(&self) {
        self.shared.state().held = false;
        self.shared.changed.notify_all();
    }

    /// Cuts that were made so far.
    pub fn cuts(&self) -> u32 {
        self.shared.state().cuts
    }

    /// Forgets the cuts that nothing has come to.
    pub fn forget(&self) {
        self.shared.state().plan.clear();
    }

    /// Waits until so many cuts have been made in all; `false` after the limit.
    pub fn wait_cuts(&self, cuts: u32, limit: Duration) -> bool {
        let state = self.shared.state();
        let wait = self.shared.changed.wait_timeout_while(state, limit, |state| state.cuts < cuts);
        !wait.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

fn carry(shared: &Arc<Shared>, host: UnixStream, phone: &Path) -> io::Result<()> {
    let phone = UnixStream::connect(phone)?;
    let (from_host, to_host) = (host.try_clone()?, host);
    let (from_phone, to_phone) = (phone.try_clone()?, phone);
    let other = Arc::clone(shared);
    thread::spawn(move || pass(&other, Way::ToHost, from_phone, to_host));
    pass(shared, Way::ToPhone, from_host, to_phone);
    Ok(())
}

/// Passes frames until an end closes or the plan says so; then both ends find their connection closed.
fn pass(shared: &Shared, way: Way, mut from: UnixStream, mut to: UnixStream) {
    // Whatever goes wrong ends the connection, which is what the test looks at.
    while let Ok(frame) = frame(&mut from) {
        let part = shared.next(way);
        let length = match part {
            Some(Part::Nothing) => 0,
            Some(Part::Half) => frame.len() / 2,
            Some(Part::All) | None => frame.len(),
        };
        if to.write_all(frame.get(..length).unwrap_or_default()).is_err() || part.is_some() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// One frame with its length. Spec: SPEC.md section 5
fn frame(from: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    from.read_exact(&mut frame)?;
    let length = frame.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
    let mut body = vec![0; length.min(1 << 20)];
    from.read_exact(&mut body)?;
    frame.extend(body);
    Ok(frame)
}
