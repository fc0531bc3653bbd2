//! Pauses between attempts to reach a phone.

use std::io;
use std::path::Path;
use std::time::Duration;

use pocketcard_ipc::appearance::{Appearance, Seen};
use tokio::net::unix::pipe;

const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(1);

/// Longer from attempt to attempt up to a second, and over at once when the phone's socket appears.
#[derive(Debug)]
pub(crate) struct Pause {
    next: Duration,
    watch: Option<Watched>,
}

/// The watch, and its descriptor once more: tokio waits for any descriptor that it is told is a pipe.
#[derive(Debug)]
struct Watched {
    appearance: Appearance,
    readable: pipe::Receiver,
}

impl Watched {
    fn of(path: &Path) -> io::Result<Self> {
        let appearance = Appearance::of(path)?;
        let readable = pipe::Receiver::from_owned_fd_unchecked(appearance.as_fd().try_clone_to_owned()?)?;
        Ok(Self { appearance, readable })
    }

    fn look(&self) -> Seen {
        let seen = self.appearance.look();
        // There is nothing left, which this tells tokio. If something came meanwhile, the kernel refuses a read of one
        // byte of it, and the descriptor stays readable.
        let _ = self.readable.try_read(&mut [0]);
        seen
    }
}

impl Pause {
    pub(crate) fn new() -> Self {
        Self { next: FIRST, watch: None }
    }

    /// Watches for the socket from now on. To be called before an attempt, so that none is missed.
    pub(crate) fn watch(&mut self, path: Option<&Path>) {
        if self.watch.is_none() {
            self.watch = path.and_then(|path| Watched::of(path).ok());
        }
    }

    /// The phone was there: the next pause is the shortest.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// Waits. `at_least` is for a phone that answered in a way that asking again at once will not change.
    pub(crate) async fn wait(&mut self, at_least: Duration) {
        let pause = self.next.max(at_least);
        self.next = (self.next * 2).min(LONGEST);
        let timer = tokio::time::sleep(pause);
        tokio::pin!(timer);
        loop {
            let Some(watch) = &self.watch else { return timer.await };
            let ready = tokio::select! {
                () = &mut timer => return,
                ready = watch.readable.readable() => ready,
            };
            let seen = ready.map(|()| watch.look());
            match seen {
                Ok(Seen::Nothing) => {}
                Ok(Seen::File) => return self.reset(),
                Ok(Seen::FolderGone) | Err(_) => self.watch = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn a_socket_that_appears_ends_the_pause() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("phone");
        let mut pause = Pause::new();
        pause.watch(Some(&path));
        let begin = Instant::now();
        std::fs::write(folder.path().join("other"), "").unwrap();
        std::fs::write(&path, "").unwrap();
        pause.wait(Duration::from_secs(30)).await;
        assert!(begin.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_second() {
        let mut pause = Pause::new();
        let begin = tokio::time::Instant::now();
        for _ in 0..7 {
            pause.wait(Duration::ZERO).await;
        }
        assert_eq!(begin.elapsed().as_millis() / 10, 127);
        pause.wait(Duration::ZERO).await;
        assert_eq!(begin.elapsed().as_secs(), 2);
        pause.reset();
        let begin = tokio::time::Instant::now();
        pause.wait(Duration::ZERO).await;
        assert_eq!(begin.elapsed().as_millis(), 10);
    }
}
