//! Starts everything, has it measured, reports.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use clap::Args;
use pocketcard_dev::{Card, Environment, READER};
use serde_json::json;

use crate::card::{self, Happened};
use crate::client::{self, CHANGE_LIMIT, Changed, Exchanged};
use crate::clock::monotonic_us;
use crate::conversation::Process;
use crate::report::{Pass, Report};
use crate::samples::Samples;

/// Debian's driver of vsmartcard's virtual reader.
const VPCD: &str = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so";
/// Exchanges of one size with one reader before it is the next one's turn.
const BLOCK: usize = 200;
/// Longer than pcscd leaves an unused card powered: 5 s.
const IDLE: Duration = Duration::from_secs(6);
/// Longer than a link has to be up for the daemon to look at once, without a pause, whether its phone has ended.
const SETTLED: Duration = Duration::from_millis(150);

/// What a measurement could not do.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl Failure {
    pub(crate) fn of(what: &str) -> Self {
        Self(what.to_owned())
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// What to measure and where to write it.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A fifth of everything, and no second pass.
    #[arg(long)]
    quick: bool,
    /// Leave out presence, resets and power-off: only exchanges.
    #[arg(long)]
    exchanges_only: bool,
    /// Write the report here, for machines.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the report here, for people.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Part of a run: everything on one CPU, results as JSON on stdout.
    #[arg(long, hide = true)]
    pass: bool,
}

/// How often everything is done.
struct Counts {
    rounds: usize,
    changes: usize,
    links: usize,
    resets: usize,
    idles: usize,
}

impl Arguments {
    fn counts(&self) -> Counts {
        if self.quick {
            Counts { rounds: 20, changes: 40, links: 10, resets: 20, idles: 2 }
        } else {
            Counts { rounds: 100, changes: 200, links: 50, resets: 100, idles: 5 }
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if !Path::new(VPCD).is_file() {
        return Err(Failure::of("vpcd is not installed. Install it: apt-get install vsmartcard-vpcd"));
    }
    let free = measure(arguments, !arguments.exchanges_only && !arguments.pass)?;
    if arguments.pass {
        print(&serde_json::to_string(&free)?)?;
        return Ok(());
    }
    // Wakes across CPUs are most of the noise; with one CPU the work itself is seen.
    let one_cpu = if arguments.quick { None } else { Some(one_cpu()?) };
    let report = Report { quick: arguments.quick, free, one_cpu };
    let text = report.markdown();
    print(&text)?;
    if let Some(path) = &arguments.markdown {
        std::fs::write(path, &text)?;
    }
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&report.json())?)?;
    }
    Ok(())
}

fn print(text: &str) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}

/// The exchanges once more, every process on CPU 0.
fn one_cpu() -> Result<Pass, Failure> {
    let output = Command::new("taskset")
        .args(["--cpu-list", "0"])
        .arg(std::env::current_exe()?)
        .args(["run", "--exchanges-only", "--pass"])
        .stderr(std::process::Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(Failure::of("the pass on one CPU failed"));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn measure(arguments: &Arguments, everything: bool) -> Result<Pass, Failure> {
    let counts = arguments.counts();
    let port = free_ports()?;
    let mut environment =
        Environment::builder().card(Card::Empty).log_level("error").more_readers(vpcd_configuration(port)).start()?;
    let mut peer = Process::start(role("card", &[&port.to_string()])?)?;
    let mut command = role("client", &[])?;
    command.envs(environment.variables());
    let mut client = Process::start(command)?;

    let names: Vec<String> = client.ask(&client::Request::Readers, CHANGE_LIMIT)?;
    let find = |start: &str| {
        names
            .iter()
            .find(|name| name.starts_with(start))
            .cloned()
            .ok_or_else(|| Failure(format!("no {start}: {names:?}")))
    };
    let (theirs, ours) = (find("Virtual PCD")?, find(READER)?);
    let readers = vec![theirs.clone(), ours.clone()];

    // The phone reports every command to its script, unless told otherwise.
    environment.phone(0)?.kill();
    environment.wait_card(0, false, CHANGE_LIMIT)?;
    environment.phone(0)?.restart_with(&["--no-apdu-events"])?;
    environment.wait_card(0, true, CHANGE_LIMIT)?;
    inserted(&mut client, &mut peer, &theirs)?;

    let _: bool = client.ask(&client::Request::Prepare(ours.clone()), CHANGE_LIMIT)?;
    let exchange =
        client::Request::Exchange { readers: readers.clone(), ours: ours.clone(), rounds: counts.rounds, block: BLOCK };
    let exchanged: Vec<Exchanged> = client.ask(&exchange, Duration::from_secs(600))?;
    let mut pass = Pass::new(exchanged)?;
    if everything {
        let reset = client::Request::Reset { readers: readers.clone(), count: counts.resets };
        pass.reset = client.ask(&reset, Duration::from_secs(120))?;
        let idle = client::Request::Idle { readers, count: counts.idles, idle: IDLE };
        pass.idle = client.ask(&idle, Duration::from_secs(120))?;
        for change in 0..counts.changes {
            peer_presence(&mut client, &mut peer, &theirs, change, &mut pass)?;
            lock_presence(&mut client, &mut environment, &ours, &mut pass)?;
        }
        for _ in 0..counts.links {
            link_presence(&mut client, &mut environment, &ours, &mut pass)?;
        }
    }
    Ok(pass)
}

/// This program in another role.
fn role(name: &str, arguments: &[&str]) -> Result<Command, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(name).args(arguments);
    Ok(command)
}

/// Two free ports beside each other: vpcd has two slots and takes one for each.
fn free_ports() -> Result<u16, Failure> {
    for _ in 0..100 {
        let first = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let free = |port: Option<u16>| port.is_some_and(|port| TcpListener::bind(("0.0.0.0", port)).is_ok());
        if free(Some(first)) && free(first.checked_add(1)) {
            return Ok(first);
        }
    }
    Err(Failure::of("no two free ports beside each other"))
}

fn vpcd_configuration(port: u16) -> String {
    format!("FRIENDLYNAME \"Virtual PCD\"\nDEVICENAME /dev/null:0x{port:04X}\nLIBPATH {VPCD}\nCHANNELID 0x{port:04X}\n")
}

fn inserted(client: &mut Process, peer: &mut Process, reader: &str) -> Result<(), Failure> {
    change(client, reader, true, || Ok(peer.ask::<Happened>(&card::Request::Insert, CHANGE_LIMIT)?.at_us)).map(|_| ())
}

/// Has the client watch, lets something happen, and returns how long after it PC/SC said so, in microseconds.
///
/// - `happen`: returns when it happened.
fn change(
    client: &mut Process,
    reader: &str,
    present: bool,
    happen: impl FnOnce() -> Result<u64, Failure>,
) -> Result<f64, Failure> {
    let now: Changed = client.ask(&client::Request::Watch { reader: reader.to_owned(), present }, CHANGE_LIMIT)?;
    if now.present == present {
        return Err(Failure(format!("{reader}: present is {present} before anything happened")));
    }
    let at_us = happen()?;
    let changed: Changed = client.receive(CHANGE_LIMIT)?;
    // Less than nothing: PC/SC was told before the side where it happened had written it down.
    Ok(changed.at_us.saturating_sub(at_us) as f64)
}

/// vpcd's card out and in, at another moment of pcscd's poll each time.
fn peer_presence(
    client: &mut Process,
    peer: &mut Process,
    reader: &str,
    turn: usize,
    pass: &mut Pass,
) -> Result<(), Failure> {
    let moment = Duration::from_millis((turn as u64 * 37) % 400);
    std::thread::sleep(moment);
    let ask = |peer: &mut Process, request| Ok(peer.ask::<Happened>(&request, CHANGE_LIMIT)?.at_us);
    pass.peer_removed.push(change(client, reader, false, || ask(peer, card::Request::Remove))?);
    std::thread::sleep(Duration::from_millis(400).saturating_sub(moment));
    pass.peer_inserted.push(change(client, reader, true, || ask(peer, card::Request::Insert))?);
    Ok(())
}

/// The owner takes the card out of the reader on the phone, and puts it in again; the link stays.
fn lock_presence(
    client: &mut Process,
    environment: &mut Environment,
    reader: &str,
    pass: &mut Pass,
) -> Result<(), Failure> {
    let mut tell = |command: &str| {
        let at_us = monotonic_us();
        environment.phone(0)?.send(&json!({ "command": command }))?;
        Ok(at_us)
    };
    pass.locked.push(change(client, reader, false, || tell("lock"))?);
    pass.unlocked.push(change(client, reader, true, || tell("unlock"))?);
    Ok(())
}

/// The phone is killed and comes back: from the moment at which its channel is open.
fn link_presence(
    client: &mut Process,
    environment: &mut Environment,
    reader: &str,
    pass: &mut Pass,
) -> Result<(), Failure> {
    thread::sleep(SETTLED);
    pass.killed.push(change(client, reader, false, || {
        let at_us = monotonic_us();
        environment.phone(0)?.kill();
        Ok(at_us)
    })?);
    pass.connected.push(change(client, reader, true, || {
        let phone = environment.phone(0)?;
        phone.restart_with(&["--no-apdu-events"])?;
        phone.wait_event("its channel being open", CHANGE_LIMIT, |event| event["event"] == "connected")?;
        // When its report was read here: a little late, so the latency comes out a little short. The rows of the
        // locked card, which begin before the phone is told, are as much too long.
        Ok(monotonic_us())
    })?);
    Ok(())
}

/// Both readers' samples, as the client sends them.
pub(crate) fn both<T>(samples: Vec<T>) -> Result<[T; 2], Failure> {
    samples.try_into().map_err(|_| Failure::of("not two readers"))
}

/// No samples, for both readers.
pub(crate) fn none() -> Vec<Samples> {
    vec![Samples::default(), Samples::default()]
}
