//! `pocketcard watch` when phones, the daemon and sessions come and go: with real processes, and a logind of the test's own
//! on a bus of its own. The real logind: `cargo xtask test-packages`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where it fails")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dbus::arg::{PropMap, Variant};
use dbus::blocking::SyncConnection;
use dbus::channel::{Channel, MatchingReceiver, Sender as _};
use dbus::message::MatchRule;
use dbus::{Message, Path as Object};
use pocketcard_dev::{Environment, TEST_PIN};
use pocketcard_tests::bus::Bus;
use pocketcard_tests::client::{Client, eventually, program};
use pocketcard_tests::run::run;
use pocketcard_tests::{skip, start};

/// For what is to happen at once.
const SOON: Duration = Duration::from_secs(20);
/// What the watcher gives the daemon; `pocketcard watch --help` says so.
const DAEMON_AWAY: Duration = Duration::from_secs(20);

const SELECT: [u8; 10] = [0x00, 0xA4, 0x04, 0x00, 0x05, 0xA0, 0x00, 0x00, 0x03, 0x08];
const VERIFY_STATUS: [u8; 4] = [0x00, 0x20, 0x00, 0x80];

/// `pocketcard watch`, and what it says.
struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Watch {
    /// Watches when this returns.
    fn start(environment: &Environment, bus: &str, arguments: &[&str]) -> Self {
        let mut watch = environment.command(program("pocketcard"));
        watch.args(["watch", "--no-notices"]).args(arguments).stdin(Stdio::null());
        watch.env("DBUS_SYSTEM_BUS_ADDRESS", bus).env("XDG_CONFIG_HOME", environment.folder());
        let mut child = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        read(child.stdout.take().unwrap(), sender.clone());
        read(child.stderr.take().unwrap(), sender);
        let mut watch = Self { child, lines };
        watch.until("slot 0");
        watch
    }

    /// Waits for a line with this in it.
    fn until(&mut self, part: &str) {
        let _ = self.until_one_of(&[part]);
    }

    /// Waits for what is said once every session shows its lock, and nothing of a doubt before.
    fn until_locked(&mut self) {
        let seen = self.until_one_of(&["all 2 sessions are locked"]);
        assert!(!seen.iter().any(|line| line.contains("NOT LOCKED")), "{seen:#?}");
    }

    /// Gives what was said before.
    fn until_one_of(&mut self, parts: &[&str]) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(SOON + DAEMON_AWAY) {
                Ok(line) if parts.iter().any(|part| line.contains(part)) => return seen,
                Ok(line) => seen.push(line),
                Err(_) => panic!("{parts:?} is not said, but {seen:#?}"),
            }
        }
    }

    /// Locks until the watcher hears it, which may not listen yet.
    fn until_it_hears(&mut self, logind: &Logind) {
        let begin = Instant::now();
        loop {
            logind.signal("c2", "Lock");
            match self.lines.recv_timeout(Duration::from_secs(1)) {
                Ok(line) if line.contains("verified PINs ended") => return,
                other => assert!(begin.elapsed() < SOON, "{other:?}"),
            }
        }
    }

    /// How often PINs ended, until nothing more is said for a second.
    fn ended_until_quiet(&mut self) -> usize {
        let lines = std::iter::from_fn(|| self.lines.recv_timeout(Duration::from_secs(1)).ok());
        lines.filter(|line| line.contains("verified PINs ended")).count()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }
}

fn read(from: impl std::io::Read + Send + 'static, sender: Sender<String>) {
    std::thread::spawn(move || {
        BufReader::new(from).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
    });
}

/// What a command writes down when it runs.
struct Notes(PathBuf);

impl Notes {
    fn new(environment: &Environment) -> Self {
        Self(environment.folder().join("notes"))
    }

    fn command(&self) -> String {
        format!("echo \"$POCKETCARD_EVENT $POCKETCARD_SLOT $POCKETCARD_PHONE\" >>{}", self.0.display())
    }

    fn read(&self) -> Vec<String> {
        fs::read_to_string(&self.0).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn become_(&self, expected: &[&str]) {
        eventually(SOON, || self.read().len() >= expected.len());
        assert_eq!(self.read(), expected);
    }
}

/// The phone is there when the daemon is, or comes after it.
const BACK: [&str; 2] = ["PIN tries left", "card inserted"];

/// No bus at all.
const NOWHERE: &str = "unix:path=/nonexistent/bus";

#[test]
fn commands_run_when_the_phone_leaves_and_comes() {
    let mut environment = start(Environment::builder());
    let notes = Notes::new(&environment);
    let phone = environment.phone(0).unwrap().name().to_owned();
    let command = notes.command();
    let mut watch = Watch::start(&environment, NOWHERE, &["--on-leave", &command, "--on-arrive", &command]);
    environment.phone(0).unwrap().kill();
    watch.until("has left");
    notes.become_(&[&format!("leave 0 {phone}")]);
    environment.phone(0).unwrap().restart().unwrap();
    watch.until("is here");
    notes.become_(&[&format!("leave 0 {phone}"), &format!("arrive 0 {phone}")]);
    watch.signal(rustix::process::Signal::INT);
    assert!(watch.child.wait().unwrap().success(), "Ctrl-C is how it ends");
}

#[test]
fn a_daemon_that_is_back_in_time_locks_nothing_and_one_that_stays_away_does() {
    let mut environment = start(Environment::builder());
    let notes = Notes::new(&environment);
    let phone = environment.phone(0).unwrap().name().to_owned();
    fs::create_dir(environment.folder().join("pocketcard")).unwrap();
    let file = environment.folder().join("pocketcard/watch.toml");
    fs::write(file, format!("on_leave = {:?}\non_arrive = {:?}\n", notes.command(), notes.command())).unwrap();
    let mut watch = Watch::start(&environment, NOWHERE, &[]);
    // As systemd restarts it, and as a crash does.
    environment.daemon().terminate();
    watch.until("the daemon ends");
    environment.daemon().restart().unwrap();
    watch.until_one_of(&BACK);
    environment.daemon().kill();
    watch.until("closed the connection");
    environment.daemon().restart().unwrap();
    watch.until_one_of(&BACK);
    assert_eq!(notes.read(), Vec::<String>::new());
    environment.daemon().kill();
    let begin = Instant::now();
    watch.until("counts as one that left");
    assert!(begin.elapsed() >= DAEMON_AWAY - Duration::from_secs(1), "{:?}", begin.elapsed());
    notes.become_(&[&format!("leave 0 {phone}")]);
    environment.daemon().restart().unwrap();
    watch.until("is here");
    notes.become_(&[&format!("leave 0 {phone}"), &format!("arrive 0 {phone}")]);
}

#[test]
fn a_command_that_fails_or_hangs_does_not_keep_the_watcher_from_the_next() {
    let mut environment = start(Environment::builder());
    let notes = Notes::new(&environment);
    let command = format!("{}; exit 3", notes.command());
    let hangs = format!("{}; exec sleep 1000", notes.command());
    let mut watch = Watch::start(&environment, NOWHERE, &["--on-leave", &command, "--on-arrive", &hangs]);
    for round in 1..=2 {
        environment.phone(0).unwrap().kill();
        watch.until("the command of --on-leave failed");
        environment.phone(0).unwrap().restart().unwrap();
        watch.until("is here");
        assert!(eventually(SOON, || notes.read().len() == 2 * round), "{:?}", notes.read());
    }
}

#[test]
fn whoever_does_not_read_what_it_says_does_not_keep_it_from_locking() {
    let mut environment = start(Environment::builder());
    let notes = Notes::new(&environment);
    let (_unread, mut full) = std::io::pipe().unwrap();
    // As much as a pipe holds.
    full.write_all(&[b' '; 65536]).unwrap();
    let mut command = environment.command(program("pocketcard"));
    command.args(["watch", "--no-notices", "--on-leave", &notes.command()]).env("DBUS_SYSTEM_BUS_ADDRESS", NOWHERE);
    command.env("XDG_CONFIG_HOME", environment.folder()).stdin(Stdio::null()).stderr(full.try_clone().unwrap());
    let (_, lines) = mpsc::channel();
    let _watch = Watch { child: command.stdout(full).spawn().unwrap(), lines };
    // Nobody says when it watches.
    let has_left = (0..10).any(|_| {
        environment.phone(0).unwrap().kill();
        let has_left = eventually(Duration::from_secs(3), || !notes.read().is_empty());
        environment.phone(0).unwrap().restart().unwrap();
        has_left
    });
    assert!(has_left, "it waits for its reader");
}

#[test]
fn what_cannot_be_done_is_said() {
    let environment = start(Environment::builder());
    let watch = |arguments: &[&str]| {
        let mut command = environment.command(program("pocketcard"));
        command.arg("watch").args(arguments).env("DBUS_SYSTEM_BUS_ADDRESS", NOWHERE);
        run(command.env("XDG_CONFIG_HOME", environment.folder()), SOON)
    };
    let ran = watch(&["--phone", "nobody"]);
    assert!(!ran.success && ran.text.contains("no paired phone is called \"nobody\""), "{}", ran.text);
    let file = environment.folder().join("my.toml");
    fs::write(&file, "lok = true").unwrap();
    let ran = watch(&["--check", "--config", file.to_str().unwrap()]);
    assert!(!ran.success && ran.text.contains("unknown field `lok`"), "{}", ran.text);
    let ran = watch(&["--check", "--lock", "--on-leave", "i3lock"]);
    assert!(ran.success && ran.text.contains("cannot be done: logind does not answer"), "{}", ran.text);
    assert!(ran.text.contains("run \"i3lock\"") && ran.text.contains(", here"), "{}", ran.text);
}

/// The sessions of this user: two with a screen, one on a console, and a service manager's, which cannot be locked; and one of
/// somebody else.
const OURS: [(&str, &str); 4] = [("c1", "x11"), ("c2", "wayland"), ("c3", "tty"), ("manager", "unspecified")];
const THEIRS: &str = "c9";
/// Those with a screen.
const SCREENS: [&str; 2] = ["c1", "c2"];

/// What stands in for logind. It ends with this value, as a program does that is killed.
struct Logind {
    connection: Option<Arc<SyncConnection>>,
    serving: Option<JoinHandle<()>>,
    /// The sessions that were told to lock.
    locked: Receiver<String>,
}

/// What it does when it is told to lock.
#[derive(Clone, Copy)]
enum Manner {
    /// These sessions show that they are locked, as those of most desktops do.
    Shows(&'static [&'static str]),
    /// It gives no answer.
    Hangs,
}

fn object(name: &str) -> Object<'static> {
    Object::new(format!("/org/freedesktop/login1/session/{name}")).unwrap()
}

impl Logind {
    fn start(address: &str, manner: Manner) -> Self {
        Self::start_with(address, manner, &[])
    }

    /// - `is_locked`: sessions that were locked before.
    fn start_with(address: &str, manner: Manner, is_locked: &'static [&'static str]) -> Self {
        let (sender, locked) = mpsc::channel();
        let mut channel = Channel::open_private(address).unwrap();
        channel.register().unwrap();
        let connection = Arc::new(SyncConnection::from(channel));
        connection.start_receive(
            MatchRule::new_method_call(),
            Box::new(move |message, connection| {
                for message in answers(&message, &sender, manner, is_locked) {
                    connection.send(message).unwrap();
                }
                connection.channel().flush();
                true
            }),
        );
        connection.request_name("org.freedesktop.login1", false, true, false).unwrap();
        let weak = Arc::downgrade(&connection);
        let serving = std::thread::spawn(move || {
            while weak.upgrade().is_some_and(|connection| connection.process(Duration::from_millis(20)).is_ok()) {}
        });
        Self { connection: Some(connection), serving: Some(serving), locked }
    }

    fn send(&self, message: Message) {
        let connection = self.connection.as_ref().unwrap();
        connection.send(message).unwrap();
        connection.channel().flush();
    }

    fn signal(&self, session: &str, name: &str) {
        self.send(signal(session, name));
    }

    fn show(&self, session: &str, is_locked: bool) {
        self.send(hint(session, is_locked));
    }

    fn told(&self) -> Vec<String> {
        self.locked.try_iter().collect()
    }
}

impl Drop for Logind {
    fn drop(&mut self) {
        self.connection.take();
        let _ = self.serving.take().unwrap().join();
    }
}

fn signal(session: &str, name: &str) -> Message {
    Message::new_signal(&*object(session), "org.freedesktop.login1.Session", name).unwrap()
}

/// Sends everybody on the bus, one by one, what only logind may say; without logind's name.
fn pretend(address: &str, said: impl Fn() -> Message) {
    let mut channel = Channel::open_private(address).unwrap();
    channel.register().unwrap();
    let connection = SyncConnection::from(channel);
    let bus =
        dbus::blocking::SyncConnection::with_proxy(&connection, "org.freedesktop.DBus", "/org/freedesktop/DBus", SOON);
    let (names,): (Vec<String>,) = bus.method_call("org.freedesktop.DBus", "ListNames", ()).unwrap();
    for name in names.iter().filter(|name| name.starts_with(':')) {
        let mut message = said();
        message.set_destination(Some(name.as_str().into()));
        connection.send(message).unwrap();
    }
    // Whoever is answered has been heard.
    let _: (String,) = bus.method_call("org.freedesktop.DBus", "GetId", ()).unwrap();
}

fn hint(session: &str, is_locked: bool) -> Message {
    let mut changed = PropMap::new();
    changed.insert("LockedHint".to_owned(), Variant(Box::new(is_locked)));
    let path = object(session);
    let signal = Message::new_signal(&*path, "org.freedesktop.DBus.Properties", "PropertiesChanged").unwrap();
    signal.append3("org.freedesktop.login1.Session", changed, Vec::<String>::new())
}

fn answers(message: &Message, locked: &Sender<String>, manner: Manner, is_locked: &[&str]) -> Vec<Message> {
    let path = message.path().unwrap();
    let reply = message.method_return();
    let session = path.rsplit('/').next().unwrap_or_default().to_owned();
    match message.member().unwrap().as_ref() {
        "GetUser" => vec![reply.append1(Object::new("/org/freedesktop/login1/user/me").unwrap())],
        "Get" => match message.get2::<&str, &str>().1.unwrap() {
            "Sessions" => {
                let sessions: Vec<_> = OURS.iter().map(|(name, _)| (*name, object(name))).collect();
                vec![reply.append1(Variant(sessions))]
            }
            _ => vec![reply.append1(Variant(is_locked.contains(&session.as_str())))],
        },
        "GetAll" => {
            let kind = OURS.iter().find(|(name, _)| *name == session).unwrap().1;
            let class = if session == "manager" { "manager" } else { "user" };
            let mut all = PropMap::new();
            for (name, value) in [("Type", kind), ("Class", class), ("State", "active")] {
                all.insert(name.to_owned(), Variant(Box::new(value.to_owned())));
            }
            vec![reply.append1(all)]
        }
        "Lock" => {
            locked.send(session.clone()).unwrap();
            match manner {
                Manner::Hangs => Vec::new(),
                Manner::Shows(_) if session == "manager" => {
                    vec![message.error(&"org.freedesktop.DBus.Error.NotSupported".into(), c"no")]
                }
                Manner::Shows(shown) => {
                    let shown = shown.contains(&session.as_str()).then(|| hint(&session, true));
                    [signal(&session, "Lock"), reply].into_iter().chain(shown).collect()
                }
            }
        }
        _ => vec![reply],
    }
}

#[test]
fn logind_is_asked_to_lock_every_session_of_this_user() {
    let mut environment = start(Environment::builder());
    let Some((_bus, address)) = Bus::start(environment.folder()) else { skip!("dbus-daemon is not installed") };
    let logind = Logind::start(&address, Manner::Shows(&SCREENS));
    let mut watch = Watch::start(&environment, &address, &["--lock"]);
    environment.phone(0).unwrap().kill();
    watch.until_locked();
    assert_eq!(logind.told(), ["c1", "c2", "c3", "manager"]);
}

#[test]
fn a_lock_that_not_every_screen_shows_is_doubted_until_it_does() {
    let mut environment = start(Environment::builder());
    let Some((_bus, address)) = Bus::start(environment.folder()) else { skip!("dbus-daemon is not installed") };
    let logind = Logind::start(&address, Manner::Shows(&["c1", "c3"]));
    let mut watch = Watch::start(&environment, &address, &["--lock"]);
    environment.phone(0).unwrap().kill();
    watch.until("PERHAPS NOT LOCKED: session c2. logind was asked to lock, and nothing says that it did");
    watch.until("it is tried again while the phone stays away");
    assert_eq!(logind.locked.recv_timeout(SOON).unwrap(), "c1");
    logind.show("c2", true);
    watch.until("sessions are locked");
    let again: Vec<String> = logind.told().into_iter().skip(3).collect();
    assert!(
        again.iter().all(|session| session == "c2" || session == "manager"),
        "who shows it is asked again: {again:?}"
    );
}

#[test]
fn a_lock_that_nobody_shows_is_asked_for_a_few_times_and_then_given_up() {
    let mut environment = start(Environment::builder());
    let Some((_bus, address)) = Bus::start(environment.folder()) else { skip!("dbus-daemon is not installed") };
    let logind = Logind::start(&address, Manner::Shows(&[]));
    let mut watch = Watch::start(&environment, &address, &["--lock"]);
    environment.phone(0).unwrap().kill();
    for _ in 0..2 {
        watch.until("PERHAPS NOT LOCKED: sessions c1, c2");
    }
    assert_eq!(logind.told(), ["c1", "c2", "c3", "manager"].repeat(3));
    // Who opens it by the password stays in.
    assert!(logind.locked.recv_timeout(DAEMON_AWAY).is_err());
}

#[test]
fn a_logind_that_is_away_or_goes_is_asked_once_it_is_back() {
    let mut environment = start(Environment::builder());
    let Some((_bus, address)) = Bus::start(environment.folder()) else { skip!("dbus-daemon is not installed") };
    let shows = || Logind::start(&address, Manner::Shows(&SCREENS));
    let mut logind = shows();
    let mut watch = Watch::start(&environment, &address, &["--lock"]);
    let arrives = |environment: &mut Environment, watch: &mut Watch| {
        environment.phone(0).unwrap().restart().unwrap();
        watch.until("is here");
    };

    drop(logind);
    environment.phone(0).unwrap().kill();
    watch.until("has left");
    std::thread::sleep(Duration::from_secs(3));
    logind = shows();
    watch.until_locked();
    drop(logind);
    arrives(&mut environment, &mut watch);

    // It is killed before it answers, and when it has, to all, but before any session shows anything.
    for (manner, last) in [(Manner::Hangs, "c1"), (Manner::Shows(&[]), "manager")] {
        logind = Logind::start(&address, manner);
        environment.phone(0).unwrap().kill();
        while logind.locked.recv_timeout(SOON).unwrap() != last {}
        drop(logind);
        logind = shows();
        watch.until_locked();
        drop(logind);
        arrives(&mut environment, &mut watch);
    }

    // It stays away for longer than an attempt lasts.
    environment.phone(0).unwrap().kill();
    watch.until("NOT LOCKED");
    watch.until("logind does not answer");
    watch.until("it is tried again while the phone stays away");
    let _logind = shows();
    watch.until("all 2 sessions are locked");
}

#[test]
fn a_lock_shortly_before_or_while_logind_starts_anew_ends_verified_pins() {
    let environment = start(Environment::builder());
    let Some((_bus, address)) = Bus::start(environment.folder()) else { skip!("dbus-daemon is not installed") };
    let mut logind = Logind::start(&address, Manner::Shows(&[]));
    let mut watch = Watch::start(&environment, &address, &[]);
    watch.until_it_hears(&logind);
    watch.ended_until_quiet();
    logind.signal("c1", "Lock");
    drop(logind);
    watch.until("verified PINs ended");
    // What a session showed while nobody could say so.
    logind = Logind::start_with(&address, Manner::Shows(&[]), &["c2"]);
    watch.until("verified PINs ended");
    drop(logind);
    // Which it still shows.
    logind = Logind::start_with(&address, Manner::Shows(&[]), &["c2"]);
    assert_eq!(watch.ended_until_quiet(), 0);
    logind.signal("c1", "Lock");
    watch.until("verified PINs ended");
}

#[test]
fn a_session_that_locks_ends_a_verified_pin() {
    let environment = start(Environment::builder());
    let Some((_bus, address)) = Bus::start(environment.folder()) else { skip!("dbus-daemon is not installed") };
    let logind = Logind::start(&address, Manner::Shows(&SCREENS));
    let mut watch = Watch::start(&environment, &address, &[]);
    let mut client = Client::connected(&environment, 0);
    client.transmit(&SELECT).unwrap();
    let mut verify = vec![0x00, 0x20, 0x00, 0x80, 0x08];
    verify.extend(TEST_PIN.bytes().chain([0xFF; 2]));
    let verified = |client: &mut Client| {
        assert_eq!(client.transmit(&verify).unwrap(), [0x90, 0x00]);
        assert_eq!(client.transmit(&VERIFY_STATUS).unwrap(), [0x90, 0x00]);
    };
    let is_over = |client: &mut Client| client.transmit(&VERIFY_STATUS).unwrap() == [0x63, 0xC3];

    watch.until_it_hears(&logind);
    logind.signal("c2", "Unlock");
    verified(&mut client);
    logind.signal("c2", "Lock");
    watch.until("verified PINs ended");
    assert!(is_over(&mut client));
    logind.signal("c2", "Unlock");

    // A locker of its own, which only shows it.
    verified(&mut client);
    logind.signal(THEIRS, "Lock");
    logind.show(THEIRS, true);
    logind.show("c1", false);
    logind.show("c1", true);
    watch.until("verified PINs ended");
    assert!(is_over(&mut client));

    // A person, or a script.
    verified(&mut client);
    let ran = run(environment.command(program("pocketcard")).arg("end-pin"), SOON);
    assert!(ran.success, "{}", ran.text);
    assert!(is_over(&mut client), "and the card is still there for the program");
    verified(&mut client);
}

#[test]
fn another_users_lock_ends_nothing() {
    let environment = start(Environment::builder());
    let Some((_bus, address)) = Bus::start(environment.folder()) else { skip!("dbus-daemon is not installed") };
    let logind = Logind::start(&address, Manner::Shows(&SCREENS));
    let mut watch = Watch::start(&environment, &address, &[]);
    watch.until_it_hears(&logind);
    watch.ended_until_quiet();
    logind.signal(THEIRS, "Lock");
    logind.show(THEIRS, false);
    logind.show(THEIRS, true);
    // Signals come in their order: once this is answered, the others were.
    logind.signal("c1", "Lock");
    watch.until("verified PINs ended");
    assert_eq!(watch.ended_until_quiet(), 0);
}

#[test]
fn nobody_but_logind_is_believed() {
    let mut environment = start(Environment::builder());
    let Some((_bus, address)) = Bus::start(environment.folder()) else { skip!("dbus-daemon is not installed") };
    let logind = Logind::start(&address, Manner::Shows(&[]));
    let mut watch = Watch::start(&environment, &address, &["--lock"]);
    watch.until_it_hears(&logind);
    watch.ended_until_quiet();
    pretend(&address, || signal("c1", "Lock"));
    pretend(&address, || hint("c2", true));
    logind.signal("c1", "Lock");
    watch.until("verified PINs ended");
    assert_eq!(watch.ended_until_quiet(), 0);
    // A lock that nobody shows, and somebody says is shown.
    environment.phone(0).unwrap().kill();
    assert_eq!(logind.locked.recv_timeout(SOON).unwrap(), "c1");
    pretend(&address, || hint("c1", true));
    watch.until("nothing says that it did");
}
