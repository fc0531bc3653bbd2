//! A daemon that runs out of file descriptors. In a process of its own, since the limit is the process's.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // helpers of tests

mod support;

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use pocketcard_ipc::control::{Reply, Request, encode};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use support::{LIMIT, TestDaemon};

#[test]
fn a_client_that_came_while_no_descriptor_was_free_is_served_when_one_is() {
    let daemon = TestDaemon::start(1, &[]);
    // It stays, so that its descriptor on the other side is not freed in the middle.
    let mut first = daemon.control();
    first.status().unwrap();
    let old = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: old.maximum }).unwrap();
    let mut files = Vec::new();
    let mut client = loop {
        match File::open("/dev/null") {
            Ok(file) => files.push(file),
            // The last descriptor is the client's own; the daemon's end of the connection finds none.
            Err(_) => {
                files.pop();
                break UnixStream::connect(&daemon.config.control_socket).unwrap();
            }
        }
    };
    client.write_all(&encode(&Request::Hello { version: 1, software: "test".into() }).unwrap()).unwrap();
    client.set_read_timeout(Some(std::time::Duration::from_millis(350))).unwrap();
    let before = clock_gettime(ClockId::ProcessCPUTime);
    let mut lines = pocketcard_ipc::control::LineReader::new();
    assert!(lines.read_from::<Reply>(&mut client).is_err(), "it was served, so nothing was tested");
    let after = clock_gettime(ClockId::ProcessCPUTime);
    let busy = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1_000_000;
    assert!(busy < 100, "the daemon spun for {busy} of 350 ms");
    files.clear();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    let begin = Instant::now();
    assert!(matches!(lines.read_from::<Reply>(&mut client).unwrap(), Reply::Hello { .. }));
    assert!(begin.elapsed().as_secs() < 2, "{:?}", begin.elapsed());
    first.status().unwrap();
}
