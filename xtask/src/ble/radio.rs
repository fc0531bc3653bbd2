//! What is behind the guest's adapters.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::problem::Context;
use crate::workspace::{command, root, run, shown};
use crate::{Problem, install};

/// How long bumble's controllers may take to listen.
const LISTEN_LIMIT: Duration = Duration::from_secs(60);
/// The port by which a story asks something of the radio.
const CONTROL: &str = "control";

/// The kinds of virtual controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// tests/ble/controllers.py, outside the guest: advertises as often as it should, several links, can go out of range.
    Bumble,
    /// BlueZ's own, in the guest: quicker to come up; an advertisement is seen once per scan, one link at a time.
    Btvirt,
}

/// The controllers of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Controllers {
    Bumble {
        python: PathBuf,
        /// Where the binding is that a phone and a computer of the radio's own need, if it is to have them.
        peers: Option<PathBuf>,
    },
    Btvirt,
}

impl Controllers {
    /// Installs what they need.
    pub(super) fn prepare(kind: Kind) -> Result<Self, Problem> {
        match kind {
            Kind::Btvirt => Ok(Self::Btvirt),
            Kind::Bumble => {
                install::apt(&["python3-venv"])?;
                Ok(Self::Bumble { python: install::bumble()?, peers: None })
            }
        }
    }

    /// The same with a phone and a computer of their own. Builds the binding for Python, into a folder of this run alone.
    pub(super) fn with_peers(&self, run_folder: &Path) -> Result<Self, Problem> {
        let Self::Bumble { python, .. } = self else {
            return Err(Problem::Wrong("only bumble's controllers can bring peers".to_owned()));
        };
        let folder = run_folder.join("binding");
        if !folder.exists() {
            fs::create_dir(&folder).context("making a folder for the binding")?;
            run(command("bash", ["bindings/generate.sh", "python"]).arg(&folder))?;
        }
        Ok(Self::Bumble { python: python.clone(), peers: Some(folder) })
    }

    /// How tests/ble/lib.sh calls them.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Bumble { .. } => "bumble",
            Self::Btvirt => "btvirt",
        }
    }
}

/// QEMU's arguments for the ports to bumble's controllers. The sockets are in its working folder: a path to one must be
/// short.
pub(super) fn ports(adapters: u8) -> Vec<String> {
    let names = (0..adapters).map(|number| format!("hci{number}")).chain([CONTROL.to_owned()]);
    names
        .flat_map(|name| {
            [
                "-chardev".to_owned(),
                format!("socket,id={name},path={name}.sock"),
                "-device".to_owned(),
                format!("virtserialport,chardev={name},name={name}"),
            ]
        })
        .collect()
}

/// Running controllers. They end with this value, and with this process.
pub(super) struct Radio(Child);

impl Radio {
    /// Starts them in the folder and waits until QEMU can connect.
    ///
    /// - `peers`: as in [`Controllers::Bumble`].
    pub(super) fn start(python: &Path, peers: Option<&Path>, folder: &Path, adapters: u8) -> Result<Self, Problem> {
        let log = File::create(folder.join("controllers.log")).context("making a log for the controllers")?;
        let mut controllers = command("setpriv", ["--pdeathsig", "KILL", "--"]);
        controllers.arg(python).arg(root().join("tests/ble/controllers.py")).arg(adapters.to_string());
        if let Some(peers) = peers {
            controllers.arg("--peers").env("PYTHONPATH", peers);
        }
        controllers.current_dir(folder).env("PYTHONDONTWRITEBYTECODE", "1").stdout(Stdio::piped()).stderr(log);
        let mut child = controllers.spawn().map_err(|error| Problem::NotStarted(shown(&controllers), error))?;
        let stdout = child.stdout.take();
        let radio = Self(child);
        let (sender, ready) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()).map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        match ready.recv_timeout(LISTEN_LIMIT) {
            Ok(line) if line == "ready" => Ok(radio),
            _ => Err(Problem::Failed(format!("{} (see {}/controllers.log)", shown(&controllers), folder.display()))),
        }
    }
}

impl Drop for Radio {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_adapter_has_a_port_and_the_story_another() {
        let ports = ports(2);
        assert_eq!(ports.len(), 3 * 4);
        assert!(ports.contains(&"virtserialport,chardev=hci1,name=hci1".to_owned()));
        assert!(ports.contains(&"socket,id=control,path=control.sock".to_owned()));
    }
}
