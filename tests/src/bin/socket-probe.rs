//! Connects to a unix socket, sends bytes, and prints in hexadecimal what comes back until the peer closes.
//!
//! `socket-probe PATH HEX`; run by a test as another user. Exit code 3: the connection itself was refused.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, path, request] = arguments.as_slice() else { return ExitCode::from(2) };
    let mut stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            return ExitCode::from(3);
        }
    };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(3)));
    let _ = stream.write_all(&hex::decode(request).unwrap_or_default());
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    let _ = writeln!(io::stdout(), "{}", hex::encode(answer));
    // A peer that keeps the connection open is not a refusal.
    match ended {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => ExitCode::from(4),
        _ => ExitCode::SUCCESS,
    }
}
