//! The PAM services: which there are, and the one line that changes in each.

use std::fs;
use std::path::Path;

use super::LoginError;

/// Where they are.
pub(super) const FOLDER: &str = "etc/pam.d";
/// The service that holds the rule for everybody else to include.
pub(super) const RULE: &str = "pocketcard-auth";
/// How Debian's services ask for the password.
const BEFORE: &str = "@include common-auth";
/// A substack, so that what the service wants to do after it (keyrings, groups) is done as before.
const AFTER: &str = "auth substack pocketcard-auth";
/// Where people sign in, if it is installed: consoles, greeters, screen lockers.
const USUAL: [&str; 14] = [
    "login",
    "su",
    "su-l",
    "sudo",
    "sudo-i",
    "lightdm",
    "gdm-password",
    "sddm",
    "i3lock",
    "swaylock",
    "xscreensaver",
    "xsecurelock",
    "cinnamon-screensaver",
    "mate-screensaver",
];

/// Services of a computer, as far as a phone is to sign in to them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Services {
    /// Those whose file changes, with its new content.
    pub(super) changed: Vec<(String, String)>,
    /// Those that take the rule from one of those, such as `su-l` from `su`.
    pub(super) covered: Vec<String>,
    /// Those that were named but do not ask for the password as Debian's do.
    pub(super) unfit: Vec<String>,
    /// Those that are symbolic links to a file that stays as it is. A file in the place of the link would not follow the
    /// other any more.
    pub(super) links: Vec<String>,
}

impl Services {
    /// Looks at the services that were named, or at the usual ones.
    ///
    /// - `before`: a service's content before we changed it, if we did.
    pub(super) fn find(
        root: &Path,
        named: &[String],
        before: impl Fn(&Path) -> Option<Vec<u8>>,
    ) -> Result<Self, LoginError> {
        let folder = root.join(FOLDER);
        if !folder.join("common-auth").is_file() {
            return Err(LoginError::NotDebian);
        }
        let mut found = Self::default();
        let usual: Vec<String> = USUAL.map(str::to_owned).into();
        for name in if named.is_empty() { &usual } else { named } {
            // A name, not a path: the file must lie where PAM looks for it.
            let plain = !name.is_empty() && !name.contains('/') && !name.starts_with('.') && name != RULE;
            let text = plain.then(|| fs::read_to_string(folder.join(name)).ok()).flatten();
            let original = before(&Path::new(FOLDER).join(name)).and_then(|bytes| String::from_utf8(bytes).ok());
            let fits = text.as_deref().is_some_and(|text| with_rule(text).is_some());
            if original.is_none() && folder.join(name).is_symlink() && (fits || !named.is_empty()) {
                found.links.push(name.clone());
                continue;
            }
            match original.or(text) {
                Some(text) => match with_rule(&text) {
                    Some(new) => found.changed.push((name.clone(), new)),
                    None if named.is_empty() => {}
                    None => found.unfit.push(name.clone()),
                },
                None if named.is_empty() => {}
                None => found.unfit.push(name.clone()),
            }
        }
        if found.changed.is_empty() {
            let shown = if named.is_empty() { "none has the usual line".to_owned() } else { named.join(", ") };
            return Err(LoginError::NoService(shown));
        }
        // A link from one service to another goes with it.
        let follows = |name: &String| {
            let target = folder.join(name).canonicalize().ok();
            found.changed.iter().any(|(changed, _)| folder.join(changed).canonicalize().ok() == target)
        };
        let (followers, links) = std::mem::take(&mut found.links).into_iter().partition(follows);
        (found.covered, found.links) = (followers, links);
        let is_changed = |name: &str| found.changed.iter().any(|(changed, _)| changed == name);
        for name in USUAL.into_iter().filter(|name| !is_changed(name)) {
            let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
            if text.lines().filter_map(included).any(is_changed) {
                found.covered.push(name.to_owned());
            }
        }
        Ok(found)
    }
}

/// The service whose way of asking a line takes over. Spec: pam.d(5)
fn included(line: &str) -> Option<&str> {
    match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["@include", name] | ["auth" | "-auth", "include" | "substack", name] => Some(name),
        _ => None,
    }
}

/// A service with the rule in place of the password; `None` if it does not have exactly one such line.
fn with_rule(text: &str) -> Option<String> {
    let is_place = |line: &&str| line.trim_end() == BEFORE;
    if text.lines().filter(is_place).count() != 1 {
        return None;
    }
    // Line by line: the same words may stand in a comment before it.
    let lines = text.split_inclusive('\n').map(|line| match is_place(&line) {
        true => line.replacen(BEFORE, AFTER, 1),
        false => line.to_owned(),
    });
    Some(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(FOLDER)).unwrap();
        for (name, text) in files {
            fs::write(root.path().join(FOLDER).join(name), text).unwrap();
        }
        root
    }

    #[test]
    fn one_line_changes_and_nothing_else() {
        let root = folder(&[
            ("common-auth", ""),
            ("su", "# common-auth\nauth sufficient pam_rootok.so\n@include common-auth\n@include common-account\n"),
            ("su-l", "auth include su\n"),
            ("i3lock", "auth include login\n"),
            ("twice", "@include common-auth\n@include common-auth\n"),
        ]);
        let found = Services::find(root.path(), &[], |_| None).unwrap();
        let su =
            "# common-auth\nauth sufficient pam_rootok.so\nauth substack pocketcard-auth\n@include common-account\n";
        assert_eq!(found.changed, [("su".to_owned(), su.to_owned())]);
        // i3lock asks as login does, which is not there.
        assert_eq!(found.covered, ["su-l"]);
        let again = Services::find(root.path(), &["su".to_owned()], |_| None).unwrap();
        assert_eq!(again.covered, ["su-l"], "also when services are named, as at every later set-up");
        for named in ["su-l", "twice", "nothing", "../passwd", "", "pocketcard-auth"] {
            let error = Services::find(root.path(), &[named.to_owned()], |_| None).unwrap_err();
            assert!(matches!(error, LoginError::NoService(_)), "{named}: {error}");
        }
        let commented = "#@include common-auth\n@include common-auth\n";
        assert_eq!(with_rule(commented).unwrap(), "#@include common-auth\nauth substack pocketcard-auth\n");
        let both = ["su".to_owned(), "twice".to_owned()];
        assert_eq!(Services::find(root.path(), &both, |_| None).unwrap().unfit, ["twice"]);
    }

    #[test]
    fn a_link_stays_a_link() {
        let root = folder(&[("common-auth", ""), ("login", "@include common-auth\n")]);
        let (etc, outside) = (root.path().join(FOLDER), root.path().join("sudo"));
        fs::write(&outside, "@include common-auth\n").unwrap();
        std::os::unix::fs::symlink(&outside, etc.join("sudo")).unwrap();
        std::os::unix::fs::symlink("login", etc.join("i3lock")).unwrap();
        for named in [vec![], ["i3lock", "login", "sudo"].map(str::to_owned).to_vec()] {
            let found = Services::find(root.path(), &named, |_| None).unwrap();
            assert_eq!(found.changed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["login"]);
            assert_eq!((found.covered, found.links), (vec!["i3lock".to_owned()], vec!["sudo".to_owned()]));
        }
        let error = Services::find(root.path(), &["sudo".to_owned()], |_| None).unwrap_err();
        assert!(matches!(error, LoginError::NoService(_)), "{error}");
    }

    #[test]
    fn a_service_that_was_changed_is_changed_from_its_original() {
        let root = folder(&[("common-auth", ""), ("su", "auth substack pocketcard-auth\n")]);
        let found = Services::find(root.path(), &[], |_| Some(b"@include common-auth\n".to_vec())).unwrap();
        assert_eq!(found.changed[0].1, "auth substack pocketcard-auth\n");
        assert!(matches!(Services::find(folder(&[]).path(), &[], |_| None), Err(LoginError::NotDebian)));
    }
}
