//! Writes the files of a plan so that they can be put back: originals first, then a journal, then each file by a rename.

use std::fmt;
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::plan::{NewFile, Plan};
use super::{FOLDER, LoginError, services};

/// Originals and journal, below [`FOLDER`].
const UNDO: &str = "undo";

/// What was done to one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    path: PathBuf,
    /// The name of its copy, and whose it was; `None` if it was not there.
    original: Option<Original>,
    /// SHA-256 of what was written, in hexadecimal.
    written: String,
    /// The same of what we had written before that, which is still there if we were stopped half-way.
    replaced: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Original {
    copy: String,
    mode: u32,
    uid: u32,
    gid: u32,
}

/// What was done to every file, in the order in which it was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    entries: Vec<Entry>,
}

/// How a file stands beside its journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// As we wrote it.
    Written,
    /// As it was before, because we were stopped half-way.
    Before,
    /// Neither: somebody else changed or removed it.
    Changed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Written => "as written ",
            Self::Before => "as before  ",
            Self::Changed => "CHANGED    ",
        })
    }
}

/// How many files were put back.
#[derive(Debug)]
pub(super) struct Applied {
    pub(super) files: usize,
}

impl Journal {
    fn path(root: &Path) -> PathBuf {
        root.join(FOLDER).join(UNDO).join("journal.json")
    }

    /// Reads it; an empty one if nothing was done.
    pub(super) fn load(root: &Path) -> Result<Self, LoginError> {
        let path = Self::path(root);
        match read(&path)? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|_| LoginError::Unreadable(path)),
            None => Ok(Self::default()),
        }
    }

    fn save(&self, root: &Path) -> Result<(), LoginError> {
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        write_atomically(&Self::path(root), &text, 0o600, None)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether we wrote this file.
    pub(super) fn holds(&self, path: &Path) -> bool {
        self.entries.iter().any(|entry| entry.path == path)
    }

    /// What a file that we wrote held before.
    pub(super) fn original(&self, root: &Path, path: &Path) -> Option<Vec<u8>> {
        let original = self.entries.iter().find(|entry| entry.path == path)?.original.as_ref()?;
        fs::read(copy(root, original)).ok()
    }

    /// The PAM services that we changed.
    pub(super) fn services(&self) -> Vec<String> {
        let paths = self.entries.iter().map(|entry| &entry.path).filter(|path| path.starts_with(services::FOLDER));
        let names = paths.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
        names.filter(|name| name != services::RULE).collect()
    }

    /// How each file stands.
    pub(super) fn states(&self, root: &Path) -> Vec<(&Path, State)> {
        self.entries.iter().map(|entry| (entry.path.as_path(), entry.state(root))).collect()
    }
}

impl Entry {
    fn state(&self, root: &Path) -> State {
        let path = root.join(&self.path);
        // Neither we nor whoever was before us left a link here.
        if path.is_symlink() {
            return State::Changed;
        }
        let now = fs::read(path).ok();
        let before = self.original.as_ref().and_then(|original| fs::read(copy(root, original)).ok());
        match &now {
            Some(now) if [Some(&self.written), self.replaced.as_ref()].contains(&Some(&digest(now))) => State::Written,
            now if *now == before => State::Before,
            _ => State::Changed,
        }
    }
}

fn copy(root: &Path, original: &Original) -> PathBuf {
    root.join(FOLDER).join(UNDO).join(&original.copy)
}

/// Writes a plan. Whatever stops it half-way, the journal says how to go back.
///
/// A file that was there before us and that somebody has changed since we wrote it stays as it is: written anew from what it
/// was once, it would lose the change unasked, and a user whose phone is lost has to be taken out all the same. Gives those.
pub(super) fn apply(root: &Path, plan: &Plan) -> Result<Vec<PathBuf>, LoginError> {
    // Written anew, a link would be a file, and what it leads to would be as before.
    if let Some(link) = plan.files.iter().find(|file| is_link_of_others(root, &file.path)) {
        return Err(LoginError::Link(Path::new("/").join(&link.path)));
    }
    let undo = root.join(FOLDER).join(UNDO);
    fs::create_dir_all(&undo).map_err(|source| LoginError::File { what: "making", path: undo.clone(), source })?;
    let mut journal = Journal::load(root)?;
    let theirs = journal.entries.iter().filter(|entry| entry.original.is_some());
    let changed = theirs.filter(|entry| entry.state(root) == State::Changed).map(|entry| entry.path.clone());
    let changed: Vec<PathBuf> = changed.filter(|path| plan.files.iter().any(|file| file.path == *path)).collect();
    let files = || plan.files.iter().filter(|file| !changed.contains(&file.path));
    for NewFile { path, content, .. } in files() {
        let written = digest(content.as_bytes());
        if let Some(entry) = journal.entries.iter_mut().find(|entry| entry.path == *path) {
            let ours = read(&root.join(path))?.filter(|_| entry.state(root) == State::Written);
            entry.replaced = ours.as_deref().map(digest);
            entry.written = written;
            continue;
        }
        let original = keep(root, path)?;
        journal.entries.push(Entry { path: path.clone(), original, written, replaced: None });
    }
    journal.save(root)?;
    for NewFile { path, content, mode } in files() {
        let original =
            journal.entries.iter().find(|entry| entry.path == *path).and_then(|entry| entry.original.as_ref());
        let mode = original.map_or(*mode, |original| original.mode);
        write_atomically(&root.join(path), content.as_bytes(), mode, original.map(|of| (of.uid, of.gid)))?;
    }
    Ok(changed)
}

/// One in the place of a file that we wrote counts as changed, and stays.
fn is_link_of_others(root: &Path, path: &Path) -> bool {
    root.join(path).is_symlink() && !Journal::load(root).is_ok_and(|journal| journal.holds(path))
}

/// Copies a file to where undo finds it.
fn keep(root: &Path, path: &Path) -> Result<Option<Original>, LoginError> {
    let file = root.join(path);
    let Some(bytes) = read(&file)? else { return Ok(None) };
    let metadata =
        fs::metadata(&file).map_err(|source| LoginError::File { what: "reading", path: file.clone(), source })?;
    let original = Original {
        copy: path.to_string_lossy().replace('/', "+"),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    };
    write_atomically(&copy(root, &original), &bytes, 0o600, None)?;
    Ok(Some(original))
}

/// Puts every file back: those first that name others, as they were written last.
///
/// # Errors
/// [`LoginError::Changed`] before anything is touched, unless forced, if a file is neither as written nor as before.
pub(super) fn undo(root: &Path, force: bool) -> Result<Applied, LoginError> {
    let journal = Journal::load(root)?;
    let changed = journal.states(root).into_iter().filter(|(_, state)| *state == State::Changed);
    let changed: Vec<String> = changed.map(|(path, _)| format!("/{}", path.display())).collect();
    if !changed.is_empty() && !force {
        return Err(LoginError::Changed(changed.join(", ")));
    }
    for entry in journal.entries.iter().rev() {
        let path = root.join(&entry.path);
        match &entry.original {
            Some(original) => {
                let copy = copy(root, original);
                let bytes = read(&copy)?.ok_or(LoginError::Unreadable(copy))?;
                write_atomically(&path, &bytes, original.mode, Some((original.uid, original.gid)))?;
            }
            None => remove(&path)?,
        }
    }
    let folder = root.join(FOLDER);
    fs::remove_dir_all(&folder).map_err(|source| LoginError::File { what: "removing", path: folder, source })?;
    Ok(Applied { files: journal.entries.len() })
}

fn remove(path: &Path) -> Result<(), LoginError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(LoginError::File { what: "removing", path: path.into(), source })
        }
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, LoginError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LoginError::File { what: "reading", path: path.into(), source }),
    }
}

/// Whoever reads the file sees the old one or the new one, also after a crash.
fn write_atomically(path: &Path, bytes: &[u8], mode: u32, owner: Option<(u32, u32)>) -> Result<(), LoginError> {
    let write = || -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)?;
        // PAM and pam.d(5) know no such name, so nobody takes it for a service.
        let new = folder.join(format!(".{}.pocketcard-new", path.file_name().unwrap_or_default().to_string_lossy()));
        let mut file = fs::File::create(&new)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        if let Some((uid, gid)) = owner {
            fchown(&file, Some(uid), Some(gid))?;
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        fs::File::open(folder)?.sync_all()
    };
    write().map_err(|source| LoginError::File { what: "writing", path: path.into(), source })
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::login::mapping::Mappings;
    use crate::login::mapping::tests::mapping;
    use crate::login::plan::{Module, tests::debian};

    fn tree(root: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
        let mut found = Vec::new();
        let mut folders = vec![root.join("etc")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let mode = fs::metadata(&path).unwrap().mode();
                    found.push((path.clone(), mode, fs::read(&path).unwrap()));
                }
            }
        }
        found.sort();
        found
    }

    fn mappings(users: &[&str]) -> Mappings {
        Mappings { module: Some(Module::PamPkcs11), users: users.iter().map(|user| mapping(user)).collect() }
    }

    fn set_up(root: &Path, users: &[&str]) {
        apply(root, &Plan::new(root, &mappings(users), &[]).unwrap()).unwrap();
    }

    #[test]
    fn undo_puts_every_byte_back() {
        let root = debian();
        let su = root.path().join("etc/pam.d/su");
        fs::set_permissions(&su, Permissions::from_mode(0o640)).unwrap();
        let before = tree(root.path());
        set_up(root.path(), &["alice"]);
        set_up(root.path(), &["alice", "carol"]);
        assert_eq!(fs::read_to_string(&su).unwrap(), "auth substack pocketcard-auth\n");
        assert_eq!(fs::metadata(&su).unwrap().mode() & 0o777, 0o640);
        let states = Journal::load(root.path()).unwrap();
        assert!(states.states(root.path()).iter().all(|(_, state)| *state == State::Written));
        undo(root.path(), false).unwrap();
        assert_eq!(tree(root.path()), before);
    }

    #[test]
    fn what_somebody_changed_since_is_not_lost_unasked() {
        let root = debian();
        let before = tree(root.path());
        set_up(root.path(), &["alice"]);
        let su = root.path().join("etc/pam.d/su");
        fs::write(&su, "# mine\n").unwrap();
        let rule = root.path().join("etc/pam.d/pocketcard-auth");
        let plan = Plan::new(root.path(), &mappings(&["alice", "carol"]), &[]).unwrap();
        assert_eq!(apply(root.path(), &plan).unwrap(), [Path::new("etc/pam.d/su")]);
        assert_eq!(fs::read(&su).unwrap(), b"# mine\n", "set-up and undo of one user leave it, too");
        assert!(fs::read_to_string(&rule).unwrap().contains("alice:carol"));
        let error = undo(root.path(), false).unwrap_err();
        assert!(matches!(&error, LoginError::Changed(paths) if paths == "/etc/pam.d/su"), "{error}");
        assert!(rule.exists(), "nothing is touched before all is known");
        undo(root.path(), true).unwrap();
        assert_eq!(tree(root.path()), before);
    }

    #[test]
    fn a_symbolic_link_is_never_written_over_unasked() {
        let root = debian();
        let (rule, elsewhere) = (root.path().join("etc/pam.d/pocketcard-auth"), root.path().join("elsewhere"));
        fs::write(&elsewhere, "theirs\n").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &rule).unwrap();
        let before = tree(root.path());
        let plan = Plan::new(root.path(), &mappings(&["alice"]), &[]).unwrap();
        let error = apply(root.path(), &plan).unwrap_err();
        assert!(matches!(&error, LoginError::Link(path) if path.ends_with("pam.d/pocketcard-auth")), "{error}");
        assert_eq!(tree(root.path()), before, "nothing was written");
        fs::remove_file(&rule).unwrap();
        set_up(root.path(), &["alice"]);
        // Somebody moves a file that we wrote and puts a link in its place.
        let su = root.path().join("etc/pam.d/su");
        fs::rename(&su, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &su).unwrap();
        let plan = Plan::new(root.path(), &mappings(&["alice", "carol"]), &[]).unwrap();
        assert_eq!(apply(root.path(), &plan).unwrap(), [Path::new("etc/pam.d/su")]);
        assert!(su.is_symlink());
        assert!(matches!(undo(root.path(), false).unwrap_err(), LoginError::Changed(_)));
    }

    #[test]
    fn whatever_stops_it_half_way_can_be_undone() {
        let root = debian();
        let before = tree(root.path());
        let plan = Plan::new(root.path(), &mappings(&["alice"]), &[]).unwrap();
        // As many of the files as were written before the power went.
        for written in 0..=plan.files.len() {
            apply(root.path(), &plan).unwrap();
            let journal = Journal::load(root.path()).unwrap();
            for entry in journal.entries.iter().skip(written) {
                match &entry.original {
                    Some(original) => {
                        fs::copy(copy(root.path(), original), root.path().join(&entry.path)).unwrap();
                    }
                    None => fs::remove_file(root.path().join(&entry.path)).unwrap(),
                }
            }
            undo(root.path(), false).unwrap();
            let content = |tree: Vec<(PathBuf, u32, Vec<u8>)>| -> Vec<_> {
                tree.into_iter().map(|(path, _, bytes)| (path, bytes)).collect()
            };
            assert_eq!(content(tree(root.path())), content(before.clone()), "{written} files written");
        }
    }

    #[test]
    fn whatever_stops_the_second_set_up_half_way_can_be_undone() {
        let root = debian();
        let before = tree(root.path());
        let plan = |users: &[&str]| Plan::new(root.path(), &mappings(users), &[]).unwrap();
        let files = plan(&["alice"]).files;
        for written in 0..=files.len() {
            set_up(root.path(), &["alice"]);
            apply(root.path(), &plan(&["alice", "carol"])).unwrap();
            for NewFile { path, content, .. } in files.iter().skip(written) {
                fs::write(root.path().join(path), content).unwrap();
            }
            // And once more, the third time.
            apply(root.path(), &plan(&["carol"])).unwrap();
            for NewFile { path, content, .. } in files.iter().skip(written) {
                fs::write(root.path().join(path), content).unwrap();
            }
            undo(root.path(), false).unwrap();
            assert_eq!(tree(root.path()), before, "{written} files written");
        }
    }
}
