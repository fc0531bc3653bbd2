//! Loads two drivers into a real pcscd and uses them through PC/SC.
//!
//! The pcscd is private: it runs in a mount namespace of its own, so that it neither meets nor disturbs the machine's own.
//! Reported as ignored, with the reason, where there is no pcscd or no right to make a namespace.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::ffi::{CStr, CString};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio, exit};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use pcsc::{Attribute, Card, Context, Disposition, Error, Protocols, ReaderState, Scope, ShareMode, State};

const LIMIT: Duration = Duration::from_secs(15);
const ECHO: &CStr = c"Echo reader 00 00";
const SLOT: [&CStr; 2] = [c"Scripted reader 00 00", c"Scripted reader 00 01"];

/// A private pcscd with both drivers.
struct Pcscd {
    child: Child,
    slots: Vec<UnixStream>,
}

impl Drop for Pcscd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Pcscd {
    fn start(folder: &Path) -> Self {
        let (run, conf, socket) = (folder.join("run"), folder.join("conf"), folder.join("card.sock"));
        for path in [&run, &conf] {
            let _ = std::fs::remove_dir_all(path);
            std::fs::create_dir(path).unwrap();
        }
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let entry = |name: &str, device: &str, library: &str| {
            let library = example(library);
            format!("FRIENDLYNAME \"{name}\"\nDEVICENAME {device}\nLIBPATH {}\n", library.display())
        };
        std::fs::write(conf.join("0-echo"), entry("Echo reader", "echo:", "echo_reader")).unwrap();
        std::fs::write(conf.join("1-scripted"), entry("Scripted reader", socket.to_str().unwrap(), "scripted_reader"))
            .unwrap();
        let child =
            namespace("mount --bind \"$0/run\" /run/pcscd && exec setpriv --pdeathsig KILL pcscd -f -c \"$0/conf\"")
                .arg(folder)
                .stdin(Stdio::null())
                .stdout(std::fs::File::create(folder.join("log")).unwrap())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
        let mut pcscd = Self { child, slots: Vec::new() };
        for number in [b'0', b'1'] {
            let (mut slot, _) = listener.accept().unwrap();
            slot.set_read_timeout(Some(LIMIT)).unwrap();
            let mut octet = [0];
            slot.read_exact(&mut octet).unwrap();
            assert_eq!(octet, [number]);
            pcscd.slots.push(slot);
        }
        pcscd
    }

    fn context(&self) -> Context {
        let deadline = Instant::now() + LIMIT;
        loop {
            // pcscd does not say when it listens.
            match Context::establish(Scope::User) {
                Ok(context) => return context,
                Err(error) => assert!(Instant::now() < deadline, "pcscd does not answer: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn tell(&mut self, slot: usize, what: u8) {
        self.slots[slot].write_all(&[what]).unwrap();
    }

    /// What pcscd did to a slot since the last call, up to and including `last`.
    fn until(&mut self, slot: usize, last: u8) -> String {
        let mut done = String::new();
        loop {
            let mut octet = [0];
            self.slots[slot].read_exact(&mut octet).unwrap_or_else(|error| panic!("{error} after {done:?}"));
            done.push(char::from(octet[0]));
            if octet[0] == last {
                return done;
            }
        }
    }

    fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

/// A shell in a namespace of its own with an empty /run, as root or as an ordinary user.
fn namespace(script: &str) -> Command {
    let mut command = Command::new("unshare");
    let root = std::fs::metadata("/proc/self").is_ok_and(|data| std::os::unix::fs::MetadataExt::uid(&data) == 0);
    command.arg(if root { "-m" } else { "-Urm" }).args(["sh", "-c"]);
    command.arg(format!("mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir /run/pcscd && {script}"));
    command
}

/// Cargo puts examples beside the folder of the test programs.
fn example(name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.ancestors().nth(2).unwrap().join(format!("examples/lib{name}.so"))
}

fn missing() -> Option<String> {
    if cfg!(not(target_os = "linux")) {
        return Some("mount namespaces need Linux".to_owned());
    }
    let works = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    if !works(Command::new("pcscd").arg("--version")) {
        return Some("no pcscd: apt install pcscd".to_owned());
    }
    if !works(&mut namespace("true")) {
        return Some("no right to make a mount namespace".to_owned());
    }
    ["echo_reader", "scripted_reader"]
        .iter()
        .find(|name| !example(name).exists())
        .map(|name| format!("not built: cargo build -p ifd-handler --example {name}"))
}

fn connect(context: &Context, reader: &CStr) -> Result<Card, Error> {
    context.connect(reader, ShareMode::Shared, Protocols::ANY)
}

fn transmit(card: &Card, command: &[u8]) -> Result<Vec<u8>, Error> {
    let mut buffer = vec![0; 70_000];
    card.transmit(command, &mut buffer).map(<[u8]>::to_vec)
}

/// Waits until pcscd reports the card present or absent, and gives its event count.
fn await_card(context: &Context, reader: &CStr, present: bool) -> u32 {
    let mut states = [ReaderState::new(reader, State::UNAWARE)];
    let deadline = Instant::now() + LIMIT;
    loop {
        context.get_status_change(LIMIT, &mut states).unwrap();
        if states[0].event_state().contains(State::PRESENT) == present {
            return states[0].event_count();
        }
        assert!(Instant::now() < deadline, "never present == {present}: {:?}", states[0].event_state());
        states[0].sync_current_state();
    }
}

fn commands_reach_the_echo_card(pcscd: &mut Pcscd) {
    let context = pcscd.context();
    await_card(&context, ECHO, true);
    let mut names: Vec<CString> = context.list_readers_owned().unwrap();
    names.sort();
    assert_eq!(names, [ECHO, SLOT[0], SLOT[1]]);
    let mut card = connect(&context, ECHO).unwrap();
    assert_eq!(transmit(&card, b"\x00\xA4\x04\x00").unwrap(), b"\x00\xA4\x04\x00\x90\x00");
    let long = vec![0x5A; 65_500];
    assert_eq!(transmit(&card, &long).unwrap().len(), 65_502);
    // The response is one octet longer than pcscd's buffer; the next command is not disturbed.
    assert_eq!(transmit(&card, &vec![0; 65_547]), Err(Error::NotTransacted));
    assert_eq!(transmit(&card, b"abcd").unwrap(), b"abcd\x90\x00");
    assert_eq!(card.status2_owned().unwrap().protocol2(), Some(pcsc::Protocol::T1));
    assert_eq!(card.get_attribute_owned(Attribute::AtrString).unwrap(), [0x3B, 0x80, 0x01, 0x81]);
    assert_eq!(card.get_attribute_owned(Attribute::VendorIfdSerialNo), Err(Error::UnsupportedFeature));
    let mut buffer = [0; 64];
    assert_eq!(card.control(0x4200_0001_u32.into(), b"ping", &mut buffer).unwrap(), b"ping");
    assert_eq!(card.control(0x4200_0D48_u32.into(), b"", &mut buffer), Err(Error::UnsupportedFeature));
    card.reconnect(ShareMode::Shared, Protocols::ANY, Disposition::ResetCard).unwrap();
    card.reconnect(ShareMode::Shared, Protocols::ANY, Disposition::UnpowerCard).unwrap();
    assert_eq!(transmit(&card, b"abcd").unwrap(), b"abcd\x90\x00");
}

fn a_card_comes_and_goes_by_push(pcscd: &mut Pcscd) {
    let context = pcscd.context();
    await_card(&context, SLOT[1], false);
    let mut delays = Vec::new();
    for _ in 0..10 {
        for (what, present) in [(b'i', true), (b'r', false)] {
            let start = Instant::now();
            pcscd.tell(1, what);
            await_card(&context, SLOT[1], present);
            delays.push(start.elapsed());
        }
    }
    delays.sort();
    let median = delays[delays.len() / 2];
    eprintln!("presence: median {median:?}, greatest {:?}", delays.last().unwrap());
    assert!(median < Duration::from_millis(100), "pcscd polls instead of waiting: {delays:?}");
    await_card(&context, SLOT[0], false);
}

fn a_swapped_card_is_removed_first(pcscd: &mut Pcscd) {
    let context = pcscd.context();
    pcscd.tell(0, b'i');
    let count = await_card(&context, SLOT[0], true);
    let card = connect(&context, SLOT[0]).unwrap();
    assert_eq!(transmit(&card, b"abcd").unwrap(), b"\0\0\0\0\0\0\0\x01\x90\x00");
    pcscd.tell(0, b's');
    let deadline = Instant::now() + LIMIT;
    while await_card(&context, SLOT[0], true) < count + 2 {
        assert!(Instant::now() < deadline, "the swap was not seen as a removal and an insertion");
    }
    assert!(matches!(transmit(&card, b"abcd"), Err(Error::RemovedCard)), "the old handle must be dead");
    let card = connect(&context, SLOT[0]).unwrap();
    assert_eq!(transmit(&card, b"abcd").unwrap(), b"\0\0\0\0\0\0\0\x02\x90\x00");
}

fn a_card_found_gone_is_gone_and_comes_back(pcscd: &mut Pcscd) {
    let context = pcscd.context();
    pcscd.tell(0, b'i');
    await_card(&context, SLOT[0], true);
    for _ in 0..5 {
        let count = await_card(&context, SLOT[0], true);
        let card = connect(&context, SLOT[0]).unwrap();
        assert_eq!(transmit(&card, &[0xA0]), Err(Error::NoSmartcard));
        let deadline = Instant::now() + LIMIT;
        while await_card(&context, SLOT[0], true) < count + 2 {
            assert!(Instant::now() < deadline, "the loss was not seen");
        }
        assert_eq!(transmit(&card, b"abcd"), Err(Error::RemovedCard));
        let card = connect(&context, SLOT[0]).unwrap();
        assert_eq!(transmit(&card, b"abcd").unwrap(), b"\0\0\0\0\0\0\0\x01\x90\x00");
    }
}

fn an_unused_card_is_powered_off_after_five_seconds_and_nothing_spins(pcscd: &mut Pcscd) {
    let context = pcscd.context();
    pcscd.tell(0, b'i');
    await_card(&context, SLOT[0], true);
    assert_eq!(pcscd.until(0, b'U'), "U");
    let start = Instant::now();
    assert_eq!(pcscd.until(0, b'D'), "D");
    assert!(start.elapsed() > Duration::from_secs(4), "powered off early, after {:?}", start.elapsed());
    // Every last disconnect calls the stop function.
    for _ in 0..20 {
        let card = connect(&context, SLOT[0]).unwrap();
        transmit(&card, b"abcd").unwrap();
        card.disconnect(Disposition::LeaveCard).map_err(|(_, error)| error).unwrap();
    }
    let before = pcscd.cpu_ticks();
    std::thread::sleep(Duration::from_secs(1));
    let used = pcscd.cpu_ticks() - before;
    assert!(used <= 10, "pcscd spins: {used} ticks of CPU time in a second");
}

fn pcscd_ends_beside_a_blocked_command(pcscd: &mut Pcscd) {
    let context = pcscd.context();
    pcscd.tell(0, b'i');
    await_card(&context, SLOT[0], true);
    let card = connect(&context, SLOT[0]).unwrap();
    let client = std::thread::spawn(move || transmit(&card, &[0xB0]));
    pcscd.until(0, b'B');
    let start = Instant::now();
    let pid = pcscd.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    while pcscd.child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < LIMIT, "pcscd does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    eprintln!("pcscd ended {:?} after SIGTERM", start.elapsed());
    assert!(client.join().unwrap().is_err());
}

fn main() {
    let missing = missing();
    let folder = tempfile::tempdir().unwrap();
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("PCSCLITE_CSOCK_NAME", folder.path().join("run/pcscd.comm")) };
    if let Some(reason) = &missing {
        eprintln!("skipped: the tests with a real pcscd: {reason}");
    }
    // One pcscd at a time: libpcsclite takes its socket from the environment.
    let turn = Arc::new(Mutex::new(()));
    let trial = |name: &str, run: fn(&mut Pcscd)| {
        let (turn, folder) = (Arc::clone(&turn), folder.path().to_owned());
        let run = move || -> Result<(), Failed> {
            let _turn = turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            run(&mut Pcscd::start(&folder));
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(missing.is_some())
    };
    let trials = vec![
        trial("commands_reach_the_echo_card", commands_reach_the_echo_card),
        trial("a_card_comes_and_goes_by_push", a_card_comes_and_goes_by_push),
        trial("a_swapped_card_is_removed_first", a_swapped_card_is_removed_first),
        trial("a_card_found_gone_is_gone_and_comes_back", a_card_found_gone_is_gone_and_comes_back),
        trial(
            "an_unused_card_is_powered_off_after_five_seconds_and_nothing_spins",
            an_unused_card_is_powered_off_after_five_seconds_and_nothing_spins,
        ),
        trial("pcscd_ends_beside_a_blocked_command", pcscd_ends_beside_a_blocked_command),
    ];
    let failed = libtest_mimic::run(&Arguments::from_args(), trials).has_failed();
    drop(folder);
    exit(i32::from(failed) * 101);
}
