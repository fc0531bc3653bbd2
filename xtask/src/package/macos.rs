//! What of the package for macOS can be checked on Linux: that it is well-formed and complete. None of it has run on a Mac.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use pocketcard_ipc::accounts::UserId;
use pocketcard_ipc::driver::{DeviceName, Trust};
use serde_json::Value;

use crate::workspace::{command, root};

/// A file of `packaging/`.
fn packaging(name: &str) -> PathBuf {
    root().join("packaging").join(name)
}

/// Every file below a folder, by its name there.
fn tree(folder: &Path, below: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            tree(&path, below, found);
        } else {
            found.push(path.strip_prefix(below).unwrap().to_string_lossy().into_owned());
        }
    }
}

/// Runs `build-pkg --stage-only` on made-up programs.
fn staged() -> (tempfile::TempDir, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let built = folder.path().join("built");
    let stage = folder.path().join("stage");
    fs::create_dir(&built).unwrap();
    for program in ["libifd_pocketcard.dylib", "pocketcardd", "pocketcard"] {
        fs::write(built.join(program), program).unwrap();
    }
    let script = packaging("macos/build-pkg");
    let mut build = command("sh", [script.as_path(), Path::new("--stage-only"), &built, Path::new("1.2.3"), &stage]);
    assert!(build.status().unwrap().success());
    let mut found = Vec::new();
    tree(&stage, &stage, &mut found);
    found.sort();
    (folder, found)
}

/// A property list as JSON, read by Python, which has the one reader of them that is not Apple's on every Linux.
fn property_list(path: &Path) -> Value {
    let program = "import json, plistlib, sys; print(json.dumps(plistlib.load(open(sys.argv[1], 'rb'))))";
    let output = command("python3", ["-c", program]).arg(path).output().unwrap();
    assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_tree_is_what_macos_looks_for() {
    let (_folder, found) = staged();
    assert_eq!(
        found,
        [
            "Applications/Pocketcard.app/Contents/Info.plist",
            "Applications/Pocketcard.app/Contents/MacOS/pocketcardd",
            "Library/LaunchAgents/io.github.pocketcard.daemon.plist",
            "usr/local/bin/pocketcard",
            "usr/local/etc/pocketcard/pocketcardd.toml",
            "usr/local/etc/pocketcard/reader.conf",
            "usr/local/libexec/SmartCardServices/drivers/ifd-pocketcard.bundle/Contents/Info.plist",
            "usr/local/libexec/SmartCardServices/drivers/ifd-pocketcard.bundle/Contents/MacOS/libifd_pocketcard.dylib",
            "usr/local/libexec/pocketcard/reader-conf",
            "usr/local/libexec/pocketcard/uninstall",
            "usr/local/share/man/man5/pocketcardd.toml.5",
            "usr/local/share/man/man8/pocketcardd.8",
        ]
    );
}

#[test]
fn the_folder_of_sockets_and_pairs_is_taken_by_nobody_through_a_link() {
    let place = tempfile::tempdir().unwrap();
    let place = fs::canonicalize(place.path()).unwrap();
    let (folder, theirs) = (place.join("var/pocketcard"), place.join("theirs"));
    let own_user = fs::metadata(&place).unwrap().uid();
    // Only root can give a folder away.
    let owner = if own_user == 0 { 12345 } else { own_user };
    let own = || {
        let script = packaging("macos/scripts/own-folder");
        command("sh", [script, folder.clone(), owner.to_string().into()]).output().unwrap().status.success()
    };
    let stands = |path: &Path| {
        let metadata = fs::symlink_metadata(path).unwrap();
        (metadata.uid(), metadata.permissions().mode() & 0o777)
    };
    fs::create_dir_all(folder.parent().unwrap()).unwrap();
    fs::create_dir_all(theirs.join("state")).unwrap();
    let (before, within) = (stands(&theirs), stands(&theirs.join("state")));
    symlink(&theirs, &folder).unwrap();
    assert!(!own(), "the folder itself");
    fs::remove_file(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    symlink(&theirs, folder.join("state")).unwrap();
    assert!(!own(), "the folder in it");
    assert_eq!((stands(&theirs), stands(&theirs.join("state"))), (before, within));
    fs::remove_dir_all(&folder).unwrap();
    for _ in 0..2 {
        assert!(own());
        assert_eq!(stands(&folder), (owner, 0o755));
        assert_eq!(stands(&folder.join("state")), (owner, 0o700));
    }
    if own_user == 0 {
        chown(&folder, Some(54321), None).unwrap();
        assert!(!own(), "whoever has pairs there keeps them");
    }
}

#[test]
fn the_property_lists_have_what_macos_asks_for() {
    if !crate::workspace::works(&mut command("python3", ["--version"])) {
        println!("SKIPPED: python3, which reads property lists, is not installed");
        return;
    }
    let (folder, _) = staged();
    let stage = folder.path().join("stage");
    let bundle = stage.join("usr/local/libexec/SmartCardServices/drivers/ifd-pocketcard.bundle/Contents");
    let driver = property_list(&bundle.join("Info.plist"));
    let app_folder = stage.join("Applications/Pocketcard.app/Contents");
    let app = property_list(&app_folder.join("Info.plist"));
    for (list, folder, kind) in [(&driver, &bundle, "BNDL"), (&app, &app_folder, "APPL")] {
        assert_eq!(list["CFBundlePackageType"], kind);
        assert_eq!((&list["CFBundleVersion"], &list["CFBundleShortVersionString"]), (&"1.2.3".into(), &"1.2.3".into()));
        let executable = list["CFBundleExecutable"].as_str().unwrap();
        assert!(folder.join("MacOS").join(executable).is_file(), "{executable}");
    }
    assert_ne!(driver["CFBundleIdentifier"], app["CFBundleIdentifier"], "one of the two would not be loaded");
    // reader.conf names the bundle: with these a USB device would.
    for key in ["ifdVendorID", "ifdProductID", "ifdFriendlyName"] {
        assert!(driver.get(key).is_none(), "{key}");
    }
    assert!(app["NSBluetoothAlwaysUsageDescription"].as_str().unwrap().len() > 20, "without it macOS ends the program");
    assert_eq!(app["LSUIElement"], true);

    let agent = property_list(&stage.join("Library/LaunchAgents/io.github.pocketcard.daemon.plist"));
    assert_eq!(agent["Label"], "io.github.pocketcard.daemon");
    assert_eq!(agent["AssociatedBundleIdentifiers"][0], app["CFBundleIdentifier"]);
    let arguments: Vec<&str> = agent["ProgramArguments"].as_array().unwrap().iter().flat_map(Value::as_str).collect();
    for file in [arguments[0], arguments[2]] {
        assert!(stage.join(file.trim_start_matches('/')).is_file(), "{file}");
    }
    assert_eq!(agent["Umask"], 0o077);
}

#[test]
fn the_readers_entry_comes_and_goes_and_leaves_those_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("reader.conf");
    let run = |action: &str| {
        let mut script = command("sh", [packaging("macos/reader-conf"), action.into()]);
        script.env("POCKETCARD_READER_CONF", &target);
        assert!(script.env("POCKETCARD_READER_SOURCE", packaging("macos/reader.conf")).status().unwrap().success());
    };
    run("install");
    let alone = fs::read_to_string(&target).unwrap();
    let mut script = command("sh", [packaging("macos/reader-conf"), "install".into()]);
    script.env("POCKETCARD_READER_CONF", &target).env("POCKETCARD_READER_USER", "501");
    assert!(script.env("POCKETCARD_READER_SOURCE", packaging("macos/reader.conf")).status().unwrap().success());
    let named = fs::read_to_string(&target).unwrap();
    let device = |text: &str| -> DeviceName {
        text.lines().find_map(|line| line.strip_prefix("DEVICENAME ")).unwrap().parse().unwrap()
    };
    assert_eq!((device(&alone).trust(), device(&named).trust()), (Trust::System, Trust::User(UserId(501))));
    run("remove");
    assert!(!target.exists(), "it was not there before");

    let others = "# somebody's\nFRIENDLYNAME \"Other\"\nLIBPATH /other.bundle\n";
    fs::write(&target, others).unwrap();
    for _ in 0..2 {
        run("install");
        assert_eq!(fs::read_to_string(&target).unwrap(), format!("{others}{alone}"));
    }
    run("remove");
    assert_eq!(fs::read_to_string(&target).unwrap(), others);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something was left behind");
}

#[test]
fn the_driver_understands_its_device_name_on_either_system() {
    for (file, driver) in [
        ("macos/reader.conf", "/usr/local/libexec/SmartCardServices/drivers/ifd-pocketcard.bundle"),
        ("debian/libifd-pocketcard/reader.conf", "/usr/lib/pcsc/drivers/serial/libifd_pocketcard.so"),
    ] {
        let text = fs::read_to_string(packaging(file)).unwrap();
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim();
        let name: DeviceName = value("DEVICENAME").parse().unwrap();
        assert_eq!((name.slots(), name.trust()), (4, Trust::System), "{file}");
        assert_eq!(value("LIBPATH"), driver);
    }
}
