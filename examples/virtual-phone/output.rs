use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::mpsc::{self, Receiver, SyncSender},
    thread::{self, JoinHandle},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

/// Lines that may wait for a slow reader. Beyond it, lines that may be lost are.
const BACKLOG: usize = 65_536;

enum Line {
    Event(String),
    Log(String),
}

/// Standard output and the log file, written by a thread of their own: a reader that does not read never holds the card up.
#[derive(Clone)]
pub(crate) struct Output {
    lines: SyncSender<Line>,
    events: bool,
    log: bool,
}

/// Keeps the writer; [`Writer::finish`] waits until everything is written.
pub(crate) struct Writer(JoinHandle<()>);

impl Output {
    /// - `events`: whether events go to standard output.
    pub(crate) fn start(events: bool, log: Option<&Path>) -> io::Result<(Self, Writer)> {
        let file = log.map(|path| OpenOptions::new().create(true).append(true).mode(0o600).open(path)).transpose()?;
        let (lines, queue) = mpsc::sync_channel(BACKLOG);
        let log = file.is_some();
        let writer = thread::Builder::new().name("output".to_owned()).spawn(move || write(&queue, file))?;
        Ok((Self { lines, events, log }, Writer(writer)))
    }

    /// Whether anybody wants to know.
    pub(crate) fn is_silent(&self) -> bool {
        !self.events && !self.log
    }

    /// Reports an event that must not be lost.
    pub(crate) fn event(&self, event: &Value) {
        if self.events {
            let _ = self.lines.send(Line::Event(event.to_string()));
        }
        self.log(event);
    }

    /// Reports an event of which there may be very many.
    pub(crate) fn frequent_event(&self, event: &Value) {
        if self.events {
            let _ = self.lines.try_send(Line::Event(event.to_string()));
        }
        self.log(event);
    }

    fn log(&self, event: &Value) {
        if self.log {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let _ = self.lines.try_send(Line::Log(format!("{}.{:03} {event}", since.as_secs(), since.subsec_millis())));
        }
    }
}

impl Writer {
    /// Waits until the last line is written. Every [`Output`] must be gone.
    pub(crate) fn finish(self) {
        let _ = self.0.join();
    }
}

fn write(queue: &Receiver<Line>, mut log: Option<File>) {
    for line in queue {
        // One write each. If nobody reads any more there is nobody to tell.
        match line {
            Line::Event(mut text) => {
                text.push('\n');
                let mut stdout = io::stdout().lock();
                let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
            }
            Line::Log(mut text) => {
                text.push('\n');
                if let Some(file) = &mut log {
                    let _ = file.write_all(text.as_bytes());
                }
            }
        }
    }
}
