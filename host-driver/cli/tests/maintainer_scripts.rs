//! What the Debian package's own scripts do with what `pocketcard login setup` wrote.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

use sha2::{Digest, Sha256};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/debian/pocketcard/prerm");
const BEFORE: &str = "@include common-auth\n";
const WRITTEN: &str = "auth substack pocketcard-auth\n";

/// A root in which set-up changed one service.
fn set_up() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let undo = root.path().join("etc/pocketcard/login/undo");
    fs::create_dir_all(&undo).unwrap();
    fs::create_dir_all(root.path().join("etc/pam.d")).unwrap();
    fs::write(root.path().join("etc/pam.d/su"), WRITTEN).unwrap();
    fs::write(undo.join("etc+pam.d+su"), BEFORE).unwrap();
    let own = fs::metadata(&undo).unwrap();
    let digest: String = Sha256::digest(WRITTEN).iter().map(|byte| format!("{byte:02x}")).collect();
    let original = serde_json::json!({ "copy": "etc+pam.d+su", "mode": 0o644, "uid": own.uid(), "gid": own.gid() });
    let entry =
        serde_json::json!({ "path": "etc/pam.d/su", "original": original, "written": digest, "replaced": null });
    let journal = serde_json::json!({ "entries": [entry] });
    fs::write(undo.join("journal.json"), journal.to_string()).unwrap();
    let mappings = serde_json::json!({ "module": "pam_pkcs11", "users": [] });
    fs::write(root.path().join("etc/pocketcard/login/mappings.json"), mappings.to_string()).unwrap();
    root
}

/// As dpkg runs it, for the system in another folder.
fn prerm(root: &Path, arguments: &[&str]) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_pocketcard")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    Command::new("sh").arg(SCRIPT).args(arguments).env("DPKG_ROOT", root).env("PATH", path).output().unwrap()
}

fn su(root: &Path) -> String {
    fs::read_to_string(root.join("etc/pam.d/su")).unwrap()
}

#[test]
fn removal_takes_the_lines_out_of_pam() {
    let root = set_up();
    for arguments in [["upgrade", "0.2"], ["deconfigure", "in-favour"], ["failed-upgrade", "0.1"]] {
        assert!(prerm(root.path(), &arguments).status.success());
        assert_eq!(su(root.path()), WRITTEN, "{arguments:?}");
    }
    let output = prerm(root.path(), &["remove"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(su(root.path()), BEFORE);
    assert!(!root.path().join("etc/pocketcard/login").exists());
    let again = prerm(root.path(), &["remove"]);
    assert!(again.status.success() && again.stdout.is_empty(), "{again:?}");
}

#[test]
fn a_removal_goes_on_if_that_cannot_be_and_says_where_things_are() {
    let root = set_up();
    fs::write(root.path().join("etc/pam.d/su"), "# mine\n").unwrap();
    let output = prerm(root.path(), &["remove"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(su(root.path()), "# mine\n");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("/etc/pocketcard/login/undo."), "{said}");
}
