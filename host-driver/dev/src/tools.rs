//! Finds the programs that an environment is made of.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::DevError;

/// Where everything lies that the workspace builds.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    /// `pocketcardd`.
    pub(crate) daemon: PathBuf,
    /// `virtual-phone`.
    pub(crate) phone: PathBuf,
    /// `pocketcard`, which has a client of PC/SC in it.
    pub(crate) cli: PathBuf,
    /// The driver that pcscd loads.
    pub(crate) driver: PathBuf,
}

impl Built {
    /// Finds the built files in `folder`, else in POCKETCARD_BIN_DIR, or beside (or one above) the running program.
    ///
    /// # Errors
    /// [`DevError::NotBuilt`] names the first file that is missing and where it was looked for.
    pub(crate) fn find(folder: Option<&Path>) -> Result<Self, DevError> {
        let folders = folder.map_or_else(bin_dirs, |folder| vec![folder.to_path_buf()]);
        let find = |name: &'static str| {
            folders
                .iter()
                .map(|folder| folder.join(name))
                .find(|path| path.is_file())
                .ok_or_else(|| DevError::NotBuilt { name, searched: folders.clone() })
        };
        Ok(Self {
            daemon: find("pocketcardd")?,
            phone: find("virtual-phone")?,
            cli: find("pocketcard")?,
            driver: find("libifd_pocketcard.so")?,
        })
    }
}

/// Where packages put the daemon and the driver, below the prefix of an installation.
const PACKAGED: [&str; 3] = ["lib/pocketcard", "sbin", "lib/pcsc/drivers/serial"];

/// The folders that are searched for what the workspace builds.
///
/// A test runs from `target/debug/deps`, a program from `target/debug` or an installation's `bin`.
fn bin_dirs() -> Vec<PathBuf> {
    if let Some(folder) = env::var_os("POCKETCARD_BIN_DIR") {
        return vec![PathBuf::from(folder)];
    }
    let Ok(program) = env::current_exe() else { return Vec::new() };
    let mut folders: Vec<PathBuf> = program.ancestors().skip(1).take(2).map(Path::to_path_buf).collect();
    if let Some(prefix) = program.ancestors().nth(2) {
        folders.extend(PACKAGED.map(|place| prefix.join(place)));
    }
    folders
}

/// Finds a program of the system, also where an ordinary user's PATH does not reach.
pub(crate) fn system_program(program: &'static str, package: &'static str) -> Result<PathBuf, DevError> {
    find_program(program).ok_or(DevError::ProgramMissing { program, package })
}

/// Finds a program in PATH and in the folders for administrators.
pub fn find_program(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// Whether this pcscd can be told to let everybody in without asking polkit.
///
/// Debian 12's pcscd 1.9.9 has no such option and no polkit; later ones have both.
pub(crate) fn knows_disable_polkit(pcscd: &Path) -> bool {
    Command::new(pcscd).arg("--help").output().is_ok_and(|output| {
        let contains = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains("--disable-polkit");
        contains(&output.stdout) || contains(&output.stderr)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_programs_are_found_or_named_with_their_package() {
        assert!(system_program("sh", "dash").unwrap().is_file());
        let error = system_program("no-such-program-pocketcard", "no-such-package").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no-such-program-pocketcard is not installed. Install it: apt-get install no-such-package"
        );
    }
}
