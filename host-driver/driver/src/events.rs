//! The event connection: what is in the slot, pushed by the daemon.

use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ifd_handler::{Insertion, Presence, Waiter, Woken};
use pocketcard_ipc::appearance::{Appearance, Seen};
use pocketcard_ipc::driver::{self, DeviceName, Reply, Role};

use crate::connection::{Connection, ConnectionError, HELLO_LIMIT};

/// Before the first attempt to connect again; each further one waits twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// Before each attempt, once the daemon has been away for long. A connection that lasted as long counts as good: the next
/// loss begins with [`FIRST_PAUSE`] again. One that is lost sooner does not, or a daemon that takes every connection only
/// to drop it would have the driver turn fifty times a second.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Messages taken in at one look at most, since pcscd waits meanwhile. A new connection has the state at once, so a
/// daemon that has said more than that is better asked than listened to.
const MESSAGES_AT_ONCE: usize = 1024;

/// What the daemon said last, and the connection on which it says more.
#[derive(Debug)]
pub(crate) struct Events {
    connection: Option<Connected>,
    card: Option<Card>,
    insertions: u64,
    /// As the daemon said last, which may have been another daemon. Until then, as before there were PIN pads.
    pin_pad: bool,
    pause: Duration,
    next_attempt: Instant,
    /// The last trouble that was reported, so that it is reported once.
    reported: Option<String>,
    closed: bool,
}

#[derive(Debug)]
struct Connected {
    connection: Connection,
    /// The same socket, for a thread that waits without holding the lock.
    socket: Arc<UnixStream>,
    since: Instant,
}

/// A card by the number that pcscd knows and by the one that the daemon knows. The daemon counts from 1 again when it
/// is restarted; pcscd's number never comes twice.
#[derive(Debug, Clone, Copy)]
struct Card {
    insertion: Insertion,
    generation: u64,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self {
            connection: None,
            card: None,
            insertions: 0,
            pin_pad: false,
            pause: FIRST_PAUSE,
            next_attempt: Instant::now(),
            reported: None,
            closed: false,
        }
    }

    /// What is in the slot, as far as the daemon has said. Never blocks, except for a fresh connection.
    pub(crate) fn presence(&mut self, name: &DeviceName, slot: u32) -> Presence {
        if self.connection.is_none() && Instant::now() >= self.next_attempt {
            self.connect(name, slot);
        }
        self.drain(name);
        self.card.map_or(Presence::Absent, |card| Presence::Present(card.insertion))
    }

    /// Whether the reader has a PIN pad. Never blocks, except for a fresh connection.
    pub(crate) fn has_pin_pad(&mut self, name: &DeviceName, slot: u32) -> bool {
        // What a connection has to say is left to the event thread: it waits for that, and would go on waiting.
        if self.connection.is_none() {
            self.presence(name, slot);
        }
        self.pin_pad
    }

    /// The daemon's number of a card, if it is the one in the slot.
    pub(crate) fn generation(&self, insertion: Insertion) -> Option<u64> {
        self.card.filter(|card| card.insertion == insertion).map(|card| card.generation)
    }

    /// The socket to wait on.
    pub(crate) fn socket(&self) -> Option<Arc<UnixStream>> {
        self.connection.as_ref().map(|connected| Arc::clone(&connected.socket))
    }

    /// How long to wait before the next attempt to connect.
    pub(crate) fn pause(&self) -> Duration {
        self.next_attempt.saturating_duration_since(Instant::now())
    }

    /// The daemon's socket appeared: the next attempt is due now.
    pub(crate) fn expect_daemon(&mut self) {
        self.pause = FIRST_PAUSE;
        self.next_attempt = Instant::now();
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
        if let Some(connected) = self.connection.take() {
            let _ = connected.socket.shutdown(Shutdown::Both);
        }
        self.card = None;
    }

    fn connect(&mut self, name: &DeviceName, slot: u32) {
        if self.closed {
            return;
        }
        match self.try_connect(name, slot) {
            Ok(()) => self.report(name, None),
            Err(error) => {
                self.back_off();
                self.report(name, Some(error));
            }
        }
    }

    fn back_off(&mut self) {
        self.next_attempt = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn try_connect(&mut self, name: &DeviceName, slot: u32) -> Result<(), ConnectionError> {
        let mut connection = Connection::open(name, Role::Events, slot)?;
        // The state comes right behind the greeting, so that a card that is there is there from the first look on.
        let Reply::Presence(driver::Presence { present, generation, .. }) = connection.receive(HELLO_LIMIT)? else {
            return Err(ConnectionError::Protocol);
        };
        self.card = None;
        self.adopt(present, generation);
        self.pin_pad = connection.has_pin_pad();
        let socket = Arc::new(connection.handle()?);
        self.connection = Some(Connected { connection, socket, since: Instant::now() });
        Ok(())
    }

    fn drain(&mut self, name: &DeviceName) {
        for _ in 0..MESSAGES_AT_ONCE {
            let Some(connected) = self.connection.as_mut() else { return };
            match connected.connection.try_receive() {
                Ok(Some(Reply::Presence(driver::Presence { present, generation, .. }))) => {
                    self.adopt(present, generation);
                }
                Ok(None) => return,
                Ok(Some(_)) => return self.lose(name, ConnectionError::Protocol),
                Err(error) => return self.lose(name, error),
            }
        }
        self.lose(name, ConnectionError::Flood);
    }

    fn lose(&mut self, name: &DeviceName, error: ConnectionError) {
        // A thread that waits on the socket keeps it open; it has to wake up, and the daemon has to see the end.
        if let Some(connected) = self.connection.take() {
            let _ = connected.socket.shutdown(Shutdown::Both);
            if connected.since.elapsed() >= LONGEST_PAUSE {
                self.pause = FIRST_PAUSE;
            }
        }
        self.card = None;
        self.back_off();
        self.report(name, Some(error));
    }

    fn adopt(&mut self, present: bool, generation: u64) {
        match self.card {
            Some(card) if present && card.generation == generation => {}
            _ if present => {
                self.insertions += 1;
                self.card = Some(Card { insertion: Insertion(self.insertions), generation });
            }
            _ => self.card = None,
        }
    }

    /// Says once on pcscd's log what keeps the reader empty, and once that it is over.
    fn report(&mut self, name: &DeviceName, trouble: Option<ConnectionError>) {
        let trouble = trouble.map(|error| error.to_string());
        if trouble == self.reported {
            return;
        }
        match &trouble {
            Some(trouble) => crate::log(format_args!("no daemon at {}: {trouble}", name.socket().display())),
            None => crate::log(format_args!("connected to the daemon at {}", name.socket().display())),
        }
        self.reported = trouble;
    }
}

/// Waits without any lock until the daemon pushes something or its socket appears.
pub(crate) fn wait(waiter: &Waiter<'_>, name: &DeviceName, connected: Option<&UnixStream>, pause: Duration) -> Woke {
    if let Some(socket) = connected {
        return match waiter.wait(Some(socket.as_fd()), None) {
            Woken::Ready | Woken::LimitReached => Woke::News,
            Woken::Over => Woke::Over,
        };
    }
    let appearance = Appearance::of(name.socket()).ok();
    let deadline = Instant::now() + pause;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match waiter.wait(appearance.as_ref().map(Appearance::as_fd), Some(left)) {
            Woken::Over => return Woke::Over,
            Woken::LimitReached => return Woke::News,
            Woken::Ready => match appearance.as_ref().map(Appearance::look) {
                Some(Seen::File) => return Woke::Daemon,
                Some(Seen::Nothing) if !left.is_zero() => {}
                _ => return Woke::News,
            },
        }
    }
}

/// Why [`wait`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woke {
    /// Look again.
    News,
    /// The daemon's socket appeared.
    Daemon,
    /// Return to pcscd.
    Over,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_daemon::FakeDaemon;

    fn card(generation: u64) -> Reply<'static> {
        Reply::Presence(driver::Presence { present: true, generation, atr: &[0x3B, 0x80] })
    }

    fn empty() -> Reply<'static> {
        Reply::Presence(driver::Presence { present: false, generation: 0, atr: &[] })
    }

    /// Asks until the answer changes; the daemon's push has to travel.
    fn until(events: &mut Events, name: &DeviceName, fits: impl Fn(Presence) -> bool) -> Presence {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let presence = events.presence(name, 0);
            if fits(presence) {
                return presence;
            }
            assert!(Instant::now() < deadline, "{presence:?}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_card_that_is_there_is_seen_at_the_first_look_and_every_change_after_it() {
        let daemon = FakeDaemon::serve(|connection| {
            connection.hello();
            connection.push(&card(5));
            connection.step();
            connection.push(&empty());
            connection.push(&card(6));
            connection.request();
        });
        let mut events = Events::new();
        assert_eq!(events.presence(daemon.name(), 0), Presence::Present(Insertion(1)));
        assert_eq!(events.generation(Insertion(1)), Some(5));
        daemon.go_on();
        let next = until(&mut events, daemon.name(), |presence| presence != Presence::Present(Insertion(1)));
        assert!(matches!(next, Presence::Absent | Presence::Present(Insertion(2))));
        until(&mut events, daemon.name(), |presence| presence == Presence::Present(Insertion(2)));
        assert_eq!((events.generation(Insertion(1)), events.generation(Insertion(2))), (None, Some(6)));
    }

    #[test]
    fn the_same_number_from_a_restarted_daemon_is_another_card() {
        let daemon = FakeDaemon::serve(|connection| {
            connection.hello();
            connection.push(&card(1));
            if connection.number == 0 {
                connection.step();
                return;
            }
            connection.request();
        });
        let mut events = Events::new();
        assert_eq!(events.presence(daemon.name(), 0), Presence::Present(Insertion(1)));
        daemon.go_on();
        until(&mut events, daemon.name(), |presence| presence == Presence::Present(Insertion(2)));
    }

    #[test]
    fn the_pin_pad_comes_and_goes_with_the_daemons_configuration() {
        let daemon = FakeDaemon::serve(|connection| {
            connection.hello_with(connection.number == 0);
            connection.push(&empty());
            connection.step();
        });
        let missing: DeviceName = "/nonexistent/driver:1:dev".parse().unwrap();
        let mut events = Events::new();
        assert!(!events.has_pin_pad(&missing, 0), "no daemon has said so yet");
        events.expect_daemon();
        assert!(events.has_pin_pad(daemon.name(), 0), "a daemon that comes later counts from its first word on");
        daemon.go_on();
        daemon.wait_closed(1);
        let deadline = Instant::now() + Duration::from_secs(10);
        while events.has_pin_pad(daemon.name(), 0) {
            // As the event thread does when the connection ends.
            events.presence(daemon.name(), 0);
            assert!(Instant::now() < deadline, "the restarted daemon is not believed");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_question_for_the_pin_pad_takes_no_news_from_the_event_thread() {
        let daemon = FakeDaemon::serve(|connection| {
            connection.hello_with(true);
            connection.push(&card(1));
            connection.step();
            connection.push(&empty());
            connection.step();
        });
        let mut events = Events::new();
        assert_eq!(events.presence(daemon.name(), 0), Presence::Present(Insertion(1)));
        daemon.go_on();
        let socket = events.socket().unwrap();
        let is_readable = |limit: i32| {
            let mut sockets = [rustix::event::PollFd::new(&*socket, rustix::event::PollFlags::IN)];
            let limit = rustix::event::Timespec { tv_sec: limit.into(), tv_nsec: 0 };
            rustix::event::poll(&mut sockets, Some(&limit)).unwrap() == 1
        };
        assert!(is_readable(10));
        assert!(events.has_pin_pad(daemon.name(), 0));
        assert!(is_readable(0), "the event thread would not hear of it");
        assert_eq!(events.presence(daemon.name(), 0), Presence::Absent);
    }

    #[test]
    fn trouble_is_named_once_and_leaves_the_slot_empty() {
        let missing: DeviceName = "/nonexistent/driver:1:dev".parse().unwrap();
        let mut events = Events::new();
        assert_eq!(events.presence(&missing, 0), Presence::Absent);
        assert!(events.pause() > Duration::ZERO, "the next attempt waits");
        let newer = FakeDaemon::serve(|connection| {
            connection.request();
            connection.push(&Reply::Hello { version: 99, verdict: driver::Verdict::Version, pin_pad: false });
        });
        let mut events = Events::new();
        assert_eq!(events.presence(newer.name(), 0), Presence::Absent);
        assert!(events.reported.as_ref().unwrap().contains("update the driver"), "{:?}", events.reported);
        let fewer = FakeDaemon::serve(|connection| {
            connection.request();
            let version = pocketcard_ipc::VERSION;
            connection.push(&Reply::Hello { version, verdict: driver::Verdict::NoSuchSlot, pin_pad: true });
        });
        let mut events = Events::new();
        assert_eq!(events.presence(fewer.name(), 3), Presence::Absent);
        assert!(events.reported.as_ref().unwrap().contains("no slot 3"), "{:?}", events.reported);
        events.close();
        events.expect_daemon();
        assert_eq!(events.presence(fewer.name(), 3), Presence::Absent);
    }

    /// In a process of its own, whose standard error leads nowhere.
    #[test]
    fn a_log_that_is_gone_does_not_empty_the_reader() {
        const CHILD: &str = "POCKETCARD_DRIVER_TEST_CHILD";
        if std::env::var_os(CHILD).is_none() {
            let test = std::thread::current().name().unwrap().to_owned();
            let (dead, other) = UnixStream::pair().unwrap();
            drop(other);
            let status = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", &test, "--nocapture"])
                .env(CHILD, "1")
                .stdout(std::process::Stdio::null())
                .stderr(std::os::fd::OwnedFd::from(dead))
                .status();
            assert!(status.unwrap().success());
            return;
        }
        let daemon = FakeDaemon::serve(|connection| {
            connection.hello();
            connection.push(&card(1));
            connection.step();
        });
        let mut events = Events::new();
        // It logs what is wrong, then that it is over.
        events.reported = Some(String::new());
        assert_eq!(events.presence(daemon.name(), 0), Presence::Present(Insertion(1)));
    }

    #[test]
    fn a_daemon_that_drops_every_connection_is_tried_ever_more_rarely() {
        let daemon = FakeDaemon::serve(|connection| {
            connection.hello();
            connection.push(&card(1));
        });
        let mut events = Events::new();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(700) {
            events.presence(daemon.name(), 0);
            std::thread::sleep(Duration::from_millis(1));
        }
        // 0, 20, 60, 140, 300 and 620 ms.
        assert!(events.insertions <= 6, "{} connections", events.insertions);
        assert!(events.insertions >= 3, "{} connections", events.insertions);
        events.expect_daemon();
        assert_eq!(events.pause(), Duration::ZERO, "a socket that appears is tried at once");
    }

    #[test]
    fn a_daemon_that_pushes_without_end_does_not_hold_pcscd() {
        let daemon = FakeDaemon::serve(|connection| {
            connection.hello();
            let mut frame = Vec::new();
            card(1).encode(&mut frame).unwrap();
            let messages = if connection.number == 0 { MESSAGES_AT_ONCE * 2 } else { 1 };
            connection.push_bytes(&frame.repeat(messages));
            connection.step();
        });
        let mut events = Events::new();
        until(&mut events, daemon.name(), |presence| presence == Presence::Absent);
        assert!(events.reported.as_ref().unwrap().contains("faster"), "{:?}", events.reported);
        daemon.go_on();
        until(&mut events, daemon.name(), |presence| presence == Presence::Present(Insertion(2)));
    }

    #[test]
    fn a_daemon_that_talks_nonsense_is_left() {
        let daemon = FakeDaemon::serve(|connection| {
            connection.hello();
            connection.push(&card(1));
            connection.push(&Reply::Powered { atr: &[] });
            connection.request();
        });
        let mut events = Events::new();
        until(&mut events, daemon.name(), |presence| presence == Presence::Absent);
        assert!(events.socket().is_none());
    }
}
