//! Installs what is missing: Debian's packages by apt, ykman from PyPI into a folder of its own, tools of Rust by cargo.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::Problem;
use crate::problem::Context;
use crate::steps::say;
use crate::workspace::{cargo, command, run, scratch, works};

/// What builds the workspace and makes a private reader.
pub(crate) const RUN: [&str; 6] = ["gcc", "pkg-config", "libpcsclite-dev", "pcscd", "util-linux", "mount"];
/// The clients that the demo and the tests use, and what builds ykman.
pub(crate) const CLIENTS: [&str; 8] =
    ["opensc", "yubico-piv-tool", "openssl", "openssh-client", "python3-venv", "python3-dev", "swig", "procps"];
/// What signs in by PAM in the tests. Neither package changes how anybody signs in to this machine.
pub(crate) const LOGINS: [&str; 2] = ["pamtester", "libpam-pkcs11"];
/// What the tests of the bindings need: a program that shows whether it is there, and the packages that have it.
const BINDINGS: [(&str, &[&str]); 2] = [("javac", &["default-jdk-headless"]), ("npm", &["nodejs", "npm"])];

/// The packages that the tests of the bindings need and that are not there in another way.
pub(crate) fn bindings() -> Vec<&'static str> {
    let missing = BINDINGS.into_iter().filter(|(program, _)| !works(&mut command(program, ["--version"])));
    let packages = missing.flat_map(|(_, packages)| packages.iter().copied());
    packages.chain(["libjna-java"]).collect()
}

/// Installs those of the packages that are missing.
///
/// # Errors
/// [`Problem::Needs`] says what to type if this user cannot install, or if this is not Debian.
pub(crate) fn apt(packages: &[&str]) -> Result<(), Problem> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        say("    everything is there");
        return Ok(());
    }
    let list = missing.join(" ");
    if !works(&mut command("apt-get", ["--version"])) {
        return Err(Problem::Needs(format!("this is not Debian: install what these packages hold there: {list}")));
    }
    let as_root = rustix::process::geteuid().is_root();
    if !as_root && !works(&mut command("sudo", ["-n", "true"])) && !works(&mut command("sudo", ["--version"])) {
        return Err(Problem::Needs(format!("install these first: apt-get install {list}")));
    }
    say(&format!("    missing: {list}"));
    let mut words = if as_root { vec!["env"] } else { vec!["sudo", "env"] };
    words.push("DEBIAN_FRONTEND=noninteractive");
    let apt_get = |arguments: &[&str]| {
        let mut words = words.iter().chain(&["apt-get", "-qq"]).chain(arguments);
        let program = words.next().copied().unwrap_or("apt-get");
        let mut apt_get = command(program, words);
        if !as_root {
            // sudo may have to ask for a password.
            apt_get.stdin(std::process::Stdio::inherit());
        }
        run(&mut apt_get)
    };
    apt_get(&["update"])?;
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(&missing);
    apt_get(&install)
}

/// Whether a Debian package is there. Without dpkg nothing is.
fn is_installed(package: &str) -> bool {
    let mut query = command("dpkg-query", ["--show", "--showformat=${db:Status-Status}", package]);
    query.stderr(std::process::Stdio::null());
    query.output().is_ok_and(|output| output.stdout == b"installed")
}

/// Installs ykman from PyPI into the target folder and returns its path.
pub(crate) fn ykman() -> Result<PathBuf, Problem> {
    let folder = scratch("ykman");
    venv(&folder, "yubikey-manager", "5.9.2")?;
    Ok(folder.join("bin/ykman"))
}

/// Installs bumble from PyPI into the target folder and returns the Python that has it. Our controllers go round holes of
/// this release.
pub(crate) fn bumble() -> Result<PathBuf, Problem> {
    let folder = scratch("bumble");
    venv(&folder, "bumble", "0.0.236")?;
    Ok(folder.join("bin/python"))
}

/// No other run makes this folder until the file is closed.
fn locked(folder: &Path) -> Result<File, Problem> {
    let context = || format!("locking {}", folder.display());
    fs::create_dir_all(scratch("")).context(context())?;
    let lock = File::create(folder.with_extension("lock")).context(context())?;
    lock.lock().context(context())?;
    Ok(lock)
}

/// Makes a virtual environment of Python with this release of a package in it, unless it is there.
fn venv(folder: &Path, package: &str, release: &str) -> Result<(), Problem> {
    let _lock = locked(folder)?;
    let wanted = format!("{package}=={release}");
    let python = folder.join("bin/python");
    let probe = format!("import importlib.metadata as m, sys; sys.exit(m.version('{package}') != '{release}')");
    if works(&mut command(&python.to_string_lossy(), ["-c", &probe])) {
        say(&format!("    {wanted} is there"));
        return Ok(());
    }
    if folder.exists() {
        fs::remove_dir_all(folder).context(format!("removing another installation of {package}"))?;
    }
    // Debian's own Python, whatever else a user may have first in PATH: the packages above belong to it.
    let python = ["/usr/bin/python3", "python3"].into_iter().find(|python| works(&mut command(python, ["--version"])));
    run(command(python.unwrap_or("python3"), ["-m", "venv"]).arg(folder))?;
    let pip = folder.join("bin/pip");
    run(&mut command(&pip.to_string_lossy(), ["install", "--quiet", "--disable-pip-version-check", &wanted]))
}

/// Finds sshd, or unpacks Debian's into the target folder: installing the package would start a server for everybody.
pub(crate) fn sshd() -> Result<PathBuf, Problem> {
    if let Some(sshd) = pocketcard_dev::find_program("sshd") {
        say("    sshd is there");
        return Ok(sshd);
    }
    let folder = scratch("sshd");
    let _lock = locked(&folder)?;
    let sshd = folder.join("usr/sbin/sshd");
    if sshd.is_file() {
        say("    sshd is there");
        return Ok(sshd);
    }
    apt(&["libwrap0"])?;
    fs::create_dir_all(&folder).context("making a folder for sshd")?;
    run(command("apt-get", ["-qq", "download", "openssh-server"]).current_dir(&folder))?;
    let packages = fs::read_dir(&folder).context("looking for the package of sshd")?.flatten();
    let package = packages.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "deb"));
    let missing = || Problem::Needs("sshd is missing: apt-get install openssh-server".to_owned());
    run(command("dpkg-deb", ["--extract"]).arg(package.ok_or_else(missing)?).arg(&folder))?;
    if sshd.is_file() { Ok(sshd) } else { Err(missing()) }
}

/// Installs a tool of Rust if it is missing.
///
/// - `probe`: a command that works if the tool is there.
/// - `arguments`: what `cargo install` gets.
pub(crate) fn cargo_tool(probe: &[&str], arguments: &[&str]) -> Result<(), Problem> {
    let program = probe.first().copied().unwrap_or("cargo");
    if works(&mut command(program, probe.iter().skip(1))) {
        return Ok(());
    }
    run(cargo(["install", "--locked"]).args(arguments))
}

/// The first of the folders that has OpenSC's PKCS#11 module, whatever the architecture.
pub(crate) fn opensc_module() -> Result<PathBuf, Problem> {
    let name = Path::new("opensc-pkcs11.so");
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    folders
        .chain([PathBuf::from("/usr/lib")])
        .map(|folder| folder.join(name))
        .find(|module| module.is_file())
        .ok_or_else(|| Problem::Needs("OpenSC's PKCS#11 module is missing: apt-get install opensc-pkcs11".to_owned()))
}
