//! What sits at a phone's address and is no phone: silent, slow, babbling. It gets nothing, for no longer than its limit,
//! and the phone in the other slot does not notice.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // helpers of tests

mod support;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use pocketcard_ipc::driver::{PowerAction, Role};
use support::{Answer, Driver, LIMIT, TestDaemon, TestPhone};

/// GET METADATA of the PIN: it has to be asked of the card.
const METADATA: [u8; 5] = [0x00, 0xF7, 0x00, 0x80, 0x00];

/// Two phones, of which the first is replaced by whoever accepts at the listener.
struct Scene {
    daemon: TestDaemon,
    impostor: UnixListener,
    command: Driver,
    _events: Driver,
    _phones: [TestPhone; 2],
}

fn scene() -> Scene {
    let (mut first, second) = (TestPhone::start("first"), TestPhone::start("second"));
    let daemon = TestDaemon::start(2, &[first.address(), second.address()]);
    daemon.pair(&first, Some(0)).unwrap();
    daemon.pair(&second, Some(1)).unwrap();
    daemon.wait_card(1, true);
    first.kill();
    daemon.wait_card(0, false);
    let path = first.address().path().unwrap().to_owned();
    std::fs::remove_file(&path).unwrap();
    let impostor = UnixListener::bind(&path).unwrap();
    let mut events = daemon.driver(Role::Events, 1);
    let Answer::Presence(true, generation) = events.receive() else { panic!("no card") };
    let mut command = daemon.driver(Role::Command, 1);
    assert!(matches!(command.power(PowerAction::Up, generation), Answer::Powered(_)));
    Scene { daemon, impostor, command, _events: events, _phones: [first, second] }
}

impl Scene {
    fn accept(&self) -> UnixStream {
        let (stream, _) = self.impostor.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// The other slot answers as always.
    fn other_slot_answers(&mut self) {
        let begin = Instant::now();
        assert!(matches!(self.command.transmit(&METADATA), Answer::Response(_)));
        assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
    }
}

/// Returns when the daemon has closed the connection; what it said before does not matter.
fn closed(stream: &mut UnixStream) -> Duration {
    let begin = Instant::now();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return begin.elapsed(),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return begin.elapsed(),
            Err(error) => panic!("the daemon keeps the link: {error}"),
        }
    }
}

#[test]
fn a_silent_or_slow_one_is_given_up_after_five_seconds() {
    let mut scene = scene();
    let mut silent = scene.accept();
    scene.other_slot_answers();
    let waited = closed(&mut silent);
    assert!((4000..7000).contains(&waited.as_millis()), "{waited:?}");
    // An `Info` that never comes to its end.
    let mut slow = scene.accept();
    let mut dribble = slow.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        for byte in [0, 0, 0, 100].into_iter().chain([1; 100]) {
            if dribble.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    scene.other_slot_answers();
    let waited = closed(&mut slow);
    assert!((4000..7000).contains(&waited.as_millis()), "{waited:?}");
    writer.join().unwrap();
    scene.other_slot_answers();
}

#[test]
fn a_babbling_one_is_cut_off_at_once_and_not_dialled_again_for_a_second() {
    let mut scene = scene();
    let endless = [0, 0, 0, 1, 7].repeat(200_000);
    let long = [&[0, 1, 0, 0][..], &vec![7; 70_000]].concat();
    let mut last: Option<Instant> = None;
    for bytes in [&[0xFF; 64][..], &[0, 0, 0, 0], &long, &endless, b"HTTP/1.1 200 OK\r\n\r\n"] {
        let mut babbler = scene.accept();
        if let Some(last) = last {
            assert!(last.elapsed() > Duration::from_millis(900), "dialled again after {:?}", last.elapsed());
        }
        // Written from elsewhere, since nobody reads it to its end.
        let mut writer = babbler.try_clone().unwrap();
        let text = bytes.to_vec();
        let writer = std::thread::spawn(move || writer.write_all(&text));
        let waited = closed(&mut babbler);
        assert!(waited < Duration::from_secs(1), "{waited:?}");
        last = Some(Instant::now());
        let _ = writer.join().unwrap();
        scene.other_slot_answers();
    }
    let status = scene.daemon.control().status().unwrap();
    assert!(!status.slots[0].card_present && status.slots[1].card_present);
}
