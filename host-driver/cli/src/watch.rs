//! `pocketcard watch`: prints what happens, shows notices on the desktop, and runs what the user wants done when the
//! phone leaves or comes. `pocketcard status --watch`, a live view, is beside it.

mod aside;
mod check;
mod error;
mod feed;
mod hooks;
mod live;
mod locking;
#[cfg_attr(not(target_os = "linux"), path = "watch/session_elsewhere.rs")]
mod session;
mod settings;
mod slots;
mod walk_away;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use pocketcard_ipc::control::{Client, ClientError, Event, Reply, Status};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::Failure;
use crate::notices::Notices;
use crate::status::screen;
use crate::terminal::{complaint, end_with_reader};

use aside::{Aside, Line};
pub(crate) use error::WatchError;
use feed::Told;
use hooks::{Hook, Hooks, Outcome};
pub(crate) use live::live_view;
use live::{line_of_json, words};
use locking::UnderWay;
use session::{SessionError, Shown};
use settings::Settings;
use walk_away::{Action, Reason, WalkAway, Who};

#[derive(Debug, clap::Args)]
#[command(after_help = settings::HELP)]
pub(crate) struct Arguments {
    /// Print JSON for programs, one line per change, as `pocketcard status --watch --json` does.
    #[arg(long)]
    json: bool,
    /// Only print; show nothing on the desktop.
    #[arg(long)]
    no_notices: bool,
    /// The only phone that counts, by its name, its id, or the start of its id; without it, the last one that leaves and
    /// the first one that comes.
    #[arg(long, value_name = "NAME")]
    phone: Option<String>,
    /// Lock the sessions of this user when the phone leaves, by logind.
    #[arg(long)]
    lock: bool,
    /// Run this by /bin/sh when the phone leaves.
    #[arg(long, value_name = "COMMAND")]
    on_leave: Option<String>,
    /// Run this by /bin/sh when the phone comes.
    #[arg(long, value_name = "COMMAND")]
    on_arrive: Option<String>,
    /// Read this instead of ~/.config/pocketcard/watch.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only print what would be done.
    #[arg(long, conflicts_with = "json")]
    check: bool,
}

/// What the watcher waits for.
#[derive(Debug)]
enum Input {
    Daemon(Told),
    /// A command that was started has ended.
    HookEnded,
    /// Whether the sessions were locked: at which departure, and whether it is tried again.
    Locked {
        departure: u64,
        outcome: locking::Outcome,
        again: bool,
    },
    /// A line for the person.
    Note(String),
    /// Ctrl-C and the like.
    Stop,
}

/// Prints every event, shows notices and runs commands, until nobody reads any more or somebody ends it.
pub(crate) fn run(
    arguments: &Arguments,
    connect: impl Fn() -> Result<Client, Failure> + Clone + Send + 'static,
) -> Result<ExitCode, Failure> {
    let given = Settings {
        phone: arguments.phone.clone(),
        lock: arguments.lock,
        on_leave: arguments.on_leave.clone(),
        on_arrive: arguments.on_arrive.clone(),
    };
    let (settings, file) = given.load(arguments.config.as_deref())?;
    if arguments.check {
        return check::run(&settings, file.as_deref(), &connect()?.status()?);
    }
    end_with_reader();
    let (sender, inputs) = mpsc::channel();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|source| Failure::System { what: "catching signals", source })?;
    let stop = sender.clone();
    thread::spawn(move || signals.forever().for_each(|_| drop(stop.send(Input::Stop))));
    let (dial, told) = (connect.clone(), sender.clone());
    thread::spawn(move || feed::run(dial, &told));
    let said = sender.clone();
    thread::spawn(move || end_pins(connect, &said));
    let mut watcher = Watcher {
        json: arguments.json,
        settings,
        sender,
        lines: aside::lines(),
        has_lost_lines: false,
        notices: (!arguments.no_notices).then(notices),
        walk_away: None,
        hooks: Hooks::default(),
        departures: 0,
        locking: None,
        alarm: None,
        lost: None,
    };
    loop {
        let deadline = watcher.deadline();
        let input = match deadline {
            Some(deadline) => inputs.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            None => inputs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match input {
            Ok(Input::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(ExitCode::SUCCESS),
            Ok(Input::Daemon(told)) => watcher.told(told)?,
            Ok(Input::Locked { departure, outcome, again }) => watcher.locked(departure, outcome, again),
            Ok(Input::Note(text)) => watcher.note(text),
            Ok(Input::HookEnded) | Err(RecvTimeoutError::Timeout) => {}
        }
        watcher.pass(Instant::now())?;
    }
}

struct Watcher {
    json: bool,
    settings: Settings,
    sender: Sender<Input>,
    lines: Aside<Line>,
    /// Whoever reads them reads too slowly.
    has_lost_lines: bool,
    notices: Option<Aside<Notice>>,
    /// Absent until the daemon was there.
    walk_away: Option<WalkAway>,
    hooks: Hooks,
    /// How often the phone left.
    departures: u64,
    /// The lock of the last one, until it is known how it ended.
    locking: Option<UnderWay>,
    /// What was said last of a lock that nobody shows.
    alarm: Option<String>,
    /// Why the daemon cannot be reached, if waiting alone will not help.
    lost: Option<Failure>,
}

impl Watcher {
    fn deadline(&self) -> Option<Instant> {
        let away = self.walk_away.as_ref().and_then(WalkAway::deadline);
        [away, self.hooks.deadline()].into_iter().flatten().min()
    }

    fn told(&mut self, told: Told) -> Result<(), Failure> {
        let action = match told {
            Told::Status(status) => {
                self.lost = None;
                let walk_away = match &mut self.walk_away {
                    Some(walk_away) => walk_away,
                    none => none.insert(WalkAway::new(watched(self.settings.phone.as_deref(), &status)?)),
                };
                let action = walk_away.status(&status);
                waiting(self.notices.as_ref(), &status, walk_away);
                let text = screen(&status);
                self.show(&Reply::Status(status), &text)?;
                action
            }
            Told::Event(event) => {
                let action = self.walk_away.as_mut().and_then(|walk_away| walk_away.event(&event, Instant::now()));
                if let (Some(notices), Some(walk_away)) = (&self.notices, &self.walk_away) {
                    notices.give(Notice::of(&event, walk_away));
                }
                let text = format!("{}\n", words(&event));
                self.show(&Reply::Event(event), &text)?;
                action
            }
            Told::Away(failure) => return self.away(failure),
        };
        self.act(action);
        Ok(())
    }

    /// The daemon is away. Without one at the start there is nothing to watch.
    fn away(&mut self, failure: Failure) -> Result<(), Failure> {
        let Some(walk_away) = &mut self.walk_away else { return Err(failure) };
        if self.lost.is_none() {
            self.lines.give(Line::Note(complaint(&failure)));
        }
        walk_away.daemon_lost(Instant::now());
        if let Some(notices) = &self.notices {
            notices.give(Notice::None);
        }
        self.lost = Some(failure);
        Ok(())
    }

    /// Does what is due.
    fn pass(&mut self, now: Instant) -> Result<(), Failure> {
        let action = self.walk_away.as_mut().and_then(|walk_away| walk_away.due(now));
        self.act(action);
        for outcome in self.hooks.look(now) {
            match outcome {
                Outcome::Ended(_, status) if status.success() => {}
                Outcome::Ended(hook, status) => {
                    self.note(format!("the command of --{} failed: {status}", hook.option()))
                }
                Outcome::Failed(hook, error) => self.note(format!("the command of --{}: {error}", hook.option())),
                Outcome::Killed(hook) => self.note(format!(
                    "the command of --{} was killed: it ran for {} s",
                    hook.option(),
                    hooks::ARRIVE_LIMIT.as_secs()
                )),
            }
        }
        // What no waiting mends ends the watcher, but not before a phone counts as one that left, and the lock is done.
        let is_idle = self.walk_away.as_ref().is_none_or(|walk_away| walk_away.deadline().is_none());
        let is_idle = is_idle && self.locking.is_none();
        match self.lost.take_if(|failure| is_idle && is_final(failure)) {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    fn act(&mut self, action: Option<Action>) {
        let (hook, who, why) = match &action {
            None => return,
            Some(Action::Leave(who, Reason::CardRemoved)) => (Hook::Leave, who, "has left"),
            Some(Action::Leave(who, Reason::DaemonAway)) => {
                (Hook::Leave, who, "counts as one that left: the daemon went away, and the phone was not back in time")
            }
            Some(Action::Arrive(who)) => (Hook::Arrive, who, "is here"),
        };
        self.note(format!("slot {}: {} {why}", who.slot, if who.phone.is_empty() { "a phone" } else { &who.phone }));
        self.run(hook, who);
    }

    fn run(&mut self, hook: Hook, who: &Who) {
        match hook {
            Hook::Leave if self.settings.lock => self.lock(),
            Hook::Leave => {}
            Hook::Arrive => {
                (self.locking, self.alarm) = (None, None);
                self.notice(Notice::NotOpen);
            }
        }
        let command = match hook {
            Hook::Leave => &self.settings.on_leave,
            Hook::Arrive => &self.settings.on_arrive,
        };
        let Some(command) = command else { return };
        if let Err(error) = self.hooks.start(hook, command, who, self.sender.clone(), Instant::now()) {
            self.note(format!("the command of --{} could not be run: {error}", hook.option()));
        }
    }

    fn lock(&mut self) {
        self.departures += 1;
        self.alarm = None;
        let (departure, sender) = (self.departures, self.sender.clone());
        let say = move |outcome, again| drop(sender.send(Input::Locked { departure, outcome, again }));
        self.locking = Some(UnderWay::begin(say));
    }

    /// Says how an attempt to lock went: loudly, unless it is sure.
    fn locked(&mut self, departure: u64, outcome: locking::Outcome, again: bool) {
        // Of an earlier departure, or said as the phone came back.
        if departure != self.departures || self.locking.is_none() {
            return;
        }
        if !again {
            self.locking = None;
        }
        let is_sure = matches!(outcome, Ok(Shown::Locked(_)));
        let text = words_of_lock(outcome, again);
        if is_sure {
            self.alarm = None;
            self.note(text);
            self.notice(Notice::NotOpen);
        } else if self.alarm.as_ref() != Some(&text) {
            self.lines.give(Line::Alarm(text.clone()));
            self.notice(Notice::Open(text.clone()));
            self.alarm = Some(text);
        }
    }

    fn notice(&self, notice: Notice) {
        if let Some(notices) = &self.notices {
            notices.give(notice);
        }
    }

    fn show(&mut self, reply: &Reply, text: &str) -> Result<(), Failure> {
        if self.has_lost_lines {
            let lost = Event::Lagged {};
            let text = format!("{}\n", words(&lost));
            let text = if self.json { line_of_json(&Reply::Event(lost))? } else { text };
            self.has_lost_lines = !self.lines.give(Line::Output(text));
        }
        let text = if self.json { line_of_json(reply)? } else { text.to_owned() };
        self.has_lost_lines = self.has_lost_lines || !self.lines.give(Line::Output(text));
        Ok(())
    }

    fn note(&self, text: String) {
        self.lines.give(Line::Note(text));
    }
}

/// What a desktop may have to show.
#[derive(Debug)]
enum Notice {
    Event(Box<Event>, Option<String>),
    /// The session may be open, with why.
    Open(String),
    /// It is not any more, or the phone is back.
    NotOpen,
    /// Nothing any more.
    None,
}

impl Notice {
    fn of(event: &Event, walk_away: &WalkAway) -> Self {
        let slot = match event {
            Event::Pending { slot, .. } | Event::Refused { slot, .. } => Some(*slot),
            _ => None,
        };
        Self::Event(Box::new(event.clone()), slot.and_then(|slot| walk_away.name(slot)).map(str::to_owned))
    }
}

fn notices() -> Aside<Notice> {
    Aside::new(|| {
        let mut notices = Notices::new();
        move |notice| match notice {
            Notice::Event(event, phone) => notices.event(&event, |_| phone.as_deref()),
            Notice::Open(why) => notices.open_session(&why),
            Notice::NotOpen => notices.close_open_session(),
            Notice::None => notices.close_all(),
        }
    })
}

/// What waits already is worth a notice, too.
fn waiting(notices: Option<&Aside<Notice>>, status: &Status, walk_away: &WalkAway) {
    let Some(notices) = notices else { return };
    for slot in &status.slots {
        if let Some(reason) = &slot.waiting {
            let event = Event::Pending { slot: slot.slot, reason: reason.clone(), operation: slot.operation };
            notices.give(Notice::of(&event, walk_away));
        }
    }
}

/// Has verified PINs end whenever a session of this user locks.
fn end_pins(connect: impl Fn() -> Result<Client, Failure>, inputs: &Sender<Input>) {
    let note = |text| drop(inputs.send(Input::Note(text)));
    let end = || {
        let ended = connect().and_then(|mut client| Ok(client.end_pin()?));
        match ended {
            Ok(()) => note("the session was locked: verified PINs ended".to_owned()),
            Err(failure) => note(complaint(&failure)),
        }
    };
    let mut is_known = false;
    let mut listener = session::Listener::default();
    loop {
        if let Err(error) = session::listen(&mut listener, end) {
            if !is_known {
                note(format!("no word of sessions that lock, so that PINs go on being verified then: {error}"));
            }
            is_known = true;
        }
        thread::sleep(BUS_RETRY);
    }
}

/// How an attempt to lock went, in words.
fn words_of_lock(outcome: locking::Outcome, again: bool) -> String {
    let text = match outcome {
        Ok(Shown::Locked(0 | 1)) => return "the session is locked".to_owned(),
        Ok(Shown::Locked(number)) => return format!("all {number} sessions are locked"),
        Ok(Shown::Back) => return "the phone is back".to_owned(),
        Ok(Shown::Doubted(sessions)) => {
            let what = if sessions.len() == 1 { "session" } else { "sessions" };
            format!(
                "PERHAPS NOT LOCKED: {what} {}. logind was asked to lock, and nothing says that it did. If the screen is open: a \
                 screen locker has to act on it, such as xss-lock's, or name yours with --on-leave",
                sessions.join(", ")
            )
        }
        Err(error) => format!("NOT LOCKED\n{}", complaint(&WatchError::from(error).into())),
    };
    if again { text + "\nit is tried again while the phone stays away" } else { text }
}

/// Whether nothing but another program, or another group, helps.
fn is_final(failure: &Failure) -> bool {
    !matches!(
        failure,
        Failure::Control(
            ClientError::NotRunning { .. }
                | ClientError::Closed
                | ClientError::TimedOut
                | ClientError::Io(_)
                | ClientError::Unexpected
        )
    )
}

/// The id of the phone that is watched, if only one is.
fn watched(wanted: Option<&str>, status: &Status) -> Result<Option<String>, WatchError> {
    let Some(wanted) = wanted else { return Ok(None) };
    let lower = wanted.to_lowercase();
    let phones = || status.slots.iter().filter_map(|slot| slot.phone.as_ref());
    // Whatever another phone calls itself, a whole id is one phone's.
    if let Some(phone) = phones().find(|phone| phone.id == lower) {
        return Ok(Some(phone.id.clone()));
    }
    let fits = |id: &str| wanted.len() >= SHORTEST_ID && id.starts_with(&lower);
    let mut found = phones().filter(|phone| phone.name == wanted || fits(&phone.id)).map(|phone| phone.id.clone());
    match (found.next(), found.next()) {
        (None, _) => Err(WatchError::NoSuchPhone(wanted.to_owned())),
        (Some(id), None) => Ok(Some(id)),
        (Some(_), Some(_)) => Err(WatchError::SeveralPhones(wanted.to_owned())),
    }
}

/// Before logind is listened to again, after the bus went away.
const BUS_RETRY: Duration = Duration::from_secs(10);

/// How much of an id names a phone, as for the daemon.
const SHORTEST_ID: usize = 4;

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use pocketcard_ipc::Side;
    use pocketcard_ipc::control::{Phone, SlotStatus};

    use super::walk_away::DAEMON_AWAY_LIMIT;
    use super::*;
    use crate::fixtures;

    fn status() -> Status {
        let phone = |slot, id: &str, name: &str| SlotStatus {
            slot,
            card_present: true,
            phone: Some(Phone { id: id.to_owned(), name: name.to_owned(), slot, ..fixtures::phone() }),
            ..fixtures::slot()
        };
        Status { slots: vec![phone(0, "aa00bb", "Pixel"), phone(1, "aa00cc", "AA00BB")], ..fixtures::status() }
    }

    fn watcher() -> Watcher {
        Watcher {
            json: false,
            settings: Settings::default(),
            sender: mpsc::channel().0,
            lines: aside::lines(),
            has_lost_lines: false,
            notices: None,
            walk_away: None,
            hooks: Hooks::default(),
            departures: 0,
            locking: None,
            alarm: None,
            lost: None,
        }
    }

    fn newer() -> Failure {
        ClientError::Version { ours: 1, theirs: 2, update: Side::Ours }.into()
    }

    fn refused() -> Failure {
        ClientError::Refused { path: PathBuf::from("/p") }.into()
    }

    #[test]
    fn without_a_daemon_at_the_start_nothing_is_watched() {
        for failure in [refused(), newer(), ClientError::Closed.into()] {
            watcher().told(Told::Away(failure)).unwrap_err();
        }
    }

    #[test]
    fn what_no_waiting_mends_ends_it_once_the_phone_counts_as_one_that_left() {
        for failure in [refused, newer] {
            let mut watcher = watcher();
            watcher.told(Told::Status(status())).unwrap();
            watcher.told(Told::Away(failure())).unwrap();
            let now = Instant::now();
            watcher.pass(now).unwrap();
            assert!(watcher.deadline().is_some_and(|deadline| deadline > now));
            watcher.pass(now + DAEMON_AWAY_LIMIT).unwrap_err();
        }
    }

    #[test]
    fn what_no_waiting_mends_ends_it_only_once_it_is_known_how_the_lock_ended() {
        let mut watcher = watcher();
        watcher.told(Told::Status(status())).unwrap();
        watcher.told(Told::Away(refused())).unwrap();
        let (under_way, _back) = UnderWay::for_testing_only();
        (watcher.departures, watcher.locking) = (2, Some(under_way));
        let later = Instant::now() + DAEMON_AWAY_LIMIT;
        watcher.pass(later).unwrap();
        watcher.locked(2, Ok(Shown::Doubted(Vec::new())), true);
        watcher.locked(1, Ok(Shown::Locked(1)), false);
        watcher.pass(later).unwrap();
        watcher.locked(2, Ok(Shown::Locked(1)), false);
        watcher.pass(later).unwrap_err();
    }

    #[test]
    fn a_phone_that_is_back_ends_the_attempts_to_lock() {
        let mut watcher = watcher();
        let (under_way, back) = UnderWay::for_testing_only();
        watcher.locking = Some(under_way);
        watcher.run(Hook::Arrive, &Who { phone: String::new(), slot: 0 });
        assert_eq!(back.try_recv(), Err(mpsc::TryRecvError::Disconnected));
        watcher.locked(0, Ok(Shown::Doubted(Vec::new())), false);
        assert_eq!(watcher.alarm, None, "what was under way alarms nobody who is back");
    }

    #[test]
    fn a_daemon_that_is_only_away_is_waited_for() {
        let mut watcher = watcher();
        watcher.told(Told::Status(status())).unwrap();
        watcher.told(Told::Away(ClientError::Closed.into())).unwrap();
        watcher.pass(Instant::now() + DAEMON_AWAY_LIMIT * 100).unwrap();
        assert_eq!(watcher.deadline(), None);
        watcher.told(Told::Status(status())).unwrap();
    }

    #[test]
    fn a_phone_is_watched_by_its_id_however_it_was_named() {
        let watched = |wanted| watched(Some(wanted), &status());
        assert_eq!(super::watched(None, &status()).unwrap(), None);
        assert_eq!(watched("Pixel").unwrap().as_deref(), Some("aa00bb"));
        assert_eq!(watched("aa00c").unwrap().as_deref(), Some("aa00cc"));
        assert!(matches!(watched("aa0"), Err(WatchError::NoSuchPhone(_))), "too short for an id");
        assert!(matches!(watched("aa00"), Err(WatchError::SeveralPhones(_))));
        assert_eq!(watched("AA00BB").unwrap().as_deref(), Some("aa00bb"), "and nobody who calls themselves that");
    }
}
