//! The command connection: one request, one reply.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ifd_handler::{Atr, Error, PowerAction, ResponseBuffer};
use pocketcard_ipc::driver::{self, DeviceName, Failure, PIN_ENTRY_MARGIN, PinEntry, Reply, Request, Role};

use crate::connection::{Connection, ConnectionError};
use crate::pin_pad;

/// For the daemon to answer a power action. It does so from memory; all PC/SC clients may be waiting.
const POWER_LIMIT: Duration = Duration::from_secs(2);

/// For the daemon to answer a command. It gives up after 55 s itself, so this passes only if it hangs.
const TRANSMIT_LIMIT: Duration = Duration::from_secs(60);

/// The connection, made when it is first needed. Its end is a power-down of the card.
#[derive(Debug)]
pub(crate) struct CommandLine {
    connection: Mutex<Option<Connection>>,
    /// The same socket, reachable while `connection` is locked by a command under way.
    interrupt: Mutex<Interrupt>,
}

#[derive(Debug, Default)]
struct Interrupt {
    socket: Option<UnixStream>,
    closed: bool,
}

impl CommandLine {
    pub(crate) fn new() -> Self {
        Self { connection: Mutex::new(None), interrupt: Mutex::new(Interrupt::default()) }
    }

    /// Powers up or resets insertion `generation` and gives its answer to reset.
    pub(crate) fn power(
        &self,
        name: &DeviceName,
        slot: u32,
        generation: u64,
        action: PowerAction,
    ) -> Result<Atr, Error> {
        let action = match action {
            PowerAction::Up => driver::PowerAction::Up,
            PowerAction::Reset => driver::PowerAction::Reset,
        };
        let request = Request::Power { action, generation };
        let mut guard = locked(&self.connection);
        // A connection from before a restart of the daemon breaks here; a fresh one then has the answer. A daemon that
        // only does not answer is not asked again: the limit would double.
        for fresh in [guard.is_none(), true] {
            if guard.is_none() {
                *guard = self.open(name, slot);
            }
            let Some(connection) = guard.as_mut() else { return Err(Error::CardAbsent) };
            match exchange(connection, &request, POWER_LIMIT) {
                Ok(Reply::Powered { atr }) => return Atr::new(atr).ok_or(Error::CardAbsent),
                Ok(Reply::Failed { .. }) => return Err(Error::CardAbsent),
                answer => {
                    let timed_out = matches!(answer, Err(ConnectionError::TimedOut));
                    self.drop_connection(&mut guard);
                    if fresh || timed_out {
                        break;
                    }
                }
            }
        }
        Err(Error::CardAbsent)
    }

    /// Takes the card's power. Without a connection it has none.
    pub(crate) fn power_down(&self) {
        let mut guard = locked(&self.connection);
        let Some(connection) = guard.as_mut() else { return };
        let request = Request::Power { action: driver::PowerAction::Down, generation: 0 };
        if !matches!(exchange(connection, &request, POWER_LIMIT), Ok(Reply::Powered { .. })) {
            self.drop_connection(&mut guard);
        }
    }

    /// Sends a command and writes the response. A daemon that goes away in the middle is an error at once.
    pub(crate) fn transmit(&self, command: &[u8], response: &mut ResponseBuffer<'_>) -> Result<(), Error> {
        let mut guard = locked(&self.connection);
        let Some(connection) = guard.as_mut() else { return Err(Error::CardAbsent) };
        let outcome = match exchange(connection, &Request::Transmit { apdu: command }, TRANSMIT_LIMIT) {
            Ok(Reply::Response { apdu }) => response.write(apdu),
            Ok(Reply::Failed { failure }) => Err(error_of(failure)),
            // The connection is the card's power, so without it the card is gone.
            Ok(_) | Err(_) => {
                self.drop_connection(&mut guard);
                return Err(Error::CardAbsent);
            }
        };
        connection.forget();
        outcome
    }

    /// Has the owner enter a PIN on the phone and writes the status word, after as long as the owner has and twice the
    /// margin at most: no program is kept waiting by a daemon that hangs.
    pub(crate) fn enter_pin(&self, entry: PinEntry, output: &mut ResponseBuffer<'_>) -> Result<(), Error> {
        let mut guard = locked(&self.connection);
        let Some(connection) = guard.as_mut() else { return Err(Error::CardAbsent) };
        let limit = entry.time_limit() + PIN_ENTRY_MARGIN * 2;
        match exchange(connection, &Request::PinEntry(entry), limit) {
            Ok(Reply::Response { apdu }) if apdu.len() == 2 => output.write(apdu),
            Ok(Reply::Failed { failure }) => Err(error_of(failure)),
            Err(ConnectionError::TimedOut) => {
                self.drop_connection(&mut guard);
                output.write(&pin_pad::TIMED_OUT)
            }
            Ok(_) | Err(_) => {
                self.drop_connection(&mut guard);
                Err(Error::CardAbsent)
            }
        }
    }

    /// Ends a command that is under way on another thread, and everything after it.
    pub(crate) fn close(&self) {
        let mut interrupt = locked(&self.interrupt);
        interrupt.closed = true;
        if let Some(socket) = interrupt.socket.take() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn open(&self, name: &DeviceName, slot: u32) -> Option<Connection> {
        let connection = Connection::open(name, Role::Command, slot).ok()?;
        let mut interrupt = locked(&self.interrupt);
        if interrupt.closed {
            return None;
        }
        interrupt.socket = Some(connection.handle().ok()?);
        Some(connection)
    }

    fn drop_connection(&self, connection: &mut Option<Connection>) {
        // Both handles have to go for the daemon to see the end.
        locked(&self.interrupt).socket = None;
        *connection = None;
    }
}

fn error_of(failure: Failure) -> Error {
    match failure {
        Failure::TimedOut => Error::TimedOut,
        Failure::NotPresent => Error::CardAbsent,
        Failure::BadRequest | Failure::Unsupported | Failure::Cancelled => Error::Communication,
    }
}

fn exchange<'a>(
    connection: &'a mut Connection,
    request: &Request<'_>,
    limit: Duration,
) -> Result<Reply<'a>, ConnectionError> {
    connection.send(request)?;
    connection.receive(limit)
}

/// A lock that a panic elsewhere does not take away: every value behind one is valid at each step.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;
    use std::time::Instant;

    use pocketcard_ipc::driver::PinOperation;

    use super::*;
    use crate::fake_daemon::FakeDaemon;

    const ATR: [u8; 3] = [0x3B, 0x80, 0x80];

    fn transmit(line: &CommandLine) -> Result<Vec<u8>, Error> {
        let mut memory = [MaybeUninit::new(0); 16];
        let mut response = ResponseBuffer::new(&mut memory);
        line.transmit(&[0, 0xA4, 4, 0], &mut response)?;
        Ok(vec![0; response.len()])
    }

    #[test]
    fn a_daemon_that_dies_in_the_middle_of_a_command_is_an_error_at_once() {
        let daemon = FakeDaemon::serve(|connection| {
            connection.hello();
            connection.answer(&Reply::Powered { atr: &ATR });
            connection.answer(&Reply::Response { apdu: &[0x90, 0] });
            connection.request();
        });
        let line = CommandLine::new();
        assert_eq!(transmit(&line), Err(Error::CardAbsent), "nothing was powered up");
        assert_eq!(line.power(daemon.name(), 0, 1, PowerAction::Up).unwrap().as_bytes(), ATR);
        assert_eq!(transmit(&line), Ok(vec![0; 2]));
        let begin = Instant::now();
        assert_eq!(transmit(&line), Err(Error::CardAbsent));
        assert!(begin.elapsed() < Duration::from_secs(1));
        assert_eq!(transmit(&line), Err(Error::CardAbsent), "a new connection needs a new power-up");
        line.power_down();
    }

    #[test]
    fn a_restarted_daemon_is_asked_again_for_power() {
        let daemon = FakeDaemon::serve(|connection| {
            connection.hello();
            connection.answer(&Reply::Powered { atr: &ATR });
            if connection.number == 0 {
                return;
            }
            connection.request();
        });
        let line = CommandLine::new();
        line.power(daemon.name(), 0, 1, PowerAction::Up).unwrap();
        daemon.wait_closed(1);
        line.power(daemon.name(), 0, 1, PowerAction::Reset).unwrap();
    }

    #[test]
    fn close_ends_a_command_that_is_blocked() {
        let daemon = FakeDaemon::serve(|connection| {
            connection.hello();
            connection.answer(&Reply::Powered { atr: &ATR });
            connection.request();
            // Says nothing until the driver goes.
            connection.request();
        });
        let line = CommandLine::new();
        line.power(daemon.name(), 0, 1, PowerAction::Up).unwrap();
        std::thread::scope(|scope| {
            let blocked = scope.spawn(|| transmit(&line));
            daemon.wait_requests(3);
            line.close();
            assert_eq!(blocked.join().unwrap(), Err(Error::CardAbsent));
        });
        assert_eq!(line.power(daemon.name(), 0, 1, PowerAction::Up), Err(Error::CardAbsent), "closed is closed");
    }

    #[test]
    fn failures_become_the_errors_that_pcscd_understands() {
        let daemon = FakeDaemon::serve(|connection| {
            connection.hello();
            connection.answer(&Reply::Powered { atr: &ATR });
            for failure in
                [Failure::TimedOut, Failure::NotPresent, Failure::BadRequest, Failure::Unsupported, Failure::Cancelled]
            {
                connection.answer(&Reply::Failed { failure });
            }
            connection.answer(&Reply::Response { apdu: &[0; 17] });
            connection.answer(&Reply::Powered { atr: &[] });
            connection.answer(&Reply::Failed { failure: Failure::NotPresent });
        });
        let line = CommandLine::new();
        line.power(daemon.name(), 0, 1, PowerAction::Up).unwrap();
        use Error::{CardAbsent, Communication, InsufficientBuffer, TimedOut};
        for error in [TimedOut, CardAbsent, Communication, Communication, Communication, InsufficientBuffer] {
            assert_eq!(transmit(&line), Err(error));
        }
        line.power_down();
        assert_eq!(line.power(daemon.name(), 0, 1, PowerAction::Up), Err(Error::CardAbsent));
    }

    fn enter_pin(line: &CommandLine, seconds: u64) -> Result<Vec<u8>, Error> {
        let entry = PinEntry::new(PinOperation::Verify, 0x80, Some(Duration::from_secs(seconds))).unwrap();
        let mut memory = [MaybeUninit::new(0); 16];
        let mut output = ResponseBuffer::new(&mut memory);
        line.enter_pin(entry, &mut output)?;
        Ok(output.as_slice().to_vec())
    }

    #[test]
    fn a_pin_entry_is_answered_with_a_status_word_and_nothing_else() {
        let daemon = FakeDaemon::serve(|connection| {
            connection.hello();
            connection.answer(&Reply::Powered { atr: &ATR });
            connection.answer(&Reply::Response { apdu: &[0x63, 0xC2] });
            connection.answer(&Reply::Failed { failure: Failure::Unsupported });
            connection.answer(&Reply::Response { apdu: &[0, 0x90, 0] });
        });
        let line = CommandLine::new();
        assert_eq!(enter_pin(&line, 1), Err(Error::CardAbsent), "nothing was powered up");
        line.power(daemon.name(), 0, 1, PowerAction::Up).unwrap();
        assert_eq!(enter_pin(&line, 1), Ok(vec![0x63, 0xC2]));
        assert_eq!(enter_pin(&line, 1), Err(Error::Communication));
        assert_eq!(enter_pin(&line, 1), Err(Error::CardAbsent), "data is no answer to a PIN entry");
    }

    #[test]
    fn a_daemon_that_hangs_cannot_hold_a_pin_entry() {
        let daemon = FakeDaemon::serve(|connection| {
            connection.hello();
            connection.answer(&Reply::Powered { atr: &ATR });
            connection.request();
            connection.request();
        });
        let line = CommandLine::new();
        line.power(daemon.name(), 0, 1, PowerAction::Up).unwrap();
        let begin = Instant::now();
        assert_eq!(enter_pin(&line, 1), Ok(vec![0x64, 0x00]));
        let elapsed = begin.elapsed();
        assert!(elapsed >= Duration::from_secs(4) && elapsed < Duration::from_secs(6), "{elapsed:?}");
        assert_eq!(transmit(&line), Err(Error::CardAbsent), "the card lost its power");
    }
}
