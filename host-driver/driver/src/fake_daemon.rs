//! A daemon for the tests of this crate: each connection runs a script.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use pocketcard_ipc::VERSION;
use pocketcard_ipc::driver::{DeviceName, FrameBuffer, Reply, Trust, Verdict};

/// Slots in the device name of a fake daemon.
const NAME_SLOTS: u8 = 2;

const LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct FakeDaemon {
    name: DeviceName,
    counts: Arc<Counts>,
    steps: mpsc::Sender<()>,
    _folder: tempfile::TempDir,
}

#[derive(Default)]
struct Counts {
    requests: AtomicUsize,
    closed: AtomicUsize,
}

/// The daemon's end of one connection.
pub(crate) struct FakeConnection {
    /// From 0.
    pub(crate) number: usize,
    stream: UnixStream,
    buffer: FrameBuffer,
    counts: Arc<Counts>,
    steps: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl FakeDaemon {
    /// Runs `script` for each connection, one after the other; its end closes the connection.
    pub(crate) fn serve(script: impl Fn(&mut FakeConnection) + Send + 'static) -> Self {
        Self::listen(move |connection| connection.run(&script))
    }

    /// Runs `script` for each connection, beside the others.
    pub(crate) fn serve_at_once(script: impl Fn(&mut FakeConnection) + Send + Sync + 'static) -> Self {
        let script = Arc::new(script);
        Self::listen(move |connection| {
            let script = Arc::clone(&script);
            std::thread::spawn(move || connection.run(&*script));
        })
    }

    fn listen(serve: impl Fn(FakeConnection) + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("driver");
        let listener = UnixListener::bind(&path).unwrap();
        let (steps, receiver) = mpsc::channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                serve(FakeConnection {
                    number,
                    stream: stream.unwrap(),
                    buffer: FrameBuffer::new(),
                    counts: Arc::clone(&shared),
                    steps: Arc::clone(&receiver),
                });
            }
        });
        let name = DeviceName::new(&path, NAME_SLOTS, Trust::OwnUser).unwrap();
        Self { name, counts, steps, _folder: folder }
    }

    pub(crate) fn name(&self) -> &DeviceName {
        &self.name
    }

    /// Lets a script that waits in [`FakeConnection::step`] go on.
    pub(crate) fn go_on(&self) {
        self.steps.send(()).unwrap();
    }

    /// How many requests came so far, on all connections.
    pub(crate) fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn wait_requests(&self, count: usize) {
        wait(&self.counts.requests, count);
    }

    pub(crate) fn wait_closed(&self, count: usize) {
        wait(&self.counts.closed, count);
    }
}

fn wait(counter: &AtomicUsize, count: usize) {
    let deadline = Instant::now() + LIMIT;
    while counter.load(Ordering::SeqCst) < count {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}

impl FakeConnection {
    fn run(mut self, script: &impl Fn(&mut Self)) {
        script(&mut self);
        let counts = Arc::clone(&self.counts);
        drop(self);
        counts.closed.fetch_add(1, Ordering::SeqCst);
    }

    /// Takes the hello and accepts it.
    pub(crate) fn hello(&mut self) {
        self.hello_with(false);
    }

    /// - `pin_pad`: whether PINs are entered on the phone.
    pub(crate) fn hello_with(&mut self, pin_pad: bool) {
        self.answer(&Reply::Hello { version: VERSION, verdict: Verdict::Accepted, pin_pad });
    }

    /// Takes one request and answers it.
    pub(crate) fn answer(&mut self, reply: &Reply<'_>) {
        if self.request() {
            self.push(reply);
        }
    }

    /// Takes one request; `false` if the driver is gone.
    pub(crate) fn request(&mut self) -> bool {
        while !self.buffer.has_frame().unwrap() {
            match self.stream.read(self.buffer.space()) {
                Ok(count) if count > 0 => self.buffer.filled(count),
                _ => return false,
            }
        }
        let _ = self.buffer.frame().unwrap();
        self.counts.requests.fetch_add(1, Ordering::SeqCst);
        true
    }

    pub(crate) fn push(&mut self, reply: &Reply<'_>) {
        let mut frame = Vec::new();
        reply.encode(&mut frame).unwrap();
        // A driver that is gone already is the test's own business.
        let _ = self.push_bytes(&frame);
    }

    /// Sends bytes as they are; `false` if the driver is gone.
    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Waits for [`FakeDaemon::go_on`].
    pub(crate) fn step(&mut self) {
        let _ = self.steps.lock().unwrap().recv_timeout(LIMIT);
    }
}
