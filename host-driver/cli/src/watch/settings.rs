//! What a watcher is to do: the command line, and what it leaves open from a file.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::WatchError;

/// Below the user's configuration folder.
const FILE: &str = "pocketcard/watch.toml";

/// The file, for `--help`.
pub(super) const HELP: &str = "\
The file, which may hold any of these; what the command line says comes first:
  phone = \"Pixel\"                   # the only phone that counts
  lock = true                       # lock this user's sessions when it leaves
  on_leave = \"i3lock\"               # run by /bin/sh when it leaves; never
                                    # killed: it may be the screen locker
  on_arrive = \"xset dpms force on\"  # run by /bin/sh when it comes; killed
                                    # after 30 seconds

A command is told in its environment: POCKETCARD_EVENT (leave, arrive),
POCKETCARD_PHONE (its name), POCKETCARD_SLOT. A phone leaves if its card was
here since the watcher began and is removed, or if the daemon is away
for 20 seconds.";

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Settings {
    /// Name, id, or start of the id of the only phone that counts.
    pub(super) phone: Option<String>,
    /// Whether the user's sessions are locked when it leaves.
    pub(super) lock: bool,
    /// What is run when it leaves.
    pub(super) on_leave: Option<String>,
    /// What is run when it comes.
    pub(super) on_arrive: Option<String>,
}

impl Settings {
    /// What the command line says, and the file for the rest. Returns the file if there is one, too.
    ///
    /// # Errors
    /// [`WatchError::File`] and [`WatchError::Malformed`]; [`WatchError::File`] also if a file that was asked for is missing.
    pub(super) fn load(self, file: Option<&Path>) -> Result<(Self, Option<PathBuf>), WatchError> {
        let Some(path) = file.map(Path::to_owned).or_else(default_file) else { return Ok((self, None)) };
        let text = match fs::read_to_string(&path) {
            Err(error) if file.is_none() && error.kind() == io::ErrorKind::NotFound => return Ok((self, None)),
            other => other.map_err(|source| WatchError::File { path: path.clone(), source })?,
        };
        let below: Self = toml::from_str(&text)
            .map_err(|error| WatchError::Malformed { path: path.clone(), message: error.to_string() })?;
        let settings = Self {
            phone: self.phone.or(below.phone),
            lock: self.lock || below.lock,
            on_leave: self.on_leave.or(below.on_leave),
            on_arrive: self.on_arrive.or(below.on_arrive),
        };
        Ok((settings, Some(path)))
    }
}

/// Spec: XDG Base Directory Specification 0.8
fn default_file() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some(folder.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watch.toml");
        fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn the_help_shows_a_file_that_is_read() {
        assert!(HELP.lines().all(|line| line.chars().count() <= 80), "it fits a terminal");
        let shown: Vec<&str> = HELP.lines().filter(|line| line.contains(" = ")).collect();
        let (_folder, path) = file(&shown.join("\n"));
        let (settings, found) = Settings::default().load(Some(&path)).unwrap();
        assert_eq!(found, Some(path));
        assert_eq!(
            settings,
            Settings {
                phone: Some("Pixel".to_owned()),
                lock: true,
                on_leave: Some("i3lock".to_owned()),
                on_arrive: Some("xset dpms force on".to_owned()),
            }
        );
        let seconds = |limit: std::time::Duration| format!("{} seconds", limit.as_secs());
        assert!(HELP.contains(&format!("after {}", seconds(super::super::hooks::ARRIVE_LIMIT))));
        assert!(HELP.contains(&format!("for {}", seconds(super::super::walk_away::DAEMON_AWAY_LIMIT))));
    }

    #[test]
    fn the_command_line_comes_first() {
        let (_folder, path) = file("phone = \"a\"\non_leave = \"b\"");
        let given = Settings { phone: Some("c".to_owned()), lock: true, ..Settings::default() };
        let (settings, _) = given.load(Some(&path)).unwrap();
        let expected =
            Settings { phone: Some("c".to_owned()), lock: true, on_leave: Some("b".to_owned()), on_arrive: None };
        assert_eq!(settings, expected);
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_place() {
        for (text, part) in [
            ("lok = true", "unknown field `lok`"),
            ("lock = 1", "invalid type"),
            ("lock", "line 1"),
            ("[on_leave]\na = 1", "invalid type"),
        ] {
            let (_folder, path) = file(text);
            let error = Settings::default().load(Some(&path)).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("watch.toml"), "{error}");
        }
        let missing = Settings::default().load(Some(Path::new("/nonexistent/watch.toml"))).unwrap_err();
        assert!(matches!(missing, WatchError::File { .. }));
    }
}
