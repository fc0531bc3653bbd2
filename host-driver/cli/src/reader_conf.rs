//! Reads pcscd's folder of configured readers as pcscd does, to find what makes it refuse to start.

use std::fs;
use std::path::{Path, PathBuf};

/// One file of the folder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ReaderConf {
    /// The file.
    pub(crate) path: PathBuf,
    /// What pcscd would stumble over.
    pub(crate) problems: Vec<String>,
    /// The drivers it names.
    pub(crate) libraries: Vec<PathBuf>,
}

/// Looks at every file that pcscd would parse: each regular one without a dot-name, whatever its suffix.
///
/// Spec: reader.conf(5)
pub(crate) fn folder(folder: &Path) -> std::io::Result<Vec<ReaderConf>> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)?
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    Ok(files
        .into_iter()
        .map(|path| match fs::read(&path) {
            Ok(bytes) => check(path, &String::from_utf8_lossy(&bytes), |named| named.exists()),
            Err(error) => {
                ReaderConf { path, problems: vec![format!("it cannot be read: {error}")], libraries: Vec::new() }
            }
        })
        .collect())
}

/// Checks the text of one file; `exists` tells whether a named file is there.
fn check(path: PathBuf, text: &str, exists: impl Fn(&Path) -> bool) -> ReaderConf {
    let mut problems = Vec::new();
    let mut libraries = Vec::new();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if name.ends_with('~') || [".bak", ".dpkg-old", ".dpkg-dist", ".orig", ".swp"].iter().any(|end| name.ends_with(end))
    {
        problems.push("it looks like a backup copy, but pcscd reads it all the same".to_owned());
    }
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let value = value.trim();
        match key {
            "FRIENDLYNAME" | "CHANNELID" if value.is_empty() => problems.push(format!("line {number}: {key} is empty")),
            "FRIENDLYNAME" | "CHANNELID" => {}
            "DEVICENAME" if value.starts_with('"') => {
                problems.push(format!("line {number}: pcscd takes the quotes as a part of DEVICENAME"));
            }
            "DEVICENAME" if !value.contains(':') && !exists(Path::new(value)) => {
                problems.push(format!("line {number}: the device {value} does not exist"));
            }
            "DEVICENAME" => {}
            "LIBPATH" => {
                let library = PathBuf::from(value.trim_matches('"'));
                if !exists(&library) {
                    problems.push(format!("line {number}: the driver {} does not exist", library.display()));
                }
                libraries.push(library);
            }
            _ => problems.push(format!("line {number}: {key:?} is not a word that pcscd knows")),
        }
    }
    ReaderConf { path, problems, libraries }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(name: &str, text: &str) -> Vec<String> {
        check(PathBuf::from(name), text, |path| path == Path::new("/lib/ours.so")).problems
    }

    #[test]
    fn a_good_file_has_no_problem() {
        let text = "# Pocketcard\nFRIENDLYNAME \"Pocketcard\"\nDEVICENAME /run/pocketcard/driver.sock:4\n\
                    LIBPATH /lib/ours.so\n";
        let conf = check(PathBuf::from("pocketcard"), text, |path| path == Path::new("/lib/ours.so"));
        assert_eq!(conf.problems, Vec::<String>::new());
        assert_eq!(conf.libraries, [PathBuf::from("/lib/ours.so")]);
    }

    #[test]
    fn what_makes_pcscd_end_is_found() {
        for (text, expected) in [
            ("LIBPATH /lib/gone.so", "line 1: the driver /lib/gone.so does not exist"),
            ("\nDEVICENAME /dev/gone", "line 2: the device /dev/gone does not exist"),
            ("DEVICENAME \"/run/x:1\"", "line 1: pcscd takes the quotes as a part of DEVICENAME"),
            ("#!/usr/bin/python3\nimport pip", "line 2: \"import\" is not a word that pcscd knows"),
            ("FRIENDLYNAME", "line 1: FRIENDLYNAME is empty"),
        ] {
            assert_eq!(problems("x", text), [expected], "{text:?}");
        }
        assert_eq!(problems("pocketcard~", "").len(), 1);
    }

    #[test]
    fn dot_files_are_skipped_as_pcscd_does() {
        let temporary = tempfile::tempdir().unwrap();
        fs::write(temporary.path().join(".new-x"), "rubbish").unwrap();
        fs::write(temporary.path().join("b"), "rubbish").unwrap();
        fs::create_dir(temporary.path().join("a")).unwrap();
        let found = folder(temporary.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert!(found.iter().all(|conf| !conf.problems.is_empty()));
    }
}
