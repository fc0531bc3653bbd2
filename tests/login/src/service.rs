//! A program that runs beside a story.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::failure::{Context, Failure};
use crate::world::eventually;

/// For it to end by itself, and what it has started with it; the namespace's end takes what is left.
const END_LIMIT: Duration = Duration::from_secs(5);

/// It ends with this value.
pub(crate) struct Service(Child);

impl Service {
    /// Starts a program that nobody listens to.
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Result<Self, Failure> {
        let mut command = Command::new(program);
        Self::spawn(command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()))
    }

    /// The same with an environment, and with files for what it says.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self, Failure> {
        let child = command.stdin(Stdio::null()).spawn();
        child.map(Self).context(format!("starting {}", command.get_program().to_string_lossy()))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = eventually("its end", END_LIMIT, || self.0.try_wait().is_ok_and(|status| status.is_some()));
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
