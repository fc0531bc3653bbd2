//! A daemon in this process, a phone on a thread, and a driver that is a socket.
// Each test file uses a part; a helper that fails is a test that fails.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pocketcard_daemon::config::{Config, StreamLink};
use pocketcard_daemon::daemon::Daemon;
use pocketcard_daemon::{Clock, SystemEntropy};
use pocketcard_ipc::Address;
use pocketcard_ipc::control::{Client, ClientError, Event, Limits, PairMethod, Phone, Reply, Request};
use pocketcard_ipc::driver::{self, FrameBuffer, PowerAction, Role};
use pocketcard_phone::card::test_support::TestBox;
use pocketcard_phone::card::{HostId, Input, LinkId};
use pocketcard_protocol::channel::StaticSecret;
use pocketcard_protocol::link::{self, CloseReason, Link, PairingMode, PhoneConfig, VersionRange};
use pocketcard_protocol::messages::{Body, Pending, Unsupported};
use pocketcard_protocol::pairing::{PairKeys, QrText};
use pocketcard_protocol::stream::{FrameReader, LONGEST_MESSAGE, encode};

/// No wait of these tests is longer.
pub const LIMIT: Duration = Duration::from_secs(10);

/// A daemon on a thread of its own.
pub struct TestDaemon {
    pub folder: Arc<tempfile::TempDir>,
    pub config: Config,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TestDaemon {
    pub fn start(slots: u8, links: &[Address]) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let config = Config {
            state_dir: folder.path().join("state"),
            driver_socket: folder.path().join("driver"),
            control_socket: folder.path().join("control"),
            reader_slots: slots,
            host_name: Some("desk".into()),
            dev: true,
            link: links.iter().map(|address| StreamLink { address: address.clone() }).collect(),
            ..Config::default()
        };
        let mut daemon = Self { folder, config, stop: None, thread: None };
        daemon.restart(VersionRange::SUPPORTED);
        daemon
    }

    pub fn restart(&mut self, versions: VersionRange) {
        self.end();
        let config = self.config.clone();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        self.thread = Some(std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let daemon = Daemon::start_with_versions_for_testing_only(config, versions);
                ready.send(daemon.as_ref().err().map(ToString::to_string)).unwrap();
                let _ = stopped.await;
            });
        }));
        assert_eq!(is_ready.recv_timeout(LIMIT).unwrap(), None);
        self.stop = Some(stop);
    }

    pub fn end(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    pub fn control(&self) -> Client {
        Client::connect(&self.config.control_socket, "test", Limits { answer: LIMIT }).unwrap()
    }

    pub fn driver(&self, role: Role, slot: u32) -> Driver {
        Driver::connect(&self.config.driver_socket, role, slot)
    }

    /// Pairs by QR code; both sides agree.
    pub fn pair(&self, phone: &TestPhone, slot: Option<u32>) -> Result<Phone, ClientError> {
        let mut client = self.control();
        let (qr, _) = client.pair_start(Some(phone.address()), PairMethod::Qr, slot)?;
        phone.scan(&qr.unwrap());
        loop {
            match client.receive(Some(LIMIT))? {
                Reply::PairDigits { digits, .. } => {
                    assert_eq!(digits.len(), 6);
                    client.send(&Request::PairConfirm { agree: true })?;
                }
                Reply::PairPhoneConfirmed {} => {}
                Reply::Paired { phone } => return Ok(phone),
                Reply::Error(failure) => return Err(failure.into()),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Waits until the status fits.
    pub fn wait(&self, what: &str, fits: impl Fn(&pocketcard_ipc::control::Status) -> bool) {
        let deadline = Instant::now() + LIMIT;
        let mut client = self.control();
        let mut watch = self.control();
        watch.watch().unwrap();
        loop {
            let status = client.status().unwrap();
            if fits(&status) {
                return;
            }
            assert!(Instant::now() < deadline, "no {what}: {status:?}");
            // An event, or a moment for what has none.
            let _ = watch.receive(Some(Duration::from_millis(50)));
        }
    }

    pub fn wait_card(&self, slot: usize, present: bool) {
        self.wait("card", |status| status.slots[slot].card_present == present);
    }
}

impl Drop for TestDaemon {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A driver's connection.
pub struct Driver {
    stream: UnixStream,
    buffer: FrameBuffer,
}

/// An owned [`driver::Reply`].
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Hello(driver::Verdict),
    Powered(Vec<u8>),
    Response(Vec<u8>),
    Failed(driver::Failure),
    Presence(bool, u64),
    Closed,
}

impl Driver {
    pub fn connect(path: &Path, role: Role, slot: u32) -> Self {
        let mut driver = Self { stream: UnixStream::connect(path).unwrap(), buffer: FrameBuffer::new() };
        driver.stream.set_read_timeout(Some(LIMIT)).unwrap();
        driver.send(&driver::Request::hello(role, slot));
        assert_eq!(driver.receive(), Answer::Hello(driver::Verdict::Accepted));
        driver
    }

    pub fn raw(path: &Path, bytes: &[u8]) -> Self {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let _ = stream.write_all(bytes);
        Self { stream, buffer: FrameBuffer::new() }
    }

    pub fn send(&mut self, request: &driver::Request<'_>) {
        let mut frame = Vec::new();
        request.encode(&mut frame).unwrap();
        self.stream.write_all(&frame).unwrap();
    }

    pub fn receive(&mut self) -> Answer {
        loop {
            if self.buffer.has_frame().unwrap() {
                break;
            }
            match self.stream.read(self.buffer.space()) {
                Ok(0) => return Answer::Closed,
                Ok(count) => self.buffer.filled(count),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Answer::Closed,
                Err(error) => panic!("{error}"),
            }
        }
        match driver::Reply::parse(self.buffer.frame().unwrap().unwrap()).unwrap() {
            driver::Reply::Hello { verdict, .. } => Answer::Hello(verdict),
            driver::Reply::Powered { atr } => Answer::Powered(atr.to_vec()),
            driver::Reply::Response { apdu } => Answer::Response(apdu.to_vec()),
            driver::Reply::Failed { failure } => Answer::Failed(failure),
            driver::Reply::Presence(presence) => Answer::Presence(presence.present, presence.generation),
            driver::Reply::Controlled { .. } => panic!("not asked for"),
        }
    }

    pub fn power(&mut self, action: PowerAction, generation: u64) -> Answer {
        self.send(&driver::Request::Power { action, generation });
        self.receive()
    }

    pub fn transmit(&mut self, apdu: &[u8]) -> Answer {
        self.send(&driver::Request::Transmit { apdu });
        self.receive()
    }
}

/// A phone that listens on a unix socket.
pub struct TestPhone {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

struct Shared {
    identity: Arc<StaticSecret>,
    name: String,
    versions: VersionRange,
    pairs: Mutex<HashMap<[u8; 32], Vec<u8>>>,
    card: Mutex<TestBox>,
    pairing: Mutex<PairingMode>,
    /// Whether the owner agrees to the digits.
    agrees: AtomicBool,
    /// The phone takes commands but answers none, and says that it is waiting for its owner.
    holds: AtomicBool,
    /// The phone is of a time before PINs could be entered on it.
    is_old: AtomicBool,
    /// Commands for the card, and pages of its snapshot, that hosts asked for.
    asked: Mutex<(usize, usize)>,
    /// The phone reads nothing any more, as if its app hung.
    hang: Hang,
    stop: AtomicBool,
    connections: Mutex<Vec<UnixStream>>,
}

impl TestPhone {
    pub fn start(name: &str) -> Self {
        Self::with_versions(name, VersionRange::SUPPORTED)
    }

    pub fn with_versions(name: &str, versions: VersionRange) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("phone");
        let shared = Arc::new(Shared {
            identity: Arc::new(StaticSecret::generate(&SystemEntropy).unwrap()),
            name: name.into(),
            versions,
            pairs: Mutex::default(),
            card: Mutex::new(TestBox::test_card()),
            pairing: Mutex::default(),
            agrees: AtomicBool::new(true),
            holds: AtomicBool::new(false),
            is_old: AtomicBool::new(false),
            asked: Mutex::default(),
            hang: Hang::default(),
            stop: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let mut phone = Self { path, shared, thread: None, _folder: folder };
        phone.listen();
        phone
    }

    pub fn address(&self) -> Address {
        Address::Unix(self.path.clone())
    }

    pub fn scan(&self, qr: &str) {
        *self.shared.pairing.lock().unwrap() = QrText::parse(qr).unwrap().into();
    }

    pub fn set_agrees(&self, agrees: bool) {
        self.shared.agrees.store(agrees, Ordering::SeqCst);
    }

    pub fn set_holds(&self, holds: bool) {
        self.shared.holds.store(holds, Ordering::SeqCst);
    }

    /// Commands for the card, and pages of its snapshot, that hosts asked for so far.
    pub fn set_old(&self) {
        self.shared.is_old.store(true, Ordering::SeqCst);
    }

    pub fn asked(&self) -> (usize, usize) {
        *self.shared.asked.lock().unwrap()
    }

    /// Stops reading and writing; returns when a connection does neither any more.
    pub fn hang(&self) {
        self.shared.hang.begin();
    }

    pub fn wake(&self) {
        self.shared.hang.end();
    }

    /// Its connections break, and it goes on listening.
    pub fn cut(&self) {
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// The phone's program is another one than before, behind an address that never stopped answering.
    pub fn lose_memory(&self) {
        *self.shared.card.lock().unwrap() = TestBox::test_card();
    }

    /// The phone is gone, as after `kill -9`: sockets closed, no good-bye.
    pub fn kill(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(&self.path);
        self.cut();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    /// The phone is back, with its pairs and its card.
    pub fn listen(&mut self) {
        self.shared.stop.store(false, Ordering::SeqCst);
        let _ = std::fs::remove_file(&self.path);
        let listener = UnixListener::bind(&self.path).unwrap();
        let shared = Arc::clone(&self.shared);
        self.thread = Some(std::thread::spawn(move || {
            for number in 1.. {
                let (stream, _) = listener.accept().unwrap();
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                shared.connections.lock().unwrap().push(stream.try_clone().unwrap());
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.serve(stream, LinkId::new(number)));
            }
        }));
    }
}

impl Drop for TestPhone {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where a phone's connections stand still, on demand.
#[derive(Default)]
struct Hang {
    /// Whether they are to stand still, and how many do.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Hang {
    fn begin(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 = true;
        let (state, _) = self.changed.wait_timeout_while(state, LIMIT, |(_, standing)| *standing == 0).unwrap();
        assert!(state.1 > 0, "no connection hangs");
    }

    fn end(&self) {
        self.state.lock().unwrap().0 = false;
        self.changed.notify_all();
    }

    /// Returns at once, or when the connections may go on.
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        if state.0 {
            state.1 += 1;
            self.changed.notify_all();
            state = self.changed.wait_while(state, |(hangs, _)| *hangs).unwrap();
            state.1 -= 1;
        }
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, mut stream: UnixStream, id: LinkId) {
        let lookup = Arc::clone(self);
        let config = PhoneConfig {
            identity: Arc::clone(&self.identity),
            name: self.name.clone(),
            software: "test phone 1".into(),
            entropy: Arc::new(SystemEntropy),
            pairs: Arc::new(move |host| {
                lookup.pairs.lock().unwrap().get(host.as_bytes()).map(|keys| PairKeys::from_bytes(keys).unwrap())
            }),
            pairing: self.pairing.lock().unwrap().clone(),
            versions: self.versions,
        };
        let mut link = Link::phone(config, Clock.now());
        let mut frames = FrameReader::new(LONGEST_MESSAGE);
        let mut up = false;
        // A look at the owner's wishes every few milliseconds is enough for a test.
        stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        'link: while !link.is_closed() {
            self.step(&mut link, id, &mut up);
            while let Some(message) = link.poll_transmit() {
                if stream.write_all(&encode(&message).unwrap()).is_err() {
                    break 'link;
                }
            }
            self.hang.pass();
            match stream.read(frames.read_buffer()) {
                Ok(0) => break,
                Ok(count) => frames.filled(count),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    link.set_pairing(self.pairing.lock().unwrap().clone(), Clock.now());
                    link.handle_timeout(Clock.now());
                }
                Err(_) => break,
            }
            while let Ok(Some(message)) = frames.next_message() {
                link.handle_message(message, Clock.now());
            }
        }
        self.step(&mut link, id, &mut up);
        while let Some(message) = link.poll_transmit() {
            let _ = stream.write_all(&encode(&message).unwrap());
        }
        let _ = stream.shutdown(Shutdown::Both);
        if up {
            self.card.lock().unwrap().handle(Input::LinkDown { link: id });
        }
    }

    fn step(&self, link: &mut Link, id: LinkId, up: &mut bool) {
        let now = Clock.now();
        let mut card = self.card.lock().unwrap();
        while let Some(event) = link.poll_event() {
            match event {
                link::Event::Connected { peer } => {
                    *up = true;
                    let host = HostId::new(*peer.as_bytes());
                    card.handle(Input::LinkUp { link: id, host, host_name: "desk".into() });
                }
                link::Event::Message(envelope) => {
                    let held = self.holds.load(Ordering::SeqCst);
                    match &envelope.body {
                        Some(Body::Transmit(_)) => self.asked.lock().unwrap().0 += 1,
                        Some(Body::Fetch(_)) => self.asked.lock().unwrap().1 += 1,
                        _ => {}
                    }
                    match &envelope.body {
                        Some(Body::Transmit(transmit)) if held => {
                            let pending =
                                Pending { session: transmit.session, request_id: transmit.request_id, reason: 2 };
                            link.send(&pending.into(), now).unwrap();
                        }
                        Some(Body::PinEntry(_)) if self.is_old.load(Ordering::SeqCst) => {
                            link.send(&Unsupported::default().into(), now).unwrap();
                        }
                        _ => card.handle(Input::Message { link: id, envelope }),
                    }
                }
                link::Event::PairingDigits { .. } => {
                    // A code is good for one pairing.
                    *self.pairing.lock().unwrap() = PairingMode::Closed;
                    link.confirm_pairing(self.agrees.load(Ordering::SeqCst), now);
                }
                link::Event::Paired { pair, .. } => {
                    self.pairs.lock().unwrap().insert(*pair.peer.as_bytes(), pair.to_bytes().to_vec());
                    link.pair_stored(now);
                }
                _ => {}
            }
        }
        let sent = std::mem::take(&mut card.out.sent);
        for (to, envelope) in sent {
            if to == id {
                let _ = link.send(&envelope, now);
            } else {
                card.out.sent.push((to, envelope));
            }
        }
        if card.out.closed.iter().any(|(closed, _)| *closed == id) {
            link.close(CloseReason::Failed, now);
        }
    }
}

/// The next event that fits.
pub fn wait_event(watch: &mut Client, fits: impl Fn(&Event) -> bool) -> Event {
    let deadline = Instant::now() + LIMIT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match watch.receive(Some(left)).unwrap() {
            Reply::Event(event) if fits(&event) => return event,
            _ => {}
        }
    }
}
