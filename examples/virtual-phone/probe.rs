use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::{Mutex, PoisonError},
    thread,
};

use pocketcard_phone::card::{Probe, ProbePoint};
use serde_json::json;

use crate::{arguments::ProbeStop, output::Output};

/// Counts and logs the points that the card passes, and stops at one of them for ever.
pub(crate) struct TestProbe {
    stop: Option<ProbeStop>,
    log: Option<File>,
    passings: Mutex<HashMap<ProbePoint, u32>>,
    output: Output,
}

impl TestProbe {
    pub(crate) fn new(stop: Option<ProbeStop>, log: Option<&Path>, output: Output) -> io::Result<Self> {
        let log = log.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()?;
        Ok(Self { stop, log, passings: Mutex::default(), output })
    }

    fn count(&self, point: ProbePoint) -> u32 {
        let mut passings = self.passings.lock().unwrap_or_else(PoisonError::into_inner);
        let count = passings.entry(point).or_insert(0);
        *count += 1;
        *count
    }
}

impl Probe for TestProbe {
    fn reached(&self, point: ProbePoint) {
        let passing = self.count(point);
        if let Some(mut log) = self.log.as_ref() {
            // One write each, so that the line is in the file whatever happens next.
            let _ = log.write_all(format!("{} {passing}\n", point.name()).as_bytes());
        }
        if self.stop == Some(ProbeStop { point, passing }) {
            self.output.event(&json!({ "event": "probe", "point": point.name(), "passing": passing }));
            // The whole phone stands still here: everything else runs on this thread.
            loop {
                thread::park();
            }
        }
    }
}
